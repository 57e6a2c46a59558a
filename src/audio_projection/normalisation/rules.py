"""The rules in their order, and the passes through them."""

from __future__ import annotations

import re

from audio_projection.normalisation import abbreviations, addresses, dates, figures, quantities, signs
from audio_projection.normalisation.matches import FRACTION_SIGNS, Rule

_FIGURE = re.compile(f"[0-9{FRACTION_SIGNS}]")
_FIGURE_RULES: list[Rule] = [
    figures.FRACTION_SIGN,
    dates.ISO_DATE,
    dates.SLASH_DATE,
    figures.PHONE,
    figures.EMERGENCY,
    figures.THOUSANDS,
    figures.HEIGHT,
    quantities.MONEY_RANGE,
    figures.EVEN,
    figures.RANGE,
    figures.DIFFERENCE,
    figures.NEGATIVE,
    dates.TIME,
    dates.HOUR,
    figures.RATIO,
    figures.VERSION,
    quantities.MONEY,
    quantities.MONEY_BEHIND,
    quantities.SCALED,
    quantities.MEASURE,
    figures.FRACTION_FIGURE,
    figures.PRODUCT,
    dates.DAY_MONTH,
    dates.MONTH_DAY,
    figures.ORDINAL,
    figures.SEVERAL,
    figures.YEAR,
    figures.OTHER_NUMBER,
]
# After the figures, to which a.m. belongs, and which have units and endings in capitals.
_LAST_RULES: list[Rule] = [dates.HALF_OF_DAY, abbreviations.ACRONYM, signs.SIGN]


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
