"""Dates."""

from __future__ import annotations

from audio_projection.text.normalisation.abbreviations import SHORT_DAYS
from audio_projection.text.normalisation.number_words import number_words, ordinal_words, year_words
from audio_projection.text.normalisation.patterns import (
    MONTHS,
    NO_LETTER_AFTER,
    NO_LETTER_BEFORE,
    Match,
    Rule,
    one_of,
    rule,
)

_MONTH = rf"(?:{'|'.join(MONTHS)}|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?){NO_LETTER_AFTER}"
_DAY = (
    r"(?<![0-9])(?:3[01]|[12][0-9]|0?[1-9])"
    rf"(?![0-9]|[.,:/][0-9]|-(?:[0-9]+-|year|day|month|week|hour))(?:(?:st|nd|rd|th){NO_LETTER_AFTER})?"
)
_SHORT_MONTHS = {month[:3]: month for month in MONTHS} | {"Sept": "September"}
_NO_DAY = (
    r"(?! (?:people|men|women|children|others|of (?:them|us|the)|years?|months?|weeks?|days?|hours?|minutes?|times)\b)"
)
_TO = r"(?: to (?:the )?|-| ?[–—] ?)"
_YEAR = r"([12][0-9]{3}|['’][0-9]{2})(?![0-9]|[.,-][0-9])"
_OF_YEAR = rf"(?:,? {_YEAR})?"


def _iso_date(match: Match) -> str:
    """A date from the year down.

    due 2021-05-03, closes 2024/10/1 -> due May third, twenty twenty one, closes October first, twenty twenty four
    """
    return _date(match[3], match[4], match[1])


def _slash_date(match: Match) -> str | None:
    """Month first; day first where only that is possible. Two digits of a year are those of 1970 to 2069.

    due 5/3/2021 or 25/12/99 -> due May third, twenty twenty one or December twenty fifth, nineteen ninety nine
    """
    first, second, year = match.groups()
    if int(first) > 12:
        first, second = second, first
    return _valid_date(first, second, year)


def _dotted_date(match: Match) -> str | None:
    """Day first, as wherever dates have full stops.

    due 31.12.2024 -> due December thirty first, twenty twenty four
    """
    day, month, year = match.groups()
    return _valid_date(month, day, year)


def _valid_date(month: str, day: str, year: str) -> str | None:
    if not 0 < int(month) <= 12 or not 0 < int(day) <= 31:
        return None
    return _date(month, day, year)


def _day_month(match: Match) -> str:
    """The day before the month.

    on 3 May 1999 -> on the third of May, nineteen ninety nine
    3-5 May -> The third to fifth of May
    on 1-May-2024 -> on the first of May, twenty twenty four
    """
    the, first, last, month, year = match.groups()
    days = _day(first) + (f" to {_day(last)}" if last else "")
    return f"{the or 'the '}{days} of {_month(month)}" + (f", {_year(year)}" if year else "")


def _month_day(match: Match) -> str:
    """The month before the day, or before the year.

    on May 3rd, 2021, he -> on May third, twenty twenty one, he
    in May 2021 -> in May twenty twenty one
    """
    month, first, last, year, only_year = match.groups()
    if only_year:
        return f"{_month(month)} {_year(only_year)}"
    days = _day(first) + (f" to {_day(last)}" if last else "")
    return f"{_month(month)} {days}" + (f", {_year(year)}" if year else "")


def _weekday(match: Match) -> str:
    """A day of the week cut short before a date.

    On Mon, 5 Feb he -> On Monday, the fifth of February he
    """
    return SHORT_DAYS[match[1].rstrip(".")]


def _span(match: Match) -> str:
    """From one day or month to another.

    Mon-Fri and Jan–Mar -> Monday to Friday and January to March
    """
    names = SHORT_DAYS | _SHORT_MONTHS
    return f"{names[match[1]]} to {names[match[2]]}"


def _quarter(match: Match) -> str:
    """A quarter of a year.

    in Q4'23 -> in Q four twenty three
    """
    return f"Q {number_words(int(match[1]))} {_year(match[2]) if len(match[2]) == 4 else number_words(int(match[2]))}"


def _date(month: str, day: str, year: str) -> str:
    return f"{MONTHS[int(month) - 1]} {ordinal_words(int(day))}, {_year(year)}"


def _year(figure: str) -> str:
    figure = figure.lstrip("'’")
    if len(figure) == 2:
        figure = ("19" if int(figure) >= 70 else "20") + figure
    return year_words(figure)


def _day(figure: str) -> str:
    return ordinal_words(int(figure.rstrip("stndrh")))


def _month(name: str) -> str:
    return next(month for month in MONTHS if month.startswith(name[:3]))


_SHORT = one_of([*SHORT_DAYS, *_SHORT_MONTHS])
RULES: list[Rule] = [
    rule(
        rf"{NO_LETTER_BEFORE}({_SHORT})\.?(?:-| ?– ?)({_SHORT}){NO_LETTER_AFTER}"
        r"(?! ?[0-9]{1,2}(?:st|nd|rd|th)?(?![\w:]))",
        _span,
    ),
    rule(r"(?<![^\W_])Q([1-4]) ?['’]?((?:20)?[0-9]{2})(?![\w%])", _quarter, digits=True),
    rule(
        rf"{NO_LETTER_BEFORE}((?:{one_of(SHORT_DAYS)})\.?)"
        rf"(?=,? (?:(?:the )?{_DAY}[ -]|(?:{_MONTH}) ?{_DAY}|[0-9]+/[0-9]))",
        _weekday,
        part=1,
        digits=True,
    ),
    rule(
        r"(?<![0-9/.-])([12][0-9]{3})([-/.])(0?[1-9]|1[0-2])\2(0[1-9]|[12][0-9]|3[01]|[1-9])(?![0-9/-]|\.[0-9])",
        _iso_date,
        digits=True,
    ),
    rule(r"(?<![0-9/])([0-9]{1,2})/([0-9]{1,2})/([12][0-9]{3}|[0-9]{2})(?![0-9/])", _slash_date, digits=True),
    rule(r"(?<![0-9.])([0-9]{1,2})\.([0-9]{1,2})\.([12][0-9]{3})(?![0-9]|\.[0-9])", _dotted_date, digits=True),
    rule(
        rf"(?<![0-9-])()(0?[1-9]|[12][0-9]|3[01])()-({_MONTH})-((?:[12][0-9])?[0-9]{{2}})(?![0-9-])",
        _day_month,
        digits=True,
    ),
    rule(
        rf"([Tt]he )?({_DAY})(?:{_TO}({_DAY}))? (?:of )?({_MONTH}){_OF_YEAR}",
        _day_month,
        stop=True,
        digits=True,
    ),
    rule(
        rf"{NO_LETTER_BEFORE}({_MONTH}) (?:({_DAY}){_NO_DAY}(?:{_TO}({_DAY}))?{_OF_YEAR}|{_YEAR})",
        _month_day,
        digits=True,
    ),
]
