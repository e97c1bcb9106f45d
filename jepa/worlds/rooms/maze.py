"""The world `maze`: a dot that walks through a grid of rooms, some of whose doors are gates that are shut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.batches import HeldOut, Trajectories
from jepa.worlds.rooms.episodes import Episodes
from jepa.worlds.rooms.grid import DOOR, LOOPS, ROOM, WALL, grid, mapped
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.maze_tasks import draw_tasks, integer_tasks, stored_tasks
from jepa.worlds.rooms.motion import walk
from jepa.worlds.rooms.pictures import VIEWS, draw, draw_walls
from jepa.worlds.rooms.policies import TURN, directions
from jepa.worlds.rooms.tasks import QUANTUM, Tasks
from jepa.worlds.rooms.world import check_groups, parted

MARGIN = 0.1  # of starts to walls, in units
RIM = 2.0  # by how much thicker the outer walls are drawn, in units, so that a dot at one of them is seen whole
BESIDE = 3.0  # how far in front of or behind a door's middle a start near it is at most, in units


@dataclass(frozen=True)
class Maze:
    """The world's constants; lengths are in units. Rooms are 8 wide, walls 1 thick, doors 3 wide."""

    rooms: int = 3  # G, rows and columns
    loops: float = LOOPS  # probability of a door that no way needs
    shut: float = 0.7  # probability that such a door is a shut gate
    resolution: int = 1  # pixels a unit
    brightness: float = 2.0  # of the dot; a wall's is 1
    subtract: bool = True  # whether frames of trajectories are without their static part
    before: int = 20  # most steps that a walk has made when its trajectory begins
    group: int = 8  # trajectories in succession that share a layout and its static part
    step_limit: float = 1.0  # the longest step
    sight: float = 0.0  # units within which a shut gate is seen by whoever acts; 0: wherever it is

    of_tasks = ("rooms", "loops", "shut")  # constants that decide what tasks there are
    factor_labels = {name: "predictable" for name in ("position", "blocked")}
    quanta = {"x": QUANTUM, "y": QUANTUM, "offset": QUANTUM, "kind": 1}  # units of the arrays made by `integers`
    collisions = "slide"  # along walls, in trajectories and in episodes

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that describe no world."""
        for name in ("rooms", "resolution", "group"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("loops", "shut"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a probability, found {getattr(self, name)}")
        for name in ("before", "sight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, found {getattr(self, name)}")
        for name in ("brightness", "step_limit"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number above 0, found {getattr(self, name)}")

    @property
    def size(self) -> int:
        """S, pixels a side."""
        return self.resolution * int(self.rooms * (ROOM + WALL) + WALL + 2 * RIM)

    @property
    def static(self) -> tuple[int, int, int]:
        """Shape of a static part: C, S, S."""
        return VIEWS["channels"], self.size, self.size

    @property
    def widths(self) -> tuple[tuple[int, int, int], int, tuple[int, int, int]]:
        """Shape of a picture, width of an action, shape of the next picture."""
        return self.static, 2, self.static

    def layouts(self, count: int, generator: Generator) -> Layouts:
        """Return `count` layouts on the generator's device. Raises: ValueError for count < 1."""
        return grid(count, self.rooms, self.rooms, generator, self.loops, self.shut)

    def trajectories(self, count: int, steps: int, generator: Generator) -> Trajectories:
        """Return trajectories drawn on the generator's device; every `group` of them in succession share a layout.

        45 % of the starts are at doors, open or not, the others anywhere. The heading is a random walk with turns
        N(0, 0.45²) rad, in half of the walks drawn anew after half of the blocked steps; a step's length is
        U(0, limit), in 30 % of the walks U(0.8, 1) · limit.

        Args: count: B, a multiple of `group`; steps: T.
        Returns: frames [B, T+1, C, S, S], without the static part if `subtract`; a [B, T, 2], what was commanded, in
            units; static [B/group, C, S, S], the pixelwise minimum over all frames of a group; factors: position
            [B, T+1, 2], in units, and blocked [B, T], 1 where something was in the way.
        Raises: ValueError for a count that is no multiple of the group, or count or steps < 1.
        """
        check_groups(count, steps, self.group)
        layouts = self.layouts(count // self.group, generator).repeat(self.group)
        positions, actions, blocked = self._walks(layouts, steps + self.before, generator)
        first = torch.randint(self.before + 1, (count, 1), generator=generator, device=generator.device)
        time = first + torch.arange(steps + 1, device=generator.device)
        rows = torch.arange(count, device=generator.device).unsqueeze(1)
        positions, a, blocked = positions[rows, time], actions[rows, time[:, :-1]], blocked[rows, time[:, :-1]]
        frames, static = parted(self.draw(layouts, positions), self.group, self.subtract)
        return Trajectories(frames, a, static, {"position": positions, "blocked": blocked.to(positions.dtype)})

    def draw(self, layouts: Layouts, positions: Tensor, walls: Tensor | None = None) -> Tensor:
        """Return whole pictures [B, T, C, S, S] of dots at positions [B, T, 2], in units; walls: as `walls` returns."""
        return draw(rimmed(layouts), positions, self.size, self.brightness, "channels", walls)

    def walls(self, layouts: Layouts) -> Tensor:
        """Return the walls of layouts, [B, S, S], for many pictures of them."""
        return draw_walls(rimmed(layouts), self.size)

    def tasks(self, count: int, generator: Generator) -> Tasks:
        """Return `count` tasks on the generator's device: from one room to another, as likely each.

        Raises: ValueError for count < 1 or a world of a single room.
        """
        return draw_tasks(self.layouts(count, generator), self.rooms, generator)

    def integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return `count` tasks in integer arithmetic, in their quanta: the same numbers on every machine.

        Returns: x, the starts, and y, the goals, [count, 2]; offset and kind of doors [count, E], as
            `jepa.worlds.rooms.maze_tasks.integer_tasks` says; int16.
        Raises: ValueError for count < 1, a world of a single room, or of more than 14 a side.
        """
        return integer_tasks(count, self.rooms, self.loops, self.shut, random)

    def tasks_of(self, held_out: HeldOut) -> Tasks:
        """Return the tasks of a stored set that `integers` made.

        Raises: ValueError for a set without the doors of as many rooms, or for tasks that cannot be done.
        """
        return stored_tasks(self.rooms, held_out)

    def episodes(self, tasks: Tasks, collisions: str = "slide", generator: Generator | None = None) -> Episodes:
        """Return episodes in which one can act, each from its start; shut gates are seen within `sight`.

        The walls that a dot meets are the true ones, whatever is seen.

        Args: tasks: N of them; collisions, generator: as for `jepa.worlds.rooms.motion.move`.
        Raises: ValueError for tasks that cannot be done, an unknown name or a push without a generator.
        """
        if self.sight:
            return Episodes(tasks, self.draw, self.step_limit, collisions, generator, self.seen)
        return Episodes(
            tasks, partial(self.draw, walls=self.walls(tasks.layouts)), self.step_limit, collisions, generator
        )

    def seen(self, layouts: Layouts, positions: Tensor) -> Layouts:
        """Return layouts as they look to dots at positions [B, 2]: shut gates whose middle is farther than `sight` look
        open, none where that is 0."""
        far = (layouts.doors - positions.unsqueeze(1)).norm(dim=-1) > (self.sight or math.inf)
        return mapped(layouts, far)

    def map(self, layouts: Layouts) -> Tensor:
        """Return what a map shows, [B, C, S, S]: no dot, and shut gates open."""
        nowhere = layouts.bounds.new_full((len(layouts.bounds), 1, 2), -1e3)
        return self.draw(mapped(layouts), nowhere)[:, 0]

    def uniform(self, layouts: Layouts, generator: Generator, margin: float = MARGIN) -> Tensor:
        """Return points [B, 2] in rooms, at least a margin from their walls."""
        count, device = len(layouts.bounds), generator.device
        room = torch.randint(self.rooms, (count, 2), generator=generator, device=device)
        within = margin + (ROOM - 2 * margin) * torch.rand(count, 2, generator=generator, device=device)
        return room * (ROOM + WALL) + within

    def _walks(self, layouts: Layouts, steps: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions [B, T+1, 2], actions [B, T, 2] and blocked [B, T]."""
        count, like = len(layouts.bounds), {"generator": generator, "device": generator.device}
        positions, done, met = [self._starts(layouts, generator)], [], []
        turns = TURN * torch.randn(count, steps, **like)
        anew, length = 2 * math.pi * torch.rand(count, steps, **like), torch.rand(count, steps, **like)
        luck, (quick, turning) = torch.rand(count, steps, **like), torch.rand(2, count, 1, **like)
        length = self.step_limit * torch.where(quick < 0.3, 0.8 + 0.2 * length, length)
        heading = anew[:, 0]
        for t in range(steps):
            a = length[:, t : t + 1] * directions(heading)
            way, hit = walk(layouts, positions[-1], a.unsqueeze(1), self.collisions)
            positions.append(way[:, 1])
            done.append(a)
            met.append(hit[:, 0])
            heading = torch.where(
                met[-1] & (luck[:, t] < 0.5) & (turning[:, 0] < 0.5), anew[:, t], heading + turns[:, t]
            )
        return torch.stack(positions, 1), torch.stack(done, 1), torch.stack(met, 1)

    def _starts(self, layouts: Layouts, generator: Generator) -> Tensor:
        """Return starts [B, 2], many of them at doors."""
        count, like = len(layouts.bounds), {"generator": generator, "device": generator.device}
        anywhere, doors = self.uniform(layouts, generator), layouts.doors.shape[1]
        if not doors:
            return anywhere
        which, rows = torch.randint(doors, (count,), **like), torch.arange(count, device=generator.device)
        across, along, kind = torch.rand(3, count, **like)
        side = torch.where(across < 0.5, -1.0, 1.0)
        beside = side * (WALL / 2 + MARGIN + (BESIDE - WALL / 2 - MARGIN) * (2 * across - 1).abs())
        offset = (2 * along - 1) * (DOOR / 2 + 0.5)
        level = which < doors // 2  # doors between rooms side by side come first
        shift = torch.where(level.unsqueeze(1), torch.stack([beside, offset], 1), torch.stack([offset, beside], 1))
        return torch.where(kind.unsqueeze(1) < 0.45, layouts.doors[rows, which] + shift, anywhere)


def rimmed(layouts: Layouts) -> Layouts:
    """Return grids of rooms whose outer walls are drawn thicker, with an extent that shows them."""
    extent = layouts.extent + RIM * layouts.extent.new_tensor([-1.0, -1.0, 1.0, 1.0])
    (x0, y0, x1, y1), (u0, v0, u1, v1) = layouts.bounds.unbind(-1), extent.unbind(-1)
    sides = ((u0, v0, x0, v1), (x1, v0, u1, v1), (u0, v0, u1, y0), (u0, y1, u1, v1))
    drawn = torch.cat([layouts.drawn, torch.stack([torch.stack(side, -1) for side in sides], 1)], 1)
    return layouts._replace(drawn=drawn, extent=extent)
