"""The worker protocol, message by message: what is legal, what breaks it, and what that says."""

import msgpack
import pytest

from voice_worker import messages as m
from voice_worker.legality import CONNECTION, JOB
from voice_worker.protocol import (
    Connection,
    JobState,
    LocalProtocolError,
    RemoteProtocolError,
    Role,
    State,
    VersionMismatch,
)

HELLO = m.Hello("tone", "3.11.0", 7)
INFO = {"sample_rate": 24_000, "slots": 1, "streams_text": False}


def framed(wire: object) -> bytes:
    body = msgpack.packb(wire)
    return len(body).to_bytes(4, "big") + body


def ready(slots: int = 1, *, streams_text: bool = False) -> tuple[Connection, Connection]:
    """A server's and a worker's end that have come as far as READY."""
    server, worker = Connection(Role.SERVER), Connection(Role.WORKER)
    server.receive_data(worker.send(HELLO))
    worker.receive_data(server.send(m.Load()))
    info = {**INFO, "slots": slots, "streams_text": streams_text}
    server.receive_data(worker.send(m.Ready(info)))
    return server, worker


def speaking(job: int = 1) -> tuple[Connection, Connection]:
    server, worker = ready()
    worker.receive_data(server.send(m.Synthesize(job, 1, "hello there", {})))
    return server, worker


def hostile(end: Connection, message: m.Message) -> None:
    """Deliver what no honest peer could send."""
    end.receive_data(framed(m.to_wire(message)))


def test_a_job_from_beginning_to_end():
    server, worker = speaking()
    words = m.Words(1, 1, [[0, 5, 0, 240], [6, 11, 240, 480]])
    for message in (words, m.Audio(1, 1, 0, b"ab" * 240), m.Audio(1, 1, 240, b"cd" * 240)):
        assert server.receive_data(worker.send(message)) == [message]
    done = m.Done(1, 1, 480, timing={"first": 0.01, "total": 0.02})
    assert server.receive_data(worker.send(done)) == [done]
    assert server.jobs == worker.jobs == ()
    assert server.job_state(1) is JobState.OVER
    assert server.slots == worker.slots == 1


def test_a_stray_print_is_an_error_before_its_body_is_awaited():
    server = Connection(Role.SERVER)
    with pytest.raises(RemoteProtocolError, match="frame of 1751477356 bytes exceeds"):
        server.receive_data(b"hello from a library\n")
    assert server.state is State.BROKEN
    with pytest.raises(RemoteProtocolError, match="broken"):
        server.receive_data(b"")


def test_our_own_mistake_does_not_break_the_connection():
    worker = Connection(Role.WORKER)
    worker.send(HELLO)
    with pytest.raises(LocalProtocolError, match="worker may not send Audio while greeted"):
        worker.send(m.Audio(1, 1, 0, b"ab"))
    assert worker.state is State.GREETED


def test_what_came_before_a_mistake_is_not_lost():
    server, worker = speaking()
    audio = m.Audio(1, 1, 0, b"ab")
    with pytest.raises(RemoteProtocolError) as caught:
        server.receive_data(worker.send(audio) + b"\xff" * 8)
    assert caught.value.received == [audio]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("role", list(Role))
def test_the_table_alone_decides_about_messages_beside_jobs(state, role):
    samples = {
        "Hello": HELLO,
        "Load": m.Load(),
        "Ready": m.Ready(INFO),
        "Failed(load)": m.Failed("no"),
        "Ping": m.Ping(3),
        "Prepare": m.Prepare(9, {}),
        "Shutdown": m.Shutdown(),
    }
    for kind, message in samples.items():
        connection = Connection(role)
        connection.state = state
        expected = CONNECTION[state].get((role, kind))
        if expected is None:
            with pytest.raises(LocalProtocolError, match=f"may not send .* while {state.value}"):
                connection.send(message)
            assert connection.state is state
        else:
            connection.send(message)
            assert connection.state is expected


def test_the_two_tables_name_the_same_messages_about_jobs():
    in_jobs = {key for table in JOB.values() for key in table}
    in_ready = set(CONNECTION[State.READY])
    assert in_jobs <= in_ready
    assert {kind for _, kind in in_ready - in_jobs} == {
        *("Synthesize", "Open", "Prepare", "Prepared", "Failed(request)"),
        *("Ping", "Pong", "Shutdown"),
    }


def test_a_version_mismatch_names_the_repair():
    server = Connection(Role.SERVER)
    with pytest.raises(VersionMismatch, match=r"protocol 99.*cli\.py backends install tone"):
        server.receive_data(framed({**m.to_wire(HELLO), "protocol": 99}))


