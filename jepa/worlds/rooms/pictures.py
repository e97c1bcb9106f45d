"""Pictures of rooms: what share of each pixel the walls cover, and a dot averaged over each pixel, both exactly.

Nothing depends on where the pixels' centers fall: a dot or wall that moves by less than a pixel changes the picture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jepa.worlds.rooms.layouts import Layouts

VIEWS = {"channels": 2, "gray": 1}  # name -> C
SIGMA = 1.3  # the dot's standard deviation, in units


def draw(
    layouts: Layouts, positions: Tensor, size: int, brightness: float = 2.0, view: str = "channels",
    walls: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return pictures of dots among walls.

    Args: positions: [B, T, 2] in units; size: S, pixels a side, over the layouts' extent; brightness: of the dot's
        brightest pixel where it is in the pixel's middle, a wall's is 1; view: "channels", of the dot and of the walls,
        as published, or "gray", the larger of the two; walls: [B, S, S], `draw_walls` of these layouts, None where it
        is not known.
    Returns: [B, T, C, S, S], rows from the least y to the largest.
    Raises: ValueError for shapes that do not fit, an unknown view or size < 1.
    """
    if positions.ndim != 3 or positions.shape[::2] != (len(layouts.extent), 2):
        raise ValueError(f"positions: expected [{len(layouts.extent)}, T, 2], found {list(positions.shape)}")
    if view not in VIEWS:
        raise ValueError(f"view: expected one of {', '.join(VIEWS)}, found {view!r}")
    across, down = _shares(layouts, positions, size)
    across, down = across.unsqueeze(-2), (brightness * down).unsqueeze(-1)
    walls = (draw_walls(layouts, size) if walls is None else walls).unsqueeze(1)
    if view == "gray":
        return torch.maximum(down * across, walls).unsqueeze(2)
    empty, none = torch.zeros_like(walls), torch.zeros_like(down)
    # both channels in one pass over the memory: 0 + dot and walls + 0
    return torch.addcmul(torch.stack([empty, walls], 2), torch.stack([down, none], 2), across.unsqueeze(2))


def draw_walls(layouts: Layouts, size: int) -> Tensor:
    """Return what share of each pixel is covered by at least one of the boxes as drawn, [B, S, S].

    The edges of all boxes part the plane into cells, each covered or not: covered(k, l) = ∃ box: it spans the k-th
    interval of x and the l-th of y. The share of pixel (j, i) is Σ_kl overlap_j(l) · covered(k, l) · overlap_i(k),
    where overlap is the share of a pixel's side that is in an interval.

    Raises: ValueError for size < 1.
    """
    edges = pixel_edges(layouts, size)
    spans, overlaps = [], []
    for axis in range(2):
        low, high = layouts.drawn[..., axis], layouts.drawn[..., axis + 2]
        cuts = torch.cat([low, high], 1).sort(1).values  # [B, 2 V]
        start, end = cuts[:, :-1], cuts[:, 1:]
        spans.append((low.unsqueeze(2) <= start.unsqueeze(1)) & (high.unsqueeze(2) >= end.unsqueeze(1)))
        left, right = edges[axis][:, :-1].unsqueeze(1), edges[axis][:, 1:].unsqueeze(1)
        shared = torch.minimum(end.unsqueeze(2), right) - torch.maximum(start.unsqueeze(2), left)
        overlaps.append(shared.clamp(min=0) / (right - left))  # [B, K, S]
    across, down = (span.to(layouts.drawn.dtype) for span in spans)
    covered = (down.transpose(1, 2) @ across > 0).to(across.dtype)  # [B, K of y, K of x]
    return overlaps[1].transpose(1, 2) @ covered @ overlaps[0]


def draw_dots(layouts: Layouts, positions: Tensor, size: int) -> Tensor:
    """Return dots of peak 1 at positions [B, T, 2], [B, T, S, S].

    A dot is exp(−r² / 2σ²), σ = 1.3 units, averaged over each pixel: a product over the axes of
    erf((edge' − p) / √2σ) − erf((edge − p) / √2σ), divided by its value for a dot in the pixel's middle.
    Raises: ValueError for size < 1.
    """
    across, down = _shares(layouts, positions, size)
    return down.unsqueeze(-1) * across.unsqueeze(-2)


def _shares(layouts: Layouts, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the factors of dots at positions [B, T, 2] in every column and in every row, two of [B, T, S]."""
    shares = []
    for axis, edges in enumerate(pixel_edges(layouts, size)):
        half = (edges[:, 1] - edges[:, 0]) / 2  # [B]
        rise = torch.erf((edges.unsqueeze(1) - positions[..., axis].unsqueeze(2)) / (math.sqrt(2) * SIGMA))
        middle = 2 * torch.erf(half / (math.sqrt(2) * SIGMA))
        shares.append(rise.diff(dim=-1) / middle[:, None, None])  # [B, T, S]
    return shares[0], shares[1]


def pixel_edges(layouts: Layouts, size: int) -> tuple[Tensor, Tensor]:
    """Return the edges of the pixels' columns and rows, two of [B, S + 1] in units. Raises: ValueError for size < 1."""
    if size < 1:
        raise ValueError(f"size: expected at least 1 pixel, found {size}")
    steps = torch.arange(size + 1, dtype=layouts.extent.dtype, device=layouts.extent.device) / size
    low, high = layouts.extent[:, :2], layouts.extent[:, 2:]
    x, y = (low.unsqueeze(-1) + (high - low).unsqueeze(-1) * steps).unbind(1)
    return x, y
