"""A trained world model with what it is measured on: its world, held-out tasks, and a probe that reads positions.

Positions are used here alone: to read what a code holds, to draw and to score. No loss and no planner sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.batches import Source, Trajectories
from jepa.evaluate.subject import refused
from jepa.measures.probes import Probe
from jepa.model import JEPA
from jepa.objectives.trajectories import encoded
from jepa.static import OVERLAP, moving, separate
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.tasks import Tasks
from jepa.worlds.rooms.world import Rooms

PENALTY = 1e-4  # of the probe: many samples, few numbers to read


@dataclass(frozen=True)
class Acting:
    """A trained world model with what it is measured on."""

    model: JEPA
    world: Rooms
    tasks: Tasks  # held out, all of them
    reference: float  # E0, in units of the energy
    stream: Callable[[str], Generator]  # the generator of a purpose
    sample: Source  # trajectories of the kind the model was trained on
    seed: int = 0
    samples: int = 960  # trajectories, half of which teach the probe
    probe: int = 512  # random features of the probe

    @cached_property
    def trajectories(self) -> Trajectories:
        """Trajectories of the kind the model was trained on, from their starts on, and 32 steps long."""
        count = self.samples // self.world.group * self.world.group
        return replace(self.world, before=0).trajectories(count, 32, self.stream("probe trajectories"))

    @cached_property
    def s(self) -> Tensor:
        """Codes of the trajectories, [B, T+1, D]."""
        return encoded(self.model, self.trajectories.frames)

    @cached_property
    def half(self) -> int:
        """How many trajectories teach the probe; the layouts of the others are others."""
        group = self.world.group
        return len(self.trajectories.a) // group // 2 * group

    @cached_property
    def read(self) -> Probe:
        """What reads the position, in units, from a code."""
        s, p = self.s[: self.half].flatten(0, 1), self.trajectories.factors["position"][: self.half].flatten(0, 1)
        some = torch.randperm(len(s), generator=self.stream("probe rows"))[:8192]
        return Probe(s[some], p[some], self.probe, PENALTY)

    def some_tasks(self, count: int) -> Tasks:
        """Return `count` tasks of this seed. Raises: ValueError as `tasks_of_seed`."""
        return tasks_of_seed(self.tasks, self.seed, count)

    def seen(self, layouts: Layouts, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames [B, n, …] as the model is given them, and static parts [B, …], of dots at positions [B, n, 2].

        The static part is the minimum over the n pictures, as it is where there are but the present and the goal.
        """
        pictures = self.world.draw(layouts, positions)
        static, moved = separate(pictures)
        return (moved if self.world.subtract else pictures), static

    def percept(self, static: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what encodes pictures [B, …] of scenes with known static parts [B, …]."""

        def encode(pictures: Tensor) -> Tensor:
            """Return s [B, D]."""
            if self.world.subtract:
                pictures = moving(pictures.unsqueeze(1), static, OVERLAP)[:, 0]
            return self.model.representation(pictures)

        return encode


def tasks_of_seed(tasks: Tasks, seed: int, count: int) -> Tasks:
    """Return `count` tasks of a seed, others than those of the next. Raises: ValueError if there are too few."""
    total = len(tasks.start)
    if count > total:
        raise ValueError(f"measure.planning.episodes: expected at most {total}, the held-out tasks, found {count}")
    rows = (seed * count + torch.arange(count)) % total
    return tasks.rows(rows)


def needed(measure: str, subject: Any) -> None:
    """Raises: ValueError for another subject than a world model."""
    if not isinstance(subject, Acting):
        raise refused(measure, "a world model with tasks", subject)
