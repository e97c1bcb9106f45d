"""What a planner imagines, as positions that can be drawn: its tree, its path, an episode, the steps to a goal.

All positions are read from codes by the subject's probe; the planner sees codes alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.evaluate.acting import Acting
from jepa.evaluate.planning import learned, level_of, near_moves, tree_settings
from jepa.planning.control import control, planners
from jepa.planning.costs import Distance
from jepa.planning.growth import TreeSearch
from jepa.planning.level import Level, Plan
from jepa.planning.togo import cost_to_go
from jepa.planning.tree import tree
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.motion import within
from jepa.worlds.rooms.tasks import Tasks

HEADINGS, CELL, PLANS = 16, 1.0, 40  # as `jepa.evaluate.planning.planning` has them
HOLD = tree_settings(HEADINGS, CELL, 1, 1)[0].hold  # steps of a macro-action
FLOOD = 48  # steps from a goal to the farthest place of two rooms, with some to spare


class Imagined(NamedTuple):
    """One plan of one episode, in units; a planner without a tree leaves the nodes empty."""

    step: int  # of the episode at which it was made
    goal: Tensor  # [2] the true one
    path: Tensor  # [T+1, 2] where it begins, and after each of its steps
    nodes: Tensor  # [M, 2] of its tree, the root first
    parent: Tensor  # [M] the node before; −1 for the root
    depth: Tensor  # [M] macro-actions from the root
    evaluations: int  # states that the model was asked for


class Episode(NamedTuple):
    """One episode of a world, with what was imagined in it."""

    layouts: Layouts  # one of them
    goal: Tensor  # [2] in units
    positions: Tensor  # [T+1, 2] in units, true ones
    pictures: Tensor  # [T+1, C, S, S] what was seen
    plans: list[Imagined]  # in their order


class Field(NamedTuple):
    """Steps to a goal, at the true positions of dots on a grid."""

    layouts: Layouts  # one of them
    goal: Tensor  # [2] in units
    steps: Tensor  # [S, S], the first index is y; nan where no dot can be
    corners: tuple[float, float, float, float]  # least x and y, largest x and y of the grid's points, in units


@torch.no_grad()
def imagined(subject: Acting, tasks: Tasks, row: int = 0, goal: tuple[float, float] | None = None) -> Imagined:
    """Return the plan at the start of one task, by the tree on the learned model.

    Args: row: of the tasks; goal: x and y in units, None for the task's own.
    """
    task = _one(tasks, row, goal)
    search, _ = tree_settings(HEADINGS, CELL, 1, 1, subject.world.size)
    acting = subject.world.episodes(task, "stay")
    agent = learned(subject, acting.observe(), acting.goal)
    s = agent.encode(acting.observe())
    level = level_of(agent.step, Distance(agent.goal), search.depth, subject.world.step_limit)
    return read(subject, 0, s, tree(level, s, subject.stream("imagined"), search), task.goal[0])


@torch.no_grad()
def episode(subject: Acting, tasks: Tasks, row: int = 0, steps: int = 200, collisions: str = "push") -> Episode:
    """Return one episode, planned as `jepa.evaluate.planning.planning` does, with all plans that were made in it.

    Args: row: of the tasks; steps: of the episode; collisions: of the world it acts in.
    """
    task, plans = _one(tasks, row), []
    search, settings = tree_settings(HEADINGS, CELL, steps, PLANS, subject.world.size)
    acting = subject.world.episodes(task, collisions, subject.stream("shown collisions"))
    agent = learned(subject, acting.observe(), acting.goal)
    level = level_of(agent.step, Distance(agent.goal), search.depth, acting.limit)
    whole, near = planners(search, near_moves(level.actions))

    def plan(level: Level, s: Tensor, generator: Generator, start: Tensor | None) -> Plan:
        """Return a plan by the tree, and keep it."""
        found = whole(level, s, generator, start)
        plans.append(read(subject, acting.steps, s, found, task.goal[0]))
        return found

    control(acting, agent.encode, level, (plan, near), subject.stream("shown episode"), settings)
    pictures = subject.world.draw(task.layouts, acting.positions)[0]
    return Episode(task.layouts, task.goal[0], acting.positions[0], pictures, plans)


def read(subject: Acting, step: int, s: Tensor, plan: Plan, goal: Tensor) -> Imagined:
    """Return the plan of a single episode as positions.

    Args: step: of the episode at which it was made; s: [1, D] where it began; goal: [2] the true one, in units.
    """
    path = torch.cat([s, plan.states[0, : int(plan.length[0])]])
    if plan.tree is None:
        none = torch.zeros(0, dtype=torch.long)
        nodes, parent, depth = subject.read(s[:0]), none, none
    else:
        nodes, parent, depth = subject.read(plan.tree.states), plan.tree.parent, plan.tree.depth
    return Imagined(step, goal, subject.read(path), nodes, parent, depth, int(plan.evaluations[0]))


@torch.no_grad()
def steps_to_go(subject: Acting, tasks: Tasks, row: int = 0, side: int = 65) -> Field:
    """Return the imagined steps to the goal of one task, `jepa.planning.togo.cost_to_go` on the learned model.

    A dot is drawn at every point of a grid, side × side over the rectangle it cannot leave, and its picture encoded.
    """
    task = _one(tasks, row)
    corners = tuple(task.layouts.bounds[0].tolist())
    x, y = (torch.linspace(corners[axis], corners[axis + 2], side) for axis in (0, 1))
    points = torch.cartesian_prod(y, x).flip(1)
    frames, static = subject.seen(task.layouts, torch.cat([points, task.goal]).unsqueeze(0))
    s = subject.model.representation(frames[0])
    usual, _ = tree_settings(HEADINGS, CELL, 1, 1, subject.world.size)
    search = TreeSearch(headings=HEADINGS, hold=1, reach=1.0, cell=usual.cell / 2, depth=FLOOD)
    level = level_of(subject.model.bound(static), Distance(s[-1:]), search.depth, subject.world.step_limit)
    steps = cost_to_go(level, s[-1:], subject.stream("steps to go"), search)(s[:-1].unsqueeze(0))[0]
    steps = steps.masked_fill(within(task.layouts.solids, points).any(1), torch.nan).view(side, side)
    return Field(task.layouts, task.goal[0], steps, corners)


def _one(tasks: Tasks, row: int, goal: tuple[float, float] | None = None) -> Tasks:
    """Return one task, with another goal if one is given."""
    one = tasks.rows(slice(row, row + 1))
    return one if goal is None else one._replace(goal=one.goal.new_tensor([goal]))
