"""The actions of two levels optimized together: one cost, by sampling and by gradient (LeCun 2022, equation 14).

    J(a_2, a_1) = C_2(s̃_2(a_2)) + weight · Σ_i m(s̃_1(a_1), s̃_2,i)

C_2 is what the upper level says of its own plan, m how far the lower level ends from what was asked. With weight 0 only
the upper level counts, which is greedy. By sampling a_1 is what the lower level does to realize a_2, in imagination,
and only plans that were realized can be among the best. By gradient both are free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.minimize.base import checked
from jepa.planning.hierarchical.course import Course
from jepa.planning.hierarchical.proposals import UNREACHED, Lower, Proposal
from jepa.planning.hierarchical.pursuit import raised, realize
from jepa.planning.level import Level, selected
from jepa.planning.minimizers import Descent
from jepa.predictors import rollout

FORBIDDEN = 1e3  # what a step costs that a passage forbids, so that plans can still be compared
NARROWEST = 0.1  # least standard deviation of what is drawn, in the unit of a


@dataclass(frozen=True)
class Sampled:
    """What the cross-entropy method over an upper level is told. Raises: ValueError for a number outside its range."""

    horizon: int = 8  # T, steps of the upper level
    samples: int = 64  # plans a round
    rounds: int = 4
    realized: int = 8  # of them, the best by the upper level's cost, that the lower level realizes
    elites: int = 4  # of those, the best by J
    spread: float = 1.5  # first standard deviation, in the unit of a
    weight: float = 1.0  # of the mismatch below, in the unit of the upper cost per unit of s

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.realized <= self.samples:
            found = f"{self.elites}, {self.realized}, {self.samples}"
            raise ValueError(f"elites, realized, samples: expected 1 ≤ elites ≤ realized ≤ samples, found {found}")
        for name in ("horizon", "rounds"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight: expected a number of at least 0, found {self.weight}")
        if not 0 < self.spread < math.inf:
            raise ValueError(f"spread: expected a number above 0, found {self.spread}")


class Paths(NamedTuple):
    """Plans of an upper level, with what it says of them."""

    states: Tensor  # [B, K, T, D]
    actions: Tensor  # [B, K, T, A]
    cost: Tensor  # [B, K] C_2
    length: Tensor  # [B, K] steps until the goal, T where it is not reached


def imagined(level: Level, s: Tensor, actions: Tensor, tolerance: float) -> Paths:
    """Return what an upper level says of plans: the sum of the distances to the goal on the way, and the passages.

    C_2 = Σ_{t < n} (√C(s̃_t) + passage(s̃_{t−1}, s̃_t)), up to the first state n whose cost is within the tolerance.

    Args: s: [B, D]; actions: [B, K, T, A].
    """
    a = level.actions.project(actions)
    states = rollout(level.step, s.unsqueeze(1), a, s.new_zeros(1, 1, a.shape[2], level.latent))
    steps = [level.cost(states[:, :, t : t + 1], a[:, :, t : t + 1]) for t in range(a.shape[2])]
    cost = checked(torch.stack(steps, 2))  # [B, K, T]
    price = cost.clamp(min=0).sqrt()
    if level.passage is not None:
        before = torch.cat([s[:, None, None].expand_as(states[:, :, :1]), states[:, :, :-1]], 2)
        parts = [level.passage(before[:, :, t], states[:, :, t], a[:, :, t]) for t in range(a.shape[2])]
        price = price + torch.stack(parts, 2).clamp(max=FORBIDDEN)
    reached = (cost <= tolerance).long().cumsum(2)
    counted = reached - (cost <= tolerance).long() == 0  # up to the first that is at the goal, and it
    length = counted.sum(2)
    return Paths(states, a, torch.where(counted, price, 0).sum(2), length)


@torch.no_grad()
def sampled(
    upper: Level, lower: Lower, s: Tensor, generator: Generator, settings: Sampled, tolerance: float,
) -> Proposal:  # fmt: skip
    """Return the plan of least J that the cross-entropy method finds, whose elites the lower level has realized.

    A plan that does not end at the goal costs `UNREACHED` and the distance that is left, as one of `propose` does.

    Args: upper: the level that plans, with the goal in its cost; lower: the level below, that pursues by moves; s:
        [B, D]; tolerance: the cost at which the goal is reached.
    Raises: ValueError for a lower level without moves, or costs that are not numbers.
    """
    if lower.moves is None:
        raise ValueError("lower: expected a level that pursues by moves, found none")
    batch, width = len(s), upper.actions.width
    size = (batch, settings.samples, settings.horizon, width)
    mean, spread = s.new_zeros(batch, 1, *size[2:]), s.new_full((1, 1, 1, 1), settings.spread)
    spent, best = torch.zeros(2, batch, dtype=torch.long, device=s.device), None
    for _ in range(settings.rounds):
        noise = torch.randn(size, generator=generator, dtype=s.dtype, device=s.device)
        paths = imagined(upper, s, mean + spread * noise, tolerance)
        spent[0] += settings.samples * settings.horizon
        first = paths.cost.topk(settings.realized, 1, largest=False).indices
        some = Paths(*(part.take_along_dim(_like(first, part), 1) for part in paths))
        mismatch, used = _below(lower, s, some)
        spent[1] += used
        joint = some.cost + settings.weight * mismatch
        elite = joint.topk(settings.elites, 1, largest=False).indices
        kept = some.actions.take_along_dim(_like(elite, some.actions), 1)
        mean, spread = kept.mean(1, keepdim=True), kept.std(1, correction=0, keepdim=True).clamp(min=NARROWEST)
        best = _least(best, some, joint)
    states, actions, cost, length = best
    end = states.take_along_dim((length - 1).view(-1, 1, 1), 1)
    left = upper.cost(end.unsqueeze(1), actions[:, None, :1])[:, 0]
    cost = torch.where(left <= tolerance, cost, UNREACHED + left.clamp(min=0).sqrt())
    return Proposal(states, length, actions, cost, *spent, [])


def _below(lower: Lower, s: Tensor, paths: Paths) -> tuple[Tensor, Tensor]:
    """Return Σ_i of what the lower level misses each condition by [B, K], and what that took [B]."""
    batch, count = paths.cost.shape
    rows = torch.arange(batch, device=s.device).repeat_interleave(count)
    start, level = s[rows], selected(lower.level, rows)
    course = Course(raised(level, start), paths.states.flatten(0, 1), paths.length.flatten(), lower.rules)
    _, used, _ = realize(level, start, course, lower.moves, whole=True)
    missed = (course.mismatch - lower.rules.near).clamp(min=0).sum(1)
    return missed.view(batch, count), used.view(batch, count).sum(1)


def _least(best: tuple[Tensor, ...] | None, some: Paths, joint: Tensor) -> tuple[Tensor, ...]:
    """Return states, actions, J and length of the best plans so far."""
    at = joint.argmin(1, keepdim=True)
    new = [part.take_along_dim(_like(at, part), 1)[:, 0] for part in (some.states, some.actions, joint, some.length)]
    if best is None:
        return tuple(new)
    better = new[2] < best[2]
    return tuple(torch.where(_like(better, part), part, old) for part, old in zip(new, best, strict=True))


def _like(index: Tensor, part: Tensor) -> Tensor:
    """Return an index with as many axes as a tensor."""
    return index.view(*index.shape, *[1] * (part.dim() - index.dim()))


def descended(
    upper: Level, lower: Level, s: Tensor, proposal: Proposal, generator: Generator, descent: Descent, weight: float,
    stride: int,
) -> Proposal:  # fmt: skip
    """Return the plan to which gradient descent on J over the actions of both levels leads from a proposal.

    J = C_2 of where the upper plan ends + weight · Σ_i ‖s̃_1,i − s̃_2,i‖². The lower level begins with no action; its
    first descent, with the upper plan held, is what realizes the proposal. From there J never rises: a step that raises
    it is not taken. Passages do not count.

    Args: upper, lower: of these episodes, differentiable; s: [B, D]; proposal: whose length is kept; descent: of both;
        weight: of the squared mismatch; stride: steps of the lower level for one of the upper.
    Raises: ValueError for a weight that is not a number of at least 0, a stride below 1, or as the descent does.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight: expected a number of at least 0, found {weight}")
    if stride < 1:
        raise ValueError(f"stride: expected at least 1, found {stride}")
    if not proposal.actions.shape[1]:
        return proposal
    joint = _Joint(upper, lower, s, proposal.length, weight, stride)
    held = joint.conditions(upper.actions.project(proposal.actions.unsqueeze(1)))
    size = proposal.actions.shape[1] * stride * lower.actions.width
    first = descent(partial(joint.realized, held), s.new_zeros(len(s), size), generator, joint.below)
    start = torch.cat([held.actions[:, 0].flatten(1), first.argmin], 1)
    found = descent(joint, start, generator, lambda x: torch.cat([part.flatten(-2) for part in joint.split(x)], -1))
    with torch.no_grad():
        states, actions = (part[:, 0] for part in joint.conditions(joint.split(found.argmin.unsqueeze(1))[0]))
    upper_asked, lower_asked = (proposal.upper + joint.asked[0], proposal.lower + joint.asked[1])
    return proposal._replace(states=states, actions=actions, cost=found.value, upper=upper_asked, lower=lower_asked)


