"""The world `rooms`: a dot that walks through two rooms and the door between them, seen from above."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.batches import HeldOut, Trajectories
from jepa.worlds.rooms.episodes import Episodes
from jepa.worlds.rooms.layouts import Layouts, at_least_one, fixed_two_rooms, random_two_rooms, two_rooms
from jepa.worlds.rooms.motion import COLLISIONS, walk
from jepa.worlds.rooms.pictures import VIEWS, draw, draw_walls
from jepa.worlds.rooms.policies import EPISODE, POLICIES, mixed, published
from jepa.worlds.rooms.tasks import QUANTUM, Tasks, checked_tasks, draw_tasks, integer_tasks

WALLS = ("random", "fixed")


@dataclass(frozen=True)
class Rooms:
    """The world's constants; lengths are in units, of which a picture shows 65 a side."""

    walls: str = "random"  # or "fixed": wall at 32, door at 18
    size: int = 33  # S, pixels a side; 65 as published
    view: str = "channels"  # dot and walls in two channels, or "gray", both in one
    brightness: float = 2.0  # of the dot; a wall's is 1
    subtract: bool = True  # whether frames of trajectories are without their static part
    policy: str = "mixed"  # how dots step in trajectories, or "published"
    before: int = 24  # most steps that a mixed walk has made when its trajectory begins
    group: int = 6  # trajectories in succession that share a layout and its static part
    collisions: str = "stay"  # what happens to a dot that hits something, in trajectories
    step_limit: float = 2.45  # the longest step; the published policy's are at most 1.8

    of_tasks = ("walls",)  # constants that decide what tasks there are; the others how they look and how one learns
    factor_labels = {name: "predictable" for name in ("position", "wall", "door", "blocked")}
    quanta = dict.fromkeys(("x", "y", "wall", "door"), QUANTUM)  # units of the arrays made by `integers`

    def __post_init__(self) -> None:
        """Raises: ValueError for names or numbers that describe no world."""
        names = {"walls": WALLS, "view": VIEWS, "policy": POLICIES, "collisions": COLLISIONS}
        for name, known in names.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}")
        for name in ("size", "group"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.before < 0:
            raise ValueError(f"before: expected at least 0, found {self.before}")
        for name in ("brightness", "step_limit"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a number above 0, found {getattr(self, name)}")

    @property
    def static(self) -> tuple[int, int, int]:
        """Shape of a static part: C, S, S."""
        return VIEWS[self.view], self.size, self.size

    @property
    def widths(self) -> tuple[tuple[int, int, int], int, tuple[int, int, int]]:
        """Shape of a picture, width of an action, shape of the next picture."""
        return self.static, 2, self.static

    def layouts(self, count: int, generator: Generator) -> Layouts:
        """Return `count` layouts on the generator's device. Raises: ValueError for count < 1."""
        if self.walls == "fixed":
            return fixed_two_rooms(count, generator.device)
        return random_two_rooms(count, generator)

    def trajectories(self, count: int, steps: int, generator: Generator) -> Trajectories:
        """Return trajectories drawn on the generator's device; every `group` of them in succession share a layout.

        Args: count: B, a multiple of `group`; steps: T.
        Returns: frames [B, T+1, C, S, S], without the static part if `subtract`; a [B, T, 2], what was commanded, in
            units, also where a step was blocked; static [B/group, C, S, S], the pixelwise minimum over all frames of a
            group; factors: position [B, T+1, 2], wall and door [B, 1], in units, and blocked [B, T], 1 where it was.
        Raises: ValueError for a count that is no multiple of the group, or count or steps < 1.
        """
        check_groups(count, steps, self.group)
        layouts = self.layouts(count // self.group, generator).repeat(self.group)
        positions, actions, blocked = self._walks(layouts, steps, generator)
        frames, static = parted(self.draw(layouts, positions), self.group, self.subtract)
        wall, door = layouts.doors[:, 0].split(1, -1)
        factors = {"position": positions, "wall": wall, "door": door, "blocked": blocked.to(positions.dtype)}
        return Trajectories(frames, actions, static, factors)

    def draw(self, layouts: Layouts, positions: Tensor, walls: Tensor | None = None) -> Tensor:
        """Return whole pictures [B, T, C, S, S] of dots at positions [B, T, 2], in units.

        Args: walls: `jepa.worlds.rooms.pictures.draw_walls` of these layouts, where they are known.
        """
        return draw(layouts, positions, self.size, self.brightness, self.view, walls)

    def tasks(self, count: int, generator: Generator) -> Tasks:
        """Return `count` tasks on the generator's device, by EB-JEPA's rule. Raises: ValueError for count < 1."""
        return draw_tasks(count, self.walls == "fixed", generator)

    def integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return `count` tasks in integer arithmetic, in their quanta: the same numbers on every machine.

        Returns: x, the starts, and y, the goals, [count, 2]; wall and door [count, 1]; int16.
        Raises: ValueError for count < 1.
        """
        return integer_tasks(count, self.walls == "fixed", random)

    def tasks_of(self, held_out: HeldOut) -> Tasks:
        """Return the tasks of a stored set that `integers` made.

        Raises: ValueError for a set without walls and doors, or for tasks that cannot be done, as `checked_tasks`.
        """
        if missing := [name for name in ("wall", "door") if name not in held_out.factors]:
            found = ", ".join(held_out.factors)
            raise ValueError(f"held_out: expected the factors wall and door, found {found} without {missing[0]}")
        layouts = two_rooms(*(held_out.factors[name].flatten() for name in ("wall", "door")))
        return checked_tasks(Tasks(layouts, held_out.x, held_out.y))

    def episodes(self, tasks: Tasks, collisions: str = "push", generator: Generator | None = None) -> Episodes:
        """Return episodes in which one can act, each from its start.

        Args: tasks: N of them; collisions: what happens to a dot that hits something; generator: of pushes.
        Raises: ValueError for tasks that cannot be done, an unknown name or a push without a generator.
        """
        picture = partial(self.draw, walls=draw_walls(tasks.layouts, self.size))
        return Episodes(tasks, picture, self.step_limit, collisions, generator)

    def _walks(self, layouts: Layouts, steps: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions [B, T+1, 2], actions [B, T, 2] and blocked [B, T], windows of longer walks."""
        if self.policy == "mixed":
            start, actions = mixed(layouts, steps + self.before, self.step_limit, generator)
        else:
            start, actions = published(layouts, max(steps, EPISODE), generator)
        positions, blocked = walk(layouts, start, actions, self.collisions, generator)
        first = torch.randint(actions.shape[1] - steps + 1, (len(start), 1), generator=generator, device=start.device)
        time = first + torch.arange(steps + 1, device=start.device)
        rows = torch.arange(len(start), device=start.device).unsqueeze(1)
        return positions[rows, time], actions[rows, time[:, :-1]], blocked[rows, time[:, :-1]]


def check_groups(count: int, steps: int, group: int) -> None:
    """Raises: ValueError for a count of trajectories that is no multiple of the group, or count or steps < 1."""
    at_least_one(count)
    if count % group:
        raise ValueError(f"count: expected a multiple of {group}, the trajectories of a group, found {count}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, found {steps}")


def parted(frames: Tensor, group: int, subtract: bool) -> tuple[Tensor, Tensor]:
    """Return frames [B, n, C, S, S], without their static part if `subtract`, and static parts [B/group, C, S, S].

    A static part is the pixelwise minimum over all frames of a group, as `jepa.static.separate` says; frames are
    changed in place, without a second copy of them.
    """
    of_group = frames.unflatten(0, (-1, group)).flatten(1, 2)
    static = of_group.amin(1)
    return (of_group.sub_(static.unsqueeze(1)).view_as(frames) if subtract else frames), static
