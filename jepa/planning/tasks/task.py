"""A task as a level (LeCun 2022, sections 3.2 and 4.7): states know the way behind them, costs say what is wanted.

States are [s, p], where p are the progress numbers of the parts that have a memory. A step from [s, p] leads to
[s', p'], s' by the level's own step and p'_i by what part i makes of the step from s to s'. This is the product of the
world with an automaton per part, in which a cheapest way is the cheapest that fulfills the task.

    C([s, p]) = ‖s − g‖²                        where every part is fulfilled
                max(‖s − g‖², tolerance⁺)       elsewhere, tolerance⁺ just above the search's

√C stays a lower bound of the way that is left, in units of s: what is missing costs a step at least, and the goal has
to be reached all the same. So greed may be what it may be without a task, 1 / (the longest macro-step), as long as the
tolerance's root is no longer than such a step; passages only add. A plan that does not fulfill its task says so: its
value is above the tolerance, its total infinite.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jepa.planning.level import Level, selected
from jepa.planning.passages import Passages
from jepa.planning.search import Search
from jepa.planning.tasks.parts import Avoid, Both, Late, Little, Reach, Through

Part = Avoid | Both | Late | Little | Through
ABOVE = 1e-3, 1e-9  # by how much a cost is above the tolerance where a part is not fulfilled: relative, and beside it


@dataclass(frozen=True)
class Task:
    """A goal and what else is wanted.

    Raises: ValueError for a goal within a disc that is forbidden, or parts of different numbers of episodes.
    """

    reach: Reach
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if len(self.sizes - {1}) > 1:
            raise ValueError(f"parts: expected the same number of episodes in all, found {sorted(self.sizes)}")
        for part in self.parts:
            if isinstance(part, Avoid) and part.weight == torch.inf:
                _check_outside(self.reach.goal, part)

    @property
    def memories(self) -> tuple[Any, ...]:
        """The parts that have a progress, in its order."""
        return tuple(part for part in self.parts if hasattr(part, "advance"))

    @property
    def sizes(self) -> set[int]:
        """The numbers of episodes that the parts are for; 1 is for all."""
        return {len(t) for part in (self.reach, *self.parts) for t in vars(part).values() if torch.is_tensor(t)}

    @property
    def width(self) -> int:
        """n, how many numbers progress has."""
        return len(self.memories)

    def rows(self, index: Tensor) -> Task:
        """Return the task of the episodes index [n]."""
        return Task(self.reach.rows(index), tuple(part.rows(index) for part in self.parts))

    def advance(self, progress: Tensor, s: Tensor, after: Tensor, steps: int) -> Tensor:
        """Return the progress [B, K, n] after steps from s to `after` [B, K, D], each `steps` of the lowest level."""
        return _advanced(self.memories, progress, s, after, steps)

    def done(self, progress: Tensor) -> Tensor:
        """Return whether every part is fulfilled, [...], of progress [..., n]."""
        return _done(self.memories, progress)

    def waiting(self, progress: Tensor) -> Tensor:
        """Return whether it is too early for the goal, [B], of progress [B, n]."""
        late = [~part.done(progress[:, i]) for i, part in enumerate(self.memories) if isinstance(part, Late)]
        return (
            torch.stack(late).any(0) if late else torch.zeros(len(progress), dtype=torch.bool, device=progress.device)
        )

    def waits(self, begun: Tensor, progress: Tensor) -> Tensor:
        """Return how long each condition of a plan takes at least, [B, T], in steps of the lowest level.

        Args: begun: [B, n] progress where the plan begins; progress: [B, T, n] after each of its steps.
        """
        times = [i for i, part in enumerate(self.memories) if isinstance(part, Late)]
        gone = torch.cat([begun.unsqueeze(1), progress], 1).diff(dim=1)[..., times]  # [B, T, number of Late]
        longest = gone.amax(-1) if times else gone.sum(-1)  # of no numbers the sum is 0
        return longest.round().long()

    def planned(self, level: Level, settings: Search, begun: Tensor | None = None) -> tuple[Level, Search]:
        """Return the level of the task and the settings of its search.

        The search tells states of different progress apart, and where one may have to wait it tries the action 0,
        under which the level's step has to stay where it is.

        Args: level: its cost is not asked, the task's goal takes its place; its horizon counts for `Late` alone, which
            is not fulfilled by plans that are longer; settings: of a search on places; begun: [B, n] progress where the
            plans begin, None for none.
        """
        parts, moves = _bounded(self, begun, level.horizon * level.stride), settings.moves
        late = any(isinstance(part, Late) for part in parts)
        if late and bool((moves != 0).any(1).all()):
            moves = torch.cat([moves, torch.zeros_like(moves[:1])])
        least = settings.tolerance * (1 + ABOVE[0]) + ABOVE[1]
        return _level(level, self.reach, parts, least), replace(settings, extra=self.width, moves=moves)


class Progress:
    """What has been done of a task in B episodes, as they go on."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def start(self, s: Tensor) -> Tensor:
        """Return the progress [B, n] of episodes that begin at s [B, D]; a place where they begin is passed.

        Raises: ValueError for another number of episodes than the task's.
        """
        if not self.task.sizes <= {1, len(s)}:
            raise ValueError(f"s: expected {max(self.task.sizes)} episodes, as the task has, found {len(s)}")
        self.value = s.new_zeros(len(s), self.task.width)
        return self.seen(s, s, 0)

    def seen(self, before: Tensor, after: Tensor, steps: int = 1) -> Tensor:
        """Return the progress [B, n] after steps of the lowest level, as many as told, from before to after [B, D]."""
        self.value = self.task.advance(self.value.unsqueeze(1), before.unsqueeze(1), after.unsqueeze(1), steps)[:, 0]
        return self.value

    def appended(self, s: Tensor, rows: Tensor) -> Tensor:
        """Return the states [n, D + n'] of the task's level, of some episodes at s [n, D]."""
        return torch.cat([s, self.value[rows]], 1)


