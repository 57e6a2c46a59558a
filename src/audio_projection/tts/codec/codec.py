"""The 12 Hz neural audio codec of Qwen3-TTS: waveform to code frames and back (official folder `speech_tokenizer`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from audio_projection.devices import float64_device
from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_json
from audio_projection.files.json_reader import read_json_object
from audio_projection.files.tensor_folder import TensorFolder, check_tensors
from audio_projection.files.tensors import write_tensors
from audio_projection.tts.codec.config import CodecConfig
from audio_projection.tts.codec.decoder import CodecDecoder, State
from audio_projection.tts.codec.waveform import prepare_waveform
from audio_projection.tts.config import ConfigReader

if TYPE_CHECKING:
    from audio_projection.tts.codec.encoder import CodecEncoder

BLOCK_FRAMES = 32
"""`Codec.decode` decodes so many frames at once: memory is bounded, and activations stay in a CPU's caches."""


class Codec(nn.Module):
    """Codec encoder and decoder; `state_dict()` has the names and shapes of the official model.safetensors.

    T is frames, G code groups, S samples; codes are int64 below `config.decoder.codebook_size`.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self._modules["encoder"] = None  # see `encoder`; its weights come first, and fingerprints depend on the order
        self.decoder = CodecDecoder(config.decoder)
        self._folder: Path | None = None
        self.register_state_dict_pre_hook(_with_encoder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> Codec:
        """Load an official `speech_tokenizer` folder in float32, frozen and in eval mode; the encoder at its first use.

        AudioProjectionError names the file or tensor that is missing, truncated, misshapen or foreign.
        """
        folder = Path(folder)
        config = _with_extractor_rate(CodecConfig.from_folder(folder), folder / "preprocessor_config.json")
        with torch.device("meta"):
            codec = cls(config)
        codec._folder = folder
        _load(codec.decoder, "decoder.", folder, others="encoder.")
        codec.to(device).eval().requires_grad_(False)
        codec.decoder.to_channels_last()
        if float64_device(codec.device) == codec.device:
            codec.decoder.to_float64()
        return codec

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, preprocessor_config.json and model.safetensors as the official package reads them."""
        folder = Path(folder)
        write_tensors(folder / "model.safetensors", {name: value.float() for name, value in self.state_dict().items()})
        write_json(folder / "preprocessor_config.json", self.config.preprocessor())
        write_json(folder / "config.json", self.config.to_dict())

    @property
    def encoder(self) -> CodecEncoder:
        """The codec encoder, built and loaded at its first use: speaking needs neither it nor transformers.

        Raises AudioProjectionError as `from_pretrained` does.
        """
        if self._modules["encoder"] is None:
            self._modules["encoder"] = self._new_encoder()
        return self._modules["encoder"]  # type: ignore[return-value]

    def _new_encoder(self) -> CodecEncoder:
        from audio_projection.tts.codec.encoder import CodecEncoder

        config = self.config
        with torch.inference_mode(False):
            if self._folder is None:
                with torch.device(self.device):
                    return CodecEncoder(config.encoder, config.encoder_valid_num_quantizers)
            try:  # not on the meta device: Mimi's layers have buffers that are not in the checkpoint
                encoder = CodecEncoder(config.encoder, config.encoder_valid_num_quantizers)
            except AudioProjectionError as error:
                raise AudioProjectionError(f"{self._folder / 'config.json'}: {error}") from None
            _load(encoder, "encoder.", self._folder, others="decoder.")
            return encoder.to(self.device).eval().requires_grad_(False)

    @property
    def sample_rate(self) -> int:
        """Sample rate of decoded speech, Hz."""
        return self.config.output_sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Decoded samples of one frame."""
        return self.config.samples_per_frame

    @property
    def code_groups(self) -> int:
        return self.config.decoder.num_quantizers

    @property
    def device(self) -> torch.device:
        return self.decoder.pre_conv.conv.weight.device

    @torch.no_grad()
    def encode(self, samples: np.ndarray | Tensor, rate: int) -> Tensor:
        """Mono samples (S,) at `rate` Hz, of any length -> codes (T, G) on the codec's device.

        T is the length in frames, rounded up. AudioProjectionError for empty, non-finite or not mono samples.
        """
        return self.encode_batch([samples], rate)[0]

    @torch.no_grad()
    def encode_batch(self, recordings: Sequence[np.ndarray | Tensor], rate: int) -> list[Tensor]:
        """As `encode` for a batch: recordings are padded with zeros, their codes cut to length.

        As in the official package, the last frame of a shorter recording may get other codes than alone.
        """
        waves = [prepare_waveform(samples, rate, self.config.input_sample_rate) for samples in recordings]
        batch = nn.utils.rnn.pad_sequence(waves, batch_first=True)
        codes = self.encoder(batch.to(self.device))
        step = self.config.encode_downsample_rate
        return [each[: -(-wave.numel() // step)].clone() for each, wave in zip(codes, waves, strict=True)]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (T, G) or (B, T, G) -> float32 samples (T * samples_per_frame,) or (B, T * samples_per_frame).

        Equals the chunks of `stream`, however they are cut, up to rounding.
        """
        stream = self.stream()
        blocks = [stream.decode(block) for block in self._batched(codes).split(BLOCK_FRAMES, 1)]
        return _like(codes, torch.cat(blocks, 1))

    @torch.no_grad()
    def chunked_decode(self, codes: Tensor, chunk_size: int = 300, left_context_size: int = 25) -> Tensor:
        """As `decode`, but stateless, as the official package decodes: for comparisons with it.

        Each chunk of `chunk_size` frames is decoded after `left_context_size` frames before it, whose samples are
        dropped. Beyond the first chunk the samples differ from `decode`, because the network sees further back.
        """
        batch, chunks = self._batched(codes), []
        for start in range(0, max(batch.shape[1], 1), chunk_size):
            context = left_context_size if start > left_context_size else start
            samples = self.decode(batch[:, start - context : start + chunk_size])
            chunks.append(samples[:, context * self.samples_per_frame :])
        return _like(codes, torch.cat(chunks, 1))

    def stream(self) -> CodecStream:
        """A stateful decoder for one utterance, or a batch of them, chunk by chunk."""
        return CodecStream(self)

    @torch.no_grad()
    def decode_together(self, streams: Sequence[CodecStream], codes: Tensor) -> Tensor:
        """The next chunk of each of B streams of one utterance, decoded as a batch: codes (B, T, G) -> float32 samples
        (B, T * samples_per_frame). The streams may have decoded any number of frames before."""
        if len(streams) == 1:
            return streams[0].decode(codes)
        joined = self.decoder.join_states([stream.state for stream in streams])
        samples = self._decode_chunk(codes, joined)
        for stream in streams:
            stream.frames += codes.shape[1]
        states = self.decoder.split_state(joined, [stream.frames for stream in streams])
        for stream, state in zip(streams, states, strict=True):
            stream.state = state
        return samples

    def _decode_chunk(self, codes: Tensor, state: State) -> Tensor:
        if not codes.shape[1]:
            return torch.zeros(codes.shape[0], 0, device=self.device)
        highest = self.decoder.config.codebook_size - 1
        if codes.is_floating_point() or codes.min() < 0 or codes.max() > highest:
            raise AudioProjectionError(f"codes must be whole numbers from 0 to {highest}")
        return self.decoder(codes.to(self.device), state)

    def _batched(self, codes: Tensor) -> Tensor:
        if codes.ndim not in (2, 3) or codes.shape[-1] != self.code_groups:
            raise AudioProjectionError(
                f"codes of shape (T, {self.code_groups}) or (B, T, {self.code_groups}) expected, "
                f"not {tuple(codes.shape)}"
            )
        return codes if codes.ndim == 3 else codes[None]


