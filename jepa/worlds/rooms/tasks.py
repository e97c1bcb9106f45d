"""Tasks of Two Rooms: a dot in one room, a goal in the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.worlds.rooms import layouts as rooms
from jepa.worlds.rooms.layouts import FREE, HALF_WALL, Layouts, at_least_one
from jepa.worlds.rooms.motion import check_free
from jepa.worlds.rooms.reach import reachable

MARGIN = 2.6  # of starts and goals to walls and border, in units: two of the dot's standard deviations, as published
QUANTUM = 2.0**-8  # of a stored coordinate, in units


class Tasks(NamedTuple):
    """A batch of tasks."""

    layouts: Layouts  # N of them
    start: Tensor  # [N, 2] in units
    goal: Tensor  # [N, 2] in units

    def rows(self, index: Tensor | slice) -> Tasks:
        """Return some of the tasks, which may repeat: index as for `Layouts.rows`."""
        return Tasks(self.layouts.rows(index), self.start[index], self.goal[index])


def draw_tasks(count: int, fixed: bool, generator: Generator) -> Tasks:
    """Return tasks as EB-JEPA draws them: start and goal in opposite rooms, in either direction with probability ½.

    Both are uniform, x from 6.6 to 2.6 before the wall in the left room and from 2.6 behind it to 57.4 in the right, y
    from 6.6 to 57.4. So they are at least 7.2 apart, and no episode begins solved.
    Raises: ValueError for count < 1.
    """
    at_least_one(count)
    layouts = rooms.fixed_two_rooms(count, generator.device) if fixed else rooms.random_two_rooms(count, generator)
    wall, low, high = layouts.doors[:, 0, 0], FREE[0] + MARGIN, FREE[1] - MARGIN
    x, y = torch.rand(2, 2, count, generator=generator, device=generator.device)
    left = low + (wall - HALF_WALL - MARGIN - low) * x[0]
    right = high - (high - wall - HALF_WALL - MARGIN) * x[1]
    swapped = torch.rand(count, generator=generator, device=generator.device) < 0.5
    start = torch.stack([torch.where(swapped, right, left), low + (high - low) * y[0]], -1)
    goal = torch.stack([torch.where(swapped, left, right), low + (high - low) * y[1]], -1)
    return Tasks(layouts, start, goal)


def integer_tasks(count: int, fixed: bool, random: np.random.RandomState) -> dict[str, np.ndarray]:
    """Return tasks in units of 2⁻⁸, by the rule of `draw_tasks` in integer arithmetic: the same on every machine.

    Returns: x, the starts, and y, the goals, [count, 2]; wall and door [count, 1]; int16.
    Raises: ValueError for count < 1.
    """
    at_least_one(count)
    one = round(1 / QUANTUM)
    low, high = -int(-(FREE[0] + MARGIN) * one // 1), int((FREE[1] - MARGIN) * one // 1)
    near = -int(-(HALF_WALL + MARGIN) * one // 1)

    def between(first: np.ndarray | int, last: np.ndarray | int) -> np.ndarray:
        """Return whole numbers [count] from first to last."""
        share = random.randint(0, 2**30, count, dtype=np.int64)
        return first + (share * (last - first + 1) >> 30)

    wall, door = (between(round(a * one), round(b * one)) for a, b in (rooms.WALL, rooms.DOOR))
    if fixed:
        wall, door = (np.full(count, round(value * one), np.int64) for value in rooms.FIXED)
    left, right = between(low, wall - near), between(wall + near, high)
    top, bottom = between(low, high), between(low, high)
    swapped = between(0, 1).astype(bool)
    start = np.stack([np.where(swapped, right, left), top], 1)
    goal = np.stack([np.where(swapped, left, right), bottom], 1)
    arrays = {"x": start, "y": goal, "wall": wall[:, None], "door": door[:, None]}
    return {name: array.astype(np.int16) for name, array in arrays.items()}


def checked_tasks(tasks: Tasks) -> Tasks:
    """Return tasks as they came, if they can be done.

    Raises: ValueError for none, for shapes that do not fit, for a start or goal within a wall or beyond the border, or
        for a goal that no way leads to.
    """
    count = len(tasks.layouts.bounds)
    at_least_one(count)
    for name, points in (("start", tasks.start), ("goal", tasks.goal)):
        if points.shape != (count, 2):
            raise ValueError(f"{name}: expected [{count}, 2], found {list(points.shape)}")
        if not bool(points.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, found {points[~points.isfinite()][0].item()}")
        check_free(tasks.layouts, points, name)
    lost = ~reachable(tasks.layouts, tasks.start, tasks.goal)
    if bool(lost.any()):
        what = f"none from task {int(lost.nonzero()[0])} and {int(lost.sum()) - 1} others"
        raise ValueError(f"goal: expected a way from every start to its goal, found {what}")
    return tasks
