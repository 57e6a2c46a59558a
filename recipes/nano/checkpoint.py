"""Resumable training of the recipes: one safetensors file with weights, optimiser states and the step."""

import os
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def rate_at(step: int, steps: int, warmup: int = 100) -> float:
    """Share of the peak learning rate: warm-up, constant, linear to zero over the last 55 %."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / (0.55 * steps)))


def prepared(device: torch.device) -> torch.device:
    """The device of a training; a GPU multiplies in TensorFloat-32 there and tries out its ways to convolve."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    return device


class Due:
    """Tells when a checkpoint is due: every so many steps, or after five minutes where steps are slow."""

    SECONDS = 300.0

    def __init__(self, every: int, steps: int) -> None:
        self.every, self.steps, self.last = every, steps, time.monotonic()

    def __call__(self, step: int) -> bool:
        """Whether one is due after `step`; at the last step always."""
        late = time.monotonic() - self.last > self.SECONDS
        if not late and step % self.every and step != self.steps:
            return False
        self.last = time.monotonic()
        return True


def save(path: Path, model: nn.Module, optims: list[torch.optim.Optimizer], step: int) -> None:
    """Replace the checkpoint at once."""
    tensors = dict(model.state_dict())
    for i, optim in enumerate(optims):
        for number, state in optim.state_dict()["state"].items():
            tensors |= {f"optim.{i}.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
    part = path.with_suffix(".part")
    save_file({key: value.contiguous() for key, value in tensors.items()}, part, {"step": str(step)})
    os.replace(part, path)


def load(path: Path, model: nn.Module, optims: list[torch.optim.Optimizer]) -> int:
    """Restore a checkpoint if there is one; returns its step, or 0."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    states = {key: tensors.pop(key) for key in list(tensors) if key.startswith("optim.")}
    for i, optim in enumerate(optims):
        state: dict[int, dict[str, Tensor]] = {}
        for key in [key for key in states if key.startswith(f"optim.{i}.")]:
            _, _, number, name = key.split(".")
            state.setdefault(int(number), {})[name] = states[key]
        optim.load_state_dict({"state": state, "param_groups": optim.state_dict()["param_groups"]})
    model.load_state_dict(tensors)
    return step
