"""A decoder stack that llama.cpp runs in the place of a torch `Transformer`: the decoding loop sees no difference.

Only the stack is llama.cpp's. Embeddings, heads, sampling rules and codec stay what and where they are.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.llama_cpp_runtime import LlamaContext, LlamaWeights
from audio_projection.gguf.talker_file import PREDICTOR, TALKER, check_stack_file
from audio_projection.tts.config import Qwen3TTSConfig, TransformerConfig
from audio_projection.tts.model import Qwen3TTS

_MOST = 512  # rows that llama.cpp takes at once


class LlamaStack(nn.Module):
    """Weights of one stack; has no parameters, so that a folder without them loads strictly."""

    def __init__(self, config: TransformerConfig, weights: LlamaWeights, threads: int) -> None:
        super().__init__()
        self.config, self.weights, self.threads = config, weights, threads

    def begin(self, batch: int, capacity: int, like: Tensor) -> LlamaStepper:
        """A stepper for `batch` utterances with room for `capacity` positions; see `decode_step.IncrementalDecoder`."""
        return LlamaStepper(LlamaContext(self.weights, capacity, self.threads, batch), like.dtype)

    def forward(self, embeds: Tensor, lengths: Tensor | None = None) -> NoReturn:
        raise AudioProjectionError("a TTS that llama.cpp runs cannot be trained through; use tts.backend=torch")


class LlamaStepper:
    """One utterance a sequence of llama.cpp's; each counts its own positions, so nothing is padded."""

    def __init__(self, context: LlamaContext, dtype: torch.dtype) -> None:
        self._context, self._dtype = context, dtype
        self._next = context.inputs(context.sequences)
        self._next.sequences[:] = np.arange(context.sequences)
        self._longest = 0

    def prefill(self, embeds: Tensor, starts: Tensor | None) -> None:
        """Reads embeds (B, S, hidden); row b counts from `starts[b]` on, what is before it is padding."""
        first = [0] * len(embeds) if starts is None else starts.tolist()
        self._context.reserve(embeds.shape[1] + 1)
        for sequence, (rows, start) in enumerate(zip(embeds, first, strict=True)):
            for part in rows[start:].split(_MOST):
                inputs, place = self._context.inputs(len(part)), self._next.places[0, sequence]
                inputs.rows.copy_(part)
                inputs.places[:], inputs.sequences[:] = place + np.arange(len(part)), sequence
                self._context.decode(inputs)
                self._next.places[:, sequence] += len(part)
        self._longest = int(self._next.places.max())

    def step(self, x: Tensor) -> Tensor:
        """x (B, hidden) at the next position of each utterance, to its state (B, hidden) after the final norm."""
        self._longest += 1
        self._context.reserve(self._longest)
        self._next.rows.copy_(x)
        self._context.decode(self._next)
        self._next.places += 1
        states = self._context.states(len(x)).to(self._dtype, copy=True)
        if not math.isfinite(states.sum()):
            raise AudioProjectionError(f"{self._context.weights.file.path} is damaged: it computes no finite numbers")
        return states

    def restart(self) -> None:
        """Forgets everything read."""
        self._context.clear()
        self._next.places[:] = 0
        self._longest = 0


def load_gguf_tts(
    folder: str | Path,
    talker: str | Path,
    predictor: str | Path,
    threads: int = 1,
    memory: str = "mmap",
    dtype: torch.dtype = torch.float32,
) -> Qwen3TTS:
    """A Qwen3-TTS whose two decoder stacks are GGUF files; `folder` has the official layout without those tensors.

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
