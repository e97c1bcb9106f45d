"""Tasks of mazes: a dot in one room, a goal in another, and which of these tasks a map misleads in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.batches import HeldOut
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.grid import ROOM, WALL, built, least_tree, mapped, neighbors
from jepa.worlds.rooms.layouts import Layouts, at_least_one
from jepa.worlds.rooms.tasks import QUANTUM, Tasks, checked_tasks

MARGIN = 1.5  # of starts and goals to walls, in units
APART = 7.0  # how far starts and goals are from each other at least, in units: their dots hardly overlap in a picture
DETOUR = 2.0  # by how much a way must be longer than on the map for the map to mislead, in units
ONE = round(1 / QUANTUM)  # a unit, in quanta
MOST = 14  # rooms a side whose coordinates in quanta are int16
SHARE = 30  # bits of a random number
DOORS = {"wall": 0, "open": 1, "gate": 2}  # what may be between two rooms -> how it is stored


def draw_tasks(layouts: Layouts, rooms: int, generator: Generator) -> Tasks:
    """Return a task in each of B layouts of rooms × rooms.

    The rooms of start and goal are a uniform one of all ordered pairs of different rooms. In them both are uniform at
    least 1.5 units from the walls, drawn again, in the same rooms, where they are less than 7 units apart.
    Raises: ValueError for a single room.
    """
    _several(rooms)
    count, like = len(layouts.bounds), {"generator": generator, "device": generator.device}
    first, on = torch.randint(rooms**2, (count,), **like), torch.randint(1, rooms**2, (count,), **like)
    room = torch.stack([first, (first + on) % rooms**2], 1)
    corner = torch.stack([room % rooms, room // rooms], -1) * (ROOM + WALL) + MARGIN  # [B, 2, 2]
    points, near = corner, torch.ones(count, dtype=torch.bool, device=generator.device)
    while bool(near.any()):
        drawn = corner + (ROOM - 2 * MARGIN) * torch.rand(count, 2, 2, **like)
        points = torch.where(near[:, None, None], drawn, points)
        near = (points[:, 0] - points[:, 1]).norm(dim=-1) < APART
    return Tasks(layouts, points[:, 0], points[:, 1])


def integer_tasks(
    count: int, rooms: int, loops: float, shut: float, random: np.random.RandomState
) -> dict[str, np.ndarray]:
    """Return tasks and their layouts, by the rules of `draw_tasks` and `jepa.worlds.rooms.grid.grid` in integer
    arithmetic: the same on every machine.

    Returns: x, the starts, and y, the goals, [count, 2], in units of 2⁻⁸; offset [count, E], where doors are in their
        walls, from 0 to 1, in 2⁻⁸; kind [count, E], 0 where a wall is, 1 an open door, 2 a shut gate; int16.
    Raises: ValueError for count < 1, a single room, or so many that their coordinates are no int16.
    """
    at_least_one(count)
    _several(rooms)
    if rooms > MOST:
        raise ValueError(f"rooms: expected at most {MOST} for coordinates to be stored as int16, found {rooms}")

    def below(end: int, *shape: int) -> np.ndarray:
        """Return whole numbers [count, …] from 0 to end − 1."""
        return random.randint(0, 2**SHARE, (count, *shape), dtype=np.int64) * end >> SHARE

    pairs = neighbors(rooms, rooms)
    weight, luck = below(2**SHARE, len(pairs)), below(2**SHARE, len(pairs))
    unlike = torch.from_numpy(weight * len(pairs) + np.arange(len(pairs)))  # no two the same
    tree = least_tree(unlike, rooms**2, pairs).numpy()
    opened = tree | (luck < round(loops * (1 - shut) * 2**SHARE))
    kind = np.where(opened, DOORS["open"], np.where(luck < round(loops * 2**SHARE), DOORS["gate"], DOORS["wall"]))
    offset = below(ONE + 1, len(pairs))
    first = below(rooms**2)
    room = np.stack([first, (first + 1 + below(rooms**2 - 1)) % rooms**2], 1)
    corner = np.stack([room % rooms, room // rooms], -1) * round((ROOM + WALL) * ONE) + round(MARGIN * ONE)
    points, near = corner, np.ones(count, bool)
    while near.any():
        points = np.where(near[:, None, None], corner + below(round((ROOM - 2 * MARGIN) * ONE) + 1, 2, 2), points)
        near = np.square(points[:, 0] - points[:, 1]).sum(-1) < round(APART * ONE) ** 2
    arrays = {"x": points[:, 0], "y": points[:, 1], "offset": offset, "kind": kind}
    return {name: array.astype(np.int16) for name, array in arrays.items()}


def stored_tasks(rooms: int, held_out: HeldOut) -> Tasks:
    """Return the tasks of a stored set that `integer_tasks` made for as many rooms.

    Raises: ValueError for a set without offsets and kinds of as many doors, or for tasks that cannot be done, as
        `checked_tasks`.
    """
    shape, factors = (len(held_out.x), len(neighbors(rooms, rooms))), held_out.factors
    for name in ("offset", "kind"):
        if name not in factors or factors[name].shape != shape:
            found = list(factors[name].shape) if name in factors else ", ".join(factors) or "none"
            raise ValueError(f"held_out: expected a factor {name} {list(shape)}, found {found}")
    kind = factors["kind"]
    layouts = built(rooms, rooms, factors["offset"], kind == DOORS["open"], kind == DOORS["gate"])
    return checked_tasks(Tasks(layouts, held_out.x, held_out.y))


def misleading(tasks: Tasks) -> Tensor:
    """Return in which tasks the map misleads, [N], bool: the shortest way is over 2 units longer than on the map.

    Raises: ValueError as `jepa.worlds.rooms.geodesic.geodesic`.
    """
    way = geodesic(tasks.layouts, tasks.start, tasks.goal)
    return way.length > geodesic(mapped(tasks.layouts), tasks.start, tasks.goal).length + DETOUR


def _several(rooms: int) -> None:
    """Raises: ValueError for a single room, in which there are no tasks."""
    if rooms < 2:
        raise ValueError(f"rooms: expected at least 2 a side for tasks from room to room, found {rooms}")
