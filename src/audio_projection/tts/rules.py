"""The talker's decoding rules: which ids of codebook 0 may come next, and the repetition penalty."""

from __future__ import annotations

import torch
from torch import Tensor


class TalkerRules:
    """What the talker may say next, for a batch: tracks the codes said so far.

    Ids of the last `special` of the vocabulary are suppressed but for the end of speech, which is forbidden in the
    first two steps; codes said before are made less likely by the repetition penalty, also when greedy.
    """

    FIRST_STEPS = 2

    def __init__(self, batch: int, like: Tensor, vocab: int, special: int, end: int, penalty: float) -> None:
        self.penalty = penalty
        self.steps = 0
        self.factors = torch.ones(batch, vocab, device=like.device)
        self.barred = torch.zeros(vocab, device=like.device)
        self.barred[max(0, vocab - special) :] = -torch.inf
        self.barred_first = self.barred.clone()
        self.barred[end] = 0.0
        self.barred_first[end] = -torch.inf

    def apply(self, logits: Tensor) -> Tensor:
        """Scores (B, V), float32, from raw logits (B, V)."""
        scores = logits.float()
        if self.penalty != 1.0:
            scores = torch.where(scores < 0, scores * self.factors, scores / self.factors)
        return scores + (self.barred_first if self.steps < self.FIRST_STEPS else self.barred)

    def record(self, ids: Tensor) -> None:
        """Take note of the ids (B,) that were chosen."""
        self.steps += 1
        if self.penalty != 1.0:
            self.factors.scatter_(1, ids[:, None], self.penalty)
