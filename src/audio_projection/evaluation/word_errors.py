"""Word errors of transcripts against the text (word error rate), both sides normalised alike. Needs jiwer (`eval`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from audio_projection.errors import AudioProjectionError
from audio_projection.evaluation.extras import library
from audio_projection.text.normalisation import spell_out

Normaliser = Callable[[str], str]
"""A text or transcript -> the words that are compared, with spaces between."""

_NOT_SPOKEN = re.compile(r"[^a-z']+")
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'"})


def normalise(text: str) -> str:
    """Lower-case words of letters and apostrophes, spelled out; both sides of a comparison go through it."""
    words = _NOT_SPOKEN.sub(" ", spell_out(text).lower().translate(_APOSTROPHES)).split()
    return " ".join(word for word in (each.strip("'") for each in words) if word)


@dataclass(frozen=True)
class WordErrors:
    """Word errors of one or more sentences."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Words of the reference."""

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per word of the reference; insertions can bring it above 1."""
        return self.errors / self.words

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )


def word_errors(reference: str, hypothesis: str, normaliser: Normaliser = normalise) -> WordErrors:
    """Edits that turn the reference's words into the hypothesis's, both normalised.

    Raises AudioProjectionError for a reference without a word of Latin letters.
    """
    expected = reference_words(reference, normaliser)
    found = library("jiwer", "eval").process_words(" ".join(expected), normaliser(hypothesis))
    return WordErrors(found.substitutions, found.deletions, found.insertions, len(expected))


def wrong_words(reference: str, hypothesis: str, normaliser: Normaliser = normalise) -> list[bool]:
    """For each word of the normalised reference whether it was not heard: deleted, or another in its place.

    Raises AudioProjectionError for a reference without a word of Latin letters.
    """
    wrong = [True] * len(reference_words(reference, normaliser))
    found = library("jiwer", "eval").process_words(normaliser(reference), normaliser(hypothesis))
    for part in found.alignments[0]:
        if part.type == "equal":
            wrong[part.ref_start_idx : part.ref_end_idx] = [False] * (part.ref_end_idx - part.ref_start_idx)
    return wrong


def reference_words(text: str, normaliser: Normaliser = normalise) -> list[str]:
    """The words of a reference, normalised. Raises AudioProjectionError when there is none of Latin letters."""
    words = normaliser(text).split()
    if not words:
        raise AudioProjectionError(f"no words to compare with in {text[:40]!r}; give sentences of English words")
    return words
