"""Talker and code predictor layers run by llama.cpp in place of the torch `Transformer`, for the same decoding loop.

Only the transformer layers are llama.cpp's. Embeddings, heads, sampling rules and codec stay in torch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.llama_cpp_runtime import MAX_BATCH, LlamaContext, LlamaWeights
from audio_projection.gguf.talker_file import PREDICTOR, TALKER, check_stack_file
from audio_projection.tts.config import Qwen3TTSConfig, TransformerConfig
from audio_projection.tts.model import Qwen3TTS


class LlamaStack(nn.Module):
    """Decoder-only transformer of the talker or the code predictor, with its weights in a GGUF file.

    It has no torch parameters, so a checkpoint folder without those tensors still loads strictly.
    """

    def __init__(self, config: TransformerConfig, weights: LlamaWeights, threads: int) -> None:
        super().__init__()
        self.config, self.weights, self.threads = config, weights, threads

    def begin(self, batch: int, capacity: int, like: Tensor) -> LlamaStepper:
        """An empty key-value cache for `batch` utterances of `capacity` positions; see `IncrementalDecoder`."""
        return LlamaStepper(LlamaContext(self.weights, capacity, self.threads, batch), like.dtype)

    def forward(self, embeds: Tensor, lengths: Tensor | None = None) -> NoReturn:
        raise AudioProjectionError("a TTS that llama.cpp runs cannot be trained through; use tts.backend=torch")


class LlamaStepper:
    """Decoding steps of a batch of utterances in llama.cpp; implements `IncrementalDecoder`.

    Each utterance is a sequence of its own in the key-value cache with its own positions, so nothing is padded.
    """

    def __init__(self, context: LlamaContext, dtype: torch.dtype) -> None:
        self._context, self._dtype = context, dtype
        self._next = context.inputs(context.sequences)
        self._next.sequences[:] = np.arange(context.sequences)
        self._longest = 0

    def prefill(self, embeds: Tensor, starts: Tensor | None) -> None:
        """Prefill with embeds (B, S, hidden), padded on the left: utterance b begins at `starts[b]`."""
        first = [0] * len(embeds) if starts is None else starts.tolist()
        self._context.reserve(embeds.shape[1] + 1)
        for sequence, (embeddings, start) in enumerate(zip(embeds, first, strict=True)):
            for part in embeddings[start:].split(MAX_BATCH):
                inputs, position = self._context.inputs(len(part)), self._next.positions[0, sequence]
                inputs.embeddings.copy_(part)
                inputs.positions[:], inputs.sequences[:] = position + np.arange(len(part)), sequence
                self._context.decode(inputs)
                self._next.positions[:, sequence] += len(part)
        self._longest = int(self._next.positions.max())

    def step(self, x: Tensor) -> Tensor:
        """x (B, hidden) at each utterance's next position to hidden states (B, hidden) after the final norm.

        Raises AudioProjectionError where the file's weights give no finite numbers.
        """
        self._longest += 1
        self._context.reserve(self._longest)
        self._next.embeddings.copy_(x)
        self._context.decode(self._next)
        self._next.positions += 1
        states = self._context.states(len(x)).to(self._dtype, copy=True)
        if not math.isfinite(states.sum()):
            raise AudioProjectionError(f"{self._context.weights.file.path} is damaged: it computes no finite numbers")
        return states

    def restart(self) -> None:
        """Empties the key-value cache."""
        self._context.clear()
        self._next.positions[:] = 0
        self._longest = 0


def load_gguf_tts(
    folder: str | Path,
    talker: str | Path,
    predictor: str | Path,
    threads: int = 1,
    memory: str = "mmap",
    dtype: torch.dtype = torch.float32,
) -> Qwen3TTS:
    """Loads a Qwen3-TTS whose talker and code predictor layers are GGUF files run by llama.cpp.

    `folder` has the official layout; it needs none of the tensors that the GGUF files hold.
    Raises AudioProjectionError for a damaged file or one of another TTS.
    """
    config = Qwen3TTSConfig.from_folder(folder)
    stacks = [
        (talker, config.talker.transformer, TALKER),
        (predictor, config.predictor.transformer, PREDICTOR),
    ]
    checked = [(stack, check_stack_file(path, stack, architecture)) for path, stack, architecture in stacks]
    first, second = (LlamaStack(stack, LlamaWeights(file, memory), threads) for stack, file in checked)
    return Qwen3TTS.from_pretrained(folder, dtype, stacks=(first, second))
