"""The picture of a ring of roads from above: the roads, eight groups of trees, two cars. All is added up.

    frame = road + Σ_g (BASE + texture_g) G_g + car + other + noise

G_g are the crowns of a group's trees, which stand beside the roads. A car is a Gaussian blob, which is a product of a
row and a column. What is in the picture has a color each. Row i of S shows the height (i + ½) · 32 / S of the map.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.worlds.drive.laws import GROUPS
from jepa.worlds.drive.ring import LAP, MIDDLE, beside

COLORS = {  # palette -> what is seen -> red, green, blue
    "plain": {"car": (1.0, 0.1, 0.0), "other": (0.0, 0.1, 1.0), "trees": (0.0, 0.6, 0.1), "road": (0.12, 0.12, 0.12)},
    "other": {"car": (0.0, 1.0, 0.1), "other": (1.0, 0.0, 0.1), "trees": (0.1, 0.0, 0.6), "road": (0.16, 0.12, 0.08)},
}
CAR = 1.3  # standard deviation of a car's blob, in px of the map
CROWN = 0.9  # of the crown of a tree
WIDTH = 1.0  # of a road, across
BASE = 0.5  # mean brightness of trees
CLEAR = 2.0  # no tree stands nearer to the middle of a road, in px
SEED = 227  # of the trees; with it groups have four or five beside two roads, and three or more beside three


def draw(factors: dict[str, Tensor], size: int, roads: int, colors: str) -> Tensor:
    """Return pictures without noise, [B, T, 3, S, S].

    Args: factors: position and other [B, T, 2] in px, other from the map's middle, and texture [B, T, 8]; size: S;
        roads: M; colors: name of a palette.
    """
    position, texture = factors["position"], factors["texture"].flatten(0, 1)
    still, trees = (part.to(texture) for part in scenery(size, roads, colors))
    frames = torch.addmm(still.flatten(), texture, trees.flatten(1)).view(-1, 3 * size, size)
    cars = torch.stack([position, MIDDLE + factors["other"]], 2).flatten(0, 1).unsqueeze(-1)  # [B T, 2, 2, 1]
    at = middles(size).to(cars)
    row, column = bump(around(at - cars[:, :, 0]), CAR), bump(at - cars[:, :, 1], CAR)  # [B T, 2, S]
    palette = torch.tensor([COLORS[colors]["car"], COLORS[colors]["other"]], dtype=row.dtype, device=row.device)
    colored = torch.einsum("nky,kc->ncyk", column, palette).flatten(1, 2)  # [B T, 3 S, 2]
    return frames.baddbmm_(colored, row).view(*position.shape[:2], 3, size, size)


def add_noise(frames: Tensor, noise: float, generator: Generator) -> Tensor:
    """Return pictures [B, T, 3, S, S] plus noise uniform within ± `noise` on 256 levels; `frames` is overwritten."""
    words = torch.empty((frames.numel() + 7) // 8, dtype=torch.int64, device=frames.device)
    words.random_(-(2**63), None, generator=generator)  # eight pixels each: faster than one by one
    levels, step = words.view(torch.int8)[: frames.numel()].view(frames.shape), noise / 128
    return frames.add_(levels, alpha=step).add_(step / 2)


@cache
def scenery(size: int, roads: int, colors: str) -> tuple[Tensor, Tensor]:
    """Return roads and trees of mean brightness [3, S, S], and the groups of trees [8, 3, S, S], float64."""
    palette = {name: torch.tensor(color, dtype=torch.float64) for name, color in COLORS[colors].items()}
    at = middles(size)
    road = bump(beside(at, at.unsqueeze(1), roads), WIDTH)
    groups = crowns(size, roads).unsqueeze(1) * palette["trees"].view(3, 1, 1)
    return palette["road"].view(3, 1, 1) * road + BASE * groups.sum(0), groups


def crowns(size: int, roads: int) -> Tensor:
    """Return the crowns of the groups [8, S, S], float64: of 49 trees on a jittered grid those that clear the roads."""
    side, random = 7, np.random.RandomState(SEED)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    places = torch.from_numpy((grid + 0.5 + random.randint(-8, 9, grid.shape) / 32) * LAP / side)
    group = torch.from_numpy(random.permutation(side**2) % GROUPS)
    x, y = places.unsqueeze(-1).unbind(1)  # [49, 1]
    free = beside(x, y, roads) > CLEAR
    at = middles(size)
    row, column = bump(around(at - x), CROWN), bump(at - y, CROWN)  # [49, S]
    trees = column.unsqueeze(2) * row.unsqueeze(1) * free.unsqueeze(2)
    return torch.stack([trees[group == k].sum(0) for k in range(GROUPS)])


def middles(size: int) -> Tensor:
    """Return where the middles of the pixels of a row, or of a column, are on the map, [S] in px, float64."""
    return (torch.arange(size, dtype=torch.float64) + 0.5) * (LAP / size)


def around(x: Tensor) -> Tensor:
    """Return distances along the ring the shorter way around, from −16 to 16 px."""
    return torch.remainder(x + LAP / 2, LAP) - LAP / 2


def bump(x: Tensor, width: float) -> Tensor:
    """Return exp(−x² / 2 width²)."""
    return (x.square() * (-0.5 / width**2)).exp_()
