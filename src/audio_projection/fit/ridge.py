"""Linear regression from LLM states to text rows: streaming, closed form, judged on texts that it never saw."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_projection.alignment.token_states import TokenStates
from audio_projection.errors import AudioProjectionError
from audio_projection.projector import ACTIVATIONS

if TYPE_CHECKING:
    from audio_projection.config import FitConfig

log = logging.getLogger(__name__)

NORM_EPS = 1e-5  # of torch.nn.LayerNorm
_CEILING = 0.99  # of the bounded activations: rows beyond it have no finite pre-image
BLOCK = 16384
"""Rows whose products are summed in float32 before float64 takes over."""
STRIP = 512
"""Columns of the symmetric x'x that are computed at once, from its diagonal on."""
_RESERVED_ROWS = 8192  # most rows kept in memory for the calibration and for the held-out measurement, each


class RidgeFit:
    """Streaming normal equations of a ridge regression with intercept, from states x (N, D) to rows y (N, H) that
    depend on the token alone.

    Products are taken block by block in float32, on states freed of the first ones' mean (a few channels of an LLM
    are hundreds of times larger than the rest, and hardly vary), and summed in float64. Two things make them cheap:
    only one side of the symmetric x'x is computed, and for x'y the states of one token are summed first, because
    they share one row. `ridge_memory` tells what it holds: 1.7 GB for 4096 -> 2048. The strength of the ridge is
    relative to each input's own variance.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu", block: int = BLOCK) -> None:
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self.count = 0
        self._xx = torch.zeros(inputs, inputs, dtype=torch.float64, device=self.device)  # its upper strips alone
        self._xy = torch.zeros(inputs, outputs, dtype=torch.float64, device=self.device)
        self._x = torch.zeros(inputs, dtype=torch.float64, device=self.device)
        self._y = torch.zeros(outputs, dtype=torch.float64, device=self.device)
        self._shift: Tensor | None = None
        self._block = torch.empty(block, inputs, dtype=torch.float32, device=self.device)
        self._waiting = 0  # rows of the block that are filled
        self._tokens = _TokenSums(2 * block, inputs, outputs, self.device)

    def add(self, x: Tensor, y: Tensor, ids: Tensor) -> None:
        """Takes N more rows: x (N, D), y (N, H) and ids (N,); where ids are equal, so must be the rows of y."""
        if not len(ids):
            return
        x, y = x.to(self.device, torch.float32), y.to(self.device, torch.float32)
        if self._shift is None:
            self._shift = x.mean(0)
        self.count += len(ids)
        self._y += y.sum(0)
        while len(ids):
            taken = min(len(self._block) - self._waiting, len(ids))
            rows = self._block[self._waiting : self._waiting + taken]
            torch.sub(x[:taken], self._shift, out=rows)
            if not self._tokens.add(rows, y[:taken], ids[:taken]):
                self._xy += self._tokens.drain()
                fits = self._tokens.add(rows, y[:taken], ids[:taken])
                assert fits, "as many tokens as a block's rows have room"
            x, y, ids = x[taken:], y[taken:], ids[taken:]
            self._waiting += taken
            if self._waiting == len(self._block):
                self._sum_up()

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """(weight (H, D), bias (H,)) float32; the intercept is not penalised.

        Raises AudioProjectionError when there are no rows or the system cannot be solved.
        """
        if not self.count:
            raise AudioProjectionError("nothing to fit on: no text gave a token; give texts with words in them")
        self._sum_up()
        self._xy += self._tokens.drain()
        assert self._shift is not None, "what was added has a mean"
        mean_x, mean_y = self._x / self.count, self._y / self.count
        whole = torch.triu(self._xx) + torch.triu(self._xx, 1).T
        gram = torch.addr(whole, mean_x, mean_x, alpha=-self.count).div_(self.count)
        cross = torch.addr(self._xy, mean_x, mean_y, alpha=-self.count).div_(self.count)
        variance, square = gram.diagonal(), whole.diagonal() / self.count + self._shift.double().square()
        # what is left of a constant channel is rounding: it gets no weight
        scale = torch.where(variance > 1e-10 * square, variance.clamp_min(1e-30).rsqrt(), 0.0)
        del whole
        gram.mul_(scale[:, None]).mul_(scale[None, :]).diagonal().add_(strength)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise AudioProjectionError(f"a ridge of {strength:g} is too weak for {self.count} tokens; raise fit.ridges")
        solution = torch.cholesky_solve(cross.mul_(scale[:, None]), factor).mul_(scale[:, None])
        return solution.T.float().contiguous(), (mean_y - (mean_x + self._shift) @ solution).float()

    def best(
        self, strengths: Sequence[float], judge: Callable[[Tensor, Tensor], float]
    ) -> tuple[float, Tensor, Tensor]:
        """The strength whose solution `judge` (weight, bias -> the more, the better) likes best, and that solution.

        One that is too weak to be solved for is passed over; AudioProjectionError when all are.
        """
        best: tuple[float, float, Tensor, Tensor] | None = None
        for strength in sorted(strengths):
            try:
                weight, bias = self.solve(strength)
            except AudioProjectionError as error:
                if strength == max(strengths):
                    raise
                log.info("fit: %s", error)
                continue
            liked = judge(weight, bias)
            if best is None or liked > best[0]:
                best = liked, strength, weight, bias
        assert best is not None, "there are strengths, and the last one was solved for"
        return best[1:]

    def _sum_up(self) -> None:
        x = self._block[: self._waiting]
        self._waiting = 0
        for first in range(0, x.shape[1], STRIP):
            strip = slice(first, first + STRIP)
            self._xx[strip, first:] += x[:, strip].T @ x[:, first:]
        self._x += x.sum(0)


def ridge_memory(inputs: int, outputs: int) -> int:
    """Bytes that a RidgeFit holds at most: while solving, three sets of the equations, and its rows and token sums."""
    return 24 * inputs * (inputs + outputs) + 4 * BLOCK * (3 * inputs + 2 * outputs)


class _TokenSums:
    """Sums of the states of each token, which has one row, until as many different tokens as have room are met."""

    def __init__(self, room: int, inputs: int, outputs: int, device: torch.device) -> None:
        self._places: dict[int, int] = {}  # of the tokens
        self._sums = torch.zeros(room, inputs, dtype=torch.float32, device=device)
        self._rows = torch.zeros(room, outputs, dtype=torch.float32, device=device)

    def add(self, x: Tensor, y: Tensor, ids: Tensor) -> bool:
        """Takes states x (N, D), rows y (N, H) and ids (N,); False, and nothing taken, where room is wanting."""
        tokens = ids.tolist()
        fresh = dict.fromkeys(token for token in tokens if token not in self._places)
        if len(self._places) + len(fresh) > len(self._sums):
            return False
        self._places |= {token: len(self._places) + index for index, token in enumerate(fresh)}
        places = torch.tensor([self._places[token] for token in tokens], device=x.device)
        self._sums.index_add_(0, places, x)
        self._rows[places] = y
        return True

    def drain(self) -> Tensor:
        """x'y (D, H) of all that was taken since the last time; forgets it."""
        used = len(self._places)
        self._places.clear()
        product = self._sums[:used].T @ self._rows[:used]
        self._sums[:used] = 0
        return product


