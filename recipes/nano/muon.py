"""Muon: momentum, orthogonalised, for the matrices and convolutions inside a network (K. Jordan et al., 2024)."""

from typing import Any

import torch
from torch import Tensor


def orthogonalise(matrices: Tensor) -> Tensor:
    """Nearest semi-orthogonal ones of matrices (n, rows, columns) by four Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(4):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """In float32: bfloat16 is slow on most CPUs.  The update has the size that AdamW's would have."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    alike.setdefault(param.shape, []).append(param)
            for params in alike.values():
                self.update(params, group)

    def update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """One step of parameters of one shape, all at once: on a GPU one after another they would wait for launches."""
        averages = [self.state[each].setdefault("momentum", torch.zeros_like(each)) for each in params]
        gradients = [each.grad for each in params]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        # A convolution is a matrix from all that it sees to its output.
        updates = orthogonalise(torch.stack([each.flatten(1) for each in ahead]))
        size = 0.2 * max(updates.shape[1:]) ** 0.5
        torch._foreach_mul_(params, 1 - group["lr"] * group["decay"])
        torch._foreach_add_(params, [each.view_as(params[0]) for each in updates], alpha=-group["lr"] * size)