def test_keys_of_a_later_version_are_ignored():
    server = Connection(Role.SERVER)
    assert server.receive_data(framed({**m.to_wire(HELLO), "colour": "red"})) == [HELLO]


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        ([1, 2], "a message is a map"),
        ({"type": "audio"}, "missing"),
        ({"type": "no such thing"}, "unknown message type"),
        ({"type": ["hello"]}, "unknown message type"),
        ({"job": 1}, "unknown message type"),
        ({1: 2}, "int is not allowed for map key"),
    ],
)
def test_a_frame_that_is_no_message_breaks_the_connection(wire, says):
    server = Connection(Role.SERVER)
    with pytest.raises(RemoteProtocolError, match=says):
        server.receive_data(framed(wire))
    assert server.state is State.BROKEN


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (m.Audio(1, 1, 0, b"abc"), "whole 16-bit samples"),
        (m.Audio(1, 1, 0, b""), "whole 16-bit samples"),
        (m.Audio(1, 1, 0, "ab"), "Audio.pcm must be bytes, not str"),  # type: ignore[arg-type]
        (m.Audio(1, 1, -1, b"ab"), "Audio.offset is -1"),
        (m.Audio(1, 1, 7, b"ab"), "at sample 7, expected 0"),
        (m.Audio(1, 2, 0, b"ab"), "another attempt"),
        (m.Audio(2, 1, 0, b"ab"), "job 2, which is over or was never begun"),
        (m.Audio(True, 1, 0, b"ab"), "Audio.job must be int, not bool"),
        (m.Words(1, 1, [[0, 1, 2]]), "Words.words holds"),
        (m.Words(1, 1, [[0, 1, 2, 1.5]]), "Words.words holds"),  # type: ignore[list-item]
        (m.Words(1, 1, [[3, 1, 0, 0]]), "Words.words holds"),
        (m.Words(1, 1, [[0, 12, 0, 0]]), "beyond the text"),
        (m.Done(1, 1, 5), "counts 5 samples, not 0"),
        (m.Done(1, 1, 0, cancelled=True), "nobody cancelled it"),
        (m.Done(1, 1, 0, timing={"first": float("nan")}), "finite seconds"),
        (m.Done(1, 1, 0, counts={"retries": -1}), "how often"),
        (m.Done(1, 1, 0, counts={"retries": 1.0}), "how often"),  # type: ignore[dict-item]
        (m.Failed("e", job=1, attempt=1, request=2), "a job and a request"),
        (m.Failed("e", job=1, attempt=1, code=""), "Failed.code is empty"),
        (m.Failed("e", request=5), "answers no request"),
        (m.Prepared(5), "answers no request"),
        (m.Pong(5), "answers no Ping"),
        (m.Ready(INFO), "worker may not send Ready while ready"),
        (m.Shutdown(), "worker may not send Shutdown"),
        (m.Synthesize(3, 1, "mine", {}), "worker may not send Synthesize"),
    ],
)
def test_a_hostile_worker_is_found_out(message, says):
    server, _ = speaking()
    with pytest.raises(RemoteProtocolError, match=says):
        hostile(server, message)
    assert server.state is State.BROKEN


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({**INFO, "slots": 0}, "slots"),
        ({**INFO, "slots": True}, "slots"),
        ({**INFO, "sample_rate": 24_000.0}, "sample_rate"),
        ({**INFO, "streams_text": 1}, "streams_text"),
        ({}, "sample_rate"),
    ],
)
def test_ready_must_say_what_the_server_relies_on(info, says):
    server, worker = Connection(Role.SERVER), Connection(Role.WORKER)
    server.receive_data(worker.send(HELLO))
    server.send(m.Load())
    with pytest.raises(RemoteProtocolError, match=says):
        hostile(server, m.Ready(info))


def test_an_extension_type_is_refused():
    server = Connection(Role.SERVER)
    body = msgpack.packb({"type": "hello", "backend": msgpack.ExtType(5, b"x")})
    with pytest.raises(RemoteProtocolError, match="extension type 5"):
        server.receive_data(len(body).to_bytes(4, "big") + body)


def test_no_more_jobs_than_slots():
    server, worker = ready(slots=2)
    for job in (1, 2):
        server.send(m.Synthesize(job, 1, "x", {}))
    with pytest.raises(LocalProtocolError, match="job 3 is one more than the 2 slots"):
        server.send(m.Synthesize(3, 1, "x", {}))
    for job in (1, 2):
        hostile(worker, m.Synthesize(job, 1, "x", {}))
    with pytest.raises(RemoteProtocolError, match="one more than"):
        hostile(worker, m.Synthesize(3, 1, "x", {}))


