"""Acronyms that are said letter by letter, dotted letters and chemical formulas."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.number_words import figure_words
from audio_projection.text.normalisation.patterns import (
    LETTER,
    NO_LETTER_AFTER,
    NO_LETTER_BEFORE,
    SENTENCE_OPENER,
    TAKEN,
    Match,
    Rule,
    rule,
)

# Said letter by letter in spite of a vowel; US only after "the", because it also shouts us.
LETTERED = (
    "USA|UK|EU|UN|FBI|CIA|CEO|CFO|CTO|COO|CIO|IBM|AI|ID|UFO|IRS|ATM|USB|URL|API|CPU|GPU|TPU|NPU|MBA|IQ|UV|ABC|UI|UX|OS|IP|EV"
    "|TV|PC|DIY|NYC|UCLA|MIT|IEEE|ISBN|ESPN|USSR|USPS|UAE|ASAP|FAQ|ETA|IPO|NGO|OCR|SEO|AWS|IDE|SDK|IOU|EKG|MRI|IV|IVF|ADHD"
    "|LED|GUI|ISP|IMF|EPA|AKA|AFK|OECD|UEFA|UTC|EST|EDT|GDP|VIP|RSVP|CEST|IT|ISO|IEC|AOL|ACL|AC|DC|NBA|NFL|MLB|HIV|AUX|FYI"
)
_AMERICAN = (
    "(?:Army|Navy|Air|Open|Congress|Senate|[Pp]resident|government|dollars?|citizens?|economy|markets?|military|troops"
    "|states?|elections?|politics|law|Treasury|Supreme|[Ee]mbassy|team)"
)
_OF_COMPUTERS = (
    "(?:dept|department|support|team|staff|industry|manager|security|infrastructure|services?|systems?|skills)"
)
_NOT_ALWAYS = {"IT", "IV", "UEFA"}
LETTERED_WORDS = frozenset(LETTERED.split("|")) - _NOT_ALWAYS
_NO_ACRONYMS = {"HM", "HMM", "MM", "SH", "SHH", "PST", "PSST", "TSK", "BRR", "GRR", "PFF", "PFFT", "MRS", "NTH"}
_ELEMENTS = frozenset(
    [
        "H",
        "He",
        "Li",
        "Be",
        "B",
        "C",
        "N",
        "O",
        "F",
        "Ne",
        "Na",
        "Mg",
        "Al",
        "Si",
        "P",
        "S",
        "Cl",
        "Ar",
        "K",
        "Ca",
        "Ti",
        "V",
        "Cr",
        "Mn",
        "Fe",
        "Co",
        "Ni",
        "Cu",
        "Zn",
        "Ga",
        "Ge",
        "As",
        "Se",
        "Br",
        "Kr",
        "Ag",
        "Cd",
        "Sn",
        "I",
        "Xe",
        "Cs",
        "Ba",
        "W",
        "Pt",
        "Au",
        "Hg",
        "Pb",
        "Bi",
        "U",
    ]
)


def letters_of(word: str) -> str:
    """A part of a name: letter by letter where it is an acronym."""
    letters = word.removesuffix("s")
    lettered = letters in LETTERED_WORDS | {"US"} or (
        letters.isupper() and len(letters) < 7 and not set(letters) & set("AEIOUY")
    )
    return " ".join(letters) + word[len(letters) :] if lettered else word


def _acronym(match: Match) -> str | None:
    """Capitals without a vowel (Y is one), and known ones, letter by letter; interjections and X, V stay.

    BBC, the USA, MP3, NATO, HMM -> B B C, the U S A, M P three, NATO, HMM
    Two TVs. Use LLMs -> Two T Vs. Use L L Ms
    """
    known, letters, ending = match.groups()
    if known:
        return " ".join(known) + ending
    if letters in _NO_ACRONYMS or not set(letters) - set("XV") or re.search(r"(.)\1\1", letters):
        return None
    return " ".join(letters) + ending


def _dotted(match: Match) -> str:
    """Letters with full stops; before a capital the last one is a sentence's only where the next word opens one.

    the U.S. Army left the U.S. He did -> the U S Army left the U S. He did
    """
    letters = " ".join(match[0].replace(".", ""))
    return letters + ("." if SENTENCE_OPENER.match(match.string, match.end()) else "")


def _joined(match: Match) -> str:
    """Letters around a sign.

    AT&T and R&D -> A T and T and R and D
    """
    return f"{' '.join(match[1])} and {' '.join(match[2])}"


def _formula(match: Match) -> str | None:
    """Chemical formulas.

    H2O and CO2 -> H two O and C O two
    """
    parts = re.findall("([A-Z][a-z]?)([0-9]*)", match[0])
    if not all(symbol in _ELEMENTS for symbol, _ in parts):
        return None
    said = (" ".join(symbol.upper()) + (f" {figure_words(count)}" if count else "") for symbol, count in parts)
    return " ".join(said)


def _model(match: Match) -> str:
    """The hyphens in a name that goes on with figures are no ranges.

    Load Llama-3.1-8B first -> Load Llama three point one eight B first
    """
    return " ".join(_model_part(part) for part in re.findall(r"[0-9]+(?:\.[0-9]+)?|[^\W\d_]+", match[0]))


def _model_part(part: str) -> str:
    if part[0].isdigit():
        return figure_words(part)
    return letters_of(part)


NAMES: list[Rule] = [
    rule(
        r"(?<![\w-])[A-Za-z]+-?[0-9]+(?:\.[0-9]+)?[A-Za-z]?(?:-[A-Za-z]+)?(?:-[0-9]+(?:\.[0-9]+)?(?:[A-Z]{0,2}|[a-z])){1,4}(?:-[A-Za-z]+){0,4}(?![\w-])",
        _model,
        digits=True,
    ),
    rule(
        r"(?<![\w-])(?=[A-Za-z]*[0-9])(?:[A-Z][a-z]?[0-9]{0,2}){2,8}(?![\w-])(?<![A-Z]{3}[0-9])", _formula, digits=True
    ),
]
RULES: list[Rule] = [
    rule(rf"(?<=, )[A-Z]{{2}}(?= (?:[0-9]{{5}}|{TAKEN}{{5}})(?!\w))", lambda match: " ".join(match[0])),
    rule(rf"(?<![^\W²³])(?<!\.)(?![AP]\.M\.)(?:[A-Z]\.){{2,6}}{NO_LETTER_AFTER}", _dotted),
    rule(r"(?<![\w&])([A-Z]{1,3})&([A-Z]{1,3})(?![\w&])", _joined),
    rule(
        rf"(?<!{LETTER}['’]){NO_LETTER_BEFORE}"
        rf"(?:({'|'.join(sorted(LETTERED_WORDS, key=len, reverse=True))}|(?<=[Tt]he )US|US(?=-[a-z]|\$| {_AMERICAN}\b)"
        rf"|(?<=[Tt]he )IT|IT(?= {_OF_COMPUTERS}\b| {TAKEN}))|([B-DF-HJ-NP-TV-XZ]{{2,6}}))"
        rf"(s?){NO_LETTER_AFTER}",
        _acronym,
    ),
]
