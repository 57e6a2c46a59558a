"""Voices: the named speaker that a projector is trained with, and the default voice that is stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audio_projection.data.pairs import Pair
from audio_projection.errors import AudioProjectionError

if TYPE_CHECKING:
    from audio_projection.config import TTSConfig
    from audio_projection.tts.model import Qwen3TTS


def named_speaker(settings: TTSConfig, tts: Qwen3TTS) -> str | None:
    """The named speaker to train with; None for a voice_design model, which has none.

    Raises AudioProjectionError when tts.speaker must be set, or for a base model, whose voices are x-vectors.
    """
    speakers = list(tts.config.talker.speakers)
    if settings.speaker is not None or tts.config.kind == "voice_design":
        return settings.speaker
    if tts.config.kind == "base":
        raise AudioProjectionError(
            f"{settings.name} has no named speakers: train it on recordings (data.source), whose voices it takes"
        )
    if len(speakers) != 1:
        raise AudioProjectionError(f"set tts.speaker: {settings.name} has the speakers {', '.join(speakers)}")
    return speakers[0]


def default_voice(
    settings: TTSConfig, tts: Qwen3TTS, pairs: Sequence[Pair], speaker: str | None
) -> tuple[str | Tensor | None, str | None]:
    """The default voice that is stored with the projector, and for an x-vector the corpus speaker it is of.

    A named speaker; or, for a base model, the x-vector nearest to the mean of all x-vectors of the corpus speaker
    `speaker` (None: the most frequent one). Raises AudioProjectionError when that speaker is not in the data.
    """
    if tts.config.kind != "base":
        return named_speaker(settings, tts), None
    vectors: dict[str, list[Tensor]] = {}
    for pair in pairs:
        if isinstance(pair.voice, Tensor):
            vectors.setdefault(pair.speaker or "", []).append(pair.voice)
    if not vectors:
        raise AudioProjectionError("the training pairs have no x-vectors, which a base model needs for its voice")
    name = speaker or max(vectors, key=lambda each: len(vectors[each]))
    if name not in vectors:
        some = ", ".join(sorted(vectors)[:8])
        raise AudioProjectionError(f"data.voice_speaker {name!r} has no usable recording; there are {some}")
    voices = torch.stack(vectors[name])
    return voices[(voices - voices.mean(0)).norm(dim=1).argmin()], name
