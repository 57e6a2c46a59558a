"""Reference recordings of a voice, with the checks that recordings to train on get."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from audio_projection.config import DataConfig
from audio_projection.data.corpora.checks import check_level, check_pace
from audio_projection.data.corpora.items import Reason, Unusable
from audio_projection.errors import AudioProjectionError
from audio_projection.files import audio

log = logging.getLogger(__name__)

RATE = 24_000
"""Sample rate in Hz to which a reference recording is resampled."""
SILENCE = 0.5
"""Seconds of silence that `speak` puts after a recording that speech continues."""
ADVISED = (3.0, 30.0)
"""Seconds that a recording should have, for a voice that is like it."""
_LIMITS = DataConfig()
_ADVICE = {
    Reason.silent: "is silent",
    Reason.clipped: "is clipped: it was recorded too loud",
    Reason.implausible: "does not say its transcript: too many or too few letters for its duration",
}


def read_reference(path: str | Path, text: str | None = None) -> np.ndarray:
    """Mono float32 samples (S,) at `RATE` of a reference recording whose transcript is `text`, if there is one.

    Warns of a length that is not in `ADVISED`. Raises AudioProjectionError for what cannot be read, is silent or
    clipped, or does not fit its transcript.
    """
    samples = audio.read(path, RATE)
    seconds = len(samples) / RATE
    if not np.isfinite(samples).all():
        raise AudioProjectionError(f"the reference recording {path} has samples that are no numbers; give another one")
    try:
        check_level(samples, _LIMITS)
        if text is not None:
            check_pace(text, seconds, _LIMITS)
    except Unusable as reason:
        what = _ADVICE[reason.reason]
        raise AudioProjectionError(f"the reference recording {path} {what} ({reason.detail}); give another") from None
    shortest, longest = ADVISED
    if not shortest <= seconds <= longest:
        log.warning(
            "the reference recording %s is %.1f s long: %g to %g s give a voice that is more like it",
            *(path, seconds, shortest, longest),
        )
    return samples


def with_silence(samples: np.ndarray, seconds: float) -> np.ndarray:
    """The samples at `RATE` with so many seconds of silence after them."""
    return np.concatenate((samples, np.zeros(round(seconds * RATE), samples.dtype)))
