"""Teacher forcing: a micro-batch of utterances through the talker with the true codes as its input."""

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
    """One training example as the models take it."""

    features: TokenStates
    codes: Tensor  # (T, G) int64, on the TTS's device
    prefix: Tensor  # (P, H), the TTS's embeddings before the text


class TeacherForced:
    """Teacher-forced talker states and logits of a micro-batch, differentiable in the text embeddings.

    M counts all frames of the batch and one end of speech for each utterance. Everything is computed once, and only
    when a loss reads it.
    """

    def __init__(
        self,
        tts: Qwen3TTS,
        utterances: Seq[Utterance],
        embeddings: Seq[Tensor],
        layout: str,
        untuned: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`embeddings` (N, H) are what the talker is fed with for the text of each utterance.

        Within `untuned()` the talker is the one that was loaded, without what fine-tuning changes.
        """
        self.tts, self.utterances, self.embeddings = tts, utterances, embeddings
        self._layout, self._untuned = layout, untuned

    @property
    def codes(self) -> list[Tensor]:
        """Codes (T, G) of each utterance."""
        return [utterance.codes for utterance in self.utterances]

    @cached_property
    def targets(self) -> Tensor:
        """Target ids (M,), int64: codebook 0 of every frame, and the end of speech after each utterance."""
        end = self.codes[0].new_tensor([self.tts.config.talker.codec_eos])
        return torch.cat([torch.cat((frames[:, 0], end)) for frames in self.codes])

    @cached_property
    def states(self) -> list[Tensor]:
        """For each utterance the talker states (T + 1, H) that predict its frames and its end."""
        sequences = [
            training_sequence(self.tts, utterance.prefix, embeddings.to(self.tts.dtype), utterance.codes, self._layout)
            for utterance, embeddings in zip(self.utterances, self.embeddings, strict=True)
        ]
        return predicting_states(self.tts, sequences, self.codes)

    @cached_property
    def logits(self) -> Tensor:
        """Logits (M, V) of codebook 0 and the end of speech, float32."""
        return self.tts.talker.logits(torch.cat(self.states)).float()

    @cached_property
    def teacher(self) -> TeacherOutputs:
        """Distillation targets: the same utterances with the TTS's own text embeddings, without gradient.

        They go through the talker as it was loaded.
        """
        plain = [utterance.features.text_embeddings for utterance in self.utterances]
        teacher = TeacherForced(self.tts, self.utterances, plain, self._layout)
        with torch.no_grad(), self._untuned():
            return TeacherOutputs(torch.cat(teacher.states), teacher.logits)


@dataclass(frozen=True)
class TeacherOutputs:
    """The talker's states (M, H) and logits (M, V) on plain text, the targets of the distillation losses."""

    states: Tensor
    logits: Tensor


def predicting_states(tts: Qwen3TTS, sequences: Seq[TrainingSequence], codes: Seq[Tensor]) -> list[Tensor]:
    """For each teacher-forced sequence the states (T + 1, H) that predict its frames `codes` (T, G) and its end.

    No label is shifted: the sequence says which state predicts which frame (`TrainingSequence.first`).
    """
    embeds = pad_sequence([sequence.embeds for sequence in sequences], batch_first=True)
    lengths = torch.tensor([len(sequence.embeds) for sequence in sequences], device=embeds.device)
    states = tts.talker(embeds, lengths)
    return [
        each[sequence.first : sequence.first + len(frames) + 1]
        for each, sequence, frames in zip(states, sequences, codes, strict=True)
    ]
