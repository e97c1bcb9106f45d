"""A trained hierarchy that plans in mazes, with what it is measured on: its world and held-out tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator

from jepa.evaluate.acting import tasks_of_seed
from jepa.hierarchy import HJEPA
from jepa.worlds.rooms.maze import Maze
from jepa.worlds.rooms.tasks import Tasks


@dataclass(frozen=True)
class Planning:
    """A trained hierarchy with what it is measured on."""

    model: HJEPA
    world: Maze
    tasks: Tasks  # held out, all of them
    reference: float  # E0 of the highest level, in units of the energy
    stream: Callable[[str], Generator]  # the generator of a purpose
    seed: int = 0
    samples: int = 960  # trajectories, for probes to learn from
    probe: int = 512  # random features of the probes

    def some_tasks(self, count: int) -> Tasks:
        """Return `count` tasks of this seed. Raises: ValueError as `jepa.evaluate.acting.tasks_of_seed`."""
        return tasks_of_seed(self.tasks, self.seed, count)
