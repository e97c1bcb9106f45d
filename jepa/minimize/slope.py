"""The cost and its gradient, under any grad mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from jepa.minimize.base import Cost


def value_and_slope(cost: Cost, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return cost [B, R] and its gradient [B, R, N], detached from the weights."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), _Recorded():
            return value_and_slope(cost, z)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = cost(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


class _Recorded(TorchFunctionMode):
    """Every operation sees inference tensors as normal ones over the same memory.

    A cost is a function of z, but it holds representations as well, and autograd refuses to save those that were made
    in inference mode.
    """

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Return what the function makes of normal tensors."""
        return function(*_normal(args), **{name: _normal(value) for name, value in (kwargs or {}).items()})


def _normal(value: Any) -> Any:
    """Return an argument with normal tensors in place of inference tensors, in lists and tuples too."""
    if isinstance(value, Tensor):
        return value.new_empty(0).set_(value) if value.is_inference() else value
    return type(value)(map(_normal, value)) if type(value) in (list, tuple) else value
