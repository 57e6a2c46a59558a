"""English as it is said: numbers, dates, times, money, units, signs and abbreviations in words.

    spell_out("Dr. Lee paid $3.50 on May 3rd, 2021.")
    # Doctor Lee paid three dollars and fifty cents on May third, twenty twenty one.

A list of rules, one for each kind of thing, is gone through once; a rule sees what those before it left. The rules
only find things and take them apart, the number words are num2words's. What they write are words without hyphens,
and no rule matches what any rule has written. Where a figure can be read in two ways the commoner one is taken:
1100 to 2099 are years, 5/3/2021 has the month first, and long or zero-led figures are read digit by digit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

Match = re.Match[str]
Rule = tuple[re.Pattern[str], Callable[[Match], str]]

_LONGEST = 9  # digits without commas that are read as one number; phone and card numbers are longer

_FRACTION_SIGNS = "½⅓⅔¼¾⅕-⅞"
_LETTER = rf"[^\W\d_²³{_FRACTION_SIGNS}]"
_NO_LETTER_BEFORE, _NO_LETTER_AFTER = rf"(?<!{_LETTER})", rf"(?!{_LETTER})"
_CAPITAL = "[A-ZÀ-ÖØ-Þ]"
# Every pattern that starts with digits starts at the first of them, so that long figures are not tried at each digit.
_WHOLE = r"(?<![0-9])(?:[0-9]{1,3}(?:,[0-9]{3}){1,6}(?![0-9])|[0-9]+)"
_NUMBER = rf"(?:{_WHOLE}(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
_FRACTION = r"(?<![0-9/⁄.,])(?:[0-9]{1,3} )?[0-9]{1,3}[/⁄][0-9]{1,3}(?![0-9/⁄]|[.,][0-9])"
_SENTENCE_START = re.compile(r"""(?:^|[.!?…]["'”’)\]]?\s|\n)["'“‘(\[]?$""")
_SENTENCE_END = re.compile(rf"""["'”’)\]]*(?:\n|$|\s["'“‘(]?{_CAPITAL})""")


def spell_out(text: str) -> str:
    """The text with everything that is not written as it is said put into words; other text comes back as it is.

    No ASCII digit is left. Spelling out twice changes nothing more, and no string is refused.
    """
    for pattern, words in _WORD_RULES:
        text = pattern.sub(words, text)
    if _FIGURE.search(text):
        for pattern, words in _FIGURE_RULES:
            text = pattern.sub(words, text)
    for pattern, words in _LAST_RULES:
        text = pattern.sub(words, text)
    return text


# --- words in their place


def _placed(match: Match, words: str) -> str:
    """The words for a match: set off from letters and digits beside it, with a capital where a sentence starts."""
    text, start, end = match.string, match.start(), match.end()
    if _SENTENCE_START.search(text[max(start - 4, 0) : start]):
        words = _capital(words)
    left = " " if text[max(start - 1, 0) : start].isalnum() else ""
    return left + words + (" " if text[end : end + 1].isalnum() else "")


def _stopped(match: Match, words: str) -> str:
    """The words for a match that may end with a full stop, which stays where it ends a sentence too."""
    stays = match[0].endswith(".") and _SENTENCE_END.match(match.string, match.end())
    return _placed(match, words + "." if stays else words)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


# --- number words


@lru_cache(maxsize=1 << 14)
def _words(number: int, kind: str = "cardinal") -> str:
    """Words without commas and hyphens; `kind`: cardinal, ordinal or year."""
    from num2words import num2words  # all its languages at once, and most texts have no number

    return str(num2words(number, to=kind)).replace(",", "").replace("-", " ")


def _cardinal(number: int) -> str:
    """As `_words`, put together of thousands, each of which is asked for only once: num2words is not quick."""
    if number < 1000:
        return _words(number)
    scale = 1000 ** ((len(str(number)) - 1) // 3)
    many, rest = divmod(number, scale)
    words = f"{_words(many)} {_words(scale).removeprefix('one ')}"
    return f"{words} {'and ' if rest < 100 else ''}{_cardinal(rest)}" if rest else words


def _digits(digits: str) -> str:
    return " ".join(_words(int(digit)) for digit in digits)


def _number(figure: str) -> str:
    """1,234.5, .5 or 007 in words."""
    whole, point, decimals = figure.partition(".")
    words = [_integer(whole)] if whole else []
    return " ".join(words + (["point", _digits(decimals)] if point else []))


def _integer(figure: str) -> str:
    zero_led = len(figure) > 1 and figure[0] == "0"
    if zero_led or (len(figure) > _LONGEST and "," not in figure):
        return _digits(figure.replace(",", ""))
    return _cardinal(int(figure.replace(",", "")))


def _year(figure: str) -> str:
    return _words(int(figure), "year")


def _plural(words: str) -> str:
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "ch")) else "s")


