"""Measures of an energy landscape: minima, volumes and the dimension of the region of low energy.

They know a free energy only as a function of points, F: y [N, D] -> [N], so that any model, formula or planner's cost
can be measured. The source text argues in volumes of low energy (LeCun 2022, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

FreeEnergy = Callable[[Tensor], Tensor]


class Box(NamedTuple):
    """An axis-parallel box: the space whose share is called volume."""

    low: Tensor  # [D]
    high: Tensor  # [D]


class Walk(NamedTuple):
    """How a volume is estimated: walkers, moves of each between two levels, and the share that survives a level."""

    chains: int = 256
    moves: int = 8
    survivors: float = 0.25


WALK = Walk()


def grid(box: Box, points: int) -> Tensor:
    """Return the centers [P², 2] of P × P equal cells of a two-dimensional box, first axis slowest.

    Raises: ValueError if the box is not two-dimensional or points < 1.
    """
    if box.low.shape != (2,):
        raise ValueError(f"box: expected two dimensions for a grid, found {box.low.numel()}")
    if points < 1:
        raise ValueError(f"points: expected at least 1 per axis, found {points}")
    at = (torch.arange(points, dtype=box.low.dtype) + 0.5) / points
    axes = [low + at * (high - low) for low, high in zip(*box, strict=True)]
    return torch.cartesian_prod(*axes)


def minima(values: Tensor) -> Tensor:
    """Return which cells of a grid of energies [P, Q] are local minima among their eight neighbors, [P, Q] booleans.

    Of neighbors that tie exactly the last one counts, so that a flat valley of two cells is one minimum.
    """
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1), value=math.inf)
    low = torch.ones_like(values, dtype=torch.bool)
    rows, columns = values.shape
    for down in range(3):
        for right in range(3):
            if (down, right) == (1, 1):
                continue
            neighbor = padded[down : down + rows, right : right + columns]
            later = (down, right) > (1, 1)
            low &= values < neighbor if later else values <= neighbor
    return low


def log_volumes(
    free_energy: FreeEnergy, box: Box, epsilons: Sequence[float], generator: Generator, walk: Walk = WALK
) -> Tensor:
    """Return log V(ε), the logarithm of the share of the box where F < ε, for falling ε.

    Subset simulation (Au & Beck 2001): uniform points of the box; again and again the quarter with the lowest energy
    survives, is multiplied and spread by a random walk that never leaves {F < level}; log V(level) falls by log 4 each
    time. So volumes far below one over the number of evaluations can be measured. The error of log V is about
    √(3 levels / chains) times a small factor for the walk's memory.

    Args: free_energy: [N, D] -> [N]; box: the space; epsilons: above 0, falling; walk: cost of the estimate.
    Returns: [len(epsilons)], at most 0; −∞ where the search ended before it found a point.
    Raises: ValueError if `epsilons` do not fall or are not above 0, or an energy is not finite.
    """
    if not epsilons or min(epsilons) <= 0 or any(a <= b for a, b in zip(epsilons, epsilons[1:], strict=False)):
        raise ValueError(f"epsilons: expected falling numbers above 0, found {list(epsilons)}")
    extent = box.high - box.low
    points = box.low + extent * torch.rand(walk.chains, len(extent), generator=generator)
    values, scale, log_share, result = _energies(free_energy, points), torch.tensor(0.3), 0.0, []
    for epsilon in epsilons:
        for _ in range(400):  # 400 quarterings are 240 orders of magnitude: the search has failed, not the volume
            level = float(values.quantile(walk.survivors))
            below = values < level
            if level <= epsilon or not below.any():
                break
            log_share += math.log(float(below.double().mean()))
            survivors = below.nonzero().squeeze(1)
            index = survivors[torch.arange(walk.chains) % len(survivors)]
            state = (points[index], values[index], scale)
            points, values, scale = _spread(free_energy, box, level, state, (walk.moves, generator))
        share = float((values < epsilon).double().mean())
        result.append(log_share + math.log(share) if share > 0 else -math.inf)
    return torch.tensor(result, dtype=torch.float64)


def codimension(epsilons: Sequence[float], volumes: Tensor) -> float:
    """Return twice the slope of log V(ε) against log ε: the number of dimensions the region of low energy lacks.

    Where F is the squared distance to a d-dimensional set of R^D, V(ε) grows as ε^((D − d)/2) while √ε is small
    against the set's radius of curvature (Weyl's tube formula).

    Args: epsilons: thresholds; volumes: log V(ε) of each.
    Raises: ValueError for fewer than two thresholds, other than one volume each, or a volume of zero.
    """
    if len(epsilons) < 2 or len(volumes) != len(epsilons) or not bool(volumes.isfinite().all()):
        raise ValueError(
            f"volumes: expected finite log volumes of at least two epsilons, one each, found {volumes.tolist()}"
        )
    x = torch.tensor(epsilons, dtype=torch.float64).log()
    x, y = x - x.mean(), volumes - volumes.mean()
    return float(2 * (x * y).sum() / x.square().sum())


def _spread(free_energy: FreeEnergy, box: Box, level: float, state: tuple, steps: tuple[int, Generator]) -> tuple:
    """Move walkers within the box where F < level; steps adapt to an acceptance near one third."""
    points, values, scale = state
    moves, generator = steps
    extent = box.high - box.low
    for _ in range(moves):
        noise = torch.randn(points.shape, generator=generator)
        # a step length of its own for every walker bridges wide and narrow directions of the region
        length = scale * torch.rand(len(points), 1, generator=generator) * 2
        trial = points + length * extent * noise / math.sqrt(points.shape[1])
        inside = ((trial >= box.low) & (trial <= box.high)).all(1)
        trial = torch.where(inside.unsqueeze(1), trial, points)
        energies = _energies(free_energy, trial)
        accepted = inside & (energies < level)
        points = torch.where(accepted.unsqueeze(1), trial, points)
        values = torch.where(accepted, energies, values)
        scale = (scale * math.exp(float(accepted.double().mean()) - 0.33)).clamp(1e-6, 1.0)
    return points, values, scale


def _energies(free_energy: FreeEnergy, points: Tensor) -> Tensor:
    """Return F [N], checked."""
    with torch.no_grad():
        values = free_energy(points)
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise ValueError(f"free_energy: expected finite numbers, found nan or infinity at {bad} points")
    return values
