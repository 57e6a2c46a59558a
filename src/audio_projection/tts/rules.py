"""The talker's logits processors: suppressed ids of codebook 0 and the repetition penalty."""

from __future__ import annotations

import torch
from torch import Tensor


class TalkerRules:
    """Suppressed ids and repetition penalty for a batch; remembers the codes that were generated.

    The last `special` ids of the vocabulary are suppressed, except the end of speech, which is suppressed in the first
    two steps only. Codes that an utterance has already used are made less likely by the repetition penalty, also when
    decoding greedily. The official package has the same rules.
    """

    FIRST_STEPS = 2

    def __init__(self, batch: int, like: Tensor, vocab: int, special: int, end: int, penalty: float) -> None:
        self.penalty = penalty
        self.steps = 0
        self.penalties = torch.ones(batch, vocab, device=like.device)
        self.suppressed = torch.zeros(vocab, device=like.device)
        self.suppressed[max(0, vocab - special) :] = -torch.inf
        self.suppressed_first = self.suppressed.clone()
        self.suppressed[end] = 0.0
        self.suppressed_first[end] = -torch.inf

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
