"""A level: a step, a cost and a horizon, what is planned over; and the plan of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.minimize.base import Cost, Minimum, Project
from jepa.planning.actions import Box
from jepa.predictors import Step, rollout

PlanCost = Callable[[Tensor, Tensor], Tensor]  # (s̃ [B, K, T, D], a [B, K, T, A]) -> [B, K]
Passage = Callable[[Tensor, Tensor, Tensor], Tensor]  # (s [B, K, D], s̃ [B, K, D], a [B or 1, K, A]) -> [B, K]
Minimizer = Callable[[Cost, Tensor, Generator, Project], Minimum]  # (cost, start [B, N], generator, project)


class Level(NamedTuple):
    """What a plan is made of, on any level of a hierarchy."""

    step: Step  # (s [B, K or 1, D], a [B, K or 1, A], z) -> s̃ [B, K, D]
    cost: PlanCost  # of imagined states and actions
    horizon: int  # T, in steps of this level
    actions: Box  # what an action may be
    stride: int = 1  # steps of the level below in one step of this one
    up: Callable[[Tensor], Tensor] | None = None  # s of the level below -> s of this one; None on the lowest
    rows: Callable[[Tensor], Level] | None = None  # index [n] -> the level of these episodes; None: all share it
    latent: int = 0  # Z, width of z, which is 0 in a plan
    passage: Passage | None = None  # what a step costs beyond its length, for `search`; infinity forbids it


class Tree(NamedTuple):
    """The nodes of a search over all episodes, episode by episode only in the roots, which come first."""

    states: Tensor  # [M, D]
    parent: Tensor  # [M] index of the node before; −1 for a root
    episode: Tensor  # [M]
    depth: Tensor  # [M] macro-steps from the root


class Plan(NamedTuple):
    """A plan for every episode."""

    actions: Tensor  # [B, T, A]
    states: Tensor  # [B, T, D] imagined, each after its action
    length: Tensor  # [B] how many of the T steps are meant; behind them actions are 0 and the state stays
    value: Tensor  # [B] cost of the plan; of a tree, of where it ends
    evaluations: Tensor  # [B] states that the step was asked for
    tree: Tree | None = None


def selected(level: Level, index: Tensor) -> Level:
    """Return the level of the episodes index [n], which may repeat and leave out."""
    return level if level.rows is None else level.rows(index)


def episodic(level: Level) -> Level:
    """Return a level of episodes that differ: `rows` select in its cost, and in step and passage that have `rows`."""

    def rows(index: Tensor) -> Level:
        """Return the level of the episodes index [n]."""
        step, passage = (part.rows(index) if hasattr(part, "rows") else part for part in (level.step, level.passage))
        return episodic(level._replace(step=step, cost=level.cost.rows(index), passage=passage))

    return level._replace(rows=rows)


def plan(level: Level, s: Tensor, minimizer: Minimizer, generator: Generator, start: Tensor | None = None) -> Plan:
    """Return the plan a = argmin C(s̃(a), a) that a minimizer of costs finds (LeCun 2022, section 3.1, Mode-2).

    Args: level: step, cost and horizon T; s: [B, D] where the episodes are; minimizer: such as
        `partial(cem, spread=…, sampling=…)`, `Descent` or `Tried`; generator: on the device of s; start: [B, T, A], the
        first guess, None for zeros.
    Returns: the plan, all of whose T steps are meant, with exact counts of evaluations.
    Raises: ValueError for a horizon below 1, a state that is not [B, D] or not a number, or a start of another shape.
    """
    checked_state(s)
    if level.horizon < 1:
        raise ValueError(f"horizon: expected at least 1, found {level.horizon}")
    shape = (len(s), level.horizon, level.actions.width)
    if start is not None and start.shape != shape:
        raise ValueError(f"start: expected {list(shape)}, found {list(start.shape)}")
    start = s.new_zeros(shape) if start is None else start
    problem = _Problem(level, s)
    found = minimizer(problem.cost, problem.project(start.flatten(1)[:, None])[:, 0], generator, problem.project)
    with torch.no_grad():
        states, a = problem.imagined(found.argmin[:, None])
        value = level.cost(states, a)[:, 0]
    length = torch.full_like(s[:, 0], level.horizon, dtype=torch.long)
    return Plan(a[:, 0], states[:, 0], length, value, torch.full_like(length, problem.asked))


class _Problem:
    """The cost of T · A numbers, its limits, and how many states the step was asked for in every episode."""

    def __init__(self, level: Level, s: Tensor) -> None:
        self.level, self.s, self.asked = level, s, 0

    def project(self, candidates: Tensor) -> Tensor:
        """Return plans [B or 1, K, T · A] whose actions are all allowed."""
        return self.level.actions.project(self._split(candidates)).flatten(-2)

    def imagined(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states [B, K, T, D] and the allowed actions [B or 1, K, T, A] of plans."""
        a = self.level.actions.project(self._split(candidates))
        self.asked += a.shape[1] * a.shape[2]
        z = self.s.new_zeros(1, 1, self.level.horizon, self.level.latent)
        return rollout(self.level.step, self.s.unsqueeze(1), a, z), a

    def cost(self, candidates: Tensor) -> Tensor:
        """Return the costs [B, K] of plans."""
        return self.level.cost(*self.imagined(candidates))

    def _split(self, candidates: Tensor) -> Tensor:
        return candidates.unflatten(-1, (self.level.horizon, self.level.actions.width))


def checked_state(s: Tensor) -> None:
    """Raises: ValueError for states that are not [B, D] or, where no accelerator has to be waited for, not numbers."""
    if s.dim() != 2:
        raise ValueError(f"s: expected [B, D], found {list(s.shape)}")
    if s.device.type == "cpu" and s.isnan().any():
        raise ValueError(f"s: expected numbers, found nan in {int(s.isnan().any(1).sum())} of {len(s)} episodes")
