"""Minimizers of a batched cost, shared by latent inference and by planning.

A cost maps candidates [B, K, Z] to values [B, K]; every problem of the batch is minimized on its own. All minimizers
return the same `Minimum`. None follows gradients into the weights: call them under any grad mode, then evaluate the
cost once at the argmin (the envelope theorem: ∂F/∂w = ∂E/∂w at ž).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Cost = Callable[[Tensor], Tensor]
WINDOW = 5  # rounds of evaluations over which a cost has to fall to count as falling


class ConvergenceWarning(UserWarning):
    """A minimizer ran out of steps while its cost still fell."""


class Minimum(NamedTuple):
    """Where a minimizer ended."""

    argmin: Tensor  # [B, Z] the best candidate found
    value: Tensor  # [B] its cost
    trace: Tensor  # [I, B] the best cost so far, after every round of evaluations; never rises


class Penalty(NamedTuple):
    """A penalty R(z) that need not be smooth, with its proximal map."""

    value: Callable[[Tensor], Tensor]  # z [..., Z] -> [...]
    proximal: Callable[[Tensor, Tensor], Tensor]  # (z [..., Z], step [..., 1]) -> argmin_u R(u) + ‖u − z‖² / (2 step)


def l1(alpha: float) -> Penalty:
    """Return R(z) = α Σ |z_i| with its proximal map, soft-thresholding at α · step (LeCun 2022, section 4.5).

    Raises: ValueError for alpha < 0.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha: expected a number of at least 0, found {alpha}")
    return Penalty(
        lambda z: alpha * z.abs().sum(-1),
        lambda z, step: z.sign() * (z.abs() - alpha * step).clamp(min=0),
    )


@torch.no_grad()
def exhaustive(cost: Cost, candidates: Tensor) -> Minimum:
    """Return the best of the given candidates: argmin_k cost(z_k), all of them in one batch.

    Args: cost: [B, K, Z] -> [B, K]; candidates: [B, K, Z], or [1, K, Z] for the same candidates in every problem.
    Returns: the minimum; on a tie the first candidate; its trace has one row.
    Raises: ValueError if there is no candidate or a cost is not a number.
    """
    if candidates.dim() != 3 or candidates.shape[1] == 0:
        raise ValueError(f"candidates: expected shape [B, K, Z] with K of at least 1, found {list(candidates.shape)}")
    values = _checked(cost(candidates))
    value, index = values.min(1)
    rows = torch.arange(len(values), device=values.device)
    return Minimum(candidates.expand(len(values), -1, -1)[rows, index], value, value[None])


def gradient(cost: Cost, start: Tensor, steps: int = 50, rate: float = 0.1, tolerance: float | None = None) -> Minimum:
    """Return the best end of gradient descent from R restarts, with a step of its own for every restart.

    z ← z − t ∇E(z), with t from Barzilai & Borwein (1988), t = ‖Δz‖² / ⟨Δz, Δ∇⟩; a step that raises the cost is taken
    back and t quartered. One evaluation of cost and gradient per step serves all restarts of all problems.

    Args: cost: [B, R, Z] -> [B, R], differentiable; start: [B, R, Z] restarts; steps: evaluations after the first;
        rate: the first t, in units of z² per unit of cost; tolerance: where to stop (`_settled`), None for all steps.
    Returns: the minimum over restarts. Warns: ConvergenceWarning if the steps run out before the tolerance is met.
    Raises: ValueError if there is no restart, `steps` or `tolerance` is negative, or the cost at the start is nan.
    """
    _check(start, steps, tolerance)
    z, (value, slope) = start.detach(), _value_and_slope(cost, start)
    step = torch.full_like(value, rate)
    trace = [_checked(value).amin(1)]
    for _ in range(steps):
        trial = z - step.unsqueeze(-1) * slope
        trial_value, trial_slope = _value_and_slope(cost, trial)
        better = trial_value <= value  # false for nan, so that a step into the void is taken back
        moved, bent = trial - z, trial_slope - slope
        curvature = (moved * bent).sum(-1)
        newton = moved.square().sum(-1) / curvature.clamp(min=1e-30)
        newton = torch.where(curvature > 0, newton, 4 * step).clamp(max=1e6)
        step = torch.where(better, newton, step / 4)
        keep = better.unsqueeze(-1)
        z, slope = torch.where(keep, trial, z), torch.where(keep, trial_slope, slope)
        value = torch.where(better, trial_value, value)
        trace.append(value.amin(1))
        if _settled(trace, tolerance):
            break
    else:
        _warn("gradient", trace, tolerance)
    return _best(z, value, trace)


def refined(cost: Cost, z: Tensor, steps: int = 0, rate: float = 0.1) -> Minimum:
    """Return where gradient descent from one proposal z [B, Z] for every problem ends; for 0 steps, the proposal.

    Raises: ValueError as `exhaustive` and `gradient` do.
    """
    first = exhaustive(cost, z.unsqueeze(1))
    if not steps:
        return first
    last = gradient(cost, z.unsqueeze(1), steps, rate)
    return last._replace(trace=torch.cat([first.trace, last.trace[1:]]))


def multistart(cost: Cost, points: Tensor, restarts: int, steps: int, rate: float) -> Minimum:
    """Return the end of gradient descent from the best of fixed points [P, Z], `restarts` of them for every problem.

    Raises: ValueError as `exhaustive` and `gradient` do.
    """
    with torch.no_grad():
        values = _checked(cost(points.unsqueeze(0)))
    best = values.topk(restarts, dim=1, largest=False)
    last = gradient(cost, points[best.indices], steps, rate)
    return last._replace(trace=torch.cat([best.values[None, :, 0], last.trace[1:]]))


