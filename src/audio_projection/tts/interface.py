"""What prompts and weight loading need of a Qwen3-TTS, as a Protocol, so that its class can build on both."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from audio_projection.tts.code_predictor import CodePredictor
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.speaker_encoder import SpeakerEncoder
from audio_projection.tts.talker import Talker


class SpeechModel(Protocol):
    """The networks of a Qwen3-TTS and its embeddings of text, codes and templates; see `model.Qwen3TTS`."""

    config: Qwen3TTSConfig
    talker: Talker
    code_predictor: CodePredictor
    speaker_encoder: SpeakerEncoder | None

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def role_ids(self) -> list[int]: ...

    def instruct_ids(self, instruct: str) -> list[int]: ...

    def text_embeddings(self, ids: Tensor) -> Tensor: ...

    def frame_embedding(self, codes: Tensor) -> Tensor: ...
