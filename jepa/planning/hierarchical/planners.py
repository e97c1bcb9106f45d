"""What `control` plans an upper level by: search, greedy or iterated; the joint cost, sampled or descended.

All of them are given the level with its own limits and passages, and the level below with how it pursues; the goal is
what `control` names, the episode's or what the level above asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor

from jepa.planning.hierarchical.joint import Sampled, descended, sampled
from jepa.planning.hierarchical.memory import Memory
from jepa.planning.hierarchical.proposals import Lower, Proposal, Rounds, propose
from jepa.planning.hierarchical.pursuit import aimed, with_passage
from jepa.planning.level import Level, selected
from jepa.planning.minimizers import Descent
from jepa.planning.search import Search


@dataclass(frozen=True)
class Searching:
    """Plans by search; with one round greedy, with more iterated between the levels."""

    level: Level  # of all episodes; its cost is not asked
    search: Search
    lower: Lower
    rounds: Rounds = Rounds(1)

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return plans (`jepa.planning.hierarchical.control.Planner`)."""
        level, lower = aimed(selected(self.level, rows), target), below(self.lower, rows)
        return propose((level, self.search), lower, s, generator, memory, self.rounds, left)


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


def below(lower: Lower, rows: Tensor) -> Lower:
    """Return the lower level of some episodes."""
    return lower._replace(level=selected(lower.level, rows))
