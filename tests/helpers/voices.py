"""Voice objects of tiny random models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audio_projection.fit.assemble import new_projector
from audio_projection.inference import Voice, VoiceDefaults
from audio_projection.sampling import Sampling
from helpers.tiny_llm import make_llm
from helpers.training import load_tts, make_config


def make_voice(
    kind: str = "linear", tts: str = "custom_voice", context: str = "raw", layers: Any = (2, 4), **defaults: Any
) -> Voice:
    """A Voice whose projector is untrained; further keywords are fields of VoiceDefaults."""
    llm, model = make_llm(layers=list(layers), context=context), load_tts(tts)
    config = make_config(Path("unused"))
    config.projector.kind = kind  # type: ignore[assignment]
    settings = {"speaker": "ada", "language": "english", "sampling": Sampling.greedy(), "max_frames": 6} | defaults
    return Voice(llm, model, new_projector(config, llm, model), VoiceDefaults(**settings))
