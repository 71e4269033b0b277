import pytest

from voice_server.core.playback import FIRST_FRAME, LONGEST_FRAME, SAMPLE_RATE, Playback


def test_sound_is_heard_in_real_time_from_the_first_frame_on():
    playback = Playback()
    playback.send(SAMPLE_RATE, 10.0, None)
    assert playback.heard(10.25) == SAMPLE_RATE // 4
    assert playback.lead(10.25) == pytest.approx(0.75)
    assert playback.dry_at == pytest.approx(11.0)


def test_nobody_hears_more_than_was_sent():
    playback = Playback()
    playback.send(2400, 1.0, None)
    assert playback.heard(99.0) == 2400
    assert playback.lead(99.0) == 0.0


def test_a_gap_is_an_underrun_when_its_sound_was_owed_before_the_lead_ended():
    playback = Playback()
    playback.send(2400, 0.0, 0.0)  # dry at 0.1
    playback.send(2400, 0.3, 0.05)
    assert playback.underruns == 1


def test_a_gap_because_the_model_was_silent_is_no_underrun():
    playback = Playback()
    playback.send(2400, 0.0, 0.0)  # dry at 0.1
    playback.send(2400, 0.3, 0.29)
    assert playback.underruns == 0


def test_the_clock_stands_still_while_there_is_nothing_to_hear():
    playback = Playback()
    playback.send(2400, 0.0, 0.0)
    playback.send(2400, 5.0, 4.9)
    assert playback.heard(5.05) == 2400 + 1200


def test_a_report_of_the_client_corrects_the_clock():
    playback = Playback()
    playback.send(SAMPLE_RATE, 0.0, None)
    playback.report(2400, 0.5)  # its sound card began late
    assert playback.heard(0.6) == pytest.approx(2400 + 2400, abs=1)
    playback.report(10 * SAMPLE_RATE, 0.6)
    assert playback.heard(0.6) == SAMPLE_RATE


def test_a_listener_busy_with_the_turn_before_begins_later():
    playback = Playback(starts_at=3.0)
    playback.send(2400, 1.0, None)
    assert playback.heard(2.0) == 0
    assert playback.heard(3.05) == 1200
    assert playback.dry_at == pytest.approx(3.1)


def test_frames_grow_with_the_lead():
    playback = Playback()
    sizes = []
    for _ in range(8):
        size = playback.next_frame(0.0)
        sizes.append(size)
        playback.send(size, 0.0, None)
    assert sizes[0] == FIRST_FRAME
    assert sizes == sorted(sizes)
    assert sizes[-1] == LONGEST_FRAME
