"""Coverage-guided fuzzing of what strangers send: ``make fuzz``.

python -m tests.fuzz client|worker [atheris' own flags, such as -max_total_time=60]

``client``: messages of ``/stream-tokens`` through the parser and a whole session. ``worker``:
bytes of a worker's pipe. Either gives a result or the documented error; anything else is a crash.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["voice_server", "voice_worker", "msgpack"]):
    from voice_server.core import wire
    from voice_server.core.errors import RequestError
    from voice_server.core.events import TurnOptions
    from voice_server.core.session import SpeechSession
    from voice_worker import messages as m
    from voice_worker.protocol import Connection, ProtocolError, Role


def client(data: bytes) -> None:
    """Messages, a line each: what a letter stands for, or a raw message."""
    session = SpeechSession(TurnOptions(timestamps=True))
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n")):
        with contextlib.suppress(RequestError):
            for event in _events(line):
                if isinstance(event, wire.Token | wire.Flush | wire.Done | wire.Cancel):
                    session.handle(event, float(number))
        while session.take(float(number)) is not None:
            pass


def _events(line: str) -> list[wire.Event]:
    # Most random lines are no JSON: the letters are a way past the parser.
    match line[:1]:
        case "t":
            return [wire.Token(line[1:])]
        case "f":
            return [wire.Flush()]
        case "d":
            return [wire.Done()]
        case "c":
            return [wire.Cancel(float(len(line)))]
        case _:
            return wire.parse(line)[1]


def worker(data: bytes) -> None:
    """What comes out of a worker, from its greeting on."""
    server = Connection(Role.SERVER)
    with contextlib.suppress(ProtocolError):
        if data[:1] != b"\0":
            greeting = Connection(Role.WORKER)
            server.receive_data(greeting.send(m.Hello("tone", "3.11", 1)))
            server.send(m.Load())
            greeting.receive_data(_load())
            server.receive_data(greeting.send(m.Ready({"sample_rate": 24_000})))
            server.send(m.Synthesize(1, 1, "hello", {}))
        for start in range(1, len(data), 7):
            server.receive_data(data[start : start + 7])


def _load() -> bytes:
    twin = Connection(Role.SERVER)
    twin.receive_data(Connection(Role.WORKER).send(m.Hello("tone", "3.11", 1)))
    return twin.send(m.Load())


if __name__ == "__main__":
    target = {"client": client, "worker": worker}[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()
