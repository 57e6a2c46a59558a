"""How ids are chosen in a number of slots, each by a `Choice` of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from audio_projection.sampling import Choice, nucleus
from audio_projection.tts.rules import swap_rows


class SlotChoices:
    """The `Choice` of each slot, and its numbers as rows of tensors, which a captured CUDA graph reads.

    Slots that all choose alike, the usual case, are computed by that one `Choice`. Others give the same ids as they
    would alone.
    """

    def __init__(self, slots: int, choice: Choice, device: torch.device) -> None:
        self._choices = [choice] * slots
        self._kinds: dict[int, Choice | tuple[int, bool]] = {}
        self._greedy = torch.zeros(slots, 1, dtype=torch.bool, device=device)
        self._temperature = torch.ones(slots, 1, device=device)
        self._top_k = torch.zeros(slots, 1, dtype=torch.int64, device=device)
        self._top_p = torch.ones(slots, 1, device=device)
        for slot in range(slots):
            self.set(slot, choice)

    def set(self, slot: int, choice: Choice) -> None:
        """Gives a slot its choice."""
        self._choices[slot] = choice
        self._kinds.clear()
        self._greedy[slot] = choice.greedy
        self._temperature[slot] = 1.0 if choice.greedy else choice.temperature
        self._top_k[slot] = 0 if choice.greedy else choice.top_k
        self._top_p[slot] = 1.0 if choice.greedy else choice.top_p

    def swap(self, first: int, second: int) -> None:
        """Exchanges the choices of two slots."""
        self._choices[first], self._choices[second] = self._choices[second], self._choices[first]
        self._kinds.clear()
        for rows in (self._greedy, self._temperature, self._top_k, self._top_p):
            swap_rows(rows, first, second)

    def kind(self, count: int) -> Choice | tuple[int, bool]:
        """What the computation of the first `count` slots depends on, but for their numbers: the choice that all of
        them have, or the largest top-k and whether any has a top-p."""
        if count not in self._kinds:  # asked for several times a frame
            distinct = set(self._choices[:count])
            sampled = [choice for choice in distinct if not choice.greedy]
            mixed = max((choice.top_k for choice in sampled), default=0), any(choice.top_p < 1.0 for choice in sampled)
            self._kinds[count] = distinct.pop() if len(distinct) == 1 else mixed
        return self._kinds[count]

    def greedy(self, count: int) -> bool:
        """Whether the first `count` slots need no noise."""
        return all(choice.greedy for choice in self._choices[:count])

    def warp(self, scores: Tensor) -> Tensor:
        """As `Choice.warp`, row by row: scores (B, V) of the first B slots."""
        count = len(scores)
        kind = self.kind(count)
        if isinstance(kind, Choice):
            return kind.warp(scores)
        widest, nuclei = kind
        scores = scores.float() / self._temperature[:count]
        if widest:
            top_k = self._top_k[:count].clamp(max=scores.shape[1])
            best = scores.topk(min(widest, scores.shape[1])).values
            threshold = best.gather(1, (top_k - 1).clamp(min=0))
            scores = scores.masked_fill((scores < threshold) & (top_k > 0), -torch.inf)
        if nuclei:
            top_p = self._top_p[:count]
            scores = torch.where(top_p < 1.0, nucleus(scores, top_p), scores)
        return scores

    def race(self, warped: Tensor, noise: Tensor | None) -> Tensor:
        """As `Choice.race`, row by row; `noise` (B, V) may be None when all are greedy."""
        kind = self.kind(len(warped))
        if isinstance(kind, Choice):
            return kind.race(warped, noise)
        best = warped.argmax(-1)
        if noise is None:
            return best
        raced = (torch.softmax(warped, -1, dtype=torch.float32) / noise).argmax(-1)
        return torch.where(self._greedy[: len(warped), 0], best, raced)

    def pick(self, warped: Tensor, generator: torch.Generator) -> Tensor:
        """As `Choice.pick`, for slots that all choose alike."""
        return self._choices[0].pick(warped, generator)

    def grow(self, slots: int) -> None:
        """Makes room for `slots` slots."""
        more = slots - len(self._choices)
        grown = SlotChoices(more, self._choices[0], self._greedy.device)
        self._choices += grown._choices
        for name in ("_greedy", "_temperature", "_top_k", "_top_p"):
            setattr(self, name, torch.cat((getattr(self, name), getattr(grown, name))))
