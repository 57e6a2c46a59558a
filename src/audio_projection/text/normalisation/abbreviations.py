"""Titles, abbreviations, acronyms and Roman numerals."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.dates import MONTHS
from audio_projection.text.normalisation.number_words import number_words
from audio_projection.text.normalisation.patterns import (
    CAPITAL,
    LETTER,
    NO_LETTER_AFTER,
    NO_LETTER_BEFORE,
    Match,
    Rule,
    capital,
    placed,
    stopped,
)

TITLES = {
    **{"mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "st": "saint"},
    **{"gen": "general", "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant"},
    **{"rev": "reverend", "hon": "honorable", "sen": "senator", "gov": "governor", "mt": "mount"},
}
ABBREVIATIONS = {
    **{"mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "jr": "junior"},
    **{"sr": "senior", "st": "street", "ave": "avenue", "blvd": "boulevard", "rd": "road", "etc": "et cetera"},
    **{"et al": "and others", "approx": "approximately", "dept": "department", "inc": "incorporated"},
    **{"ltd": "limited", "corp": "corporation", "co": "company", "bros": "brothers", "cf": "compare"},
    **{"vs": "versus", "e.g": "for example", "i.e": "that is", "a.k.a": "also known as"},
    **{"ph.d": "P H D", "phd": "P H D"},
}
BEFORE_NUMBERS = {
    **{"no": "number", "nos": "numbers", "fig": "figure", "figs": "figures", "vol": "volume", "ch": "chapter"},
    **{"sec": "section", "eq": "equation", "p": "page", "pp": "pages", "#": "number", "№": "number"},
}
_KINGS = (
    "Henry|Charles|George|Edward|Richard|William|James|Louis|Philip|Frederick|Alexander|Peter|Nicholas|Napoleon|"
    "Francis|Ferdinand|Leopold|Otto|Ivan|Robert|David|Alfonso|Gustav|Elizabeth|Mary|Catherine|Margaret|"
    "Ramesses|Thutmose|Ptolemy|John|Paul|Pius|Benedict|Gregory|Leo|Innocent|Clement|Boniface|Urban|Julius"
)
_REIGNING = r"(?:King|Queen|Pope|Emperor|Empress|Tsar|Kaiser)"
_ROMAN = {
    tens + ones: 10 * ten + one
    for ten, tens in enumerate(["", "X", "XX", "XXX"])
    for one, ones in enumerate(["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"])
}
# Said letter by letter in spite of a vowel; US only after "the", because it also shouts us.
_LETTERED = "USA|UK|EU|UN|FBI|CIA|CEO|CFO|IBM|AI|ID|UFO|IRS|ATM|USB|URL|API|CPU|GPU|MBA|IQ|UV|ABC"
_NO_ACRONYMS = {"HM", "HMM", "MM", "SH", "SHH", "PST", "PSST", "TSK", "BRR", "GRR", "PFF", "PFFT", "MR", "MRS"}


def _title(match: Match) -> str:
    return placed(match, _cased(match, TITLES[match[0].rstrip(".").lower()]))


def _abbreviation(match: Match) -> str:
    return stopped(match, _cased(match, ABBREVIATIONS[match[0].rstrip(".").lower()]))


def _before_number(match: Match) -> str:
    return placed(match, _cased(match, BEFORE_NUMBERS[match[0].rstrip(".").lower()]))


def _street(match: Match) -> str:
    """Main St. and Ocean Dr.; before a capital a Dr. is mostly a doctor, unless a house has a number there."""
    place, word = match.groups()
    if word == "Dr" and not place[0].isdigit() and _BEFORE_CAPITAL.match(match.string, match.end()):
        return match[0]
    return stopped(match, f"{place} {'Street' if word == 'St' else 'Drive'}")


def _cased(match: Match, words: str) -> str:
    return capital(words) if match[0][0].isupper() else words


def _reign(match: Match) -> str:
    """Henry VIII; a lone I is mostly the pronoun, and a number only after King, Queen, Pope ..."""
    title, name, numeral = match.groups()
    number = _ROMAN.get(numeral)
    if number is None or (number == 1 and not title):
        return match[0]
    return f"{title or ''}{name} the {number_words(number, 'ordinal')}"


def _dotted(match: Match) -> str:
    """U.S., J.R.R.; before a capital the last full stop is a sentence's only where the next word opens one."""
    letters = " ".join(match[0].replace(".", ""))
    ends = SENTENCE_OPENER.match(match.string, match.end())
    return placed(match, letters + ("." if ends else ""))


