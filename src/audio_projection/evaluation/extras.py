"""Libraries that only evaluations need: each comes with an extra of the package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from audio_projection.errors import AudioProjectionError


def library(name: str, extra: str) -> Any:
    """The module of that name. Raises AudioProjectionError where it is missing, naming the extra that brings it."""
    try:
        return import_module(name)
    except ImportError:
        raise AudioProjectionError(f'evaluation needs {name}: pip install "audio-projection[{extra}]"') from None
