"""The talker's logits processors: suppressed ids of codebook 0 and the repetition penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from audio_projection.tts.config import SPECIAL_CODES, TalkerConfig


class TalkerRules:
    """Suppressed ids and repetition penalty for a batch; remembers the codes that were generated.

    The last `SPECIAL_CODES` ids of the vocabulary are suppressed, except the end of speech, which is suppressed in the
    first two steps only. Codes that an utterance has already used are made less likely by the repetition penalty, also
    when decoding greedily. The official package has the same rules.
    """

    FIRST_STEPS = 2

    def __init__(self, batch: int, config: TalkerConfig, penalty: float, device: torch.device) -> None:
        self.penalty = penalty
        self.steps = 0
        self.penalties = torch.ones(batch, config.vocab_size, device=device)
        self.suppressed = torch.zeros(config.vocab_size, device=device)
        self.suppressed[max(0, config.vocab_size - SPECIAL_CODES) :] = -torch.inf
        self.suppressed_first = self.suppressed.clone()
        self.suppressed[config.codec_eos] = 0.0
        self.suppressed_first[config.codec_eos] = -torch.inf

    def apply(self, logits: Tensor) -> Tensor:
        """Scores (B, V), float32, from raw logits (B, V)."""
        scores = logits.float()
        if self.penalty != 1.0:
            scores = torch.where(scores < 0, scores * self.penalties, scores / self.penalties)
        return scores + (self.suppressed_first if self.steps < self.FIRST_STEPS else self.suppressed)

    def record(self, ids: Tensor) -> None:
        """Counts a step in which the ids (B,) were generated."""
        self.steps += 1
        if self.penalty != 1.0:
            self.penalties.scatter_(1, ids[:, None], self.penalty)
