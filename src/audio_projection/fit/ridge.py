"""Streaming closed-form ridge regression from LLM states to text embeddings, scored on held-out texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from audio_projection.alignment.token_states import TokenStates
from audio_projection.devices import float64_device, to_float64
from audio_projection.errors import AudioProjectionError
from audio_projection.projector import ACTIVATIONS

if TYPE_CHECKING:
    from audio_projection.config import FitConfig

log = logging.getLogger(__name__)

NORM_EPS = 1e-5  # of torch.nn.LayerNorm
_CEILING = 0.99  # targets of bounded activations are clamped to it: beyond 1 they have no finite pre-image
BLOCK = 16384
"""Rows whose products are summed in float32; the sums of the blocks are added in float64."""
STRIP = 512
"""Rows of the symmetric x'x that are computed at once, from the diagonal to the right."""
RESERVED_TOKENS = 8192
"""Most tokens kept in memory for calibration and for the held-out measurement, each."""


class RidgeFit:
    """Normal equations of a ridge regression with intercept, accumulated in a stream: x (N, D) -> y (N, H).

    x are hidden states; y are targets that depend on the token alone. Products are taken block by block in float32, on
    states minus the mean of the first ones (a few channels of an LLM are hundreds of times larger than the rest and
    hardly vary), and summed in float64. Two things make them cheap: only the upper half of the symmetric x'x is
    computed, and for x'y the states of the same token are summed first, because they share one target. Memory:
    `ridge_memory`, 1.7 GB for 4096 -> 2048. The strength of the ridge is relative to each input's own variance.
    """

    def __init__(self, inputs: int, outputs: int, device: torch.device | str = "cpu", block: int = BLOCK) -> None:
        self.device = float64_device(torch.device(device))
        self.count = 0
        self._xx = torch.zeros(inputs, inputs, dtype=torch.float64, device=self.device)  # upper half only
        self._xy = torch.zeros(inputs, outputs, dtype=torch.float64, device=self.device)
        self._x = torch.zeros(inputs, dtype=torch.float64, device=self.device)
        self._y = torch.zeros(outputs, dtype=torch.float64, device=self.device)
        self._shift: Tensor | None = None
        self._block = torch.empty(block, inputs, dtype=torch.float32, device=self.device)
        self._filled = 0  # rows of the block that are filled
        self._tokens = _TokenSums(2 * block, inputs, outputs, self.device)

    def add(self, x: Tensor, y: Tensor, ids: Tensor) -> None:
        """Adds N rows: x (N, D), y (N, H) and token ids (N,). Rows of y with equal ids must be equal."""
        if not len(ids):
            return
        x, y = x.to(self.device, torch.float32), y.to(self.device, torch.float32)
        if self._shift is None:
            self._shift = x.mean(0)
        self.count += len(ids)
        self._y += y.sum(0)
        while len(ids):
            taken = min(len(self._block) - self._filled, len(ids))
            rows = self._block[self._filled : self._filled + taken]
            torch.sub(x[:taken], self._shift, out=rows)
            if not self._tokens.add(rows, y[:taken], ids[:taken]):
                self._xy += self._tokens.drain()
                fits = self._tokens.add(rows, y[:taken], ids[:taken])
                assert fits, "there is room for as many tokens as a block has rows"
            x, y, ids = x[taken:], y[taken:], ids[taken:]
            self._filled += taken
            if self._filled == len(self._block):
                self._add_block()

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """The solution for one ridge strength: weight (H, D) and bias (H,), float32; the intercept isn't penalised.

        Raises AudioProjectionError when nothing was added or the system cannot be solved.
        """
        if not self.count:
            raise AudioProjectionError("nothing to fit on: no text gave a token; give texts with words in them")
        self._add_block()
        self._xy += self._tokens.drain()
        assert self._shift is not None, "it is set with the first rows"
        mean_x, mean_y = self._x / self.count, self._y / self.count
        whole = torch.triu(self._xx) + torch.triu(self._xx, 1).T
        gram = torch.addr(whole, mean_x, mean_x, alpha=-self.count).div_(self.count)
        cross = torch.addr(self._xy, mean_x, mean_y, alpha=-self.count).div_(self.count)
        variance, square = gram.diagonal(), whole.diagonal() / self.count + self._shift.double().square()
        # the variance of a constant channel is rounding error: the channel gets no weight
        scale = torch.where(variance > 1e-10 * square, variance.clamp_min(1e-30).rsqrt(), 0.0)
        del whole
        gram.mul_(scale[:, None]).mul_(scale[None, :]).diagonal().add_(strength)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise AudioProjectionError(f"a ridge of {strength:g} is too weak for {self.count} tokens; raise fit.ridges")
        solution = torch.cholesky_solve(cross.mul_(scale[:, None]), factor).mul_(scale[:, None])
        return solution.T.float().contiguous(), (mean_y - (mean_x + self._shift) @ solution).float()

    def best(
        self, strengths: Sequence[float], score: Callable[[Tensor, Tensor], float]
    ) -> tuple[float, Tensor, Tensor]:
        """(strength, weight, bias) of the solution with the highest `score` (of weight and bias).

        Strengths that are too weak to solve are skipped and logged; AudioProjectionError when all are.
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
            value = score(weight, bias)
            if best is None or value > best[0]:
                best = value, strength, weight, bias
        assert best is not None, "the strongest ridge was solved or its error raised"
        return best[1:]

    def _add_block(self) -> None:
        x = self._block[: self._filled]
        self._filled = 0
        for first in range(0, x.shape[1], STRIP):
            strip = slice(first, first + STRIP)
            self._xx[strip, first:] += x[:, strip].T @ x[:, first:]
        self._x += x.sum(0)


def reserve_memory(states: int) -> int:
    """Memory in bytes of the states that a Split keeps aside; `states`: numbers of one token, L x D."""
    return 2 * 4 * RESERVED_TOKENS * states


def ridge_memory(inputs: int, outputs: int) -> int:
    """Peak memory of a RidgeFit in bytes: three copies of the equations while solving, its block and token sums."""
    return 24 * inputs * (inputs + outputs) + 4 * BLOCK * (3 * inputs + 2 * outputs)


class _TokenSums:
    """Sums of the states of each token, with the token's one target; has room for `room` different tokens."""

    def __init__(self, room: int, inputs: int, outputs: int, device: torch.device) -> None:
        self._places: dict[int, int] = {}  # token id -> row of the sums
        self._sums = torch.zeros(room, inputs, dtype=torch.float32, device=device)
        self._targets = torch.zeros(room, outputs, dtype=torch.float32, device=device)

    def add(self, x: Tensor, y: Tensor, ids: Tensor) -> bool:
        """Adds states x (N, D), targets y (N, H) and ids (N,); adds nothing and returns False where room is lacking."""
        tokens = ids.tolist()
        new = dict.fromkeys(token for token in tokens if token not in self._places)
        if len(self._places) + len(new) > len(self._sums):
            return False
        self._places |= {token: len(self._places) + index for index, token in enumerate(new)}
        places = torch.tensor([self._places[token] for token in tokens], device=x.device)
        self._sums.index_add_(0, places, x)
        self._targets[places] = y
        return True

    def drain(self) -> Tensor:
        """x'y (D, H) of everything added since the last call; clears the sums."""
        used = len(self._places)
        self._places.clear()
        product = self._sums[:used].T @ self._targets[:used]
        self._sums[:used] = 0
        return product


