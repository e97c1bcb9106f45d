"""Cells of a representation: a grid whose cells are told apart by one number per episode and cell."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EPISODES = 2**15 - 1  # the 63 bits of a key hold an episode and a cell
EXTRA = 24  # bits of the 48 of a cell that are for whole numbers behind the place, where there are any


class Grid(NamedTuple):
    """Cubes of side `cell` around the points offset + cell · integers, in the first numbers of s.

    With `extra` the last numbers of s, rounded, are part of the cell, too.
    """

    cell: float  # side, in the unit of s
    offset: Tensor  # [B, X] of each episode's grid; X numbers of s make the cell
    extra: int = 0  # how many whole numbers at the end of s tell cells apart as they are, beside the place

    def place(self, s: Tensor, episode: Tensor) -> Tensor:
        """Return where states s [n, D] of episodes [n] are, in cells [n, X + extra]; centers are at integers."""
        place = (s[:, : self.offset.shape[1]] - self.offset[episode]) / self.cell
        return torch.cat([place, s[:, s.shape[1] - self.extra :]], 1) if self.extra else place

    def keys(self, place: Tensor, episode: Tensor) -> Tensor:
        """Return one integer [n] per episode and cell. Raises: ValueError for places too far apart to be counted."""
        axes = place.shape[1] - self.extra
        span = 2 ** ((48 - EXTRA if self.extra else 48) // axes)
        index, behind = place[:, :axes].round(), place[:, axes:].round()
        if not (index.abs() < span // 2).all():
            raise ValueError(f"cell: expected states within {span // 2} cells of 0, found {float(index.abs().max())}")
        key = episode
        for axis in range(axes):
            key = key * span + (index[:, axis].long() + span // 2)
        if not self.extra:
            return key
        most = 2 ** (EXTRA // self.extra)
        if not ((behind >= 0) & (behind < most)).all():
            found = f"{float(behind.min()):g} to {float(behind.max()):g}"
            raise ValueError(f"extra: expected {self.extra} numbers from 0 to {most - 1}, found {found}")
        for axis in range(self.extra):
            key = key * most + behind[:, axis].long()
        return key


def first_least(group: Tensor, ranks: tuple[Tensor, ...], count: int) -> Tensor:
    """Return for each of `count` groups the index of its least member, by the first rank, then the next, then order.

    Args: group: [n] integers from 0 to count − 1; ranks: numbers [n], none of them nan.
    Returns: [count] indices, n for a group without a member.
    """
    alive = torch.ones_like(group, dtype=torch.bool)
    for rank in ranks:
        rank = torch.where(alive, rank.double(), torch.inf)
        best = rank.new_full((count,), torch.inf).scatter_reduce(0, group, rank, "amin")
        alive = alive & (rank == best[group])
    order = torch.arange(len(group), device=group.device)
    order = torch.where(alive, order, len(group))
    return order.new_full((count,), len(group)).scatter_reduce(0, group, order, "amin")


def least_per_group(group: Tensor, rank: Tensor, most: Tensor) -> Tensor:
    """Return the indices [m], in order, of the `most` [count] members of least rank in each group."""
    order = rank.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    sizes = torch.bincount(group, minlength=len(most))
    position = torch.arange(len(group), device=group.device) - (sizes.cumsum(0) - sizes)[group[order]]
    return order[position < most[group[order]]].sort().values
