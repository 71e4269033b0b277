"""eSpeak NG in a real process: languages, options, exact words, nothing lost, the same bytes."""

import re
import zlib

import numpy as np
import pytest

from tests.integration.raw_worker import RawWorker
from voice_worker import messages as m
from voice_worker.wire import info_from_map

TEXT = "Hello world, how are you? Fine, thanks."


@pytest.fixture(scope="module")
def espeak():
    with RawWorker("espeak") as worker:
        yield worker


class Numbers:
    last = 0


@pytest.fixture
def speak(espeak):
    def speak(text, *, speaker=None, seed=0, resume=None, attempt=1, **params):
        Numbers.last += 1
        fields = {"voice": {"speaker": speaker}, "params": params, "seed": seed}
        return espeak.speak(Numbers.last, text, attempt=attempt, resume=resume, **fields)

    return speak


def seconds(speech) -> float:
    return speech.done.samples / 24_000


def loudness(speech) -> float:
    return float(np.sqrt(np.mean(np.frombuffer(speech.pcm, "<i2").astype(float) ** 2)))


def spoken(speech, text: str) -> list[str]:
    return [text[start:end] for start, end, _, _ in speech.words]


def test_it_lists_every_voice_with_its_language(espeak):
    info = info_from_map(espeak.ready.info)
    assert len(info.speakers) == 141
    assert len({speaker.id for speaker in info.speakers}) == 141
    assert info.default_speaker == "en-us"
    assert {"en-US", "pt-BR", "fr-FR", "zh", "es-419", "fa-Latn"} <= set(info.languages)
    by_id = {speaker.id: speaker for speaker in info.speakers}
    assert by_id["fr-fr"].language == "fr-FR"
    assert by_id["cmn"].name.startswith("Chinese (Mandarin")


def test_any_speaker_with_any_variant_matches_the_pattern(espeak):
    info = info_from_map(espeak.ready.info)
    assert info.speaker_pattern is not None
    for name in ("en-us+f3", "cmn+whisper", "de+Mr serious"):
        assert re.fullmatch(info.speaker_pattern, name)
    for name in ("en-us", "en-us+nobody", "+f3", "en-us+f3+f4"):
        assert not re.fullmatch(info.speaker_pattern, name)


def test_every_voice_speaks(espeak, speak):
    for speaker in espeak.ready.info["speakers"]:
        assert speak("2 3", speaker=speaker["id"]).done, speaker["id"]


@pytest.mark.parametrize("speaker", ["EN-US", "en-us+F3", "fr", "zh", "de+Mr serious"])
def test_other_spellings_of_a_speaker_are_understood(speak, speaker):
    assert speak("hello", speaker=speaker).done.samples > 0


@pytest.mark.parametrize(
    ("language", "speaker"),
    [
        ("fr-fr", "fr-fr"),
        ("fr", "fr-fr"),
        ("fr-CA", "fr-fr"),
        ("fr_BE", "fr-be"),
        ("en-gb", "en-gb"),
        ("EN-GB", "en-gb"),
        ("en", "en-us"),
        ("en-AU", "en-us"),
        ("zh", "cmn"),
        ("zh-CN", "cmn"),
        ("zh-Hant-TW", "cmn"),
        ("zh-HK", "yue"),
        ("pt", "pt"),
        ("pt-BR", "pt-br"),
        ("es-MX", "es-419"),
        ("no", "nb"),
        ("sr-Latn", "sr"),
    ],
)
def test_a_language_tag_finds_its_voice(speak, language, speaker):
    text = "Radio 21, Hotel 4."
    assert speak(text, language=language).pcm == speak(text, speaker=speaker).pcm
    assert speak(text, language=language).done.samples > 0


