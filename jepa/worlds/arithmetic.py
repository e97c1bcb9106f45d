"""One formula, two arithmetics: floating point for training, integers for data that are the same on every machine.

A number is a floating-point tensor, or an int64 tensor in units of 2⁻¹⁶ whose products are rounded to the nearest unit.
Which of the two a function computes in is decided by the tensors that it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 16  # fraction bits of the integers


def number(value: Tensor | float, like: Tensor) -> Tensor:
    """Return a constant in floating point, or on integers in units of 2⁻¹⁶, as `like` is."""
    value = torch.as_tensor(value, dtype=torch.float64)
    value = value if like.is_floating_point() else (value * 2**BITS).round()
    return value.to(like)


def whole(a: Tensor) -> Tensor:
    """Return the largest whole numbers, int64, that are at most `a`."""
    return a.floor().long() if a.is_floating_point() else a >> BITS


def times(a: Tensor, b: Tensor) -> Tensor:
    """Return a product of numbers, on integers rounded to the nearest unit."""
    return a * b if b.is_floating_point() else (a * b + 2 ** (BITS - 1)) >> BITS


def matrix_times(a: Tensor, b: Tensor) -> Tensor:
    """Return a matrix product of numbers, on integers rounded once at the end."""
    return a @ b if b.is_floating_point() else (a @ b + 2 ** (BITS - 1)) >> BITS


def unit_vector(angle: Tensor) -> Tensor:
    """Return (sin, cos) [..., 2] of angles from up, clockwise, in radians."""
    if angle.is_floating_point():
        return torch.stack([angle.sin(), angle.cos()], -1)
    return number(unit_vector(angle.double() / 2**BITS), angle)


def ramp(u: Tensor, w: Tensor, end: float, full: float) -> Tensor:
    """Return 1 where u² + w² is at most full², 0 from end² on, a line between."""
    slope = 1 / (end**2 - full**2)
    if u.is_floating_point():  # in place: fresh memory costs more than the arithmetic
        return torch.addcmul(number(end**2 * slope, u), u, u, value=-slope).addcmul_(w, w, value=-slope).clamp_(0, 1)
    squared = times(u, u) + times(w, w)
    return (number(end**2 * slope, u) - times(squared, number(slope, u))).clamp(0, 2**BITS)


def blend(below: Tensor, above: float, share: Tensor) -> Tensor:
    """Return below + share · (above − below); floating-point `below` is overwritten."""
    level = number(above, below)
    return below.lerp_(level, share) if below.is_floating_point() else below + times(share, level - below)
