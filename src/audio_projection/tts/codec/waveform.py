"""Validation and resampling of recordings for the codec encoder and the speaker encoder."""

from __future__ import annotations

import math

import numpy as np
import soxr
import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError


def prepare_waveform(samples: np.ndarray | Tensor, rate: int, target: int) -> Tensor:
    """Mono samples (S,) at `rate` Hz -> float32 samples on the CPU at `target` Hz.

    Raises AudioProjectionError for an empty, not one-dimensional or not finite array, and for a rate below 1.
    """
    values = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if values.ndim != 1:
        raise AudioProjectionError(f"mono samples of shape (S,) expected, not {values.shape}; mix the channels first")
    if not values.size:
        raise AudioProjectionError("the recording is empty")
    if not np.issubdtype(values.dtype, np.floating):
        raise AudioProjectionError(f"samples must be floating point within -1 and 1, not {values.dtype}")
    if not np.isfinite(values).all():
        raise AudioProjectionError("the recording has samples that are no finite numbers")
    if rate < 1:
        raise AudioProjectionError(f"sample rate {rate} Hz is not possible")
    values = values.astype(np.float32, copy=False)
    if rate != target:
        length = math.ceil(values.size * (target / rate))
        values = soxr.resample(values, rate, target, quality="HQ")[:length]
        values = np.pad(
            values, (0, length - values.size)
        )  # the length that librosa, and so the official package, gives
    return torch.from_numpy(np.ascontiguousarray(values))
