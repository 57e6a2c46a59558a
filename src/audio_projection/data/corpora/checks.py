"""Checks of a recording before training: its text, its audio, and whether text and duration fit together."""

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
class DecodedAudio:
    """The samples of a recording that passed the checks, mixed down to mono."""

    samples: np.ndarray  # (S,) float32, the mean of the channels
    rate: int  # Hz
    channels: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.rate


def clean_text(recording: Recording) -> str:
    """The transcript with single spaces and no control characters; raises Unusable when it cannot be spoken."""
    with unusable(Reason.bad_text):
        return check_text(recording.text)


def read_audio(recording: Recording, limits: DataConfig) -> DecodedAudio:
    """Decodes the audio; raises Unusable when it is missing, broken, silent, clipped, too short or too long."""
    if not recording.audio.is_file():
        raise Unusable(Reason.no_audio, str(recording.audio))
    with unusable(Reason.unreadable):
        announced = recording.duration or audio.duration(recording.audio) - recording.offset
        if announced > limits.max_seconds + 1:  # saves decoding hours; an MP3's header may be a little off
            _check_length(announced, limits)
        samples, rate = audio.decode(recording.audio, recording.offset, recording.duration)
    if not len(samples):
        raise Unusable(Reason.no_samples)
    if not np.isfinite(samples).all():
        raise Unusable(Reason.not_finite)
    decoded = DecodedAudio(audio.mix_down(samples), rate, samples.shape[1])
    _check_length(decoded.seconds, limits)
    check_level(decoded.samples, limits)
    return decoded


def check_pace(text: str, seconds: float, limits: DataConfig) -> None:
    """Raises Unusable when `text` has too many or too few letters and digits for its duration of `seconds`."""
    pace = letters(text) / seconds
    if not limits.slowest <= pace <= limits.fastest:
        raise Unusable(Reason.implausible, f"{pace:.1f} letters a second")


def letters(text: str) -> int:
    """Number of letters and digits in a text."""
    return sum(character.isalnum() for character in text)


@contextmanager
def unusable(reason: Reason) -> Iterator[None]:
    """Turns any AudioProjectionError inside into Unusable with this reason."""
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


def check_level(samples: np.ndarray, limits: DataConfig) -> None:
    """Raises Unusable for samples (S,) that are silent or clipped."""
    level = 10 * np.log10(np.var(samples, dtype=np.float64) + 1e-12)  # a constant is silence too
    if level < limits.silence_db:
        raise Unusable(Reason.silent, f"{level:.0f} dB")
    clipped = float((np.abs(samples) >= FULL_SCALE).mean())
    if clipped > limits.clipped_share:
        raise Unusable(Reason.clipped, f"{clipped:.1%} of the samples")
