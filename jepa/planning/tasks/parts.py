"""The parts of a task: what a state must be, what a step must not do, and what has to have happened on the way.

A place is the first X numbers of s, X as many as the part's own points have; lengths are in the unit of s. Points are
[B, …], or [1, …] for the same in all episodes. A part with a memory has `advance` and `done`: its memory of the way is
one whole number, its progress. A part that costs something has `passage`.

The distance of a point c to the segment from s to s' is

    d(c) = ‖c − s − t (s' − s)‖,     t = clamp((c − s)·(s' − s) / ‖s' − s‖², 0, 1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

MOST_PLACES = 20  # of a `Both`: its progress has to be a whole number that float32 holds
TINY = 1e-30  # square length of a segment that is a point


@dataclass(frozen=True)
class Reach:
    """‖s − g‖², which has to be within the search's tolerance at the end (terminal, LeCun 2022, section 3.2).

    Raises: ValueError for a goal that is not [B, X].
    """

    goal: Tensor  # [B, X]

    def __post_init__(self) -> None:
        _check_points("goal", self.goal, 2)

    def squared(self, s: Tensor) -> Tensor:
        """Return square distances [B, K] of states [B, K, D]."""
        return (s[..., : self.goal.shape[-1]] - self.goal.unsqueeze(1)).square().sum(-1)

    def rows(self, index: Tensor) -> Reach:
        """Return the goals of the episodes index [n]."""
        return Reach(_some(self.goal, index))


@dataclass(frozen=True)
class Avoid:
    """weight · [min_n d(c_n) ≤ radius + margin] of every step; an infinite weight forbids it.

    With an infinite weight a step is free that leads from within a disc away from its center, so that who got in by
    chance gets out; from outside none leads in. On the lowest level, of the state s' after a step,

        min(weight, 10⁴) · Σ_n max(0, radius + margin − ‖s' − c_n‖)²

    Raises: ValueError for centers that are not [B, N, X], or a number below 0.
    """

    center: Tensor  # [B, N, X]
    radius: float
    weight: float = math.inf  # in steps of the level that searches
    margin: float = 0.0

    most = 1e4  # a finite weight below: 0.01 within costs 1 square unit, more than a step toward a condition gains

    def __post_init__(self) -> None:
        _check_points("center", self.center, 3)
        _check_numbers(self, "radius", "weight", "margin")

    def passage(self, s: Tensor, after: Tensor, a: Tensor, progress: Tensor | None = None) -> Tensor:
        """Return what steps cost [B, K]."""
        reach = self.radius + self.margin
        if math.isinf(self.weight):
            hit = enters(self.center, s, after, reach).any(-1)
            return torch.where(hit, torch.inf, s.new_zeros(()))
        return self.weight * (segment_distance(self.center, s, after) <= reach).any(-1).to(s.dtype)

    def below(self, s: Tensor, after: Tensor, a: Tensor) -> Tensor:
        """Return what steps of the lowest level cost [B, K], in square units of s."""
        within = self.radius + self.margin - segment_distance(self.center, after, after)
        return min(self.weight, self.most) * within.clamp(min=0).square().sum(-1)

    def rows(self, index: Tensor) -> Avoid:
        """Return the discs of the episodes index [n]."""
        return replace(self, center=_some(self.center, index))


@dataclass(frozen=True)
class Both:
    """Σ_n 2ⁿ [a step has come within radius of place n], fulfilled where it is 2ᴺ − 1: all N, in any order.

    Raises: ValueError for places that are not [B, N, X] with N from 1 to 20, or a radius below 0.
    """

    places: Tensor  # [B, N, X]
    radius: float

    def __post_init__(self) -> None:
        _check_points("places", self.places, 3)
        if not 1 <= self.places.shape[1] <= MOST_PLACES:
            raise ValueError(f"places: expected from 1 to {MOST_PLACES}, found {self.places.shape[1]}")
        _check_numbers(self, "radius")

    def advance(self, progress: Tensor, s: Tensor, after: Tensor, steps: int) -> Tensor:
        """Return the progress [B, K] after steps from s to `after` [B, K, D]."""
        bit = 2 ** torch.arange(self.places.shape[1], device=s.device)
        before = (progress.round().long().unsqueeze(-1) & bit) > 0  # [B, K, N]
        passed = before | (segment_distance(self.places, s, after) <= self.radius)
        return (passed * bit).sum(-1).to(progress.dtype)

    def done(self, progress: Tensor) -> Tensor:
        """Return whether all places were passed."""
        return progress.round() >= 2 ** self.places.shape[1] - 1

    def rows(self, index: Tensor) -> Both:
        """Return the places of the episodes index [n]."""
        return replace(self, places=_some(self.places, index))


@dataclass(frozen=True)
class Through:
    """[a step has come within radius of a place], fulfilled where it is 1. Raises: ValueError as `Both`."""

    place: Tensor  # [B, X]
    radius: float

    def __post_init__(self) -> None:
        _check_points("place", self.place, 2)
        _check_numbers(self, "radius")

    def advance(self, progress: Tensor, s: Tensor, after: Tensor, steps: int) -> Tensor:
        """Return the progress [B, K] after steps from s to `after` [B, K, D]."""
        passed = segment_distance(self.place.unsqueeze(1), s, after)[..., 0] <= self.radius
        return progress.maximum(passed.to(progress.dtype))

    def done(self, progress: Tensor) -> Tensor:
        """Return whether the place was passed."""
        return progress.round() >= 1

    def rows(self, index: Tensor) -> Through:
        """Return the places of the episodes index [n]."""
        return replace(self, place=_some(self.place, index))


@dataclass(frozen=True)
class Late:
    """min(after, steps of the lowest level so far), fulfilled where it is `after`; who comes near before is forbidden.

        passage = ∞ where d(goal) ≤ radius and progress + 1 < after

    A step of an upper level may be there after its first step of the lowest, so one that ends late but begins early is
    forbidden, too. As in `Avoid`, a step is free that leads away from within.

    Raises: ValueError for a goal that is not [B, X], a radius below 0 or `after` that is no whole number of at least 0.
    """

    goal: Tensor  # [B, X]
    radius: float
    after: int  # in steps of the lowest level
    most: Tensor | None = None  # [B] number that no plan gets beyond, its horizon; set by `within`

    def __post_init__(self) -> None:
        _check_points("goal", self.goal, 2)
        _check_numbers(self, "radius", "after")
        if self.after != int(self.after):
            raise ValueError(f"after: expected a whole number, found {self.after}")

    def advance(self, progress: Tensor, s: Tensor, after: Tensor, steps: int) -> Tensor:
        """Return the progress [B, K] after as many steps of the lowest level."""
        counted = (progress + steps).clamp(max=self.after)
        return counted if self.most is None else counted.minimum(self.most.unsqueeze(1))

    def done(self, progress: Tensor) -> Tensor:
        """Return whether it is time."""
        return progress.round() >= self.after

    def passage(self, s: Tensor, after: Tensor, a: Tensor, progress: Tensor) -> Tensor:
        """Return 0 or infinity, [B, K]."""
        early = progress.round() + 1 < self.after
        near = enters(self.goal.unsqueeze(1), s, after, self.radius)[..., 0]
        return torch.where(near & early, torch.inf, s.new_zeros(()))

    def within(self, begun: Tensor, steps: int) -> Late:
        """Return the same for plans that begin at a progress [B] and look `steps` of the lowest level ahead."""
        return replace(self, most=begun + steps)

    def rows(self, index: Tensor) -> Late:
        """Return the goals of the episodes index [n]."""
        most = None if self.most is None else _some(self.most, index)
        return replace(self, goal=_some(self.goal, index), most=most)


@dataclass(frozen=True)
class Little:
    """weight · ‖a‖² of every step, or macro-step. Raises: ValueError for a weight below 0."""

    weight: float

    def __post_init__(self) -> None:
        _check_numbers(self, "weight")
        if math.isinf(self.weight):
            raise ValueError("weight: expected a finite number, found inf")

    def passage(self, s: Tensor, after: Tensor, a: Tensor, progress: Tensor | None = None) -> Tensor:
        """Return what steps cost [B or 1, K]."""
        return self.weight * a.square().sum(-1)

    def rows(self, index: Tensor) -> Little:
        """Return the same: effort is effort in every episode."""
        return self


def segment_distance(points: Tensor, s: Tensor, after: Tensor) -> Tensor:
    """Return distances [B, K, N] of points [B, N, X] to the segments from s to `after` [B, K, D]."""
    offset, along = _from_start(points, s, after)
    t = ((offset * along).sum(-1) / along.square().sum(-1).clamp(min=TINY)).clamp(0, 1)
    return (offset - t.unsqueeze(-1) * along).norm(dim=-1)


def enters(points: Tensor, s: Tensor, after: Tensor, radius: float) -> Tensor:
    """Return whether segments come within a radius of points, other than to lead away from within, [B, K, N]."""
    offset, along = _from_start(points, s, after)
    moves = (along != 0).any(-1)
    away = moves & ((offset * along).sum(-1) <= 0) & (offset.norm(dim=-1) <= radius)
    return (segment_distance(points, s, after) <= radius) & ~away


def _from_start(points: Tensor, s: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return c − s [B, K, N, X] and s' − s [B, K, 1, X]."""
    s, after = (state[..., : points.shape[-1]].unsqueeze(2) for state in (s, after))
    return points.unsqueeze(1) - s, after - s


def _some(points: Tensor, index: Tensor) -> Tensor:
    """Return the points of the episodes index [n]."""
    return points if len(points) == 1 else points[index]


def _check_points(name: str, points: Tensor, axes: int) -> None:
    """Raises: ValueError for points of another number of axes."""
    if points.dim() != axes:
        raise ValueError(f"{name}: expected {'[B, X]' if axes == 2 else '[B, N, X]'}, found {list(points.shape)}")


def _check_numbers(part: Any, *names: str) -> None:
    """Raises: ValueError for numbers below 0, or none."""
    for name in names:
        if not getattr(part, name) >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, found {getattr(part, name)}")
