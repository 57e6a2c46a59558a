"""The learning rate over the steps of a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audio_projection.config import TrainConfig


def learning_rate(settings: TrainConfig, steps: int, step: int, seconds: float = 0.0) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up, then constant, or a half cosine down to a tenth.

    With `max_minutes` the cosine follows whichever of steps and time is further on.
    """
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup) / max(1, steps - settings.warmup)
    if settings.max_minutes is not None:
        done = max(done, seconds / (60 * settings.max_minutes))
    return settings.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))
