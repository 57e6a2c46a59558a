"""Refines a fitted projector by a softmax over the TTS's text embeddings: from text alone, by gradient descent.

Ridge regression minimises a squared error, and so gives what it is not sure of a small embedding near the mean. What
the TTS needs to know is which token is meant: here the right text embedding competes with others, those of the batch's
tokens and random ones of the vocabulary, by the cosine of embeddings standardised in each channel. The relative
squared error beside it keeps the sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_projection.files.progress import shown
from audio_projection.fit.ridge import Split, embedding_table, r_squared
from audio_projection.fit.rows_right import RowsRight
from audio_projection.projector import Projector

BATCH = 512
"""Tokens of one step."""
RIVALS = 4096
"""Random text embeddings that compete in each step, beside those of the batch's own tokens."""
REDRAWN = 16
"""Steps after which other ones are drawn: the TTS computes them anew."""
SCALE = 20.0
"""Cosines are multiplied with it before the softmax."""
SQUARED = 1.0
"""Weight of the relative squared error beside the cross-entropy."""
RATE = 1e-3
"""Learning rate at its highest, after `WARMUP` of the steps; then it falls to zero along a cosine."""
WARMUP = 0.05


class TokenPool:
    """States and ids of text tokens to learn from, the first `room` of the stream; in main memory, as float16."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._states: list[Tensor] = []
        self.ids: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, states: Tensor, ids: list[int]) -> None:
        """Keeps states (N, L, D) and their token ids while there is room."""
        taken = min(self._room - len(self), len(ids))
        if taken > 0:
            self._states.append(states[:taken].to("cpu", torch.float16))
            self.ids.extend(ids[:taken])

    def batches(self, steps: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """States (B, L, D) float32 and ids (B,) of `steps` batches, walking through the tokens in random orders."""
        states, ids = torch.cat(self._states), torch.tensor(self.ids)
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            while len(order) < min(BATCH, len(ids)):
                order = torch.cat([order, torch.randperm(len(ids), generator=generator)])
            chosen, order = order[:BATCH], order[BATCH:]
            yield states[chosen].float(), ids[chosen]


@dataclass(frozen=True)
class Rows:
    """The TTS's text embeddings: `embed` gives those (N, H) of token ids (N,), of which there are `count`."""

    embed: Callable[[Tensor], Tensor]
    count: int
    mean: Tensor
    """(H,) of each channel, with `deviation` (H,): the standardisation in which embeddings are compared."""
    deviation: Tensor

    def directions(self, embeddings: Tensor) -> Tensor:
        """Embeddings (N, H) standardised in each channel, as unit vectors."""
        return F.normalize((embeddings - self.mean) / self.deviation, dim=-1)


@dataclass(frozen=True)
class Refinement:
    """What the refinement did, on held-out texts; it is not kept where the ridge regression was right more often."""

    steps: int
    kept: bool
    r2: float
    right: RowsRight

    def to_json(self) -> dict[str, Any]:
        return {"steps": self.steps, "kept": self.kept, "r2": self.r2, **self.right.to_json()}

    def __str__(self) -> str:
        dropped = "" if self.kept else "; not better on the calibration texts: the ridge regression is kept"
        return (
            f"refined by {self.steps} steps of softmax over text embeddings: R2 {self.r2:.3f}, the nearest is right "
            f"for {self.right}{dropped}"
        )


@torch.no_grad()
def refine_fitted(
    projector: Projector, pool: TokenPool, split: Split, embed: Callable[[Tensor], Tensor], count: int, steps: int
) -> Refinement:
    """Refines a projector in place that was fitted on the texts of `split`, and judges it on the held-out ones.

    `embed` gives the text embeddings (N, H) of ids (N,) below `count`. The fitted weights come back where the
    calibration texts say that they were right more often.
    """
    fitted = deepcopy(projector.state_dict())
    table = embedding_table(split.table)
    deviation = table[0].std(0, correction=0)
    rows = Rows(embed, count, table[0].mean(0), torch.where(deviation > 1e-6, deviation, 1.0))

    def judge(tokens: tuple[Tensor, Tensor, Tensor]) -> tuple[float, RowsRight]:
        states, embeddings, ids = tokens
        predicted = projector(states, embeddings)
        return r_squared(predicted, embeddings), RowsRight.measure(predicted, ids, table, split.fitted)

    before = judge(split.calibration.stacked())[1].share
    refine(projector, pool, rows, steps)
    kept = judge(split.calibration.stacked())[1].share >= before
    report = Refinement(steps, kept, *judge(split.held_out.stacked()))
    if not kept:
        projector.load_state_dict(fitted)
    return report


def refine_memory(parameters: int, inputs: int, outputs: int) -> int:
    """Peak memory of `refine` in bytes, beside the pool in main memory: weights, gradients and Adam's moments, rival
    embeddings with their copies and logits, and the batch."""
    rivals = RIVALS + BATCH
    return 16 * parameters + 4 * (4 * rivals * outputs + 3 * BATCH * rivals + BATCH * (2 * inputs + 6 * outputs))


def refine(projector: Projector, pool: TokenPool, rows: Rows, steps: int, seed: int = 0) -> None:
    """Trains all weights of `projector` in place for `steps` steps; a bar on stderr shows them."""
    generator = torch.Generator().manual_seed(seed)
    device = rows.mean.device
    optimizer = torch.optim.Adam(projector.parameters(), lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    rivals = torch.empty(0, dtype=torch.long)
    with torch.enable_grad():
        for step, (states, ids) in enumerate(shown(pool.batches(steps, generator), "refining the projector", steps)):
            if step % REDRAWN == 0:
                rivals = torch.randint(rows.count, (RIVALS,), generator=generator).unique()
                rival_rows = _rows(rows, rivals, device)
            loss = _loss(projector, rows, states.to(device), ids, (rivals, rival_rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    projector.zero_grad()


def _loss(projector: Projector, rows: Rows, states: Tensor, ids: Tensor, rivals: tuple[Tensor, Tensor]) -> Tensor:
    types, place = ids.unique(return_inverse=True)
    own = _rows(rows, types, states.device)
    others = rivals[1][~torch.isin(rivals[0], types).to(states.device)]
    place = place.to(states.device)
    target = own[place]
    predicted = projector(states, target)
    logits = SCALE * rows.directions(predicted) @ rows.directions(torch.cat([own, others])).T
    squared = ((predicted - target) / rows.deviation).square().mean()
    return F.cross_entropy(logits, place) + SQUARED * squared


@torch.no_grad()
def _rows(rows: Rows, ids: Tensor, device: torch.device) -> Tensor:
    return rows.embed(ids.to(device)).float()


def _rate(step: int, steps: int) -> float:
    """The share of `RATE` at a step."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * (step - warmup) / max(1, steps - warmup)))))
