"""Words of what was spoken, placed in time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from audio_projection.inference.speech import Sentence

AUDIBLE = 0.01
"""Amplitude (-40 dB) from which on sound counts as speech: a sentence's words lie between its first and last."""
SECONDS_PER_CHARACTER = 0.06
"""Pace of a sentence of which only the beginning was spoken yet, unless it was slower."""
_ROUNDING = 1e-6
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Word:
    """A word of a stream, with its place in the sound.

    Where a sentence begins and ends is exact; within it words are placed by their numbers of characters.
    """

    text: str
    start: float
    """Seconds from the beginning of the sound."""
    end: float


@dataclass
class SpokenSentence:
    """A sentence with the sound that was delivered of it."""

    sentence: Sentence
    start: float = 0.0
    """Where its sound begins in that of the stream, in seconds; known with its first sound."""
    seconds: float = 0.0
    """Seconds of sound so far."""
    ended: bool = False
    """Whether all of its sound was delivered."""
    _first: float | None = field(default=None, repr=False)
    _last: float = field(default=0.0, repr=False)

    def add(self, samples: np.ndarray, rate: int) -> None:
        """Its next samples (s,)."""
        audible = np.flatnonzero(np.abs(samples) >= AUDIBLE)
        if len(audible):
            self._first = self.seconds + int(audible[0]) / rate if self._first is None else self._first
            self._last = self.seconds + (int(audible[-1]) + 1) / rate
        self.seconds += len(samples) / rate

    def words(self) -> Iterator[Word]:
        """The words that were spoken so far."""
        text = self.sentence.text
        for match, end in zip(_WORD.finditer(text), self._ends(), strict=True):
            if end > self.seconds + _ROUNDING and not self.ended:
                return
            yield Word(match[0], self.start + self._at(match.start()), self.start + end)

    def heard(self, seconds: float) -> tuple[str, str]:
        """What ends within the first seconds of the stream's sound: as it was spoken, and as it was written."""
        if not self.seconds:
            return "", ""
        text, written = self.sentence.text, self.sentence.written
        own = seconds - self.start
        if self.ended and own >= self._end() - _ROUNDING:
            return text, written
        words = list(_WORD.finditer(text))
        count = sum(end <= own + _ROUNDING for end in self._ends())
        spoken = text[: words[count - 1].end()] if count else ""
        if written.split()[: len(words)] == text.split():
            return spoken, spoken
        places = [match.end() for match in _WORD.finditer(written)]
        kept = int(len(places) * count / max(1, len(words)))
        return spoken, written[: places[kept - 1]] if kept else ""

    def _end(self) -> float:
        """Where its last word ends: known when the sentence has ended, else by its usual pace."""
        if self.ended:
            return self.seconds if self._first is None else self._last
        return max(self._last, self._begin() + SECONDS_PER_CHARACTER * len(self.sentence.text))

    def _begin(self) -> float:
        """Where its first word begins; while nothing of it is audible, at the end of what there is."""
        if self._first is None:
            return 0.0 if self.ended else self.seconds
        return self._first

    def _at(self, character: int) -> float:
        first, length = self._begin(), max(1, len(self.sentence.text.rstrip()))
        return first + (self._end() - first) * character / length

    def _ends(self) -> list[float]:
        return [self._at(match.end()) for match in _WORD.finditer(self.sentence.text)]


def spoken_until(sentences: Sequence[SpokenSentence], seconds: float) -> tuple[str, str]:
    """The words that end within the first seconds of sound: as they were spoken, and as they were written."""
    heard = [sentence.heard(seconds) for sentence in sentences]
    return _joined(spoken for spoken, _ in heard), _joined(written for _, written in heard)


def _joined(texts: Iterator[str]) -> str:
    return " ".join(" ".join(texts).split())
