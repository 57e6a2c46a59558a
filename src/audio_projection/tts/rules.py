"""The talker's logits processors: suppressed ids of codebook 0 and the repetition penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from audio_projection.tts.config import SPECIAL_CODES, TalkerConfig


class TalkerRules:
    """Suppressed ids and repetition penalty of the utterances in a number of slots; remembers what they generated.

    The last `SPECIAL_CODES` ids of the vocabulary are suppressed, except the end of speech, which is suppressed in the
    first two steps only. Codes that an utterance has already used are made less likely by the repetition penalty, also
    when decoding greedily. The official package has the same rules.
    """

    FIRST_STEPS = 2

    def __init__(self, slots: int, config: TalkerConfig, penalty: float, device: torch.device) -> None:
        self.end = config.codec_eos
        self.steps = [0] * slots
        """How many ids each slot's utterance has generated."""
        self._first = torch.zeros(config.vocab_size, device=device)
        self._first[max(0, config.vocab_size - SPECIAL_CODES) :] = -torch.inf
        self._first[config.codec_eos] = -torch.inf
        self.penalties = torch.ones(slots, config.vocab_size, device=device)
        self._penalty = torch.full((slots, 1), penalty, device=device)
        self.penalised = penalty != 1.0
        """Whether a slot has had a penalty; without any, the scores need not be touched."""
        self.suppressed = self._first.repeat(slots, 1)

    def apply(self, logits: Tensor) -> Tensor:
        """Scores (B, V), float32, from raw logits (B, V) of the first B slots."""
        scores, count = logits.float(), len(logits)
        if self.penalised:
            penalties = self.penalties[:count]
            scores = torch.where(scores < 0, scores * penalties, scores / penalties)
        return scores + self.suppressed[:count]

    def record(self, ids: Tensor) -> None:
        """Counts a step in which the first B slots generated the ids (B,)."""
        if self.penalised:
            self.penalties[: len(ids)].scatter_(1, ids[:, None], self._penalty[: len(ids)])
        for slot in range(len(ids)):
            self.steps[slot] += 1
            if self.steps[slot] == self.FIRST_STEPS:
                self.suppressed[slot, self.end] = 0.0

    def clear(self, slot: int, penalty: float) -> None:
        """Forgets a slot's utterance; the next one has this repetition penalty."""
        self._penalty[slot] = penalty
        self.penalised |= penalty != 1.0
        self.steps[slot] = 0
        self.penalties[slot] = 1.0
        self.suppressed[slot] = self._first

    def swap(self, first: int, second: int) -> None:
        """Exchanges the utterances of two slots."""
        self.steps[first], self.steps[second] = self.steps[second], self.steps[first]
        for rows in (self.penalties, self.suppressed, self._penalty):
            swap_rows(rows, first, second)

    def grow(self, slots: int) -> None:
        """Makes room for `slots` utterances."""
        more = slots - len(self.steps)
        self.steps += [0] * more
        self.penalties = torch.cat((self.penalties, self.penalties.new_ones(more, self.penalties.shape[1])))
        self._penalty = torch.cat((self._penalty, self._penalty.new_ones(more, 1)))
        self.suppressed = torch.cat((self.suppressed, self._first.repeat(more, 1)))


def swap_rows(rows: Tensor, first: int, second: int) -> None:
    """Exchanges two rows in place."""
    kept = rows[first].clone()
    rows[first] = rows[second]
    rows[second] = kept
