"""Which voice a projector is trained with, and which one is stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audio_projection.data.pairs import Pair
from audio_projection.errors import AudioProjectionError

if TYPE_CHECKING:
    from audio_projection.config import Config
    from audio_projection.tts.model import Qwen3TTS


def named_speaker(config: Config, tts: Qwen3TTS) -> str | None:
    """The named voice to train with; None for a voice_design model, which has none.

    Raises AudioProjectionError when the choice is open, or a base model has only recordings for voices.
    """
    speakers = list(tts.config.talker.speakers)
    if config.tts.speaker is not None or tts.config.kind == "voice_design":
        return config.tts.speaker
    if tts.config.kind == "base":
        raise AudioProjectionError(
            f"{config.tts.name} has no named speakers: train it on recordings (data.source), whose voices it takes"
        )
    if len(speakers) != 1:
        raise AudioProjectionError(f"set tts.speaker: {config.tts.name} has the speakers {', '.join(speakers)}")
    return speakers[0]


def default_voice(config: Config, tts: Qwen3TTS, pairs: Sequence[Pair]) -> tuple[str | Tensor | None, str | None]:
    """The voice that is stored with the projector, and whose it is.

    A named speaker; or, for x-vectors, of all recordings of `data.voice_speaker` (none: the most frequent speaker) the
    vector nearest to their mean. Raises AudioProjectionError when that speaker is not in the data.
    """
    if tts.config.kind != "base":
        return named_speaker(config, tts), None
    vectors: dict[str, list[Tensor]] = {}
    for pair in pairs:
        if isinstance(pair.voice, Tensor):
            vectors.setdefault(pair.speaker or "", []).append(pair.voice)
    if not vectors:
        raise AudioProjectionError("the training pairs have no x-vectors, which a base model needs for its voice")
    name = config.data.voice_speaker or max(vectors, key=lambda speaker: len(vectors[speaker]))
    if name not in vectors:
        some = ", ".join(sorted(vectors)[:8])
        raise AudioProjectionError(f"data.voice_speaker {name!r} has no usable recording; there are {some}")
    voices = torch.stack(vectors[name])
    return voices[(voices - voices.mean(0)).norm(dim=1).argmin()], name
