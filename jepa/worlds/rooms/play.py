"""Dots at play: what environments of rooms do, many at once, whatever library they are made for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa.worlds.base import shortened
from jepa.worlds.rooms.motion import COLLISIONS, move
from jepa.worlds.rooms.pictures import draw
from jepa.worlds.rooms.success import RULES
from jepa.worlds.rooms.tasks import Tasks
from jepa.worlds.rooms.world import Rooms

LEAST = 260  # pixels a side of a rendered picture


class Play:
    """N dots at their tasks, from which solved ones can be given new tasks."""

    def __init__(self, count: int, world: Rooms, collisions: str, rule: str) -> None:
        """Raises: ValueError for a rule of collision or of success that does not exist."""
        for name, value, known in (("collisions", collisions, COLLISIONS), ("rule", rule, RULES)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
        self.count, self.world, self.collisions, self.rule = count, world, collisions, RULES[rule]
        self.generator, self._brightest = torch.Generator(), max(1.0, world.brightness)
        self._seeded = False

    def restart(self, random: np.random.Generator, seeded: bool) -> None:
        """Give every dot a new task; `seeded`: the numbers are from now on decided by `random`."""
        if seeded or not self._seeded:
            self.generator.manual_seed(int(random.integers(2**62)))
            self._seeded = True
        self._begin(self.world.tasks(self.count, self.generator))

    def renew(self, rows: Tensor) -> None:
        """Give some dots, [N] of bool, new tasks."""
        new, old = self.world.tasks(self.count, self.generator), self.tasks._replace(start=self.position)
        layouts = type(new.layouts)(*(chosen(rows, *pair) for pair in zip(new.layouts, old.layouts, strict=True)))
        self._begin(Tasks(layouts, chosen(rows, new.start, old.start), chosen(rows, new.goal, old.goal)))

    def step(self, actions: Any, still: Tensor | None = None) -> Tensor:
        """Move the dots but those that stay, [N] of bool, and return which are at their goals, [N]."""
        a = torch.as_tensor(np.asarray(actions), dtype=self.position.dtype).reshape(-1, 2)
        a = shortened(a, self.world.step_limit, (self.count, 2))
        a = a if still is None else a * ~still.unsqueeze(1)
        self.position, _ = move(self.tasks.layouts, self.position, a, self.collisions, self.generator)
        return self.rule(self.position.unsqueeze(1), self.tasks.goal)

    def seen(self) -> np.ndarray:
        """Return pictures [N, C, S, S] of now."""
        return self._picture(self.position)

    def info(self) -> dict[str, np.ndarray]:
        """Return where the dots and the goals are, [N, 2] in units, and pictures of the goals, [N, C, S, S]."""
        return {"position": self.position.numpy(), "goal_position": self.tasks.goal.numpy(), "goal": self.goal.copy()}

    def rendered(self) -> np.ndarray:
        """Return pictures [N, H, W, 3] of uint8: walls gray, dots red, goals green."""
        size, layouts = self.world.size, self.tasks.layouts
        pictures = draw(layouts, torch.stack([self.position, self.tasks.goal], 1), size, 1.0)
        (dot, goal), walls = pictures[:, :, 0].unbind(1), 0.5 * pictures[:, 0, 1]
        colors = torch.stack([torch.maximum(dot, walls), torch.maximum(goal, walls), walls], -1)
        pixels = (255 * colors.clamp(0, 1)).round().to(torch.uint8).numpy()
        return pixels.repeat(-(-LEAST // size), 1).repeat(-(-LEAST // size), 2)

    def _begin(self, tasks: Tasks) -> None:
        """Take tasks, each dot where it is to start."""
        self.tasks, self.position = tasks, tasks.start
        self.goal = self._picture(tasks.goal)

    def _picture(self, positions: Tensor) -> np.ndarray:
        """Return pictures [N, C, S, S] of dots at positions [N, 2], within the space of observations."""
        pictures = self.world.draw(self.tasks.layouts, positions.unsqueeze(1))[:, 0]
        return pictures.clamp(0, self._brightest).numpy()


def chosen(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return `one` in some rows, [N] of bool, and `other` in the rest."""
    return torch.where(rows.view(-1, *[1] * (one.ndim - 1)), one, other)
