"""Gives a frozen LLM a voice: hidden states -> projector -> frozen Qwen3-TTS -> speech.

The public names are documented in docs/api.md. Importing the package is cheap: names that need torch are imported when
they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audio_projection.config import Config, load_config
from audio_projection.errors import AudioProjectionError
from audio_projection.version import __version__ as __version__

if TYPE_CHECKING:
    from audio_projection.data.pairs import Pair
    from audio_projection.fit.assemble import new_projector
    from audio_projection.fit.closed_form import fit_projector
    from audio_projection.inference import (
        Answer,
        AnswerTiming,
        Session,
        Speech,
        SpeechStream,
        Voice,
        VoiceDefaults,
        Word,
    )
    from audio_projection.llm.language_model import LanguageModel
    from audio_projection.models import Models
    from audio_projection.projector import LinearProjector, MLPProjector, Projector, ResidualProjector
    from audio_projection.sampling import Choice, Sampling
    from audio_projection.train import train_projector
    from audio_projection.tts.model import Qwen3TTS
    from audio_projection.tts.prompt import Reference

__all__ = [
    "Answer",
    "AnswerTiming",
    "AudioProjectionError",
    "Choice",
    "Config",
    "LanguageModel",
    "LinearProjector",
    "MLPProjector",
    "Models",
    "Pair",
    "Projector",
    "Qwen3TTS",
    "Reference",
    "ResidualProjector",
    "Sampling",
    "Session",
    "Speech",
    "SpeechStream",
    "Voice",
    "VoiceDefaults",
    "Word",
    "fit_projector",
    "load_config",
    "new_projector",
    "train_projector",
]

_LAZY = {
    "Answer": "inference",
    "AnswerTiming": "inference",
    "Choice": "sampling",
    "LanguageModel": "llm.language_model",
    "LinearProjector": "projector",
    "MLPProjector": "projector",
    "Models": "models",
    "Pair": "data.pairs",
    "Projector": "projector",
    "Qwen3TTS": "tts.model",
    "Reference": "tts.prompt",
    "ResidualProjector": "projector",
    "Sampling": "sampling",
    "Session": "inference",
    "Speech": "inference",
    "SpeechStream": "inference",
    "Voice": "inference",
    "VoiceDefaults": "inference",
    "Word": "inference",
    "fit_projector": "fit.closed_form",
    "new_projector": "fit.assemble",
    "train_projector": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