def test_a_job_is_never_begun_twice_except_as_a_later_attempt():
    server, worker = speaking()
    with pytest.raises(LocalProtocolError, match="attempt 1 at job 1 was begun before"):
        server.send(m.Synthesize(1, 1, "x", {}))
    server.receive_data(worker.send(m.Failed("e", job=1, attempt=1)))
    with pytest.raises(LocalProtocolError, match="begun before"):
        server.send(m.Synthesize(1, 1, "x", {}))
    worker.receive_data(server.send(m.Synthesize(1, 2, "x", {})))
    assert server.receive_data(worker.send(m.Audio(1, 2, 0, b"ab")))


def test_a_cancel_that_crosses_the_end_of_its_job_is_legal():
    server, worker = speaking()
    done = worker.send(m.Done(1, 1, 0))
    crossing = server.send(m.Cancel(1))
    assert worker.receive_data(crossing) == [m.Cancel(1)]
    assert server.receive_data(done) == [m.Done(1, 1, 0)]
    with pytest.raises(LocalProtocolError, match="over or was never begun"):
        server.send(m.Cancel(1))


def test_crossings_are_remembered_for_a_while_and_not_for_ever():
    server, worker = speaking(job=0)
    late = framed(m.to_wire(m.Cancel(0)))
    server.receive_data(worker.send(m.Done(0, 1, 0)))
    for job in range(1, 60):
        worker.receive_data(server.send(m.Synthesize(job, 1, "x", {})))
        server.receive_data(worker.send(m.Done(job, 1, 0)))
    assert worker.receive_data(late) == [m.Cancel(0)]
    for job in range(60, 200):
        worker.receive_data(server.send(m.Synthesize(job, 1, "x", {})))
        server.receive_data(worker.send(m.Done(job, 1, 0)))
    with pytest.raises(RemoteProtocolError, match="never begun"):
        worker.receive_data(late)


def test_nothing_is_said_about_a_job_after_its_cancel():
    server, worker = ready(slots=4, streams_text=True)
    worker.receive_data(server.send(m.Open(1, 1, {})))
    worker.receive_data(server.send(m.Cancel(1)))
    for message in (m.Text(1, "x"), m.EndText(1), m.Cancel(1), m.Credit(1, 5)):
        with pytest.raises(LocalProtocolError, match="while job 1 is cancelling"):
            server.send(message)
    server.receive_data(worker.send(m.Done(1, 1, 0, cancelled=True)))


def test_text_belongs_to_opened_jobs_and_ends_once():
    server, worker = ready(slots=2, streams_text=True)
    worker.receive_data(server.send(m.Open(1, 1, {})))
    worker.receive_data(server.send(m.Text(1, "hel")) + server.send(m.Text(1, "lo")))
    with pytest.raises(LocalProtocolError, match="may not send Done while job 1 is open"):
        worker.send(m.Done(1, 1, 0))
    worker.send(m.Words(1, 1, [[0, 5, 0, 100]]))
    with pytest.raises(LocalProtocolError, match="beyond the text"):
        worker.send(m.Words(1, 1, [[0, 6, 0, 100]]))
    worker.receive_data(server.send(m.EndText(1)))
    with pytest.raises(LocalProtocolError, match="may not send Text while job 1 is ended"):
        server.send(m.Text(1, "x"))
    worker.send(m.Done(1, 1, 0))


def test_open_needs_a_backend_that_streams_text():
    server, _ = ready(slots=2)
    with pytest.raises(LocalProtocolError, match="use Synthesize"):
        server.send(m.Open(1, 1, {}))


def test_audio_stops_at_the_credit():
    server, worker = ready(slots=2)
    worker.receive_data(server.send(m.Synthesize(1, 1, "x", {})))
    with pytest.raises(LocalProtocolError, match="beyond its credit of 0"):
        worker.send(m.Audio(1, 1, 0, b"ab"))
    worker.receive_data(server.send(m.Credit(1, 2)))
    server.receive_data(worker.send(m.Audio(1, 1, 0, b"abab")))
    with pytest.raises(RemoteProtocolError, match="beyond its credit of 2"):
        hostile(server, m.Audio(1, 1, 2, b"ab"))


def test_credit_only_grows():
    server, _ = ready(slots=2)
    server.send(m.Synthesize(1, 1, "x", {}))
    server.send(m.Credit(1, 10))
    with pytest.raises(LocalProtocolError, match="may only grow"):
        server.send(m.Credit(1, 9))
    server.send(m.Credit(1, -1))
    with pytest.raises(LocalProtocolError, match="may only grow"):
        server.send(m.Credit(1, 1000))
    with pytest.raises(LocalProtocolError, match=r"Credit\.samples is -2"):
        server.send(m.Credit(1, -2))


