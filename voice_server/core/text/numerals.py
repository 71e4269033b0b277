"""The words around numbers in the languages that num2words counts in, as data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Numerals:
    """How one language reads what stands next to a number.

    ``time`` joins hours and minutes; ``months`` January first, empty where dates are left alone;
    ``units`` by their symbol, as one and as many.
    """

    percent: str
    time: str = " "
    months: tuple[str, ...] = ()
    is_day_ordinal: bool = False
    units: dict[str, tuple[str, str]] = field(default_factory=dict)


_SYMBOLS = ("km/h", "km", "m", "cm", "mm", "kg", "g", "l", "°C", "GB", "MB", "h", "min", "s")


def _units(line: str) -> dict[str, tuple[str, str]]:
    """Names in the order of _SYMBOLS, "one/many" where the two differ, separated by commas."""
    names = [name.strip().split("/") for name in line.split(",")]
    return {s: (name[0], name[-1]) for s, name in zip(_SYMBOLS, names, strict=True)}


NUMERALS: dict[str, Numerals] = {
    "de": Numerals(
        "Prozent",
        " Uhr ",
        tuple(
            (
                "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"
            ).split()
        ),
        True,
        _units(
            "Kilometer pro Stunde, Kilometer, Meter, Zentimeter, Millimeter, Kilogramm, Gramm, "
            "Liter, Grad Celsius, Gigabyte, Megabyte, Stunde/Stunden, Minute/Minuten, "
            "Sekunde/Sekunden"
        ),
    ),
    "fr": Numerals(
        "pour cent",
        " heures ",
        tuple(
            (
                "janvier février mars avril mai juin juillet août septembre octobre novembre "
                "décembre"
            ).split()
        ),
        units=_units(
            "kilomètre par heure/kilomètres par heure, kilomètre/kilomètres, mètre/mètres, "
            "centimètre/centimètres, millimètre/millimètres, kilogramme/kilogrammes, "
            "gramme/grammes, litre/litres, degré Celsius/degrés Celsius, gigaoctet/gigaoctets, "
            "mégaoctet/mégaoctets, heure/heures, minute/minutes, seconde/secondes"
        ),
    ),
    "es": Numerals(
        "por ciento",
        " y ",
        tuple(
            (
                "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
                "diciembre"
            ).split()
        ),
        units=_units(
            "kilómetro por hora/kilómetros por hora, kilómetro/kilómetros, metro/metros, "
            "centímetro/centímetros, milímetro/milímetros, kilogramo/kilogramos, gramo/gramos, "
            "litro/litros, grado Celsius/grados Celsius, gigabyte/gigabytes, "
            "megabyte/megabytes, hora/horas, minuto/minutos, segundo/segundos"
        ),
    ),
    "it": Numerals(
        "per cento",
        " e ",
        tuple(
            (
                "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre "
                "novembre dicembre"
            ).split()
        ),
        units=_units(
            "chilometro orario/chilometri orari, chilometro/chilometri, metro/metri, "
            "centimetro/centimetri, millimetro/millimetri, chilogrammo/chilogrammi, "
            "grammo/grammi, litro/litri, grado Celsius/gradi Celsius, gigabyte, megabyte, "
            "ora/ore, minuto/minuti, secondo/secondi"
        ),
    ),
    "pt": Numerals(
        "por cento",
        " e ",
        tuple(
            (
                "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro "
                "dezembro"
            ).split()
        ),
        units=_units(
            "quilômetro por hora/quilômetros por hora, quilômetro/quilômetros, metro/metros, "
            "centímetro/centímetros, milímetro/milímetros, quilograma/quilogramas, "
            "grama/gramas, litro/litros, grau Celsius/graus Celsius, gigabyte/gigabytes, "
            "megabyte/megabytes, hora/horas, minuto/minutos, segundo/segundos"
        ),
    ),
    "nl": Numerals(
        "procent",
        " uur ",
        tuple(
            (
                "januari februari maart april mei juni juli augustus september oktober november "
                "december"
            ).split()
        ),
        units=_units(
            "kilometer per uur, kilometer, meter, centimeter, millimeter, kilogram, gram, liter, "
            "graden Celsius, gigabyte, megabyte, uur, minuut/minuten, seconde/seconden"
        ),
    ),
    # Slavic words change with the number before them; the percent sign does so least.
    "ru": Numerals("процентов"),
    "uk": Numerals("відсотків"),
    "pl": Numerals("procent"),
    "cs": Numerals("procent"),
    "sk": Numerals("percent"),
    "sv": Numerals("procent"),
    "da": Numerals("procent"),
    "no": Numerals("prosent"),
    "fi": Numerals("prosenttia"),
    "hu": Numerals("százalék"),
    "ro": Numerals("la sută"),
    "tr": Numerals("yüzde"),
    "ar": Numerals("بالمئة"),
    "fa": Numerals("درصد"),
    "he": Numerals("אחוז"),
    "ko": Numerals("퍼센트"),
    "vi": Numerals("phần trăm"),
    "id": Numerals("persen"),
}
