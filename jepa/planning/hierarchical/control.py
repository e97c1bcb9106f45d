"""Hierarchical control of many episodes at once: plan above, pursue below, look, and plan again where it did not go.

Who plans again when: a level does when its plan is done, when the level below could not meet a condition of its plan,
or when the level above asks for something else. Near the goal the lowest level goes on alone, one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from jepa.planning.hierarchical.course import Course, Rules
from jepa.planning.hierarchical.memory import Memory
from jepa.planning.hierarchical.proposals import UNREACHED, Proposal
from jepa.planning.hierarchical.pursuit import raised, toward
from jepa.planning.level import Level, selected
from jepa.planning.tasks.task import Progress, Task


class Planner(Protocol):
    """What makes the plans of an upper level."""

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return plans of episodes rows [n] from s [n, D] to targets [n, D], and their memory with what was learned.

        With a task the highest level's s are [n, D + n'], the progress behind, and so are its plans' states.

        Args: memory: of these episodes; left: [n] evaluations of all levels at most, None for any number.
        """


class Upper(NamedTuple):
    """An upper level: what plans it, and when the level below has met or missed what it asks for."""

    plan: Planner
    rules: Rules  # in steps of the lowest level


class Hierarchy(NamedTuple):
    """How levels go together: upper ones plan, the lowest one pursues."""

    lowest: Level
    moves: Tensor  # [P, A] of the lowest level, of which the best is taken in every step
    uppers: tuple[Upper, ...]  # from level 2 to the highest
    goal: Tensor  # [B, D] as the upper levels see it
    task: Task | None = None  # which the levels are for, set by `with_task`; None: to be at the goal


@dataclass(frozen=True)
class Settings:
    """When to plan and how much to think.

    Raises: ValueError for numbers below what they can be.
    """

    steps: int = 80  # of an episode
    arrived: float = 0.0  # distance from the goal at which an episode rests, in the unit of s
    near: float = 0.0  # distance from the goal up to which the lowest level goes on alone
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
    level: int  # from 2
    rows: Tensor  # [n] episodes that it was made for
    start: Tensor  # [n, D]
    proposal: Proposal


