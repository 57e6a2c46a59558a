"""Titles, abbreviations, acronyms and Roman numerals."""

from __future__ import annotations

import re

from audio_projection.normalisation.matches import (
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
from audio_projection.normalisation.number_words import number_words

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
    return placed(match, _cased(match, TITLES[match[0].rstrip(".").lower()]))


def _abbreviation(match: Match) -> str:
    return stopped(match, _cased(match, ABBREVIATIONS[match[0].rstrip(".").lower()]))


def _before_number(match: Match) -> str:
    return placed(match, _cased(match, _BEFORE_NUMBERS[match[0].rstrip(".").lower()]))


def _cased(match: Match, words: str) -> str:
    return capital(words) if match[0][0].isupper() else words


def _reign(match: Match) -> str:
    """Henry VIII; a lone I is mostly the pronoun, and a number only after King, Queen, Pope ..."""
    title, name, numeral = match.groups()
    number = _ROMAN.get(numeral)
    if number is None or (number == 1 and not title):
        return match[0]
    return f"{title or ''}{name} the {number_words(number, 'ordinal')}"


def _acronym(match: Match) -> str:
    """Capitals without a vowel (Y is one) letter by letter; interjections and X, V as Roman numerals stay."""
    letters, ending = match.groups()
    if letters in _NO_ACRONYMS or not set(letters) - set("XV") or re.search(r"(.)\1\1", letters):
        return match[0]
    return " ".join(letters) + ending


# (?ai: ASCII letters of both cases only, or "ſt." would be St.
# Titles stand before a capital, some of them without a full stop too; anywhere else they are in the other table.
WORD_RULES: list[Rule] = [
    (
        re.compile(
            rf"{NO_LETTER_BEFORE}(?:(?:(?ai:mrs?|ms|dr|prof|st)|{'|'.join(map(capital, TITLES))})\.(?=\s?{CAPITAL})"
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
            rf"(?<!\.){NO_LETTER_BEFORE}(?ai:(?:{'|'.join(map(re.escape, ABBREVIATIONS))})\.|vs|e\.g|i\.e|phd)"
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
    (re.compile(rf"(?<=World War )I{{1,2}}{NO_LETTER_AFTER}"), lambda match: number_words(len(match[0]))),
]
ACRONYM: Rule = (
    re.compile(rf"(?<!{LETTER}['’]){NO_LETTER_BEFORE}([B-DF-HJ-NP-TV-XZ]{{2,6}})(s?){NO_LETTER_AFTER}"),
    _acronym,
)
