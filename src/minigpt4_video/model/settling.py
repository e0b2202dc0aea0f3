"""Functions of MKL called once before several threads call them at the same time.

PyTorch computes sines, roots and the like on Intel's processors by MKL, which looks for its kernel at each function's
first call. Where threads make that call together, one of them may be given a kernel that errs in the fourth decimal,
for this one call (pytorch/pytorch#188792): the first answer of a process, or the first step of a resumed training, was
another one in a run of a hundred.
"""

import torch

FUNCTIONS = (
    torch.sin, torch.cos, torch.tan, torch.tanh, torch.sqrt, torch.exp, torch.expm1,
    torch.log, torch.log2, torch.log10, torch.log1p, torch.erf, torch.erfc, torch.erfinv,
)  # fmt: skip
"""Rotary angles take the first two, optimisers roots, losses and sampling the rest."""


def settle_functions() -> None:
    """Call each of the functions on one number, which one thread does. Of no effect on what they return later."""
    for kind in (torch.float32, torch.float64):
        half = torch.full((1,), 0.5, dtype=kind, device="cpu")
        for function in FUNCTIONS:
            function(half)