def pre_image(values: Tensor, activation: str) -> Tensor:
    """Inverse of an activation, elementwise; values that it cannot give get the inverse of the nearest that it can.

    For bounded activations values are clamped to +-0.99. GELU and SiLU are inverted on the branch right of their
    minimum, and values below the minimum become the place of the minimum; ReLU's negative values become zero. Raises
    AudioProjectionError for an unknown activation.
    """
    if activation == "identity":
        return values
    if activation == "tanh":
        return values.clamp(-_CEILING, _CEILING).atanh()
    if activation == "softsign":
        clamped = values.clamp(-_CEILING, _CEILING)
        return clamped / (1 - clamped.abs())
    if activation == "asinh":
        return values.sinh()
    if activation == "relu":
        return values.clamp_min(0)
    if activation in _MINIMUM_PLACE:
        return _invert_rising_branch(values, activation)
    raise AudioProjectionError(f"unknown projector activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")


_MINIMUM_PLACE = {"gelu": -0.7517915, "silu": -1.2784645}


def _invert_rising_branch(values: Tensor, activation: str) -> Tensor:
    """Inverse by bisection, between the minimum's place and value + 1.3: GELU and SiLU are at most 1.3 below y = x."""
    low = torch.full_like(values, _MINIMUM_PLACE[activation])
    high = values.clamp_min(0) + 1.3
    function = ACTIVATIONS[activation]
    for _ in range(30):
        middle = (low + high) / 2
        below = function(middle) < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def standardise(values: Tensor) -> Tensor:
    """Vectors (..., H) with mean 0 and variance 1 over their channels: a LayerNorm without gain and bias."""
    return F.layer_norm(values, values.shape[-1:], eps=NORM_EPS)


