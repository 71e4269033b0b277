"""The worker's end of the pipe: a thread that reads it, and ``send`` for everybody.

What must be quick is answered by the reader: a Ping, a Cancel, the end of the server.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time

from voice_worker import messages as m
from voice_worker.protocol import Connection, JobState, ProtocolError, Role

EXIT_PROTOCOL = 76  # EX_PROTOCOL of sysexits.h

Arrival = tuple[float, m.Message]


class Pipe:
    """``inbox`` holds what arrived and when (``time.perf_counter``), pings apart, in order."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._connection = Connection(Role.WORKER)
        self._state = threading.Lock()  # guards _connection and _cancelled
        self._writing = threading.Lock()  # keeps bytes in the order of Connection.send
        self._cancelled: set[int] = set()
        self.inbox: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._read_forever, name="voice-worker-reader", daemon=True).start()

    def is_cancelled(self, job: int) -> bool:
        """True from the moment the Cancel arrived until the job is over."""
        return job in self._cancelled

    def send(self, *messages: m.Message) -> None:
        """Write the messages at once, in order. Blocks while the pipe is full.

        Raises LocalProtocolError for one that is not legal; those before it are sent.
        """
        with self._writing:
            data = b""
            try:
                with self._state:
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

    def _read_forever(self) -> None:
        try:
            while data := os.read(self._reader, 1 << 16):
                arrived = time.perf_counter()
                with self._state:
                    received = self._connection.receive_data(data)
                    for message in received:
                        if isinstance(message, m.Cancel) and self._is_running(message.job):
                            self._cancelled.add(message.job)
                for message in received:
                    if isinstance(message, m.Ping):
                        self.send(m.Pong(message.nonce))
                    else:
                        self.inbox.put((arrived, message))
        except ProtocolError as exc:
            print(
                f"voice_worker: the server broke the protocol: {exc}", file=sys.stderr, flush=True
            )
            os._exit(EXIT_PROTOCOL)
        except OSError:
            pass
        os._exit(0)  # the server is gone; never outlive it

    def _is_running(self, job: int) -> bool:
        return self._connection.job_state(job) is not JobState.OVER
