"""Time and memory of the closed-form fit at full size, on random states without models.

    python benchmarks/fit_speed.py [--tokens 1000000] [--inputs 4096] [--outputs 2048] [--threads 2]

Tokens are sampled by Zipf's law from a vocabulary, because real text repeats its tokens likewise. The state of a token
is its fixed vector plus noise, made block by block outside the timing. Timed are the summing of the normal equations
and their solution for each of the default ridges. The R2 on new states shows that the regression works.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from torch import Tensor

from audio_projection.config import FitConfig
from audio_projection.fit.ridge import RidgeFit, r_squared

PASS = 2048
"""Tokens added at once, as from one batch of the LLM."""


class States:
    """Random states and targets of a vocabulary: the targets are a linear map of the states without noise."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.noise, self.generator = given.noise, torch.Generator().manual_seed(0)
        self.table = self.normal(given.vocabulary, given.inputs)
        self.targets = self.table @ self.normal(given.inputs, given.outputs) / given.inputs**0.5
        self.odds = 1 / torch.arange(2, given.vocabulary + 2, dtype=torch.float64)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def sample(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """States (N, D), targets (N, H) and token ids (N,)."""
        ids = torch.multinomial(self.odds, count, replacement=True, generator=self.generator)
        return self.table[ids] + self.noise * self.normal(count, self.table.shape[1]), self.targets[ids], ids


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--inputs", type=int, default=4096, help="width of a state")
    parser.add_argument("--outputs", type=int, default=2048, help="width of a target")
    parser.add_argument("--vocabulary", type=int, default=30_000)
    parser.add_argument(
        "--noise", type=float, default=0.5, help="standard deviation of the noise; that of the token's vector is 1"
    )
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    states, equations, seconds, done = States(given), RidgeFit(given.inputs, given.outputs), 0.0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while done < given.tokens:
        batch = states.sample(min(PASS, given.tokens - done))
        began = time.perf_counter()
        equations.add(*batch)
        seconds += time.perf_counter() - began
        done += len(batch[2])
    x, y, _ = states.sample(4096)
    began = time.perf_counter()
    solutions = [equations.solve(ridge) for ridge in FitConfig().ridges]
    solving = time.perf_counter() - began
    reached = max(r_squared(x @ weight.T + bias, y) for weight, bias in solutions)
    print(f"{done:,} tokens, {given.inputs} -> {given.outputs}: {seconds:.0f} s of sums, {solving:.0f} s for 5 ridges")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"memory: at most {peak * 1024 / 1e9:.2f} GB, {before * 1024 / 1e9:.2f} GB of it before the fit")
    print(f"R2 on new states {reached:.3f}")


if __name__ == "__main__":
    main()
