"""Muon: momentum, orthogonalised, for the matrices and convolutions inside a network (K. Jordan et al., 2024)."""

import torch
from torch import Tensor


def orthogonalise(matrix: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrix by four Newton-Schulz steps."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(4):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """In float32: bfloat16 is slow on most CPUs.  The update has the size that AdamW's would have."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                average = state.setdefault("momentum", torch.zeros_like(param))
                average.lerp_(param.grad, 1 - group["momentum"])
                # A convolution is a matrix from all that it sees to its output.
                update = orthogonalise(param.grad.lerp(average, group["momentum"]).flatten(1))
                param.mul_(1 - group["lr"] * group["decay"])
                param.add_(update.view_as(param), alpha=-group["lr"] * 0.2 * max(update.shape) ** 0.5)
