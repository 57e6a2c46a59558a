"""What a rule is, and the pieces of patterns that several rules share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Match = re.Match[str]


@dataclass(frozen=True)
class Rule:
    """One kind of written thing and the words for it.

    ``words`` gives what is said for a match, or None where it is something else after all. Lines ``written -> said``
    in its docstring are examples, which the tests run.
    """

    pattern: re.Pattern[str]
    words: Callable[[Match], str | None]
    part: int = 0
    """The group that is replaced; the rest of the match is context, and free for other rules."""
    stop: bool = False
    """A full stop at the match's end stays where it ends a sentence as well."""
    digits: bool = False
    """Only texts with a digit are searched."""


def rule(
    pattern: str, words: Callable[[Match], str | None] | str, part: int = 0, stop: bool = False, digits: bool = False
) -> Rule:
    """A rule from the pattern's source; a string of words is the same for every match."""
    said = words if callable(words) else _always(words)
    return Rule(re.compile(pattern), said, part, stop, digits)


def _always(words: str) -> Callable[[Match], str]:
    return lambda match: words


TAKEN = "\ue000"
"""Stands where a rule of higher priority has matched: neither letter, digit nor space, so that no pattern takes it."""
FRACTION_SIGNS = "½⅓⅔¼¾⅕-⅞"
LETTER = rf"[^\W\d_²³{FRACTION_SIGNS}]"
NO_LETTER_BEFORE, NO_LETTER_AFTER = rf"(?<!{LETTER})", rf"(?!{LETTER})"
NO_LETTERS_OF_A_PLURAL = rf"(?<!(?<!{LETTER})[A-Z] )"  # the Vs of "T Vs" and the Ms of "L L Ms" are no words
CAPITAL = "[A-ZÀ-ÖØ-Þ]"
# Every pattern that starts with digits starts at the first of them, so that long figures are not tried at each digit.
_SPACED = r"(?<![0-9.,+:/-])(?<![0-9] )[1-9][0-9]{0,2}(?: [0-9]{3}){0,4} 000(?![0-9])(?! [0-9])"
_WHOLE = r"(?<![0-9])(?:[0-9]{1,3}(?:,[0-9]{3}){1,6}(?![0-9])|[0-9]+)"
NUMBER = rf"(?:{_SPACED}|{_WHOLE}(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
CONTINENTAL = r"(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3}){0,4},[0-9]{1,2}(?![0-9]|,[0-9])"
"""1.500,00 and 22,1: only where a unit or a currency shows that it is one number."""
FRACTION = (
    r"(?<![0-9/⁄.,])(?:[0-9]{1,3}[ -](?=[0-9]{1,3}[/⁄]))?[0-9]{1,3}[/⁄][0-9]{1,3}"
    rf"(?:(?:ths?|rds?|nds?){NO_LETTER_AFTER})?(?![0-9/⁄]|[.,][0-9])"
    rf"|(?:(?<![0-9.,])[0-9]{{1,3}} ?)?[{FRACTION_SIGNS}]"
)
DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
SENTENCE_START = re.compile(r"""(?:^|[.!?…]["'”’)\]]?\s|\n)["'“‘(\[]?$""")
SENTENCE_END = re.compile(
    rf"""["'”’)\]]*(?:\n|$|\s["'“‘(]?(?!(?:{DAYS}|{"|".join(MONTHS)}|[ECMP][SD]?T|UTC|GMT)\b){CAPITAL})"""
)
# What stands after the full stop of an abbreviation where a sentence ends: nothing more, or a word that opens another.
# It must be complete, so that a text which is still being written is not cut before the Army of the U.S. Army.
SENTENCE_OPENER = re.compile(
    r"""["'”’)\]]*(?:\s*$|\s*\n\n|\s+["'“‘(]?(?:The|This|That|These|Those|He|She|It|They|We|I|You|His|Her|Its|Their|Our|My|Your"""
    r"""|An?|In|On|At|By|For|From|With|But|And|So|Or|Yet|If|When|While|As|After|Before|Since|Then|There|Here"""
    r"""|Now|What|Who|Where|Why|How|No|Not|Yes|Some|Many|Most|All|One|Two)(?=\W))"""
)
BEFORE_A_NOUN = re.compile(
    r" (?!(?:an?|and|or|to|per|in|for|of|on|at|each|every|from|is|was|than|but|with|by|if|when|more)\b)[a-z]"
)
_ARTICLE = re.compile(r"(?<![^\W_])[Aa]n? $")


def is_adjective(match: Match, start: int) -> bool:
    """Whether what was matched stands between an article and a noun: a $5 million house, a 10 km run."""
    text = match.string
    return bool(_ARTICLE.search(text[max(start - 4, 0) : start]) and BEFORE_A_NOUN.match(text, match.end()))


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def one_of(words: object) -> str:
    """A pattern for any of the words, the longest first."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))  # type: ignore[call-overload]