def _fraction(figure: str) -> str:
    """3/4 or 2 1/2 in words; 50/50 and 24/7 are said as they stand, 10/3 is ten over three."""
    whole, _, part = figure.rpartition(" ")
    above, below = (int(number) for number in re.split("[/⁄]", part))
    if not above < below or figure == "9/11":
        between = " over " if above > below and figure != "24/7" else " "
        return f"{_number(whole)} {_words(above)}{between}{_words(below)}".strip()
    name = {1: "whole", 2: "half", 4: "quarter"}.get(below) or _words(below, "ordinal")
    if above != 1:
        name = "halves" if below == 2 else _plural(name)
    part = f"{'a' if whole and above == 1 else _words(above)} {name}"
    return f"{_number(whole)} and {part}" if whole else part


# --- abbreviations, acronyms, Roman numerals

_TITLES = {
    **{"mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "st": "saint"},
    **{"gen": "general", "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant"},
    **{"rev": "reverend", "hon": "honorable", "sen": "senator", "gov": "governor", "mt": "mount"},
}
_ABBREVIATIONS = {
    **{"mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "jr": "junior"},
    **{"sr": "senior", "st": "street", "ave": "avenue", "blvd": "boulevard", "rd": "road", "etc": "et cetera"},
    **{"et al": "and others", "approx": "approximately", "dept": "department", "inc": "incorporated"},
    **{"ltd": "limited", "corp": "corporation", "co": "company", "bros": "brothers", "cf": "compare"},
    **{"vs": "versus", "e.g": "for example", "i.e": "that is", "a.k.a": "also known as"},
    **{"ph.d": "P H D", "phd": "P H D"},
}
_BEFORE_NUMBERS = {
    **{"no": "number", "nos": "numbers", "fig": "figure", "figs": "figures", "vol": "volume", "ch": "chapter"},
    **{"sec": "section", "eq": "equation", "p": "page", "pp": "pages", "#": "number", "№": "number"},
}
_KINGS = (
    "Henry|Charles|George|Edward|Richard|William|James|Louis|Philip|Frederick|Alexander|Peter|Nicholas|Napoleon|"
    "Francis|Ferdinand|Leopold|Otto|Ivan|Robert|David|Malcolm|Alfonso|Gustav|Elizabeth|Mary|Catherine|Margaret|"
    "Ramesses|Thutmose|Ptolemy|John|Paul|Pius|Benedict|Gregory|Leo|Innocent|Clement|Boniface|Urban|Julius"
)
_REIGNING = r"(?:King|Queen|Pope|Emperor|Empress|Tsar|Kaiser)"
_ROMAN = {
    tens + ones: 10 * ten + one
    for ten, tens in enumerate(["", "X", "XX", "XXX"])
    for one, ones in enumerate(["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"])
}
_NO_ACRONYMS = {"HM", "HMM", "MM", "SH", "SHH", "PST", "PSST", "TSK", "BRR", "GRR", "PFF", "PFFT", "MR", "MRS"}


def _title(match: Match) -> str:
    return _placed(match, _cased(match, _TITLES[match[0].rstrip(".").lower()]))


def _abbreviation(match: Match) -> str:
    return _stopped(match, _cased(match, _ABBREVIATIONS[match[0].rstrip(".").lower()]))


def _before_number(match: Match) -> str:
    return _placed(match, _cased(match, _BEFORE_NUMBERS[match[0].rstrip(".").lower()]))


def _cased(match: Match, words: str) -> str:
    return _capital(words) if match[0][0].isupper() else words


def _reign(match: Match) -> str:
    """Henry VIII; a lone I is mostly the pronoun, and a number only after King, Queen, Pope ..."""
    title, name, numeral = match.groups()
    number = _ROMAN.get(numeral)
    if number is None or (number == 1 and not title):
        return match[0]
    return f"{title or ''}{name} the {_words(number, 'ordinal')}"


def _acronym(match: Match) -> str:
    """Capitals without a vowel (Y is one) letter by letter; interjections and X, V as Roman numerals stay."""
    letters, ending = match.groups()
    if letters in _NO_ACRONYMS or not set(letters) - set("XV") or re.search(r"(.)\1\1", letters):
        return match[0]
    return " ".join(letters) + ending


# (?ai: ASCII letters of both cases only, or "ſt." would be St.
# Titles stand before a capital, some of them without a full stop too; anywhere else they are in the other table.
_WORD_RULES: list[Rule] = [
    (
        re.compile(
            rf"{_NO_LETTER_BEFORE}(?:(?:(?ai:mrs?|ms|dr|prof|st)|{'|'.join(map(_capital, _TITLES))})\.(?=\s?{_CAPITAL})"
            rf"|(?:Mrs?|MRS?|Ms|Dr|Prof|St)(?=\s{_CAPITAL}))"
        ),
        _title,
    ),
    (
        re.compile(rf"{_NO_LETTER_BEFORE}(?ai:nos?|figs?|vol|ch|sec|eq|pp?)\.(?=\s?[0-9])|[#№](?=\s?[0-9])"),
        _before_number,
    ),
    (
        re.compile(
            rf"(?<!\.){_NO_LETTER_BEFORE}(?ai:(?:{'|'.join(map(re.escape, _ABBREVIATIONS))})\.|vs|e\.g|i\.e|phd)"
            rf"{_NO_LETTER_AFTER}"
        ),
        _abbreviation,
    ),
    (
        re.compile(
            rf"{_NO_LETTER_BEFORE}({_REIGNING} )?({_KINGS}) ([IVX]{{2,6}}|[VX](?!\. ?{_CAPITAL})|I){_NO_LETTER_AFTER}"
        ),
        _reign,
    ),
    (re.compile(rf"(?<=World War )I{{1,2}}{_NO_LETTER_AFTER}"), lambda match: _words(len(match[0]))),
]

# --- dates and times

_MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
_MONTH = rf"(?:{'|'.join(_MONTHS)}|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?){_NO_LETTER_AFTER}"
_DAY = rf"(?<![0-9])(?:3[01]|[12][0-9]|0?[1-9])(?![0-9]|[.,:/][0-9])(?:(?:st|nd|rd|th){_NO_LETTER_AFTER})?"
_OF_YEAR = r"(?:,? ([12][0-9]{3})(?![0-9]|[.,][0-9]))?"


def _date(month: str, day: str, year: str) -> str:
    return f"{_MONTHS[int(month) - 1]} {_words(int(day), 'ordinal')}, {_year(year)}"


def _iso_date(match: Match) -> str:
    return _placed(match, _date(match[2], match[3], match[1]))


def _slash_date(match: Match) -> str:
    """Month first; day first where only that is possible. Two digits of a year are those of 1970 to 2069."""
    first, second, year = match.groups()
    if int(first) > 12:
        first, second = second, first
    if len(year) == 2:
        year = ("19" if int(year) >= 70 else "20") + year
    if not 0 < int(first) <= 12 or not 0 < int(second) <= 31:
        return match[0]
    return _placed(match, _date(first, second, year))


def _day_month(match: Match) -> str:
    the, first, last, month, year = match.groups()
    days = _day(first) + (f" to {_day(last)}" if last else "")
    return _stopped(match, f"{the or 'the '}{days} of {_month(month)}" + (f", {_year(year)}" if year else ""))


def _month_day(match: Match) -> str:
    month, first, last, year, only_year = match.groups()
    if only_year:
        return _placed(match, f"{_month(month)} {_year(only_year)}")
    days = _day(first) + (f" to {_day(last)}" if last else "")
    return _placed(match, f"{_month(month)} {days}" + (f", {_year(year)}" if year else ""))


def _day(figure: str) -> str:
    return _words(int(figure.rstrip("stndrh")), "ordinal")


def _month(name: str) -> str:
    return next(month for month in _MONTHS if month.startswith(name[:3]))


def _time(match: Match) -> str:
    """10:30, 7:05 a.m., 17:00, 1:02:03; hours past 24 are no time, and left to other rules."""
    hour, minute, second, half = match.groups()
    if int(hour) > 24:
        return match[0]
    words = [_words(int(hour))]
    if minute != "00":
        words.append(f"oh {_words(int(minute))}" if minute[0] == "0" else _words(int(minute)))
    elif not half and not second:
        words.append("o'clock" if 0 < int(hour) <= 12 else "hundred")
    if second:
        words.append(f"and {_words(int(second))} second{'' if int(second) == 1 else 's'}")
    return _stopped(match, " ".join(words + _half(half)))


def _hour(match: Match) -> str:
    return _stopped(match, " ".join([_words(int(match[1])), *_half(match[2])]))


def _half(letter: str | None) -> list[str]:
    return [f"{letter.upper()} M"] if letter else []


_HALF = rf" ?([AaPp])\.?[Mm]{_NO_LETTER_AFTER}(?:\.{_NO_LETTER_AFTER})?"

# --- money and units

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "¢": ("cent", "cents", "", ""),
}
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_SCALE = rf"(?:(?ai:({'|'.join(_SCALES)})|[ -]?(thousand|million|billion|trillion)){_NO_LETTER_AFTER})?"
# Singular, and the plural where it is more than an s.
_UNITS = {
    **{"km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "mi": "mile"},
    **{"µm": "micrometer", "μm": "micrometer", "yd": "yard", "ft": "foot|feet", "sq ft": "square foot|square feet"},
    **{"km/h": "kilometer per hour|kilometers per hour", "m/s": "meter per second|meters per second"},
    **{"kph": "kilometer per hour|kilometers per hour", "mph": "mile per hour|miles per hour"},
    **{"km²": "square kilometer", "m²": "square meter", "cm²": "square centimeter", "m³": "cubic meter"},
    **{"kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce"},
    **{"l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter", "cl": "centiliter"},
    **{"°C": "degree Celsius|degrees Celsius", "°F": "degree Fahrenheit|degrees Fahrenheit"},
    **{"h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "sec": "second", "secs": "second"},
    **{"ms": "millisecond", "Hz": "hertz|hertz", "kHz": "kilohertz|kilohertz", "MHz": "megahertz|megahertz"},
    **{"GHz": "gigahertz|gigahertz", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte"},
    **{"TB": "terabyte", "V": "volt", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour"},
}
_UNIT = "|".join(map(re.escape, sorted(_UNITS, key=len, reverse=True)))


def _money(match: Match) -> str:
    sign, figure, short, scale = match.groups()
    return _placed(match, _amount(sign, figure, _SCALES[short.lower()] if short else (scale or "").lower()))


def _money_behind(match: Match) -> str:
    return _placed(match, _amount(match[2].strip(), match[1], ""))


def _amount(sign: str, figure: str, scale: str) -> str:
    one, many, small_one, small_many = _CURRENCIES[sign]
    if scale:
        return f"{_number(figure)} {scale} {many}"
    whole, _, decimals = figure.partition(".")
    if len(decimals) != 2 or not small_one:
        return f"{_number(figure)} {one if figure == '1' else many}"
    large = f"{_number(whole)} {one if whole == '1' else many}" if whole.strip("0") else ""
    small = f"{_words(int(decimals))} {small_one if decimals == '01' else small_many}" if decimals != "00" else ""
    return " and ".join(filter(None, [large, small])) or f"zero {many}"


def _measure(match: Match) -> str:
    figure, joint, unit = match.groups()
    one, _, many = _UNITS[unit.replace("º", "°").replace("° ", "°")].partition("|")
    fraction = "/" in figure or "⁄" in figure
    single = figure == "1" or joint == "-" or (fraction and " " not in figure)
    words = _fraction(figure) if fraction else _number(figure)
    return _stopped(match, f"{words} {one if single else many or one + 's'}")


# --- other figures


def _phone(match: Match) -> str:
    """Digit by digit, with a comma between the groups; what is too short for a phone number is left."""
    groups = re.findall("[0-9]+", match[0])
    if sum(map(len, groups)) < 7 or all(group.endswith("00") for group in groups):
        return match[0]
    return _placed(match, ("plus " if match[0][0] == "+" else "") + ", ".join(map(_digits, groups)))


def _version(match: Match) -> str:
    return _placed(match, " point ".join(_number(part) for part in match[0].split(".")))


def _ordinal(match: Match) -> str:
    return _placed(match, _words(int(match[1].replace(",", "")), "ordinal"))


def _several(match: Match) -> str:
    """1990s, '90s, 747s; 1987's is left."""
    before, figure, apostrophe = match.groups()
    decade = figure[-1] == "0" and len(figure) in (2, 4)
    if (before or apostrophe) and not decade:
        return match[0]
    year = len(figure) == 4 and decade and figure[0] in "12"
    return _placed(match, _plural(_year(figure) if year else _number(figure)))


_FIGURE = re.compile(f"[0-9{_FRACTION_SIGNS}]")
_FIGURE_RULES: list[Rule] = [
    (re.compile(f"[{_FRACTION_SIGNS}]"), lambda match: _placed(match, unicodedata.normalize("NFKC", match[0]))),
    (re.compile(r"(?<![0-9])([12][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])(?![0-9-])"), _iso_date),
    (re.compile(r"(?<![0-9/])([0-9]{1,2})/([0-9]{1,2})/([12][0-9]{3}|[0-9]{2})(?![0-9/])"), _slash_date),
    (
        re.compile(
            r"(?<![\w+])\+[0-9]{1,15}(?:[ .-]\(?[0-9]{1,5}\)?){0,6}(?![0-9])"  # +44 20 7946 0958
            r"|\([0-9]{3}\)[ -]?[0-9]{3}[ .-][0-9]{4}(?![0-9])"  # (555) 123-4567
            r"|(?<![0-9])(?<![0-9]-)[0-9]+(?:-[0-9]+){2,}"  # 1-800-555-1234
            r"|(?<![0-9])[0-9]{3}([ .])[0-9]{3}\1[0-9]{4}(?![0-9])"  # 555.123.4567
            r"|(?<![0-9-])[2-9][0-9]{2}-[0-9]{4}(?![0-9-])"  # 555-1234
            r"|(?<![0-9])0[0-9]{2,4}(?: [0-9]{3,4}){1,2}(?![0-9])"  # 020 7946 0958
        ),
        _phone,
    ),
    (
        re.compile(r"(?:(?<=[0-9%])|(?<=[0-9 ][apAP][mM])|(?<=[ap]\.m\.))(?:-| ?[–—] ?)(?=[$£€¥]?[0-9])"),
        lambda match: " to ",
    ),
    (re.compile(r"(?<=[0-9]) - (?=[0-9])"), lambda match: " minus "),
    (
        re.compile(r"""(?:(?<![^\s(\[{"'“‘=+*/,:;<>~±])[-–]|−)(?=[$£€¥]?\.?[0-9])"""),
        lambda match: _placed(match, "minus"),
    ),
    (
        re.compile(rf"(?<![0-9:.])([0-9]{{1,2}}):([0-5][0-9])(?::([0-5][0-9]))?(?![0-9:])(?:{_HALF})?"),
        _time,
    ),
    (re.compile(rf"(?<![0-9:.,])(1[0-2]|0?[1-9]){_HALF}"), _hour),
    (re.compile(r"(?<=[0-9]):(?=[0-9])"), lambda match: " to "),
    (re.compile(r"(?<![0-9.])[0-9]{1,9}(?:\.[0-9]{1,9}){2,}(?![0-9])"), _version),
    (re.compile(rf"([$£€¥]) ?({_NUMBER}){_SCALE}"), _money),
    (re.compile(rf"({_NUMBER})( ?[€£¢]|[$¥])"), _money_behind),
    (
        re.compile(rf"({_FRACTION}|{_NUMBER})([ -]?)({_UNIT}|[°º] ?[CF])(?![^\W_])(?:\.{_NO_LETTER_AFTER})?"),
        _measure,
    ),
    (re.compile(_FRACTION), lambda match: _placed(match, _fraction(match[0]))),
    (
        re.compile(r"(?<=[0-9]) ?[x×] ?(?=[0-9])"),
        lambda match: " by " if "x" in match[0] else " times ",
    ),
    (re.compile(rf"([Tt]he )?({_DAY})(?: to (?:the )?({_DAY}))? (?:of )?({_MONTH}){_OF_YEAR}"), _day_month),
    (
        re.compile(
            rf"{_NO_LETTER_BEFORE}({_MONTH}) "
            rf"(?:({_DAY})(?: to ({_DAY}))?{_OF_YEAR}|([12][0-9]{{3}})(?![0-9]|[.,][0-9]))"
        ),
        _month_day,
    ),
    (
        re.compile(rf"(?<![0-9])([0-9]{{1,3}}(?:,[0-9]{{3}}){{1,6}}|[0-9]{{1,15}})(?ai:st|nd|rd|th){_NO_LETTER_AFTER}"),
        _ordinal,
    ),
    (re.compile(rf"(['’]?)(?<![0-9.,])([0-9]{{1,4}})(['’]?)s{_NO_LETTER_AFTER}"), _several),
    (
        re.compile(r"(?<![0-9.,])(?:(?<=[Ii]n )10[0-9]{2}|1[1-9][0-9]{2}|20[0-9]{2})(?![0-9]|[.,][0-9])"),
        lambda match: _placed(match, _year(match[0])),
    ),
    (re.compile(_NUMBER), lambda match: _placed(match, _number(match[0]))),
]

# --- signs, and what comes last

_SIGNS = {
    **{"&": "and", "@": "at", "+": "plus", "=": "equals", "%": "percent", "±": "plus or minus", "×": "times"},
    **{"÷": "divided by", "°": "degrees", "²": "squared", "³": "cubed"},
    **{sign: names[0] for sign, names in _CURRENCIES.items()},
}


def _sign(match: Match) -> str:
    """One or two of a sign (C++) are said; a longer row is a line drawn."""
    if len(match[0]) > 2:
        return match[0]
    return _placed(match, " ".join([_SIGNS[match[1]]] * len(match[0])))


# After the figures, to which a.m. belongs, and which have units and endings in capitals.
_LAST_RULES: list[Rule] = [
    (
        re.compile(rf"(?<!\.){_NO_LETTER_BEFORE}(?ai:[ap]\.m\.){_NO_LETTER_AFTER}"),
        lambda match: _stopped(match, *_half(match[0][0])),
    ),
    (
        re.compile(rf"(?<!{_LETTER}['’]){_NO_LETTER_BEFORE}([B-DF-HJ-NP-TV-XZ]{{2,6}})(s?){_NO_LETTER_AFTER}"),
        _acronym,
    ),
    (re.compile(rf"([{''.join(map(re.escape, _SIGNS))}])\1*"), _sign),
]
