"""Token sampling: greedy, temperature, top-k, top-p, in the official order; and a seed for torch's global generators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError


@dataclass(frozen=True)
class Choice:
    """How one id is chosen: the likeliest (`greedy`), or drawn after temperature, then top-k, then top-p."""

    greedy: bool = False
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise AudioProjectionError(f"temperature is {self.temperature}, must be above 0 (or decode greedily)")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise AudioProjectionError(f"top_k is {self.top_k}, top_p {self.top_p}: want top_k >= 0, 0 < top_p <= 1")

    def warp(self, scores: Tensor) -> Tensor:
        """Scores (B, V) with what may not be drawn at -inf; greedy choice leaves them as they are."""
        if self.greedy:
            return scores
        if self.temperature != 1.0:
            scores = scores / self.temperature
        if self.top_k:
            least = scores.topk(min(self.top_k, scores.shape[-1])).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        return scores if self.top_p >= 1.0 else _nucleus(scores, self.top_p)

    def pick(self, warped: Tensor, generator: torch.Generator | None) -> Tensor:
        """Ids (B,) from warped scores (B, V)."""
        if self.greedy:
            return warped.argmax(-1)
        chances = torch.softmax(warped, -1, dtype=torch.float32)
        return torch.multinomial(chances, 1, generator=generator)[:, 0]


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Keep the fewest likeliest ids whose chances add up to top_p, at least one."""
    ordered, places = scores.sort(descending=False)
    dropped = torch.softmax(ordered, -1).cumsum(-1) <= 1.0 - top_p
    dropped[..., -1] = False
    return scores.masked_fill(dropped.scatter(1, places, dropped), -torch.inf)


@dataclass(frozen=True)
class Sampling:
    """Decoding rules of the talker (codebook 0) and the code predictor (the others)."""

    talker: Choice = Choice()
    predictor: Choice = Choice()
    repetition_penalty: float = 1.05

    def __post_init__(self) -> None:
        if self.repetition_penalty <= 0:
            raise AudioProjectionError(f"repetition_penalty is {self.repetition_penalty}, must be above 0")

    @classmethod
    def greedy(cls, repetition_penalty: float = 1.05) -> Sampling:
        return cls(Choice(greedy=True), Choice(greedy=True), repetition_penalty)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sampling:
        """From the keys of an official generation_config.json; absent ones have the official defaults."""
        return cls(
            talker=_choice(values, ""),
            predictor=_choice(values, "subtalker_"),
            repetition_penalty=float(values.get("repetition_penalty", 1.05)),
        )


def _choice(values: Mapping[str, Any], part: str) -> Choice:
    sampled = values.get(f"{part}dosample" if part else "do_sample", True)
    return Choice(
        greedy=not sampled,
        temperature=float(values.get(f"{part}temperature", 0.9)),
        top_k=int(values.get(f"{part}top_k", 50) or 0),
        top_p=float(values.get(f"{part}top_p", 1.0)),
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global random generators inside, and restores those of the CPU and of every CUDA device after.

    For libraries that initialise weights from the global generators; own code passes a `torch.Generator`.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
