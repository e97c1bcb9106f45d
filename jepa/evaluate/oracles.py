"""An upper level that knows the world: the true shortest way, bend by bend, as conditions for the level below."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jepa.evaluate.scenes import Scene
from jepa.planning.hierarchical import Memory, Proposal
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.layouts import Layouts

CLEARANCE = 0.7  # units between a corner and the way around it


@dataclass(frozen=True)
class Shortest:
    """Plans of true shortest ways, whose bends are shown to the encoder as dots; nothing is searched or learned."""

    of: Scene

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return plans (`jepa.planning.hierarchical.control.Planner`), from where the dots truly are."""
        tasks, position = self.of.acting.tasks, self.of.acting.positions[rows, -1]
        layouts = tasks.layouts.rows(rows)
        found = geodesic(layouts, position, tasks.goal[rows])
        points = aside(layouts, found.points[:, 1:])  # the start comes first
        states = self.of.codes(rows, points)
        none = torch.zeros_like(rows)
        actions = states.new_zeros(*states.shape[:2], 1)
        length = (found.count - 1).clamp(min=0)
        return Proposal(states, length, actions, found.length, none, none, []), memory


def aside(layouts: Layouts, points: Tensor) -> Tensor:
    """Return bends [B, P, 2] moved along their walls, away from the corners, to the nearest doors' middles.

    What is farther from a door than its half, such as a goal, stays.
    """
    to_door = layouts.doors.unsqueeze(1) - points.unsqueeze(2)  # [B, P, N, 2]
    nearest = to_door.square().sum(-1).argmin(-1)
    way = to_door.take_along_dim(nearest[..., None, None], 2).squeeze(2)
    along = way.abs() > 1.0  # a corner is half a wall's thickness away across and half a door's width along
    corner = ((way.abs() - 1.5).abs() < 1e-3) | ((way.abs() - 0.5).abs() < 1e-3)
    return points + torch.where(along & corner.all(-1, keepdim=True), CLEARANCE * way.sign(), 0.0)