def channel_lines(normalised: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """gain (H,) and bias (H,): the least-squares line of `targets` (N, H) on `normalised` (N, H) in each channel."""
    x, y = to_float64(normalised), to_float64(targets)
    mean_x, mean_y = x.mean(0), y.mean(0)
    gain = ((x - mean_x) * (y - mean_y)).sum(0) / (x - mean_x).square().sum(0).clamp_min(1e-12)
    return gain.float(), (mean_y - gain * mean_x).float()


def r_squared(predicted: Tensor, actual: Tensor) -> float:
    """Coefficient of determination over all channels of (N, H): 1 - squared error / variance around channel means."""
    predicted, actual = to_float64(predicted), to_float64(actual)
    error = (predicted - actual).square().sum()
    total = (actual - actual.mean(0)).square().sum()
    return float(1 - error / total.clamp_min(1e-12))


class Reserve:
    """Tokens (states, text embeddings, ids) kept out of the regression, up to a number that fits in memory."""

    def __init__(self) -> None:
        self._parts: list[TokenStates] = []
        self.count = 0

    def add(self, tokens: TokenStates) -> None:
        """Keeps the tokens of one text, unless the reserve is full."""
        if self.count < RESERVED_TOKENS:
            self._parts.append(tokens)
            self.count += len(tokens.ids)

    def stacked(self) -> tuple[Tensor, Tensor, Tensor]:
        """states (N, L, D), text embeddings (N, H) and token ids (N,) of all texts together."""
        states = torch.cat([part.states for part in self._parts])
        embeddings = torch.cat([part.text_embeddings for part in self._parts])
        ids = [token for part in self._parts for token in part.ids]
        return states, embeddings, torch.tensor(ids, device=embeddings.device)

    def moved(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """As `stacked`, on a device."""
        states, embeddings, ids = self.stacked()
        return states.to(device), embeddings.to(device), ids.to(device)


class Split:
    """Splits the texts of one pass: the first are held out, the next are for calibration, the rest are fitted on."""

    def __init__(self, texts: int, settings: FitConfig) -> None:
        """`texts`: how many there are; at most a tenth of them is held out, and as many are for calibration."""
        self.aside = min(settings.held_out, max(1, texts // 10))
        if self.aside < settings.held_out:
            log.info("fit: %d texts are held out, not %d: there are %d", self.aside, settings.held_out, texts)
        self.limit = settings.tokens
        self.held_out, self.calibration = Reserve(), Reserve()
        self.table: dict[int, Tensor] = {}  # text embedding (H,) of every token id in the texts
        self.fitted: set[int] = set()  # token ids in the texts that are fitted on
        self.tokens = 0

    def stream(self, pairs: Iterable[tuple[str, TokenStates]]) -> Iterator[TokenStates]:
        """Yields the texts to fit on, up to the limit of tokens. Held-out and calibration texts come before the first.

        Repeated texts are skipped, otherwise a held-out text could be fitted on. Raises AudioProjectionError when
        nothing is left to fit on.
        """
        seen: set[str] = set()
        for text, tokens in pairs:
            if text in seen or not tokens.ids:
                continue
            seen.add(text)
            for token, embedding in zip(tokens.ids, tokens.text_embeddings, strict=True):
                self.table[token] = embedding.clone()  # a view would keep the embeddings of the whole text
            if len(seen) <= 2 * self.aside:
                (self.held_out if len(seen) <= self.aside else self.calibration).add(tokens)
                continue
            self.tokens += len(tokens.ids)
            self.fitted.update(tokens.ids)
            yield tokens
            if self.tokens >= self.limit:
                return
        if not self.tokens:
            raise AudioProjectionError(
                f"too few different texts to fit on: {len(seen)}, but one is held out and one calibrates; give more "
                "(data.texts, data.path)"
            )


def embedding_table(table: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """A dict of token id -> text embedding (H,) as tensors: embeddings (V, H) and token ids (V,)."""
    embeddings = torch.stack(list(table.values()))
    return embeddings, torch.tensor(list(table), device=embeddings.device)
