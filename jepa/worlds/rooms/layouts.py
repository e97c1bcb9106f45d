"""Layouts of rooms: rectangles that are free, that block the dot and that are drawn, a batch of layouts at a time.

Two Rooms as PLDM (Sobal et al. 2025) and EB-JEPA (2026) define it: 65 units a side, pixel i of the published picture of
65 × 65 pixels is centered at unit i. A dot moves between borders at 4 and 60, a vertical wall with one door parts the
square. The published wall and door stand on whole units, here anywhere between.

A box is (x0, y0, x1, y1) in units; x runs right, y down, as the picture's columns and rows do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

SIDE = 65.0  # units a side of the published picture
FREE = (4.0, 60.0)  # from border to border
WALL = (20.0, 44.0)  # where the wall may stand
DOOR = (10.0, 54.0)  # where the door may be
FIXED = (32.0, 18.0)  # wall and door of EB-JEPA's fixed layout; PLDM's door is at 10
HALF_WALL = 1.0  # half the wall's thickness for the dot
HALF_DOOR = 4.0  # half the door's height for the dot
RIM = 0.5  # by how much more a wall is drawn than it blocks: the published pictures fill whole pixels


class Layouts(NamedTuple):
    """A batch of layouts."""

    bounds: Tensor  # [B, 4] the rectangle that the dot cannot leave
    solids: Tensor  # [B, W, 4] boxes that block the dot; one without area, outside the bounds, blocks nothing
    drawn: Tensor  # [B, V, 4] boxes as they are drawn; they may overlap
    doors: Tensor  # [B, N, 2] centers of the doors
    open: Tensor  # [B, N] whether a door is open, bool
    gates: Tensor  # [B, N] whether a door that is not open is a shut gate, which a map shows open, bool
    extent: Tensor  # [B, 4] what a picture shows

    def rows(self, index: Tensor | slice) -> Layouts:
        """Return the layouts of some rows, which may repeat: index [K] of int64, [B] of bool, or a slice."""
        return Layouts(*(part[index] for part in self))

    def repeat(self, times: int) -> Layouts:
        """Return every layout `times` times in succession."""
        return Layouts(*(part.repeat_interleave(times, 0) for part in self))


def two_rooms(wall: Tensor, door: Tensor) -> Layouts:
    """Return Two Rooms with walls at x = wall [B] and doors at y = door [B], in units.

    Raises: ValueError for walls or doors that do not fit between the borders.
    """
    if wall.ndim != 1 or wall.shape != door.shape:
        raise ValueError(f"wall, door: expected two of shape [B], found {list(wall.shape)} and {list(door.shape)}")
    for name, value, half in (("wall", wall, HALF_WALL), ("door", door, HALF_DOOR)):
        low, high = FREE[0] + half, FREE[1] - half
        if not bool(((value >= low) & (value <= high)).all()):
            found = f"{value.amin().item():g} to {value.amax().item():g}"
            raise ValueError(f"{name}: expected from {low:g} to {high:g}, found {found}")
    (low, high), edge, far = FREE, -0.5, SIDE - 0.5
    lines = [(p - RIM, edge, p + RIM, far) for p in FREE] + [(edge, p - RIM, far, p + RIM) for p in FREE]
    return Layouts(
        bounds=_boxes(wall, (low, low, high, high)).squeeze(1),
        # beyond the borders, so that nothing passes between a wall and a border
        solids=_wall(wall, door, HALF_WALL, HALF_DOOR, (low - 1, high + 1)),
        drawn=torch.cat([_wall(wall, door, HALF_WALL + RIM, HALF_DOOR + RIM, (edge, far)), _boxes(wall, *lines)], 1),
        doors=torch.stack([wall, door], -1).unsqueeze(1),
        open=torch.ones_like(wall, dtype=torch.bool).unsqueeze(1),
        gates=torch.zeros_like(wall, dtype=torch.bool).unsqueeze(1),
        extent=_boxes(wall, (edge, edge, far, far)).squeeze(1),
    )


def random_two_rooms(count: int, generator: Generator) -> Layouts:
    """Return Two Rooms with wall x ~ U(20, 44) and door y ~ U(10, 54); published are the whole numbers of these ranges.

    Raises: ValueError for count < 1.
    """
    at_least_one(count)
    wall, door = torch.rand(2, count, generator=generator, device=generator.device)
    return two_rooms(WALL[0] + (WALL[1] - WALL[0]) * wall, DOOR[0] + (DOOR[1] - DOOR[0]) * door)


def fixed_two_rooms(count: int, device: torch.device) -> Layouts:
    """Return Two Rooms with the wall at 32 and the door at 18, `count` times. Raises: ValueError for count < 1."""
    at_least_one(count)
    wall, door = torch.tensor(FIXED, device=device).unsqueeze(1).expand(2, count)
    return two_rooms(wall, door)


def at_least_one(count: int) -> None:
    """Raises: ValueError for count < 1."""
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")


def _wall(wall: Tensor, door: Tensor, half_wall: float, half_door: float, span: tuple[float, float]) -> Tensor:
    """Return the two boxes [B, 2, 4] of a wall above and below its door, from the first y of the span to the last."""
    left, right, low, high = wall - half_wall, wall + half_wall, *(torch.full_like(wall, y) for y in span)
    above = torch.stack([left, low, right, door - half_door], -1)
    below = torch.stack([left, door + half_door, right, high], -1)
    return torch.stack([above, below], 1)


def _boxes(like: Tensor, *boxes: tuple[float, float, float, float]) -> Tensor:
    """Return the same boxes [B, n, 4] for every row of `like` [B]."""
    return torch.tensor(boxes, dtype=like.dtype, device=like.device).expand(len(like), -1, -1)
