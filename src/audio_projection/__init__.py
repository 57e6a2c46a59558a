"""Speech from the hidden states of a frozen language model.

Importing the package is cheap: the names below pull in torch only when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.version import __version__ as __version__

if TYPE_CHECKING:
    from audio_projection.inference import Speech, Voice
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.projector import LinearProjector, Projector, ResidualProjector
    from audio_projection.tts import Qwen3TTS

__all__ = [
    "AudioProjectionError",
    "Config",
    "LanguageModel",
    "LinearProjector",
    "Projector",
    "Qwen3TTS",
    "ResidualProjector",
    "Speech",
    "Voice",
    "load_config",
]

_LAZY = {
    "LanguageModel": "audio_projection.llm.language_model",
    "LinearProjector": "audio_projection.projector",
    "Projector": "audio_projection.projector",
    "Qwen3TTS": "audio_projection.tts",
    "ResidualProjector": "audio_projection.projector",
    "Speech": "audio_projection.inference",
    "Voice": "audio_projection.inference",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
