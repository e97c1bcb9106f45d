"""Shortest ways in grids of rooms, against a visibility graph among all corners of all walls."""

from __future__ import annotations

import math
import re

import networkx
import pytest
import torch
from conftest import generator

from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.grid import built, grid, mapped, neighbors
from jepa.worlds.rooms.layouts import Layouts, random_two_rooms
from jepa.worlds.rooms.motion import obstacles, touches, within

NEAR = 1e-3  # by how much the witness makes walls smaller, since touching is hitting for it


def double(layouts):
    """Return layouts in double precision."""
    return Layouts(*(part.double() if part.is_floating_point() else part for part in layouts))


def uniform(layouts, rows, columns, seed=0, margin=0.0):
    """Return points [B, 2] in rooms."""
    room, place = torch.rand(2, len(layouts.bounds), 2, generator=generator(seed))
    return 9 * (room * torch.tensor([columns, rows])).floor() + margin + (8 - 2 * margin) * place


def smaller(layouts):
    """Return boxes [B, W + 4, 4] that are a bit smaller than what blocks, without gaps between walls and shut doors."""
    boxes, doors = obstacles(layouts), layouts.doors.shape[1]
    gates = boxes[:, 2 * doors : 3 * doors]
    size = gates[..., 2:] - gates[..., :2]
    along = torch.cat([-(size > 2).to(size), (size > 2).to(size)], -1)
    longer = torch.cat([boxes[:, : 2 * doors], gates + 0.1 * along, boxes[:, 3 * doors :]], 1)
    return longer + NEAR * longer.new_tensor([1, 1, -1, -1])


def witness(layouts, start, goal):
    """Return the length of the shortest way in one layout, from start to goal [1, 2]."""
    boxes = smaller(double(layouts))
    solids = double(layouts).solids[0]
    corners = torch.cat([solids[:, [i, j]] for i in (0, 2) for j in (1, 3)])
    nodes = torch.cat([start.double(), goal.double(), corners])
    nodes = nodes[~within(boxes.expand(len(nodes), -1, -1), nodes).any(1)]
    one, other = torch.combinations(torch.arange(len(nodes))).unbind(1)
    sees = ~touches(boxes.expand(len(one), -1, -1), nodes[one], nodes[other]).any(1)
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(nodes)))
    length = (nodes[one] - nodes[other]).norm(dim=-1)
    graph.add_weighted_edges_from(zip(one[sees].tolist(), other[sees].tolist(), length[sees].tolist(), strict=True))
    try:
        return networkx.dijkstra_path_length(graph, 0, 1)
    except networkx.NetworkXNoPath:
        return math.inf


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (3, 1), (2, 3), (3, 3)])
def test_lengths_are_those_of_paths_in_the_graph_of_all_corners(rows, columns):
    layouts = grid(12, rows, columns, generator(), 0.8, 0.4)
    for some in (layouts, mapped(layouts)):
        start, goal = (uniform(some, rows, columns, seed) for seed in (1, 2))
        found = geodesic(some, start, goal)
        expected = [witness(some.rows([b]), start[[b]], goal[[b]]) for b in range(12)]
        torch.testing.assert_close(found.length, torch.tensor(expected), atol=0.02, rtol=0)


def test_ways_lead_from_start_to_goal_around_walls_and_have_their_length():
    layouts = grid(200, 4, 4, generator(), 0.6, 0.4)
    start, goal = (uniform(layouts, 4, 4, seed, 0.1) for seed in (1, 2))
    length, points, count = geodesic(layouts, start, goal)
    assert torch.equal(points[:, 0], start) and torch.equal(points[:, -1], goal)
    torch.testing.assert_close(points.diff(dim=1).norm(dim=-1).sum(1), length, atol=1e-4, rtol=0)
    assert float((length - (goal - start).norm(dim=-1)).min()) > -1e-4
    boxes = smaller(layouts)
    corners = torch.cat([layouts.solids[..., [i, j]] for i in (0, 2) for j in (1, 3)], 1)
    for k in range(points.shape[1] - 1):
        part = points[:, k : k + 2].unbind(1)
        assert not touches(boxes, *part).any()
        bend = (k > 0) & (k < count - 1)
        off = (corners - part[0].unsqueeze(1)).norm(dim=-1).amin(1)
        assert float(off[bend].amax() if bend.any() else 0) < 1e-4  # a way bends at corners
        after = k >= count - 1
        assert torch.equal(part[0][after], goal[after])
    assert int(count.max()) == points.shape[1] > 6 and int(count.min()) == 2


def test_ways_bend_at_each_of_their_points():
    layouts = grid(100, 3, 3, generator(), 0.5)
    points, count = geodesic(layouts, *(uniform(layouts, 3, 3, seed) for seed in (1, 2)))[1:]
    for way, some in zip(points.double(), count.tolist(), strict=True):
        come, go = way[:some].diff(dim=0)[:-1], way[:some].diff(dim=0)[1:]
        assert all(abs(float(a[0] * b[1] - a[1] * b[0])) > 0 for a, b in zip(come, go, strict=True))


def test_points_of_one_room_are_joined_by_straight_lines():
    layouts = grid(300, 3, 3, generator(), 0.5)
    room = uniform(layouts, 3, 3, 1).div(9).floor()
    start, goal = (9 * room + 8 * torch.rand(300, 2, generator=generator(seed)) for seed in (2, 3))
    length, points, count = geodesic(layouts, start, goal)
    torch.testing.assert_close(length, (goal - start).norm(dim=-1))
    assert (count == 2).all() and points.shape == (300, 2, 2)
    same = geodesic(layouts, start, start)
    assert not same.length.any() and (same.count == 2).all()


