"""The worker's end of the pipe. The loop that runs the jobs reads it too: no thread stands between
a message and the work on it.

What must not wait for that loop, a Ping and the end of the server, a watch sees to once a second.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections import deque

from voice_worker import messages as m
from voice_worker.protocol import Connection, JobState, ProtocolError, Role

EXIT_PROTOCOL = 76  # EX_PROTOCOL of sysexits.h
WATCH_INTERVAL = 1.0  # seconds

Arrival = tuple[float, m.Message]


class Pipe:
    """What arrives is an ``Arrival``: when (``time.perf_counter``), and the message. Pings do not:
    they are answered here. ``get``, ``get_ready`` and ``is_cancelled`` are for one thread.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._connection = Connection(Role.WORKER)
        self._lock = threading.Lock()  # who holds it reads and writes
        self._poll = select.poll()
        self._poll.register(reader, select.POLLIN)
        self._cancelled: set[int] = set()
        self._inbox: deque[Arrival] = deque()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="voice-worker-watch", daemon=True).start()

    def get(self) -> Arrival:
        """The next to arrive. Blocks until there is one."""
        with self._lock:
            while not self._inbox:
                self._read()
            return self._inbox.popleft()

    def get_ready(self) -> list[Arrival]:
        """All that has arrived."""
        with self._lock:
            self._read_ready()
            arrivals = list(self._inbox)
            self._inbox.clear()
            return arrivals

    def is_cancelled(self, job: int) -> bool:
        """True from the moment the Cancel arrived until the job is over. Costs a microsecond."""
        with self._lock:
            self._read_ready()
            return job in self._cancelled

    def send(self, *messages: m.Message) -> None:
        """Write the messages at once, in order. Blocks while the pipe is full.

        Raises LocalProtocolError for one that is not legal; those before it are sent.
        """
        with self._lock:
            self._send(*messages)

    def _send(self, *messages: m.Message) -> None:
        data = b""
        try:
            for message in messages:
                data += self._connection.send(message)
                if isinstance(message, m.Done | m.Failed) and message.job is not None:
                    self._cancelled.discard(message.job)
        finally:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._writer, data) :]
        except OSError:
            os._exit(0)  # the server is gone; never outlive it

    def _read_ready(self) -> None:
        while self._poll.poll(0):
            self._read()

    def _read(self) -> None:
        """Take what is in the pipe; blocks until there is something."""
        try:
            data = os.read(self._reader, 1 << 16)
        except OSError:
            data = b""
        if not data:
            os._exit(0)  # the server is gone; never outlive it
        arrived = time.perf_counter()
        try:
            received = self._connection.receive_data(data)
        except ProtocolError as exc:
            print(
                f"voice_worker: the server broke the protocol: {exc}", file=sys.stderr, flush=True
            )
            os._exit(EXIT_PROTOCOL)
        for message in received:
            if isinstance(message, m.Ping):
                self._send(m.Pong(message.nonce))
                continue
            if isinstance(message, m.Cancel) and self._is_running(message.job):
                self._cancelled.add(message.job)
            self._inbox.append((arrived, message))

    def _is_running(self, job: int) -> bool:
        return self._connection.job_state(job) is not JobState.OVER

    def _watch(self) -> None:
        """While the loop computes, or a model loads, nobody else reads."""
        while True:
            time.sleep(WATCH_INTERVAL)
            if self._lock.acquire(blocking=False):
                try:
                    self._read_ready()
                finally:
                    self._lock.release()
