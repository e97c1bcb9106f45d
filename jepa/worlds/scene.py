"""The picture of a clip: trees or fields, roads, a car, seen from above. Polynomials and clamps only.

    ground = (1 − road) · Σ_k texture_k T_k + road · ASPHALT,      road = max over rays of ramp(min(u, 0)² + w²)
    frame  = ground + car · (CAR − ground),                        car  = ramp((u / LENGTH)² + (w / WIDTH)²)

u runs along and w across a road's ray from its origin, or along and across the car; ramp is a clamped line. T_k are
eight groups of trees or of fields: they stand still, their brightness is the texture. What lies between them is 0.

Lengths are in units of a 32nd of the picture's side; right and up from its middle.
"""

from __future__ import annotations

from functools import cache
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from jepa.worlds.arithmetic import blend, matrix_times, number, ramp, times, whole

SIDE = 32.0  # of the picture
GROUPS = 8  # of trees, or of fields
TREE, FIELD, ASPHALT, CAR = 0.6, 0.45, -0.3, 2.5  # brightness: of trees and fields at most
LENGTH, WIDTH = 3.0, 2.0  # half-axes of the car
REACH = 4.0  # no pixel farther than that from the car's middle shows it, either way: 1.25 · LENGTH, rounded up
ROAD = (4.0, 3.2)  # distance from its middle where the road ends, and up to where it is all asphalt


def paint(
    patterns: Tensor, origin: Tensor, rays: Tensor, textures: Tensor, position: Tensor, direction: Tensor
) -> Tensor:
    """Return frames [B, F, S, S], in floating point or on integers as the arguments are.

    Args: patterns: [8, S²] of the ground, S pixels per side, floating point; origin: [B, 2] where the roads meet; rays:
        [B, R, 2] unit vectors of the roads that leave it; textures: [B, F, 8] brightness of the patterns; position,
        direction: [B, F, 2] of the car.
    """
    size = isqrt(patterns.shape[1])
    right = number(middles(size), origin)
    u, w = _along_and_across(rays, origin.unsqueeze(1).expand_as(rays), right, right.flip(0))  # the top row is first
    road = ramp(u.clamp_(max=0), w, *ROAD).amax(1, keepdim=True)
    ground = matrix_times(textures, number(patterns, textures)).unflatten(2, (size, size))
    return _with_car(blend(ground, ASPHALT, road), right, position, direction)


def _with_car(ground: Tensor, right: Tensor, position: Tensor, direction: Tensor) -> Tensor:
    """Return frames [B, F, S, S] with the car on them; only a window around it is computed, and overwritten."""
    size = len(right)
    window = torch.arange(min(size, int(2 * REACH * size / SIDE) + 2), device=ground.device)
    corner = whole((torch.stack([position[..., 0], -position[..., 1]], -1) + number(SIDE / 2 - REACH, position)) * size)
    corner = (corner // int(SIDE)).clamp(0, size - len(window))  # [B, F, 2] its left column and its top row
    columns, rows = (corner.unsqueeze(-1) + window).unbind(2)
    u, w = _along_and_across(direction, position, right[columns], right.flip(0)[rows], (LENGTH, WIDTH))
    pixels = (rows.unsqueeze(-1) * size + columns.unsqueeze(-2)).flatten(2)
    flat = ground.flatten(2)
    painted = blend(flat.gather(2, pixels), CAR, ramp(u, w, 1.25, 0.75).flatten(2))
    return flat.scatter_(2, pixels, painted).view_as(ground)


def middles(size: int) -> Tensor:
    """Return the middles of the pixels of a row, from left to right (of a column, from bottom to top), [S]."""
    return (torch.arange(size, dtype=torch.float64) + 0.5) * (SIDE / size) - SIDE / 2


@cache
def crowns(size: int) -> Tensor:
    """Return the groups of trees T [8, S²] of 49 jittered crowns; where they overlap, their sum is at most TREE."""
    side, random = 7, np.random.RandomState(0)
    step = SIDE / side
    cells = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) * step - SIDE / 2
    right, up = torch.from_numpy(cells + random.randint(-8, 9, cells.shape) / 8 * step / 4).unsqueeze(-1).unbind(1)
    x, y = (right - middles(size)).unsqueeze(1), (up + middles(size)).unsqueeze(2)  # [49, 1, S], [49, S, 1]
    discs = ramp(*torch.broadcast_tensors(x, y), 2.4, 1.2).flatten(1)
    group = torch.from_numpy(random.permutation(side**2) % GROUPS)
    groups = torch.stack([discs[group == k].amax(0) for k in range(GROUPS)])
    return TREE * groups / groups.sum(0).clamp(min=1)


@cache
def fields(size: int) -> Tensor:
    """Return the groups of fields T [8, S²]: 68 squares in eight rows, every other row half a square further."""
    rows = 8
    step = SIDE / rows
    cells = [(j - 0.5 * (i % 2), i) for i in range(rows) for j in range(rows + i % 2)]
    right, up = ((torch.tensor(cells).double() + 0.5) * step - SIDE / 2).unsqueeze(-1).unbind(1)
    x, y = (((step / 2 - (c + middles(size)).abs()) / 0.6).clamp(0, 1) for c in (-right, up))  # [68, S]
    squares = (y.unsqueeze(2) * x.unsqueeze(1)).flatten(1)
    group = torch.from_numpy(np.random.RandomState(0).permutation(len(cells)) % GROUPS)
    return FIELD * torch.stack([squares[group == k].sum(0) for k in range(GROUPS)])


def _along_and_across(
    heading: Tensor, origin: Tensor, right: Tensor, up: Tensor, unit: tuple[float, float] = (1.0, 1.0)
) -> tuple[Tensor, Tensor]:
    """Return u and w [B, R, H, W] of pixels in columns `right` and rows `up`, [W] and [H] or [B, R, W] and [B, R, H],
    seen from origin [B, R, 2] in directions (sin, cos) [B, R, 2].
    """
    found = []
    for (x, y), length in zip((heading.unbind(-1), (heading[..., 1], -heading[..., 0])), unit, strict=True):
        axis = times(torch.stack([x, y], -1), number(1 / length, heading))
        offset = times(axis, origin).sum(-1, keepdim=True)
        column = times(axis[..., :1], right) - offset  # [B, R, S]
        row = times(axis[..., 1:], up)
        found.append(row.unsqueeze(-1) + column.unsqueeze(-2))
    return found[0], found[1]