def test_a_language_keeps_the_variant_and_the_speaker_that_speaks_it(speak):
    assert speak("un", speaker="en-us+f3", language="fr").pcm == speak("un", speaker="fr+f3").pcm
    scots = speak("hello", speaker="en-gb-scotland").pcm
    assert speak("hello", speaker="en-gb-scotland", language="en").pcm == scots


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"language": "xx"}, "unsupported_language", "does not speak 'xx'"),
        ({"language": "tlh"}, "unsupported_language", "near it: "),
        ({"language": 5}, "bad_option", "such as 'en-gb'"),
        ({"language": ""}, "unsupported_language", "does not speak ''"),
        ({"speaker": "en-uss"}, "unknown_voice", "near it: en-us"),
        ({"speaker": "en-us+f33"}, "unknown_voice", "no variant 'f33'; near it: f3"),
        ({"speaker": "../../etc"}, "unknown_voice", "no speaker"),
        ({"speed": 0.2}, "bad_option", "speed must be a number from 0.25 to 4, not 0.2"),
        ({"speed": 4.1}, "bad_option", "from 0.25 to 4"),
        ({"speed": True}, "bad_option", "speed must be a number"),
        ({"speed": float("nan")}, "bad_option", "not nan"),
        ({"pitch": 101}, "bad_option", "pitch must be a number from 0 to 100"),
        ({"range": -1}, "bad_option", "range must be a number from 0 to 100"),
        ({"volume": "loud"}, "bad_option", "volume must be a number from 0 to 200, not 'loud'"),
        ({"word_gap": 3}, "bad_option", "word_gap must be a number from 0 to 2"),
        ({"ssml": 1}, "bad_option", "ssml must be true or false"),
    ],
)
def test_bad_input_names_what_is_possible(speak, fields, code, says):
    failed = speak("hello", **fields).failed
    assert failed.code == code
    assert says in failed.error


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 2.0, 2.5, 3.0, 4.0])
def test_speed_changes_the_length_as_it_says(speak, speed):
    text = "one two three four five six seven eight nine ten"
    fast = speak(text, speed=speed)
    # eSpeak NG keeps its pauses and shortens its vowels unevenly; the factor is its own.
    assert seconds(speak(text)) / seconds(fast) == pytest.approx(speed, rel=0.2)
    assert spoken(fast, text) == text.split()
    assert fast.words[-1][3] == pytest.approx(fast.done.samples, abs=2400)


def test_volume_pitch_range_and_gap_are_heard_and_do_not_leak(speak):
    plain = speak(TEXT)
    assert loudness(speak(TEXT, volume=20)) < 0.4 * loudness(plain)
    assert speak(TEXT, pitch=90).pcm != plain.pcm
    assert speak(TEXT, range=0).pcm != plain.pcm
    assert seconds(speak(TEXT, word_gap=0.2)) > seconds(plain) + 0.5
    assert speak(TEXT).pcm == plain.pcm


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "\"Quoted\" (and bracketed) – 'too'!",
        "Café ünïcode 𝔘 naïve end.",
        "It costs $25.50 for 3 items, e.g. the-big well-known thing's.",
        "one\r\ntwo\tthree\n\nfour five",
        "Привет, мир!",
        "a " * 400,
        "no end in sight " * 60,
        "1984 " * 80,
    ],
)
def test_words_cover_the_text_in_order(speak, text):
    speech = speak(text)
    letters = re.sub(r"\s", "", "".join(spoken(speech, text)))
    # A dash between spaces is not spoken.
    assert letters == re.sub(r"\s|–", "", text)
    edge = 0
    for _, _, start, end in speech.words:
        assert edge <= start <= end <= speech.done.samples + 1
        edge = end


def test_words_are_exact(speak):
    text = "Hello world, how are you?"
    speech = speak(text)
    assert spoken(speech, text) == ["Hello", "world,", "how", "are", "you?"]
    assert speech.words[0][2] == 0
    for (_, _, _, end), (_, _, start, _) in zip(speech.words, speech.words[1:], strict=False):
        assert end == start
    # "world," ends with its clause, so the pause belongs to it.
    assert speech.words[1][3] - speech.words[1][2] > speech.words[0][3] - speech.words[0][2]


def test_words_of_a_script_without_spaces_are_its_characters(speak):
    text = "你好，世界！"
    assert spoken(speak(text, language="zh"), text) == ["你好，", "世", "界！"]


def test_text_without_words_is_short_and_done(speak):
    for text in ("", "   ", "...", "\0", "\ud800", "!?", "\u200b"):
        assert seconds(speak(text)) < 1.5


