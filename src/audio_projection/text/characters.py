"""Characters that a TTS has learned: everything else becomes one of them, a pause, or nothing.

A TTS that knows words only (nano) says nonsense for a character that stood in none of its training texts. Their list is
made from those texts and lies beside the TTS's files as `characters.json`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from audio_projection.errors import AudioProjectionError
from audio_projection.text.markup import EMOJI

FILE = "characters.json"
_BASIC = frozenset(".,;:?!'\"()- \n")
"""Marks that any TTS knows; with them all letters and digits."""

# What stands for a character that is not there, the first that is.
_MARKS = {
    **dict.fromkeys("’‘‛ʼʹ′`´", "'"),
    **dict.fromkeys("“”„‟«»″〝〞「」『』《》〈〉", '"'),
    **dict.fromkeys("‐‑‒⁃﹣", "-"),
    **dict.fromkeys("–—―⸺|•·∙●▪‖", ","),
    **dict.fromkeys("…‥", "."),
    **dict.fromkeys("[{（【〔［｛", "("),
    **dict.fromkeys("]}）】〕］｝", ")"),
    **dict.fromkeys("。．｡۔।॥։።܀܁܂᠃᠉", "."),
    **dict.fromkeys("，、､،፣", ","),
    **dict.fromkeys("；؛፤", ";"),
    **dict.fromkeys("：፥", ":"),
    **dict.fromkeys("？؟⁇‽", "?"),
    **dict.fromkeys("！‼¡", "!"),
    **dict.fromkeys("‹›", "'"),
}
_FALLBACKS = {
    ";": ",",
    ":": ",",
    "(": ",",
    ")": ",",
    "!": ".",
    "?": ".",
    ".": ",",
    "-": " ",
    '"': "",
    "'": "",
    ",": " ",
}
_LETTERS = {
    **{"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"},
    **{
        "đ": "d",
        "Đ": "D",
        "ð": "th",
        "Ð": "Th",
        "þ": "th",
        "Þ": "Th",
        "ı": "i",
        "ħ": "h",
        "Ħ": "H",
        "ŋ": "ng",
        "Ŋ": "Ng",
    },
    **{"ŧ": "t", "Ŧ": "T", "ĸ": "k", "ŀ": "l", "ə": "e", "Ə": "E", "ƒ": "f", "ɛ": "e", "ɔ": "o"},
}
_KEPT_FORMS = re.compile("[²³¹⁰⁴-⁹⁻⁺½⅓⅔¼¾⅕-⅞№™…′″‴ºª]")  # rules and marks of their own
_SPACED_MARKS = re.compile(r"(?<=\S)(?: +(?:-{1,3}|–|—|―)(?= )|-{2,}|—|―|⸺)(?=\s*\S)|(?<=\S) *–(?= )|(?<= )–(?=\w)")


def learned_characters(texts: Iterable[str]) -> frozenset[str]:
    """The characters of training texts, white space as a blank."""
    return frozenset(" " if character.isspace() else character for text in texts for character in text)


def write_characters(folder: Path, characters: frozenset[str]) -> None:
    """Writes the list beside a TTS's files; the official classes do not read it."""
    text = json.dumps({"characters": "".join(sorted(characters))}, ensure_ascii=False, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_characters(folder: Path) -> frozenset[str] | None:
    """The list that lies in a TTS's folder, None where there is none. AudioProjectionError for a damaged one."""
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        characters = content["characters"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AudioProjectionError(f"{path} cannot be read ({type(error).__name__}): download the TTS again") from None
    if not isinstance(characters, str) or not any(map(str.isalpha, characters)):
        raise AudioProjectionError(f"{path} lists no letters: download the TTS again")
    return frozenset(characters) | {" ", "\n"}


def plain_forms(text: str) -> str:
    """Compatibility forms as the letters and figures that they stand for: fullwidth, ligatures, styled letters, ١."""
    return "".join(map(_plain_form, text))


def _plain_form(character: str) -> str:
    if character.isascii() or _KEPT_FORMS.match(character):
        return character
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    form = unicodedata.normalize("NFKC", character)
    spaced = any(each.isspace() or unicodedata.combining(each) for each in form)
    return character if spaced and not character.isspace() else form


def fold(text: str, learned: frozenset[str] | None) -> str:
    """The text in learned characters only (None: all letters, digits and common marks), pauses put in order."""
    text = _quotes(_SPACED_MARKS.sub(",", text))
    known = (lambda each: each in learned) if learned is not None else _is_common
    folded = {each: _replacement(each, known) for each in set(text)}
    return _tidy_marks("".join(folded[each] for each in text), known)


def _is_common(character: str) -> bool:
    return character in _BASIC or (character.isalnum() and character not in "ªº") or _is_mark(character)


def _is_mark(character: str) -> bool:
    """Marks of scripts that need them, and joiners."""
    return (
        unicodedata.category(character) in ("Mn", "Mc")
        and not _IS_EMOJI.match(character)
        or character in "\u200c\u200d"
    )


def learned_mark(mark: str, learned: frozenset[str]) -> str:
    """What stands for a mark that a TTS may not have learned: another mark, a blank or nothing; letters stay."""
    if mark.isalnum() or mark in learned or unicodedata.category(mark)[0] == "M":
        return mark
    return _replacement(mark, learned.__contains__)


def _replacement(character: str, known) -> str:  # type: ignore[no-untyped-def]
    if known(character) or character == "\n":
        return character
    if character.isspace():
        return " "
    for form in _forms(character):
        if form and all(map(known, form)):
            return form
    mark = _MARKS.get(character, character)
    while mark and not known(mark):
        mark = _FALLBACKS.get(mark, "")
        if mark in ("", " "):
            return mark if character in _FALLBACKS or character in _MARKS else " "
    if mark:
        return mark
    silent = _IS_EMOJI.match(character) or unicodedata.category(character)[0] in "MC" or character in "'\""
    return "" if silent else " "


def _forms(character: str) -> Iterable[str]:
    """Other ways to write a letter: small, without its accent, taken apart."""
    yield character.lower()
    if unicodedata.category(character)[0] != "L":
        return
    bare = "".join(each for each in unicodedata.normalize("NFKD", character) if not unicodedata.combining(each))
    for form in (_LETTERS.get(character, ""), bare, _LETTERS.get(bare, "")):
        yield form
        yield form.lower()
        yield "".join(each for each in unicodedata.normalize("NFKD", form.lower()) if not unicodedata.combining(each))


_IS_EMOJI = re.compile(f"[{EMOJI}\u200d]")
_OPENING_QUOTE = re.compile(r"(?<![^\W_])['‘’](?!(?:[Tt]is|[Tt]was|em|[Cc]ause|[Tt]il|n)\b)(?=\w)")
_CLOSING_QUOTE = re.compile(r"(?<=[^\W_sS])['’](?!\w)|(?<=[.,!?…])['’](?!\w)")
_DOTS = re.compile(r"\.(?: ?\.)+|…+|‥+")


def _quotes(text: str) -> str:
    """Single quotes around words go, apostrophes stay; dots that trail off become a pause or a stop."""
    text = _CLOSING_QUOTE.sub("", _OPENING_QUOTE.sub("", text))
    return _DOTS.sub(lambda dots: "." if _ENDS.match(text, dots.end()) else ",", text)


_ENDS = re.compile(r"""["'”’)\]]*(?:\s*\Z|\s*\n|\s+["'“‘(]?[^\W\d_a-z])""")
_PAUSES = re.compile(r"[ ]*[,;:](?:\s*[,;:])+")
_BEFORE_STOP = re.compile(r"[,;:\s]+(?=[.!?])")
_AFTER_STOP = re.compile(r"(?<=[.!?])(?:\s*[,;:])+")
_STOPS = re.compile(r"([.!?])[.!?]+")
_FIRST = re.compile(r"(?:\A|(?<=\n\n))[\s,;:.!?-]+")
_LAST = re.compile(r"[\s,;:]+(?=\n\n|\Z)")
_GAP = re.compile(r" +(?=[,;:.!?])|(?<= ) +")
_PAUSE_JOINED = re.compile(r"(?<=[^\W\d_]),(?=[^\W\d_])")


def _tidy_marks(text: str, known) -> str:  # type: ignore[no-untyped-def]
    """No two pauses in a row, none at the beginning or before a stop, one blank between words."""
    text = re.sub(r"[ \t]+", " ", text)
    text = _PAUSES.sub(",", text)
    text = _BEFORE_STOP.sub("", text)
    text = _AFTER_STOP.sub(" ", text)
    text = _STOPS.sub(lambda stops: "?" if "?" in stops[0] else "!" if "!" in stops[0] else ".", text)
    text = _LAST.sub("", _FIRST.sub("", text))
    return _PAUSE_JOINED.sub(", ", _GAP.sub("", text)).strip()
