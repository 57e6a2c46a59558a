"""Measures with their units, and counts cut short."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.number_words import english_figure, figure_words, fraction_words, number_words
from audio_projection.text.normalisation.patterns import (
    BEFORE_A_NOUN,
    CONTINENTAL,
    FRACTION,
    NO_LETTER_AFTER,
    NO_LETTER_BEFORE,
    NUMBER,
    TAKEN,
    Match,
    Rule,
    is_adjective,
    one_of,
    rule,
)

# Singular, and the plural where it is more than an s.
UNITS = {
    **{"km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "mi": "mile"},
    **{"µm": "micrometer", "μm": "micrometer", "yd": "yard", "yds": "yard", "ft": "foot|feet", "dm": "decimeter"},
    **{"in.": "inch|inches", "ins": "inch|inches", "nmi": "nautical mile"},
    **{"sq ft": "square foot|square feet", "sq. ft": "square foot|square feet", "sqft": "square foot|square feet"},
    **{"sq m": "square meter", "sqm": "square meter", "sq km": "square kilometer", "sq mi": "square mile"},
    **{"cu ft": "cubic foot|cubic feet", "cu m": "cubic meter", "cc": "cubic centimeter"},
    **{"km/h": "kilometer per hour|kilometers per hour", "m/s": "meter per second|meters per second"},
    **{"m/s²": "meter per second squared|meters per second squared"},
    **{"m/s^2": "meter per second squared|meters per second squared"},
    **{"kph": "kilometer per hour|kilometers per hour", "kmh": "kilometer per hour|kilometers per hour"},
    **{"mph": "mile per hour|miles per hour", "mpg": "mile per gallon|miles per gallon"},
    **{"km²": "square kilometer", "m²": "square meter", "cm²": "square centimeter", "m³": "cubic meter"},
    **{"km2": "square kilometer", "m2": "square meter", "cm2": "square centimeter", "m3": "cubic meter"},
    **{
        "cm³": "cubic centimeter",
        "cm3": "cubic centimeter",
        "mm²": "square millimeter",
        "ft²": "square foot|square feet",
    },
    **{"kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce"},
    **{"µg": "microgram", "μg": "microgram", "mcg": "microgram", "fl oz": "fluid ounce", "fl. oz": "fluid ounce"},
    **{"l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter", "cl": "centiliter", "dl": "deciliter"},
    **{"gal": "gallon", "qt": "quart", "pt": "pint", "tbsp": "tablespoon", "tsp": "teaspoon", "ha": "hectare"},
    **{"°C": "degree Celsius|degrees Celsius", "°F": "degree Fahrenheit|degrees Fahrenheit"},
    **{"℃": "degree Celsius|degrees Celsius", "℉": "degree Fahrenheit|degrees Fahrenheit"},
    **{"h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "sec": "second", "secs": "second"},
    **{"s": "second", "ms": "millisecond", "µs": "microsecond", "μs": "microsecond", "ns": "nanosecond"},
    **{"yr": "year", "yrs": "year", "wk": "week", "wks": "week", "mo": "month", "mos": "month"},
    **{"Hz": "hertz|hertz", "kHz": "kilohertz|kilohertz", "MHz": "megahertz|megahertz", "GHz": "gigahertz|gigahertz"},
    **{"kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte"},
    **{"KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte", "TiB": "tebibyte"},
    **{"kb": "kilobit", "Mb": "megabit", "Gb": "gigabit"},
    **{"kbps": "kilobit per second|kilobits per second", "Mbps": "megabit per second|megabits per second"},
    **{"Gbps": "gigabit per second|gigabits per second", "kbit/s": "kilobit per second|kilobits per second"},
    **{"Mbit/s": "megabit per second|megabits per second", "MBps": "megabyte per second|megabytes per second"},
    **{"V": "volt", "kV": "kilovolt", "mV": "millivolt", "mA": "milliamp", "mAh": "milliamp hour", "Ah": "amp hour"},
    **{"W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "kWh": "kilowatt hour", "Wh": "watt hour"},
    **{"MWh": "megawatt hour", "J": "joule", "kJ": "kilojoule", "kcal": "kilocalorie", "cal": "calorie"},
    **{"Pa": "pascal", "hPa": "hectopascal", "kPa": "kilopascal", "mbar": "millibar", "hp": "horsepower|horsepower"},
    **{"psi": "pound per square inch|pounds per square inch", "Ω": "ohm", "kΩ": "kilohm", "Nm": "newton meter"},
    **{
        "dB": "decibel",
        "rpm": "revolution per minute|revolutions per minute",
        "bpm": "beat per minute|beats per minute",
    },
    **{"fps": "frame per second|frames per second", "dpi": "dot per inch|dots per inch", "px": "pixel"},
    **{"ppm": "part per million|parts per million", "kts": "knot", "MP": "megapixel", "mmHg": "millimeter of mercury"},
}
_RATES = {
    **{
        "s": "second",
        "h": "hour",
        "hr": "hour",
        "min": "minute",
        "mo": "month",
        "yr": "year",
        "wk": "week",
        "d": "day",
    },
    **{"sec": "second", "l": "liter", "L": "liter", "dl": "deciliter", "m": "meter", "g": "gram", "y": "year"},
}
_MANY = "people|men|women|children|users|viewers|readers|votes|voters|copies|jobs|homes|barrels|tonnes|tons"
_SCALES = {
    **{"k": "thousand", "K": "thousand", "m": "million", "M": "million", "b": "billion", "B": "billion"},
    **{"mn": "million", "bn": "billion", "tn": "trillion"},
}
_UNIT = one_of(UNITS.keys() - {"s"}) + r"|(?<![0-9])s"  # 20s: see times.py
_FIGURE = rf"(?:{FRACTION}|{CONTINENTAL}|{NUMBER})"


def per(unit: str) -> str:
    """The words for what is behind the slash of a rate, with a space before them."""
    name = _RATES.get(unit) or UNITS.get(unit, unit).partition("|")[0]
    return f" per {name}"


def _many(names: str) -> str:
    one, _, many = names.partition("|")
    return many or one + "s"


def _measure(match: Match) -> str:
    """A figure and its unit.

    ran 5 km, 1 km, ½ km and 5-km runs -> ran five kilometers, one kilometer, one half kilometer and five kilometer runs
    took 20 ms. Then 5ms -> took twenty milliseconds. Then five milliseconds
    at 22,1 °C or 20℃ -> at twenty two point one degrees Celsius or twenty degrees Celsius
    at 3 MB/s or 5 mg/kg -> at three megabytes per second or five milligrams per kilogram
    on 35mm film -> on thirty five millimeter film
    """
    figure, joint, unit, rate = match.groups()
    one, _, many = UNITS[unit.replace("º", "°").replace("° ", "°")].partition("|")
    fraction = re.search(r"[/⁄]|[^0-9., -]", figure)
    mixed = fraction and re.match(r"[0-9]+[ -]|[0-9]+[^0-9/⁄]", figure)
    single = english_figure(figure) == "1" or joint == "-" or (fraction and not mixed)
    if is_adjective(match, match.start()) or _KIND.match(match.string, match.end()):
        single = True
    words = fraction_words(figure) if fraction else figure_words(figure)
    return f"{words} {one if single else many or one + 's'}" + (per(rate) if rate else "")


_KIND = re.compile(
    r" (?:film|lens|camera|gun|jack|RAM|VRAM|SSD|HDD|drive|memory|disk|card|stick|battery|bulb|charger|dash|sprint"
    r"|hurdles|freestyle|relay)\b"
)


def _scaled(match: Match) -> str | None:
    """Counts cut short.

    10M views, 2.5k users -> Ten million views, two point five thousand users
    some 1.5m people -> some one point five million people
    """
    figure, scale = match.groups()
    return f"{figure_words(figure)} {_SCALES.get(scale) or _SCALES[scale.lower()]}"


def _height(match: Match) -> str:
    """Feet and inches.

    5'10", 5' 1" -> Five foot ten, five foot one
    """
    return f"{number_words(int(match[1]))} foot {number_words(int(match[2]))}"


def _feet_and_inches(match: Match) -> str:
    """Feet and inches by their abbreviations.

    he is 5 ft 10 in tall -> he is five feet ten inches tall
    """
    feet, inches = match.groups()
    said = f"{figure_words(feet)} {'foot' if feet == '1' else 'feet'}"
    return f"{said} {figure_words(inches)} {'inch' if inches == '1' else 'inches'}"


def _inches(match: Match) -> str | None:
    """Inches by a mark, unless it closes a quotation.

    A 27" monitor, 3/8" thick -> A twenty seven inch monitor, three eighths of an inch thick
    """
    figure, mark = match.groups()
    before = match.string[max(match.start() - 200, 0) : match.start()]
    if (
        mark == '"'
        and len(re.findall('(?<![0-9])"', before)) % 2
        or mark == "”"
        and before.count("“") > before.count("”")
    ):
        return None
    noun = BEFORE_A_NOUN.match(match.string, match.end()) and not _EXTENT.match(match.string, match.end())
    if "/" in figure and " " not in figure:
        return f"{fraction_words(figure)} inch" if noun else f"{fraction_words(figure)} of an inch"
    words = fraction_words(figure) if re.search(r"[/⁄]|[^0-9., -]", figure) else figure_words(figure)
    single = figure == "1" or noun
    return f"{words} {'inch' if single else 'inches'}"


def _feet_alone(match: Match) -> str | None:
    """Feet by an apostrophe, unless it closes a quotation.

    a 6' fence -> a six foot fence
    """
    before = match.string[max(match.start() - 200, 0) : match.start()]
    if len(re.findall(r"(?<!\w)['‘](?=\w)", before)) % 2:
        return None
    noun = BEFORE_A_NOUN.match(match.string, match.end()) and not _EXTENT.match(match.string, match.end())
    return f"{figure_words(match[1])} {'foot' if match[1] == '1' or noun else 'feet'}"


def _feet(match: Match) -> str:
    """Feet by a mark.

    6' tall, 8' x 10' -> Six feet tall, eight feet by ten feet
    """
    return f"{figure_words(match[1])} {'foot' if match[1] == '1' else 'feet'}"


_EXTENT = re.compile(r" (?:tall|long|wide|thick|deep|high|across|away|apart|off|below|above|too|he|she|it|they|we|i)\b")
_INCH = r"""(?:["”″]|''|’’)"""
_SIDES = "(?:cm|mm|ft|km|px|in|yd)"
LENGTHS: list[Rule] = [
    rule(
        r"(?<![0-9.,])([1-9][0-9]?) ?ft\.? ?([0-9]{1,2}) ?in(?:\.(?!\s?[A-Z]|\Z))?(?!\w)", _feet_and_inches, digits=True
    ),
    rule(
        rf"""(?:(?<=[0-9]['′’"″m])|(?<=[0-9]{_SIDES})|(?<=[0-9] {_SIDES})|(?<=[0-9] m)) ?[x×] ?(?=[0-9])""",
        "by",
        digits=True,
    ),
    rule(rf"""(?<![0-9.,])([1-9])['’′] ?([0-9]|1[01]){_INCH}""", _height, digits=True),
    rule(r"""(?<![0-9.,])([4-7])['’′]([0-9]|1[01])(?![\w'’"”])""", _height, digits=True),
    rule(rf"""({FRACTION}|{NUMBER})(["”″])(?!\w)""", _inches, digits=True),
    rule(rf"({NUMBER})(?:[′'’](?= (?:tall|long|wide|high|deep|by)\b|{TAKEN})|′)(?!\w)", _feet, digits=True),
    rule(rf"(?<={TAKEN})([0-9]{{1,4}})['’](?!\w)", _feet, digits=True),
    rule(r"(?<![\w.,'’])([0-9]{1,3})['’](?= [a-z]|[,;)]|\.(?:\s|\Z))", _feet_alone, digits=True),
]
RULES: list[Rule] = [
    rule(
        rf"({NUMBER}) ?(K)(?= ?(?:display|monitor|TV|video|resolution|screen|footage|run|race|walk)\b)",
        lambda match: f"{figure_words(match[1])} K",
        digits=True,
    ),
    rule(r"(?<![\w.,])[248](K)(?!\w)", " K", part=1, digits=True),
    rule(
        rf"({NUMBER}) ?°(?= (?:angle|turn|bend|rotation|view|heat|weather|slope|day)\b)",
        lambda match: f"{figure_words(match[1])} degree",
        digits=True,
    ),
    rule(
        rf"({NUMBER})((?ai:mn|bn|tn)|k(?![\w/])|K(?!\w)|M(?![\w/])|B(?= [a-z])|m(?= (?:{_MANY})\b)){NO_LETTER_AFTER}",
        _scaled,
        digits=True,
    ),
    rule(
        rf"({_FIGURE})([ \u00a0-]?)((?:{_UNIT})(?!°)|[°º] ?[CF])(?:/([A-Za-z]+)|(?![^\W_]))(?![^\W_]|/)"
        rf"(?:\.{NO_LETTER_AFTER})?",
        _measure,
        stop=True,
        digits=True,
    ),
    rule(
        rf"{NO_LETTER_BEFORE}(?<![/^])(?:km/h|mph|kph){NO_LETTER_AFTER}(?![/^])",
        lambda match: _many(UNITS[match[0]]),
    ),
    rule(r"(?<=[0-9] degrees )([CF])(?![\w'’])", lambda match: {"C": "Celsius", "F": "Fahrenheit"}[match[1]]),
]
