"""Plans over two neighboring levels: greedy, and iterated between them (LeCun 2022, equation 14 and figure 16).

Greedy: the upper level plans, and what it asks for is taken for what will be. Iterated: the lower level realizes the
whole plan in imagination; the first condition that it cannot meet becomes a cost module on that transition of the upper
level, which plans again. With an upper level that believes too much of the world this is a lazy search (Dellin &
Srinivasa 2016): it ends at the best way that the lower level can go.

    J = g(s̃_2) + weight · Σ_i mismatch_i          the cost over both levels; with weight 0 only the first term, greedy
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.planning.hierarchical.course import Course, Rules
from jepa.planning.hierarchical.memory import Memory
from jepa.planning.hierarchical.pursuit import realize, realize_by_search
from jepa.planning.level import Level, selected
from jepa.planning.passages import with_passage
from jepa.planning.search import Found, Search, search

UNREACHED = 1e6  # what a way costs that does not lead to the goal, beside the distance that is left
MISSED = 1e3  # what a condition that is not met costs, where nothing behind it was looked at


class Lower(NamedTuple):
    """The level that conditions are for, and how it pursues them."""

    level: Level
    rules: Rules
    moves: Tensor | None = None  # [P, A] of the lowest level
    search: Search | None = None  # of a middle level


@dataclass(frozen=True)
class Rounds:
    """How much is thought before a plan is taken."""

    most: int = 8  # plans of the upper level at most; 1: greedy
    weight: float = 1.0  # of the lower level's mismatch; 0: greedy

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"rounds: expected at least 1, found {self.most}")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight: expected a number of at least 0, found {self.weight}")


class Proposal(NamedTuple):
    """What an upper level asks for."""

    states: Tensor  # [B, T, D], behind them the extra numbers of the search, if any: a task's progress
    length: Tensor  # [B]
    actions: Tensor  # [B, T, A]
    cost: Tensor  # [B] J
    upper: Tensor  # [B] evaluations of the upper level
    lower: Tensor  # [B] evaluations of the lower level, in imagination
    trace: list[Round]  # what was thought, where it is kept


class Round(NamedTuple):
    """One round of thought, of the episodes that took part."""

    rows: Tensor  # [n]
    states: Tensor  # [n, T, D] what was asked for
    length: Tensor  # [n]
    path: Tensor  # [n, P, D] how the lower level realized it
    unmet: Tensor  # [n] the number of the condition that was not met, −1 if all were


@torch.no_grad()
def propose(
    upper: tuple[Level, Search], lower: Lower, s: Tensor, generator: Generator, memory: Memory, rounds: Rounds,
    left: Tensor | None = None,
) -> tuple[Proposal, Memory]:  # fmt: skip
    """Return the plan of least J that was found in at most `rounds.most` rounds, and what was learned on the way.

    Args: upper: the level that plans, with the goal in its cost, and its search; lower: the level below; s: [B, D],
        with the extra numbers of the search behind, which the level below is not told; memory: of transitions that
        failed, of these episodes; left: [B] evaluations of both levels at most, beyond which no round begins; what a
        round has begun to imagine the lower level ends.
    Returns: of plans that do not lead to the goal J is at least `UNREACHED`.
    Raises: ValueError for a lower level that has neither moves nor a search, or as `search` does.
    """
    if lower.moves is None and lower.search is None:
        raise ValueError("lower: expected moves or a search, found neither")
    batch, places, rows = len(s), s.shape[1] - upper[1].extra, torch.arange(len(s), device=s.device)
    spent = torch.zeros(2, batch, dtype=torch.long, device=s.device)
    best, trace = None, []
    while len(rows):
        level = with_passage(selected(upper[0], rows), memory.rows(rows))
        rest = None if left is None else left[rows] - spent.sum(0)[rows]
        found = search(level, s[rows], generator, upper[1], rest)
        spent[0, rows] += found.plan.evaluations
        last = rounds.most == 1 or rounds.weight == 0
        start, asked = s[rows, :places], found.plan.states[..., :places]
        course = Course(start, asked, found.plan.length, lower.rules)
        path = None if last else _imagined(lower, rows, start, course, generator, spent)
        best = _better(best, rows, found, _joint(found, course, rounds.weight))
        if path is not None:
            trace.append(Round(rows, asked, found.plan.length, path, torch.where(course.unmet, course.at, -1)))
        again = course.unmet & (len(trace) < rounds.most)
        if left is not None:
            again &= (left[rows] - spent.sum(0)[rows]) > 0
        if last:
            break
        failed = course.unmet.nonzero()[:, 0]
        memory = memory.added(rows[failed], *course.asked(failed))
        rows = rows[again]
    return Proposal(*best, *spent, trace), memory


def _imagined(lower: Lower, rows: Tensor, s: Tensor, course: Course, generator: Generator, spent: Tensor) -> Tensor:
    """Let the lower level realize a course, and return the states [n, P, D] that it went through."""
    level = selected(lower.level, rows)
    if lower.search is None:
        _, used, path = realize(level, s, course, lower.moves)
    else:
        end, used = realize_by_search(level, s, course, lower.search, generator)
        path = [end]
    spent[1, rows] += used
    return torch.stack(path, 1) if path else s.unsqueeze(1)[:, :0]


def _joint(found: Found, course: Course, weight: float) -> Tensor:
    """Return J [n] of plans whose course was realized, or was not looked at."""
    short = UNREACHED + found.plan.value.clamp(min=0).sqrt()
    upper = torch.where(found.total.isfinite(), found.total, short)
    behind = (course.mismatch - course.rules.near).clamp(min=0).sum(1)
    return upper + weight * (behind + MISSED * course.unmet)


def _better(
    best: tuple[Tensor, ...] | None, rows: Tensor, found: Found, cost: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return states, length, actions and J of the best plans so far."""
    plan = found.plan
    if best is None:
        return plan.states, plan.length, plan.actions, cost
    states, length, actions, least = best
    steps = max(states.shape[1], plan.states.shape[1])
    states, new, actions, done = (
        torch.nn.functional.pad(part, (0, 0, 0, steps - part.shape[1]))
        for part in (states, plan.states, actions, plan.actions)
    )
    better = cost < least[rows]
    at = rows[better]
    return (
        states.index_copy(0, at, new[better]),
        length.index_copy(0, at, plan.length[better]),
        actions.index_copy(0, at, done[better]),
        least.index_copy(0, at, cost[better]),
    )