def control(
    acting: Any, encode: Callable[[Tensor], Tensor], of: Hierarchy, generator: Generator, settings: Settings
) -> Log:
    """Return what was done in a batch of episodes, all of which take `settings.steps` steps.

    Args: acting: B episodes (`jepa.worlds.base.Acting`); encode: what is seen [B, …] -> s [B, D]; of: the levels, with
        the goals; generator: of the planners.
    Raises: ValueError for no episodes, or as the planners do.
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
    """The plans of a batch of episodes on every level, and where in them each is."""

    def __init__(self, of: Hierarchy, s: Tensor, settings: Settings) -> None:
        self._of, self._settings = of, settings
        above, zero = raised(of.lowest, s), torch.zeros(len(s), dtype=torch.long, device=s.device)
        self._memories = [Memory.empty(above, settings.weight, settings.spread) for _ in of.uppers]
        nothing = above.new_zeros(len(s), 1, above.shape[1])
        self._courses = [Course(above, nothing, zero, upper.rules) for upper in of.uppers]
        self._plans, self._failed = zero.clone(), zero.clone()
        self._evaluations = torch.zeros(len(s), 1 + len(of.uppers), dtype=torch.long, device=s.device)
        self._followed = torch.zeros(len(s), dtype=torch.bool, device=s.device)
        self._done: list[Tensor] = []
        self._states, self._kept = [s], []
        self._progress = None if of.task is None else Progress(of.task)
        self._made = [] if self._progress is None else [self._progress.start(above)]  # step by step

    def decide(self, s: Tensor, generator: Generator) -> Tensor:
        """Return the next actions [B, A]."""
        settings, of = self._settings, self._of
        above = raised(of.lowest, s)
        distance = (above - of.goal).norm(dim=-1)
        done, early = self._status(distance)
        arrived, close = (distance <= settings.arrived) & done, (distance <= settings.near) & done
        self._replan(s, arrived | close, generator)
        course = self._courses[0]
        self._followed = ~arrived & ~close & (course.active | early)
        # who is too early and is asked for nothing stays, so that waiting on a level above goes on
        target, rows = torch.where(early.unsqueeze(1), above, of.goal), (self._followed & course.active).nonzero()[:, 0]
        target[rows] = course.target(rows)
        a = s.new_zeros(len(s), of.lowest.actions.width)
        rows = (~arrived).nonzero()[:, 0]
        if len(rows):
            a[rows], _ = toward(selected(of.lowest, rows), s[rows], target[rows], of.moves)
            self._evaluations[rows, 0] += len(of.moves)
        self._done.append(a)
        return a

    def seen(self, s: Tensor) -> None:
        """Compare what is seen with what was asked for, on every level."""
        above = raised(self._of.lowest, s)
        for level, course in enumerate(self._courses):
            rows = (self._followed & course.active).nonzero()[:, 0]
            before = course.at[rows]
            course.seen(rows, above[rows])
            self._fail(level, rows[course.unmet[rows]])
            if level:  # what was planned below was planned for what is over now
                self._courses[level - 1].drop(rows[course.unmet[rows] | (course.at[rows] > before)])
        if self._progress is not None:
            self._made.append(self._progress.seen(raised(self._of.lowest, self._states[-1]), above))
        self._states.append(s)

    def log(self) -> Log:
        """Return what was done."""
        actions, states = torch.stack(self._done, 1), torch.stack(self._states, 1)
        progress = torch.stack(self._made, 1) if self._made else None
        return Log(actions, states, self._plans, self._evaluations, self._failed, self._kept, progress)

    def _status(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return in which episodes [B] all parts of the task are fulfilled, and in which it is too early."""
        if self._progress is None:
            no = torch.zeros_like(like, dtype=torch.bool)
            return ~no, no
        return self._of.task.done(self._progress.value), self._of.task.waiting(self._progress.value)

    def _replan(self, s: Tensor, resting: Tensor, generator: Generator) -> None:
        """Make plans where one is due, from the highest level down."""
        settings, highest = self._settings, len(self._courses) - 1
        for level in range(highest, -1, -1):
            due = ~resting & ~self._courses[level].active
            if settings.budget is not None:
                due &= self._evaluations.sum(1) < settings.budget
            if level == highest:
                due &= self._plans < settings.plans
            else:
                due &= self._courses[level + 1].active
            if due.any():
                self._plan(level, due.nonzero()[:, 0], s, generator)

    def _plan(self, level: int, rows: Tensor, s: Tensor, generator: Generator) -> None:
        """Make plans of a level for some episodes."""
        of, settings = self._of, self._settings
        start, top = raised(of.lowest, s[rows]), level == len(of.uppers) - 1
        target = of.goal[rows] if top else self._courses[level + 1].target(rows)
        left = None if settings.budget is None else settings.budget - self._evaluations[rows].sum(1)
        memory = self._memories[level].rows(rows)
        tasked = top and self._progress is not None
        begin = self._progress.appended(start, rows) if tasked else start
        proposal, memory = of.uppers[level].plan(rows, begin, target, memory, generator, left)
        if settings.experience:
            self._memories[level] = self._memories[level].replaced(rows, memory)
        width = start.shape[1]
        waits = of.task.waits(begin[:, width:], proposal.states[..., width:]) if tasked else None
        self._courses[level].replace(rows, start, proposal.states[..., :width], proposal.length, waits)
        self._plans[rows] += top
        self._evaluations[rows, level + 1] += proposal.upper
        self._evaluations[rows, level] += proposal.lower
        if level:  # what was planned below was planned for what was asked before
            self._courses[level - 1].drop(rows)
        if not top:  # a condition that no plan of this level leads to is not met
            lost = rows[proposal.cost >= UNREACHED]
            self._courses[level + 1].unmet[lost] = True
            self._fail(level + 1, lost)
        if settings.keep:
            self._kept.append(Kept(len(self._done), level + 2, rows, start, proposal))

    def _fail(self, level: int, rows: Tensor) -> None:
        """Take note of conditions of a level that were not met in the world."""
        self._failed[rows] += 1
        if self._settings.experience and len(rows):
            self._memories[level] = self._memories[level].added(rows, *self._courses[level].asked(rows))