def test_lengths_are_distances():
    layouts = grid(300, 3, 4, generator(), 0.4, 0.5)
    a, b, c = (uniform(layouts, 3, 4, seed) for seed in (1, 2, 3))
    ab, ba, bc, ac = (geodesic(layouts, *pair).length for pair in ((a, b), (b, a), (b, c), (a, c)))
    torch.testing.assert_close(ab, ba)
    assert float((ab + bc - ac).min()) > -1e-4
    seen = geodesic(mapped(layouts), a, b).length
    assert (seen <= ab + 1e-4).all() and float((ab - seen).max()) > 5
    assert torch.equal(seen[~layouts.gates.any(1)], ab[~layouts.gates.any(1)])


def test_ways_along_a_corridor_follow_from_its_doors():
    offset = torch.tensor([[0.0, 1.0, 0.5], [0.5, 0.5, 0.5]])
    opened = torch.ones(2, 3, dtype=torch.bool)
    lying, standing = built(1, 4, offset, opened, ~opened), built(4, 1, offset, opened, ~opened)
    start, goal = torch.tensor([[1.0, 7.0]]).expand(2, 2), torch.tensor([[34.0, 7.0]]).expand(2, 2)
    length, points, count = geodesic(lying, start, goal)
    # the openings go from y = 1 to 4, 4 to 7 and 2.5 to 5.5 in one corridor, from 2.5 to 5.5 in the other
    assert points[0, : count[0]].tolist() == [[1, 7], [8, 4], [9, 4], [27, 5.5], [34, 7]]
    assert points[1, : count[1]].tolist() == [[1, 7], [8, 5.5], [27, 5.5], [34, 7]]
    assert float(length[1]) == pytest.approx(2 * math.hypot(7, 1.5) + 19, abs=1e-4)
    turned = geodesic(standing, start.flip(1), goal.flip(1))
    torch.testing.assert_close(turned.length, length)
    assert torch.equal(turned.count, count) and torch.equal(turned.points, points.flip(2))


def test_doors_are_seen_through_and_stood_in():
    layouts = built(1, 3, torch.full((1, 2), 0.5), torch.ones(1, 2).bool(), torch.zeros(1, 2).bool())
    for start, goal, expected in (
        ((1, 4), (25, 4), 24.0),  # through two doors
        ((8.5, 4), (17.5, 4), 9.0),  # from door to door
        ((8.5, 3), (8.5, 5), 2.0),  # along the wall, in the door
        ((8.5, 2.5), (8.5, 5.5), 3.0),
        ((8, 2.5), (9, 2.5), 1.0),  # along the door's edge, from corner to corner
        ((7, 2.5), (20, 2.5), 13.0),
        ((8, 1), (8, 7), 6.0),  # along the wall, across the door
        ((8.5, 4), (8.0, 0.0), math.hypot(0.5, 1.5) + 2.5),
        ((8, 0), (9, 0), 6.0),
    ):
        found = geodesic(layouts, torch.tensor([start]).float(), torch.tensor([goal]).float())
        assert float(found.length) == pytest.approx(expected, abs=1e-4), (start, goal)
        straight = math.dist(start, goal)
        assert (int(found.count) == 2) == (expected == pytest.approx(straight))


def test_where_no_way_leads_lengths_are_infinite():
    layouts = grid(4, 2, 2, generator(), 1.0)
    opened = layouts.open & torch.tensor([True, True, False, True]).unsqueeze(1)
    shut = built(2, 2, torch.full((4, len(neighbors(2, 2))), 0.5), opened, ~opened)
    start, goal = torch.tensor([[4.0, 4.0]]).expand(4, 2), torch.tensor([[13.0, 13.0]]).expand(4, 2)
    length, points, count = geodesic(shut, start, goal)
    assert length.isfinite().tolist() == (count > 0).tolist() == [True, True, False, True]
    assert math.isinf(float(geodesic(shut.rows([2]), start[:1], goal[:1]).length))
    assert geodesic(mapped(shut), start, goal).length.isfinite().all()


def test_parts_of_a_batch_and_precision_change_nothing():
    layouts = grid(120, 5, 5, generator(), 0.8, 0.5)  # more than are looked at together
    start, goal = (uniform(layouts, 5, 5, seed) for seed in (1, 2))
    length, points, count = geodesic(layouts, start, goal)
    assert length.dtype == points.dtype == torch.float32 and count.dtype == torch.int64
    alone = geodesic(layouts.rows([119]), start[119:], goal[119:])
    assert torch.equal(alone.length, length[119:]) and torch.equal(alone.points[0], points[119, : count[119]])
    exact = geodesic(double(layouts), start.double(), goal.double())
    assert exact.length.dtype == torch.float64
    torch.testing.assert_close(exact.length.float(), length)


def test_what_has_no_shortest_way_is_refused():
    layouts, inside = grid(2, 2, 3, generator()), torch.full((2, 2), 4.0)
    for some, start, goal, message in (
        (random_two_rooms(2, generator()), 10 + inside, 50 + inside, "layouts: expected at least one grid of rooms"),
        (layouts.rows([]), inside[:0], inside[:0], "layouts: expected at least one grid of rooms"),
        (layouts, inside[:1], inside, re.escape("start: expected [2, 2], found [1, 2]")),
        (layouts, inside, inside * math.nan, "goal: expected finite numbers"),
        (layouts, inside, torch.full((2, 2), 8.5), "goal: expected points outside of walls"),
        (layouts, inside - 5, inside, "start: expected points outside of walls"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            geodesic(some, start, goal)
