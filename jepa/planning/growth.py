"""How a tree grows: rounds of held actions from every new state, one state kept per cell, all episodes in one list."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from jepa.minimize.base import checked
from jepa.planning.cells import Grid, first_least, least_per_group
from jepa.planning.level import Level, selected

ROUNDING = 1e-6  # share of a cost by which another has to be lower to count as lower in a later round


@dataclass(frozen=True)
class TreeSearch:
    """What a search is told. Raises: ValueError for a number outside its range."""

    headings: int = 16  # directions of actions
    hold: int = 2  # steps per macro-action, an action that is held
    reach: float = 0.92  # length of an action, as a share of the longest one in its direction
    cell: float = 1.0  # side of a cell, in the unit of s
    tolerance: float = 0.0  # a cost at which an episode's search stops
    depth: int = 64  # macro-actions of a plan at most
    beam: int | None = None  # nodes per episode and depth that are expanded at most, those of least cost
    most: int | None = None  # evaluations per episode at most
    axes: int | None = None  # the first numbers of s make the cell; None: all, at most 3
    rotate: bool = True  # whether headings and cells are turned and moved by chance, per plan and episode

    def __post_init__(self) -> None:
        for name in ("headings", "hold", "beam", "axes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")
        for name in ("depth", "most"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}: expected at least 0, found {value}")
        if self.axes is not None and self.axes > 3:
            raise ValueError(f"axes: expected at most 3, found {self.axes}")
        if not 0 < self.reach <= 1:
            raise ValueError(f"reach: expected a share above 0 and at most 1, found {self.reach}")
        if not 0 < self.cell < math.inf:
            raise ValueError(f"cell: expected a number above 0, found {self.cell}")
        if math.isnan(self.tolerance):
            raise ValueError("tolerance: expected a number, found nan")


class Nodes(NamedTuple):
    """Kept states, those of all episodes in one list, round by round; the roots come first, one per episode."""

    trail: Tensor  # [M, hold, D] states after each step of the macro-action that led here; of a root, its own state
    action: Tensor  # [M, A] what was held
    parent: Tensor  # [M] index of the node before; −1 for a root
    episode: Tensor  # [M]
    depth: Tensor  # [M] macro-actions from the root


class Best(NamedTuple):
    """The state of least cost of every episode, and how it was reached."""

    value: Tensor  # [B] its cost
    node: Tensor  # [B] the node before it, or the root itself
    cut: Tensor  # [B] steps from there, at most hold; 0 at the root
    action: Tensor  # [B, A] held for these steps
    trail: Tensor  # [B, hold, D] states after them


class Growth(NamedTuple):
    """What a search has found."""

    nodes: Nodes
    best: Best
    evaluations: Tensor  # [B]


@torch.no_grad()
def grow(level: Level, s: Tensor, moves: Tensor, grid: Grid, search: TreeSearch) -> Growth:
    """Return the tree that grows from s [B, D] by the macro-actions moves [B, M, A] of each episode.

    Raises: ValueError for a cost that is not a number, or states too many cells apart.
    """
    count, episode = len(s), torch.arange(len(s), device=s.device)
    zero = torch.zeros_like(episode)
    still = moves.new_zeros(count, moves.shape[2])
    trail = s.unsqueeze(1).expand(-1, search.hold, -1)
    start = checked(selected(level, episode).cost(s[:, None, None], still[:, None, None]))[:, 0]
    rounds, cost = [Nodes(trail, still, zero - 1, episode, zero)], start
    best, used = Best(start, episode, zero, still, trail), zero
    seen, first = grid.keys(grid.place(s, episode), episode), 0
    for _ in range(search.depth):
        front = rounds[-1]
        chosen = least_per_group(front.episode, cost, _allowed(best, used, moves.shape[1], search))
        if len(chosen) == 0:
            break
        episode = front.episode[chosen]
        trail, costs = _tried(level, front.trail[chosen, -1], moves[episode], episode, search.hold)
        used = used + torch.bincount(episode, minlength=count) * moves.shape[1] * search.hold
        best = _improved(best, trail, costs, moves, Nodes(*(part[chosen] for part in front)), first + chosen)
        at, key = _settled(grid, trail[:, :, -1].flatten(0, 1), episode.repeat_interleave(moves.shape[1]), seen)
        row, move = at // moves.shape[1], at % moves.shape[1]
        parent, first = first + chosen[row], first + len(front.parent)
        action = moves[episode[row], move]
        rounds.append(Nodes(trail[row, move], action, parent, episode[row], front.depth[chosen[row]] + 1))
        seen, cost = torch.cat([seen, key]), costs[row, move, -1]
    return Growth(Nodes(*(torch.cat(part) for part in zip(*rounds, strict=True))), best, used)


def _allowed(best: Best, used: Tensor, moves: int, search: TreeSearch) -> Tensor:
    """Return how many nodes [B] of each episode may be expanded in this round; 0 where its search has ended."""
    allowed = torch.full_like(used, torch.iinfo(used.dtype).max if search.beam is None else search.beam)
    if search.most is not None:
        allowed = allowed.minimum((search.most - used) // (moves * search.hold))
    return torch.where(best.value <= search.tolerance, 0, allowed)


def _tried(level: Level, s: Tensor, a: Tensor, episode: Tensor, hold: int) -> tuple[Tensor, Tensor]:
    """Return the states [n, M, hold, D] after the steps of every macro-action a [n, M, A] at s [n, D], and their costs.

    The costs [n, M, hold] are those of single states: a horizon of one step.
    """
    level, state, trail = selected(level, episode), s.unsqueeze(1), []
    for _ in range(hold):
        state = level.step(state, a, s.new_zeros(1, 1, level.latent))
        trail.append(state)
    found = torch.stack(trail, 2)
    held = a.unsqueeze(2).expand(-1, -1, hold, -1)
    costs = level.cost(found.flatten(1, 2).unsqueeze(2), held.flatten(1, 2).unsqueeze(2))
    return found, checked(costs).unflatten(1, (-1, hold))


def _improved(best: Best, trail: Tensor, costs: Tensor, moves: Tensor, front: Nodes, index: Tensor) -> Best:
    """Return the best states after a round; of equal costs in one round the one after fewer steps."""
    count, shape = len(best.value), costs.shape
    value = costs.flatten()
    cut = torch.arange(1, shape[2] + 1, device=value.device).expand(shape).flatten()
    group = front.episode.repeat_interleave(shape[1] * shape[2])
    at = first_least(group, (value, cut), count)
    tried = (at < len(value)).nonzero()[:, 0]  # episodes that took part
    before = best.value[tried]
    slack = torch.where(before.isfinite(), ROUNDING * before.abs(), 0)  # a longer way is not better by rounding alone
    tried = tried[value[at[tried]] < before - slack]
    at = at[tried]
    row, move = at // (shape[1] * shape[2]), at // shape[2] % shape[1]
    new = Best(value[at], index[row], cut[at], moves[tried, move], trail[row, move])
    return Best(*(old.index_copy(0, tried, part) for old, part in zip(best, new, strict=True)))


def _settled(grid: Grid, s: Tensor, episode: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of the states s [n, D] are kept, one per new cell, that nearest to its center; and their keys."""
    known = s.isfinite().all(1).nonzero()[:, 0]
    place = grid.place(s[known], episode[known])
    keys = grid.keys(place, episode[known])
    new = (~torch.isin(keys, seen)).nonzero()[:, 0]
    cells, group = keys[new].unique(return_inverse=True)
    apart = (place[new] - place[new].round()).square().sum(1)
    nearest = new[first_least(group, (apart,), len(cells))].sort().values
    return known[nearest], keys[nearest]
