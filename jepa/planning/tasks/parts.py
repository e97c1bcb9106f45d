"""The parts of a task: what a state must be, what a step must not do, and what has to have happened on the way.

A place is the first X numbers of s, X as many as the part's own points have; lengths are in the unit of s. Points are
[B, …], or [1, …] for the same in all episodes. A part with a memory has `advance` and `done`: its memory of the way
is one whole number, its progress. A part that costs something has `passage`. The distance d(c) of a step to a point c
is that of `jepa.planning.tasks.segments`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jepa.planning.tasks.segments import enters, segment_distance

MOST_PLACES = 20  # of a `Both`: its progress has to be a whole number that float32 holds


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

    Plans come within radius − margin, so that who does not follow them exactly still passes.

    Raises: ValueError for places that are not [B, N, X] with N from 1 to 20, a radius or margin below 0, or a margin
        above the radius.
    """

    places: Tensor  # [B, N, X]
    radius: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        _check_points("places", self.places, 3)
        if not 1 <= self.places.shape[1] <= MOST_PLACES:
            raise ValueError(f"places: expected from 1 to {MOST_PLACES}, found {self.places.shape[1]}")
        _check_margin(self)

    def advance(self, progress: Tensor, s: Tensor, after: Tensor, steps: int) -> Tensor:
        """Return the progress [B, K] after steps from s to `after` [B, K, D]."""
        bit = 2 ** torch.arange(self.places.shape[1], device=s.device)
        before = (progress.round().long().unsqueeze(-1) & bit) > 0  # [B, K, N]
        passed = before | (segment_distance(self.places, s, after) <= self.radius)
        return (passed * bit).sum(-1).to(progress.dtype)

    def done(self, progress: Tensor) -> Tensor:
        """Return whether all places were passed."""
        return progress.round() >= 2 ** self.places.shape[1] - 1

    def planned(self, begun: Tensor, steps: int) -> Both:
        """Return the same as plans see it, without the margin."""
        return replace(self, radius=self.radius - self.margin, margin=0.0)

    def rows(self, index: Tensor) -> Both:
        """Return the places of the episodes index [n]."""
        return replace(self, places=_some(self.places, index))


@dataclass(frozen=True)
class Through:
    """[a step has come within radius of a place], fulfilled where it is 1. Plans, errors: as `Both`."""

    place: Tensor  # [B, X]
    radius: float
    margin: float = 0.0

    def __post_init__(self) -> None:
        _check_points("place", self.place, 2)
        _check_margin(self)

    def advance(self, progress: Tensor, s: Tensor, after: Tensor, steps: int) -> Tensor:
        """Return the progress [B, K] after steps from s to `after` [B, K, D]."""
        passed = segment_distance(self.place.unsqueeze(1), s, after)[..., 0] <= self.radius
        return progress.maximum(passed.to(progress.dtype))

    def done(self, progress: Tensor) -> Tensor:
        """Return whether the place was passed."""
        return progress.round() >= 1

    def planned(self, begun: Tensor, steps: int) -> Through:
        """Return the same as plans see it, without the margin."""
        return replace(self, radius=self.radius - self.margin, margin=0.0)

    def rows(self, index: Tensor) -> Through:
        """Return the places of the episodes index [n]."""
        return replace(self, place=_some(self.place, index))


@dataclass(frozen=True)
class Late:
    """min(after, steps of the lowest level so far), fulfilled where it is `after`; who comes near before is forbidden.

        passage = ∞ where d(goal) ≤ radius and progress + 1 < after

    A step of an upper level may be there after its first step of the lowest, so one that ends late but begins early is
    forbidden, too. As in `Avoid`, a step is free that leads away from within. Nothing keeps the lowest level off, so
    the radius is best as much larger than what must not happen as conditions may be missed by.

    Raises: ValueError for a goal that is not [B, X], a radius below 0 or `after` that is no whole number of at least 0.
    """

    goal: Tensor  # [B, X]
    radius: float
    after: int  # in steps of the lowest level
    most: Tensor | None = None  # [B] number that no plan gets beyond, its horizon; set by `planned`

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

    def planned(self, begun: Tensor, steps: int) -> Late:
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


def _some(points: Tensor, index: Tensor) -> Tensor:
    """Return the points of the episodes index [n]."""
    return points if len(points) == 1 else points[index]


def _check_points(name: str, points: Tensor, axes: int) -> None:
    """Raises: ValueError for points of another number of axes."""
    if points.dim() != axes:
        raise ValueError(f"{name}: expected {'[B, X]' if axes == 2 else '[B, N, X]'}, found {list(points.shape)}")


def _check_margin(part: Both | Through) -> None:
    """Raises: ValueError for a radius or margin below 0, or a margin above the radius."""
    _check_numbers(part, "radius", "margin")
    if part.margin > part.radius:
        raise ValueError(f"margin: expected at most the radius {part.radius}, found {part.margin}")


def _check_numbers(part: Any, *names: str) -> None:
    """Raises: ValueError for numbers below 0, or none."""
    for name in names:
        if not getattr(part, name) >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, found {getattr(part, name)}")