def _with_encoder(codec: Codec, prefix: str, keep_vars: bool) -> None:
    """Loads the encoder before `state_dict()` lists the weights."""
    _ = codec.encoder


def _load(module: nn.Module, prefix: str, folder: Path, others: str) -> None:
    """Loads the tensors of `folder` whose names begin with `prefix`; only those of `others` may be there besides."""
    files = TensorFolder(folder)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_tensors({f"{prefix}{name}": shape for name, shape in shapes.items()}, files, others)
    module.load_state_dict({name: files.tensor(f"{prefix}{name}").float() for name in shapes}, assign=True)


def _with_extractor_rate(config: CodecConfig, path: Path) -> CodecConfig:
    """Takes the encoder's sample rate from preprocessor_config.json, if it exists, as the official package does."""
    if not path.is_file():
        return config
    reader = ConfigReader(read_json_object(path, "a speech_tokenizer folder"), str(path))
    return replace(config, input_sample_rate=reader.size("sampling_rate", config.input_sample_rate))


def _like(codes: Tensor, samples: Tensor) -> Tensor:
    """Samples (B, S) for codes of a batch, (S,) for codes of one utterance."""
    return samples if codes.ndim == 3 else samples[0]


class CodecStream:
    """Streaming decoder: each chunk of codes continues the chunks of the same utterances before it."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.state: State = {}
        self.frames = 0

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, T, G) -> float32 samples (B, T * samples_per_frame); B stays the same, T may be 0.

        AudioProjectionError for codes outside the codebooks.
        """
        samples = self._codec._decode_chunk(codes, self.state)
        self.frames += codes.shape[1]
        return samples
