"""Shortest ways of a point in grids of rooms, exactly.

A shortest way is straight but for bends at corners of open doors. So it is a shortest path (Dijkstra 1959) in the graph
whose nodes are start, goal and these corners, and whose edges join what sees each other, also through several doors: a
segment is free if, wherever it is between the two faces of a line of walls, it is within one open door.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from jepa.worlds.rooms.grid import DOOR, ROOM, WALL
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.motion import check_free

PAIRS = 300_000  # of nodes that are looked at together: they take some 30 MB
ROUNDING = 1e-5  # units by which a segment may be within a wall, since the walls' edges are rounded
STRAIGHT = 1e-7  # square units: of the parallelogram of two parts of a way that do not bend


class Shortest(NamedTuple):
    """Shortest ways."""

    length: Tensor  # [B] in units, inf where no way leads
    points: Tensor  # [B, P, 2] the start, where the way bends, and the goal, again and again
    count: Tensor  # [B] how many of these points are meant, 0 where no way leads


class Walls(NamedTuple):
    """The lines of walls that go one way."""

    doors: Tensor  # [B, lines, places] where the doors of each line are along it, in units
    open: Tensor  # [B, lines, places] whether they are open, bool


def geodesic(layouts: Layouts, start: Tensor, goal: Tensor) -> Shortest:
    """Return shortest ways from starts to goals.

    Args: layouts: B grids of rooms of one shape; start, goal: [B, 2] in units, in rooms or open doors.
    Returns: the ways' lengths and the points where they bend.
    Raises: ValueError for layouts that are no such grids, shapes that do not fit, numbers that are not finite, or a
        start or goal within a wall or beyond the border.
    """
    walls = _walls(layouts)
    for name, points in (("start", start), ("goal", goal)):
        if points.shape != (len(layouts.bounds), 2):
            raise ValueError(f"{name}: expected [{len(layouts.bounds)}, 2], found {list(points.shape)}")
        if not bool(points.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, found {points[~points.isfinite()][0].item()}")
        check_free(layouts, points, name)
    nodes, meant = _nodes(layouts, start, goal, beside=walls[0].doors[0].numel())
    most = max(1, PAIRS // nodes.shape[1] ** 2)
    parts = []
    for first in range(0, len(nodes), most):
        some = slice(first, first + most)
        edges = _edges(nodes[some], meant[some], [Walls(*(part[some] for part in of)) for of in walls])
        parts.append(_paths(nodes[some], *edges))
    longest = max(part.points.shape[1] for part in parts)
    points = [torch.cat([p, p[:, -1:].expand(-1, longest - p.shape[1], -1)], 1) for _, p, _ in parts]
    length, count = torch.cat([part.length for part in parts]), torch.cat([part.count for part in parts])
    return Shortest(length.to(start), torch.cat(points).to(start), count.to(start.device))


def _walls(layouts: Layouts) -> tuple[Walls, Walls]:
    """Return the vertical and the horizontal lines of walls. Raises: ValueError for no grids of rooms of one shape."""
    count, doors = layouts.open.shape
    size = ((layouts.bounds[:1, 2:] + WALL) / (ROOM + WALL)).round()
    columns, rows = size[0].int().tolist() if count else (1, 1)
    bounds = layouts.bounds.new_tensor([0, 0, columns * (ROOM + WALL) - WALL, rows * (ROOM + WALL) - WALL])
    beside = rows * (columns - 1)
    if not count or doors != beside + columns * (rows - 1) or not bool((layouts.bounds == bounds).all()):
        found = f"{count} with {doors} doors within {layouts.bounds[:1].flatten().tolist()}"
        raise ValueError(f"layouts: expected at least one grid of rooms, all of one shape, found {found}")
    centers = layouts.doors.double()
    upright = [part[:, :beside].reshape(count, rows, columns - 1) for part in (centers[..., 1], layouts.open)]
    level = [part[:, beside:].reshape(count, rows - 1, columns) for part in (centers[..., 0], layouts.open)]
    return Walls(*(part.transpose(1, 2) for part in upright)), Walls(*level)


def _nodes(layouts: Layouts, start: Tensor, goal: Tensor, beside: int) -> tuple[Tensor, Tensor]:
    """Return starts, goals and corners of open doors [B, N, 2], and which of them are meant [B, N].

    Args: beside: how many doors are in vertical walls, the first ones.
    """
    most = int(layouts.open.sum(1).max())
    order = (~layouts.open).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]  # open ones first
    centers = layouts.doors.double().gather(1, order.unsqueeze(-1).expand(-1, -1, 2))
    upright, size = (order < beside).unsqueeze(-1), centers.new_tensor([WALL, DOOR])
    half = torch.where(upright, size, size.flip(0)) / 2
    signs = centers.new_tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    corners = (centers.unsqueeze(2) + half.unsqueeze(2) * signs).flatten(1, 2)
    meant = layouts.open.gather(1, order).repeat_interleave(4, 1)
    ends = torch.stack([start, goal], 1).double()
    return torch.cat([ends, corners], 1), torch.cat([meant.new_ones(len(ends), 2), meant], 1)


def _edges(nodes: Tensor, meant: Tensor, walls: list[Walls]) -> tuple[Tensor, Tensor, Tensor]:
    """Return which nodes see each other: the layouts [K], and two nodes of each [K] twice.

    Args: nodes: [B, N, 2] in units; meant: [B, N], bool; walls: the vertical ones and the horizontal ones.
    """
    one, other = torch.triu_indices(nodes.shape[1], nodes.shape[1], 1, device=nodes.device)
    row, pair = (meant[:, one] & meant[:, other]).nonzero(as_tuple=True)
    one, other = one[pair], other[pair]
    for axis, (doors, opened) in enumerate(walls):
        for line in range(doors.shape[1]):  # most pairs are not left after a few
            start, end = (nodes[row, node].roll(axis, -1) for node in (one, other))
            free = _free(start, end, line, doors[row, line], opened[row, line])
            row, one, other = row[free], one[free], other[free]
    return row, one, other


def _free(start: Tensor, end: Tensor, line: int, doors: Tensor, opened: Tensor) -> Tensor:
    """Return whether segments [K, 2] pass a line of walls in an open door, or are not within it, [K].

    Args: start, end: first across the line, then along it, in units; line: its number; doors, opened: [K, places].
    """
    faces = start.new_tensor([ROOM, ROOM + WALL]) + line * (ROOM + WALL)
    low, high = torch.minimum(start[:, 0], end[:, 0]), torch.maximum(start[:, 0], end[:, 0])
    beyond = (high <= faces[0] + ROUNDING) | (low >= faces[1] - ROUNDING)
    way = end - start
    still = way[:, :1] == 0
    time = (faces - start[:, :1]) / torch.where(still, 1.0, way[:, :1])
    time = torch.where(still, start.new_tensor([0.0, 1.0]), time.clamp(0, 1))
    along = start[:, 1:] + time * way[:, 1:]  # [K, 2] where they come and where they leave
    place = ((along.sum(1, keepdim=True) / 2 + WALL / 2) / (ROOM + WALL)).floor().long().clamp(0, doors.shape[1] - 1)
    inside = ((along - doors.gather(1, place)).abs() <= DOOR / 2 + ROUNDING).all(1)
    return beyond | (inside & opened.gather(1, place)[:, 0])


def _paths(nodes: Tensor, row: Tensor, one: Tensor, other: Tensor) -> Shortest:
    """Return shortest paths from node 0 to node 1 of every graph, on the CPU.

    Args: nodes: [B, N, 2] in units; row, one, other: [K], the edges, as `_edges` returns them.
    """
    count, width = nodes.shape[:2]
    weight = (nodes[row, one] - nodes[row, other]).norm(dim=-1)
    ends = [(row * width + node).cpu().numpy() for node in (one, other)]
    # all graphs as one, from all goals at once: each start's predecessors then are its way on
    graph = coo_array((weight.cpu().numpy(), ends), shape=(count * width, count * width)).tocsr()
    start = np.arange(count) * width
    goal = start + 1
    length, onward, _ = dijkstra(graph, directed=False, indices=goal, return_predecessors=True, min_only=True)
    way = [start]
    while bool((more := onward[way[-1]] >= 0).any()):
        way.append(np.where(more, onward[way[-1]], way[-1]))
    found = torch.from_numpy(length[start])
    index = torch.from_numpy(np.stack([*way, goal], 1))
    return _bends(nodes.cpu().flatten(0, 1)[index], found)


def _bends(points: Tensor, length: Tensor) -> Shortest:
    """Return ways through points [B, P, 2], which end with goals, without those points where a way does not bend."""
    come, go = points.diff(dim=1)[:, :-1].unbind(-1), points.diff(dim=1)[:, 1:].unbind(-1)
    bends = (come[0] * go[1] - come[1] * go[0]).abs() > STRAIGHT
    keep = torch.nn.functional.pad(bends, (1, 0), value=True)  # the start, too
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True).unsqueeze(-1).expand(-1, -1, 2)
    count = keep.sum(1)
    meant = torch.arange(keep.shape[1]) < count.unsqueeze(1)
    kept = torch.where(meant.unsqueeze(-1), points.gather(1, order), points[:, -1:])
    ways = torch.cat([kept[:, : int(count.max())], points[:, -1:]], 1)
    return Shortest(length, ways, torch.where(length.isfinite(), count + 1, 0))
