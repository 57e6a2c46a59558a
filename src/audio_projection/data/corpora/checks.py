"""What makes a recording unfit for training: its text, its sound, and whether the two can belong together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio_projection.data.corpora.items import Reason, Recording, Unusable
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio
from audio_projection.text.input_text import check_text

if TYPE_CHECKING:
    from audio_projection.config import DataConfig

FULL_SCALE = 0.99
"""Samples at least this far from zero count as clipped."""


@dataclass(frozen=True)
class Sound:
    """A decoded recording that passed its checks."""

    samples: np.ndarray  # (S,) float32, the mean of the channels
    rate: int  # Hz
    channels: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def clean_text(recording: Recording) -> str:
    """The transcript with plain spacing and no control characters; raises Unusable when it cannot be spoken."""
    with unusable(Reason.bad_text):
        return check_text(recording.text)


def read_sound(recording: Recording, limits: DataConfig) -> Sound:
    """The decoded sound; raises Unusable for one that is missing, broken, silent, clipped, too short or too long."""
    if not recording.audio.is_file():
        raise Unusable(Reason.no_audio, str(recording.audio))
    with unusable(Reason.unreadable):
        announced = audio.duration(recording.audio)
        if announced > limits.max_seconds + 1:  # hours need not be decoded; an MP3's header may be a little off
            _check_length(announced, limits)
        samples, rate = audio.decode(recording.audio)
    if not len(samples):
        raise Unusable(Reason.no_samples)
    if not np.isfinite(samples).all():
        raise Unusable(Reason.not_finite)
    sound = Sound(audio.mix_down(samples), rate, samples.shape[1])
    _check_length(sound.seconds, limits)
    _check_level(sound.samples, limits)
    return sound


def check_pace(text: str, seconds: float, limits: DataConfig) -> None:
    """Raises Unusable when nobody could read `text` in `seconds`, or would need so long."""
    pace = letters(text) / seconds
    if not limits.slowest <= pace <= limits.fastest:
        raise Unusable(Reason.implausible, f"{pace:.1f} letters a second")


def letters(text: str) -> int:
    """How many letters and digits a text has."""
    return sum(character.isalnum() for character in text)


@contextmanager
def unusable(reason: Reason) -> Iterator[None]:
    """What is wrong inside makes the recording unusable for that reason."""
    try:
        yield
    except Unusable:
        raise
    except AudioProjectionError as error:
        raise Unusable(reason, str(error)) from None


def _check_length(seconds: float, limits: DataConfig) -> None:
    if seconds < limits.min_seconds:
        raise Unusable(Reason.too_short, f"{seconds:.2f} s")
    if seconds > limits.max_seconds:
        raise Unusable(Reason.too_long, f"{seconds:.2f} s")


def _check_level(samples: np.ndarray, limits: DataConfig) -> None:
    level = 10 * np.log10(np.square(samples, dtype=np.float64).mean() + 1e-12)
    if level < limits.silence_db:
        raise Unusable(Reason.silent, f"{level:.0f} dB")
    clipped = float((np.abs(samples) >= FULL_SCALE).mean())
    if clipped > limits.clipped_share:
        raise Unusable(Reason.clipped, f"{clipped:.1%} of the samples")
