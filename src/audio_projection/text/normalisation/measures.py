"""Money, and measures with their units."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.number_words import figure_words, fraction_words, number_words
from audio_projection.text.normalisation.patterns import FRACTION, NO_LETTER_AFTER, NUMBER, Match, Rule, placed, stopped

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "¢": ("cent", "cents", "", ""),
}
_SCALES = {
    "k": "thousand",
    "m": "million",
    "mn": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
    "tn": "trillion",
}
_MANY = "people|men|women|children|users|viewers|readers|votes|voters|copies|jobs|homes|barrels|tonnes|tons"
_CODES = {"USD": "$", "GBP": "£", "EUR": "€"}
_SCALE = rf"(?:(?ai:({'|'.join(_SCALES)})|[ -]?(thousand|million|billion|trillion)){NO_LETTER_AFTER})?"
# Singular, and the plural where it is more than an s.
UNITS = {
    **{"km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "mi": "mile"},
    **{"µm": "micrometer", "μm": "micrometer", "yd": "yard", "ft": "foot|feet", "sq ft": "square foot|square feet"},
    **{"km/h": "kilometer per hour|kilometers per hour", "m/s": "meter per second|meters per second"},
    **{"m/s²": "meter per second squared|meters per second squared"},
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
    """$5, $5-10 million, a $5 bill, US$5."""
    country, sign, first, figure, short, scale = match.groups()
    scale = _SCALES[short.lower()] if short else (scale or "").lower()
    kind = _CURRENCY_BEFORE_NOUN if _is_before_noun(match) else CURRENCIES
    words = _amount(kind[sign], figure, scale)
    if country:
        words = words.replace("dollar", "U S dollar")
    if first:
        decimals = "." in first and not scale
        words = f"{_amount(kind[sign], first, '') if decimals else figure_words(first)} to {words}"
    return placed(match, words)


def _is_before_noun(match: Match) -> bool:
    """A $5 million house: an article before it and another word behind it."""
    text = match.string
    return bool(_ARTICLE.search(text[max(match.start() - 4, 0) : match.start()]) and _NOUN.match(text, match.end()))


def _money_behind(match: Match) -> str:
    sign = match[2].strip()
    return placed(match, _amount(CURRENCIES[_CODES.get(sign, sign)], match[1], ""))


def _scaled(match: Match) -> str:
    return placed(match, f"{figure_words(match[1])} {_SCALES[match[2].lower()]}")


def _amount(currency: tuple[str, str, str, str], figure: str, scale: str) -> str:
    one, many, small_one, small_many = currency
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


_CURRENCY_BEFORE_NOUN = {sign: (one, one, small, small) for sign, (one, _, small, _) in CURRENCIES.items()}
_ARTICLE = re.compile(r"(?<![^\W_])[Aa]n? $")
_NOUN = re.compile(
    r" (?!(?:an?|and|or|to|per|in|for|of|on|at|each|every|from|is|was|than|but|with|by|if|when|more)\b)[a-z]"
)
_SIGN = r"(?:(?<![^\W_])(US)(?=\$))?([$£€¥]) ?"
MONEY_RANGE: Rule = (re.compile(rf"{_SIGN}({NUMBER})(?:-| ?[–—] ?)\2?({NUMBER}){_SCALE}"), _money)
MONEY: Rule = (re.compile(rf"{_SIGN}()({NUMBER}){_SCALE}"), _money)
MONEY_BEHIND: Rule = (
    re.compile(rf"({NUMBER})( ?[€£¢]|[$¥]| (?:{'|'.join(_CODES)}){NO_LETTER_AFTER})"),
    _money_behind,
)
SCALED: Rule = (re.compile(rf"({NUMBER})((?ai:mn|bn|tn)|m(?= (?:{_MANY})\b)){NO_LETTER_AFTER}"), _scaled)
MEASURE: Rule = (
    re.compile(rf"({FRACTION}|{NUMBER})([ -]?)({_UNIT}|[°º] ?[CF])(?![^\W_])(?:\.{NO_LETTER_AFTER})?"),
    _measure,
)