def pre_image(rows: Tensor, activation: str) -> Tensor:
    """The LayerNorm output that the activation turns into `rows`, or into the nearest value that it can give.

    Bounded ones are cut at 0.99. GELU and SiLU take the branch right of their minimum, and values below the minimum
    the minimum's place; negative values of ReLU go to zero.
    """
    if activation == "identity":
        return rows
    if activation == "tanh":
        return rows.clamp(-_CEILING, _CEILING).atanh()
    if activation == "softsign":
        cut = rows.clamp(-_CEILING, _CEILING)
        return cut / (1 - cut.abs())
    if activation == "asinh":
        return rows.sinh()
    if activation == "relu":
        return rows.clamp_min(0)
    if activation in _MINIMUM_PLACE:
        return _invert_rising_branch(rows, activation)
    raise AudioProjectionError(f"unknown projector activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")


_MINIMUM_PLACE = {"gelu": -0.7517915, "silu": -1.2784645}


def _invert_rising_branch(rows: Tensor, activation: str) -> Tensor:
    """Bisection between the minimum's place and row + 1.3: both functions stay less than 1.3 below the identity."""
    low = torch.full_like(rows, _MINIMUM_PLACE[activation])
    high = rows.clamp_min(0) + 1.3
    function = ACTIVATIONS[activation]
    for _ in range(30):
        middle = (low + high) / 2
        below = function(middle) < rows
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def standardise(rows: Tensor) -> Tensor:
    """Each row (..., H) with mean 0 and variance 1 over its channels: a LayerNorm without gain and bias."""
    return F.layer_norm(rows, rows.shape[-1:], eps=NORM_EPS)


