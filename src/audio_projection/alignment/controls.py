"""What is spoken instead of the projected states, to show that the speech comes from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from audio_projection.errors import AudioProjectionError

if TYPE_CHECKING:
    from torch import Tensor

Control = Literal["plain", "shuffled", "other"]
CONTROLS: tuple[Control, ...] = get_args(Control)
"""plain: the TTS's own text rows; shuffled: the states change places within the sentence; other: another sentence's."""

_OTHERS = (
    "The ferry leaves the old harbour shortly before noon, when the morning fog has lifted.",
    "Nobody had told the gardener that seven yellow tulips would be growing behind the shed.",
)


def check_control(control: str | None) -> None:
    """Raises AudioProjectionError for a control that does not exist."""
    if control is not None and control not in CONTROLS:
        raise AudioProjectionError(f"unknown control {control!r}; choose one of {', '.join(CONTROLS)}")


def shuffled(states: Tensor, seed: int) -> Tensor:
    """States (N, L, D) in one random cycle over the tokens: with two or more, none keeps its own."""
    import torch

    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(seed)).to(states.device)
    mixed = torch.empty_like(states)
    mixed[order] = states[order.roll(1)]
    return mixed


def other_sentence(text: str) -> str:
    """A fixed sentence that is not the text."""
    return next(sentence for sentence in _OTHERS if sentence != text)


def as_long_as(states: Tensor, count: int) -> Tensor:
    """States (M, L, D) of another sentence cut, or begun again, to make (count, L, D)."""
    import torch

    return states[torch.arange(count, device=states.device) % len(states)]