def test_ssml_is_off_unless_it_is_asked_for(speak):
    text = "Hello <break time='900ms'/> <prosody rate='50%'>slow</prosody> &amp; world"
    marked = speak(f"<speak>{text}</speak>", ssml=True)
    assert spoken(marked, f"<speak>{text}</speak>") == ["Hello", "slow", "&amp;", "world"]
    plain = speak("Hello slow and world")
    assert seconds(marked) > seconds(plain) + 0.9
    assert speak("Hello slow and world").pcm == plain.pcm
    assert seconds(speak("a < b & c > d")) > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "a." * 500,
        "e.g." * 300,
        "U.S.A. " * 100,
        "7" * 200,
        "天" * 250,
        "สวัสดี" * 40,
        "$%&@" * 60,
        "😀" * 120,
        "x" * 1500,
        "[[" * 300,
        "e\u0301" * 500,
        "<<&&>>" * 100,
        "\x01\x7f\uffff\U0010ffff" * 50,
    ],
)
def test_hostile_text_is_survived_and_spoken_to_its_end(speak, text):
    speech = speak(f"{text} zebra")
    assert speech.done
    assert speech.words[-1][1] == len(text) + 6
    assert spoken(speech, f"{text} zebra")[-1].endswith("zebra")


VARIANTS = [
    "en-us",
    "en-us+f3",
    "en-us+whisper",
    "en-us+croak",
    "en-us+aunty",
    "en-us+sandro",
    "en-us+shelby",
    "hyw+UniRobot",
    "fr+iven",
    "fr",
    "cmn",
    "en-us+klatt4",
]


@pytest.mark.parametrize("speaker", VARIANTS)
def test_the_same_text_has_the_same_bytes_whatever_was_said_before(espeak, speak, speaker):
    with RawWorker("espeak") as fresh:
        first = fresh.speak(1, TEXT, voice={"speaker": speaker}).pcm
    assert len(first) > 24_000
    assert speak(TEXT, speaker=speaker, seed=99).pcm == first
    speak("Something else, quite different: 1, 2, 3!", speaker=speaker, speed=1.5, pitch=80)
    # Changes the intonation of every voice after it, unless that is set back.
    speak("Hello.", speaker="en-us+robosoft2")
    Numbers.last += 1
    stopped = m.Synthesize(Numbers.last, 1, "stop me " * 200, {"speaker": speaker})
    espeak.send(stopped, m.Cancel(stopped.job))
    list(espeak.job(stopped.job))
    speak("<speak><prosody rate='300%' pitch='+50%'>oh</prosody></speak>", ssml=True)
    assert speak(TEXT, speaker=speaker).pcm == first


@pytest.mark.parametrize("delivered", [1, 20_000, 60_000])
def test_a_resumed_sentence_goes_on_with_the_same_bytes(speak, delivered):
    whole = speak(TEXT)
    resume = {"samples": delivered, "crc": zlib.crc32(whole.pcm[: 2 * delivered])}
    rest = speak(TEXT, resume=resume, attempt=2)
    assert whole.pcm[: 2 * delivered] + rest.pcm == whole.pcm
    assert rest.words == [word for word in whole.words if word[3] > delivered]


def test_a_cancel_stops_it_between_two_callbacks(espeak, speak):
    Numbers.last += 1
    job = Numbers.last
    espeak.send(m.Synthesize(job, 1, "a sentence without an end " * 2000, {}))
    while not isinstance(espeak.get(), m.Audio):
        pass
    espeak.send(m.Cancel(job))
    done = list(espeak.job(job))[-1]
    assert isinstance(done, m.Done)
    assert done.cancelled
    assert speak(TEXT).done


def test_an_error_within_a_callback_is_told_and_leaves_no_trace(speak):
    first = speak(TEXT).pcm
    failed = speak(TEXT, resume={"samples": 20_000, "crc": 1}, attempt=2).failed
    assert failed.code == "resume_mismatch"
    assert speak(TEXT).pcm == first


@pytest.mark.parametrize("speaker", ["fo", "kaa", "xex", "fo+f3"])
def test_a_voice_without_a_dictionary_speaks_by_that_of_another(speak, speaker):
    # This text crashed the library in a voice whose dictionary it did not find.
    for _ in range(2):
        assert speak("3 and (so) on... no end", speaker=speaker).done.samples > 24_000


@pytest.mark.parametrize("tag", ["voice xml:lang='fo'", "voice name='gmq/fo'", "s xml:lang='kaa'"])
def test_ssml_finds_no_voice_without_a_dictionary_either(speak, tag):
    text = f"<speak><{tag}>3 and (so) on... no end</{tag.split()[0]}></speak>"
    for _ in range(2):
        assert speak(text, ssml=True).done.samples > 24_000


