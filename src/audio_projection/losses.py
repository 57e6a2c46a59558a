"""Cross-entropy on audio codes, as sums and counts: who adds up several batches divides by all their targets.

Labels are never shifted here: the sequence already says which state predicts which frame (`Sequence.first`).
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from audio_projection.tts.code_predictor import CodePredictor
    from audio_projection.tts.model import Qwen3TTS
    from audio_projection.tts.prompt import Sequence
    from audio_projection.tts.talker import Talker


@dataclass(frozen=True)
class LossSums:
    """Summed cross-entropies (scalar tensors, nats) and how many targets each is over."""

    talker: Tensor
    talker_targets: int
    predictor: Tensor
    predictor_targets: int
    hits: Tensor  # talker targets that were the likeliest id


@dataclass(frozen=True)
class TargetCounts:
    """Valid targets of a batch, known before it is computed."""

    talker: int
    predictor: int


def talker_loss(talker: Talker, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of codebook 0 or end, `targets` (M,), given the states (M, H) before them; and hits."""
    logits = talker.logits(hidden).float()
    return F.cross_entropy(logits, targets, reduction="sum"), (logits.detach().argmax(-1) == targets).sum()


def predictor_loss(predictor: CodePredictor, hidden: Tensor, codes: Tensor) -> Tensor:
    """Summed cross-entropy of codebooks 1 to G-1 of frames `codes` (M, G), given the talker states (M, H).

    hidden[m] is the state that predicts codes[m, 0], the one before the frame.
    """
    logits = predictor(hidden, codes).float()
    return F.cross_entropy(logits.flatten(0, 1), codes[:, 1:].flatten(), reduction="sum")


def count_targets(frames: Seq[int], code_groups: int, share: float) -> TargetCounts:
    """Targets of a batch of utterances of so many frames, each with its end."""
    return TargetCounts(sum(frames) + len(frames), chosen_count(sum(frames), share) * (code_groups - 1))


def chosen_count(frames: int, share: float) -> int:
    """How many of `frames` the predictor's loss is computed on: the share, at least one."""
    return min(frames, max(1, round(share * frames)))


def sequence_losses(
    tts: Qwen3TTS, sequences: Seq[Sequence], codes: Seq[Tensor], share: float, generator: torch.Generator
) -> LossSums:
    """Losses of a batch of teacher-forced sequences with their codes, each (T, G) int64.

    The predictor's is over `share` of all frames of the batch, drawn without replacement from `generator` (a CPU one).
    """
    embeds = pad_sequence([sequence.embeds for sequence in sequences], batch_first=True)
    lengths = torch.tensor([len(sequence.embeds) for sequence in sequences], device=embeds.device)
    states = tts.talker(embeds, lengths)
    predicting = [
        row[sequence.first : sequence.first + len(frames) + 1]
        for row, sequence, frames in zip(states, sequences, codes, strict=True)
    ]
    end = codes[0].new_tensor([tts.config.talker.codec_eos])
    targets = torch.cat([torch.cat((frames[:, 0], end)) for frames in codes])
    talker, hits = talker_loss(tts.talker, torch.cat(predicting), targets)
    before, frames = torch.cat([row[:-1] for row in predicting]), torch.cat(list(codes))
    count = chosen_count(len(frames), share)
    drawn = torch.randperm(len(frames), generator=generator)[:count].sort().values.to(frames.device)
    predictor = predictor_loss(tts.code_predictor, before[drawn], frames[drawn])
    return LossSums(talker, len(targets), predictor, count * (frames.shape[1] - 1), hits)
