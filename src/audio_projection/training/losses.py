"""The losses of a teacher-forced micro-batch, as sums: who adds up several batches divides by all their targets.

A loss takes the batch and the draws of its step, and gives a scalar. How many targets it sums over is told beforehand
by `count_targets`, from lengths alone, because the divisor is that of all micro-batches of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_projection.training.perceptual_loss import MelDistance, segment_distance
from audio_projection.training.teacher_forcing import TeacherForced

if TYPE_CHECKING:
    from audio_projection.config import TrainConfig
    from audio_projection.tts.code_predictor import CodePredictor


@dataclass(frozen=True)
class Draw:
    """What a micro-batch draws at random, and how much of it: `generator` is a CPU one."""

    generator: torch.Generator
    settings: TrainConfig

    def some(self, count: int, share: float) -> Tensor:
        """Indices (n,), rising, of a share of `count` things, drawn without replacement."""
        return torch.randperm(count, generator=self.generator)[: chosen_count(count, share)].sort().values

    def below(self, bound: int) -> int:
        """A whole number from 0 to bound - 1."""
        return int(torch.randint(bound, (), generator=self.generator))


def talker_loss(batch: TeacherForced, draw: Draw) -> Tensor:
    """Cross-entropy of codebook 0 and the end, nats, over M targets."""
    return F.cross_entropy(batch.logits, batch.targets, reduction="sum")


def accuracy(batch: TeacherForced, draw: Draw) -> Tensor:
    """How many of the M targets were the likeliest id; no loss, but counted like one."""
    return (batch.logits.detach().argmax(-1) == batch.targets).sum().float()


def predictor_loss(batch: TeacherForced, draw: Draw) -> Tensor:
    """Cross-entropy of codebooks 1 to G-1, nats, over a share of all frames of the batch."""
    states, frames = torch.cat([states[:-1] for states in batch.states]), torch.cat(batch.codes)
    drawn = draw.some(len(frames), draw.settings.predictor_share).to(frames.device)
    return predictor_cross_entropy(batch.tts.code_predictor, states[drawn], frames[drawn])


def distill_loss(batch: TeacherForced, draw: Draw) -> Tensor:
    """Kullback-Leibler divergence, nats, of the M distributions of codebook 0 from those with the plain text rows."""
    taught = batch.taught.logits.log_softmax(-1)
    return F.kl_div(batch.logits.log_softmax(-1), taught, reduction="sum", log_target=True)


def distill_states_loss(batch: TeacherForced, draw: Draw) -> Tensor:
    """Relative squared error of the M states against those with the plain text rows."""
    return relative_error(torch.cat(batch.states), batch.taught.states)


def embedding_loss(batch: TeacherForced, draw: Draw) -> Tensor:
    """Relative squared error of all text rows against the TTS's own: what the closed-form fit lessens, by gradient."""
    own = [utterance.features.text_embeddings for utterance in batch.utterances]
    return relative_error(torch.cat(list(batch.embeddings)), torch.cat(own))


def perceptual_loss(batch: TeacherForced, draw: Draw) -> Tensor:
    """Mel distance of the sound of the expected codes to that of the codes, over a segment of some utterances."""
    settings, distance = draw.settings, MelDistance(batch.tts.sample_rate)
    longest = max(1, round(settings.perceptual_seconds * batch.tts.frame_rate))
    total = batch.states[0].new_zeros((), dtype=torch.float32)
    for index in draw.some(len(batch.codes), settings.perceptual_share).tolist():
        length = min(longest, len(batch.codes[index]))
        first = draw.below(len(batch.codes[index]) - length + 1)
        total = total + segment_distance(
            batch.tts, batch.states[index], batch.codes[index], slice(first, first + length), distance
        )
    return total


LOSSES: dict[str, Callable[[TeacherForced, Draw], Tensor]] = {
    "talker": talker_loss,
    "accuracy": accuracy,
    "predictor": predictor_loss,
    "distill": distill_loss,
    "distill_states": distill_states_loss,
    "rows": embedding_loss,
    "perceptual": perceptual_loss,
}
"""All losses by their names in `train.loss`, and the accuracy of codebook 0."""


def count_targets(
    names: Iterable[str], frames: Seq[int], tokens: Seq[int], code_groups: int, settings: TrainConfig
) -> dict[str, int]:
    """How many targets each loss sums over in a batch of utterances of so many frames and text tokens."""
    ends = sum(frames) + len(frames)
    counts = {
        "predictor": chosen_count(sum(frames), settings.predictor_share) * (code_groups - 1),
        "rows": sum(tokens),
        "perceptual": chosen_count(len(frames), settings.perceptual_share),
    }
    return {name: counts.get(name, ends) for name in names}


def chosen_count(count: int, share: float) -> int:
    """How many of `count` things the share is: at least one."""
    return min(count, max(1, round(share * count)))


def predictor_cross_entropy(predictor: CodePredictor, hidden: Tensor, codes: Tensor) -> Tensor:
    """Summed cross-entropy of codebooks 1 to G-1 of frames `codes` (N, G), given the talker states (N, H).

    hidden[n] is the state that predicts codes[n, 0], the one before the frame.
    """
    logits = predictor(hidden, codes).float()
    return F.cross_entropy(logits.flatten(0, 1), codes[:, 1:].flatten(), reduction="sum")


def relative_error(given: Tensor, wanted: Tensor) -> Tensor:
    """Sum over the rows of (N, H) of |given - wanted|^2 / |wanted|^2, in float32: 0 when equal, N for zeros."""
    given, wanted = given.float(), wanted.float()
    return ((given - wanted).square().sum(-1) / wanted.square().sum(-1).clamp_min(1e-12)).sum()
