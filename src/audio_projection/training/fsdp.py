"""FSDP: sharded parameters and optimizer states gathered for a checkpoint, and sharded again when it is loaded.

Without FSDP the same functions pass the tensors on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def lay_out_in_rows(module: nn.Module) -> None:
    """Makes all parameters contiguous, which FSDP asks for; some of the talker's lie column by column on a CPU."""
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()


def gathered(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one; every process must call this. Any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, which every process has in full, sharded as `like` is; as it is when `like` is not sharded."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Full copies on the CPU of all trainable parameters, by name."""
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    return {name: gathered(value.detach()).cpu() for name, value in trained.items()}


def load_trained(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies `weights` into the trainable parameters; the names must be the same."""
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    assert trained.keys() == weights.keys(), "the settings that decide what trains are the same"
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(sharded_like(weights[name].to(value.dtype), value))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's `state_dict()` with full tensors on the CPU."""
    state = optimizer.state_dict()
    moments = {
        index: {name: gathered(value).cpu() for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {"state": moments, "param_groups": state["param_groups"]}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads what `optimizer_state` returned, sharded as the parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        index: {name: sharded_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