class _Conditions(NamedTuple):
    """What the upper level asks for."""

    states: Tensor  # [B, R, T, D]
    actions: Tensor  # [B, R, T, A]


class _Joint:
    """J over the actions of both levels, and how many states each level was asked for in every episode."""

    def __init__(self, upper: Level, lower: Level, s: Tensor, length: Tensor, weight: float, stride: int) -> None:
        self._upper, self._lower, self._s, self._length, self._weight = upper, lower, s, length, weight
        self._stride, self.asked = stride, [0, 0]

    def __call__(self, x: Tensor) -> Tensor:
        """Return J [B, R] of the actions of both levels x [B, R, N], those of the upper one first."""
        above, below = self.split(x)
        return self.realized(self.conditions(above), below.flatten(-2))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a_2 [B, R, T, A_2] and a_1 [B, R, T · stride, A_1], within their limits."""
        widths = self._upper.actions.width, self._stride * self._lower.actions.width
        steps = x.shape[-1] // sum(widths)
        above, below = x.split([steps * width for width in widths], -1)
        below = self.below(below).unflatten(-1, (-1, self._lower.actions.width))
        return self._upper.actions.project(above.unflatten(-1, (steps, widths[0]))), below

    def below(self, x: Tensor) -> Tensor:
        """Return the actions of the lower level [B, R, T · stride · A_1] within their limits."""
        box = self._lower.actions
        return box.project(x.unflatten(-1, (-1, box.width))).flatten(-2)

    def conditions(self, above: Tensor) -> _Conditions:
        """Return what actions of the upper level ask for."""
        self.asked[0] += above.shape[1] * above.shape[2]
        z = self._s.new_zeros(1, 1, above.shape[2], self._upper.latent)
        return _Conditions(rollout(self._upper.step, self._s.unsqueeze(1), above, z), above)

    def realized(self, conditions: _Conditions, below: Tensor) -> Tensor:
        """Return J [B, R] of conditions [B, R or 1, …] and the lower level's actions [B, R, T · stride · A_1]."""
        level, stride = self._lower, self._stride
        a = level.actions.project(below.unflatten(-1, (-1, level.actions.width)))
        self.asked[1] += a.shape[1] * a.shape[2]
        done = rollout(level.step, self._s.unsqueeze(1), a, self._s.new_zeros(1, 1, a.shape[2], level.latent))
        mismatch = (raised(level, done[:, :, stride - 1 :: stride]) - conditions.states).square().sum(-1)
        live = torch.arange(mismatch.shape[2], device=a.device) < self._length.unsqueeze(1)  # [B, T]
        last = (self._length - 1).clamp(min=0).view(-1, 1, 1, 1)
        cost = self._upper.cost(conditions.states.take_along_dim(last, 2), conditions.actions[:, :, :1])
        return cost + self._weight * (mismatch * live.unsqueeze(1)).sum(2)