@pytest.mark.parametrize("source", ["/dev/zero", "/etc/passwd", "file:///etc/passwd", "x", ""])
def test_ssml_opens_no_file_and_speaks_what_stands_in_for_it(speak, source):
    text = f"<speak>Before <audio src='{source}'>instead</audio> and <audio src='{source}'/> on"
    assert spoken(speak(text, ssml=True), text) == ["Before", "instead", "and", "on"]


def test_times_of_words_never_run_back_at_any_rate_in_ssml(speak):
    text = "<speak><prosody rate='1000%'>El veloz. Uno dos tres!</prosody> <b>Cuatro</b> y cinco."
    speech = speak(text, speaker="nci", ssml=True)
    assert spoken(speech, text)[-1] == "cinco"
    edge = 0
    for _, _, start, end in speech.words:
        assert edge <= start <= end
        edge = end


@pytest.mark.parametrize(
    ("speaker", "text"),
    [
        ("da", "！-x"),
        ("da", "'-er' hej"),
        ("da", "...-er"),
        ("ml", "'-ര"),
        ("vi", "`"),
        ("vi-vn-x-central", "ok. `"),
        ("en-us", "(-er and so on)"),
    ],
)
def test_a_mark_before_the_first_word_is_survived(speak, speaker, text):
    for _ in range(3):
        assert speak(text, speaker=speaker).done


@pytest.mark.parametrize(
    ("speaker", "text"), [("ms+m4", "gy"), ("vi", "1990"), ("vi", "Am 3. Oktober 1990 um 12 Uhr.")]
)
def test_the_lowest_pitch_with_the_widest_range_is_survived(speak, speaker, text):
    for _ in range(3):
        assert speak(text, speaker=speaker, pitch=0, range=100).done.samples > 0
    assert speak(text, speaker=speaker, range=100).pcm != speak(text, speaker=speaker).pcm


@pytest.mark.parametrize(
    ("speaker", "digits"),
    [
        ("ur", "۱۲۵"),
        ("ja", "１２５"),
        ("cmn", "１２５"),
        ("en-us", "१२५"),
        ("de", "໑໒໕"),
        ("fr", "𝟙𝟚𝟝"),
    ],
)
def test_digits_of_other_scripts_are_read(speak, speaker, digits):
    assert speak(digits, speaker=speaker).pcm == speak("125", speaker=speaker).pcm


def test_a_voice_that_prefers_digits_of_its_own_keeps_them(speak):
    for speaker, digits in (("ne", "१२५"), ("yue", "１２５")):
        assert seconds(speak(digits, speaker=speaker)) > 0.5
        assert speak(digits, speaker=speaker).pcm != speak("125", speaker=speaker).pcm


@pytest.mark.parametrize("speaker", ["my", "gu", "te", "en-us"])
@pytest.mark.parametrize("symbol", "Ⓜⓜ🅰🅱🅾🅿ℹ")
def test_symbols_that_are_letters_are_read_as_such(speak, speaker, symbol):
    for _ in range(2):
        assert speak(f"{symbol} {symbol}{symbol}", speaker=speaker).done.samples > 0


@pytest.mark.parametrize("flag", ["🏴", "&#x1F3F4;", "&#127988;", "🏳️‍🌈"])
@pytest.mark.parametrize(
    "tag", ["say-as interpret-as='tts:char'", "tts:style field='punctuation' mode='all'"]
)
def test_ssml_that_spells_passes_over_symbols(speak, tag, flag):
    text = f"<speak><{tag}>a {flag} b</{tag.split()[0]}> zebra</speak>"
    for _ in range(2):
        speech = speak(text, speaker="te", ssml=True)
        assert spoken(speech, text)[-1] == "zebra"


@pytest.mark.parametrize("text", ["a." * 500, "7" * 200, "x" * 1500, "no end in sight " * 60])
def test_hostile_text_in_ssml_is_survived_and_spoken_to_its_end(speak, text):
    marked = f"<speak>{text} <b>zebra</b></speak>"
    assert spoken(speak(marked, ssml=True), marked)[-1] == "zebra"
