"""The rules in their order, and the passes through them."""

from __future__ import annotations

import re

from audio_projection.text.normalisation import abbreviations, addresses, dates, measures, numerals, symbols
from audio_projection.text.normalisation.patterns import FRACTION_SIGNS, Rule

_FIGURE = re.compile(f"[0-9{FRACTION_SIGNS}]")
_FIGURE_RULES: list[Rule] = [
    numerals.FRACTION_SIGN,
    dates.ISO_DATE,
    dates.SLASH_DATE,
    numerals.PHONE,
    numerals.EMERGENCY,
    numerals.THOUSANDS,
    numerals.HEIGHT,
    measures.MONEY_RANGE,
    numerals.EVEN,
    numerals.RANGE,
    numerals.DIFFERENCE,
    numerals.NEGATIVE,
    dates.TIME,
    dates.HOUR,
    numerals.RATIO,
    numerals.VERSION,
    measures.MONEY,
    measures.MONEY_BEHIND,
    measures.SCALED,
    measures.MEASURE,
    numerals.FRACTION_FIGURE,
    numerals.PRODUCT,
    dates.DAY_MONTH,
    dates.MONTH_DAY,
    numerals.ORDINAL,
    numerals.SEVERAL,
    numerals.YEAR,
    numerals.OTHER_NUMBER,
]
# After the figures, to which a.m. belongs, and which have units and endings in capitals.
_LAST_RULES: list[Rule] = [dates.HALF_OF_DAY, abbreviations.ACRONYM, symbols.SIGN]


_MOST_TURNS = 8  # two or three are taken: in "&.com" only the word for the sign makes an address


def spell_out(text: str) -> str:
    """The text with everything that is not written as it is said put into words; other text comes back as it is.

    No ASCII digit is left. Spelling out twice changes nothing more, and no string is refused.
    """
    for _ in range(_MOST_TURNS):
        before, text = text, _turn(text)
        if text == before:
            break
    return text


def _turn(text: str) -> str:
    for pattern, words in [addresses.ADDRESS, *abbreviations.WORD_RULES]:
        text = pattern.sub(words, text)
    if _FIGURE.search(text):
        for pattern, words in _FIGURE_RULES:
            text = pattern.sub(words, text)
    for pattern, words in _LAST_RULES:
        text = pattern.sub(words, text)
    return text
