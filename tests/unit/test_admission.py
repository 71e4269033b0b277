import pytest

from voice_server.core.admission import Load, admit, capacity
from voice_server.core.errors import BusyError


def test_a_fast_engine_carries_many_turns_on_few_slots():
    assert capacity(Load(slots=2, turns=0, rtf=0.002)) in (689, 690)


def test_an_engine_whose_segments_take_long_promises_half_of_its_work():
    assert capacity(Load(slots=2, turns=0, rtf=0.125)) == 8


def test_an_engine_slower_than_real_time_still_speaks_for_one_at_a_time():
    assert capacity(Load(slots=1, turns=0, rtf=1.5)) == 1


def test_a_turn_holds_its_slot_where_text_is_streamed():
    assert capacity(Load(slots=32, turns=0, rtf=0.01, takes_text=True)) == 32


def test_a_refusal_says_when_to_come_back():
    with pytest.raises(BusyError) as caught:
        admit(Load(slots=1, turns=1, rtf=0.9), backend="kokoro")
    assert caught.value.retry_after > 0
    assert caught.value.status == 503
    assert "--pool-size" in str(caught.value)


def test_one_key_leaves_room_for_the_others():
    full = Load(slots=8, turns=6, rtf=0.6, tenant_turns=6)
    with pytest.raises(BusyError, match="this key speaks 6 of the 8"):
        admit(full, backend="tone")
    admit(Load(slots=8, turns=6, rtf=0.6, tenant_turns=0), backend="tone")
    admit(Load(slots=8, turns=6, rtf=0.6), backend="tone")


def test_what_another_key_was_given_while_the_pool_was_quicker_is_not_at_this_ones_expense():
    slower = {"slots": 2, "rtf": 0.01, "largest_tenant": 150}  # 129 turns, 96 for a key
    assert capacity(Load(turns=0, **slower)) == 129
    admit(Load(turns=170, tenant_turns=20, **slower), backend="espeak")
    with pytest.raises(BusyError, match="espeak speaks 200 turns"):
        admit(Load(turns=200, tenant_turns=50, **slower), backend="espeak")
    with pytest.raises(BusyError):
        admit(Load(turns=170, tenant_turns=150, **slower), backend="espeak")
