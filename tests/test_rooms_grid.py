"""Grids of rooms: ways lead everywhere, through open doors only, and motion and pictures are those of Two Rooms."""

from __future__ import annotations

import pytest
import torch
from conftest import generator

from jepa.worlds.rooms.grid import grid, neighbors, spanning_tree
from jepa.worlds.rooms.motion import COLLISIONS, move, obstacles, walk, within
from jepa.worlds.rooms.pictures import draw, draw_walls
from jepa.worlds.rooms.reach import reachable


def centers(rows, columns):
    """Return the middles of all rooms [R, 2]."""
    places = [(9.0 * c + 4, 9.0 * r + 4) for r in range(rows) for c in range(columns)]
    return torch.tensor(places)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (4, 1), (3, 3), (2, 4)])
@pytest.mark.parametrize("loops", [0.0, 0.8])
def test_a_way_leads_to_every_room_and_doors_let_through_as_they_are(rows, columns, loops):
    layouts, rooms = grid(20, rows, columns, generator(), loops), rows * columns
    middle = centers(rows, columns)
    assert layouts.bounds[0].tolist() == [0, 0, 9 * columns - 1, 9 * rows - 1]
    everywhere, start = layouts.repeat(rooms), middle[:1].expand(20 * rooms, 2)
    assert reachable(everywhere, start, middle.repeat(20, 1)).all()
    pairs = neighbors(rows, columns)
    assert layouts.open.shape == (20, len(pairs)) and len(pairs) == rows * (columns - 1) + columns * (rows - 1)
    if loops == 0:
        assert (layouts.open.sum(1) == rooms - 1).all()
    for e, (a, b) in enumerate(pairs.tolist()):
        way = (middle[b] - middle[a]) / 9
        door = layouts.doors[:, e]
        assert torch.equal(door @ way, ((middle[a] + middle[b]) / 2 @ way).expand(20))
        assert float(((door - (middle[a] + middle[b]) / 2) @ way.flip(0)).abs().max()) <= 1.5
        for shift, free in ((0, layouts.open[:, e]), (1.45, layouts.open[:, e]), (1.55, torch.zeros(20).bool())):
            start = door - way + shift * way.flip(0)
            _, blocked = move(layouts, start, (2 * way).expand(20, 2), "stay")
            assert torch.equal(blocked, ~free)


def test_doors_that_no_way_needs_are_open_with_their_probability():
    layouts = grid(500, 4, 4, generator())
    extra = layouts.open.sum(1).double() - 15
    assert float(extra.mean()) / (24 - 15) == pytest.approx(0.8, abs=0.02)
    pairs = neighbors(3, 3)
    trees = spanning_tree(3000, 9, pairs, generator())
    share = trees.double().mean(0)
    assert (trees.sum(1) == 8).all() and 0.5 < float(share.min()) and float(share.max()) < 0.85  # none is left out
    assert len(trees.unique(dim=0)) > 150  # of 192


@pytest.mark.parametrize("collisions", COLLISIONS)
def test_dots_stay_in_free_space_and_in_rooms_that_are_shut(collisions):
    layouts = grid(100, 3, 3, generator(), 0.5)
    start, stream = centers(3, 3)[torch.arange(100) % 9], generator(1)
    actions = 4 * torch.randn(100, 40, 2, generator=stream)
    positions, blocked = walk(layouts, start, actions, collisions, stream)
    assert not any(within(obstacles(layouts), p).any() for p in positions.unbind(1))
    assert 0.2 < float(blocked.double().mean()) < 0.9
    room = (positions / 9).floor()
    assert len((room - room[:, :1]).abs().sum((1, 2)).nonzero()) > 20  # some get out
    shut = torch.cat([layouts.doors - 1.6, layouts.doors + 1.6], -1)
    layouts = layouts._replace(solids=torch.cat([layouts.solids, shut], 1))
    positions, _ = walk(layouts, start, actions, collisions, stream)
    room = ((positions + 0.5) / 9).floor()
    assert torch.equal(room, room[:, :1].expand_as(room))


def test_pictures_show_the_whole_grid():
    layouts = grid(4, 3, 3, generator(), 0.0)
    assert layouts.extent[0].tolist() == [-1, -1, 27, 27]
    walls = draw_walls(layouts, 28)  # a pixel a unit
    assert float(walls[:, [0, -1]].min()) == pytest.approx(1) and float(walls[:, :, [0, -1]].min()) == pytest.approx(1)
    area = walls.sum((1, 2))
    inner = 4 * 26 - 4  # two walls across, two down, which cross at four posts
    expected = 28**2 - 26**2 + inner - 3 * layouts.open.sum(1)
    torch.testing.assert_close(area, expected.float(), atol=1e-3, rtol=0)
    pictures = draw(layouts, torch.full((4, 1, 2), 4.0), 28)
    assert divmod(int(pictures[0, 0, 0].argmax()), 28) in {(4, 4), (4, 5), (5, 4), (5, 5)}


@pytest.mark.parametrize("wrong", [(0, 1, 0.5), (1, 0, 0.5), (2, 2, 1.5)])
def test_grids_that_make_no_sense_are_refused(wrong):
    rows, columns, loops = wrong
    with pytest.raises(ValueError, match="^rows, columns, loops, shut: expected"):
        grid(3, rows, columns, generator(), loops)
    with pytest.raises(ValueError, match="^count: expected at least 1"):
        grid(0, 2, 2, generator())
