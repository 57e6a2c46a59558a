"""Signs that are said: &, %, + and the like."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.measures import CURRENCIES
from audio_projection.text.normalisation.patterns import Match, Rule, placed

_SIGNS = {
    **{"&": "and", "@": "at", "+": "plus", "=": "equals", "%": "percent", "±": "plus or minus", "×": "times"},
    **{"÷": "divided by", "°": "degrees", "²": "squared", "³": "cubed"},
    **{sign: names[0] for sign, names in CURRENCIES.items()},
}


def _sign(match: Match) -> str:
    """One or two of a sign (C++) are said; a longer row is a line drawn."""
    if len(match[0]) > 2:
        return match[0]
    return placed(match, " ".join([_SIGNS[match[1]]] * len(match[0])))


SIGN: Rule = (re.compile(rf"([{''.join(map(re.escape, _SIGNS))}])\1*"), _sign)
