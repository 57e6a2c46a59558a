"""What figures, letters and sentences look like, and how the words for a match take its place."""

from __future__ import annotations

import re
from collections.abc import Callable

Match = re.Match[str]
Rule = tuple[re.Pattern[str], Callable[[Match], str]]

FRACTION_SIGNS = "½⅓⅔¼¾⅕-⅞"
LETTER = rf"[^\W\d_²³{FRACTION_SIGNS}]"
NO_LETTER_BEFORE, NO_LETTER_AFTER = rf"(?<!{LETTER})", rf"(?!{LETTER})"
CAPITAL = "[A-ZÀ-ÖØ-Þ]"
# Every pattern that starts with digits starts at the first of them, so that long figures are not tried at each digit.
_WHOLE = r"(?<![0-9])(?:[0-9]{1,3}(?:,[0-9]{3}){1,6}(?![0-9])|[0-9]+)"
NUMBER = rf"(?:{_WHOLE}(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
FRACTION = r"(?<![0-9/⁄.,])(?:[0-9]{1,3} )?[0-9]{1,3}[/⁄][0-9]{1,3}(?:ths?)?(?![0-9/⁄]|[.,][0-9])"
_SENTENCE_START = re.compile(r"""(?:^|[.!?…]["'”’)\]]?\s|\n)["'“‘(\[]?$""")
_SENTENCE_END = re.compile(rf"""["'”’)\]]*(?:\n|$|\s["'“‘(]?{CAPITAL})""")


def placed(match: Match, words: str) -> str:
    """The words for a match: set off from letters and digits beside it, with a capital where a sentence starts."""
    text, start, end = match.string, match.start(), match.end()
    if _SENTENCE_START.search(text[max(start - 4, 0) : start]):
        words = capital(words)
    left = " " if text[max(start - 1, 0) : start].isalnum() else ""
    return left + words + (" " if text[end : end + 1].isalnum() else "")


def stopped(match: Match, words: str) -> str:
    """The words for a match that may end with a full stop, which stays where it ends a sentence too."""
    stays = match[0].endswith(".") and _SENTENCE_END.match(match.string, match.end())
    return placed(match, words + "." if stays else words)


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]
