"""Pairs of text and codes made ready for the models: with the states of their texts, on the device of the TTS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audio_projection.alignment.token_states import TokenStates, align_states, chunks, token_states
from audio_projection.data import cached_states
from audio_projection.data.pairs import Pair
from audio_projection.models import Models
from audio_projection.training.teacher_forcing import Utterance

if TYPE_CHECKING:
    from audio_projection.config import Config


class StateSource:
    """Text features of the examples: from cached LLM states; or held in memory when small; or computed for every batch.

    Each way the numbers of an example depend on nothing but the batch it is in, which a resumed run meets again.
    """

    def __init__(self, config: Config, parts: Models, pairs: Sequence[Pair]) -> None:
        """Raises AudioProjectionError when the cached states are not those that `parts.llm` would give."""
        self._parts, self._pairs = parts, pairs
        self._held: list[TokenStates] | None = None
        self.tokens = [len(parts.tts.tokenize(pair.text)[0]) for pair in pairs]
        self._cached = [pair.states for pair in pairs if pair.states is not None]
        if self._cached and len(self._cached) == len(pairs):
            cached_states.check(self._cached, parts.llm, config.tts.normalise)
            return
        self._cached = []
        gigabytes, batch, info = config.train.states_memory, config.train.batch, parts.projector.info
        if 4 * sum(self.tokens) * (len(info.layers) * info.llm_size + info.tts_size) <= gigabytes * 1e9:
            groups = chunks(range(len(pairs)), batch)
            self._held = [features for group in groups for features in self._compute(group)]

    def at(self, indices: Sequence[int]) -> list[TokenStates]:
        if self._cached:
            return [self._restore(index) for index in indices]
        return self._compute(indices) if self._held is None else [self._held[index] for index in indices]

    def _restore(self, index: int) -> TokenStates:
        text = self._pairs[index].text
        encoded = cached_states.restore(self._parts.llm, text, self._cached[index])
        with torch.autocast(self._parts.tts.device.type, enabled=False):
            return align_states(self._parts.tts, text, encoded)

    def _compute(self, indices: Sequence[int]) -> list[TokenStates]:
        with torch.autocast(self._parts.tts.device.type, enabled=False):  # the LLM keeps its own precision
            return token_states(self._parts.llm, self._parts.tts, [self._pairs[index].text for index in indices])


class Examples:
    """Pairs as utterances for the models."""

    def __init__(self, config: Config, parts: Models, pairs: Sequence[Pair]) -> None:
        self._tts, self._language, self.pairs = parts.tts, config.tts.language, pairs
        self._states = StateSource(config, parts, pairs)
        self._prefixes: dict[str | None, Tensor] = {}
        self.frames = [len(pair.codes) for pair in pairs]

    @property
    def tokens(self) -> list[int]:
        """How many text tokens each example has."""
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
