"""Frozen LLM run by llama.cpp from a GGUF file, with the same interface as `llm.LanguageModel`.

Hidden states of any layer come from one complete file: a callback on llama.cpp's compute graph copies the layer's
output. A text that is only read (no answer is generated) is computed no further than the highest layer wanted, and
with mmap the weights above it are never read from the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError
from audio_projection.files.fingerprint import file_fingerprint
from audio_projection.gguf.llama_cpp_runtime import MEMORY_MODES, GraphTap, LlamaContext, LlamaWeights
from audio_projection.gguf.llm_file import check_llm, end_ids_of, sampling_of
from audio_projection.gguf.tokenizer import NORMAL, read_tokenizer
from audio_projection.llm.hidden_states import Layers, resolve_layers
from audio_projection.llm.language_model import LanguageModel
from audio_projection.sampling import Choice


@dataclass(frozen=True)
class RunSettings:
    """How llama.cpp runs a file: the settings `gguf.*` and `threads` of the configuration."""

    threads: int = 1
    context: int = 4096  # context length in tokens; the model's own limits it too
    memory: str = "mmap"  # one of MEMORY_MODES

    def __post_init__(self) -> None:
        if self.memory not in MEMORY_MODES:
            raise AudioProjectionError(f"unknown gguf.memory {self.memory!r}; choose one of {', '.join(MEMORY_MODES)}")


class GGUFLanguageModel(LanguageModel):
    """A causal LM in a GGUF file, run by llama.cpp on the CPU; gives the same states and answers as `LanguageModel`."""

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        layers: Layers = "last",
        context: str = "raw",
        prompt: str = "Read this aloud.",
        settings: RunSettings | None = None,
    ) -> None:
        """``name`` is stored in projectors that are fitted with the model; default: the file's `general.name`.

        Raises AudioProjectionError for a damaged file, an unknown architecture or tokenizer, and where llama.cpp is
        not installed."""
        file = check_llm(path)
        self._prepare(read_tokenizer(file), name or file.metadata.get("general.name") or str(path), context, prompt)
        self.file, self.settings = file, settings or RunSettings()
        self.weights = LlamaWeights(file, self.settings.memory)
        self.hidden_size = file.whole(f"{file.architecture}.embedding_length")
        self.num_layers = file.whole(f"{file.architecture}.block_count")
        self._epsilon = file.number(f"{file.architecture}.attention.layer_norm_rms_epsilon")
        self._reading: LlamaContext | None = None
        self._reading_lock = threading.Lock()  # one context reads for all threads
        self._set_layers(layers)
        self._context_prefix = self._context_ids()

    _add_template = (
        ", write its template into the file (tokenizer.chat_template: `gguf-new-metadata --chat-template TEXT IN OUT`),"
    )

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def fingerprint(self) -> str:
        return file_fingerprint(self.file.path)

    def keep_reading_only(self) -> LanguageModel:
        """Frees nothing: the file is mapped, and the pages of weights that are not used take no memory."""
        return self

    def release(self) -> None:
        """Frees the weights; the tokenizer stays."""
        self._reading = None
        del self.weights

    def to(self, device: str | torch.device) -> LanguageModel:
        """llama.cpp computes on the CPU wherever the other models are."""
        return self

    def read(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Hidden states (S, L, D), float32, of sequences of token ids; no context or special token is added."""
        if not sequences:
            return []
        longest = max(map(len, sequences))
        self._check_length(longest)
        with self._reading_lock:
            if self._reading is None or self._reading.capacity < longest:
                self._reading = LlamaContext(self.weights, longest, self.settings.threads, tap=GraphTap())
            return [self._read_one(self._reading, ids) for ids in sequences]

    def continuations(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Choice, seed: int = 0
    ) -> list[list[int]]:
        """As in `LanguageModel`, one prompt after another."""
        generator, ends = torch.Generator().manual_seed(seed), self._end_ids() | self._control_ids()
        rows = (self._generated([*ids], max_new_tokens, sampling, generator, ends) for ids in prompts)
        return [[token.id for token in row] for row in rows]

    @property
    def sampling(self) -> Choice:
        """Default sampling of answers: the file's `general.sampling.*` keys; greedy where it has none."""
        return sampling_of(self.file)

    def _set_layers(self, layers: Layers) -> None:
        self.layers = resolve_layers(layers, self.num_layers)

    def _step(self, cache: LlamaContext | None, ids: list[int]) -> tuple[LlamaContext, Tensor, Tensor]:
        """As in `LanguageModel`; the key-value cache is a context of llama.cpp."""
        context = cache or LlamaContext(self.weights, len(ids) + 1, self.settings.threads, tap=GraphTap())
        context.reserve(context.length + len(ids))
        tap = _tap(context)
        tap.capture(self._tensor_names(self.layers), stop=False)
        context.decode_ids(ids)
        return context, self._finite(context.logits())[None], self._stacked(tap, 1)[0]

    def _cropped(self, values: LlamaContext, length: int) -> LlamaContext | None:
        """As in `LanguageModel`."""
        return values if values.crop(length) else None

    def _read_one(self, context: LlamaContext, ids: Sequence[int]) -> Tensor:
        if not ids:
            return torch.zeros(0, len(self.layers), self.hidden_size)
        tap = _tap(context)
        context.clear()
        tap.capture(self._tensor_names(self.layers), stop=True)
        context.decode_ids(ids, every_output=self.num_layers in self.layers)
        return self._stacked(tap, len(ids))

    def _stacked(self, tap: GraphTap, count: int) -> Tensor:
        """Captured states of the last `count` tokens: (count, L, D)."""
        return self._finite(torch.stack([self._state(tap, layer)[-count:] for layer in self.layers], dim=1))

    def _finite(self, values: Tensor) -> Tensor:
        if not values.isfinite().all():
            raise AudioProjectionError(f"{self.file.path} is damaged: it computes no finite numbers; make it again")
        return values

    def _state(self, tap: GraphTap, layer: int) -> Tensor:
        (name,) = self._tensor_names([layer])
        x = torch.from_numpy(tap.states(name, self.hidden_size))
        if layer == self.num_layers:
            return x
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._epsilon)

    def _tensor_names(self, layers: Iterable[int]) -> list[str]:
        """Names of the layers' outputs in llama.cpp's compute graph, in the order of computation."""
        special = {0: "embd", self.num_layers: "result_norm"}
        return [special.get(layer, f"l_out-{layer - 1}") for layer in sorted({*layers})]

    def _end_ids(self) -> set[int]:
        kinds = self.file.metadata.get("tokenizer.ggml.token_type", [])
        special = (number for number, kind in enumerate(kinds) if kind != NORMAL)
        return end_ids_of(self.file) | {*filter(self.weights.ends_answer, special)}

    @property
    def _context_length(self) -> int:
        return min(self.settings.context, self.file.whole(f"{self.file.architecture}.context_length"))

    def _check_length(self, length: int) -> None:
        if self._context_length == self.settings.context < length:
            raise AudioProjectionError(
                f"{length} tokens with what stands before the text, gguf.context allows {self.settings.context}; "
                "raise it or give a shorter text"
            )
        super()._check_length(length)


def _tap(context: LlamaContext) -> GraphTap:
    assert context.tap is not None, "a language model opens its contexts with a tap"
    return context.tap