def channel_lines(normalised: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """gain (H,), bias (H,): per channel the least-squares line of `targets` (N, H) on `normalised` (N, H)."""
    x, y = normalised.double(), targets.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    gain = ((x - mean_x) * (y - mean_y)).sum(0) / (x - mean_x).square().sum(0).clamp_min(1e-12)
    return gain.float(), (mean_y - gain * mean_x).float()


def r_squared(predicted: Tensor, actual: Tensor) -> float:
    """1 - squared error / variance around the channel means, over all channels of (N, H)."""
    error = (predicted.double() - actual.double()).square().sum()
    total = (actual.double() - actual.double().mean(0)).square().sum()
    return float(1 - error / total.clamp_min(1e-12))


def nearest_embedding_accuracy(predicted: Tensor, ids: Tensor, table: Tensor, table_ids: Tensor) -> float:
    """Share of `predicted` (N, H) whose nearest row of `table` (V, H) belongs to the token `ids` (N,)."""
    nearest = torch.cat([torch.cdist(part, table).argmin(1) for part in predicted.split(1024)])
    return float((table_ids[nearest] == ids).double().mean())


class Reserve:
    """Features kept aside: of the first texts, up to a number of rows that always fits in memory."""

    def __init__(self) -> None:
        self._parts: list[TokenStates] = []
        self.count = 0

    def add(self, features: TokenStates) -> None:
        if self.count < _RESERVED_ROWS:
            self._parts.append(features)
            self.count += len(features.ids)

    def stacked(self) -> tuple[Tensor, Tensor, Tensor]:
        """states (N, L, D), rows (N, H), ids (N,)."""
        states = torch.cat([part.states for part in self._parts])
        rows = torch.cat([part.text_embeddings for part in self._parts])
        return states, rows, torch.tensor([i for part in self._parts for i in part.ids], device=rows.device)


class Split:
    """The features of one pass over texts, dealt out: some held out, some for calibration, the rest to fit on."""

    def __init__(self, texts: int, settings: FitConfig) -> None:
        """`texts`: how many there are; a tenth of them at most is held out, and as many are for calibration."""
        self.aside = min(settings.held_out, max(1, texts // 10))
        if self.aside < settings.held_out:
            log.info("fit: %d texts are held out, not %d: there are %d", self.aside, settings.held_out, texts)
        self.limit = settings.tokens
        self.held_out, self.calibration = Reserve(), Reserve()
        self.table: dict[int, Tensor] = {}  # row of every token id met
        self.tokens = 0

    def stream(self, pairs: Iterable[tuple[str, TokenStates]]) -> Iterator[TokenStates]:
        """Yields the features to fit on, up to the limit of tokens; those kept aside come first and are complete then.

        A text that comes again is left out, or the held-out ones would not be held out. Raises AudioProjectionError
        when nothing is left to fit on.
        """
        seen: set[str] = set()
        for text, features in pairs:
            if text in seen or not features.ids:
                continue
            seen.add(text)
            self.table |= dict(zip(features.ids, features.text_embeddings, strict=True))
            if len(seen) <= 2 * self.aside:
                (self.held_out if len(seen) <= self.aside else self.calibration).add(features)
                continue
            self.tokens += len(features.ids)
            yield features
            if self.tokens >= self.limit:
                return
        if not self.tokens:
            raise AudioProjectionError(
                f"too few different texts to fit on: {len(seen)}, but one is held out and one calibrates; give more "
                "(data.texts, data.path)"
            )


def embedding_table(table: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """rows (V, H) and their token ids (V,) of all tokens met."""
    rows = torch.stack(list(table.values()))
    return rows, torch.tensor(list(table), device=rows.device)
