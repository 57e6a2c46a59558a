"""The losses of a teacher-forced micro-batch: cross-entropy, distillation, embedding and perceptual loss, as sums.

A loss takes the batch and a `SubsetSampler`, and gives a scalar: the sum over its targets. `count_targets` gives the
number of targets from lengths alone, before anything is computed, because the divisor is the number of targets in all
micro-batches of an optimizer step.
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
class SubsetSampler:
    """Seeded random choice of the frames, utterances and segments on which a loss of a micro-batch is computed."""

    generator: torch.Generator  # on the CPU
    settings: TrainConfig  # the shares

    def indices(self, count: int, share: float) -> Tensor:
        """Ascending indices (n,) of a share of `count` items, sampled without replacement."""
        return torch.randperm(count, generator=self.generator)[: chosen_count(count, share)].sort().values

    def below(self, bound: int) -> int:
        """A uniform integer from 0 to bound - 1."""
        return int(torch.randint(bound, (), generator=self.generator))


def talker_loss(batch: TeacherForced, sampler: SubsetSampler) -> Tensor:
    """Cross-entropy of codebook 0 and the end, nats, over M targets."""
    return F.cross_entropy(batch.logits, batch.targets, reduction="sum")


def accuracy(batch: TeacherForced, sampler: SubsetSampler) -> Tensor:
    """Number of the M targets that have the highest logit. Not a loss, but summed and divided like one."""
    return (batch.logits.detach().argmax(-1) == batch.targets).sum().float()


def predictor_loss(batch: TeacherForced, sampler: SubsetSampler) -> Tensor:
    """Cross-entropy of codebooks 1 to G-1, nats, over a share of all frames of the batch."""
    states, frames = torch.cat([states[:-1] for states in batch.states]), torch.cat(batch.codes)
    sampled = sampler.indices(len(frames), sampler.settings.predictor_share).to(frames.device)
    return predictor_cross_entropy(batch.tts.code_predictor, states[sampled], frames[sampled])


def distill_loss(batch: TeacherForced, sampler: SubsetSampler) -> Tensor:
    """Kullback-Leibler divergence KL(teacher || student) of the M distributions of codebook 0, nats."""
    teacher = batch.teacher.logits.log_softmax(-1)
    return F.kl_div(batch.logits.log_softmax(-1), teacher, reduction="sum", log_target=True)


def distill_states_loss(batch: TeacherForced, sampler: SubsetSampler) -> Tensor:
    """Relative squared error of the M talker states against the teacher's."""
    return relative_error(torch.cat(batch.states), batch.teacher.states)


def embedding_loss(batch: TeacherForced, sampler: SubsetSampler) -> Tensor:
    """Relative squared error of the projected embeddings against the TTS's own, as in the closed-form fit."""
    own = [utterance.features.text_embeddings for utterance in batch.utterances]
    return relative_error(torch.cat(list(batch.embeddings)), torch.cat(own))


def perceptual_loss(batch: TeacherForced, sampler: SubsetSampler) -> Tensor:
    """Mel distance between the decoded expected codes and the decoded true codes, over a segment of some utterances."""
    settings, distance = sampler.settings, MelDistance(batch.tts.sample_rate)
    longest = max(1, round(settings.perceptual_seconds * batch.tts.frame_rate))
    total = batch.states[0].new_zeros((), dtype=torch.float32)
    for index in sampler.indices(len(batch.codes), settings.perceptual_share).tolist():
        length = min(longest, len(batch.codes[index]))
        first = sampler.below(len(batch.codes[index]) - length + 1)
        total = total + segment_distance(
            batch.tts, batch.states[index], batch.codes[index], slice(first, first + length), distance
        )
    return total


LOSSES: dict[str, Callable[[TeacherForced, SubsetSampler], Tensor]] = {
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
    """Number of targets of each loss in a batch of utterances with these numbers of frames and text tokens."""
    ends = sum(frames) + len(frames)
    counts = {
        "predictor": chosen_count(sum(frames), settings.predictor_share) * (code_groups - 1),
        "rows": sum(tokens),
        "perceptual": chosen_count(len(frames), settings.perceptual_share),
    }
    return {name: counts.get(name, ends) for name in names}


def chosen_count(count: int, share: float) -> int:
    """Size of a share of `count` items, rounded: at least one."""
    return min(count, max(1, round(share * count)))


def predictor_cross_entropy(predictor: CodePredictor, hidden: Tensor, codes: Tensor) -> Tensor:
    """Summed cross-entropy of codebooks 1 to G-1 of frames `codes` (N, G), given the talker states (N, H).

    hidden[n] is the state that predicts codes[n, 0], the one before the frame.
    """
    logits = predictor(hidden, codes).float()
    return F.cross_entropy(logits.flatten(0, 1), codes[:, 1:].flatten(), reduction="sum")


def relative_error(given: Tensor, wanted: Tensor) -> Tensor:
    """Sum over the N vectors (N, H) of |given - wanted|^2 / |wanted|^2, in float32: 0 when equal, N for zeros."""
    given, wanted = given.float(), wanted.float()
    return ((given - wanted).square().sum(-1) / wanted.square().sum(-1).clamp_min(1e-12)).sum()
