"""Talker and code predictor layers run by llama.cpp in place of the torch `Transformer`, for the same decoding loop.

Only the transformer layers are llama.cpp's. Embeddings, heads, sampling rules and codec stay in torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from audio_projection.errors import AudioProjectionError
from audio_projection.gguf.llama_cpp_runtime import MAX_BATCH, Inputs, LlamaContext, LlamaWeights
from audio_projection.gguf.talker_file import FINETUNED, PREDICTOR, TALKER, check_stack_file
from audio_projection.tts.config import Qwen3TTSConfig, TransformerConfig
from audio_projection.tts.model import Qwen3TTS

_KEPT_INPUTS = 64
"""Input batches of at most so many sizes are kept."""


class LlamaStack(nn.Module):
    """Decoder-only transformer of the talker or the code predictor, with its weights in a GGUF file.

    It has no torch parameters, so a checkpoint folder without those tensors still loads strictly.
    """

    slots_grow = False
    """llama.cpp cannot give a key-value cache in use more sequences."""

    def __init__(self, config: TransformerConfig, weights: LlamaWeights, threads: int) -> None:
        super().__init__()
        self.config, self.weights, self.threads = config, weights, threads

    def begin(self, slots: int, capacity: int, like: Tensor, static: bool = False) -> LlamaSlots:
        """Incremental decoding of sequences in slots, `capacity` positions each at first; see `SlotDecoder`."""
        return LlamaSlots(LlamaContext(self.weights, capacity, self.threads, slots), like.dtype)

    def begin_frames(self, slots: int, length: int, like: Tensor) -> LlamaFrames:
        """Incremental decoding of sequences that begin together; see `FrameDecoder`."""
        return LlamaFrames(LlamaContext(self.weights, length, self.threads, slots), like.dtype)

    def forward(self, embeds: Tensor, lengths: Tensor | None = None) -> NoReturn:
        raise AudioProjectionError("a TTS that llama.cpp runs cannot be trained through; use tts.backend=torch")


class LlamaSlots:
    """Decoding of utterances in slots by llama.cpp; implements `SlotDecoder`.

    Each slot's utterance is a sequence of llama.cpp's key-value cache with positions of its own; slots exchange their
    sequences' numbers, and no memory moves. A step is one batch of all utterances: llama.cpp reads the weights once.
    """

    def __init__(self, context: LlamaContext, dtype: torch.dtype) -> None:
        self._steps = _Steps(context, dtype)
        self._sequences = list(range(context.sequences))
        self._lengths = [0] * context.sequences

    def prefill(self, slot: int, embeds: Sequence[Tensor]) -> None:
        """Reads embeds[b] (S, hidden) after the sequence of slot + b."""
        self._reserve(slot + len(embeds), 1)
        for number, each in enumerate(embeds, slot):
            self._reserve(number + 1, self._lengths[number] + len(each) + 1)
            for part in each.split(MAX_BATCH):
                count = len(part)
                places = np.arange(self._lengths[number], self._lengths[number] + count)
                self._steps.decode(part, places, np.full(count, self._sequences[number]))
                self._lengths[number] += count

    def prepare(self, count: int) -> int:
        self._reserve(count, max(self._lengths[:count], default=0) + 1)
        return count

    def step(self, x: Tensor) -> Tensor:
        """x (B, hidden) at the next positions of the first B slots to hidden states (B, hidden) after the final norm.

        Raises AudioProjectionError where the file's weights give no finite numbers.
        """
        count = len(x)
        return self._steps.states(x, np.asarray(self._lengths[:count]), np.asarray(self._sequences[:count]))

    def advance(self, count: int) -> None:
        for slot in range(count):
            self._lengths[slot] += 1

    def swap(self, first: int, second: int) -> None:
        for values in (self._sequences, self._lengths):
            values[first], values[second] = values[second], values[first]

    def clear(self, slot: int) -> None:
        self._reserve(slot + 1, 1)
        if self._lengths[slot]:
            self._steps.context.forget(self._sequences[slot])
            self._lengths[slot] = 0

    def _reserve(self, slots: int, length: int) -> None:
        self._steps.reserve(slots, length)
        known = len(self._lengths)
        self._sequences += range(known, self._steps.context.sequences)
        self._lengths += [0] * (self._steps.context.sequences - known)


class LlamaFrames:
    """Decoding of short sequences that are all at the same position by llama.cpp; implements `FrameDecoder`."""

    def __init__(self, context: LlamaContext, dtype: torch.dtype) -> None:
        self._steps = _Steps(context, dtype)
        self._length = 0

    def begin(self, first: Tensor, second: Tensor) -> Tensor:
        """See `FrameDecoder`."""
        self._steps.context.clear()
        self._length = 0
        self.step(first)
        return self.step(second)

    def step(self, x: Tensor) -> Tensor:
        """As `LlamaSlots.step`."""
        self._length += 1
        self._steps.reserve(len(x), self._length)
        return self._steps.states(x, np.full(len(x), self._length - 1), np.arange(len(x)))


class _Steps:
    """Batches of embeddings through a llama.cpp context; input batches are kept for each size."""

    def __init__(self, context: LlamaContext, dtype: torch.dtype) -> None:
        self.context, self._dtype = context, dtype
        self._inputs: dict[int, Inputs] = {}

    def reserve(self, slots: int, length: int) -> None:
        self.context.reserve(length, slots)

    def decode(self, embeds: Tensor, positions: np.ndarray, sequences: np.ndarray) -> None:
        count = len(embeds)
        if count not in self._inputs:
            if len(self._inputs) > _KEPT_INPUTS:
                self._inputs.clear()
            self._inputs[count] = self.context.inputs(count)
        inputs = self._inputs[count]
        inputs.embeddings.copy_(embeds)
        inputs.positions[:], inputs.sequences[:] = positions, sequences
        self.context.decode(inputs)

    def states(self, x: Tensor, positions: np.ndarray, sequences: np.ndarray) -> Tensor:
        self.decode(x, positions, sequences)
        states = self.context.states(len(x)).to(self._dtype, copy=True)
        if not math.isfinite(states.sum()):
            raise AudioProjectionError(f"{self.context.weights.file.path} is damaged: it computes no finite numbers")
        return states


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
    tts = Qwen3TTS.from_pretrained(folder, dtype, stacks=(first, second))
    tts.finetuned = str(checked[0][1].metadata.get(FINETUNED, ""))
    return tts
