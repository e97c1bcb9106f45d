"""The cost and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa.minimize.base import Cost


def value_and_slope(cost: Cost, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return cost [B, R] and its gradient [B, R, N], detached from the weights."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = cost(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope
