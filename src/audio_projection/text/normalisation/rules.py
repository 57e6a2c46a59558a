"""The table of rules by priority, and the one pass over the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from audio_projection.text.normalisation import (
    abbreviations,
    acronyms,
    addresses,
    capitals,
    dates,
    measures,
    money,
    numerals,
    roman,
    symbols,
    times,
)
from audio_projection.text.normalisation.patterns import (
    FRACTION_SIGNS,
    SENTENCE_END,
    SENTENCE_START,
    TAKEN,
    Rule,
    capital,
)

_FIGURES_AND_WORDS: list[Rule] = [
    *addresses.RULES,
    *abbreviations.BEFORE_FIGURES,
    *acronyms.NAMES,
    *dates.RULES,
    *numerals.CODES,
    *money.RANGES,
    *numerals.RANGES,
    *times.RULES,
    *measures.LENGTHS,
    *money.RULES,
    *measures.RULES,
    *symbols.MATHS,
    *numerals.RULES,
    *abbreviations.RULES,
    *roman.RULES,
]
_LETTERS: list[Rule] = [*acronyms.RULES, *symbols.RULES]

SPELLING: list[Rule] = [*_FIGURES_AND_WORDS, *_LETTERS]
"""Everything that is not written as it is said, the first rule first."""

READING: list[Rule] = [*symbols.EMOTICONS, *_FIGURES_AND_WORDS, *symbols.BETWEEN_WORDS, *_LETTERS, *capitals.RULES]
"""The same for a voice that knows words only: capitals that shout, and marks between words."""

_GOES_ON = re.compile(r"[^\W_]|\.\w")  # no words may become part of an address
_GOES_BEFORE = re.compile(r"(?:[^\W_]|[#@])$")
_FIGURE = re.compile(f"[0-9{FRACTION_SIGNS}]")


@dataclass(frozen=True)
class Claim:
    """A piece of the text and the words that take its place."""

    start: int
    end: int
    words: str


def spell_out(text: str, rules: Sequence[Rule] = SPELLING) -> str:
    """The text with everything that is not written as it is said put into words; other text comes back as it is.

    No ASCII digit is left. Spelling out twice changes nothing more, and no string is refused.
    """
    return _put_together(text, _claims(text, rules))


def _claims(text: str, rules: Sequence[Rule]) -> list[Claim]:
    """What each rule matches of that which no rule before it has matched, in the order of the text."""
    found: list[Claim] = []
    free, has_figures = text, _FIGURE.search(text) is not None
    for rule in rules:
        if rule.digits and not has_figures:
            continue
        claims = []
        for match in rule.pattern.finditer(free):
            words = rule.words(match)
            if words is not None:
                start, end = match.span(rule.part)
                ends = rule.stop and free[end - 1 : end] == "." and SENTENCE_END.match(text, end)
                claims.append(Claim(start, end, words + "." if ends else words))
        free = _without(free, claims)
        found += claims
    return sorted(found, key=lambda claim: claim.start)


def _without(free: str, claims: Sequence[Claim]) -> str:
    pieces, place = [], 0
    for claim in claims:
        pieces += [free[place : claim.start], TAKEN * (claim.end - claim.start)]
        place = claim.end
    return "".join([*pieces, free[place:]])


def _put_together(text: str, claims: Sequence[Claim]) -> str:
    """The words in their places: set off from letters and digits beside them, a capital where a sentence starts."""
    pieces, tail, place = [], "", 0
    for claim in claims:
        between = text[place : claim.start]
        tail = (tail + between)[-4:]
        opens = not text[claim.start].islower() and SENTENCE_START.search(tail)
        words = capital(claim.words) if opens else claim.words
        left = " " if _GOES_BEFORE.search(tail) and words[:1].isalnum() else ""
        right = " " if words[-1:].isalnum() and _GOES_ON.match(text, claim.end) else ""
        said = left + words + right
        pieces += [between, said]
        tail, place = (tail + said)[-4:], claim.end
    return "".join([*pieces, text[place:]])
