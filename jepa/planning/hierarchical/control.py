"""Hierarchical control of many episodes at once: plan above, pursue below, look, and plan again where it did not go.

Who plans again when: a level does when its plan is done, when the level below could not meet a condition of its plan,
or when the level above asks for something else. Near the goal the lowest level goes on alone, one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from jepa.planning.hierarchical.course import Course
from jepa.planning.hierarchical.memory import Memory
from jepa.planning.hierarchical.proposals import Lower, Proposal, Rounds, propose
from jepa.planning.hierarchical.pursuit import raised, toward
from jepa.planning.level import Level, selected
from jepa.planning.search import Search
from jepa.planning.tasks.task import Progress, Task, for_lowest


@dataclass(frozen=True)
class Settings:
    """When to plan and how much to think.

    Raises: ValueError for numbers below what they can be.
    """

    steps: int = 80  # of an episode
    arrived: float = 0.0  # distance from the goal at which an episode rests, in the unit of s
    near: float = 0.0  # distance from the goal up to which the lowest level goes on alone
    rounds: Rounds = Rounds()
    experience: bool = True  # whether what failed in the world is kept for the episode
    weight: float = 10.0  # of a transition that failed, in steps of the upper level
    spread: float = 1.0  # of what failed, in the unit of s
    plans: int = 40  # most plans of an episode, of the highest level
    budget: int | None = None  # evaluations of all levels in an episode at most, beyond which no more plans are made
    keep: bool = False  # whether all plans are kept, to be looked at

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("arrived", 0), ("near", 0), ("plans", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"settings.{name}: expected at least {least}, found {getattr(self, name)!r}")
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"settings.budget: expected at least 1, found {self.budget!r}")


class Log(NamedTuple):
    """What was done in B episodes of T steps, with L levels."""

    actions: Tensor  # [B, T, A]
    states: Tensor  # [B, T+1, D] codes of what was seen
    plans: Tensor  # [B] of the highest level
    evaluations: Tensor  # [B, L] states that the step of each level was asked for, imagination included
    failed: Tensor  # [B] conditions that were not met in the world
    kept: list[Kept]
    progress: Tensor | None = None  # [B, T+1, n] of the task, if there is one


class Kept(NamedTuple):
    """A plan that was made."""

    step: int  # of the episodes
    rows: Tensor  # [n] episodes that it was made for
    start: Tensor  # [n, D]
    proposal: Proposal


@dataclass
class Hierarchy:
    """Two levels and how they go together: the upper one searches, the lower one pursues.

    With a task the upper level plans for it, and an episode rests at the goal only where all of it is done.
    """

    upper: Level
    search: Search
    lower: Lower
    goal: Tensor  # [B, D]
    task: Task | None = None  # to that goal; None: the upper level's own cost
    memory: Memory = field(init=False)


def control(
    acting: Any, encode: Callable[[Tensor], Tensor], of: Hierarchy, generator: Generator, settings: Settings
) -> Log:
    """Return what was done in a batch of episodes, all of which take `settings.steps` steps.

    Args: acting: B episodes (`jepa.worlds.base.Acting`); encode: what is seen [B, …] -> s [B, D]; of: the levels, with
        the goals; generator: of the planners.
    Raises: ValueError for no episodes, a task to another goal or for other episodes, or as the planners do.
    """
    with torch.no_grad():
        s = encode(acting.observe())
        if not len(s):
            raise ValueError("acting: expected at least one episode, found none")
        state = _State(of, s, settings)
        for _ in range(settings.steps):
            s = encode(acting.act(state.decide(s, generator)))
            state.seen(s)
    return state.log()


class _State:
    """The plans of a batch of episodes, and where in them each is."""

    def __init__(self, of: Hierarchy, s: Tensor, settings: Settings) -> None:
        self._of, self._settings = of, settings
        self._lower = of.lower
        self._memory = Memory.empty(raised(of.lower.level, s), settings.weight, settings.spread)
        zero = torch.zeros(len(s), dtype=torch.long, device=s.device)
        above = raised(of.lower.level, s)
        self._course = Course(above, above.new_zeros(len(s), 1, above.shape[1]), zero, of.lower.rules)
        self._plans, self._failed = zero.clone(), zero.clone()
        self._evaluations = torch.zeros(len(s), 2, dtype=torch.long, device=s.device)
        self._followed = torch.zeros(len(s), dtype=torch.bool, device=s.device)
        self._done: list[Tensor] = []
        self._states, self._kept = [s], []
        self._progress = None if of.task is None else Progress(of.task)
        if self._progress is not None:
            _check_goal(of)
            self._lower = of.lower._replace(level=for_lowest(of.task, of.lower.level))
        self._made = [] if self._progress is None else [self._progress.start(above)]  # progress, step by step

    def decide(self, s: Tensor, generator: Generator) -> Tensor:
        """Return the next actions [B, A]."""
        settings, course, above = self._settings, self._course, raised(self._of.lower.level, s)
        distance = (above - self._of.goal).norm(dim=-1)
        done, early = self._status(distance)
        arrived = (distance <= settings.arrived) & done
        close = (distance <= settings.near) & done
        spent = self._plans >= settings.plans
        if settings.budget is not None:
            spent |= self._evaluations.sum(1) >= settings.budget
        due = ~arrived & ~close & ~course.active & ~spent
        if due.any():
            self._plan(due.nonzero()[:, 0], s, generator)
        self._followed = ~arrived & ~close & course.active
        target = torch.where(early.unsqueeze(1), above, self._of.goal)  # too early and without a plan it stays
        rows = self._followed.nonzero()[:, 0]
        target[rows] = course.target(rows)
        a = s.new_zeros(len(s), self._of.lower.level.actions.width)
        rows = (~arrived).nonzero()[:, 0]
        if len(rows):
            moves = self._lower.moves
            a[rows], _ = toward(selected(self._lower.level, rows), s[rows], target[rows], moves)
            self._evaluations[rows, 0] += len(moves)
        self._done.append(a)
        return a

    def seen(self, s: Tensor) -> None:
        """Compare what is seen with what was asked for."""
        rows = self._followed.nonzero()[:, 0]
        self._course.seen(rows, raised(self._of.lower.level, s[rows]))
        failed = rows[self._course.unmet[rows]]
        self._failed[failed] += 1
        if self._settings.experience and len(failed):
            self._memory = self._memory.added(failed, *self._course.asked(failed))
        if self._progress is not None:
            before, after = (raised(self._of.lower.level, state) for state in (self._states[-1], s))
            self._made.append(self._progress.seen(before, after))
        self._states.append(s)

    def log(self) -> Log:
        """Return what was done."""
        actions, states = torch.stack(self._done, 1), torch.stack(self._states, 1)
        progress = torch.stack(self._made, 1) if self._made else None
        return Log(actions, states, self._plans, self._evaluations, self._failed, self._kept, progress)

    def _status(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return in which episodes [B] all parts of the task are fulfilled, and in which it is too early."""
        no = torch.zeros_like(like, dtype=torch.bool)
        if self._progress is None:
            return ~no, no
        task, value = self._progress.task, self._progress.value
        return task.done(value), task.waiting(value)

    def _plan(self, rows: Tensor, s: Tensor, generator: Generator) -> None:
        """Make plans for some episodes."""
        of, settings = self._of, self._settings
        lower = self._lower._replace(level=selected(self._lower.level, rows))
        start = raised(of.lower.level, s[rows])
        left = None if settings.budget is None else settings.budget - self._evaluations[rows].sum(1)
        memory = self._memory.rows(rows)
        upper, begin = self._upper(rows, start)
        proposal, memory = propose(upper, lower, begin, generator, memory, settings.rounds, left)
        if settings.experience:
            self._memory = self._memory.replaced(rows, memory)
        self._course.replace(
            rows, start, proposal.states[..., : start.shape[1]], proposal.length, self._waits(rows, proposal)
        )
        self._plans[rows] += 1
        self._evaluations[rows, 1] += proposal.upper
        self._evaluations[rows, 0] += proposal.lower
        if settings.keep:
            self._kept.append(Kept(len(self._done), rows, start, proposal))

    def _upper(self, rows: Tensor, start: Tensor) -> tuple[tuple[Level, Search], Tensor]:
        """Return the level that plans for some episodes and its search, and the states [n, D + n'] it plans from."""
        level = selected(self._of.upper, rows)
        if self._progress is None:
            return (level, self._of.search), start
        begun = self._progress.value[rows]
        return self._of.task.rows(rows).planned(level, self._of.search, begun), self._progress.appended(start, rows)

    def _waits(self, rows: Tensor, proposal: Proposal) -> Tensor | None:
        """Return how long the conditions [n, T] of a plan take at least, None without a task."""
        if self._progress is None:
            return None
        width = self._of.task.width
        progress = proposal.states[..., proposal.states.shape[-1] - width :]
        return self._of.task.waits(self._progress.value[rows], progress)


def _check_goal(of: Hierarchy) -> None:
    """Raises: ValueError for a task to another goal than the hierarchy's."""
    goal = of.task.reach.goal
    if goal.shape[1] != of.goal.shape[1] or not bool((goal == of.goal).all()):
        raise ValueError("task: expected the same goal as that of the hierarchy, found another")
