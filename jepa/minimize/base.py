"""What all minimizers share: the cost, the minimum, and the checks on the way from one to the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Cost = Callable[[Tensor], Tensor]  # candidates [B or 1, K, N] -> values [B, K]; of N numbers, a latent's or a plan's
Project = Callable[[Tensor], Tensor]  # candidates [B or 1, K, N] -> the same shape, each in the set that is allowed
WINDOW = 5  # rounds of evaluations over which a cost has to fall to count as falling


class ConvergenceWarning(UserWarning):
    """A minimizer ran out of steps while its cost still fell."""


class Minimum(NamedTuple):
    """Where a minimizer ended."""

    argmin: Tensor  # [B, N] the best candidate found
    value: Tensor  # [B] its cost
    trace: Tensor  # [I, B] the best cost so far, after every round of evaluations; never rises


def anywhere(candidates: Tensor) -> Tensor:
    """Return the candidates: the projection onto the set that is allowed where everything is."""
    return candidates


def best_restart(z: Tensor, value: Tensor, trace: list[Tensor]) -> Minimum:
    """Return the best of the restarts z [B, R, N] by their values [B, R]."""
    lowest, index = value.min(1)
    return Minimum(z[torch.arange(len(z), device=z.device), index], lowest, torch.stack(trace))


def check_start(start: Tensor, steps: int, tolerance: float | None) -> None:
    """Raises: ValueError if there is no restart, or `steps` or `tolerance` is below 0."""
    if start.dim() != 3 or start.shape[1] == 0:
        raise ValueError(f"start: expected shape [B, R, N] with at least one restart, found {list(start.shape)}")
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, found {steps}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance: expected a number of at least 0, found {tolerance}")


def checked(values: Tensor) -> Tensor:
    """Return the values; raise if one is not a number, because every comparison with it would be false.

    On an accelerator, which would have to be waited for, nothing is raised: there a nan stays nan and shows in the
    value of the result.
    """
    if values.device.type == "cpu" and values.isnan().any():
        raise ValueError(f"cost: expected numbers, found nan in {int(values.isnan().sum())} of {values.numel()} values")
    return values


def settled(trace: list[Tensor], tolerance: float | None) -> bool:
    """Return whether over the last rounds the best cost c fell by at most tolerance · (1 + |c|) in every problem."""
    return tolerance is not None and len(trace) > WINDOW and not bool((_excess(trace, tolerance) > 0).any())


def warn_unsettled(name: str, trace: list[Tensor], tolerance: float | None) -> None:
    """Warn of the problems whose cost still fell in the end, with the last value of the one that fell the most."""
    if tolerance is None:
        return
    excess = _excess(trace, tolerance)
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


def _excess(trace: list[Tensor], tolerance: float) -> Tensor:
    """Return by how much more than it may, relative to 1 + |c|, the best cost fell over the last rounds, [B]."""
    fall = trace[max(-WINDOW - 1, -len(trace))] - trace[-1]
    return (fall / (1 + trace[-1].abs()) - tolerance).nan_to_num(0.0)  # a cost that stays infinite does not fall
