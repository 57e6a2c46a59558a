"""Words in capitals: those that shout become small, acronyms are said letter by letter."""

from __future__ import annotations

import re

from audio_projection.text.normalisation.acronyms import LETTERED_WORDS
from audio_projection.text.normalisation.patterns import NO_LETTER_AFTER, Match, Rule, rule

# Words of two and three letters that people shout, and short acronyms that are said as words.
_SHORT_WORDS = frozenset(
    [
        "AM",
        "AN",
        "AS",
        "AT",
        "BE",
        "BY",
        "DO",
        "GO",
        "HE",
        "HI",
        "IF",
        "IN",
        "IS",
        "IT",
        "ME",
        "MY",
        "NO",
        "OF",
        "OH",
        "ON",
        "OR",
        "OX",
        "SO",
        "TO",
        "UP",
        "US",
        "WE",
        "AD",
        "AH",
        "EH",
        "HA",
        "HO",
        "MA",
        "PA",
        "UH",
        "UM",
        "YO",
        "YA",
        "YE",
        "ACE",
        "ACT",
        "ADD",
        "AGE",
        "AGO",
        "AID",
        "AIM",
        "AIR",
        "ALL",
        "AND",
        "ANT",
        "ANY",
        "APE",
        "ARE",
        "ARM",
        "ART",
        "ASK",
        "ATE",
        "BAD",
        "BAG",
        "BAR",
        "BAT",
        "BED",
        "BEE",
        "BET",
        "BIG",
        "BIN",
        "BIT",
        "BOX",
        "BOY",
        "BUG",
        "BUS",
        "BUT",
        "BUY",
        "CAN",
        "CAP",
        "CAR",
        "CAT",
        "COW",
        "CRY",
        "CUP",
        "CUT",
        "DAD",
        "DAY",
        "DID",
        "DIE",
        "DIG",
        "DOG",
        "DOT",
        "DRY",
        "DUE",
        "EAR",
        "EAT",
        "EGG",
        "END",
        "ERA",
        "EVE",
        "EYE",
        "FAN",
        "FAR",
        "FAT",
        "FEW",
        "FIT",
        "FIX",
        "FLY",
        "FOR",
        "FOX",
        "FUN",
        "GAS",
        "GET",
        "GOD",
        "GOT",
        "GUN",
        "GUY",
        "HAD",
        "HAS",
        "HAT",
        "HER",
        "HEY",
        "HID",
        "HIM",
        "HIS",
        "HIT",
        "HOT",
        "HOW",
        "HUG",
        "ICE",
        "ILL",
        "INK",
        "ITS",
        "JAM",
        "JOB",
        "JOY",
        "KEY",
        "KID",
        "KIT",
        "LAB",
        "LAW",
        "LAY",
        "LEG",
        "LET",
        "LIE",
        "LIP",
        "LOT",
        "LOW",
        "MAD",
        "MAN",
        "MAP",
        "MAY",
        "MEN",
        "MET",
        "MIX",
        "MOM",
        "MUD",
        "NEW",
        "NOR",
        "NOT",
        "NOW",
        "NUT",
        "ODD",
        "OFF",
        "OIL",
        "OLD",
        "ONE",
        "OUR",
        "OUT",
        "OWE",
        "OWN",
        "PAN",
        "PAY",
        "PEN",
        "PET",
        "PIE",
        "PIG",
        "PIN",
        "POP",
        "POT",
        "PUT",
        "RAM",
        "RAN",
        "RAT",
        "RAW",
        "RED",
        "RID",
        "ROM",
        "ROW",
        "RUN",
        "SAD",
        "SAT",
        "SAW",
        "SAY",
        "SEA",
        "SEE",
        "SET",
        "SEX",
        "SHE",
        "SIM",
        "SIT",
        "SIX",
        "SKY",
        "SON",
        "SUM",
        "SUN",
        "TAX",
        "TEA",
        "TEN",
        "THE",
        "TIE",
        "TIP",
        "TOE",
        "TOO",
        "TOP",
        "TOY",
        "TRY",
        "TWO",
        "USE",
        "VAN",
        "WAR",
        "WAS",
        "WAX",
        "WAY",
        "WET",
        "WHO",
        "WHY",
        "WIN",
        "WON",
        "YES",
        "YET",
        "YOU",
        "ZIP",
        "ZOO",
        "GIF",
        "WOW",
        "HEY",
        "NAH",
        "YAY",
        "LOL",
        "AWE",
        "JSON",
        "YAML",
        "JPEG",
        "BYE",
        "FEE",
        "GUM",
        "HUT",
        "JET",
    ]
)
_SAID_OTHERWISE = {"OK": "okay", "ASAP": "as soon as possible"}
_NO_WORD_BEGINS = re.compile(
    r"(?![^AEIOUY]*[AEIOUY])|(?:[BCDFGHJKLMNPQRSTVWXZ]{4}|B[CDFGHJKMNPQSTVWXZ]|C[BCDFGJKMPQSTVWX]|D[BCDFGJKLMNPQSTVXZ]"
    r"|F[BCDFGHKMNPQSTVWXZ]|G[BCDFGJKMPQSTVXZ]|H[B-DF-HJ-NP-TV-XZ]|J[B-DF-HJ-NP-TV-XZ]|L[B-DF-HJ-NP-TV-XZ]|M[B-DF-HJ-MP-TV-XZ]"
    r"|N[B-DF-HJ-NP-TV-XZ]|R[B-DF-GJ-NP-TV-XZ]|V[B-DF-HJ-NP-TV-XZ]|X[B-DF-HJ-NP-TV-XZ])"
)
_NO_WORD_ENDS = re.compile(
    r"(?:[BDFGJKPTV][BDFGJKV]|[BCDFGJKPQTV][MN]|[SZ][BDGJNRVZ]|[^AEIOUY]{4}|[HJQV])$|[^AEIOUYLRNMS][R]$"
)
_SHOUTED = 0.6  # share of a sentence's words that are in capitals, from which on it shouts
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE_STOP = re.compile(r"[.!?…\n]")
_FAR = 120  # characters of a sentence that are looked at