def _acronym(match: Match) -> str:
    """Capitals without a vowel (Y is one) letter by letter; interjections and X, V as Roman numerals stay."""
    known, letters, ending = match.groups()
    if known:
        return " ".join(known) + ending
    if letters in _NO_ACRONYMS or not set(letters) - set("XV") or re.search(r"(.)\1\1", letters):
        return match[0]
    return " ".join(letters) + ending


# What stands after the full stop of an abbreviation where a sentence ends: nothing more, or a word that opens another.
# It must be complete, so that a text which is still being written is not cut before the Army of the U.S. Army.
SENTENCE_OPENER = re.compile(
    r"""["'”’)\]]*(?:\s*$|\s*\n\n|\s+["'“‘(]?(?:The|This|That|These|Those|He|She|It|They|We|I|You|His|Her|Its|Their|Our|My|Your"""
    r"""|An?|In|On|At|By|For|From|With|But|And|So|Or|Yet|If|When|While|As|After|Before|Since|Then|There|Here"""
    r"""|Now|What|Who|Where|Why|How|No|Not|Yes|Some|Many|Most|All|One|Two)(?=\W))"""
)
_NOTHING_BEFORE = rf"(?<![0-9](?=(?ai:st|rd)\.)){NO_LETTER_BEFORE}"  # 1st. and 3rd. are no street and no road
_BEFORE_CAPITAL = re.compile(rf"\s{CAPITAL}")
_DAYS = "|".join([*MONTHS, "[A-Z][a-z]+day", "Easter", "Christmas", "New Year"])

# (?ai: ASCII letters of both cases only, or "ſt." would be St.
# Titles stand before a capital, some of them without a full stop too; anywhere else they are in the other table.
WORD_RULES: list[Rule] = [
    (
        re.compile(
            rf"{NO_LETTER_BEFORE}((?:(?<![0-9.,])(?<![Ii]n )[0-9]{{1,5}}|(?:[Oo]n|[Dd]own|[Aa]long|[Oo]ff|[Aa]cross)"
            rf"(?! (?:{_DAYS})))(?: (?:St\. )?{CAPITAL}[\w'’]*){{1,3}}) (St|Dr)\.{NO_LETTER_AFTER}"
        ),
        _street,
    ),
    (
        re.compile(
            rf"{_NOTHING_BEFORE}(?:(?:(?ai:mrs?|ms|dr|prof|st)|{'|'.join(map(capital, TITLES))})\.(?=\s?{CAPITAL})"
            rf"|(?:Mrs?|MRS?|Ms|Dr|Prof|St)(?=\s{CAPITAL}))"
        ),
        _title,
    ),
    (
        re.compile(rf"{NO_LETTER_BEFORE}(?ai:nos?|figs?|vol|ch|sec|eq|pp?)\.(?=\s?[0-9])|[#№](?=\s?[0-9])"),
        _before_number,
    ),
    (
        re.compile(
            rf"(?<!\.){_NOTHING_BEFORE}(?ai:(?:{'|'.join(map(re.escape, ABBREVIATIONS))})\.|vs|e\.g|i\.e|phd)"
            rf"{NO_LETTER_AFTER}"
        ),
        _abbreviation,
    ),
    (
        re.compile(
            rf"{NO_LETTER_BEFORE}({_REIGNING} )?({_KINGS}) ([IVX]{{2,6}}|[VX](?!\. ?{CAPITAL})|I){NO_LETTER_AFTER}"
        ),
        _reign,
    ),
    (re.compile(rf"(?<![\w.])(?![AP]\.M\.)(?:[A-Z]\.){{2,6}}{NO_LETTER_AFTER}"), _dotted),
    (re.compile(rf"(?<=World War )I{{1,2}}{NO_LETTER_AFTER}"), lambda match: number_words(len(match[0]))),
]
ACRONYM: Rule = (
    re.compile(
        rf"(?<!{LETTER}['’]){NO_LETTER_BEFORE}"
        rf"(?:({_LETTERED}|(?<=[Tt]he )US)|([B-DF-HJ-NP-TV-XZ]{{2,6}}))(s?){NO_LETTER_AFTER}"
    ),
    _acronym,
)
