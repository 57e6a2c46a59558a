"""Text on its way in: what can be spoken, as what, and how a long text is cut into pieces spoken one by one."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from audio_projection.config import Config, TTSConfig
from audio_projection.errors import AudioProjectionError
from audio_projection.files.locations import find_tts
from audio_projection.text.characters import fold, learned_mark, plain_forms, read_characters
from audio_projection.text.languages import foreign_language
from audio_projection.text.lexicon import Lexicon
from audio_projection.text.markup import TEXT, MarkupFilter, filtered
from audio_projection.text.normalisation import READING, spell_out
from audio_projection.text.normalisation.abbreviations import BEFORE_NUMBERS, TITLES
from audio_projection.text.normalisation.patterns import MONTHS, SENTENCE_OPENER, Rule

log = logging.getLogger(__name__)

_JOINERS = "\u200c\u200d"  # they change how letters and emoji combine; every other format character is silent
_PARAGRAPH = "\n\n"
_SPACES = re.compile(r"\s+")
_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028]")

_CLOSING = r"""["'”’»›）)\]】」』〉》]*"""
# Stops of scripts that write them only at sentence ends; the others also stand inside numbers and names.
_STOPS = "。！？｡．؟۔।॥։።፧။។៕܀܁܂᠃᠉"
_SENTENCE_END = re.compile(rf"[{_STOPS}]+{_CLOSING}\s*|[.!?…‼⁇⁈⁉]+{_CLOSING}(?:\s+|$)|\n\n")
_CLAUSE_END = re.compile(r"[，、；：،؛፣፤၊]\s*|[,;:—–)](?:\s+|$)|\s+(?=[(—–])")
_WORD_END = re.compile(r"\s+")
_TITLES = TITLES.keys() - {"ft", "rep"}  # which end sentences too
_BEFORE_WORDS = re.compile("|".join([*_TITLES, "sr", "jr", "vs", r"e\.g", r"i\.e", "cf", "approx"]), re.IGNORECASE)
_MONTHS = {month[:3] for month in MONTHS} - {"May"} | {"Sept"}
_BEFORE_FIGURES = re.compile("|".join([*BEFORE_NUMBERS, *sorted(_MONTHS)]), re.IGNORECASE)
_INITIALS = re.compile(r"[A-Z](?:\.[A-Z])+")


def decode_text(data: bytes) -> str:
    """The text in UTF-8 bytes; AudioProjectionError names the first byte that is none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AudioProjectionError(f"the text is not UTF-8 (byte {error.start + 1}): save it as UTF-8") from None


def check_text(text: str) -> str:
    """The text as it is spoken: NFC, control characters and odd spacing reduced to single spaces or blank lines.

    Raises AudioProjectionError for anything but a string, for NUL, lone surrogates, and text without a single
    letter or digit (empty, only emoji, only punctuation).
    """
    check_characters(text)
    if not is_speakable(text):
        shown = f": {text.strip()[:30]!r}" if text.strip() else ""
        raise AudioProjectionError(f"nothing to speak{shown}; text needs at least one letter or digit")
    return _tidy(text)


@dataclass(frozen=True)
class Reading:
    """How a text is prepared for one TTS."""

    normalise: str = "none"
    """`tts.normalise`: "english" puts everything into words and marks that a TTS which knows words only can say."""
    lexicon: Lexicon | None = None
    """The user's own spellings, applied first."""
    characters: frozenset[str] | None = None
    """What the TTS has learned; None where that is not known. With "english" nothing else comes out."""

    @classmethod
    def from_config(cls, config: Config) -> Reading:
        """As the section `tts` says, for the TTS that it names. Raises AudioProjectionError for a lexicon or a list of
        characters that is damaged, and for a TTS that is not there."""
        english = config.tts.normalise == "english"
        return cls.of(config.tts, read_characters(find_tts(config)) if english else None)

    @classmethod
    def of(cls, settings: TTSConfig, characters: frozenset[str] | None) -> Reading:
        """As the section `tts` says, for a TTS with this list of characters."""
        lexicon = Lexicon.from_file(settings.lexicon) if settings.lexicon else None
        return cls(settings.normalise, lexicon, characters)

    @property
    def name(self) -> str:
        """What cached states remember the reading by: `tts.normalise`, and the lexicon where there is one."""
        return self.normalise + (f", lexicon {self.lexicon.name}" if self.lexicon else "")

    def spoken(self, text: str) -> str:
        """The text as the models get it; empty where nothing of it can be spoken."""
        english = self.normalise == "english"
        return self._english(text) if english else self._spell(_tidy(text), ())

    def mark(self, mark: str) -> str:
        """A mark of an answer as the TTS knows it; it may be nothing."""
        return mark if self.characters is None else learned_mark(mark, self.characters)

    @property
    def rewords(self) -> bool:
        """Whether texts may be said in other words than their own."""
        return self.normalise == "english" or self.lexicon is not None

    def _english(self, text: str) -> str:
        markup = MarkupFilter(TEXT)
        plain = plain_forms(_tidy("".join(kept.character for kept in filtered([text], markup))))
        if markup.ssml:
            _warn_once("ssml", f"SSML tags other than <break> are not spoken: <{markup.ssml[0]}> is left out")
        language = foreign_language(plain)
        if language:
            _warn_once("language", f"the text looks {language}, and tts.normalise=english reads English only")
        rules = () if language and self.characters is None else READING
        spoken = fold(self._spell(plain, rules), self.characters)
        return spoken if is_speakable(spoken) else ""

    def _spell(self, text: str, rules: Sequence[Rule]) -> str:
        pattern = self.lexicon.pattern() if self.lexicon else None
        if self.lexicon and pattern:
            lexicon = self.lexicon
            rules = [Rule(pattern, lambda match: lexicon.spelling(match[0])), *rules]
        return spell_out(text, rules) if rules else text


def as_reading(reading: Reading | str) -> Reading:
    """A reading, also of a value of `tts.normalise` alone."""
    return reading if isinstance(reading, Reading) else Reading(reading)


def as_spoken(text: str, reading: Reading | str = "none") -> str:
    """The text as the models get it, in training as in speaking: checked and, by `tts.normalise`, spelled out.

    ``reading`` is the whole of it, or only the value of `tts.normalise`. Raises AudioProjectionError as `check_text`
    does, and where nothing is left that the TTS can say.
    """
    checked = check_text(text)
    reading = as_reading(reading)
    if reading == Reading():
        return checked
    spoken = reading.spoken(text)
    if not spoken:
        raise AudioProjectionError(f"nothing to speak: this voice can say nothing of {checked[:30]!r}")
    return spoken


_warned: set[str] = set()


def _warn_once(kind: str, message: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        log.warning("%s", message)


def check_characters(text: str) -> None:
    """Raises AudioProjectionError for anything but a string, for NUL and for lone surrogates."""
    if not isinstance(text, str):
        raise AudioProjectionError(f"text must be a string, not {type(text).__name__}")
    for position, character in enumerate(text):
        if character == "\0":
            raise AudioProjectionError(f"text has a NUL character at position {position}; remove it")
        if "\ud800" <= character <= "\udfff":
            raise AudioProjectionError(
                f"text has half of a surrogate pair (U+{ord(character):04X}) at position {position}; "
                "give valid Unicode text"
            )


def is_speakable(text: str) -> bool:
    """Whether the text has a letter or a digit of any script."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def split_sentences(text: str, longest: int) -> list[str]:
    """The text cut at sentence ends of any script, each piece at most ``longest`` characters.

    A sentence that is too long is cut at clause ends, then between words, then (a monster without spaces) between
    characters, never between a letter and its marks unless those alone are too long. Pieces are stripped; besides
    the spaces between them nothing is lost. ``longest`` must be at least 1.
    """
    if longest < 1:
        raise AudioProjectionError(f"the longest piece must have at least 1 character, not {longest}")
    sentences = _cut(text, sentence_ends(text))
    pieces = (piece.strip() for sentence in sentences for piece in _fit(sentence.strip(), longest, 0))
    return [piece for piece in pieces if piece]


def sentence_ends(text: str) -> Iterator[int]:
    """The positions after the stops (and the spaces behind them) that end a sentence; blank lines end one too."""
    for match in _SENTENCE_END.finditer(text):
        if not (match[0].startswith(".") and _is_inner_stop(text, match)):
            yield match.end()


def _tidy(text: str) -> str:
    kept = "".join(
        character
        for character in unicodedata.normalize("NFC", text)
        if unicodedata.category(character) != "Cf" or character in _JOINERS
    )
    plain = "".join(" " if _is_control(character) else character for character in kept)
    # dropping a format character can bring a letter and its mark together
    return unicodedata.normalize("NFC", _SPACES.sub(_one_space, plain).strip())


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and not character.isspace()


def _one_space(run: re.Match[str]) -> str:
    breaks = len(_LINE_BREAK.findall(run[0])) + 2 * run[0].count("\u2029")
    return _PARAGRAPH if breaks > 1 else " "


def _is_inner_stop(text: str, stop: re.Match[str]) -> bool:
    """Full stops that end no sentence: after a title, initials, No. before a figure, short words before small ones."""
    word = re.split(r"[\s(\"'“‘]", text[max(stop.start() - 12, 0) : stop.start()])[-1]
    single = stop[0].rstrip() == "."
    if text[stop.end() : stop.end() + 1].islower():
        return not single or len(word) <= 3 or "." in word
    if not single:
        return False
    if "0" <= text[stop.end() : stop.end() + 1] <= "9" and _BEFORE_FIGURES.fullmatch(word):
        return True
    if _INITIALS.fullmatch(word):  # the U.S. Army, but: the U.S. He
        return not SENTENCE_OPENER.match(text, stop.start() + 1)
    initial = len(word) == 1 and word.isupper() and word != "I"
    return initial or _BEFORE_WORDS.fullmatch(word) is not None


def _fit(text: str, longest: int, level: int) -> list[str]:
    """Pieces of at most ``longest`` characters, as full as the kind of cut (0 clauses, 1 words, 2 characters) lets."""
    if len(text) <= longest:
        return [text]
    if level == 2:
        return _pack(_clusters(text, longest), longest)
    atoms = _cut(text, (match.end() for match in (_CLAUSE_END, _WORD_END)[level].finditer(text)))
    return _pack((piece for atom in atoms for piece in _fit_atom(atom, longest, level + 1)), longest)


def _fit_atom(atom: str, longest: int, level: int) -> list[str]:
    return [atom] if len(atom.rstrip()) <= longest else _fit(atom, longest, level)


def _pack(atoms: Iterable[str], longest: int) -> list[str]:
    """Neighbours joined while they fit; the spaces at the end of a piece do not count."""
    pieces: list[str] = []
    for atom in atoms:
        if pieces and len((pieces[-1] + atom).strip()) <= longest:
            pieces[-1] += atom
        else:
            pieces.append(atom)
    return pieces


def _clusters(text: str, longest: int) -> list[str]:
    """Characters with the marks and joiners that belong to them."""
    clusters: list[str] = []
    for character in text:
        joins = unicodedata.category(character)[0] == "M" or character in _JOINERS
        if clusters and (joins or clusters[-1][-1] == "\u200d") and len(clusters[-1]) < longest:
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _cut(text: str, ends: Iterable[int]) -> list[str]:
    """The text cut after each of the ascending positions."""
    places = sorted({0, *ends, len(text)})
    return [text[start:end] for start, end in pairwise(places)]
