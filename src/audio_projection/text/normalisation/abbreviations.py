"""Titles, streets and abbreviations."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.patterns import (
    CAPITAL,
    MONTHS,
    NO_LETTER_AFTER,
    NO_LETTER_BEFORE,
    NO_LETTERS_OF_A_PLURAL,
    Match,
    Rule,
    capital,
    one_of,
    rule,
)

TITLES = {
    **{"mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "st": "saint"},
    **{"gen": "general", "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant"},
    **{"rev": "reverend", "hon": "honorable", "sen": "senator", "gov": "governor", "mt": "mount", "ft": "fort"},
    **{"cpl": "corporal", "maj": "major", "adm": "admiral", "cmdr": "commander", "pres": "president"},
    **{"rep": "representative", "messrs": "messers", "mts": "mountains"},
}
ABBREVIATIONS = {
    **{"mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "jr": "junior"},
    **{"sr": "senior", "st": "street", "ave": "avenue", "blvd": "boulevard", "rd": "road", "etc": "et cetera"},
    **{"et al": "and others", "approx": "approximately", "dept": "department", "inc": "incorporated"},
    **{"ltd": "limited", "corp": "corporation", "co": "company", "bros": "brothers", "cf": "compare"},
    **{"vs": "versus", "e.g": "for example", "i.e": "that is", "a.k.a": "also known as"},
    **{"ph.d": "P H D", "phd": "P H D", "hwy": "highway", "pkwy": "parkway", "rte": "route", "bldg": "building"},
    **{"govt": "government", "assn": "association", "univ": "university", "intl": "international"},
    **{"natl": "national", "misc": "miscellaneous", "incl": "including", "excl": "excluding", "esp": "especially"},
    **{"avg": "average", "est": "established", "viz": "namely", "ca": "circa", "tel": "telephone", "apt": "apartment"},
    **{"m.sc": "M S C", "b.sc": "B S C"},
    **{
        "p.a": "per annum",
        "mgr": "manager",
        "asst": "assistant",
        "mfg": "manufacturing",
        "assoc": "associates",
        "gal": "gallon",
    },
}
BEFORE_NUMBERS = {
    **{"no": "number", "nos": "numbers", "fig": "figure", "figs": "figures", "vol": "volume", "ch": "chapter"},
    **{"sec": "section", "eq": "equation", "p": "page", "pp": "pages", "#": "number", "№": "number"},
    **{"vols": "volumes", "chap": "chapter", "para": "paragraph", "pg": "page", "pgs": "pages", "art": "article"},
    **{"ext": "extension", "ver": "version", "nr": "number", "c": "circa", "max": "maximum", "min": "minimum"},
    **{"§": "section", "rm": "room", "§§": "sections"},
}
_NEVER_LAST = ("vs", "e.g", "i.e", "approx", "cf", "incl", "excl", "esp", "viz", "ca", "avg", "est")
# After number words; before figures they are units (measures.py).
_SPOONS = {
    **{"tbsp": "tablespoon", "tsp": "teaspoon", "oz": "ounce", "lb": "pound", "lbs": "pound", "qt": "quart"},
    **{"pt": "pint", "hr": "hour", "hrs": "hour", "mins": "minute", "secs": "second", "yr": "year", "yrs": "year"},
    **{"wks": "week", "mos": "month", "pkg": "package", "doz": "dozen"},
}
_SLASHED = {
    **{"w/": "with", "w/o": "without", "b/c": "because", "c/o": "care of", "n/a": "not applicable", "and/or": "and or"},
    **{
        "s/he": "she or he",
        "he/she": "he or she",
        "she/he": "she or he",
        "him/her": "him or her",
        "his/her": "his or her",
    },
    **{"either/or": "either or", "yes/no": "yes or no", "a/c": "A C"},
}
_WORDS = ("and/or", "he/she", "she/he", "his/her", "either/or", "yes/no")
_MONTHS = {month[:3]: month for month in MONTHS if month != "May"} | {"Sept": "September"}
SHORT_DAYS = {
    **{"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday"},
    **{"Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"},
}
_COMPASS = {"N": "North", "S": "South", "E": "East", "W": "West"}


def _title(match: Match) -> str:
    """A title before a name, some with and without a full stop.

    Dr. Lee and Mr Poe -> Doctor Lee and Mister Poe
    Ft. Worth is near St. Paul -> Fort Worth is near Saint Paul
    """
    return _cased(match, TITLES[match[0].rstrip(".").lower()])


def _abbreviation(match: Match) -> str:
    """An abbreviation with its full stop, and a few without.

    cats, e.g. lions, vs dogs, etc. -> cats, for example lions, versus dogs, et cetera.
    It was built ca. 1900 -> It was built circa nineteen hundred
    """
    return _cased(match, ABBREVIATIONS[match[0].rstrip(".").lower()])


def _before_number(match: Match) -> str:
    """Abbreviations that mean something else, or nothing, elsewhere.

    No. 5, #6, pp. 10-12, No. -> Number five, number six, pages ten to twelve, No.
    """
    return _cased(match, BEFORE_NUMBERS[match[0].rstrip(".").lower()])


def _street(match: Match) -> str | None:
    """Main St. and Ocean Dr.; before a capital a Dr. is mostly a doctor, unless a house has a number there.

    at 12 Elm Dr. He -> at twelve Elm Drive. He
    on Elm Dr. and on -> on Elm Drive and on
    """
    place, word = match[1], match[2].rstrip(".")
    if word == "Dr" and not place[0].isdigit() and _BEFORE_CAPITAL.match(match.string, match.end()):
        return None
    return "Street" if word == "St" else "Drive"


def _spoon(match: Match) -> str:
    """Units that are written short after a number in words, or on their own.

    Add one tbsp. of oil and two tsp. of salt -> Add one tablespoon of oil and two teaspoons of salt
    """
    one = match[1] is None or match[1].lower() in {"one", "a", "an", "per", "each", "half"}
    return _SPOONS[match[2].rstrip(".").lower()] + ("" if one else "s")


def _slashed(match: Match) -> str:
    """Abbreviations with a slash.

    tea w/ milk and/or w/o sugar -> tea with milk and or without sugar
    """
    return _cased(match, _SLASHED[match[0].lower()])


def _month(match: Match) -> str:
    """A month or a day of the week cut short.

    In Jan. and on Fri. we -> In January and on Friday we
    """
    name = match[0].rstrip(".")
    return _MONTHS.get(name) or SHORT_DAYS[name]


def _compass(match: Match) -> str:
    """A part of a street in an address.

    at 12 N. Elm Road -> at twelve North Elm Road
    """
    return _COMPASS[match[1][0]]


def _younger(match: Match) -> str:
    """Father and son.

    Mr. King Jr spoke -> Mister King Junior spoke
    """
    return {"Jr": "Junior", "Sr": "Senior"}[match[1]]


def _cased(match: Match, words: str) -> str:
    return capital(words) if match[0][0].isupper() else words


_NOTHING_BEFORE = rf"(?<![0-9](?=(?ai:st|rd)\.)){NO_LETTER_BEFORE}"  # 1st. and 3rd. are no street and no road
_BEFORE_CAPITAL = re.compile(rf"\s{CAPITAL}")
_NO_STREET = "|".join([*MONTHS, "[A-Z][a-z]+day", "Easter", "Christmas", "New Year"])
_CAPITALS_ONLY = {title.upper() for title in ("mr", "mrs", "dr", "prof", "st", "sgt", "capt")}
_NUMBER_WORD = (
    "one|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|half|an?|few|several|some|many|per|each"
)

# (?ai: ASCII letters of both cases only, or "ſt." would be St.
# Titles stand before a capital, some of them without a full stop too; anywhere else they are in the other table.
_STREET = rule(
    rf"{NO_LETTER_BEFORE}((?:(?<![0-9.,])(?<![Ii]n )[0-9]{{1,5}}|(?:[Oo]n|[Dd]own|[Aa]long|[Oo]ff|[Aa]cross)"
    rf"(?! (?:{_NO_STREET})))(?: (?:St\. )?{CAPITAL}[\w'’]*){{1,3}}) ((?:St|Dr)\.){NO_LETTER_AFTER}",
    _street,
    part=2,
    stop=True,
)
_TITLE = rule(
    rf"{_NOTHING_BEFORE}{NO_LETTERS_OF_A_PLURAL}(?:(?:(?ai:mrs?|dr|prof|st)|ms|{'|'.join(map(capital, TITLES))})\."
    rf"(?=\s?{CAPITAL})|(?:{one_of(_CAPITALS_ONLY)}|MS)\.(?=\s?[A-Z]{{2}})|(?:Mrs?|MRS?|Ms|Dr|Prof|St)(?=\s{CAPITAL}[a-z]))",
    _title,
)
BEFORE_FIGURES: list[Rule] = [
    _STREET,
    rule(
        r"(?<=[0-9])(?: |[A-Z] )([NSEW]\.?)(?= [A-Z][a-z])"
        r"(?=(?: [A-Z][a-z]+\.?){1,3} ?(?:St|Ave|Rd|Blvd|Dr|Road|Street|Avenue))",
        _compass,
        part=1,
    ),
    rule(
        rf"{NO_LETTER_BEFORE}(?ai:{one_of(key for key in BEFORE_NUMBERS if key.isalpha())})\.(?=\s?[0-9])"
        r"|(?:[#№]|§{1,2})(?=\s?[0-9])",
        _before_number,
        digits=True,
    ),
    rule(rf"{NO_LETTER_BEFORE}Apt(?= ?#?[0-9])", "Apartment", digits=True),
    rule(rf"{NO_LETTER_BEFORE}(?:[Cc]all|[Ww]rite|[Tt]ext) (No)\.(?=\s?[0-9])", "number", part=1, digits=True),
]
RULES: list[Rule] = [
    _TITLE,
    rule(rf"(?<![\w/])(?:{one_of(_SLASHED)}|{one_of(map(capital, _WORDS))}|N/A|A/C)(?!/){NO_LETTER_AFTER}", _slashed),
    rule(
        rf"(?:(?<![^\W\d_])((?ai:{_NUMBER_WORD})) )?(?<![\w.])((?:{one_of(_SPOONS)})\.){NO_LETTER_AFTER}",
        _spoon,
        part=2,
        stop=True,
    ),
    rule(
        rf"(?<!\.){_NOTHING_BEFORE}{NO_LETTERS_OF_A_PLURAL}"
        rf"(?:(?ai:(?:{one_of(_NEVER_LAST)})\.|e\.g|i\.e)|[Vv]s(?!\.)){NO_LETTER_AFTER}",
        _abbreviation,
    ),
    rule(
        rf"(?<!\.){_NOTHING_BEFORE}{NO_LETTERS_OF_A_PLURAL}"
        rf"(?:(?!MS\.)(?ai:(?:{one_of(ABBREVIATIONS)})\.|phd)){NO_LETTER_AFTER}",
        _abbreviation,
        stop=True,
    ),
    rule(rf"{NO_LETTER_BEFORE}Sat\. ?(?:&|and) ?Sun\.", "Saturday and Sunday", stop=True),
    rule(r"Yes/No(?!\w)", "yes or no"),
    rule(rf"{NO_LETTER_BEFORE}(?:{one_of(_MONTHS)})\.{NO_LETTER_AFTER}", _month, stop=True),
    rule(
        rf"{NO_LETTER_BEFORE}(?:(?:{one_of(day for day in SHORT_DAYS if day not in ('Sun', 'Sat'))})\."
        rf"|(?<=[Oo]n )(?:Sat|Sun)\.){NO_LETTER_AFTER}",
        _month,
        stop=True,
    ),
    rule(rf"{CAPITAL}[a-z]+,? ([JS]r)(?![\w.])", _younger, part=1),
]
