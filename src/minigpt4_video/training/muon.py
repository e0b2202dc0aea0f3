"""Muon for the matrices inside a network, AdamW for everything else, as one optimiser.

Muon (K. Jordan, 2024) replaces a matrix's momentum by the nearest matrix with equal singular values. On models of a few
million parameters trained from nothing it reaches a given loss in far fewer steps than AdamW.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

Parameters = Iterable[tuple[str, torch.nn.Parameter]]

EPS = 1e-5
"""Adam takes a whole step for any gradient far above this. With the usual 1e-8 that holds even for words that do not
occur yet: each is pushed away from every answer in the same direction, until "left" and "right" are one vector."""


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Groups with `muon=True` hold matrices; the others are AdamW's."""

    def __init__(
        self, named: Parameters, *, matrix_rate: float, rate: float, weight_decay: float = 0.01, momentum: float = 0.95
    ) -> None:
        learned = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        matrices = [p for name, p in learned if p.ndim == 2 and not _is_table(name)]
        chosen = {id(parameter) for parameter in matrices}
        rest = [p for _, p in learned if id(p) not in chosen]
        groups = [
            {"params": matrices, "muon": True, "lr": matrix_rate},
            {"params": rest, "muon": False, "lr": rate},
        ]
        defaults = {"lr": rate, "weight_decay": weight_decay, "momentum": momentum, "betas": (0.9, 0.98), "eps": EPS}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if group["muon"]:
                    self._step_matrix(parameter, state, group)
                else:
                    self._step_other(parameter, state, group)
        return loss

    def _step_matrix(self, parameter: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
        update = orthogonal(parameter.grad.lerp(momentum, group["momentum"]))
        scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * scale)

    def _step_other(self, parameter: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        if "step" not in state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(parameter.grad, 1 - first)
        square = state["square"].lerp_(parameter.grad.square(), 1 - second)
        mean = mean / (1 - first ** state["step"])
        root = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        if parameter.ndim > 1:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, root, value=-group["lr"])


def _is_table(name: str) -> bool:
    """Embeddings and output layers are looked up, not multiplied through: AdamW's."""
    return any(word in name for word in ("embed", "words", "head"))


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The matrix with all singular values brought near 1, by a quintic Newton-Schulz iteration in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)
