"""Validation: the losses on held-out pairs, for the projector and for the TTS fed with plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from audio_projection.alignment.token_states import chunks
from audio_projection.training.examples import Examples
from audio_projection.training.losses import LOSSES
from audio_projection.training.objective import EmbeddingsOf, Objective, means

ALWAYS = ("talker", "accuracy", "predictor")
"""Losses that are measured whichever are trained on; plain text is compared by them."""


class Validation:
    """Losses on held-out examples, in batches of similar length; every time samples the same frames and segments."""

    def __init__(self, model: nn.Module, objective: Objective, examples: Examples, batch: int) -> None:
        """`model` is the objective as the processes wrap it."""
        self._model, self._objective, self._examples = model, objective, examples
        order = sorted(range(len(examples.frames)), key=lambda index: (examples.frames[index], index))
        self._batches = list(chunks(order, batch))
        self._plain: dict[str, float] | None = None

    def __bool__(self) -> bool:
        return bool(self._batches)

    def projected(self) -> dict[str, float]:
        """Mean over all held-out targets of every loss with a weight and of `ALWAYS`, with projected embeddings."""
        names = {*ALWAYS, *self._objective.names}
        return self._means(self._objective.projected, [name for name in LOSSES if name in names])

    def plain(self) -> dict[str, float]:
        """Means of `ALWAYS` with the TTS's own text embeddings; computed once when the TTS is frozen."""
        trains = any(parameter.requires_grad for parameter in self._objective.tts.parameters())
        if self._plain is None or trains:
            self._plain = self._means(self._objective.plain, ALWAYS)
        return self._plain

    @torch.no_grad()
    def _means(self, embeddings_of: EmbeddingsOf, names: Iterable[str]) -> dict[str, float]:
        sums, targets = Counter[str](), Counter[str]()
        lengths = self._examples.frames, self._examples.tokens
        for number, batch in enumerate(self._batches):
            frames, tokens = ([each[index] for index in batch] for each in lengths)
            found = self._model(self._examples, batch, embeddings_of, names, number)
            sums.update({name: float(total) for name, total in found.items()})
            targets.update(self._objective.targets(names, frames, tokens))
        return means(sums, targets)
