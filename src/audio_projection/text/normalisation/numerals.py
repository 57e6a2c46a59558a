"""Figures that are neither dates nor quantities: phone numbers, ranges, versions, fractions, ordinals, years."""

from __future__ import annotations

import re
import unicodedata

from audio_projection.text.normalisation.number_words import (
    digit_words,
    figure_words,
    fraction_words,
    number_words,
    plural,
    year_words,
)
from audio_projection.text.normalisation.patterns import (
    FRACTION,
    FRACTION_SIGNS,
    NO_LETTER_AFTER,
    NUMBER,
    Match,
    Rule,
    placed,
)


def _phone(match: Match) -> str:
    """Digit by digit, with a comma between the groups; what is too short for a phone number is left."""
    groups = re.findall("[0-9]+", match[0])
    if sum(map(len, groups)) < 7 or all(group.endswith("00") for group in groups):
        return match[0]
    return placed(match, ("plus " if match[0][0] == "+" else "") + ", ".join(map(digit_words, groups)))


def _version(match: Match) -> str:
    return placed(match, " point ".join(figure_words(part) for part in match[0].split(".")))


def _ordinal(match: Match) -> str:
    return placed(match, number_words(int(match[1].replace(",", "")), "ordinal"))


def _several(match: Match) -> str:
    """1990s, '90s, 747s; 1987's is left."""
    before, figure, apostrophe = match.groups()
    decade = figure[-1] == "0" and len(figure) in (2, 4)
    if (before or apostrophe) and not decade:
        return match[0]
    year = len(figure) == 4 and decade and figure[0] in "12"
    return placed(match, plural(year_words(figure) if year else figure_words(figure)))


FRACTION_SIGN: Rule = (
    re.compile(f"[{FRACTION_SIGNS}]"),
    lambda match: placed(match, unicodedata.normalize("NFKC", match[0])),
)
PHONE: Rule = (
    re.compile(
        r"(?<![\w+])\+[0-9]{1,15}(?:[ .-]\(?[0-9]{1,6}\)?){0,6}(?![0-9])"  # +44 20 7946 0958
        r"|\([0-9]{3}\)[ -]?[0-9]{3}[ .-][0-9]{4}(?![0-9])"  # (555) 123-4567
        r"|(?<![0-9])(?<![0-9]-)[0-9]+(?:-[0-9]+){2,}"  # 1-800-555-1234
        r"|(?<![0-9])[0-9]{3}([ .])[0-9]{3}\1[0-9]{4}(?![0-9])"  # 555.123.4567
        r"|(?<![0-9-])[2-9][0-9]{2}-[0-9]{4}(?![0-9-])"  # 555-1234
        r"|(?<![0-9])0[0-9]{2,4}(?: [0-9]{3,6}){1,2}(?![0-9])"  # 020 7946 0958
    ),
    _phone,
)
THOUSANDS: Rule = (  # 100 000
    re.compile(r"(?<![0-9.,+:/-])(?<![0-9] )([1-9][0-9]{0,2})((?: [0-9]{3}){0,4} 000)(?![0-9])(?! [0-9])"),
    lambda match: match[0].replace(" ", ","),
)
EMERGENCY: Rule = (
    re.compile(r"(?<=[Cc]all |[Dd]ial )(?:911|999|112)(?![0-9]|[.,:-][0-9])"),
    lambda match: placed(match, digit_words(match[0])),
)
HEIGHT: Rule = (  # 5'10"
    re.compile(r"""(?<![0-9.,])([1-9])['’′]([0-9]|1[01])(?:["”″]|'')"""),
    lambda match: placed(match, f"{number_words(int(match[1]))} foot {number_words(int(match[2]))}"),
)
EVEN: Rule = (re.compile(r"(?<![0-9-])50-50(?![0-9-])"), lambda match: "50 50")
RANGE: Rule = (
    re.compile(
        r"(?:(?<=[0-9%])|(?<=[0-9]s)|(?<=[0-9](?:st|nd|rd|th))|(?<=[0-9]°[CF])|(?<=[0-9 ][apAP][mM])|(?<=[ap]\.m\.))"
        r"(?:-| ?[–—] ?)(?=[$£€¥]?[0-9])"
    ),
    lambda match: " to ",
)
DIFFERENCE: Rule = (re.compile(r"(?<=[0-9]) - (?=[0-9])"), lambda match: " minus ")
NEGATIVE: Rule = (
    re.compile(r"""(?:(?<![^\s(\[{"'“‘=+*/,:;<>~±])[-–]|−)(?=[$£€¥]?\.?[0-9])"""),
    lambda match: placed(match, "minus"),
)
RATIO: Rule = (re.compile(r"(?<=[0-9]):(?=[0-9])"), lambda match: " to ")
VERSION: Rule = (re.compile(r"(?<![0-9.])[0-9]{1,9}(?:\.[0-9]{1,9}){2,}(?![0-9])"), _version)
FRACTION_FIGURE: Rule = (re.compile(FRACTION), lambda match: placed(match, fraction_words(match[0])))
PRODUCT: Rule = (
    re.compile(r"(?<=[0-9]) ?[x×] ?(?=[0-9])"),
    lambda match: " by " if "x" in match[0] else " times ",
)
ORDINAL: Rule = (
    re.compile(rf"(?<![0-9])([0-9]{{1,3}}(?:,[0-9]{{3}}){{1,6}}|[0-9]{{1,15}})(?ai:st|nd|rd|th){NO_LETTER_AFTER}"),
    _ordinal,
)
SEVERAL: Rule = (re.compile(rf"(['’]?)(?<![0-9.,])([0-9]{{1,4}})(['’]?)s{NO_LETTER_AFTER}"), _several)
YEAR: Rule = (
    re.compile(r"(?<![0-9.,])(?:(?<=[Ii]n )10[0-9]{2}|1[1-9][0-9]{2}|20[0-9]{2})(?![0-9]|[.,][0-9])"),
    lambda match: placed(match, year_words(match[0])),
)
OTHER_NUMBER: Rule = (re.compile(NUMBER), lambda match: placed(match, figure_words(match[0])))
