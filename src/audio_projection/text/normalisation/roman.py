"""Roman numerals."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.abbreviations import ABBREVIATIONS, BEFORE_NUMBERS, TITLES
from audio_projection.text.normalisation.number_words import number_words, ordinal_words
from audio_projection.text.normalisation.patterns import (
    CAPITAL,
    NO_LETTER_AFTER,
    NO_LETTER_BEFORE,
    Match,
    Rule,
    capital,
    one_of,
    rule,
)

_KINGS = (
    "Henry|Charles|George|Edward|Richard|William|James|Louis|Philip|Frederick|Alexander|Peter|Nicholas|Napoleon|"
    "Francis|Ferdinand|Leopold|Otto|Ivan|Robert|David|Alfonso|Gustav|Elizabeth|Mary|Catherine|Margaret|Wilhelm|"
    "Ramesses|Thutmose|Ptolemy|John|Paul|Pius|Benedict|Gregory|Leo|Innocent|Clement|Boniface|Urban|Julius|Cleopatra"
)
_REIGNING = r"(?:King|Queen|Pope|Emperor|Empress|Tsar|Kaiser)"
_NUMBERED = (
    "Chapter|Part|Act|Scene|Book|Volume|Vol\\.|Section|Article|Appendix|Phase|Level|Stage|Type|Class|Title|Super Bowl"
    "|Episode|Season|Mark|Tier|Division|Lesson|Figure|Table|Canto|Round|Step|Version|Vatican|Apollo|Saturn|Schedule|Annex|Unit"
)
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_NUMERAL = re.compile("M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_WRITTEN = one_of(
    {capital(words.split()[0]) for table in (TITLES, ABBREVIATIONS, BEFORE_NUMBERS) for words in table.values()}
)  # by other rules
_NO_NAMES = (
    "Dollar|Cent|Pound|Euro|Yen|Rupee|Won|Ruble|Percent|Plus|Equals|Degrees|Times|Squared|Cubed|Hashtag|Minus|About"
    "|The|An?|This|That|His|Her|Their|Our|My|Your|Its|In|On|At|By|For|And|But|Or|With|From|To|Of|No|Is|Was|If|As"
    "|Zero|One|Two|Three|Four|Five|Six|Seven|Eight|Nine|Ten|Eleven|Twelve|Twenty|Thirty|Forty|Fifty|Sixty|Seventy"
    "|Eighty|Ninety"
)


def _value(numeral: str) -> int | None:
    """The number, None where it is not one."""
    if not _NUMERAL.fullmatch(numeral):
        return None
    values = [_VALUES[letter] for letter in numeral]
    return sum(-one if one < after else one for one, after in zip(values, [*values[1:], 0], strict=True))


def _reign(match: Match) -> str | None:
    """A ruler's number; a lone I is mostly the pronoun, and a number only after King, Queen, Pope ...

    Henry VIII, King George I, but George I know -> Henry the eighth, King George the first, but George I know
    """
    title, numeral = match.groups()
    number = _value(numeral)
    if number is None or (number == 1 and not title):
        return None
    return f"the {ordinal_words(number)}"


def _numbered(match: Match) -> str | None:
    """The number of a chapter, an act, a war and the like.

    See Chapter IV, Act I, and Super Bowl LVIII. -> See Chapter four, Act one, and Super Bowl fifty eight.
    """
    number = _value(match[1].upper())
    return None if number is None else number_words(number)


def _century(match: Match) -> str | None:
    """A century.

    in the XIX century -> in the nineteenth century
    """
    number = _value(match[1])
    return None if number is None else ordinal_words(number)


def _world_war(match: Match) -> str:
    """The world wars.

    in WWII and World War I -> in World War two and World War one
    """
    return f"World War {number_words(len(match[1]))}"


RULES: list[Rule] = [
    rule(
        rf"{NO_LETTER_BEFORE}(?:({_REIGNING}) )?(?:{_KINGS}) ([IVX]{{2,6}}|[VX](?!\. ?{CAPITAL})|I){NO_LETTER_AFTER}",
        _reign,
        part=2,
    ),
    rule(rf"{NO_LETTER_BEFORE}WW(I{{1,2}}){NO_LETTER_AFTER}", _world_war),
    rule(rf"(?<=World War )(I{{1,3}}){NO_LETTER_AFTER}", lambda match: number_words(len(match[1]))),
    rule(
        rf"{NO_LETTER_BEFORE}(?:{_NUMBERED}) ([IVXLC]{{2,8}}|[VX]|I(?= ?(?:[.,;:!?)\n]|$)| (?:of|and|to|is|was|in)\b))"
        rf"(?![\w'’]|\.[A-Z])",
        _numbered,
        part=1,
    ),
    rule(rf"(?:[Cc]hapter|[Vv]olume|[Pp]art|[Bb]ook) ([ivx]{{2,6}}){NO_LETTER_AFTER}", _numbered, part=1),
    rule(rf"{NO_LETTER_BEFORE}([IVX]{{1,5}})(?:th)?(?= [Cc]entur)", _century),
    rule(
        rf"{NO_LETTER_BEFORE}(?!(?:{_NO_NAMES}|{_WRITTEN}) ){CAPITAL}[a-z]+ "
        rf"((?:X{{0,3}}(?:IX|IV|V?I{{1,3}}))(?<=[A-Z]{{2}}))(?![\w'’]|\.[A-Z])",
        _numbered,
        part=1,
    ),
]
