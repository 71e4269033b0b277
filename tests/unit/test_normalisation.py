"""Numbers, units, dates and money as words, and what stays as it is."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from voice_server.core.text.language import detect
from voice_server.core.text.normalisation import normalise, prepare

READ = [
    ("en", "It costs $5 and 12kg.", "It costs five dollars and twelve kilograms."),
    ("en-GB", "Call 555-0123.", "Call five five five, zero one two three."),
    ("en", "In the 1990s, 50% did.", "In the nineteen nineties, fifty percent did."),
    ("en", "A naïve café has 3 cats", "A naïve café has three cats"),
    ("zh", "价格是3.14元，共25%。", "价格是三点一四元，共百分之二十五。"),
    ("zh-TW", "2024年5月3日", "二零二四年五月三日"),
    ("ja", "値段は3500円です。", "値段は三千五百円です。"),
    ("de", "Es kostet 3,50 €.", "Es kostet drei Euro fünfzig Cent."),
    ("de", "Am 3.5.2024 um 14:30 Uhr", "Am dritten Mai zweitausendvierundzwanzig um vierzehn Uhr dreißig"),
    ("de-DE", "2.000 Leute, 1,5 km, 20 %", "zweitausend Leute, eins Komma fünf Kilometer, zwanzig Prozent"),
    ("de", "Im Jahr 1990", "Im Jahr neunzehnhundertneunzig"),
    ("fr", "2€, 1er, 1 234 567 km", "deux euros, premier, un million deux cent trente-quatre mille cinq cent soixante-sept kilomètres"),
    ("es", "El 2024-05-03, 25 %", "El tres mayo dos mil veinticuatro, veinticinco por ciento"),
    ("it", "3,05 e 2 kg", "tre virgola zero cinque e due chilogrammi"),
    ("pt", "-7 °C", "menos sete graus Celsius"),
    ("nl", "om 9:00", "om negen uur"),
    ("ru", "5 и 3,5%", "пять и три целых пять десятых процентов"),
    ("ko", "5% 3.5", "오 퍼센트 삼 점 오"),
    ("tr", "7", "yedi"),
    ("nb", "2", "to"),
]  # fmt: skip


@pytest.mark.parametrize(("language", "text", "expected"), READ)
def test_numbers_are_read_in_the_language_of_the_text(
    language: str, text: str, expected: str
) -> None:
    assert normalise(text, language) == expected


@pytest.mark.parametrize("language", ["en", "zh", "ja", "de", "fr", "ru", "xx", None])
@pytest.mark.parametrize("text", ["", "Hello, world.", "Wie geht's?", "[laugh] Ja!", "  a  b \n"])
def test_text_without_numbers_stays_as_it_is(text: str, language: str | None) -> None:
    assert normalise(text, language) == text


@pytest.mark.parametrize("text", ["v1.2.3 ist da", "ASP2 und 3.4.5.6", "MP3 und A4"])
def test_versions_and_names_with_digits_are_no_numbers(text: str) -> None:
    assert normalise(text, "de") == text


def test_white_space_around_what_is_read_is_kept() -> None:
    assert normalise("  5 \n", "en") == "  five \n"
    assert normalise(" 5 ", "de") == " fünf "


def test_languages_without_words_for_numbers_keep_their_digits() -> None:
    assert normalise("5 लोग", "hi") == "5 लोग"
    assert normalise("3.05 است", "fa") == "3.05 است"


@pytest.mark.parametrize("language", ["en", "zh", "ja", "de", "pl", "ar", None, "", "x-y-z"])
@pytest.mark.parametrize(
    "text",
    [
        "\ud83d 5",
        "\x005",
        "9" * 400,
        "1" + ".000" * 60,
        "5" * 13,
        "-",
        "$",
        "99:99",
        "31.31.2024",
        "é€5 \u202e7",
    ],
)
def test_odd_text_never_raises(text: str, language: str | None) -> None:
    assert isinstance(normalise(text, language), str)


@given(
    st.text(st.sampled_from("0123456789.,:-/%$€ kmgh\u00a0'eª[]aé你"), max_size=25),
    st.sampled_from(["de", "fr", "es", "it", "ru", "pl", "ko", "ar"]),
)
@settings(max_examples=150, deadline=None)
def test_any_row_of_digits_and_signs_is_read_or_kept(text: str, language: str) -> None:
    assert isinstance(normalise(text, language), str)


def test_preparing_a_language_needs_no_text() -> None:
    prepare("de")
    prepare("nonsense")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Das Zimmer kostet achtzig Euro pro Nacht", "de"),
        ("Je voudrais une chambre pour deux nuits", "fr"),
        ("I would like a room for two nights", "en"),
        ("Я хотел бы снять номер на две ночи", "ru"),
        ("今日はとてもいい天気ですね、散歩しましょう", "ja"),
        ("ok", None),
        ("12345 67890 !!", None),
        ("", None),
    ],
)
def test_a_language_is_guessed_where_the_text_is_clear(text: str, language: str | None) -> None:
    assert detect(text) == language
