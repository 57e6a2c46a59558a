"""The weighted training loss as one nn.Module, from pairs to sums of losses, so that DDP and FSDP can wrap it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from audio_projection.alignment.token_states import TokenStates
from audio_projection.errors import AudioProjectionError
from audio_projection.training.examples import Examples
from audio_projection.training.losses import LOSSES, SubsetSampler, count_targets
from audio_projection.training.teacher_forcing import TeacherForced

if TYPE_CHECKING:
    from audio_projection.config import TrainConfig
    from audio_projection.projector import Projector
    from audio_projection.tts.model import Qwen3TTS

EmbeddingsOf = Callable[[TokenStates], Tensor]
"""Gives the text embeddings (N, H) that the talker is fed with for a text: projected ones, or the TTS's own."""


class Objective(nn.Module):
    """Projector and TTS as one module; DDP and FSDP need every use of their weights in a step to be in `forward`."""

    def __init__(
        self,
        settings: TrainConfig,
        layout: str,
        projector: Projector,
        tts: Qwen3TTS,
        untuned: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`layout` is that of the prompt; `untuned`: see `TeacherForced`.

        Raises AudioProjectionError when no loss has a weight.
        """
        super().__init__()
        self.projector, self.tts = projector, tts
        self._settings, self._layout, self._untuned = settings, layout, untuned
        self.weights = {name: weight for name, weight in settings.loss.model_dump().items() if weight > 0}
        if not self.weights:
            raise AudioProjectionError("all weights of train.loss are 0: give one of them, e.g. train.loss.talker=1")

    @property
    def names(self) -> list[str]:
        """Losses that a step computes: those with a weight, and the accuracy where its logits are computed anyway."""
        free = {"accuracy"} if {"talker", "distill"} & self.weights.keys() else set()
        return [name for name in LOSSES if name in self.weights.keys() | free]

    def targets(self, names: Iterable[str], frames: Sequence[int], tokens: Sequence[int]) -> dict[str, int]:
        """Number of targets of each loss in `forward`, from the lengths of a batch in frames and text tokens."""
        return count_targets(names, frames, tokens, self.tts.config.code_groups, self._settings)

    def projected(self, features: TokenStates) -> Tensor:
        """Projected embeddings (N, H), float32, of the LLM states of a text."""
        # the projector computes in float32, whatever the TTS computes in
        with torch.autocast(features.text_embeddings.device.type, enabled=False):
            return self.projector(features.states, features.text_embeddings)

    @staticmethod
    def plain(features: TokenStates) -> Tensor:
        """The TTS's own text embeddings (N, H)."""
        return features.text_embeddings

    def forward(
        self, examples: Examples, indices: Sequence[int], embeddings_of: EmbeddingsOf, names: Iterable[str], seed: int
    ) -> dict[str, Tensor]:
        """Sums (scalars, float32) of the losses `names` over one micro-batch; `seed` decides what they sample."""
        utterances = examples.at(indices)
        device = self.tts.device.type
        sampler = SubsetSampler(torch.Generator().manual_seed(seed), self._settings)
        with torch.autocast(device, torch.bfloat16, enabled=self._settings.precision == "bf16"):
            embeddings = [embeddings_of(utterance.features) for utterance in utterances]
            batch = TeacherForced(self.tts, utterances, embeddings, self._layout, self._untuned)
            return {name: LOSSES[name](batch, sampler).float() for name in names}

    def weighted(self, sums: Mapping[str, Tensor], targets: Mapping[str, int]) -> Tensor:
        """The scalar that training minimises: each loss divided by its number of targets, times its weight, summed."""
        return torch.stack([weight * sums[name] / targets[name] for name, weight in self.weights.items()]).sum()


def means(sums: Mapping[str, float], targets: Mapping[str, int]) -> dict[str, float]:
    """Each sum divided by its number of targets."""
    return {name: total / targets[name] for name, total in sums.items()}
