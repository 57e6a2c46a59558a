"""Times of day, and how long something takes."""

from __future__ import annotations

from audio_projection.text.normalisation.number_words import figure_words, number_words
from audio_projection.text.normalisation.patterns import NO_LETTER_AFTER, NO_LETTER_BEFORE, Match, Rule, rule


def _time(match: Match) -> str | None:
    """A time of day; hours past 24 are no time, and left to other rules.

    at 10:30, 10:00, 17:45 or 17:00 -> at ten thirty, ten o'clock, seventeen forty five or seventeen hundred
    at 7:05 a.m. He -> at seven oh five A M. He
    at 2:30 p.m. ET we -> at two thirty P M E T we
    """
    hour, minute, second, half, zone = match.groups()
    if int(hour) > 24:
        return None
    words = [number_words(int(hour)), *_minutes(minute)]
    if minute == "00" and not half and not second:
        words.append("o'clock" if 0 < int(hour) <= 12 else "hundred")
    if second and second != "00":
        words.append(f"and {_counted(second, 'second')}")
    return " ".join(words + _half(half) + list(zone or ""))


def _continental(match: Match) -> str:
    """A time with an h.

    It starts at 18h30. -> It starts at eighteen thirty.
    """
    return " ".join([number_words(int(match[1])), *(_minutes(match[2]) or ["hundred"])])


def _hour(match: Match) -> str:
    """A full hour of the morning or the afternoon.

    open 9am-5pm -> open nine A M to five P M
    """
    return " ".join([number_words(int(match[1])), *_half(match[2]), *(match[3] or "")])


def _half_of_day(match: Match) -> str:
    """The half of the day on its own.

    this p.m. we -> this P M we
    """
    return _half(match[0][0])[0]


def _duration(match: Match) -> str | None:
    """Hours, minutes and seconds, at least two of them.

    2h 45m or 3m20s -> Two hours forty five minutes or three minutes twenty seconds
    """
    given = [
        (figure, name) for figure, name in zip(match.groups(), ("hour", "minute", "second"), strict=True) if figure
    ]
    return " ".join(_counted(figure, name) for figure, name in given) if len(given) > 1 else None


def _seconds(match: Match) -> str:
    """Seconds with a bare s; after "the" or before music the same are years.

    Wait 20s, the 80s and 90s -> Wait twenty seconds, the eighties and nineties
    in 9.58s -> in nine point five eight seconds
    """
    return _counted(match[1], "second")


def _counted(figure: str, name: str) -> str:
    one = figure.lstrip("0") == "1"
    return f"{figure_words(figure.lstrip('0') or '0')} {name}{'' if one else 's'}"


def _minutes(minute: str) -> list[str]:
    if minute == "00":
        return []
    return [f"oh {number_words(int(minute))}" if minute[0] == "0" else number_words(int(minute))]


def _half(letter: str | None) -> list[str]:
    return [f"{letter.upper()} M"] if letter else []


_HALF = rf"[ \u00a0]?([AaPp])\.?[Mm]{NO_LETTER_AFTER}(?:\.{NO_LETTER_AFTER})?"
_ZONE = rf"(?: ([ECMP][SD]?T|GMT|UTC|CET|CEST|BST|IST|JST){NO_LETTER_AFTER})?"
_NO_SECONDS = r"(?! (?:music|style|songs?|pop|rock|hits|fashion|movies?|films?|era)\b)"

RULES: list[Rule] = [
    rule(r"(?<=[0-9\ue000])T(?=[0-2][0-9]:[0-5][0-9])", "at", digits=True),
    rule(
        rf"(?<![0-9:.])([0-9]{{1,2}})(?::|\.(?=[0-5][0-9] ?[AaPp]\.?[Mm]{NO_LETTER_AFTER}))"
        rf"([0-5][0-9])(?::([0-5][0-9])(?:\.[0-9]{{1,6}})?Z?)?(?![0-9:])(?:{_HALF})?{_ZONE}",
        _time,
        stop=True,
        digits=True,
    ),
    rule(r"(?<![\w:.,-])(1?[0-9]|2[0-4])h([0-5][0-9])(?!\w)", _continental, digits=True),
    rule(rf"(?<![0-9:.,])(1[0-2]|0?[1-9]){_HALF}{_ZONE}", _hour, stop=True, digits=True),
    rule(
        r"(?<![\w.,])(?:([0-9]{1,3}) ?(?:h|hrs?)(?: |(?=[0-9])|(?!\w)))?"
        r"(?:([0-9]{1,3}) ?(?:m|mins?)(?: |(?=[0-9])|(?!\w)))?"
        r"(?:([0-9]{1,3}) ?(?:s|secs?)(?!\w))?(?<=[hmsrnc])",
        _duration,
        digits=True,
    ),
    rule(rf"(?<![\w.,'’-])([0-9]{{1,3}}\.[0-9]+)s{NO_LETTER_AFTER}(?!['’])", _seconds, digits=True),
    rule(
        rf"(?<![\w.,'’-])(?<![Tt]he )(?<![Tt]heir )(?<!in )(?<!her )(?<!his )(?<!my )(?<!late )(?<!early )(?<!to )"
        r"(?<![0-9]{3}0s and )(?<![0-9]{3}0s or )(?<![Tt]he [0-9]0s and )(?<![Tt]he [0-9]0s or )"
        r"(?<![Tt]he [0-9]0s, )(?<![Tt]he [0-9]0s, [0-9]0s and )(?<![Tt]he [0-9]0s, [0-9]0s, and )"
        rf"([0-9]{{1,2}}|[1-9][0-9]0)s{NO_LETTER_AFTER}(?!['’]){_NO_SECONDS}",
        _seconds,
        digits=True,
    ),
    rule(rf"(?<!\.){NO_LETTER_BEFORE}(?ai:[ap]\.m\.){NO_LETTER_AFTER}", _half_of_day, stop=True),
]
