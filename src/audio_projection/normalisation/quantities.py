"""Money, and measures with their units."""

from __future__ import annotations

import re

from audio_projection.normalisation.matches import FRACTION, NO_LETTER_AFTER, NUMBER, Match, Rule, placed, stopped
from audio_projection.normalisation.number_words import figure_words, fraction_words, number_words

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "¢": ("cent", "cents", "", ""),
}
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_SCALE = rf"(?:(?ai:({'|'.join(_SCALES)})|[ -]?(thousand|million|billion|trillion)){NO_LETTER_AFTER})?"
# Singular, and the plural where it is more than an s.
UNITS = {
    **{"km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "mi": "mile"},
    **{"µm": "micrometer", "μm": "micrometer", "yd": "yard", "ft": "foot|feet", "sq ft": "square foot|square feet"},
    **{"km/h": "kilometer per hour|kilometers per hour", "m/s": "meter per second|meters per second"},
    **{"kph": "kilometer per hour|kilometers per hour", "mph": "mile per hour|miles per hour"},
    **{"km²": "square kilometer", "m²": "square meter", "cm²": "square centimeter", "m³": "cubic meter"},
    **{"kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce"},
    **{"l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter", "cl": "centiliter"},
    **{"°C": "degree Celsius|degrees Celsius", "°F": "degree Fahrenheit|degrees Fahrenheit"},
    **{"h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "sec": "second", "secs": "second"},
    **{"ms": "millisecond", "Hz": "hertz|hertz", "kHz": "kilohertz|kilohertz", "MHz": "megahertz|megahertz"},
    **{"GHz": "gigahertz|gigahertz", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte"},
    **{"TB": "terabyte", "V": "volt", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour"},
}
_UNIT = "|".join(map(re.escape, sorted(UNITS, key=len, reverse=True)))


def _money(match: Match) -> str:
    sign, figure, short, scale = match.groups()
    return placed(match, _amount(sign, figure, _SCALES[short.lower()] if short else (scale or "").lower()))


def _money_behind(match: Match) -> str:
    return placed(match, _amount(match[2].strip(), match[1], ""))


def _amount(sign: str, figure: str, scale: str) -> str:
    one, many, small_one, small_many = CURRENCIES[sign]
    if scale:
        return f"{figure_words(figure)} {scale} {many}"
    whole, _, decimals = figure.partition(".")
    if len(decimals) != 2 or not small_one:
        return f"{figure_words(figure)} {one if figure == '1' else many}"
    large = f"{figure_words(whole)} {one if whole == '1' else many}" if whole.strip("0") else ""
    small = f"{number_words(int(decimals))} {small_one if decimals == '01' else small_many}" if decimals != "00" else ""
    return " and ".join(filter(None, [large, small])) or f"zero {many}"


def _measure(match: Match) -> str:
    figure, joint, unit = match.groups()
    one, _, many = UNITS[unit.replace("º", "°").replace("° ", "°")].partition("|")
    fraction = "/" in figure or "⁄" in figure
    single = figure == "1" or joint == "-" or (fraction and " " not in figure)
    words = fraction_words(figure) if fraction else figure_words(figure)
    return stopped(match, f"{words} {one if single else many or one + 's'}")


MONEY: Rule = (re.compile(rf"([$£€¥]) ?({NUMBER}){_SCALE}"), _money)
MONEY_BEHIND: Rule = (re.compile(rf"({NUMBER})( ?[€£¢]|[$¥])"), _money_behind)
MEASURE: Rule = (
    re.compile(rf"({FRACTION}|{NUMBER})([ -]?)({_UNIT}|[°º] ?[CF])(?![^\W_])(?:\.{NO_LETTER_AFTER})?"),
    _measure,
)
