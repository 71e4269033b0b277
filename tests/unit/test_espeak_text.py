"""What eSpeak NG is given to read: nothing lost, every character traceable, no buffer overrun."""

import importlib.util
import re
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given

_path = Path(__file__).resolve().parents[2] / "backends" / "espeak" / "text.py"
_spec = importlib.util.spec_from_file_location("espeak_text", _path)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Script = _module.Script


def given_back(script, given_text: str) -> str:
    """What the script's characters were, by ``original``, without what was put in."""
    origins = [script.original(position) for position in range(len(script.text) + 1)]
    steps = zip(script.text, origins, origins[1:], strict=False)
    return "".join(char for char, here, after in steps if after > here)


def test_ordinary_text_is_untouched():
    text = "Well, it costs $25.50; that's 3 items, e.g. a well-known one (or two).\nFine."
    assert Script(text).text == text


def test_nul_becomes_a_space():
    assert Script("one\0two").text == "one two"


def test_tags_and_references_of_ssml_are_left_alone():
    long = "x" * 300
    text = f'<speak><mark name="{long}"/>One &amp; two, <sub alias="{long}">3</sub>.</speak>'
    assert Script(text, ssml=True).text == text


def test_text_between_the_tags_of_ssml_is_broken_up_as_any_other():
    chain = "a." * 300
    script = Script(f"<speak>{chain}<break/>{chain}</speak>", ssml=True)
    assert max(len(run) for run in re.split(r"<[^>]*>|\s+", script.text)) <= 25
    assert given_back(script, "") == f"<speak>{chain}<break/>{chain}</speak>"


def test_a_chain_of_dotted_letters_is_broken_up():
    script = Script("a." * 300)
    assert max(len(run) for run in script.text.split()) <= 25


def test_a_long_run_is_broken_at_its_punctuation_if_it_has_any():
    script = Script("天" * 20 + "、" + "地" * 30)
    assert script.text.split()[0] == "天" * 20 + "、"


def test_a_mark_stays_with_its_letter():
    runs = Script("e\u0301" * 200).text.split()
    assert not any(run.startswith("\u0301") for run in runs)


def test_a_clause_of_very_many_words_gets_commas():
    script = Script("word " * 500)
    clauses = script.text.split(",\n")
    assert len(clauses) > 2
    assert max(len(clause.split()) for clause in clauses) <= 50


@given(
    st.lists(
        st.sampled_from(
            ["a.", "word ", "7", "$", "天", "。", "\0", " ", "\n", "e\u0301", "😀", "x"]
        ),
        max_size=600,
    )
)
def test_nothing_is_lost_and_every_position_is_known(parts):
    text = "".join(parts)
    script = Script(text)
    assert given_back(script, text) == text.replace("\0", " ")
    for run in script.text.split():
        assert len(run.encode()) <= 104
