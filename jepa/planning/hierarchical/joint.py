"""The actions of two levels optimized together: one cost, by sampling and by gradient (LeCun 2022, equation 14).

    J(a_2, a_1) = C_2(s̃_2(a_2)) + weight · Σ_i m(s̃_1(a_1), s̃_2,i)

C_2 is what the upper level says of its own plan, m how far the lower level ends from what was asked. With weight 0 only
the upper level counts, which is greedy. By sampling a_1 is what the lower level does to realize a_2, in imagination, and
only plans that were realized can be among the best. By gradient both are free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.planning.hierarchical.course import Course
from jepa.planning.hierarchical.proposals import Lower, Proposal
from jepa.planning.hierarchical.pursuit import raised, realize
from jepa.planning.level import Level, selected
from jepa.planning.minimizers import Descent
from jepa.predictors import rollout

FORBIDDEN = 1e3  # what a step costs that a passage forbids, so that plans can still be compared


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
        for name, least in (("horizon", 1), ("rounds", 1), ("weight", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if not self.spread > 0:
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
    cost = torch.stack(steps, 2)  # [B, K, T]
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

    Args: upper: the level that plans, with the goal in its cost; lower: the level below, that pursues by moves; s:
        [B, D]; tolerance: the cost at which the goal is reached.
    """
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
        mean, spread = kept.mean(1, keepdim=True), kept.std(1, correction=0, keepdim=True).clamp(min=0.1)
        best = _least(best, some, joint)
    states, actions, cost, length = best
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

    The lower level begins with no action; its first descent, with the upper plan held, is what realizes the proposal.
    J never rises: a step that raises it is not taken.

    Args: upper, lower: of these episodes, differentiable; s: [B, D]; descent: of both; weight: of the squared mismatch;
        stride: steps of the lower level for one of the upper.
    """
    steps = proposal.actions.shape[1]
    if not steps:
        return proposal
    shapes = (steps, upper.actions.width), (steps * stride, lower.actions.width)
    sizes = [one * other for one, other in shapes]
    live = (torch.arange(steps, device=s.device) < proposal.length.unsqueeze(1)).to(s)  # [B, T]

    def split(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a_2 [B, R, T, A_2] and a_1 [B, R, T · stride, A_1] of candidates, within their limits."""
        both = (part.unflatten(-1, shape) for part, shape in zip(x.split(sizes, -1), shapes, strict=True))
        return tuple(level.actions.project(a) for level, a in zip((upper, lower), both, strict=True))

    def joint(x: Tensor) -> Tensor:
        """Return J [B, R]."""
        above, below = split(x)
        asked = rollout(upper.step, s.unsqueeze(1), above, s.new_zeros(1, 1, steps, upper.latent))
        done = rollout(lower.step, s.unsqueeze(1), below, s.new_zeros(1, 1, steps * stride, lower.latent))
        last = (proposal.length - 1).clamp(min=0).view(-1, 1, 1, 1)
        end = asked.take_along_dim(last, 2)
        mismatch = (raised(lower, done[:, :, stride - 1 :: stride]) - asked).square().sum(-1)
        return upper.cost(end, above[:, :, :1]) + weight * (mismatch * live.unsqueeze(1)).sum(2)

    first = torch.cat([proposal.actions.flatten(1), s.new_zeros(len(s), sizes[1])], 1)
    found = descent(joint, first, generator, lambda x: torch.cat([part.flatten(-2) for part in split(x)], -1))
    above, _ = split(found.argmin.unsqueeze(1))
    with torch.no_grad():
        states = rollout(upper.step, s.unsqueeze(1), above, s.new_zeros(1, 1, steps, upper.latent))[:, 0]
    asked = (descent.steps + 1) * descent.restarts
    return proposal._replace(
        states=states, actions=above[:, 0], cost=found.value, upper=proposal.upper + asked * steps,
        lower=proposal.lower + asked * steps * stride,
    )  # fmt: skip
