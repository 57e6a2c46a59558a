"""The Qwen3-TTS model: talker, code predictor, codec, speaker encoder, tokenizer and settings of one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError
from audio_projection.files.json_reader import read_json_object
from audio_projection.sampling import Sampling
from audio_projection.text.characters import read_characters
from audio_projection.text.token_spans import Span
from audio_projection.tts import prompt
from audio_projection.tts.code_predictor import CodePredictor
from audio_projection.tts.codec.codec import Codec
from audio_projection.tts.config import Qwen3TTSConfig
from audio_projection.tts.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from audio_projection.tts.talker import Talker
from audio_projection.tts.tokenizer import ROLE, TextTokenizer
from audio_projection.tts.weights import load_weights

_INSTRUCT = "<|im_start|>user\n{}<|im_end|>\n"


class Qwen3TTS(nn.Module):
    """Qwen3-TTS-12Hz in the official folder layout; frozen and in eval mode when loaded.

    `tokenizer` and `codec` are None only in a model made by `from_config` without them.
    """

    def __init__(self, config: Qwen3TTSConfig, name: str = "") -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.generation: Mapping[str, Any] = {}
        self.talker = Talker(config.talker)
        self.code_predictor = CodePredictor(config.predictor, self.talker.codec_embedding)
        self.speaker_encoder: SpeakerEncoder | None = None
        if config.kind == "base":
            self.speaker_encoder = SpeakerEncoder(SpeakerEncoderConfig.from_dict(config.speaker_encoder))
        self._codec: Codec | None = None
        self._tokenizer: TextTokenizer | None = None
        self.characters: frozenset[str] | None = None
        """What it has learned to speak (characters.json in its folder); None where that is not known."""
        self.finetuned = ""
        """Of a talker in a GGUF file that was fine-tuned with a projector: the hash by which that one knows it."""

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        stacks: tuple[nn.Module, nn.Module] | None = None,
    ) -> Qwen3TTS:
        """Load an official folder: config.json, model*.safetensors, tokenizer files, speech_tokenizer/.

        Talker and code predictor get `dtype`; codec and speaker encoder stay float32. `stacks` replace the talker's
        and the code predictor's transformers, for which the folder then has no tensors. AudioProjectionError names the
        file or tensor that is missing, truncated, misshapen or foreign.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise AudioProjectionError(f"{folder} is no folder; download the checkpoint or give its folder")
        config = Qwen3TTSConfig.from_folder(folder)
        with torch.device("meta"):
            tts = cls(config, folder.name)
        if stacks is not None:
            tts.talker.transformer, tts.code_predictor.transformer = stacks  # type: ignore[assignment]
        load_weights(tts, folder, dtype)
        tts._tokenizer = TextTokenizer.from_folder(folder)
        tts.characters = read_characters(folder)
        tts._codec = Codec.from_pretrained(folder / "speech_tokenizer", device)
        if tts.codec.code_groups != config.code_groups:
            raise AudioProjectionError(
                f"{folder}: config.json has {config.code_groups} code groups, speech_tokenizer {tts.codec.code_groups}"
            )
        generation = folder / "generation_config.json"
        tts.generation = read_json_object(generation, "a whole Qwen3-TTS folder")
        _check_sampling(tts, generation)
        return tts.to(device).eval().requires_grad_(False)

    @classmethod
    def from_config(
        cls, config: Qwen3TTSConfig, seed: int = 0, tokenizer: TextTokenizer | None = None, codec: Codec | None = None
    ) -> Qwen3TTS:
        """A trainable model with random weights: normal of deviation 0.02 (embeddings too), norms 1, biases 0."""
        tts = cls(config)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in tts.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(weight)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=0.02, generator=generator)
        tts._tokenizer, tts._codec = tokenizer, codec
        return tts

    @property
    def tokenizer(self) -> TextTokenizer:
        if self._tokenizer is None:
            raise AudioProjectionError("this Qwen3TTS was made without a tokenizer")
        return self._tokenizer

    @property
    def codec(self) -> Codec:
        if self._codec is None:
            raise AudioProjectionError("this Qwen3TTS was made without a codec")
        return self._codec

    @property
    def device(self) -> torch.device:
        return self.talker.codec_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.talker.codec_head.weight.dtype

    @property
    def sample_rate(self) -> int:
        """Sample rate of the codec's output, Hz."""
        return self.codec.sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Hop size: samples of one frame, 1920 for the official checkpoints."""
        return self.codec.samples_per_frame

    @property
    def frame_rate(self) -> float:
        """Frames a second, 12.5 for the official checkpoints."""
        return self.sample_rate / self.samples_per_frame

    @property
    def tokenizer_hash(self) -> str:
        """The tokenizer's SHA-256: projectors and pairs belong to one tokenizer."""
        return self.tokenizer.hash

    @property
    def embeddings_hash(self) -> str:
        """A hash of first values of the talker's embeddings and projections, which fine-tuning leaves as they are: the
        same in any dtype, and where the layers are GGUF files."""
        digest = hashlib.sha256()
        for name, value in self.talker.state_dict().items():
            if not name.startswith("transformer."):
                digest.update(f"{name} {tuple(value.shape)}".encode())
                digest.update(value.flatten()[:64].to(torch.bfloat16).float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of the folder's generation_config.json."""
        return Sampling.from_dict(self.generation)

    @property
    def role_ids(self) -> list[int]:
        """The 3 token ids of `<|im_start|>assistant`, which open every utterance."""
        return self.tokenizer.ids(ROLE)

    def instruct_ids(self, instruct: str) -> list[int]:
        """Token ids of an instruction (how to speak) in its chat template."""
        return self.tokenizer.ids(_INSTRUCT.format(instruct))

    def tokenize(self, text: str) -> tuple[list[int], list[Span]]:
        """Token ids of the text without template, and for each its (start, end) in the text's UTF-8 bytes."""
        return self.tokenizer.encode(text)

    def text_embeddings(self, ids: Tensor) -> Tensor:
        """Text embeddings (N, H) of token ids (N,), int64."""
        return self.talker.text_embeddings(ids)

    def frame_embedding(self, codes: Tensor) -> Tensor:
        """Frame embeddings (..., H), the summed code embeddings of frames (..., G), int64."""
        return self.code_predictor.embed(codes)

    def prefix(self, speaker: str | Tensor | None, language: str = "auto", instruct: str | None = None) -> Tensor:
        """Input embeddings (P, H) before the text, up to and including the speaker; see `prompt.prefix`."""
        return prompt.prefix(self, speaker, language, instruct)


def _check_sampling(tts: Qwen3TTS, where: Path) -> None:
    """Raises AudioProjectionError for sampling settings that are no numbers or out of range."""
    try:
        assert tts.sampling
    except (TypeError, ValueError, OverflowError) as error:
        raise AudioProjectionError(f"{where}: {error}; download it again") from None
