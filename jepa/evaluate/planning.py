"""How well a world model plans, under every published rule, and at what cost; beside it worlds that are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.evaluate.acting import Acting, needed
from jepa.evaluate.operations import operations
from jepa.evaluate.subject import Row
from jepa.keypoints import UNIT
from jepa.planning.actions import Box
from jepa.planning.control import Control, Log, control, planners
from jepa.planning.costs import Distance, Module
from jepa.planning.growth import TreeSearch
from jepa.planning.level import Level, episodic
from jepa.planning.servo import moves
from jepa.static import separate
from jepa.worlds.rooms.episodes import Episodes
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.motion import obstacles, touches
from jepa.worlds.rooms.success import RULES, WITHIN, first_within, solved_at_start
from jepa.worlds.rooms.tasks import Tasks

SIZE = 33  # S of the pictures whose pixels planners' lengths are in
BATCH = 250  # episodes at a time

Drive = Callable[[Episodes, int], Log]  # (episodes, number of their batch) -> what was done in them


@dataclass(frozen=True)
class Agent:
    """What a planner is given of a batch of episodes."""

    encode: Callable[[Tensor], Tensor]  # pictures [B, …] -> s [B, D]
    step: Any  # (s, a, z) -> s̃, with `rows`
    goal: Tensor  # [B, D]


def level_of(step: Any, cost: Module, horizon: int, limit: float) -> Level:
    """Return the level of episodes that have a step and a cost of their own, both with `rows`."""
    return episodic(Level(step, cost, horizon, Box(2, norm=limit)))


def learned(subject: Acting, present: Tensor, goal: Tensor) -> Agent:
    """Return what a model makes of pictures of the present and of the goal [B, …], each encoded once."""
    static, _ = separate(torch.stack([present, goal], 1))
    encode = subject.percept(static)
    return Agent(encode, subject.model.bound(static), encode(goal))


class Oracle:
    """The world's own step, on positions in the unit of a code of locations."""

    def __init__(self, layouts: Layouts, pixel: float, middle: float) -> None:
        """Args: pixel: its side, in units; middle: of the picture, in units."""
        self._layouts, self._boxes, self._unit, self._middle = layouts, obstacles(layouts), pixel * UNIT, middle

    def code(self, position: Tensor) -> Tensor:
        """Return s of positions [..., 2] in units."""
        return (position - self._middle) / self._unit

    def __call__(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, 2]; a step that touches something does not happen."""
        batch, candidates = (max(part.shape[axis] for part in (s, a)) for axis in (0, 1))
        p = (s * self._unit + self._middle).expand(batch, candidates, -1).flatten(0, 1)
        end = p + a.expand(batch, candidates, -1).flatten(0, 1)
        hit = touches(self._boxes.repeat_interleave(candidates, 0), p, end).any(1, keepdim=True)
        return self.code(torch.where(hit, p, end)).unflatten(0, (batch, candidates))

    def rows(self, index: Tensor) -> Oracle:
        """Return the step of some episodes."""
        return Oracle(self._layouts.rows(index), self._unit / UNIT, self._middle)


@torch.no_grad()
def planning(
    subject: Acting, episodes: int = 1000, steps: int = 200, collisions: str = "push",
    headings: int = 16, cell: float = 1.0, plans: int = 40,
) -> list[Row]:  # fmt: skip
    """Return success under every published rule, with what an episode took, planned by the tree on the learned model.

    Args: episodes: of this seed's held-out tasks; steps: of an episode; collisions: of the world it acts in; headings:
        of the tree; cell: side of its cells, in pixels; plans: most of an episode.
    """
    needed("planning", subject)
    search, settings = tree_settings(headings, cell, steps, plans, subject.world.size)

    def drive(acting: Episodes, number: int) -> Log:
        """Return what the tree does."""
        agent = learned(subject, acting.observe(), acting.goal)
        return driven(agent, acting, search, settings, subject.world.step_limit, subject.stream(f"planning {number}"))

    rows = rows_of(subject, episodes, drive, "", collisions)
    evaluations = next(row.value for row in rows if row.metric == "evaluations")
    spent = operations(subject.model, subject.trajectories.static, subject.trajectories.frames[0])
    return [*rows, Row("teraflops", spent.teraflops(evaluations, steps + 2))]


def rows_of(
    subject: Acting, episodes: int, drive: Drive, prefix: str, collisions: str = "push", stream: str = "collisions"
) -> list[Row]:
    """Return the rows of episodes of this seed's held-out tasks, a few hundred at a time.

    Args: drive: acts in them, (episodes, number of the batch) -> log; prefix: of the rows' names; collisions: of the
        world it acts in; stream: the purpose that pushes are drawn for.
    """
    found = []
    for number, tasks in enumerate(batches(subject.some_tasks(episodes))):
        acting = subject.world.episodes(tasks, collisions, subject.stream(f"{stream} {number}"))
        found.append((drive(acting, number), acting.positions, tasks))
    return scored(found, prefix)


def tree_settings(headings: int, cell: float, steps: int, plans: int, size: int = SIZE) -> tuple[TreeSearch, Control]:
    """Return the settings of the tree for a code of locations; lengths are in pixels of a picture of 33 × 33.

    Args: size: S of the pictures that are encoded; the settings stay the same in the world's units.
    """
    one = pixel(size)
    search = TreeSearch(headings, hold=2, reach=0.92, cell=cell * one, tolerance=(0.75 * one) ** 2, depth=64)
    arrived, near, deviation = (0.5 * one) ** 2, (2 * one) ** 2, 0.6 * one
    return search, Control(steps, arrived, near, deviation, every=search.hold, plans=plans)


def pixel(size: int) -> float:
    """Return what a pixel of a picture of 33 × 33 is in a code of locations in pictures of another size."""
    return size / SIZE / UNIT


def driven(
    agent: Agent, acting: Any, search: TreeSearch, settings: Control, limit: float, generator: Generator
) -> Log:  # fmt: skip
    """Return what was done in episodes that are planned by a tree, and near the goal one step at a time."""
    level = level_of(agent.step, Distance(agent.goal), search.depth, limit)
    return control(acting, agent.encode, level, planners(search, near_moves(level.actions)), generator, settings)


def near_moves(actions: Box) -> Tensor:
    """Return the moves [49, 2] of which the best is taken near the goal: 16 directions, three lengths, and none."""
    return moves(actions, 16, (1.0, 0.6, 0.3))


def batches(tasks: Tasks) -> list[Tasks]:
    """Return tasks a few hundred at a time."""
    parts = torch.arange(len(tasks.start)).split(BATCH)
    return [tasks.rows(rows) for rows in parts]


def scored(found: list[tuple[Log, Tensor, Tasks]], prefix: str) -> list[Row]:
    """Return the rows of episodes: success under every rule, of those none began solved, and what they took.

    Raises: ValueError if an episode begins solved.
    """
    positions = torch.cat([positions for _, positions, _ in found])
    goal, start = (torch.cat([getattr(tasks, name) for _, _, tasks in found]) for name in ("goal", "start"))
    if bool(solved_at_start(start, goal).any()):
        raise ValueError(f"tasks: expected none that begins solved, found {int(solved_at_start(start, goal).sum())}")
    count = len(goal)
    rows = [
        Row(f"{prefix}success_{name}", float(rule(positions, goal).double().mean()), count)
        for name, rule in RULES.items()
    ]
    rows.append(Row(f"{prefix}steps", float(first_within(positions, goal, WITHIN).double().mean())))
    for name in ("plans", "evaluations"):
        rows.append(
            Row(f"{prefix}{name}", float(torch.cat([getattr(log, name) for log, _, _ in found]).double().mean()))
        )
    longest = max(float(log.actions.norm(dim=-1).max()) for log, _, _ in found)
    return [*rows, Row(f"{prefix}longest_step", longest)]