def fista(
    smooth: Cost, penalty: Penalty, start: Tensor, steps: int = 100, lipschitz: float = 1.0,
    tolerance: float | None = None,
) -> Minimum:  # fmt: skip
    """Return the minimum of a smooth cost plus a penalty by accelerated proximal gradient (Beck & Teboulle 2009).

    u ← prox_{R/L}(v − ∇g(v)/L);  t' = (1 + √(1 + 4t²))/2;  v ← u + (t − 1)/t' (u − u_old). Momentum is dropped
    where it points uphill, ⟨v − u, u − u_old⟩ > 0 (O'Donoghue & Candès 2015), and L doubled where the quadratic bound
    fails, so that `lipschitz` need only be a first guess.

    Args: smooth: [B, R, Z] -> [B, R], differentiable and convex; penalty: R(z) with its proximal map;
        start: [B, R, Z] restarts; steps: proximal steps; lipschitz: first guess of the slope's Lipschitz constant;
        tolerance: as for `gradient`.
    Returns: the minimum of the sum over restarts. Warns, raises: as `gradient`; ValueError also for lipschitz ≤ 0.
    """
    if not lipschitz > 0:
        raise ValueError(f"lipschitz: expected a number above 0, found {lipschitz}")
    _check(start, steps, tolerance)
    u = v = best = start.detach()
    constant = torch.full(start.shape[:-1], float(lipschitz), dtype=start.dtype, device=start.device)
    momentum = torch.ones_like(constant)
    with torch.no_grad():
        value = _checked(smooth(u) + penalty.value(u))
    trace = [value.amin(1)]
    for _ in range(steps):
        at_v, slope = _value_and_slope(smooth, v)
        new, at_new, constant = _proximal_step(smooth, penalty, v, at_v, slope, constant)
        uphill = ((v - new) * (new - u)).sum(-1) > 0
        old = torch.where(uphill, 1.0, momentum)
        momentum = (1 + (1 + 4 * old.square()).sqrt()) / 2
        u, v = new, new + ((old - 1) / momentum).unsqueeze(-1) * (new - u)
        total = at_new + penalty.value(new)
        better = total < value
        value, best = torch.where(better, total, value), torch.where(better.unsqueeze(-1), new, best)
        trace.append(value.amin(1))
        if _settled(trace, tolerance):
            break
    else:
        _warn("fista", trace, tolerance)
    return _best(best, value, trace)


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
        broken = ~(at_new <= bound + slack * (1 + at_v.abs()))  # true for nan, so that no step leads into the void
        if not broken.any():
            break
        constant = torch.where(broken, 2 * constant, constant)
    return new, at_new, constant


def _best(z: Tensor, value: Tensor, trace: list[Tensor]) -> Minimum:
    """Return the best of the restarts z [B, R, Z] by their values [B, R]."""
    lowest, index = value.min(1)
    return Minimum(z[torch.arange(len(z), device=z.device), index], lowest, torch.stack(trace))


def _check(start: Tensor, steps: int, tolerance: float | None) -> None:
    """Raises: ValueError if there is no restart, or `steps` or `tolerance` is below 0."""
    if start.dim() != 3 or start.shape[1] == 0:
        raise ValueError(f"start: expected shape [B, R, Z] with at least one restart, found {list(start.shape)}")
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, found {steps}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance: expected a number of at least 0, found {tolerance}")


def _settled(trace: list[Tensor], tolerance: float | None) -> bool:
    """Return whether over the last rounds the best cost c fell by at most tolerance · (1 + |c|) in every problem."""
    return tolerance is not None and len(trace) > WINDOW and not bool((_excess(trace, tolerance) > 0).any())


def _excess(trace: list[Tensor], tolerance: float) -> Tensor:
    """Return by how much more than it may, relative to 1 + |c|, the best cost fell over the last rounds, [B]."""
    fall = trace[max(-WINDOW - 1, -len(trace))] - trace[-1]
    return (fall / (1 + trace[-1].abs()) - tolerance).nan_to_num(0.0)  # a cost that stays infinite does not fall


def _warn(name: str, trace: list[Tensor], tolerance: float | None) -> None:
    """Warn of the problems whose cost still fell in the end, with the last value of the one that fell the most."""
    excess = trace[-1].new_zeros(0) if tolerance is None else _excess(trace, tolerance)
    if not (excess > 0).any():
        return
    worst, rounds = excess.argmax(), min(WINDOW, len(trace) - 1)
    count, fall = int((excess > 0).sum()), float(trace[-rounds - 1][worst] - trace[-1][worst])
    warnings.warn(
        f"{name}: not converged after {len(trace) - 1} steps in {count} of {len(excess)} problems; the last value of "
        f"the worst is {float(trace[-1][worst]):.6g}, and it still fell by {fall:.3g} over the last {rounds} steps "
        f"(tolerance {tolerance:g}): give it more steps",
        ConvergenceWarning,
        stacklevel=3,
    )


def _value_and_slope(cost: Cost, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return cost [B, R] and its gradient [B, R, Z], detached from the weights."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = cost(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def _checked(values: Tensor) -> Tensor:
    """Return the values; raise if one is not a number, because every comparison with it would be false."""
    if values.isnan().any():
        raise ValueError(f"cost: expected numbers, found nan in {int(values.isnan().sum())} of {values.numel()} values")
    return values
