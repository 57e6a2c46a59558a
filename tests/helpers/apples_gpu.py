"""Apple's GPU emulated on the CPU: tensors that say they are on `mps`, and no float64 among them.

Inside `apples_gpu()` whatever is computed with such tensors, or made on `device="mps"`, is computed by the CPU and says
it is on mps. As on a Mac, float64 there is an error, and so is a product of tensors of both devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

MPS = torch.device("mps")
WIDE = (torch.float64, torch.complex128)
MOVES = {"to", "cpu", "copy_", "__get__", "__set__", "__getitem__", "__setitem__", "index_add_", "scatter_"}
"""What may meet tensors of both devices: moves, and indices of the CPU."""
QUESTIONS = {"device", "_parse_to", "_has_compatible_shallow_copy_type", "is_floating_point", "dim"}
"""What computes nothing."""


class OnApplesGPU(Tensor):
    """A CPU tensor that says it is on mps."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return MPS


class AppleRules(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        if name in QUESTIONS:
            return function(*arguments, **options or {})
        leaves = tree_leaves((arguments, options or {}))
        there = any(isinstance(leaf, OnApplesGPU) for leaf in leaves)
        if there and name not in MOVES:
            strangers = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnApplesGPU)]
            if any(stranger.ndim for stranger in strangers):
                raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found cpu and mps:0")
        if name == "copy_":
            there = isinstance(arguments[0], OnApplesGPU)
        asked = [torch.device(leaf) for leaf in leaves if _is_device(leaf)] if name != "__get__" else []
        if asked:
            there = asked[-1].type == "mps"
        if name == "cpu":
            there = False
        inner, keywords = tree_map(_here, (arguments, options or {}))
        made = function(*inner, **keywords)
        return tree_map(_there if there else _plain, made)


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device) or (isinstance(value, str) and value.split(":")[0] in ("mps", "cpu"))


def _here(value: Any) -> Any:
    return torch.device("cpu") if _is_device(value) else value


def _there(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.dtype in WIDE:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    return value if isinstance(value, OnApplesGPU) else value.as_subclass(OnApplesGPU)  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, OnApplesGPU) else value


@contextmanager
def apples_gpu() -> Iterator[torch.device]:
    """Gives the device; modules go there by `.to(device)` as on a Mac."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with AppleRules():
            yield MPS
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
