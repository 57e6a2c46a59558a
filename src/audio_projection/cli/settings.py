"""The configuration of one command: file, `key=value` overrides and options, checked before the models are loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError


def load_settings(config: str | Path, overrides: list[str] | None, chosen: Mapping[str, object]) -> Config:
    """The configuration of a command that loads models."""
    # a progress bar for each model that is loaded from the disk says nothing that people need
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    given = {key: value for key, value in chosen.items() if value is not None}
    settings = load_config(config, overrides or (), given)
    if settings.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    _check_device(settings.device)
    return settings


def _check_device(device: str) -> None:
    if device in {"auto", "cpu"}:
        return
    import torch

    kind, _, number = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(number or 0) >= count:
        raise AudioProjectionError(f"there is no device {device} here ({count} of its kind): give --device auto or cpu")
