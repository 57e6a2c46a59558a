"""Encodes recordings with the frozen TTS's encoders: codec codes and, for base models, the speaker's x-vector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audio_projection.data.corpora.checks import DecodedAudio
from audio_projection.files.audio import resample
from audio_projection.files.fingerprint import fingerprint
from audio_projection.tts.codec.codec import Codec
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.speaker_encoder import SpeakerEncoder

if TYPE_CHECKING:
    from audio_projection.tts.model import Qwen3TTS


class RecordingEncoder:
    """Codec encoder and speaker encoder of a Qwen3-TTS; the latter only for base models."""

    def __init__(self, codec: Codec, speaker_encoder: SpeakerEncoder | None) -> None:
        self.codec, self.speaker_encoder = codec, speaker_encoder

    @classmethod
    def of(cls, tts: Qwen3TTS) -> RecordingEncoder:
        """The encoders of a loaded TTS."""
        return cls(tts.codec, tts.speaker_encoder)

    @classmethod
    def from_pretrained(cls, folder: Path, device: torch.device) -> RecordingEncoder:
        """Loads both from an official Qwen3-TTS folder, without talker; AudioProjectionError when it is not whole."""
        is_base = Qwen3TTSConfig.from_folder(folder).kind == "base"
        speaker_encoder = SpeakerEncoder.from_pretrained(folder, device) if is_base else None
        return cls(Codec.from_pretrained(folder / "speech_tokenizer", device), speaker_encoder)

    @property
    def conditions(self) -> dict[str, Any]:
        """Fingerprints of the encoders, on which the encodings depend."""
        voices = None if self.speaker_encoder is None else fingerprint(self.speaker_encoder)
        return {"codec": fingerprint(self.codec), "voices": voices}

    @torch.no_grad()
    def encode(self, audio: DecodedAudio) -> tuple[Tensor, Tensor | None]:
        """Codes (T, G), int16, and the x-vector (E,), float32 (None without speaker encoder), both on the CPU.

        Raises AudioProjectionError for audio that is too short for the speaker encoder.
        """
        samples, rate = resample(audio.samples, audio.rate, self.codec.sample_rate), self.codec.sample_rate
        codes = self.codec.encode(samples, rate).to("cpu", torch.int16, copy=True)
        if self.speaker_encoder is None:
            return codes, None
        return codes, self.speaker_encoder.embed(samples, rate).to("cpu", torch.float32, copy=True)
