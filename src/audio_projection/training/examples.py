"""Training examples: pairs with the LLM states of their texts and the prompt prefix, on the device of the TTS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates, align_states, chunks, token_states
from audio_projection.data import cached_states
from audio_projection.data.pairs import Pair
from audio_projection.models import Models
from audio_projection.text.input_text import Reading
from audio_projection.training.teacher_forcing import Utterance

if TYPE_CHECKING:
    from audio_projection.config import TrainConfig, TTSConfig


class StateSource:
    """LLM states of the examples' texts, aligned to TTS tokens: cached on disk, kept in memory, or computed per batch.

    They are kept in memory when they are smaller than `train.states_memory`. Each way the numbers depend on nothing
    but the batch that an example is in, and a resumed run has the same batches.
    """

    def __init__(self, models: Models, pairs: Sequence[Pair], settings: TrainConfig, reading: Reading | str) -> None:
        """Raises AudioProjectionError when the cached states are not those that `models.llm` would give."""
        self._models, self._pairs = models, pairs
        self._in_memory: list[TokenStates] | None = None
        self.tokens = [len(models.tts.tokenize(pair.text)[0]) for pair in pairs]
        self._cached = [pair.states for pair in pairs if pair.states is not None]
        if self._cached and len(self._cached) == len(pairs):
            cached_states.check(self._cached, models.llm, reading)
            return
        self._cached = []
        gigabytes, batch, info = settings.states_memory, settings.batch, models.projector.info
        if 4 * sum(self.tokens) * (len(info.layers) * info.llm_size + info.tts_size) <= gigabytes * 1e9:
            groups = chunks(range(len(pairs)), batch)
            self._in_memory = [features for group in groups for features in self._compute(group)]

    @property
    def needs_llm(self) -> bool:
        """Whether batches are computed by the LLM; its tokenizer is needed in any case."""
        return not self._cached and self._in_memory is None

    def at(self, indices: Sequence[int]) -> list[TokenStates]:
        """The token states of these examples, as one batch."""
        if self._cached:
            return [self._restore(index) for index in indices]
        if self._in_memory is None:
            return self._compute(indices)
        return [self._in_memory[index] for index in indices]

    def _restore(self, index: int) -> TokenStates:
        text = self._pairs[index].text
        encoded = cached_states.restore(self._models.llm, text, self._cached[index])
        with torch.autocast(self._models.tts.device.type, enabled=False):
            return align_states(self._models.tts, text, encoded)

    def _compute(self, indices: Sequence[int]) -> list[TokenStates]:
        with torch.autocast(self._models.tts.device.type, enabled=False):  # the LLM keeps its own precision
            return token_states(self._models.llm, self._models.tts, [self._pairs[index].text for index in indices])


class Examples:
    """Training or validation pairs as utterances: codes, token states and prompt prefix on the TTS's device."""

    def __init__(self, models: Models, pairs: Sequence[Pair], settings: TrainConfig, tts_settings: TTSConfig) -> None:
        """Raises AudioProjectionError as `StateSource` does."""
        self._tts, self._language, self.pairs = models.tts, tts_settings.language, pairs
        self._states = StateSource(models, pairs, settings, Reading.of(tts_settings, models.tts.characters))
        self._prefixes: dict[str | None, Tensor] = {}
        self.frames = [len(pair.codes) for pair in pairs]

    @property
    def needs_llm(self) -> bool:
        """Whether the LLM computes states for every batch."""
        return self._states.needs_llm

    @property
    def tokens(self) -> list[int]:
        """Number of text tokens of each example."""
        return self._states.tokens

    def at(self, indices: Sequence[int]) -> list[Utterance]:
        """The examples of one micro-batch."""
        pairs = [self.pairs[index] for index in indices]
        return [
            Utterance(features, pair.codes.to(self._tts.device, torch.long), self._prefix(pair))
            for pair, features in zip(pairs, self._states.at(indices), strict=True)
        ]

    @torch.no_grad()
    def _prefix(self, pair: Pair) -> Tensor:
        if isinstance(pair.voice, Tensor):
            return self._tts.prefix(pair.voice, self._language)
        if pair.voice not in self._prefixes:
            self._prefixes[pair.voice] = self._tts.prefix(pair.voice, self._language)
        return self._prefixes[pair.voice]
