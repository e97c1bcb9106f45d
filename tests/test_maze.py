"""The world maze: trajectories, tasks drawn and stored, gates that a map shows open, and whoever acts among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import generator
from scipy import stats

from jepa.data import load, write
from jepa.runs.config import Part
from jepa.runs.data import made_by
from jepa.worlds.rooms import Maze
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.grid import mapped, neighbors
from jepa.worlds.rooms.maze_tasks import misleading
from jepa.worlds.rooms.motion import touches
from jepa.worlds.rooms.reach import reachable

WORLD = Maze(group=4)


def stored(world, count, seed, folder):
    """Return integer tasks, and what was read of them after they were written."""
    arrays = world.integers(count, np.random.RandomState(seed))
    write(folder, arrays, world.quanta, {"world": {"name": "maze"}})
    return arrays, load(folder)


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
    assert float((tasks.start - tasks.goal).norm(dim=-1).min()) >= 5 - 1e-4
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
