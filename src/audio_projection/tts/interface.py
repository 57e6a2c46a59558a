"""The interface of a Qwen3-TTS that prompts and weight loading need, as a Protocol.

`model.Qwen3TTS` implements it and is built on `prompt` and `weights`, which therefore cannot import it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from audio_projection.tts.code_predictor import CodePredictor
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.speaker_encoder import SpeakerEncoder
from audio_projection.tts.talker import Talker


class SpeechModel(Protocol):
    """The networks of a Qwen3-TTS and the embeddings of text and codes that the talker reads."""

    config: Qwen3TTSConfig
    talker: Talker
    code_predictor: CodePredictor
    speaker_encoder: SpeakerEncoder | None

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def role_ids(self) -> list[int]:
        """Token ids of `<|im_start|>assistant`, which open every utterance."""

    def instruct_ids(self, instruct: str) -> list[int]:
        """Token ids of an instruction in its chat template."""

    def text_embeddings(self, ids: Tensor) -> Tensor:
        """Text embeddings (N, H) of token ids (N,), int64."""

    def frame_embedding(self, codes: Tensor) -> Tensor:
        """Summed code embeddings (..., H) of frames (..., G), int64."""
