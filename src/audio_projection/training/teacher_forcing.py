"""A micro-batch of utterances in the talker, their codes given, and what the losses need of it, each computed once."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audio_projection.alignment.token_states import TokenStates
from audio_projection.tts.prompt import TrainingSequence, training_sequence

if TYPE_CHECKING:
    from audio_projection.tts.model import Qwen3TTS


@dataclass(frozen=True)
class Utterance:
    """One training example as the models meet it."""

    features: TokenStates
    codes: Tensor  # (T, G) int64, on the TTS's device
    prefix: Tensor  # (P, H), the TTS's embeddings before the text


class TeacherForced:
    """Utterances whose talker is fed with `embeddings`, for each its text embeddings (N, H); differentiable in them.

    M counts all frames of the batch and one end for each utterance. What no loss asks for is not computed.
    """

    def __init__(
        self,
        tts: Qwen3TTS,
        utterances: Seq[Utterance],
        embeddings: Seq[Tensor],
        layout: str,
        untuned: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Within `untuned()` the talker is the one that was loaded, whatever trains on it."""
        self.tts, self.utterances, self.embeddings = tts, utterances, embeddings
        self._layout, self._untuned = layout, untuned

    @property
    def codes(self) -> list[Tensor]:
        """For each utterance its codes (T, G)."""
        return [utterance.codes for utterance in self.utterances]

    @cached_property
    def targets(self) -> Tensor:
        """Codebook 0 of every frame and the end of each utterance, (M,) int64."""
        end = self.codes[0].new_tensor([self.tts.config.talker.codec_eos])
        return torch.cat([torch.cat((frames[:, 0], end)) for frames in self.codes])

    @cached_property
    def states(self) -> list[Tensor]:
        """For each utterance the talker's states (T + 1, H) before its frames and its end."""
        sequences = [
            training_sequence(self.tts, utterance.prefix, embeddings.to(self.tts.dtype), utterance.codes, self._layout)
            for utterance, embeddings in zip(self.utterances, self.embeddings, strict=True)
        ]
        return predicting_states(self.tts, sequences, self.codes)

    @cached_property
    def logits(self) -> Tensor:
        """Scores (M, V) of codebook 0 and the end, float32."""
        return self.tts.talker.logits(torch.cat(self.states)).float()

    @cached_property
    def taught(self) -> TeacherOutputs:
        """The same utterances with the TTS's own text embeddings, through the talker as it was loaded; no gradient."""
        plain = [utterance.features.text_embeddings for utterance in self.utterances]
        teacher = TeacherForced(self.tts, self.utterances, plain, self._layout)
        with torch.no_grad(), self._untuned():
            return TeacherOutputs(torch.cat(teacher.states), teacher.logits)


@dataclass(frozen=True)
class TeacherOutputs:
    """What the talker makes of the plain text: states (M, H) and scores (M, V)."""

    states: Tensor
    logits: Tensor


def predicting_states(tts: Qwen3TTS, sequences: Seq[TrainingSequence], codes: Seq[Tensor]) -> list[Tensor]:
    """For each teacher-forced sequence the states (T + 1, H) that predict its frames `codes` (T, G) and its end.

    No label is shifted: the sequence already says which state predicts which frame (`Sequence.first`).
    """
    embeds = pad_sequence([sequence.embeds for sequence in sequences], batch_first=True)
    lengths = torch.tensor([len(sequence.embeds) for sequence in sequences], device=embeds.device)
    states = tts.talker(embeds, lengths)
    return [
        row[sequence.first : sequence.first + len(frames) + 1]
        for row, sequence, frames in zip(states, sequences, codes, strict=True)
    ]
