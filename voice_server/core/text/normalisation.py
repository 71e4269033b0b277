"""Numbers, units, dates and money as words, for the backends that do not read them themselves.

English, Chinese and Japanese go through wetext, whose grammars come with its wheel; for the rest
num2words counts, and ``numerals`` holds the words around it. Both load with their first use.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

from voice_server.core.text.language import detect
from voice_server.core.text.numerals import NUMERALS, Numerals

_WORTH_READING = re.compile(r"[\d$€£¥%&@+=°²³½¼¾№]")
# wetext takes a time that grows faster than its text; a segment is never that long.
_LONGEST = 600
_BY_GRAMMAR = frozenset({"en", "zh", "ja"})
_ENGLISH = re.compile(r"[\x20-\x7e£€°]*[\d$%&@+=£€°][\x20-\x7e£€°]*")
_PHONE = re.compile(r"(?<![\d-])(?:\+?\d{1,3}[ -])?(?:\(\d{3}\) ?|\d{3}[ -])?\d{3}-\d{4}(?![\d-])")
_DECADE = re.compile(r"\b(1[1-9]\d0|20\d0)s\b")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def normalise(text: str, language: str | None) -> str:
    """``text`` with its numbers, units, dates and money in words of ``language`` (a BCP 47 tag;
    None: the language it seems to be in).

    Never raises: what cannot be read stays as it is. Takes 2 to 20 ms where there is something
    to read, and the first call for a language up to 2 s; ``prepare`` takes those in advance.
    """
    if not _WORTH_READING.search(text):
        return text
    code = _code(language or detect(text) or "en")
    try:
        if code in _BY_GRAMMAR:
            return _by_grammar(text, code)
        return _by_counting(text, code, NUMERALS[code]) if code in NUMERALS else text
    except Exception:
        # The two libraries fail in every way there is (AssertionError, TypeError, OverflowError)
        # on text they do not know; the listener hears the backend's own reading of it.
        return text


def prepare(language: str) -> None:
    """Load what ``normalise`` needs for ``language``, which may take 2 s."""
    normalise("1 x", language)


def _code(language: str) -> str:
    code = language.replace("_", "-").split("-")[0].lower()
    return {"nb": "no", "nn": "no", "yue": "zh", "cmn": "zh"}.get(code, code)


def _by_grammar(text: str, code: str) -> str:
    if code != "en":
        return _read(text, code)
    text = _PHONE.sub(_digits, _DECADE.sub(_decade, text))
    return _ENGLISH.sub(_or_as_it_is(lambda run: _read(run[0], "en")), text)


def _read(text: str, code: str) -> str:
    if len(text) > _LONGEST or "\ud800" <= max(text) <= "\udfff":
        return text
    front = len(text) - len(text.lstrip())
    back = len(text.rstrip())
    return text[:front] + str(_grammar(code).normalize(text[front:back])) + text[back:]


@cache
def _grammar(code: str) -> Any:
    from wetext import Normalizer

    return Normalizer(lang=code, operator="tn")


def _digits(number: re.Match[str]) -> str:
    groups = re.findall(r"\d+", number[0])
    return ", ".join(" ".join(_DIGITS[int(digit)] for digit in group) for group in groups)


def _decade(year: re.Match[str]) -> str:
    words = str(_counter()(int(year[1]), to="year"))
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


@cache
def _counter() -> Callable[..., Any]:
    from num2words import num2words

    return num2words  # type: ignore[no-any-return]


# A number: with groups of three, with decimals, or plain; never inside a word or a version.
_N = r"[-−]?(?:\d{1,3}(?:[.\u00a0\u202f' ]\d{3})+(?:,\d+)?|\d+(?:[.,]\d+)?)"
_FRONT, _BACK = r"(?<![\w.,])", r"(?!\w|[.,]\d)"
_NUMBER = re.compile(rf"{_FRONT}{_N}{_BACK}")
_MONEY = re.compile(rf"([$€£¥])\s?({_N}){_BACK}|{_FRONT}({_N})\s?([$€£¥])")
_PERCENT = re.compile(rf"{_FRONT}({_N})\s?%")
_UNIT = re.compile(rf"{_FRONT}({_N})\s?(km/h|km|cm|mm|kg|GB|MB|min|°C|m|g|l|h|s)(?![\w/²³])")
_ISO_DATE = re.compile(r"\b(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})\b")
_DATE = re.compile(r"\b(?P<d>\d{1,2})[./](?P<m>\d{1,2})[./](?P<y>\d{4})\b")
_DATIVE = re.compile(r"\b(?:am|vom|zum|bis|dem|den|seit|ab)\s\Z", re.I)
_TIME = re.compile(r"\b([01]?\d|2[0-3]):([0-5]\d)\b(?!:)(?: (?:Uhr|uur)\b)?")
_ORDINAL = re.compile(r"\b(\d{1,4})(?:er|ère|ème|e|º|ª)(?!\w)")
# num2words 0.5.14 makes a half of 3.05 in Persian, and fifty of 3.5 in Arabic and Vietnamese.
_MISREADS_DECIMALS = frozenset({"ar", "fa", "vi"})
_CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}


def _by_counting(text: str, code: str, numerals: Numerals) -> str:
    def date(found: re.Match[str]) -> str:
        day, month = int(found["d"]), int(found["m"])
        if not (1 <= day <= 31 and 1 <= month <= len(numerals.months)):
            return found[0]
        spoken_day = _count(Decimal(day), code, to="ordinal" if numerals.is_day_ordinal else "")
        if numerals.is_day_ordinal and _DATIVE.search(found.string, 0, found.start()):
            spoken_day += "n"
        return f"{spoken_day} {numerals.months[month - 1]} {_year(found['y'], code)}"

    def money(found: re.Match[str]) -> str:
        sign, amount = found[1] or found[4], _value(found[2] or found[3])
        words = _count(amount, code, to="currency", currency=_CURRENCIES[sign], separator="|")
        whole, _, fraction = words.partition("|")
        return whole if amount == amount.to_integral_value() else f"{whole} {fraction.strip()}"

    def percent(found: re.Match[str]) -> str:
        return f"{_plain(found[1], code)} {numerals.percent}"

    def unit(found: re.Match[str]) -> str:
        if found[2] not in numerals.units:
            return found[0]
        one, many = numerals.units[found[2]]
        return f"{_plain(found[1], code)} {one if abs(_value(found[1])) == 1 else many}"

    def time(found: re.Match[str]) -> str:
        hour, minute = (_count(Decimal(int(part)), code) for part in found.groups())
        return hour + (numerals.time.rstrip() if int(found[2]) == 0 else numerals.time + minute)

    steps: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
        (_ISO_DATE, date),
        (_DATE, date),
        (_TIME, time),
        (_MONEY, money),
        (_PERCENT, percent),
        (_UNIT, unit),
        (_ORDINAL, lambda found: _count(Decimal(found[1]), code, to="ordinal")),
        (_NUMBER, lambda found: _plain(found[0], code)),
    ]
    for pattern, reading in steps:
        text = pattern.sub(_or_as_it_is(reading), text)
    return text


def _or_as_it_is(reading: Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
    def read(found: re.Match[str]) -> str:
        try:
            return reading(found)
        except Exception:  # As in normalise: one number that cannot be read spoils no other.
            return found[0]

    return read


def _value(number: str) -> Decimal:
    """``1.234,5`` and ``1 234,5`` are the same number; so are ``3,5`` and ``3.5``."""
    number = re.sub(r"[\u00a0\u202f' ]", "", number.replace("−", "-"))
    if "," in number or re.fullmatch(r"-?[1-9]\d{0,2}(?:\.\d{3})+", number):
        number = number.replace(".", "").replace(",", ".")
    return Decimal(number)


def _plain(number: str, code: str) -> str:
    if re.fullmatch(r"0\d+|\d{13,}", number):
        return " ".join(_count(Decimal(int(digit)), code) for digit in number)
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", number):
        return _year(number, code)
    return _count(_value(number), code)


def _year(number: str, code: str) -> str:
    is_paired = code in ("de", "nl", "da", "no")
    return _count(Decimal(number), code, to="year" if is_paired else "")


def _count(value: Decimal, code: str, to: str = "", **options: str) -> str:
    """In words. Raises what num2words raises, and ValueError where its words would be wrong."""
    if to == "currency":
        # Whole numbers of Python would be taken for cents.
        return str(_counter()(value.quantize(Decimal("0.01")), lang=code, to=to, **options))
    if value != value.to_integral_value() and code in _MISREADS_DECIMALS:
        raise ValueError("num2words misreads decimals in this language")
    number = int(value) if value == value.to_integral_value() else float(value)
    return str(_counter()(number, lang=code, to=to or "cardinal"))
