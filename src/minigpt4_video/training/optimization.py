"""The original's optimiser settings: what decays, and how the learning rate runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

WEIGHT_DECAY = 0.05
UNDECAYED = ("bias", "ln", "bn")


def parameter_groups(
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]], weight_decay: float = WEIGHT_DECAY
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups for AdamW: with decay, and without it for vectors, biases and norms.

    The original's rule (runner_base.py:111-132), by number of dimensions or by name.
    """
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            is_free = parameter.ndim < 2 or any(part in name for part in UNDECAYED)
            (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then a cosine that counts steps from the very beginning, as the original's does
    (optims.py:79-112).

    Because the warm-up is not subtracted, the rate falls a little at the end of it: at `warmup_steps` the cosine has
    already gone that far.
    """

    steps: int
    """Of the whole run: epochs times steps an epoch."""
    warmup_steps: int
    peak: float = 1e-4
    floor: float = 8e-5
    start: float = 1e-6

    def rate(self, step: int) -> float:
        """The learning rate of the step with this number, from 0."""
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / max(self.warmup_steps, 1)
        return self.floor + (self.peak - self.floor) * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))

    def scheduler(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        """For an optimiser whose groups all have the learning rate `peak`."""
        return LambdaLR(optimizer, lambda step: self.rate(step) / self.peak)
