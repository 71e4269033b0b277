from voice_server.core.sequencer import Sequencer


def drain(sequencer):
    out = []
    while (item := sequencer.pop()) is not None:
        out.append(item)
    return out


def test_a_faster_second_segment_waits_for_the_first():
    sequencer = Sequencer()
    sequencer.open(0)
    sequencer.open(1)
    sequencer.push(1, "b")
    sequencer.finish(1)
    assert drain(sequencer) == []
    sequencer.push(0, "a")
    sequencer.finish(0)
    assert drain(sequencer) == [(0, "a"), (0, None), (1, "b"), (1, None)]


def test_a_guess_is_held_until_it_is_released():
    sequencer = Sequencer()
    sequencer.open(0, is_held=True)
    sequencer.push(0, "a")
    sequencer.finish(0)
    assert drain(sequencer) == []
    sequencer.release(0)
    assert drain(sequencer) == [(0, "a"), (0, None)]


def test_a_dropped_guess_leaves_nothing_and_its_number_is_free_again():
    sequencer = Sequencer()
    sequencer.open(0, is_held=True)
    sequencer.push(0, "wrong")
    sequencer.drop(0)
    sequencer.push(0, "late")
    sequencer.open(0)
    sequencer.push(0, "right")
    assert drain(sequencer) == [(0, "right")]
