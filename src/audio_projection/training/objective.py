"""What training lessens: the weighted losses, as one module from pairs to sums, so that DDP and FSDP can wrap it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from audio_projection.alignment.token_states import TokenStates
from audio_projection.errors import AudioProjectionError
from audio_projection.training.examples import Examples
from audio_projection.training.losses import LOSSES, Draw, count_targets
from audio_projection.training.teacher_forcing import TeacherForced

if TYPE_CHECKING:
    from audio_projection.config import Config
    from audio_projection.projector import Projector
    from audio_projection.tts.model import Qwen3TTS

EmbeddingsOf = Callable[[TokenStates], Tensor]


class Objective(nn.Module):
    """The projector and the TTS together. Everything that reads their weights in a step happens in `forward`."""

    def __init__(
        self,
        config: Config,
        projector: Projector,
        tts: Qwen3TTS,
        untuned: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`untuned`: see `TeacherForced`. AudioProjectionError when no loss has a weight."""
        super().__init__()
        self.projector, self.tts = projector, tts
        self._settings, self._layout, self._untuned = config.train, config.tts.layout, untuned
        self.weights = {name: weight for name, weight in config.train.loss.model_dump().items() if weight > 0}
        if not self.weights:
            raise AudioProjectionError("all weights of train.loss are 0: give one of them, e.g. train.loss.talker=1")

    @property
    def names(self) -> list[str]:
        """What a step computes: the losses with a weight, and the accuracy where its scores are there anyway."""
        free = {"accuracy"} if {"talker", "distill"} & self.weights.keys() else set()
        return [name for name in LOSSES if name in self.weights.keys() | free]

    def targets(self, names: Iterable[str], frames: Sequence[int], tokens: Sequence[int]) -> dict[str, int]:
        """How many targets `forward` sums over, by the lengths of a batch in frames and text tokens."""
        return count_targets(names, frames, tokens, self.tts.config.code_groups, self._settings)

    def projected(self, features: TokenStates) -> Tensor:
        """Rows (N, H), float32, that the projector makes of the states of a text."""
        with torch.autocast(features.text_embeddings.device.type, enabled=False):  # whatever the TTS computes in
            return self.projector(features.states, features.text_embeddings)

    @staticmethod
    def plain(features: TokenStates) -> Tensor:
        """The TTS's own rows (N, H)."""
        return features.text_embeddings

    def forward(
        self, examples: Examples, indices: Sequence[int], embeddings_of: EmbeddingsOf, names: Iterable[str], seed: int
    ) -> dict[str, Tensor]:
        """Sums (scalars, float32) of the losses `names` over one micro-batch; what it draws comes from `seed`."""
        utterances = examples.at(indices)
        device = self.tts.device.type
        draw = Draw(torch.Generator().manual_seed(seed), self._settings)
        with torch.autocast(device, torch.bfloat16, enabled=self._settings.precision == "bf16"):
            rows = [embeddings_of(utterance.features) for utterance in utterances]
            batch = TeacherForced(self.tts, utterances, rows, self._layout, self._untuned)
            return {name: LOSSES[name](batch, draw).float() for name in names}

    def weighted(self, sums: Mapping[str, Tensor], targets: Mapping[str, int]) -> Tensor:
        """The scalar to be lessened: each loss divided by its targets, times its weight."""
        return torch.stack([weight * sums[name] / targets[name] for name, weight in self.weights.items()]).sum()


def means(sums: Mapping[str, float], targets: Mapping[str, int]) -> dict[str, float]:
    """Each sum over its targets."""
    return {name: total / targets[name] for name, total in sums.items()}
