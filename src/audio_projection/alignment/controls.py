"""Ablation controls: what is spoken instead of the projected states, to show that the speech comes from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from audio_projection.errors import AudioProjectionError

if TYPE_CHECKING:
    from torch import Tensor

Control = Literal["plain", "shuffled", "other"]
CONTROLS: tuple[Control, ...] = get_args(Control)
"""plain: the TTS's own text embeddings; shuffled: the states permuted within the sentence; other: the states of another
sentence."""

_OTHERS = (
    "The ferry leaves the old harbour shortly before noon, when the morning fog has lifted.",
    "Nobody had told the gardener that seven yellow tulips would be growing behind the shed.",
)


def check_control(control: str | None) -> None:
    """Raises AudioProjectionError for a control that does not exist."""
    if control is not None and control not in CONTROLS:
        raise AudioProjectionError(f"unknown control {control!r}; choose one of {', '.join(CONTROLS)}")


def shuffled(states: Tensor, seed: int) -> Tensor:
    """States (N, L, D) permuted over the tokens in one random cycle: with two or more tokens, none keeps its own."""
    import torch

    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(seed)).to(states.device)
    permuted = torch.empty_like(states)
    permuted[order] = states[order.roll(1)]
    return permuted


def other_sentence(text: str) -> str:
    """A fixed sentence that differs from the text."""
    return next(sentence for sentence in _OTHERS if sentence != text)


def as_long_as(states: Tensor, count: int) -> Tensor:
    """States (M, L, D) of another sentence truncated or repeated to (count, L, D)."""
    import torch

    return states[torch.arange(count, device=states.device) % len(states)]
