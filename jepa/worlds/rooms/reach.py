"""Whether a way leads from one place to another among boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.motion import obstacles

FAR = 1e6  # units: beyond every border


def reachable(layouts: Layouts, start: Tensor, goal: Tensor) -> Tensor:
    """Return whether a way leads from start to goal, [B].

    The edges of all boxes part the plane into cells that are free or not. The free cells that can be reached from the
    start's are found by stepping from cell to cell until there is none to add.

    Args: start, goal: [B, 2] in units, outside the boxes.
    """
    boxes = obstacles(layouts)
    spans, places = [], []
    for axis in range(2):
        low, high = boxes[..., axis], boxes[..., axis + 2]
        cuts = _distinct(torch.cat([low, high], 1).clamp(-FAR, FAR))
        middle = (cuts[:, 1:] + cuts[:, :-1]) / 2  # [B, K]
        # closed, so that no cell without width leads between two walls that touch
        spans.append((low.unsqueeze(2) <= middle.unsqueeze(1)) & (high.unsqueeze(2) >= middle.unsqueeze(1)))
        points = torch.stack([start[:, axis], goal[:, axis]], 1)
        places.append((torch.searchsorted(cuts, points) - 1).clamp(0, middle.shape[1] - 1))
    across, down = (span.to(start.dtype) for span in spans)
    free = ~(down.transpose(1, 2) @ across > 0)  # [B, K of y, K of x]
    rows = torch.arange(len(free), device=free.device)
    reached = torch.zeros_like(free)
    reached[rows, places[1][:, 0], places[0][:, 0]] = True
    found, reached = reached, reached.new_zeros(reached.shape)
    while not torch.equal(found, reached):
        reached, found = found, _grown(found) & free | found
    return reached[rows, places[1][:, 1], places[0][:, 1]]


def _distinct(cuts: Tensor) -> Tensor:
    """Return numbers [B, K] in order, each at most twice but for the largest, which fills the rows up.

    Walls of a grid share their faces: far fewer are left. Two of a kind keep the cell without width between them.
    """
    cuts = cuts.sort(1).values
    again = torch.nn.functional.pad(cuts[:, 2:] == cuts[:, :-2], (2, 0))
    most = int((~again).sum(1).max())
    return cuts.masked_fill(again, FAR).sort(1).values[:, :most].contiguous()


def _grown(cells: Tensor) -> Tensor:
    """Return cells [B, K, L] with their neighbors above, below, left and right."""
    grown = cells.clone()
    grown[:, 1:] |= cells[:, :-1]
    grown[:, :-1] |= cells[:, 1:]
    grown[:, :, 1:] |= cells[:, :, :-1]
    grown[:, :, :-1] |= cells[:, :, 1:]
    return grown
