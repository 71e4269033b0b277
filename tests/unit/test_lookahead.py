"""How much of a turn is made before it is heard: two segments at a time, or one where that does."""

from voice_server.core import events as e
from voice_server.core.delivery import Frame
from voice_server.core.session import SpeechSession
from voice_server.core.wire import Done, Token
from voice_server.speech.route import QUICK_BACKLOG, QUICK_RTF, Route
from voice_server.workers.load import Capacity

TEXT = "This is the first sentence of it. And here is the second one! What about the third?"
SOUND = bytes(150_000)


class Pool:
    """What a route asks of one."""

    def __init__(self, rtf: float | None) -> None:
        self._rtf = rtf

    def capacity(self) -> Capacity:
        return Capacity(1, self._rtf, None, 1.0)


def begun(commands: list[e.Command]) -> list[int]:
    return [command.segment for command in commands if isinstance(command, e.Synthesize)]


def options_for(rtf: float | None) -> e.TurnOptions:
    pool: Pool = Pool(rtf)
    options, quick = e.TurnOptions(), e.TurnOptions(lookahead=1, backlog=QUICK_BACKLOG)
    route = Route("x", pool, {}, "", {}, options, quick, 0)  # type: ignore[arg-type]
    return route.options_for_listener()


def begin(session: SpeechSession) -> list[int]:
    return begun(session.handle(Token(TEXT), 0.0)) + begun(session.handle(Done(), 0.0))


def test_a_slow_engine_makes_two_segments_at_a_time() -> None:
    for rtf in (None, QUICK_RTF, 2.0):
        assert begin(SpeechSession(options_for(rtf))) == [0, 1]


def test_a_quick_engine_makes_the_next_segment_when_the_client_has_taken_the_last() -> None:
    session = SpeechSession(options_for(QUICK_RTF / 2))
    assert begin(session) == [0]
    session.handle(e.AudioArrived(0, SOUND), 0.0)
    assert begun(session.handle(e.SegmentEnded(0), 0.0)) == []
    started: list[int] = []
    while not started:
        assert isinstance(session.take(0.0), Frame)
        started += begun(session.poll(0.0))
    assert started == [1]
    assert 0 < session.delivery.backlog < QUICK_BACKLOG