def test_a_resumed_job_goes_on_at_its_sample():
    server, worker = ready()
    resume = {"samples": 100, "crc": 1}
    worker.receive_data(server.send(m.Synthesize(1, 2, "x", {}, resume=resume)))
    with pytest.raises(LocalProtocolError, match="at sample 0, expected 100"):
        worker.send(m.Audio(1, 2, 0, b"ab"))
    server.receive_data(worker.send(m.Audio(1, 2, 100, b"ab")))
    server.receive_data(worker.send(m.Done(1, 2, 101)))


@pytest.mark.parametrize(
    "resume", [{}, {"samples": 0, "crc": 1}, {"samples": 5, "crc": 1 << 32}, {"samples": 5}]
)
def test_a_resume_must_be_complete(resume):
    server, _ = ready()
    with pytest.raises(LocalProtocolError, match="resume must be"):
        server.send(m.Synthesize(1, 2, "x", {}, resume=resume))


def test_a_message_that_is_refused_changes_nothing():
    server, worker = ready(slots=1)
    with pytest.raises(LocalProtocolError, match="exceeds 1048576"):
        server.send(m.Synthesize(1, 1, "x" * (1 << 20), {}))
    with pytest.raises(LocalProtocolError):
        server.send(m.Synthesize(1, 1, "x", {"object": object()}))
    assert server.jobs == ()
    worker.receive_data(server.send(m.Synthesize(1, 1, "x", {})))
    assert worker.jobs == (1,)


def test_a_lone_surrogate_is_harmless_and_keeps_its_place():
    server, worker = ready()
    (received,) = worker.receive_data(server.send(m.Synthesize(1, 1, "a\ud800b\0c", {})))
    assert received.text == "a?b\0c"


def test_requests_and_pings_are_answered_in_kind():
    server, worker = ready()
    worker.receive_data(server.send(m.Prepare(1, {})) + server.send(m.Prepare(2, {})))
    with pytest.raises(LocalProtocolError, match="not answered yet"):
        server.send(m.Prepare(2, {}))
    server.receive_data(worker.send(m.Failed("no", request=2)) + worker.send(m.Prepared(1)))
    worker.receive_data(server.send(m.Ping(5)) + server.send(m.Ping(6)))
    with pytest.raises(LocalProtocolError, match="answers no Ping"):
        worker.send(m.Pong(6))
    server.receive_data(worker.send(m.Pong(5)) + worker.send(m.Pong(6)))


def test_a_worker_that_is_asked_to_go_finishes_its_jobs():
    server, worker = speaking()
    worker.receive_data(server.send(m.Shutdown()))
    with pytest.raises(LocalProtocolError, match="may not send Synthesize while closing"):
        server.send(m.Synthesize(2, 1, "x", {}))
    server.receive_data(worker.send(m.Audio(1, 1, 0, b"ab")) + worker.send(m.Done(1, 1, 1)))
    server.receive_eof()
    assert server.state is State.BROKEN


def test_ready_may_cross_a_shutdown():
    server, worker = Connection(Role.SERVER), Connection(Role.WORKER)
    server.receive_data(worker.send(HELLO))
    worker.receive_data(server.send(m.Load()))
    crossing = worker.send(m.Ready(INFO))
    worker.receive_data(server.send(m.Shutdown()))
    server.receive_data(crossing)
    server.receive_eof()


def test_an_end_in_the_middle_says_what_was_missing():
    server, _ = speaking()
    with pytest.raises(RemoteProtocolError, match="it ended while ready"):
        server.receive_eof()
    server, _ = speaking()
    server.receive_data(b"\0\0\0\5ab")
    with pytest.raises(RemoteProtocolError, match="inside a frame"):
        server.receive_eof()
    server, _ = speaking()
    server.send(m.Shutdown())
    with pytest.raises(RemoteProtocolError, match="1 jobs unfinished"):
        server.receive_eof()


def test_a_failed_load_ends_the_connection_cleanly():
    server, worker = Connection(Role.SERVER), Connection(Role.WORKER)
    server.receive_data(worker.send(HELLO))
    worker.receive_data(server.send(m.Load({"device": "cuda"})))
    (failed,) = server.receive_data(worker.send(m.Failed("no GPU", code="no_cuda")))
    assert failed.code == "no_cuda"
    assert server.state is State.CLOSING
    server.receive_eof()
