"""Gradient descent, from restarts that are given, from one proposal, or from the best of fixed points."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa.minimize.base import (
    Cost,
    Minimum,
    Project,
    anywhere,
    best_restart,
    check_start,
    checked,
    settled,
    warn_unsettled,
)
from jepa.minimize.exhaustive import exhaustive
from jepa.minimize.slope import value_and_slope


def gradient(
    cost: Cost, start: Tensor, steps: int = 50, rate: float = 0.1, tolerance: float | None = None,
    project: Project = anywhere,
) -> Minimum:  # fmt: skip
    """Return the best end of gradient descent from R restarts, with a step of its own for every restart.

    z ← P(z − t ∇E(z)), with t from Barzilai & Borwein (1988), t = ‖Δz‖² / ⟨Δz, Δ∇⟩; a step that raises the cost, or
    leads to a non-finite one, is rejected and t quartered. One evaluation of cost and gradient per step serves all
    restarts of all problems.

    Args: cost: [B, R, N] -> [B, R], differentiable; start: [B, R, N] restarts; steps: evaluations after the first;
        rate: the first t, in units of z² per unit of cost; tolerance: where to stop (`base.settled`), None for all
        steps, without waiting for an accelerator; project: P, onto a convex set that no candidate leaves.
    Returns: the minimum over restarts. Warns: ConvergenceWarning if the steps run out before the tolerance is met.
    Raises: ValueError if there is no restart, `steps` or `tolerance` is negative, or the cost at the start is nan (on
        an accelerator its value is nan instead).
    """
    check_start(start, steps, tolerance)
    z = project(start.detach())
    value, slope = value_and_slope(cost, z)
    step = torch.full_like(value, rate)
    trace = [checked(value).amin(1)]
    for _ in range(steps):
        trial = project(z - step.unsqueeze(-1) * slope)
        trial_value, trial_slope = value_and_slope(cost, trial)
        better = trial_value <= value  # false for nan: a step to a non-finite cost is rejected
        step = torch.where(better, _next_step(step, trial - z, trial_slope - slope), step / 4)
        value = torch.where(better, trial_value, value)
        keep = better.unsqueeze(-1)
        z, slope = torch.where(keep, trial, z), torch.where(keep, trial_slope, slope)
        trace.append(value.amin(1))
        if settled(trace, tolerance):
            break
    else:
        warn_unsettled("gradient", trace, tolerance)
    return best_restart(z, value, trace)


def _next_step(step: Tensor, moved: Tensor, bent: Tensor) -> Tensor:
    """Return the step size [B, R] of Barzilai & Borwein, four times the last one where the cost is not convex."""
    curvature = (moved * bent).sum(-1)
    newton = moved.square().sum(-1) / curvature.clamp(min=1e-30)
    return torch.where(curvature > 0, newton, 4 * step).clamp(max=1e6)


def refined(cost: Cost, z: Tensor, steps: int = 0, rate: float = 0.1) -> Minimum:
    """Return where gradient descent from one proposal z [B, N] for every problem ends; for 0 steps, the proposal.

    Raises: ValueError as `exhaustive` and `gradient` do.
    """
    first = exhaustive(cost, z.unsqueeze(1))
    if not steps:
        return first
    last = gradient(cost, z.unsqueeze(1), steps, rate)
    return last._replace(trace=torch.cat([first.trace, last.trace[1:]]))


def multistart(cost: Cost, points: Tensor, restarts: int, steps: int, rate: float) -> Minimum:
    """Return the end of gradient descent from the best of fixed points [P, N], `restarts` of them for every problem.

    Raises: ValueError as `exhaustive` and `gradient` do (on an accelerator points whose cost is nan come last).
    """
    with torch.no_grad():
        values = checked(cost(points.unsqueeze(0)))
    best = values.topk(restarts, dim=1, largest=False)
    last = gradient(cost, points[best.indices], steps, rate)
    return last._replace(trace=torch.cat([best.values[None, :, 0], last.trace[1:]]))
