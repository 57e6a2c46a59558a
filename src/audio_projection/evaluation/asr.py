"""Speech recognition by pocketsphinx, and word errors of its transcripts against the text.

The recogniser has the US English model that pocketsphinx brings along: offline, the same everywhere, and strict
enough that only clear speech scores well. Needs the extra `eval` (pocketsphinx, jiwer).
"""

from __future__ import annotations

import re
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from audio_projection.errors import AudioProjectionError
from audio_projection.text.normalisation import spell_out

SAMPLE_RATE = 16_000
"""Samples a second that the recogniser's model was trained on."""

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


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Edits that turn the reference's words into the hypothesis's, both normalised.

    Raises AudioProjectionError for a reference without a word of Latin letters.
    """
    jiwer = _library("jiwer")
    expected = reference_words(reference)
    found = jiwer.process_words(" ".join(expected), normalise(hypothesis))
    return WordErrors(found.substitutions, found.deletions, found.insertions, len(expected))


def reference_words(text: str) -> list[str]:
    """The words of a reference, normalised. Raises AudioProjectionError when there is none of Latin letters."""
    words = normalise(text).split()
    if not words:
        raise AudioProjectionError(f"no words to compare with in {text[:40]!r}; give sentences of English words")
    return words


class Recognizer:
    """pocketsphinx; the transcript of one recording does not depend on those before."""

    def __init__(self) -> None:
        self._decoder = _library("pocketsphinx").Decoder(samprate=float(SAMPLE_RATE), loglevel="FATAL")

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """The words recognised in mono float samples (S,) in [-1, 1] at `rate` Hz, lower case; "" for none."""
        sound = _at_recogniser_rate(samples, rate)
        if not len(sound):
            return ""
        # Resets the noise estimate of earlier recordings; as one whole utterance, the cepstral mean is its own too.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(sound.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return normalise(hypothesis.hypstr) if hypothesis else ""


class RecognizerPool:
    """Recognisers in several processes, for use in a `with` block: pocketsphinx holds Python's global lock.

    Like every use of `multiprocessing`, it needs a main module that does nothing when imported.
    """

    def __init__(self, jobs: int) -> None:
        for module in ("pocketsphinx", "jiwer"):
            _library(module)
        self._pool = ProcessPoolExecutor(max(1, jobs), get_context("spawn"), initializer=_start_worker)

    def submit(self, samples: np.ndarray, rate: int) -> Future[str]:
        """The future result of `Recognizer.transcribe`."""
        return self._pool.submit(_transcribe, samples, rate)

    def __enter__(self) -> RecognizerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _at_recogniser_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    """int16 samples at the recogniser's rate."""
    import soxr

    sound = np.asarray(samples, dtype=np.float32)
    if rate != SAMPLE_RATE:
        sound = soxr.resample(sound, rate, SAMPLE_RATE)
    return (np.clip(sound, -1.0, 1.0) * 32767).round().astype(np.int16)


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise AudioProjectionError(f'evaluation needs {name}: pip install "audio-projection[eval]"') from None


_worker: Recognizer | None = None


def _start_worker() -> None:
    global _worker
    _worker = Recognizer()


def _transcribe(samples: np.ndarray, rate: int) -> str:
    assert _worker is not None
    return _worker.transcribe(samples, rate)
