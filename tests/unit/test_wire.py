import json

import pytest

from voice_server.core import wire
from voice_server.core.errors import RequestError, UnsupportedFormat


def parse(**fields):
    return wire.parse(json.dumps(fields))


def test_the_messages_of_the_seed():
    context, [config] = parse(voice="af_heart", opts={"speed": 1.0})
    assert context is None
    assert (config.voice, config.opts, config.is_extended) == ("af_heart", {"speed": 1.0}, False)
    assert parse(token="Hello ") == (None, [wire.Token("Hello ")])
    assert parse(done=True) == (None, [wire.Done()])


def test_several_things_in_one_message_take_effect_in_order():
    _, events = parse(token="Bye.", done=True, voice="x")
    assert [type(event) for event in events] == [wire.Configure, wire.Token, wire.Done]


def test_cancel_takes_played_ms_along():
    assert parse(cancel=True, played_ms=1840) == (None, [wire.Cancel(1.84)])
    assert parse(played_ms=1840) == (None, [wire.Played(1.84)])


def test_false_means_nothing():
    assert parse(done=False, flush=False, cancel=False) == (None, [])


def test_an_addition_makes_a_configuration_extended():
    _, [config] = parse(
        backend="tone", format={"encoding": "opus", "sample_rate": 48000}, timestamps=True,
        max_delay_ms=250, keep_open=True, framing="msgpack", seed=7, language="pt-BR",
        instructions="warm", context="a",
    )  # fmt: skip
    assert config.is_extended
    assert config.format == wire.AudioFormat("opus", 48000)
    assert config.max_delay == 0.25
    assert config.seed == 7


def test_a_format_may_be_a_name():
    assert parse(format="mp3")[1][0].format == wire.AudioFormat("mp3", 24000)


@pytest.mark.parametrize("language", ["en", "pt-BR", "zh-Hant-TW", "auto", "Portuguese"])
def test_a_language_is_a_tag_or_a_name(language):
    assert parse(language=language)[1][0].language == language


def test_resume_names_a_session_and_a_count():
    _, [config] = parse(resume={"session": "s", "samples": 48000})
    assert config.resume == wire.Resume("s", 48000)


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        ("{", "invalid_json", "not JSON"),
        ("", "invalid_json", "not JSON"),
        ("[" * 100_000, "invalid_json", "not JSON (nested too deeply"),
        ('{"seed": ' + "9" * 5_000 + "}", "invalid_json", "a number of too many digits"),
        ("[]", "bad_message", "a list"),
        ("7", "bad_message", "the number 7"),
        ('{"token": 7}', "bad_message", "token: expected text, got the number 7"),
        ('{"token": ["a"]}', "bad_message", "a list"),
        ('{"tokn": "a"}', "bad_message", "did you mean 'token'"),
        ('{"done": "yes"}', "bad_message", "done: expected true or false"),
        ('{"opts": [1]}', "bad_message", "opts: expected an object"),
        ('{"voice": 3}', "bad_message", "voice: expected text"),
        ('{"seed": true}', "bad_message", "seed: expected a whole number"),
        ('{"seed": -1}', "bad_message", "seed"),
        ('{"language": "no such tag!"}', "bad_message", "language"),
        ('{"framing": "xml"}', "bad_message", "framing"),
        ('{"played_ms": "x"}', "bad_message", "milliseconds"),
        ('{"played_ms": NaN}', "bad_message", "milliseconds"),
        ('{"played_ms": -1}', "bad_message", "milliseconds from 0 to 10^9"),
        ('{"max_delay_ms": 1e10}', "bad_message", "milliseconds from 0 to 10^9"),
        ('{"context": ""}', "bad_message", "context"),
        ('{"resume": {}}', "bad_message", "resume"),
        ('{"resume": {"session": "x", "sample": 1}}', "bad_message", "did you mean 'samples'"),
        ('{"format": {"rate": 8000}}', "bad_message", "unknown field 'format.rate'"),
        ('{"format": {"samplerate": 8000}}', "bad_message", "did you mean 'sample_rate'"),
        ('{"format": {"encoding": "aiff"}}', "unsupported_format", "one of pcm_s16le"),
        ('{"format": {"sample_rate": 1}}', "unsupported_format", "8000 to 48000"),
        ('{"format": {"encoding": ["x"]}}', "unsupported_format", "one of pcm_s16le"),
    ],
)
def test_what_cannot_be_understood_is_answered_with_what_was_expected(raw, code, says):
    with pytest.raises(RequestError) as caught:
        wire.parse(raw)
    assert caught.value.code == code
    assert says in str(caught.value)
    assert isinstance(caught.value, UnsupportedFormat) == (code == "unsupported_format")


def test_a_message_quotes_no_more_than_a_glance_of_what_was_sent():
    with pytest.raises(RequestError) as caught:
        parse(language="x" * 60_000)
    assert len(str(caught.value)) < 300
