"""Planning by a tree: breadth-first search over held actions, one state per cell of the representation."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from jepa.planning.actions import Box
from jepa.planning.cells import EPISODES, Grid
from jepa.planning.growth import Growth, TreeSearch, grow
from jepa.planning.level import Level, Plan, Tree, checked_state


def tree(level: Level, s: Tensor, generator: Generator, search: TreeSearch) -> Plan:
    """Return the path to the state of least cost that breadth-first search over macro-actions finds.

    Every round each new state tries all macro-actions. Of the states that arrive in a cell which no earlier round has
    reached the one nearest to its center is kept; cells are judged where macro-actions end, costs after every step. An
    episode's search ends where a cost is within the tolerance, nothing new is reached, or depth or evaluations run
    out. Headings and cells are turned and moved by chance in every plan: a planner that repeats a plan of which a step
    was blocked would be stuck for ever.

    Args: level: of its cost C([s̃], [a]) only single states are asked; where it differs between episodes, `level.rows`
        is needed; the horizon is `search.depth`; s: [B, D]; generator: on the device of s; search: sizes.
    Returns: the plan, its value that of its last state, which says whether the goal was reached; its length is 0 where
        no state is better than s. T is the greatest length.
    Raises: ValueError for a state that is not [B, D] or not a number, more than 32767 episodes, actions without
        a limit, or a cost that is not a number.
    """
    found = grow(level, s, *drawn(level.actions, s, generator, search), search)
    actions, states, length = _paths(found, s)
    nodes = found.nodes
    kept = Tree(nodes.trail[:, -1], nodes.parent, nodes.episode, nodes.depth)
    return Plan(actions, states, length, found.best.value, found.evaluations, kept)


def drawn(actions: Box, s: Tensor, generator: Generator, search: TreeSearch) -> tuple[Tensor, Grid]:
    """Return the macro-actions [B, headings, A] of each episode and the grid of its cells.

    In the plane headings are evenly spaced, on the line they alternate, in more dimensions they are drawn.

    Raises: ValueError for a state that is not [B, D] or not a number, more than 32767 episodes, or actions without a
    limit.
    """
    checked_state(s)
    if len(s) > EPISODES:
        raise ValueError(f"s: expected at most {EPISODES} episodes, found {len(s)}")
    like = {"generator": generator, "dtype": s.dtype, "device": s.device}
    axes = min(s.shape[1], 3) if search.axes is None else min(s.shape[1], search.axes)
    turn, move = torch.rand(len(s), 1, **like), torch.rand(len(s), axes, **like)
    if not search.rotate:
        turn, move = torch.zeros_like(turn), torch.zeros_like(move)
    number = torch.arange(search.headings, dtype=s.dtype, device=s.device)
    if actions.width == 1:
        headings = (1 - 2 * (number % 2)).view(1, -1, 1).expand(len(s), -1, -1)
    elif actions.width == 2:
        angle = 2 * math.pi / search.headings * (number + turn)
        headings = torch.stack([angle.cos(), angle.sin()], -1)
    else:
        size = (len(s) if search.rotate else 1, search.headings, actions.width)
        headings = torch.nn.functional.normalize(torch.randn(size, **like), dim=-1).expand(len(s), -1, -1)
    return search.reach * actions.farthest(headings), Grid(search.cell, search.cell * move)


def _paths(found: Growth, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return actions [B, T, A], states [B, T, D] and length [B] of the paths from the roots to the best states."""
    nodes, best, hold = found.nodes, found.best, found.best.trail.shape[1]
    rows, depth = torch.arange(len(s), device=s.device), nodes.depth[best.node]
    blocks = int(depth.max()) + 1 if len(s) else 0
    held = best.action.new_zeros(len(s), blocks, best.action.shape[1])
    states = s[:, None, None].repeat(1, blocks, hold, 1)
    held[rows, depth], states[rows, depth] = best.action, best.trail
    node = best.node
    for place in range(blocks - 1, 0, -1):
        on = (nodes.depth[node] == place).nonzero()[:, 0]
        held[on, place - 1], states[on, place - 1] = nodes.action[node[on]], nodes.trail[node[on]]
        node = node.index_copy(0, on, nodes.parent[node[on]])
    length = depth * hold + best.cut
    steps = int(length.max()) if len(s) else 0
    step = torch.arange(steps, device=s.device)
    meant = (step < length.unsqueeze(1)).unsqueeze(-1)
    last = step.minimum((length - 1).clamp(min=0).unsqueeze(1))  # behind its end a plan stays where it is
    actions = torch.where(meant, held.repeat_interleave(hold, 1)[:, :steps], 0)
    return actions, states.flatten(1, 2)[rows.unsqueeze(1), last], length
