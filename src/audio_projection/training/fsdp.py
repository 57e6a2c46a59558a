"""Tensors that FSDP may have spread over the processes: gathered for a checkpoint, spread again when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The whole `tensor`, which every process has, as `like` is: spread over the processes, or as it is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Whole copies on the CPU of all parameters that train, by name."""
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    return {name: gathered(value.detach()).cpu() for name, value in trained.items()}


def load_trained(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Gives the parameters that train the values of `weights`, which are exactly theirs."""
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    assert trained.keys() == weights.keys(), "the settings say what trains, and they are the same"
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(spread_like(weights[name].to(value.dtype), value))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its `state_dict()` with whole tensors on the CPU."""
    state = optimizer.state_dict()
    moments = {
        index: {name: gathered(value).cpu() for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {"state": moments, "param_groups": state["param_groups"]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Takes up what `optimizer_state` gave."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: spread_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
