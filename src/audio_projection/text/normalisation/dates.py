"""Dates and times of day."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.number_words import number_words, year_words
from audio_projection.text.normalisation.patterns import NO_LETTER_AFTER, NO_LETTER_BEFORE, Match, Rule, placed, stopped

MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
_MONTH = rf"(?:{'|'.join(MONTHS)}|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?){NO_LETTER_AFTER}"
_DAY = rf"(?<![0-9])(?:3[01]|[12][0-9]|0?[1-9])(?![0-9]|[.,:/][0-9])(?:(?:st|nd|rd|th){NO_LETTER_AFTER})?"
_NO_DAY = (
    r"(?! (?:people|men|women|children|others|of (?:them|us|the)|years?|months?|weeks?|days?|hours?|minutes?|times)\b)"
)
_OF_YEAR = r"(?:,? ([12][0-9]{3})(?![0-9]|[.,][0-9]))?"


def _date(month: str, day: str, year: str) -> str:
    return f"{MONTHS[int(month) - 1]} {number_words(int(day), 'ordinal')}, {year_words(year)}"


def _iso_date(match: Match) -> str:
    return placed(match, _date(match[2], match[3], match[1]))


def _slash_date(match: Match) -> str:
    """Month first; day first where only that is possible. Two digits of a year are those of 1970 to 2069."""
    first, second, year = match.groups()
    if int(first) > 12:
        first, second = second, first
    if len(year) == 2:
        year = ("19" if int(year) >= 70 else "20") + year
    if not 0 < int(first) <= 12 or not 0 < int(second) <= 31:
        return match[0]
    return placed(match, _date(first, second, year))


def _day_month(match: Match) -> str:
    the, first, last, month, year = match.groups()
    days = _day(first) + (f" to {_day(last)}" if last else "")
    return stopped(match, f"{the or 'the '}{days} of {_month(month)}" + (f", {year_words(year)}" if year else ""))


def _month_day(match: Match) -> str:
    month, first, last, year, only_year = match.groups()
    if only_year:
        return placed(match, f"{_month(month)} {year_words(only_year)}")
    days = _day(first) + (f" to {_day(last)}" if last else "")
    return placed(match, f"{_month(month)} {days}" + (f", {year_words(year)}" if year else ""))


def _day(figure: str) -> str:
    return number_words(int(figure.rstrip("stndrh")), "ordinal")


def _month(name: str) -> str:
    return next(month for month in MONTHS if month.startswith(name[:3]))


def _time(match: Match) -> str:
    """10:30, 7:05 a.m., 7.05 am, 17:00, 1:02:03; hours past 24 are no time, and left to other rules."""
    hour, minute, second, half = match.groups()
    if int(hour) > 24:
        return match[0]
    words = [number_words(int(hour))]
    if minute != "00":
        words.append(f"oh {number_words(int(minute))}" if minute[0] == "0" else number_words(int(minute)))
    elif not half and not second:
        words.append("o'clock" if 0 < int(hour) <= 12 else "hundred")
    if second:
        words.append(f"and {number_words(int(second))} second{'' if int(second) == 1 else 's'}")
    return stopped(match, " ".join(words + _half(half)))


def _hour(match: Match) -> str:
    return stopped(match, " ".join([number_words(int(match[1])), *_half(match[2])]))


def _half(letter: str | None) -> list[str]:
    return [f"{letter.upper()} M"] if letter else []


_HALF = rf" ?([AaPp])\.?[Mm]{NO_LETTER_AFTER}(?:\.{NO_LETTER_AFTER})?"

ISO_DATE: Rule = (re.compile(r"(?<![0-9])([12][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(?![0-9-])"), _iso_date)
SLASH_DATE: Rule = (re.compile(r"(?<![0-9/])([0-9]{1,2})/([0-9]{1,2})/([12][0-9]{3}|[0-9]{2})(?![0-9/])"), _slash_date)
TIME: Rule = (
    re.compile(
        rf"(?<![0-9:.])([0-9]{{1,2}})(?::|\.(?=[0-5][0-9] ?[AaPp]\.?[Mm]{NO_LETTER_AFTER}))"
        r"([0-5][0-9])(?::([0-5][0-9]))?(?![0-9:])"
        rf"(?:{_HALF})?"
    ),
    _time,
)
HOUR: Rule = (re.compile(rf"(?<![0-9:.,])(1[0-2]|0?[1-9]){_HALF}"), _hour)
DAY_MONTH: Rule = (
    re.compile(rf"([Tt]he )?({_DAY})(?: to (?:the )?({_DAY}))? (?:of )?({_MONTH}){_OF_YEAR}"),
    _day_month,
)
MONTH_DAY: Rule = (
    re.compile(
        rf"{NO_LETTER_BEFORE}({_MONTH}) "
        rf"(?:({_DAY}){_NO_DAY}(?: to ({_DAY}))?{_OF_YEAR}|([12][0-9]{{3}})(?![0-9]|[.,][0-9]))"
    ),
    _month_day,
)
HALF_OF_DAY: Rule = (
    re.compile(rf"(?<!\.){NO_LETTER_BEFORE}(?ai:[ap]\.m\.){NO_LETTER_AFTER}"),
    lambda match: stopped(match, *_half(match[0][0])),
)
