"""Planning by best-first search: the cheapest way where steps cost more than their number (Hart et al. 1968).

    f = g + greed · max(0, √C(s̃) − √tolerance),     g = Σ_t (1 + passage(s̃_t, s̃_{t+1}, a_t))

A* over cells of the representation, many nodes a round and all episodes in one list. √C is a distance where C is a
squared one, and what is left of it until the goal is reached counts. With greed at most 1 / (the longest macro-step) f
never says too much, and the way that is found is the cheapest one there is between the kept states; with more it is
found sooner. As a passage is at least 0, it is asked only of steps that would be kept if it were 0: not where a cell
is known by a way that is as cheap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.minimize.base import checked
from jepa.planning.cells import EPISODES, Grid, first_least, least_per_group
from jepa.planning.level import Level, Plan, Tree, checked_state, selected
from jepa.planning.passages import LATER, priced


@dataclass(frozen=True)
class Search:
    """What a search is told. Raises: ValueError for a number outside its range."""

    moves: Tensor  # [M, A] macro-actions that every node tries
    hold: int = 1  # steps of the level in a macro-action
    cell: float = 1.0  # side of a cell, in the unit of s
    tolerance: float = 0.0  # a cost at which the goal is reached
    greed: float = 0.0  # weight of the distance to the goal among the costs, in macro-steps per unit of s
    width: int = 16  # nodes per episode that are expanded in a round
    most: int | None = None  # evaluations per episode at most
    rounds: int = 1000  # at most
    axes: int | None = None  # the first numbers of s make the cell; None: all, at most 3
    extra: int = 0  # how many whole numbers at the end of s tell cells apart, such as the progress of a task
    rotate: bool = True  # whether moves of width 2 are turned, and cells are moved, by chance, per plan and episode

    def __post_init__(self) -> None:
        if self.moves.dim() != 2 or not len(self.moves):
            raise ValueError(f"moves: expected [M, A] with M at least 1, found {list(self.moves.shape)}")
        for name, least in (("hold", 1), ("width", 1), ("rounds", 0), ("greed", 0), ("extra", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        if self.most is not None and self.most < 0:
            raise ValueError(f"most: expected at least 0, found {self.most}")
        if not 0 < self.cell < math.inf:
            raise ValueError(f"cell: expected a number above 0, found {self.cell}")
        if self.axes is not None and not 1 <= self.axes <= 3:
            raise ValueError(f"axes: expected from 1 to 3, found {self.axes}")
        if math.isnan(self.tolerance):
            raise ValueError("tolerance: expected a number, found nan")


class Found(NamedTuple):
    """The cheapest ways that were found."""

    plan: Plan  # its states are those after each macro-action, its value the cost of being where it ends
    total: Tensor  # [B] g of the way; infinity where the goal was not reached: then it leads to what is nearest


class _Nodes(NamedTuple):
    """States that were kept, those of all episodes in one list; the roots come first, one per episode."""

    state: Tensor  # [M, D]
    action: Tensor  # [M, A]
    parent: Tensor  # [M]
    episode: Tensor  # [M]
    depth: Tensor  # [M]
    total: Tensor  # [M] g
    cost: Tensor  # [M] C
    key: Tensor  # [M] of its cell


@torch.no_grad()
def search(level: Level, s: Tensor, generator: Generator, settings: Search, left: Tensor | None = None) -> Found:
    """Return the cheapest way from s to where the level's cost is within the tolerance.

    Args: level: of its cost only single states are asked; where it differs between episodes, `level.rows` is needed;
        s: [B, D]; generator: on the device of s; settings: sizes; left: [B] evaluations at most, beside the settings'.
    Returns: plans in macro-actions; length 0 where nothing is better than s, or s is at the goal.
    Raises: ValueError for a state that is not [B, D] or not a number, more than 32767 episodes, another number of
        limits, moves of another width than actions, costs that are not numbers, a passage below 0, or extra numbers
        that are too many or too large.
    """
    _refuse(level, s, settings, left)
    moves, grid = _drawn(level, s, generator, settings)
    nodes, opened = _roots(level, s, grid, moves), torch.ones(len(s), dtype=torch.bool, device=s.device)
    used = torch.zeros_like(nodes.episode)
    goal = torch.where(nodes.cost <= settings.tolerance, torch.arange(len(s), device=s.device), -1)
    most = _most(settings, left, used)
    for _ in range(settings.rounds):
        chosen = _chosen(nodes, opened, goal, (most - used) // (moves.shape[1] * settings.hold), settings)
        if not len(chosen):
            break
        opened[chosen] = False
        new, used = _expanded(level, nodes, chosen, moves, grid, used, settings)
        nodes, opened = _merged(level, nodes, opened, new)
        goal = _reached(nodes, goal, settings.tolerance)
    return _found(nodes, goal, used, s)


def _refuse(level: Level, s: Tensor, settings: Search, left: Tensor | None) -> None:
    """Raises: ValueError for what a search cannot begin with."""
    checked_state(s)
    if len(s) > EPISODES:
        raise ValueError(f"s: expected at most {EPISODES} episodes, found {len(s)}")
    if left is not None and left.shape != s.shape[:1]:
        raise ValueError(f"left: expected {[len(s)]}, found {list(left.shape)}")
    if settings.moves.shape[1] != level.actions.width:
        raise ValueError(f"moves: expected actions of width {level.actions.width}, found {settings.moves.shape[1]}")
    if settings.extra >= s.shape[1]:
        raise ValueError(f"extra: expected fewer than the {s.shape[1]} numbers of s, found {settings.extra}")


def _drawn(level: Level, s: Tensor, generator: Generator, settings: Search) -> tuple[Tensor, Grid]:
    """Return the moves [B, M, A] of each episode, within their limits, and the grid of its cells."""
    like = {"generator": generator, "dtype": s.dtype, "device": s.device}
    axes = min(s.shape[1] - settings.extra, 3 if settings.axes is None else settings.axes)
    turn, shift = torch.rand(len(s), 1, **like), torch.rand(len(s), axes, **like)
    moves = level.actions.project(settings.moves.to(s)).expand(len(s), -1, -1)
    if not settings.rotate:
        return moves, Grid(settings.cell, torch.zeros_like(shift), settings.extra)
    if moves.shape[2] == 2:
        (x, y), angle = settings.moves.to(s).expand_as(moves).unbind(-1), 2 * math.pi * turn
        moves = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], -1)
        moves = level.actions.project(moves)
    return moves, Grid(settings.cell, settings.cell * shift, settings.extra)


def _roots(level: Level, s: Tensor, grid: Grid, moves: Tensor) -> _Nodes:
    """Return the nodes where the searches begin."""
    episode = torch.arange(len(s), device=s.device)
    still = moves.new_zeros(len(s), moves.shape[2])
    cost = checked(selected(level, episode).cost(s[:, None, None], still[:, None, None]))[:, 0]
    zero = torch.zeros_like(episode)
    key = grid.keys(grid.place(s, episode), episode)
    return _Nodes(s, still, zero - 1, episode, zero, torch.zeros_like(cost), cost, key)


def _most(settings: Search, left: Tensor | None, like: Tensor) -> Tensor:
    """Return how many evaluations [B] each episode may ask for."""
    most = torch.full_like(like, torch.iinfo(like.dtype).max if settings.most is None else settings.most)
    return most if left is None else most.minimum(left)


def _chosen(nodes: _Nodes, opened: Tensor, goal: Tensor, payable: Tensor, settings: Search) -> Tensor:
    """Return the nodes that are expanded in this round: of each episode the open ones of least f, as many as it can."""
    priority = nodes.total
    if settings.greed > 0:  # 0 · ∞ would be no number
        radius = math.sqrt(max(settings.tolerance, 0))
        priority = priority + settings.greed * (nodes.cost.clamp(min=0).sqrt() - radius).clamp(min=0)
    best = torch.where(goal >= 0, nodes.total[goal], torch.inf)  # cheaper than the way that is known
    at = (opened & (priority < best[nodes.episode] - LATER)).nonzero()[:, 0]
    allowed = payable.clamp(min=0, max=settings.width)
    return at[least_per_group(nodes.episode[at], priority[at], allowed)]


def _expanded(
    level: Level, nodes: _Nodes, chosen: Tensor, moves: Tensor, grid: Grid, used: Tensor, settings: Search
) -> tuple[_Nodes, Tensor]:  # fmt: skip
    """Return the states after all moves from the chosen nodes, with the least g that each can have, and how many each
    episode has asked for so far."""
    episode, state = nodes.episode[chosen], nodes.state[chosen].unsqueeze(1)
    level, a, still = selected(level, episode), moves[episode], state.new_zeros(1, 1, level.latent)
    for _ in range(settings.hold):
        state = level.step(state, a, still)
    cost = checked(level.cost(state.unsqueeze(2), a.unsqueeze(2)))
    used = used + torch.bincount(episode, minlength=len(used)) * moves.shape[1] * settings.hold
    row, move = state.isfinite().all(-1).nonzero().unbind(1)
    state, episode, parent = state[row, move], episode[row], chosen[row]
    key = grid.keys(grid.place(state, episode), episode)
    parts = (a[row, move], parent, episode, nodes.depth[parent] + 1, nodes.total[parent] + 1, cost[row, move], key)
    return _Nodes(state, *parts), used


def _merged(level: Level, nodes: _Nodes, opened: Tensor, new: _Nodes) -> tuple[_Nodes, Tensor]:
    """Return the nodes with those new ones that are the cheapest in their cells, and which are open.

    Of new ones that cost the same the first is kept; what is known is not replaced by what costs the same.
    """
    count = len(nodes.key)
    cells, group = torch.cat([nodes.key, new.key]).unique(return_inverse=True)
    new = priced(level, nodes, new, group, len(cells))
    total = torch.cat([nodes.total, new.total + LATER])
    best = first_least(group, (total,), len(cells))
    keep = best[(best >= count) & total[best].isfinite()].sort().values - count
    current = torch.zeros(count, dtype=torch.bool, device=opened.device)
    current[best[best < count]] = True
    merged = _Nodes(*(torch.cat([old, part[keep]]) for old, part in zip(nodes, new, strict=True)))
    return merged, torch.cat([opened & current, torch.ones_like(keep, dtype=torch.bool)])


def _reached(nodes: _Nodes, goal: Tensor, tolerance: float) -> Tensor:
    """Return the node [B] of the cheapest way to the goal so far, −1 where none leads there."""
    at = (nodes.cost <= tolerance).nonzero()[:, 0]
    best = first_least(nodes.episode[at], (nodes.total[at],), len(goal))
    known = best < len(at)
    goal = goal.clone()
    goal[known] = at[best[known]]
    return goal


def _found(nodes: _Nodes, goal: Tensor, used: Tensor, s: Tensor) -> Found:
    """Return the ways to the goals, or to what is nearest, of nodes at the same cost the cheapest."""
    nearest = first_least(nodes.episode, (nodes.cost, nodes.total), len(goal))
    node = torch.where(goal >= 0, goal, nearest)
    length, steps = nodes.depth[node], int(nodes.depth[node].max()) if len(goal) else 0
    states = s.unsqueeze(1).repeat(1, steps, 1)
    actions = nodes.action.new_zeros(len(goal), steps, nodes.action.shape[1])
    at = node
    for place in range(steps, 0, -1):
        on = (nodes.depth[at] == place).nonzero()[:, 0]
        states[on, place - 1], actions[on, place - 1] = nodes.state[at[on]], nodes.action[at[on]]
        at = at.index_copy(0, on, nodes.parent[at[on]])
    last = (torch.arange(steps, device=s.device) < length.unsqueeze(1)).unsqueeze(-1)
    states = torch.where(last, states, nodes.state[node].unsqueeze(1))
    tree = Tree(nodes.state, nodes.parent, nodes.episode, nodes.depth)
    plan = Plan(actions, states, length, nodes.cost[node], used, tree)
    return Found(plan, torch.where(goal >= 0, nodes.total[node], torch.inf))
