"""Token sampling: greedy, temperature, top-k, top-p in the official order; seeded noise; torch's global generators.

There are two ways to draw from the same distribution. `Choice.pick` is `torch.multinomial`, as in the official package:
the same draws from the same generator; it waits for the GPU. `Choice.race` divides the probabilities by exponential
noise and takes the largest, which waits for nothing; the noise (`exponential_noise`) depends on a seed and a step only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audio_projection.errors import AudioProjectionError

COLDEST = 1e-3
"""Lowest temperature: below it there is no difference from the most probable id."""


@dataclass(frozen=True)
class Choice:
    """How one token id is chosen: the most probable (`greedy`), or sampled after temperature, then top-k, then top-p.

    Raises AudioProjectionError for values out of range.
    """

    greedy: bool = False
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not COLDEST <= self.temperature < math.inf:  # scores divided by less leave the range of float32
            raise AudioProjectionError(
                f"temperature is {self.temperature}, must be above 0, at least {COLDEST} (or decode greedily)"
            )
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise AudioProjectionError(f"top_k is {self.top_k}, top_p {self.top_p}: want top_k >= 0, 0 < top_p <= 1")

    def warp(self, scores: Tensor) -> Tensor:
        """Scores (B, V) divided by the temperature, -inf where top-k or top-p exclude an id; unchanged when greedy."""
        if self.greedy:
            return scores
        if self.temperature != 1.0:
            scores = scores / self.temperature
        if self.top_k:
            threshold = scores.topk(min(self.top_k, scores.shape[-1])).values[:, -1:]
            scores = scores.masked_fill(scores < threshold, -torch.inf)
        return scores if self.top_p >= 1.0 else nucleus(scores, self.top_p)

    def pick(self, warped: Tensor, generator: torch.Generator | None) -> Tensor:
        """Token ids (B,) from warped scores (B, V), sampled by `generator` (torch's global one for None)."""
        if self.greedy:
            return warped.argmax(-1)
        probabilities = torch.softmax(warped, -1, dtype=torch.float32)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    def race(self, warped: Tensor, noise: Tensor | None) -> Tensor:
        """Token ids (B,) from warped scores (B, V), sampled by `noise` (B, V) of `exponential_noise`; unused if greedy.

        The first of V exponential clocks with rates p to ring is clock i with probability p[i].
        """
        if self.greedy or noise is None:
            return warped.argmax(-1)
        return (torch.softmax(warped, -1, dtype=torch.float32) / noise).argmax(-1)


def exponential_noise(seeds: Tensor, steps: Tensor, start: int, width: int) -> Tensor:
    """Exponentially distributed numbers (B, width), float32, above 0, of the columns from `start` on.

    Row b depends on seeds[b] and steps[b] alone; `seeds` and `steps` (B,), int64. A hash of seed, step and column
    (SplitMix64) instead of a generator with a state: any device computes the same, nothing is kept between steps, and
    other rows play no part.
    """
    columns = torch.arange(start + 1, start + width + 1, device=seeds.device)
    stream = _mixed(seeds * _GOLDEN + steps)
    bits = _mixed(stream[:, None] + columns * _GOLDEN)
    # 23 bits and a half: neither 0 nor 1 in float32, whose logarithms would be infinite or zero
    uniform = ((bits >> 41) & 0x7FFFFF).float().add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_()


def derived_seed(seed: int, number: int) -> int:
    """A seed for part `number` of what has the seed `seed`; no two parts share their noise."""
    return int(_mixed(_mixed(torch.tensor(_signed(seed))) + _signed(number * _GOLDEN)))


_GOLDEN = -7046029254386353131  # SplitMix64's increment and multipliers (Steele et al., 2014) as signed numbers
_FIRST_FACTOR, _SECOND_FACTOR = -4658895280553007687, -7723592293110705685


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64; shifts are made logical by masks."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _FIRST_FACTOR
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _SECOND_FACTOR
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _signed(number: int) -> int:
    """A whole number modulo 2^64, as int64."""
    return (number + 2**63) % 2**64 - 2**63


def nucleus(scores: Tensor, top_p: float | Tensor) -> Tensor:
    """Top-p: keeps the fewest, most probable ids whose probabilities add up to `top_p`, a number or one a row (B, 1);
    at least one. Scores (B, V) -> scores (B, V), -inf where an id is excluded."""
    ordered, order = scores.sort(descending=False)
    dropped = torch.softmax(ordered, -1).cumsum(-1) <= 1.0 - top_p
    dropped[..., -1] = False
    return scores.masked_fill(dropped.scatter(1, order, dropped), -torch.inf)


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of the talker (codebook 0) and the code predictor (the other codebooks).

    The repetition penalty is the talker's. Raises AudioProjectionError for values out of range.
    """

    talker: Choice = Choice()
    predictor: Choice = Choice()
    repetition_penalty: float = 1.05

    def __post_init__(self) -> None:
        if self.repetition_penalty <= 0:
            raise AudioProjectionError(f"repetition_penalty is {self.repetition_penalty}, must be above 0")

    @classmethod
    def greedy(cls, repetition_penalty: float = 1.05) -> Sampling:
        """Greedy decoding of all codebooks."""
        return cls(Choice(greedy=True), Choice(greedy=True), repetition_penalty)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sampling:
        """From the keys of an official generation_config.json; missing ones have the official defaults."""
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