def _capitals(match: Match) -> str | None:
    """Words in capitals, alone or in a sentence that shouts.

    THE OLD DOG. Do NOT go. -> The old dog. Do not go.
    the EPA, the ABS and NASA's -> the E P A, the A B S and nasa's
    """
    word, ending = match[1], match[2]
    plain = word.replace("’", "'")
    if plain in _SAID_OTHERWISE:
        return _SAID_OTHERWISE[plain] + ending
    shouted = _is_shouted(match)
    if "'" not in plain and _is_lettered(word, shouted):
        return " ".join(word) + ending
    return word.lower() + ending


def _is_lettered(word: str, shouted: bool) -> bool:
    if word in LETTERED_WORDS:
        return True
    if shouted or word in _SHORT_WORDS:
        return False
    if len(word) < 4:
        return word.isascii()
    return word.isascii() and bool(_NO_WORD_BEGINS.match(word) or _NO_WORD_ENDS.search(word))


def _is_shouted(match: Match) -> bool:
    """Whether most words of the sentence around are in capitals."""
    text, start, end = match.string, match.start(), match.end()
    before = _SENTENCE_STOP.split(text[max(start - _FAR, 0) : start])[-1]
    after = _SENTENCE_STOP.split(text[end : end + _FAR], maxsplit=1)[0]
    words = _WORD.findall(before) + _WORD.findall(after)
    return len(words) > 0 and sum(map(str.isupper, words)) >= _SHOUTED * len(words)


_UPPER = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĒĘĚĞĪŁŃŇŌŐŒŘŚŞŠŤŪŮŰŹŻŽŸ"
RULES: list[Rule] = [
    rule(
        rf"(?<![^\W_])(?<![^\W_]['’])([{_UPPER}]{{2,}}(?:['’][{_UPPER}]{{1,3}})?)((?:s|['’]s)?){NO_LETTER_AFTER}",
        _capitals,
    ),
    rule(
        rf"(?<![^\W_])([{_UPPER}]['’](?:[{_UPPER}]{{2,}}|(?=[DLMSTV]{NO_LETTER_AFTER})[{_UPPER}]))(){NO_LETTER_AFTER}",
        _capitals,
    ),
]