@dataclass(frozen=True)
class _Says:
    """A passage on states with a progress: a part's, or with `at` None the level's own."""

    say: Callable[..., Tensor]
    width: int  # n
    at: int | None = None  # which progress number is the part's

    def __call__(self, s: Tensor, after: Tensor, a: Tensor) -> Tensor:
        split = s.shape[-1] - self.width
        own = () if self.at is None else (s[..., split + self.at],)
        return self.say(s[..., :split], after[..., :split], a, *own)


def _level(level: Level, reach: Reach, parts: tuple[Any, ...], least: float) -> Level:
    """Return the level whose states have a progress. Args: least: cost at least where a part is not fulfilled."""
    memories = tuple(part for part in parts if hasattr(part, "advance"))
    width = len(memories)

    def step(s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return [s', p'] of [s, p]."""
        place, progress = s[..., : s.shape[-1] - width], s[..., s.shape[-1] - width :]
        after = level.step(place, a, z)
        place, progress = (part.expand(*after.shape[:2], -1) for part in (place, progress))
        return torch.cat([after, _advanced(memories, progress, place, after, level.stride)], -1)

    def cost(states: Tensor, actions: Tensor) -> Tensor:
        """Return C [B, K] of the last state."""
        s = states[:, :, -1]
        squared = reach.squared(s[..., : s.shape[-1] - width])
        return torch.where(_done(memories, s[..., s.shape[-1] - width :]), squared, squared.clamp(min=least))

    def rows(index: Tensor) -> Level:
        """Return the level of the episodes index [n]."""
        return _level(selected(level, index), reach.rows(index), tuple(part.rows(index) for part in parts), least)

    own = () if level.passage is None else (_Says(level.passage, width),)
    return level._replace(step=step, cost=cost, rows=rows, passage=Passages(*own, *_said(parts, width)))


def _said(parts: tuple[Any, ...], width: int) -> list[_Says]:
    """Return what the parts say of steps between states with n = width progress numbers."""
    at = _numbers(parts)
    return [
        _Says(part.passage, width, number) for part, number in zip(parts, at, strict=True) if hasattr(part, "passage")
    ]


def _numbers(parts: tuple[Any, ...]) -> list[int | None]:
    """Return which progress number is each part's, None for those without a memory."""
    count = itertools.count()
    return [next(count) if hasattr(part, "advance") else None for part in parts]


def _bounded(task: Task, begun: Tensor | None, steps: int) -> tuple[Part, ...]:
    """Return the parts of plans that begin at a progress and look `steps` of the lowest level ahead."""
    begun = task.reach.goal.new_zeros(1, task.width) if begun is None else begun
    numbered = zip(task.parts, _numbers(task.parts), strict=True)
    return tuple(part if at is None else part.planned(begun[:, at], steps) for part, at in numbered)


def _advanced(memories: tuple[Any, ...], progress: Tensor, s: Tensor, after: Tensor, steps: int) -> Tensor:
    """Return the progress [B, K, n] after steps from s to `after` [B, K, D]."""
    if not memories:
        return progress
    return torch.stack([part.advance(progress[..., i], s, after, steps) for i, part in enumerate(memories)], -1)


def _done(memories: tuple[Any, ...], progress: Tensor) -> Tensor:
    """Return whether every part is fulfilled, [...], of progress [..., n]."""
    done = torch.ones(progress.shape[:-1], dtype=torch.bool, device=progress.device)
    for i, part in enumerate(memories):
        done = done & part.done(progress[..., i])
    return done


def _check_outside(goal: Tensor, avoid: Avoid) -> None:
    """Raises: ValueError for a goal within a disc, naming both."""
    apart = (goal.unsqueeze(1) - avoid.center).norm(dim=-1)  # [B, N]
    inside = (apart <= avoid.radius).nonzero()
    if len(inside):
        episode, disc = inside[0].tolist()
        goal, center = goal.expand(len(apart), -1)[episode], avoid.center.expand(len(apart), -1, -1)[episode, disc]
        where, what = ([round(number, 4) for number in point.tolist()] for point in (goal, center))
        raise ValueError(
            f"goal, center: expected goals outside of avoided discs, found goal {where} of episode {episode} within "
            f"{avoid.radius:g} of center {what}"
        )
