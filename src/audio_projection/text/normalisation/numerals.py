"""Figures that are neither dates nor quantities: phone numbers, ranges, versions, fractions, ordinals, years."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.number_words import (
    digit_words,
    figure_words,
    fraction_words,
    number_words,
    ordinal_words,
    plural,
    year_words,
)
from audio_projection.text.normalisation.patterns import (
    FRACTION,
    NO_LETTER_AFTER,
    NO_LETTER_BEFORE,
    NUMBER,
    Match,
    Rule,
    rule,
)

_BOOKS = (
    "Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|Samuel|Kings|Chronicles|Ezra|Nehemiah|Esther|Job"
    "|Psalms?|Proverbs|Ecclesiastes|Isaiah|Jeremiah|Lamentations|Ezekiel|Daniel|Hosea|Joel|Amos|Jonah|Micah|Malachi"
    "|Matthew|Mark|Luke|John|Acts|Romans|Corinthians|Galatians|Ephesians|Philippians|Colossians|Thessalonians"
    "|Timothy|Titus|Hebrews|James|Peter|Jude|Revelation|Surah?|Quran"
)


def _phone(match: Match) -> str | None:
    """Digit by digit, with a comma between the groups; round groups are left.

    call (555) 123-4567 -> call five five five, one two three, four five six seven
    call +44 20 7946 0958 -> call plus four four, two zero, seven nine four six, zero nine five eight
    """
    groups = re.findall("[0-9]+", match[0])
    if sum(map(len, groups)) < 7 or all(group.endswith("00") for group in groups):
        return None
    return ("plus " if match[0][0] == "+" else "") + ", ".join(map(digit_words, groups))


def _groups(match: Match) -> str:
    """Three and more figures with hyphens between them: a long row digit by digit, a short one by its numbers.

    Call 9-1-1 or 1-800-555-1234 -> Call nine one one or one, eight zero zero, five five five, one two three four
    """
    groups = match[0].split("-")
    if sum(map(len, groups)) >= 7:
        return ", ".join(map(digit_words, groups))
    return " ".join(map(figure_words, groups))


def _vanity(match: Match) -> str:
    """A phone number with a word in it.

    Ring 1-800-FLOWERS now -> Ring one eight hundred flowers now
    """
    return f"one {figure_words(match[1])} {match[2].replace('-', ' ').lower()}"


def _postal_code(match: Match) -> str:
    """A ZIP code, or a card's number.

    My ZIP is 12345-6789. -> My ZIP is one two three four five, six seven eight nine.
    Card 4111 1111 1111 1111 -> Card four one one one, one one one one, one one one one, one one one one
    """
    return ", ".join(map(digit_words, re.findall("[0-9]+", match[1])))


def _plan(match: Match) -> str:
    """Paragraphs of the law that have become names.

    The 401(k) and a 501(c)(3) -> The four oh one k and a five oh one c three
    """
    figure, letter, last = match.groups()
    return f"{digit_words(figure, 'oh')} {letter}" + (f" {number_words(int(last))}" if last else "")


def _verse(match: Match) -> str:
    """Chapter and verse.

    Psalm 23:1-4 -> Psalm twenty three one to four
    """
    _, chapter, first, last = match.groups()
    return f"{figure_words(chapter)} {figure_words(first)}" + (f" to {figure_words(last)}" if last else "")


def _standard(match: Match) -> str:
    """The year of a standard.

    ISO 9001:2015 -> I S O nine thousand and one twenty fifteen
    """
    return f"{figure_words(match[2])} {year_words(match[3])}"


def _ip_address(match: Match) -> str | None:
    """Four figures of an address in a network.

    at 192.168.0.1 -> at one hundred and ninety two dot one hundred and sixty eight dot zero dot one
    """
    parts = match[0].split(".")
    return " dot ".join(map(figure_words, parts)) if all(int(part) < 256 for part in parts) else None


def _version(match: Match) -> str:
    """A version, also behind a v.

    version 1.2.3, v2.10 -> version one point two point three, version two point one zero
    """
    v, figure = match.groups()
    parts = figure.split(".")
    words = figure_words(figure) if len(parts) == 2 else " point ".join(map(figure_words, parts))
    return f"version {words}" if v else words


def _large(match: Match) -> str:
    """Thousands with full stops, as on the continent.

    some 1.234.567 men -> some one million two hundred and thirty four thousand five hundred and sixty seven men
    """
    return figure_words(match[0].replace(".", ","))


def _score(match: Match) -> str:
    """Points of ten or of a hundred.

    He got 98/100 or 7/10 -> He got ninety eight out of one hundred or seven out of ten
    """
    return f"{figure_words(match[1])} out of {figure_words(match[2])}"


def _fraction(match: Match) -> str:
    """Fractions.

    a 1/2, 2 1/2, 2½ or 2/3rds -> a one half, two and a half, two and a half or two thirds
    went 50/50, 24/7 -> went fifty fifty, twenty four seven
    """
    return fraction_words(match[0])


def _ordinal(match: Match) -> str:
    """Ordinal numbers.

    the 1st and 1,000th -> the first and one thousandth
    """
    return ordinal_words(int(match[1].replace(",", "")))


def _several(match: Match) -> str | None:
    """Decades, and several of what has a number for its name; 1987's is left.

    the 1990s, '90s, 747s -> the nineteen nineties, nineties, seven hundred and forty sevens
    """
    before, figure, apostrophe = match.groups()
    decade = figure[-1] == "0" and len(figure) in (2, 4)
    if (before or apostrophe) and not decade:
        return None
    year = len(figure) == 4 and decade and figure[0] in "12"
    return plural(year_words(figure) if year else figure_words(figure))


def _year(match: Match) -> str:
    """Years.

    in 1804, in 1066, by 2021 -> in eighteen oh four, in ten sixty six, by twenty twenty one
    from 1980/81 -> from nineteen eighty eighty one
    """
    return year_words(match[1]) + (f" {number_words(int(match[2]))}" if match[2] else "")


def _years(match: Match) -> str | None:
    """Years, the second cut short; other figures behind a year are no years.

    from 2001-02 to 1990-95 -> from two thousand and one to oh two to nineteen ninety to ninety five
    """
    year, last = match.groups()
    if int(last) <= int(year[2:]):
        return None
    return f"{year_words(year)} to {'oh ' if last[0] == '0' else ''}{number_words(int(last))}"


def _number(match: Match) -> str:
    """Any other number.

    about 1,234 of 1 000 000 -> about one thousand two hundred and thirty four of one million
    """
    return figure_words(match[0])


_PHONE = (
    r"(?<![\w+])\+[0-9]{1,15}(?:[ .-]\(?[0-9]{1,6}\)?){0,6}(?![0-9])"  # +44 20 7946 0958
    r"|(?<!\w)\([0-9]{3}\)[ -]?[0-9]{3}[ .-][0-9]{4}(?![0-9])"  # (555) 123-4567
    r"|(?<!\w)\(0[0-9]{2,4}\)(?:[ -]?[0-9]{3,8}){1,2}(?![0-9])"  # (020) 7946 0958
    r"|(?<![0-9])[0-9]{3}([ .])[0-9]{3}\1[0-9]{4}(?![0-9])"  # 555.123.4567
    r"|(?<![0-9-])[2-9][0-9]{2}-[0-9]{4}(?![0-9-])"  # 555-1234
    r"|(?<![0-9])0[0-9]{2,4}(?:[ -][0-9]{3,6}){1,2}(?![0-9])"  # 020 7946 0958
)
CODES: list[Rule] = [
    rule(r"(?<![\w-])1-(8[0-9]{2})-([A-Z]{3,8}(?:-[A-Z]{2,8})?)(?!\w)", _vanity, digits=True),
    rule(r"(?<![0-9])([0-9]{4}([ -])[0-9]{4}\2[0-9]{4}\2[0-9]{4})(?![0-9])", _postal_code, digits=True),
    rule(r"(?<![0-9.,-])([0-9]{5}-[0-9]{4})(?![0-9-])", _postal_code, digits=True),
    rule(
        r"(?:(?<![^\W\d_])(?ai:zip)(?: code)?:?(?: is)?|, [A-Z]{2}) ([0-9]{5})(?![\w,.-]\w)",
        _postal_code,
        1,
        digits=True,
    ),
    rule(_PHONE, _phone, digits=True),
    rule(r"(?<![\w.,+-])[0-9]{1,12}(?:-[0-9]{1,12}){2,8}(?![\w-])", _groups, digits=True),
    rule(
        r"(?<=[Cc]all |[Dd]ial )(?:911|999|112)(?![0-9]|[.,:-][0-9])", lambda match: digit_words(match[0]), digits=True
    ),
    rule(
        r"(?<![\w.,$€£+-])911(?!['’]|[\w%°]|[.,:/-][0-9])"
        r"(?! (?!or\b|and\b|now\b|if\b|for\b|right\b|immediately\b)[a-z])",
        lambda match: digit_words(match[0]),
        digits=True,
    ),
    rule(r"(?<![\w.])([45][0-9]{2})\(([a-z])\)(?:\(([0-9])\))?", _plan, digits=True),
    rule(
        rf"(?<![^\W_])(?:{_BOOKS}) (([0-9]{{1,3}}):([0-9]{{1,3}})(?:[-–]([0-9]{{1,3}}))?)(?![0-9:])",
        _verse,
        1,
        digits=True,
    ),
    rule(
        r"(?<![^\W_])(?:ISO|IEC|EN|DIN|ANSI|BS)(?:/IEC)? (([0-9]{3,5}):((?:19|20)[0-9]{2}))(?![0-9])",
        _standard,
        1,
        digits=True,
    ),
]
RANGES: list[Rule] = [
    rule(r"(?<![0-9.,/-])((?:1[89]|20)[0-9]{2})[-–]([0-9]{2})(?![0-9-])", _years, digits=True),
    rule(r"(?<=[0-9]) ?[-−] ?(?=[0-9.]{1,12} ?=)", "minus", digits=True),
    rule(r"(?<![0-9-])50(-)50(?![0-9-])", " ", 1, digits=True),
    rule(
        r"(?:(?<=[0-9%])|(?<=[0-9]s)|(?<=[0-9](?:st|nd|rd|th))|(?<=[0-9]°[CF])|(?<=[0-9 ][apAP][mM])|(?<=[ap]\.m\.)"
        r"|(?<=[0-9](?:kg|km|cm|mm|lb|ft|oz|ml|GB|MB|TB|ms|Hz))|(?<=[0-9] (?:kg|km|cm|mm|lb|ft|oz|ml|GB|MB|TB|ms|Hz))"
        r"|(?<=[0-9][gmKMk°′\"])|(?<=[½¼¾]))"
        r"(?:-| ?[–—~] ?)(?=[$£€¥]?[0-9]|[½¼¾])",
        "to",
        digits=True,
    ),
    rule(r"(?<=[0-9]) - (?=[0-9])", "minus", digits=True),
    rule(
        r"""(?:(?<![^\s(\[{"'“‘=+*/,:;<>~±])[-–]|−)(?=[$£€¥]?\.?[0-9])""",
        "minus",
        digits=True,
    ),
    rule(r"(?<![^\s(\[{])[~≈](?= ?[$£€¥]?\.?[0-9])", "about", digits=True),
]
RULES: list[Rule] = [
    rule(r"(?<=[0-9]):(?=[0-9])", "to", digits=True),
    rule(r"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9]|\.[0-9])", _ip_address, digits=True),
    rule(r"(?<![0-9.])[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,4}(?![0-9]|\.[0-9])", _large, digits=True),
    rule(rf"{NO_LETTER_BEFORE}(?:([Vv]) ?(?=[0-9]))([0-9]{{1,9}}(?:\.[0-9]{{1,9}})*)(?![0-9])", _version, digits=True),
    rule(r"()(?<![0-9.])([0-9]{1,9}(?:\.[0-9]{1,9}){2,})(?![0-9])", _version, digits=True),
    rule(r"(?<![0-9/.,])([0-9]{1,3})/(100?)(?![0-9/]|[.,][0-9]|(?:ths?)| of\b)", _score, digits=True),
    rule(r"(?<![0-9.,])((?:19|20)[0-9]{2})/([0-9]{2})(?![0-9/])", _year, digits=True),
    rule(r"(?<![0-9/.,])([0-9]\.[0-9]|5(?=/5))/(5|10|100)(?![0-9/]|[.,][0-9])", _score, digits=True),
    rule(FRACTION, _fraction, digits=True),
    rule(r"(?<=[0-9]) ?/ ?(?=[a-z]{2})", "per", digits=True),
    rule(
        rf"(?<![0-9])([0-9]{{1,3}}(?:,[0-9]{{3}}){{1,6}}|[0-9]{{1,15}})(?ai:st|nd|rd|th){NO_LETTER_AFTER}",
        _ordinal,
        digits=True,
    ),
    rule(rf"(['’]?)(?<![0-9.,])([0-9]{{1,4}})(['’]?)s{NO_LETTER_AFTER}", _several, digits=True),
    rule(r"(?<![0-9.,])((?:(?<=[Ii]n )10[0-9]{2}|1[1-9][0-9]{2}|20[0-9]{2}))(?![0-9]|[.,][0-9])()", _year, digits=True),
    rule(NUMBER, _number, digits=True),
    rule("[0-9]+", _number, digits=True),
]
