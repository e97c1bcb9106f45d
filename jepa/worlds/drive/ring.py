"""A ring of roads: M roads leave a junction and meet again at it, one lap further.

The map is 32 × 32 px, a torus along x, whose circumference is one lap; y runs across, down the picture's rows. Road m
lies at the height h(u) · offset_m from the middle line, u = (place mod LAP) / LAP from 0 to 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LAP = 32.0  # circumference of the ring, and width and height of the map, in px
MIDDLE = LAP / 2  # height of the middle line on the map, in px
REACH = 8.0  # how far the outermost roads are from the middle line, in px
RISE = 0.16  # share of a lap over which the roads part, and again over which they meet


def offsets(roads: int, like: Tensor) -> Tensor:
    """Return how far each of M roads is from the middle line at most, [M] in px; a single road is the line itself."""
    if roads == 1:
        return torch.zeros(1, dtype=like.dtype, device=like.device)
    return torch.linspace(-REACH, REACH, roads, dtype=like.dtype, device=like.device)


def height(place: Tensor) -> Tensor:
    """Return h from 0 at the junction to 1 where the roads are apart, in the shape of places in px."""
    u = torch.remainder(place / LAP, 1)
    rise = (torch.minimum(u, 1 - u) / RISE).clamp(max=1)
    return (1 - (math.pi * rise).cos()) / 2


def positions(place: Tensor, road: Tensor, wobble: Tensor, roads: int) -> Tensor:
    """Return where the car is on the map, (x, y) [..., 2] in px.

    Args: place, wobble: [..., 1] along and across the road, in px; road: [..., 1] its index, int64; roads: M.
    """
    y = MIDDLE + height(place) * offsets(roads, place)[road] + wobble
    return torch.cat([torch.remainder(place, LAP), y], -1)


def beside(x: Tensor, y: Tensor, roads: int) -> Tensor:
    """Return how far points are from the nearest road, in px, as if it went straight on from where it is at their x.

    Args: x, y: on the map, in px, of shapes [...] that go together; roads: M.
    """
    offset = offsets(roads, x).view(-1, *[1] * max(x.ndim, y.ndim))
    slope = offset * (height(x + 0.5) - height(x - 0.5))
    return ((y - MIDDLE - offset * height(x)).abs() / (1 + slope.square()).sqrt()).amin(0)
