"""Accelerated proximal gradient, for a smooth cost plus a penalty that need not be smooth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jepa.minimize.base import Cost, Minimum, best_restart, check_start, checked, settled, warn_unsettled
from jepa.minimize.slope import value_and_slope


class Penalty(Protocol):
    """A penalty R(z) that need not be smooth, with its proximal map."""

    def value(self, z: Tensor) -> Tensor:
        """Return R(z) [...] of z [..., N]."""

    def proximal(self, z: Tensor, step: Tensor) -> Tensor:
        """Return argmin_u R(u) + ‖u − z‖² / (2 step) [..., N] of z [..., N] and step [..., 1]."""


@dataclass(frozen=True)
class l1:  # in lower case, like the norm, because it is used as a function
    """R(z) = α Σ |z_i| with its proximal map, soft-thresholding at α · step (LeCun 2022, section 4.5).

    Raises: ValueError for alpha < 0.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ValueError(f"alpha: expected a number of at least 0, found {self.alpha}")

    def value(self, z: Tensor) -> Tensor:
        """Return α Σ |z_i| [...]."""
        return self.alpha * z.abs().sum(-1)

    def proximal(self, z: Tensor, step: Tensor) -> Tensor:
        """Return sign(z_i) max(0, |z_i| − α · step) [..., N]."""
        return z.sign() * (z.abs() - self.alpha * step).clamp(min=0)


def fista(
    smooth: Cost, penalty: Penalty, start: Tensor, steps: int = 100, lipschitz: float = 1.0,
    tolerance: float | None = None,
) -> Minimum:  # fmt: skip
    """Return the minimum of a smooth cost plus a penalty by accelerated proximal gradient (Beck & Teboulle 2009).

    u ← prox_{R/L}(v − ∇g(v)/L);  t' = (1 + √(1 + 4t²))/2;  v ← u + (t − 1)/t' (u − u_old). Momentum is dropped
    where it points uphill, ⟨v − u, u − u_old⟩ > 0 (O'Donoghue & Candès 2015), and L doubled where the quadratic bound
    fails, so that `lipschitz` need only be a first guess; whether it fails anywhere is read from the device in every
    round.

    Args: smooth: [B, R, N] -> [B, R], differentiable and convex; penalty: R(z) with its proximal map;
        start: [B, R, N] restarts; steps: proximal steps; lipschitz: first guess of the slope's Lipschitz constant;
        tolerance: as for `gradient`.
    Returns: the minimum of the sum over restarts. Warns, raises: as `gradient`; ValueError also for lipschitz ≤ 0.
    """
    if not lipschitz > 0:
        raise ValueError(f"lipschitz: expected a number above 0, found {lipschitz}")
    check_start(start, steps, tolerance)
    u = v = best = start.detach()
    constant = torch.full(start.shape[:-1], float(lipschitz), dtype=start.dtype, device=start.device)
    momentum = torch.ones_like(constant)
    with torch.no_grad():
        value = checked(smooth(u) + penalty.value(u))
    trace = [value.amin(1)]
    for _ in range(steps):
        at_v, slope = value_and_slope(smooth, v)
        new, at_new, constant = _proximal_step(smooth, penalty, v, at_v, slope, constant)
        uphill = ((v - new) * (new - u)).sum(-1) > 0
        old = torch.where(uphill, 1.0, momentum)
        momentum = (1 + (1 + 4 * old.square()).sqrt()) / 2
        u, v = new, new + ((old - 1) / momentum).unsqueeze(-1) * (new - u)
        total = at_new + penalty.value(new)
        better = total < value
        value, best = torch.where(better, total, value), torch.where(better.unsqueeze(-1), new, best)
        trace.append(value.amin(1))
        if settled(trace, tolerance):
            break
    else:
        warn_unsettled("fista", trace, tolerance)
    return best_restart(best, value, trace)


@torch.no_grad()
def _proximal_step(smooth: Cost, penalty: Penalty, v: Tensor, at_v: Tensor, slope: Tensor, constant: Tensor):
    """Return the proximal step from v, the smooth cost there, and a Lipschitz constant whose bound holds."""
    slack = 1e-6 if v.dtype == torch.float32 else 1e-12
    for _ in range(60):
        step = (1 / constant).unsqueeze(-1)
        new = penalty.proximal(v - step * slope, step)
        moved = new - v
        bound = at_v + (slope * moved).sum(-1) + constant / 2 * moved.square().sum(-1)
        at_new = smooth(new)
        broken = ~(at_new <= bound + slack * (1 + at_v.abs()))  # true for nan: a step to a non-finite cost is rejected
        if not broken.any():
            break
        constant = torch.where(broken, 2 * constant, constant)
    return new, at_new, constant
