"""The cost to go, in steps: a flood from the goal over the cells of the representation."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from jepa.planning.cells import Grid
from jepa.planning.growth import Nodes, TreeSearch, grow
from jepa.planning.level import Level
from jepa.planning.tree import drawn


@dataclass(frozen=True)
class ToGo:
    """Steps to the goal on a grid of cells, multilinear in between, so that it has a gradient in s."""

    field: Tensor  # [B, G_1, …, G_X] at the centers of the cells
    reached: Tensor  # [B, G_1, …, G_X] whether the flood came there
    low: Tensor  # [X] number of the first cell
    grid: Grid

    def __call__(self, s: Tensor) -> Tensor:
        """Return the steps to go [B, ...] at s [B, ..., D]; outside the grid one more per cell of distance.

        Raises: ValueError for another number of episodes.
        """
        if len(s) != len(self.field):
            raise ValueError(f"s: expected {len(self.field)} episodes, found {len(s)}")
        points = s.flatten(1, -2) if s.dim() > 2 else s.unsqueeze(1)  # [B, P, D]
        size = torch.tensor(self.field.shape[1:], device=s.device)
        place = (points[..., : len(size)] - self.grid.offset.unsqueeze(1)) / self.grid.cell - self.low
        inside = place.clamp(torch.zeros_like(size), size - 1)
        base = inside.detach().floor().long().minimum(size - 2)
        share = inside - base
        rows, total = torch.arange(len(s), device=s.device).unsqueeze(1), 0
        for corner in itertools.product((0, 1), repeat=len(size)):
            high = torch.tensor(corner, device=s.device)
            weight = torch.where(high.bool(), share, 1 - share).prod(-1)
            total = total + weight * self.field[rows, *(base + high).unbind(-1)]
        outside = (place - inside).square().sum(-1)
        apart = torch.where(outside > 0, outside, 1).sqrt()  # the root has no slope at 0
        return (total + torch.where(outside > 0, apart, 0)).view(s.shape[:-1])

    def rows(self, index: Tensor) -> ToGo:
        """Return the cost to go of the episodes index [n]."""
        grid = self.grid._replace(offset=self.grid.offset[index])
        return ToGo(self.field[index], self.reached[index], self.low, grid)


def cost_to_go(level: Level, s: Tensor, generator: Generator, search: TreeSearch) -> ToGo:
    """Return how many steps it takes to the goal s, from everywhere: the least depth at which a flood reached a cell.

    The dynamics have to be (nearly) reversible: what is counted is how many steps it takes *from* the goal. A cell
    that is never reached counts one step more than the farthest one, and one more per ring of cells around the reached
    ones, so that a slope leads back. Counts are whole and cells have a size: there are flat places, and a cell that a
    wall runs through has the value of one side, whose neighbors are interpolated through the wall. One-step descent
    gets stuck there (about one episode in ten in two rooms with a thin wall between them, for cells from a third of a
    step to a whole one); as the cost of a search over several steps the value does what it should.

    Args: level: step and actions, its cost is not asked; s: [B, D] the goals' representations; generator: on the device
        of s; search: sizes, of which `tolerance` has no meaning; without `depth` × `hold` or `most` in the way the
        flood ends where nothing new is reached.
    Returns: the cost to go, in steps, for `costs.to_go`.
    Raises: ValueError as `tree` does.
    """
    search = replace(search, tolerance=-math.inf)
    moves, grid = drawn(level.actions, s, generator, search)
    nodes = grow(_free(level), s, moves, grid, search).nodes
    place = grid.place(nodes.trail[:, -1], nodes.episode).round().long()
    if len(place) == 0:
        place = place.new_zeros(1, place.shape[1])
    low = place.amin(0) - 1
    size = (place.amax(0) - low + 2).tolist()
    return ToGo(*_field(nodes, place - low, [len(s), *size], search.hold, s), low, grid)


def _field(nodes: Nodes, place: Tensor, size: list[int], hold: int, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the steps at every cell, in the type of s, and where the flood came."""
    reached = torch.zeros(size, dtype=torch.bool, device=s.device)
    field = s.new_zeros(size)
    if not len(nodes.episode):
        return field, reached
    at = (nodes.episode, *place.unbind(1))
    field[at], reached[at] = (nodes.depth * hold).to(s), True
    pool = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)
    value, known = field.flatten(1).amax(1).view(-1, *[1] * (len(size) - 1)), reached
    while not known.all():
        value = value + 1
        wider = pool[len(size) - 2](known.to(s).unsqueeze(1), 3, 1, 1).squeeze(1) > 0
        field, known = torch.where(wider & ~known, value, field), wider
    return field, reached


def _free(level: Level) -> Level:
    """Return a level that costs nothing."""
    rows = level.rows
    return level._replace(cost=_nothing, rows=None if rows is None else lambda index: _free(rows(index)))


def _nothing(states: Tensor, actions: Tensor) -> Tensor:
    """Return no cost [B, K]."""
    return states.new_zeros(states.shape[:2])
