"""What `control` plans an upper level by: search, greedy or iterated; the joint cost, sampled or descended.

All of them are given the level with its own limits and passages, and the level below with how it pursues; the goal is
what `control` names, the episode's or what the level above asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Generator, Tensor

from jepa.planning.hierarchical.control import Hierarchy
from jepa.planning.hierarchical.joint import Sampled, descended, sampled
from jepa.planning.hierarchical.memory import Memory
from jepa.planning.hierarchical.proposals import Lower, Proposal, Rounds, propose
from jepa.planning.hierarchical.pursuit import aimed
from jepa.planning.level import Level, selected
from jepa.planning.minimizers import Descent
from jepa.planning.passages import with_passage
from jepa.planning.search import Search
from jepa.planning.tasks.lower import for_lowest, for_middle
from jepa.planning.tasks.task import Task


@dataclass(frozen=True)
class Searching:
    """Plans by search; with one round greedy, with more iterated between the levels."""

    level: Level  # of all episodes; its cost is not asked
    search: Search
    lower: Lower
    rounds: Rounds = Rounds(1)
    task: Task | None = None  # of all episodes; s then have its progress behind

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return plans (`jepa.planning.hierarchical.control.Planner`)."""
        level, search, lower = selected(self.level, rows), self.search, below(self.lower, rows)
        if self.task is None:
            level = aimed(level, target)
        else:  # whose goal is the target
            level, search = self.task.rows(rows).planned(level, search, s[:, target.shape[1] :])
        return propose((level, search), lower, s, generator, memory, self.rounds, left)


@dataclass(frozen=True)
class Sampling:
    """Plans by the cross-entropy method on the joint cost, in always as many rounds, however much is left."""

    level: Level
    settings: Sampled
    lower: Lower
    tolerance: float  # the cost at which the goal is reached

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return plans (`jepa.planning.hierarchical.control.Planner`)."""
        level = with_passage(aimed(selected(self.level, rows), target), memory)
        return sampled(level, below(self.lower, rows), s, generator, self.settings, self.tolerance), memory


@dataclass(frozen=True)
class Descending:
    """Plans by gradient descent on the joint cost, from the plans of another planner, who alone minds what failed."""

    level: Level
    lower: Lower
    first: Callable
    descent: Descent
    weight: float = 1.0

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return plans (`jepa.planning.hierarchical.control.Planner`)."""
        proposal, memory = self.first(rows, s, target, memory, generator, left)
        level, lower = aimed(selected(self.level, rows), target), selected(self.lower.level, rows)
        settings = self.descent, self.weight, self.level.stride
        return descended(level, lower, s, proposal, generator, *settings), memory


def with_task(of: Hierarchy, task: Task) -> Hierarchy:
    """Return the same levels for a task; nothing is trained anew.

    The highest level plans for the task, levels between keep out of what has to be avoided, the lowest is repelled.

    Args: of: levels whose planners search, with no task yet; task: of the same episodes, to their goals.
    Raises: ValueError for other planners, another goal, or levels that have a task.
    """
    for upper in of.uppers:
        if not isinstance(upper.plan, Searching):
            raise ValueError(f"task: expected planners that search, found {type(upper.plan).__name__}")
    if of.task is not None:
        raise ValueError("task: expected levels without a task, found one")
    goal = task.reach.goal
    if goal.shape[1] != of.goal.shape[1] or len(goal) not in (1, len(of.goal)) or not bool((goal == of.goal).all()):
        raise ValueError("task: expected the same goal as that of the levels, found another")
    uppers = [upper._replace(plan=_tasked(upper.plan, task, upper is of.uppers[-1])) for upper in of.uppers]
    return of._replace(lowest=for_lowest(task, of.lowest), uppers=tuple(uppers), task=task)


def _tasked(plan: Searching, task: Task, highest: bool) -> Searching:
    """Return a planner for a task, of the highest level or of one between."""
    lowest = plan.lower.search is None
    lower = plan.lower._replace(level=(for_lowest if lowest else for_middle)(task, plan.lower.level))
    if highest:
        return replace(plan, lower=lower, task=task)
    return replace(plan, lower=lower, level=for_middle(task, plan.level))


def below(lower: Lower, rows: Tensor) -> Lower:
    """Return the lower level of some episodes."""
    return lower._replace(level=selected(lower.level, rows))
