"""Pairs of text and codes made into teacher-forced sequences of the TTS, and their losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audio_projection import cached_states
from audio_projection.features import TextFeatures, align_features, chunks, text_features
from audio_projection.losses import LossSums, sequence_losses
from audio_projection.pairs import Pair
from audio_projection.parts import Parts
from audio_projection.tts.prompt import training_sequence

if TYPE_CHECKING:
    from audio_projection.config import Config

RowsOf = Callable[[TextFeatures], Tensor]


class StateSource:
    """Text features of the examples: from cached LLM states; or held in memory when small; or computed for every batch.

    Each way the numbers of an example depend on nothing but the batch it is in, which a resumed run meets again.
    """

    def __init__(self, config: Config, parts: Parts, pairs: Sequence[Pair]) -> None:
        """Raises AudioProjectionError when the cached states are not those that `parts.llm` would give."""
        self._parts, self._pairs = parts, pairs
        self._held: list[TextFeatures] | None = None
        self._cached = [pair.states for pair in pairs if pair.states is not None]
        if self._cached and len(self._cached) == len(pairs):
            cached_states.check(self._cached, parts.llm, config.tts.normalise)
            return
        self._cached = []
        gigabytes, batch = config.train.states_memory, config.train.batch
        info, tokens = parts.projector.info, sum(len(parts.tts.tokenize(pair.text)[0]) for pair in pairs)
        if 4 * tokens * (len(info.layers) * info.llm_size + info.tts_size) <= gigabytes * 1e9:
            groups = chunks(range(len(pairs)), batch)
            self._held = [features for group in groups for features in self._compute(group)]

    def at(self, indices: Sequence[int]) -> list[TextFeatures]:
        if self._cached:
            return [self._restore(index) for index in indices]
        return self._compute(indices) if self._held is None else [self._held[index] for index in indices]

    def _restore(self, index: int) -> TextFeatures:
        text = self._pairs[index].text
        encoded = cached_states.restore(self._parts.llm, text, self._cached[index])
        with torch.autocast(self._parts.tts.device.type, enabled=False):
            return align_features(self._parts.tts, text, encoded)

    def _compute(self, indices: Sequence[int]) -> list[TextFeatures]:
        return text_features(self._parts.llm, self._parts.tts, [self._pairs[index].text for index in indices])


class Examples:
    """Pairs made into teacher-forced sequences; `rows_of` says which feature rows the TTS is fed with."""

    def __init__(self, config: Config, parts: Parts, pairs: Sequence[Pair]) -> None:
        self._config, self._parts, self.pairs = config, parts, pairs
        self._states = StateSource(config, parts, pairs)
        self._prefixes: dict[str | None, Tensor] = {}

    @property
    def frames(self) -> list[int]:
        return [len(pair.codes) for pair in self.pairs]

    def projected(self, features: TextFeatures) -> Tensor:
        with torch.autocast(features.rows.device.type, enabled=False):  # float32, whatever the TTS computes in
            return self._parts.projector(features.states, features.rows)

    @staticmethod
    def plain(features: TextFeatures) -> Tensor:
        return features.rows

    def losses(self, indices: Sequence[int], rows_of: RowsOf, generator: torch.Generator) -> LossSums:
        """Loss sums of one micro-batch."""
        tts, settings = self._parts.tts, self._config
        pairs, codes = [self.pairs[index] for index in indices], [self.pairs[index].codes for index in indices]
        codes = [frames.to(tts.device, torch.long) for frames in codes]
        sequences = [
            training_sequence(tts, self._prefix(pair), rows_of(features).to(tts.dtype), frames, settings.tts.layout)
            for pair, features, frames in zip(pairs, self._states.at(indices), codes, strict=True)
        ]
        return sequence_losses(tts, sequences, codes, settings.train.predictor_share, generator)

    @torch.no_grad()
    def _prefix(self, pair: Pair) -> Tensor:
        language = self._config.tts.language
        if isinstance(pair.voice, Tensor):
            return self._parts.tts.prefix(pair.voice, language)
        if pair.voice not in self._prefixes:
            self._prefixes[pair.voice] = self._parts.tts.prefix(pair.voice, language)
        return self._prefixes[pair.voice]
