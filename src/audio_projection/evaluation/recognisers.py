"""The recognisers that transcribe what was spoken: pocketsphinx and Whisper.

pocketsphinx (extra `eval`) has the US English model that it brings along: offline, the same everywhere, and strict
enough that only clear speech scores well. Whisper (Radford et al., 2022; extra `whisper`) runs by faster-whisper, with
beam 5 at temperature 0, and is compared after its own English normaliser, as its authors compare it.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from audio_projection.errors import AudioProjectionError, first_line
from audio_projection.evaluation.extras import library
from audio_projection.evaluation.word_errors import normalise

SAMPLE_RATE = 16_000
"""Samples a second that the recognisers' models were trained on."""


class Recogniser(Protocol):
    """Transcribes recordings; cheap to make and to send to another process, since the model is loaded at first use."""

    name: ClassVar[str]

    @property
    def model_name(self) -> str:
        """What was heard depends on: the recogniser and its model."""

    def check(self) -> None:
        """Raises AudioProjectionError where its libraries or its model are missing."""

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """The words heard in mono float samples (S,) in [-1, 1] at `rate` Hz; "" for none."""

    def normalise(self, text: str) -> str:
        """Text or transcript -> the words that are compared."""


class PocketSphinx:
    """pocketsphinx; the transcript of one recording does not depend on those before."""

    name: ClassVar[str] = "pocketsphinx"
    model_name = "pocketsphinx"

    def check(self) -> None:
        library("pocketsphinx", "eval")

    def __getstate__(self) -> dict[str, str]:
        return {}  # the model stays in its process

    @cached_property
    def _decoder(self) -> Any:
        return library("pocketsphinx", "eval").Decoder(samprate=float(SAMPLE_RATE), loglevel="FATAL")

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """The words heard, normalised."""
        sound = (np.clip(at_rate(samples, rate, SAMPLE_RATE), -1.0, 1.0) * 32767).round().astype(np.int16)
        if not len(sound):
            return ""
        # Resets the noise estimate of earlier recordings; as one whole utterance, the cepstral mean is its own too.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(sound.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return normalise(hypothesis.hypstr) if hypothesis else ""

    def normalise(self, text: str) -> str:
        return normalise(text)


class Whisper:
    """Whisper by faster-whisper on the CPU, int8. `model`: a folder, or a name that is downloaded (base, small.en)."""

    name: ClassVar[str] = "whisper"

    def __init__(self, model: str = "base") -> None:
        self._folder_or_name = model

    @property
    def model_name(self) -> str:
        return f"whisper {self._folder_or_name}"

    def check(self) -> None:
        """Raises AudioProjectionError where faster-whisper or whisper-normalizer is missing, or no model is there."""
        library("whisper_normalizer", "whisper")
        _ = self._model

    @cached_property
    def _model(self) -> Any:
        faster_whisper = library("faster_whisper", "whisper")
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        try:
            return faster_whisper.WhisperModel(
                self._folder_or_name, device="cpu", compute_type="int8", cpu_threads=threads
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise AudioProjectionError(
                f"cannot load the Whisper model {self._folder_or_name}: {first_line(error)}; give --whisper-model the "
                "folder of a faster-whisper model (Systran/faster-whisper-base on the hub)"
            ) from None

    @cached_property
    def _normaliser(self) -> Any:
        return library("whisper_normalizer.english", "whisper").EnglishTextNormalizer()

    def __getstate__(self) -> dict[str, str]:
        return {"_folder_or_name": self._folder_or_name}  # the model stays in its process

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """The words as Whisper writes them, with capitals and punctuation."""
        sound = at_rate(samples, rate, SAMPLE_RATE)
        if not len(sound):
            return ""
        segments, _ = self._model.transcribe(sound, language="en", beam_size=5, temperature=0.0)
        return " ".join(segment.text.strip() for segment in segments)

    def normalise(self, text: str) -> str:
        words: str = self._normaliser(text)
        return words


def at_rate(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Mono float samples at `rate` Hz -> float32 at `wanted` Hz."""
    import soxr

    sound = np.asarray(samples, dtype=np.float32)
    return sound if rate == wanted or not len(sound) else soxr.resample(sound, rate, wanted)
