"""Receding-horizon control of many episodes at once (LeCun 2022, section 3.1, Mode-2, and section 4.7).

    plan → act → look: where what is seen is not what was imagined, or the plan has come to its end, plan again

The present and the goal are encoded once. An episode that is at its goal asks the model nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.planning.growth import TreeSearch
from jepa.planning.level import Level, Plan, selected
from jepa.planning.servo import nearest
from jepa.planning.tree import tree

Planner = Callable[[Level, Tensor, Generator, Tensor | None], Plan]  # (level, s, generator, start [B, T, A] or None)
Proximity = Callable[[Tensor], Tensor]
Near = Callable[[Level, Tensor, Generator], Plan]  # the same for one step, near the goal


@dataclass(frozen=True)
class Control:
    """When to plan, in the units of the representation and of the level's cost.

    Raises: ValueError for numbers below what they can be.
    """

    steps: int = 200  # of an episode
    arrived: float = 0.0  # cost up to which an episode is at its goal, and rests
    near: float = 0.0  # cost up to which it goes on one step at a time
    deviation: float = float("inf")  # distance of s from what was imagined, beyond which it plans again
    every: int = 1  # steps of a plan after which what is seen is compared with it: the length of a macro-action
    execute: int = 0  # steps of a plan that are taken before the next one; 0: all of them
    plans: int = 40  # most plans of an episode; from then on it goes one step at a time
    proximity: Proximity | None = None  # s [B, D] -> [B], in the place of the level's cost of being there

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("arrived", 0), ("near", 0), ("deviation", 0), ("every", 1), ("execute", 0)):
            if not (value := getattr(self, name)) >= least:
                raise ValueError(f"control.{name}: expected at least {least}, found {value!r}")
        if self.plans < 1:
            raise ValueError(f"control.plans: expected at least 1, found {self.plans!r}")


class Log(NamedTuple):
    """What was done in B episodes of T steps."""

    actions: Tensor  # [B, T, A]
    states: Tensor  # [B, T+1, D] codes of what was seen
    plans: Tensor  # [B] how many were made
    evaluations: Tensor  # [B] states that the step was asked for
    first: list[Plan]  # the first that was made, of all episodes that made one then


def control(
    acting: object, encode: Callable[[Tensor], Tensor], level: Level, planners: tuple[Planner, Near],
    generator: Generator, settings: Control,
) -> Log:  # fmt: skip
    """Return what was done in a batch of episodes, all of which take `settings.steps` steps.

    Args: acting: B episodes (`jepa.worlds.base.Acting`); encode: what is seen [B, …] -> s [B, D]; level: with the goal
        in its cost, and `rows` where the episodes differ; planners: of whole plans, and of one step near the goal;
        generator: of the planners.
    Raises: ValueError for no episodes, or as the planners do.
    """
    with torch.no_grad():
        s = encode(acting.observe())
        if not len(s):
            raise ValueError("acting: expected at least one episode, found none")
        state = _State(level, s, settings)
        for _ in range(settings.steps):
            a = state.decide(s, planners, generator)
            s = encode(acting.act(a))
            state.seen(s)
    return state.log()


def planners(search: TreeSearch, moves: Tensor) -> tuple[Planner, Near]:
    """Return what `control` plans by: whole plans by a tree, and near the goal the best of given moves [P, A]."""

    def whole(level: Level, s: Tensor, generator: Generator, start: Tensor | None) -> Plan:
        """Return a plan by the tree, which begins anew."""
        return tree(level, s, generator, search)

    def near(level: Level, s: Tensor, generator: Generator) -> Plan:
        """Return the best of the moves."""
        return nearest(level, s, moves)

    return whole, near


class _State:
    """The plans of a batch of episodes, and where in them each is."""

    def __init__(self, level: Level, s: Tensor, settings: Control) -> None:
        batch, width, long = len(s), level.actions.width, {"dtype": torch.long, "device": s.device}
        self._level, self._settings = level, settings
        self._actions, self._imagined = s.new_zeros(batch, 1, width), s.new_zeros(batch, 1, s.shape[1])
        self._length, self._at = torch.zeros(batch, **long), torch.zeros(batch, **long)
        self._plans, self._evaluations = torch.zeros(batch, **long), torch.zeros(batch, **long)
        self._planned = torch.zeros(batch, dtype=torch.bool, device=s.device)  # whether the last action was a plan's
        self._done: list[Tensor] = []
        self._states, self._first = [s], []

    def decide(self, s: Tensor, planners: tuple[Planner, Near], generator: Generator) -> Tensor:
        """Return the next actions [B, A]."""
        near = self._settings.proximity
        cost = _cost(self._level, s) if near is None else near(s)
        arrived, spent = cost <= self._settings.arrived, self._plans >= self._settings.plans
        over = self._at >= self._length
        close = ~arrived & ((cost <= self._settings.near) | (over & spent))
        due = ~arrived & ~close & over
        if due.any():
            self._plan(due.nonzero()[:, 0], s, planners[0], generator)
        self._planned = ~arrived & ~close & (self._at < self._length)
        a = self._actions.new_zeros(len(s), self._actions.shape[2])
        rows = self._planned.nonzero()[:, 0]
        a[rows] = self._actions[rows, self._at[rows]]
        if close.any():
            rows = close.nonzero()[:, 0]
            found = planners[1](selected(self._level, rows), s[rows], generator)
            a[rows] = found.actions[:, 0]
            self._evaluations[rows] += found.evaluations
        self._length[arrived | close] = 0  # a plan that was left is not taken up again
        self._done.append(a)
        return a

    def seen(self, s: Tensor) -> None:
        """Compare what is seen with what was imagined, and give up the plans that it shows to be wrong."""
        rows = self._planned.nonzero()[:, 0]
        imagined = self._imagined[rows, self._at[rows]]
        self._at[rows] += 1
        at, settings = self._at[rows], self._settings
        asked = (at % settings.every == 0) | (at >= self._length[rows])
        wrong = asked & ((s[rows] - imagined).norm(dim=-1) > settings.deviation)
        if settings.execute:
            wrong |= at >= settings.execute
        self._length[rows[wrong]] = 0
        self._states.append(s)

    def log(self) -> Log:
        """Return what was done."""
        actions, states = torch.stack(self._done, 1), torch.stack(self._states, 1)
        return Log(actions, states, self._plans, self._evaluations, self._first)

    def _plan(self, rows: Tensor, s: Tensor, planner: Planner, generator: Generator) -> None:
        """Make plans for some episodes, from what is left of their last ones."""
        start = None
        if self._settings.execute and self._first:  # of an episode that has had no plan, zeros
            start = _left(self._actions[rows], self._at[rows])
        plan = planner(selected(self._level, rows), s[rows], generator, start)
        if not self._first:
            self._first = [plan]
        self._actions = _placed(self._actions, rows, plan.actions)
        self._imagined = _placed(self._imagined, rows, plan.states)
        self._length[rows], self._at[rows] = plan.length, 0
        self._plans[rows] += 1
        self._evaluations[rows] += plan.evaluations


def _cost(level: Level, s: Tensor) -> Tensor:
    """Return the cost [B] of being where one is."""
    still = s.new_zeros(len(s), 1, 1, level.actions.width)
    return level.cost(s[:, None, None], still)[:, 0]


def _left(actions: Tensor, at: Tensor) -> Tensor:
    """Return what is left of plans [n, T, A] after `at` [n] steps, with zeros at the end."""
    time = at.unsqueeze(1) + torch.arange(actions.shape[1], device=at.device)
    kept = actions.take_along_dim(time.clamp(max=actions.shape[1] - 1).unsqueeze(-1), 1)
    return torch.where((time < actions.shape[1]).unsqueeze(-1), kept, 0.0)


def _placed(all_rows: Tensor, rows: Tensor, parts: Tensor) -> Tensor:
    """Return [B, T, …] with parts [n, T', …] in some rows, filled up with zeros to the longer of the two."""
    steps = max(all_rows.shape[1], parts.shape[1])
    filled = [torch.nn.functional.pad(part, (0, 0, 0, steps - part.shape[1])) for part in (all_rows, parts)]
    filled[0][rows] = filled[1]
    return filled[0]
