"""The 12 Hz codec of Qwen3-TTS: waveform to code frames and back, in the official `speech_tokenizer` folder layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError
from audio_projection.files.atomic import write_json
from audio_projection.files.json_reader import read_json_object
from audio_projection.files.tensor_folder import TensorFolder, check_tensors
from audio_projection.files.tensors import write_tensors
from audio_projection.tts.codec.config import CodecConfig
from audio_projection.tts.codec.decoder import CodecDecoder, State
from audio_projection.tts.codec.waveform import prepare
from audio_projection.tts.config import Reader

if TYPE_CHECKING:
    from audio_projection.tts.codec.encoder import CodecEncoder

BLOCK = 32
"""Frames decoded at once: bounds the memory, and on a CPU the activations stay in its caches."""


class Codec(nn.Module):
    """Encoder and decoder; `state_dict()` has the names and shapes of the official model.safetensors.

    T is frames, G code groups, S samples; codes are int64 below `config.decoder.codebook_size`.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self._modules["encoder"] = None  # see `encoder`; its weights come first, and fingerprints count on the order
        self.decoder = CodecDecoder(config.decoder)
        self._folder: Path | None = None
        self.register_state_dict_pre_hook(_with_encoder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> Codec:
        """Load an official `speech_tokenizer` folder in float32, frozen and in eval mode; the encoder when it is used.

        AudioProjectionError names the file or tensor that is missing, truncated, misshapen or foreign.
        """
        folder = Path(folder)
        config = _with_extractor_rate(CodecConfig.from_folder(folder), folder / "preprocessor_config.json")
        with torch.device("meta"):
            codec = cls(config)
        codec._folder = folder
        _load(codec.decoder, "decoder.", folder, others="encoder.")
        codec.to(device).eval().requires_grad_(False)
        if torch.device(device).type != "mps":  # which has no float64
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
        """Built and loaded when it is first asked for: speaking needs neither it nor the library that it comes from.

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
            try:  # not on the meta device: Mimi's layers have buffers that no checkpoint holds
                encoder = CodecEncoder(config.encoder, config.encoder_valid_num_quantizers)
            except AudioProjectionError as error:
                raise AudioProjectionError(f"{self._folder / 'config.json'}: {error}") from None
            _load(encoder, "encoder.", self._folder, others="decoder.")
            return encoder.to(self.device).eval().requires_grad_(False)

    @property
    def sample_rate(self) -> int:
        """Samples a second of decoded speech."""
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

        T is the length in frames, rounded up. AudioProjectionError for samples that are no recording.
        """
        return self.encode_batch([samples], rate)[0]

    @torch.no_grad()
    def encode_batch(self, recordings: Sequence[np.ndarray | Tensor], rate: int) -> list[Tensor]:
        """As `encode`, several at once: zeros fill up the shorter ones, then their codes are cut to length.

        So does the official package; the last frame of a shorter recording may get other codes than alone.
        """
        waves = [prepare(samples, rate, self.config.input_sample_rate) for samples in recordings]
        batch = nn.utils.rnn.pad_sequence(waves, batch_first=True)
        codes = self.encoder(batch.to(self.device))
        step = self.config.encode_downsample_rate
        return [row[: -(-wave.numel() // step)].clone() for row, wave in zip(codes, waves, strict=True)]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (T, G) or (B, T, G) -> float32 samples (T * samples_per_frame,) or (B, T * samples_per_frame).

        The same numbers as `stream` gives for any chunks, up to rounding.
        """
        stream = self.stream()
        blocks = [stream.decode(block) for block in self._batched(codes).split(BLOCK, 1)]
        return _like(codes, torch.cat(blocks, 1))

    @torch.no_grad()
    def decode_anew(self, codes: Tensor, block: int = 300, context: int = 25) -> Tensor:
        """As `decode`, but each block of frames is decoded anew after `context` frames that are thrown away.

        This is how the official package decodes; beyond `block` frames its samples differ from `decode` wherever the
        network sees further back than `context` frames. For comparisons with it.
        """
        batch, blocks = self._batched(codes), []
        for start in range(0, max(batch.shape[1], 1), block):
            skipped = context if start > context else start
            samples = self.decode(batch[:, start - skipped : start + block])
            blocks.append(samples[:, skipped * self.samples_per_frame :])
        return _like(codes, torch.cat(blocks, 1))

    def stream(self) -> CodecStream:
        """A decoder that takes an utterance, or a batch of them, chunk by chunk."""
        return CodecStream(self)

    def decode_stream(
        self, frames: Iterable[Tensor], sizes: Sequence[int] = (4,), before: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Frames (G,), one after another -> float32 samples, chunk by chunk.

        `sizes` of the chunks in frames, the last one for all that follow; what is left at the end is a chunk too.
        Concatenated they are what `decode` gives. Nothing is taken from `frames` before it is needed. `before`: codes
        (T, G) that the frames continue, decoded first and not given out.
        """
        if not sizes or min(sizes) < 1:
            raise AudioProjectionError(f"chunks must have at least 1 frame, not {list(sizes)}")
        stream, source = self.stream(), iter(frames)
        for block in () if before is None else self._batched(before).split(BLOCK, 1):
            stream.decode(block)
        for size in chain(sizes, repeat(sizes[-1])):
            taken = list(islice(source, size))
            if not taken:
                return
            yield stream.decode(torch.stack(taken)[None])[0]

    def _batched(self, codes: Tensor) -> Tensor:
        if codes.ndim not in (2, 3) or codes.shape[-1] != self.code_groups:
            raise AudioProjectionError(
                f"codes of shape (T, {self.code_groups}) or (B, T, {self.code_groups}) expected, "
                f"not {tuple(codes.shape)}"
            )
        return codes if codes.ndim == 3 else codes[None]


def _with_encoder(codec: Codec, prefix: str, keep_vars: bool) -> None:
    """Before the weights are listed: all of them are there."""
    _ = codec.encoder


def _load(module: nn.Module, prefix: str, folder: Path, others: str) -> None:
    """Give `module` the tensors of `folder` that begin with `prefix`; there may be others, by that name, besides."""
    files = TensorFolder(folder)
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_tensors({f"{prefix}{name}": shape for name, shape in shapes.items()}, files, others)
    module.load_state_dict({name: files.tensor(f"{prefix}{name}").float() for name in shapes}, assign=True)


def _with_extractor_rate(config: CodecConfig, path: Path) -> CodecConfig:
    """The official package encodes at the rate that preprocessor_config.json names, where there is one."""
    if not path.is_file():
        return config
    reader = Reader(read_json_object(path, "a speech_tokenizer folder"), str(path))
    return replace(config, input_sample_rate=reader.size("sampling_rate", config.input_sample_rate))


def _like(codes: Tensor, samples: Tensor) -> Tensor:
    """Samples (B, S) as they are for a batch of codes, (S,) for those of one utterance."""
    return samples if codes.ndim == 3 else samples[0]


class CodecStream:
    """Decodes successive chunks of the same utterances; each continues the ones before."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._state: State = {}

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, T, G) -> float32 samples (B, T * samples_per_frame); B stays the same, T may be 0.

        AudioProjectionError for codes that no codebook has.
        """
        decoder = self._codec.decoder
        if not codes.shape[1]:
            return torch.zeros(codes.shape[0], 0, device=self._codec.device)
        highest = decoder.config.codebook_size - 1
        if codes.is_floating_point() or codes.min() < 0 or codes.max() > highest:
            raise AudioProjectionError(f"codes must be whole numbers from 0 to {highest}")
        return decoder(codes.to(self._codec.device), self._state)
