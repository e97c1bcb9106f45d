"""The world maze: trajectories, tasks drawn and stored, gates that a map shows open, and whoever acts among them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import generator
from scipy import stats

from jepa.data import load, write
from jepa.runs.config import Part
from jepa.runs.data import made_by
from jepa.static import moving, separate
from jepa.worlds.base import Acting
from jepa.worlds.rooms import Maze, Tasks
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.grid import built, mapped, neighbors
from jepa.worlds.rooms.maze import rimmed
from jepa.worlds.rooms.maze_tasks import misleading
from jepa.worlds.rooms.motion import obstacles, touches, walk, within
from jepa.worlds.rooms.pictures import draw_dots
from jepa.worlds.rooms.reach import reachable
from jepa.worlds.rooms.success import any_within_radius

WORLD = Maze(group=4)


def stored(world, count, seed, folder):
    """Return integer tasks, and what was read of them after they were written."""
    arrays = world.integers(count, np.random.RandomState(seed))
    write(folder, arrays, world.quanta, {"world": {"name": "maze"}})
    return arrays, load(folder)


def corridor(*kinds):
    """Return a row of rooms, with doors in the middle: "open", "gate" or "wall"."""
    kinds = np.array([kinds])
    opened, gates = (torch.from_numpy(kinds == kind) for kind in ("open", "gate"))
    return built(1, kinds.shape[1] + 1, torch.full(kinds.shape, 0.5), opened, gates)


@pytest.mark.parametrize("resolution", [1, 2])
def test_pictures_show_walls_and_shut_gates_and_maps_show_gates_open(resolution):
    world = Maze(rooms=2, resolution=resolution)
    opened, gates = torch.tensor([[True, False, False, True]]), torch.tensor([[False, True, False, False]])
    layouts = built(2, 2, torch.tensor([[1.0, 2, 1, 2]]) / 3, opened, gates)  # doors begin at whole units
    walls = torch.zeros(23, 23)  # outer walls are drawn three units thick
    lines = [0, 1, 2, 11, 20, 21, 22]
    walls[lines] = walls[:, lines] = 1
    walls[5:8, 11] = walls[11, 15:18] = 0  # from y = 2 to 5, from x = 12 to 15, where pixel 0 is from −3 to −2
    expected = walls.clone()
    expected[15:18, 11] = 0
    positions = torch.tensor([[[3.0, 5.0], [8.5, 13.0]]])
    pictures, shown = world.draw(layouts, positions)[0], world.map(layouts)[0]
    assert pictures[0].shape == shown.shape == world.static and world.widths == (world.static, 2, world.static)
    large = torch.ones(resolution, resolution)
    for found, wanted in ((pictures[0, 1], walls), (pictures[1, 1], walls), (shown[1], expected)):
        torch.testing.assert_close(found, torch.kron(wanted, large), atol=1e-4, rtol=0)
    assert torch.equal(pictures[:, 0], 2 * draw_dots(rimmed(layouts), positions, world.size)[0])
    assert torch.equal(world.draw(layouts, positions, world.walls(layouts))[0], pictures)
    assert float(shown[0].abs().max()) == 0


def test_trajectories_share_a_layout_by_groups_and_obey_its_walls():
    world = Maze(group=4, subtract=False)
    found = world.trajectories(200, 15, generator())
    position, blocked = found.factors["position"], found.factors["blocked"].bool()
    assert found.frames.shape == (200, 16, 2, 32, 32) and found.static.shape == (50, 2, 32, 32)
    assert (
        found.a.shape == (200, 15, 2)
        and blocked.shape == (200, 15)
        and found.factors.keys() == world.factor_labels.keys()
    )
    layouts = world.layouts(50, generator())  # what it draws first
    shown = world.draw(layouts, position[::4])
    assert torch.equal(found.static[:, 1], shown[:, 0, 1])  # shut gates, too
    layouts = layouts.repeat(4)
    assert torch.equal(found.frames, world.draw(layouts, position))
    assert not any(within(obstacles(layouts), p).any() for p in position.unbind(1))
    smaller = obstacles(layouts) + 0.01 * torch.tensor([1.0, 1, -1, -1])
    assert not any(
        touches(smaller, p, q).any() for p, q in zip(position.unbind(1), position.unbind(1)[1:], strict=False)
    )
    assert 0.05 < float(blocked.double().mean()) < 0.7  # also where a dot slides on along a wall
    moved = position.diff(dim=1) - found.a
    assert float(moved[~blocked].abs().max()) < 2.0**-9 < float(moved[blocked].norm(dim=-1).median())
    assert float(found.a.norm(dim=-1).max()) <= 1 + 1e-5
    changed = ((position + 0.5) / 9).floor().diff(dim=1).any(-1)
    assert 0.1 < float(changed.any(1).double().mean())  # many get through doors


def test_trajectories_are_decided_by_their_generator_and_parted():
    one, two, other = (WORLD.trajectories(40, 12, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.frames, two.frames) and torch.equal(one.a, two.a) and not torch.equal(one.a, other.a)
    whole = Maze(group=4, subtract=False).trajectories(40, 12, generator())
    again = one.frames + one.static.repeat_interleave(4, 0).unsqueeze(1)
    torch.testing.assert_close(again, whole.frames, atol=1e-6, rtol=0)
    assert float(one.frames.min()) == 0 and not one.frames[:, :, 1].any()
    hidden = Maze(group=4, sight=3.0).trajectories(40, 12, generator())
    assert torch.equal(hidden.static, one.static) and torch.equal(hidden.frames, one.frames)


def test_walks_are_long_quick_or_slow_and_turn_anew_at_walls():
    found = Maze(group=1, before=0).trajectories(1500, 12, generator())
    length, blocked = found.a.norm(dim=-1), found.factors["blocked"].bool()
    quick = (length >= 0.8 - 1e-5).all(1)  # of the others hardly any: one in a few hundred million
    assert float(quick.double().mean()) == pytest.approx(0.3, abs=0.04)
    assert stats.kstest(length[quick].flatten(), stats.uniform(0.8, 0.2).cdf).pvalue > 0.001
    assert stats.kstest(length[~quick].flatten(), "uniform").pvalue > 0.001
    heading = torch.atan2(found.a[..., 1], found.a[..., 0]).diff(dim=1)
    turn = torch.remainder(heading + math.pi, 2 * math.pi) - math.pi
    assert stats.kstest(turn[~blocked[:, :-1]], stats.norm(0, 0.45).cdf).pvalue > 0.001
    first = blocked[:, :-1] & (blocked[:, :-1].cumsum(1) == 1)  # walks that turn on are at walls more often than others
    far = float((turn[first].abs() > 1.5).double().mean())
    assert far == pytest.approx(0.25 * (1 - 1.5 / math.pi), abs=0.04)  # a half of a half is uniform


def test_starts_are_near_doors_or_anywhere():
    world = Maze(before=0, group=1)
    start = world.trajectories(2000, 1, generator()).factors["position"][:, 0]
    layouts, stream = world.layouts(2000, generator()), generator(1)

    def near(points):
        """Return the share of points near a door, open or not, and the sums of their distances to walls."""
        off = (layouts.doors - points.unsqueeze(1)).abs()
        off = torch.cat([off[:, :6], off[:, 6:].flip(-1)], 1)  # across the wall, along it
        return float(((off[..., 0] <= 3) & (off[..., 1] <= 2)).any(1).double().mean())

    chance = near(world.uniform(layouts, stream))
    assert near(start) == pytest.approx(0.45 + 0.55 * chance, abs=0.03) and chance < 0.6
    place = start - 9 * (start / 9).floor()
    assert 0.1 - 1e-4 <= float(place.min()) and float(place.max()) <= 7.9 + 1e-4  # in rooms
    alone = Maze(rooms=1, group=1).trajectories(3, 4, generator())  # no door to be near
    assert alone.frames.shape == (3, 5, 2, 14, 14)


def test_gates_block_what_a_map_shows_open():
    layouts, start = corridor("open", "gate"), torch.tensor([[4.0, 4.0]])
    right = torch.tensor([[1.0, 0.0]]).expand(1, 20, 2)
    positions, blocked = walk(layouts, start, right, "slide")
    assert (
        float(positions[0, -1, 0]) == pytest.approx(17, abs=0.01) and blocked[0].tolist() == [False] * 12 + [True] * 8
    )
    through, blocked = walk(mapped(layouts), start, right, "slide")
    assert float(through[0, -1, 0]) == 24 and not blocked.any()
    assert torch.equal(walk(mapped(corridor("open", "wall")), start, right, "slide")[0], positions)
    gates = Maze(rooms=4).layouts(20, generator())
    assert gates.gates.any() and not mapped(gates).gates.any()
    assert torch.equal(mapped(gates).open, gates.open | gates.gates)
    assert all(torch.equal(a, b) for a, b in zip(mapped(gates, torch.zeros_like(gates.open)), gates, strict=True))


@pytest.mark.parametrize("rooms", [2, 3, 5])
@pytest.mark.parametrize("source", ["torch", "integers"])
def test_tasks_lead_from_room_to_room(rooms, source, tmp_path):
    world, count = Maze(rooms=rooms), 3000 if rooms < 5 else 200
    if source == "torch":
        tasks = world.tasks(count, generator())
    else:
        tasks = world.tasks_of(stored(world, count, 0, tmp_path / "set")[1])
    assert reachable(tasks.layouts, tasks.start, tasks.goal).all()
    points = torch.stack([tasks.start, tasks.goal], 1)
    room = (points / 9).floor()
    place = points - 9 * room
    assert 1.5 - 1e-4 <= float(place.min()) < 1.6 and 6.4 < float(place.max()) <= 6.5 + 1e-4
    assert float((tasks.start - tasks.goal).norm(dim=-1).min()) >= 7 - 1e-4
    number = (room @ torch.tensor([1.0, rooms])).int()  # row by row
    assert 0 <= int(number.min()) and int(number.max()) < rooms**2
    assert (number[:, 0] != number[:, 1]).all()
    pairs = torch.bincount(number[:, 0] * rooms**2 + number[:, 1], minlength=rooms**4)
    if rooms < 5:
        even = [p for p in range(rooms**4) if p // rooms**2 != p % rooms**2]
        assert stats.chisquare(pairs[even]).pvalue > 0.001
    doors, tree = len(neighbors(rooms, rooms)), rooms**2 - 1
    spare = doors - tree
    shares = [float(some.double().sum(1).mean()) for some in (tasks.layouts.open, tasks.layouts.gates)]
    assert (shares[0] - tree) / spare == pytest.approx(0.8 * 0.3, abs=0.05)
    assert shares[1] / spare == pytest.approx(0.8 * 0.7, abs=0.05)
    assert not (tasks.layouts.open & tasks.layouts.gates).any()


def test_stored_tasks_are_those_that_were_made(tmp_path):
    arrays, held_out = stored(WORLD, 500, 1, tmp_path / "set")
    assert all(array.dtype == np.int16 for array in arrays.values())
    assert 0 == arrays["offset"].min() and arrays["offset"].max() == 256
    tasks = WORLD.tasks_of(held_out)
    for points, name in ((tasks.start, "x"), (tasks.goal, "y")):
        assert torch.equal(points, torch.from_numpy(arrays[name] / 256).float())
    for e, (a, b) in enumerate(neighbors(3, 3).tolist()):
        one, other = (torch.tensor([9.0 * (r % 3) + 4, 9.0 * (r // 3) + 4]) for r in (a, b))
        way = (other - one) / 9
        expected = (one + other) / 2 + torch.from_numpy(arrays["offset"][:, e] * 3 / 256 - 1.5).float()[
            :, None
        ] * way.flip(0)
        assert torch.equal(tasks.layouts.doors[:, e], expected)
    for kind, expected in enumerate(
        (~(tasks.layouts.open | tasks.layouts.gates), tasks.layouts.open, tasks.layouts.gates)
    ):
        assert np.array_equal(arrays["kind"] == kind, expected.numpy())
    first = WORLD.tasks_of(load(tmp_path / "set", count=7))
    assert torch.equal(first.layouts.solids, tasks.layouts.solids[:7])


def test_integers_are_decided_by_their_generator():
    one, two, other = (WORLD.integers(50, np.random.RandomState(seed)) for seed in (0, 0, 1))
    assert one.keys() == WORLD.quanta.keys()
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes() and array.tobytes() != other[name].tobytes()
    first = {name: array[0].tolist() for name, array in Maze(rooms=2).integers(5, np.random.RandomState(0)).items()}
    expected = {"x": [986, 1150], "y": [3262, 3827], "offset": [235, 229, 50, 52], "kind": [1, 1, 1, 1]}
    assert first == expected  # on every machine


def test_only_what_decides_tasks_is_recorded_with_them():
    looks = {
        "resolution": 2,
        "brightness": 1.0,
        "subtract": False,
        "before": 3,
        "group": 2,
        "step_limit": 2.0,
        "sight": 5.0,
    }
    deciding = {"rooms": 5, "loops": 0.5, "shut": 0.2}
    assert made_by(Part("maze", deciding | looks)) == {"world": {"name": "maze", **deciding}}
    assert set(Maze.of_tasks) | looks.keys() == set(Maze.__dataclass_fields__)


def test_a_map_misleads_where_its_shortest_way_is_shut_and_the_open_one_far():
    tasks = Maze(rooms=4).tasks(300, generator())
    wrong = misleading(tasks)
    assert 0.2 < float(wrong.double().mean()) < 0.7
    layouts, doors = tasks.layouts, tasks.layouts.doors.shape[1]
    gates = layouts.solids[:, 2 * doors : 3 * doors]
    high = (gates[..., 3:] - gates[..., 1:2] > 2).float()  # a bit longer and thinner: ways go along the edges of doors
    gates = (
        gates
        + 1e-3 * torch.cat([high, 1 - high, -high, high - 1], -1)
        - 1e-3 * torch.cat([1 - high, high, high - 1, -high], -1)
    )
    shown = geodesic(mapped(layouts), tasks.start, tasks.goal)
    meets = torch.zeros_like(layouts.gates)
    for a, b in zip(shown.points.unbind(1)[:-1], shown.points.unbind(1)[1:], strict=True):
        meets |= touches(gates, a, b)
    assert not (meets & ~layouts.gates).any()
    shut = meets.any(1)
    assert shut[wrong].all() and not shut[~wrong].all() and (shut & ~wrong).any()
    longer = geodesic(layouts, tasks.start, tasks.goal).length - shown.length
    assert torch.equal(longer > 2, wrong) and float(longer[~shut].abs().max()) < 1e-4
    assert not misleading(tasks._replace(layouts=mapped(layouts))).any()
    assert not misleading(Maze(shut=0.0).tasks(50, generator())).any()


def test_tasks_that_cannot_be_made_or_read_are_refused(tmp_path):
    alone, random = Maze(rooms=1), np.random.RandomState(0)
    held_out = stored(WORLD, 4, 0, tmp_path / "set")[1]
    without = held_out._replace(factors={"offset": held_out.factors["offset"]})
    shut = held_out._replace(factors=held_out.factors | {"kind": 0 * held_out.factors["kind"]})
    for make, message in (
        (lambda: alone.tasks(3, generator()), "rooms: expected at least 2 a side"),
        (lambda: alone.integers(3, random), "rooms: expected at least 2 a side"),
        (lambda: Maze(rooms=15).integers(3, random), "rooms: expected at most 14"),
        (lambda: WORLD.tasks(0, generator()), "count: expected at least 1, found 0"),
        (lambda: WORLD.integers(0, random), "count: expected at least 1, found 0"),
        (lambda: WORLD.tasks_of(without), r"held_out: expected a factor kind \[4, 12\], found offset"),
        (lambda: Maze(rooms=4).tasks_of(held_out), r"held_out: expected a factor offset \[4, 24\], found \[4, 12\]"),
        (lambda: WORLD.tasks_of(shut), "goal: expected a way from every start to its goal, found none from task 0"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            make()


def test_shut_gates_are_seen_from_near_only_and_block_anyway():
    world, blind = Maze(rooms=4, sight=5.0), Maze(rooms=4)
    layouts = corridor("gate", "open", "gate")
    tasks = Tasks(layouts, torch.tensor([[12.0, 4.0]]), torch.tensor([[24.0, 4.0]]))
    episodes, others = world.episodes(tasks), blind.episodes(tasks)
    assert isinstance(episodes, Acting) and others.goal is others.goal
    for _ in range(16):
        position = episodes.positions[:, -1]
        left, right = (abs(float(position[0, 0]) - x) <= 5 for x in (8.5, 26.5))
        seen, goal = episodes.observe()[0], episodes.goal[0]
        for picture, where in ((seen, position), (goal, tasks.goal)):
            assert [bool(picture[1, 7, x] > 0.99) for x in (11, 20, 29)] == [left, False, right]
            assert torch.equal(picture[0], world.draw(layouts, where.unsqueeze(1))[0, 0, 0])
        static, _ = separate(torch.stack([seen, goal]).unsqueeze(0))
        assert torch.equal(static[0, 1], seen[1])
        assert not moving(seen[None, None], static)[0, 0, 1].any()
        assert all(bool(others.observe()[0, 1, 7, x] > 0.99) == (x != 20) for x in (11, 20, 29))
        step = torch.tensor([[1.0, 0.0]])
        assert torch.equal(episodes.act(step), episodes.observe()) and others.act(step).shape == (1, 2, 41, 41)
    assert torch.equal(episodes.positions, others.positions) and torch.equal(episodes.blocked, others.blocked)
    assert float(episodes.positions[0, -1, 0]) == pytest.approx(26, abs=0.01) and episodes.blocked[0, -2:].all()
    assert all(torch.equal(a, b) for a, b in zip(blind.seen(layouts, tasks.start), layouts, strict=True))


def test_dots_that_are_led_along_shortest_ways_solve_their_tasks_in_their_length():
    world = Maze(rooms=4)
    tasks = world.tasks(100, generator())
    length, points, count = geodesic(tasks.layouts, tasks.start, tasks.goal)
    come, go = (
        torch.nn.functional.normalize(part, dim=-1) for part in (points.diff(dim=1)[:, :-1], points.diff(dim=1)[:, 1:])
    )
    off = 0.05 * torch.nn.functional.normalize(
        come - go, dim=-1
    )  # away from the corners: what touches walls is stopped
    bends = torch.arange(1, points.shape[1] - 1) < count.unsqueeze(1) - 1
    points[:, 1:-1] += torch.where(bends.unsqueeze(-1), off, 0.0)
    episodes, rows, which = world.episodes(tasks), torch.arange(100), torch.ones(100, dtype=torch.int64)
    for _ in range(int(length.max()) + int(count.max())):
        at = episodes.positions[:, -1]
        there = (points[rows, which] - at).norm(dim=-1) < 0.01
        which = torch.where(there, which + 1, which).clamp(max=points.shape[1] - 1)
        episodes.act(points[rows, which] - at)
    more = episodes.positions.diff(dim=1).norm(dim=-1).sum(1) - length
    assert float(more.min()) > -0.02 and (more < 0.1 * count).all()
    assert torch.allclose(episodes.positions[:, -1], tasks.goal, atol=0.02)
    assert any_within_radius(episodes.positions, tasks.goal).all()
    assert not any_within_radius(episodes.positions[:, :1], tasks.goal).any()


def test_a_maze_is_solved_within_its_radius_at_any_step():
    goal = 5 + torch.randn(300, 2, generator=generator())
    positions = 5 + 3 * torch.randn(300, 4, 2, generator=generator(1))
    expected = [
        min(math.dist(p, g) for p in way) < 1.5 for way, g in zip(positions.tolist(), goal.tolist(), strict=True)
    ]
    assert any_within_radius(positions, goal).tolist() == expected and 0.1 < sum(expected) / 300 < 0.9
    with pytest.raises(ValueError, match="^positions, goal: expected"):
        any_within_radius(positions, goal[:3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Maze(rooms=0), "rooms: expected at least 1, found 0"),
        (lambda: Maze(resolution=0), "resolution: expected at least 1, found 0"),
        (lambda: Maze(group=-1), "group: expected at least 1, found -1"),
        (lambda: Maze(loops=1.5), "loops: expected a probability, found 1.5"),
        (lambda: Maze(shut=math.nan), "shut: expected a probability, found nan"),
        (lambda: Maze(before=-1), "before: expected at least 0, found -1"),
        (lambda: Maze(sight=-2.0), "sight: expected at least 0, found -2"),
        (lambda: Maze(sight=math.nan), "sight: expected at least 0, found nan"),
        (lambda: Maze(brightness=0.0), "brightness: expected a number above 0"),
        (lambda: Maze(step_limit=math.inf), "step_limit: expected a number above 0"),
        (lambda: WORLD.trajectories(6, 2, generator()), "count: expected a multiple of 4"),
        (lambda: WORLD.trajectories(0, 2, generator()), "count: expected at least 1, found 0"),
        (lambda: WORLD.trajectories(4, 0, generator()), "steps: expected at least 1, found 0"),
        (lambda: WORLD.episodes(WORLD.tasks(2, generator()), "push"), "generator: expected one"),
        (lambda: WORLD.episodes(WORLD.tasks(2, generator()), "bounce"), "collisions: expected one of"),
    ],
)
def test_what_describes_no_maze_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
