"""The world rooms: trajectories in groups, what is static, policies, tasks, stored sets, success and episodes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import generator
from scipy import stats

from jepa.data import load, write
from jepa.static import moving, separate
from jepa.worlds.base import Acting
from jepa.worlds.rooms import Rooms
from jepa.worlds.rooms.layouts import random_two_rooms, two_rooms
from jepa.worlds.rooms.motion import obstacles, walk, within
from jepa.worlds.rooms.pictures import draw_walls
from jepa.worlds.rooms.policies import mixed, published, truncated_normal, uniform, von_mises
from jepa.worlds.rooms.success import PIXELS, RULES, solved_at_start
from jepa.worlds.rooms.tasks import Tasks

SMALL = Rooms(size=17, group=3)


@pytest.mark.parametrize("policy", ["mixed", "published"])
@pytest.mark.parametrize("view", ["channels", "gray"])
def test_trajectories_share_a_layout_by_groups(policy, view):
    world = Rooms(size=17, group=3, policy=policy, view=view)
    one, two, other = (world.trajectories(12, 5, generator(seed)) for seed in (0, 0, 1))
    channels = {"channels": 2, "gray": 1}[view]
    assert one.frames.shape == (12, 6, channels, 17, 17) and one.static.shape == (4, channels, 17, 17)
    assert world.static == one.static.shape[1:] and world.widths == (world.static, 2, world.static)
    assert one.a.shape == (12, 5, 2) and one.frames.dtype == one.static.dtype == one.a.dtype == torch.float32
    shapes = {"position": (12, 6, 2), "wall": (12, 1), "door": (12, 1), "blocked": (12, 5)}
    assert {name: tuple(value.shape) for name, value in one.factors.items()} == shapes
    assert world.factor_labels.keys() == shapes.keys()
    for name in ("wall", "door"):
        values = one.factors[name].view(4, 3)
        assert torch.equal(values, values[:, :1].expand(4, 3)) and len(values.unique()) == 4
    assert torch.equal(one.frames, two.frames) and torch.equal(one.a, two.a) and not torch.equal(one.a, other.a)


@pytest.mark.parametrize("collisions", ["stay", "push", "slide"])
def test_factors_are_where_the_dots_are_and_blocked_steps_lead_elsewhere(collisions):
    found = Rooms(size=17, group=3, collisions=collisions).trajectories(60, 20, generator())
    layouts = two_rooms(found.factors["wall"][:, 0], found.factors["door"][:, 0])
    position, blocked = found.factors["position"], found.factors["blocked"].bool()
    assert 0.05 < float(blocked.float().mean()) < 0.6
    taken = position.diff(dim=1)
    gap = 2.0**-9  # by which a dot near a wall may be moved away from it
    torch.testing.assert_close(taken[~blocked], found.a[~blocked], atol=gap, rtol=0)
    moved = (taken - found.a)[blocked].norm(dim=-1)
    assert float((moved > gap).double().mean()) > 0.99
    if collisions == "stay":
        assert not taken[blocked].any()
    assert not any(within(obstacles(layouts), p).any() for p in position.unbind(1))


def test_static_part_has_no_dot_and_what_moves_no_wall():
    split, whole = (Rooms(size=33, subtract=subtract) for subtract in (True, False))
    one, two = (world.trajectories(120, 16, generator()) for world in (split, whole))
    layouts = two_rooms(two.factors["wall"][:, 0], two.factors["door"][:, 0])
    assert torch.equal(whole.draw(layouts, two.factors["position"]), two.frames)
    assert torch.equal(one.static, two.static)
    again = one.frames + one.static.repeat_interleave(6, 0).unsqueeze(1)
    torch.testing.assert_close(again, two.frames, atol=3e-7, rtol=0)
    assert float(one.static[:, 0].max()) < 0.01  # every dot left every pixel
    assert not one.frames[:, :, 1].any()
    torch.testing.assert_close(one.static[:, 1], draw_walls(layouts, 33)[::6])
    gray = Rooms(size=33, view="gray").trajectories(120, 16, generator())
    torch.testing.assert_close(gray.static[:, 0], one.static[:, 1], atol=0.01, rtol=0)
    assert torch.equal(one.factors["position"], gray.factors["position"])  # pictures draw no numbers


@pytest.mark.parametrize("policy", ["mixed", "published"])
@pytest.mark.parametrize("collisions", ["stay", "push", "slide"])
def test_world_works_in_double_precision(policy, collisions):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = Rooms(size=9, group=2, policy=policy, collisions=collisions).trajectories(4, 3, generator())
        episodes = SMALL.episodes(SMALL.tasks(2, generator()), collisions, generator())
        seen = episodes.act(torch.ones(2, 2))
    finally:
        torch.set_default_dtype(before)
    values = [found.frames, found.a, found.static, *found.factors.values(), seen, episodes.positions]
    assert all(value.dtype == torch.float64 for value in values)


def test_pictures_part_into_what_stays_and_what_moves():
    pictures = torch.rand(3, 4, 2, 5, 5, generator=generator())
    static, rest = separate(pictures)
    assert torch.equal(static, pictures.min(1).values) and float(rest.min()) == 0
    assert torch.equal(moving(pictures, static), rest)
    moved = static.clone()
    moved[1, 0, 2, 2] += 0.01
    with pytest.raises(ValueError, match="^pictures: expected none darker than the static part by more than 0.0001"):
        moving(pictures, moved)
    assert moving(pictures, moved, tolerance=0.02).shape == rest.shape
    with pytest.raises(ValueError, match="^static: expected"):
        moving(pictures, static[:2])
    with pytest.raises(ValueError, match="^pictures: expected"):
        separate(pictures[:, 0])


def test_wall_that_moves_is_noticed():
    world = Rooms(size=17)
    positions = torch.tensor([[[10.0, 10.0], [50.0, 50.0]]])
    before, after = (world.draw(two_rooms(torch.tensor([x]), torch.tensor([30.0])), positions) for x in (30.0, 33.0))
    with pytest.raises(ValueError, match="as if the static part had moved"):
        moving(after, separate(before)[0])


def test_mixed_policy():
    layouts = random_two_rooms(4000, generator())
    start, actions = mixed(layouts, 30, 2.45, generator(1))
    assert not within(obstacles(layouts), start, 0.09).any()
    length = actions.double().norm(dim=-1)
    quick = length.amin(1) > 0.79 * 2.45
    assert float(length.max()) <= 2.45 + 1e-5
    assert float(quick.double().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(length[~quick].mean()) == pytest.approx(2.45 / 2, abs=0.01)
    assert float(length[quick].mean()) == pytest.approx(0.9 * 2.45, abs=0.01)
    heading = torch.atan2(actions[..., 1], actions[..., 0]).double()
    turn = torch.remainder(heading.diff(dim=1) + math.pi, 2 * math.pi) - math.pi
    assert stats.kstest(turn.flatten()[::7], stats.norm(0, 0.45).cdf).pvalue > 0.001
    assert stats.kstest(heading[:, 0], stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 0.001
    off = (start - layouts.doors[:, 0]).abs()
    at_door, at_wall = (off <= 6).all(1), off[:, 0] <= 6
    anywhere = uniform(layouts, generator(2))
    chance = float(((anywhere - layouts.doors[:, 0]).abs() <= 6).all(1).double().mean())
    assert float(at_door.double().mean()) == pytest.approx(0.3 + 0.3 * 0.21 + 0.4 * chance, abs=0.04)
    assert float(at_wall.double().mean()) > 0.6


def test_published_policy():
    layouts = random_two_rooms(4000, generator())
    start, actions = published(layouts, 90, generator(1))
    assert actions.shape == (4000, 90, 2) and not within(obstacles(layouts), start, 0.09).any()
    length = actions.double().norm(dim=-1).flatten()
    expected = stats.truncnorm(-2, 2, loc=1, scale=0.4)
    assert 0.2 - 1e-5 <= float(length.min()) and float(length.max()) <= 1.8 + 1e-5
    assert stats.kstest(length[::37], expected.cdf).pvalue > 0.001
    heading = torch.atan2(actions[..., 1], actions[..., 0]).double()
    turn = torch.remainder(heading.diff(dim=1) + math.pi, 2 * math.pi) - math.pi
    assert stats.kstest(turn.flatten()[::37], stats.vonmises(5.0).cdf).pvalue > 0.001
    way = start.unsqueeze(1) + torch.cat([torch.zeros(4000, 1, 2), actions.cumsum(1)], 1)
    off = way - layouts.doors[:, :1]
    at_door = ((off[..., 0].abs() <= 1) & (off[..., 1].abs() <= 4)).any(1)
    inner = ((start > 4.2) & (start < 59.8)).all(1)  # not moved back within the border
    share = float((at_door & inner).double().mean())
    assert 0.1 < share < 0.35 + 0.1  # of the 35 % laid through the door, many begin beyond the border
    positions, _ = walk(layouts, start, actions, "stay")
    room = (positions[..., 0] > layouts.doors[:, :1, 0]).double()
    crossed = float((room.amin(1) != room.amax(1)).double().mean())
    assert 0.1 < crossed < 0.5


def test_walks_through_the_door_meet_a_point_of_it():
    narrow = two_rooms(torch.full((4000,), 32.0), torch.full((4000,), 32.0))
    start, actions = published(narrow, 12, generator(3))  # too short to reach the border from the door
    way = start.unsqueeze(1) + torch.cat([torch.zeros(4000, 1, 2), actions.cumsum(1)], 1) - 32
    at_door = ((way[..., 0].abs() <= 1.0001) & (way[..., 1].abs() <= 4.0001)).any(1)
    crossed = (way[..., 0].amin(1) < -1) & (way[..., 0].amax(1) > 1)
    assert float(at_door.double().mean()) == pytest.approx(0.37, abs=0.04)  # 35 %, and some by chance
    signs = (way[crossed & at_door, -1, 0] > way[crossed & at_door, 0, 0]).double()
    assert float(signs.mean()) == pytest.approx(0.5, abs=0.05)  # either way


def test_numbers_of_the_published_policy_have_their_distributions():
    angles = von_mises(5.0, (20000,), generator()).double()
    assert stats.kstest(angles, stats.vonmises(5.0).cdf).pvalue > 0.001
    numbers = truncated_normal(1.4, 4.0, (20000,), generator()).double()
    assert stats.kstest(numbers, stats.truncnorm(-4 / 1.4, 4 / 1.4, scale=1.4).cdf).pvalue > 0.001
    layouts = random_two_rooms(5000, generator())
    assert not within(obstacles(layouts), uniform(layouts, generator(1)), 0.09).any()


@pytest.mark.parametrize("walls", ["random", "fixed"])
@pytest.mark.parametrize("source", ["torch", "integers"])
def test_tasks_lie_in_opposite_rooms_and_none_begins_solved(walls, source, tmp_path):
    world = Rooms(walls=walls)
    if source == "torch":
        tasks = world.tasks(3000, generator())
    else:
        arrays = world.integers(3000, np.random.RandomState(0))
        assert all(array.dtype == np.int16 for array in arrays.values())
        write(tmp_path / "set", arrays, world.quanta, {"world": {"name": "rooms"}})
        held_out = load(tmp_path / "set")
        assert torch.equal(held_out.x, torch.from_numpy(arrays["x"] / 256).float())
        tasks = world.tasks_of(held_out)
        stored = torch.from_numpy(np.concatenate([arrays["wall"], arrays["door"]], 1) / 256).float()
        assert torch.equal(tasks.layouts.doors[:, 0], stored) and torch.equal(tasks.goal, held_out.y)
    wall, door = tasks.layouts.doors[:, 0].unbind(1)
    start, goal = tasks.start, tasks.goal
    right = start[:, 0] > wall
    assert torch.equal(right, goal[:, 0] < wall) and float(right.double().mean()) == pytest.approx(0.5, abs=0.05)
    for point in (start, goal):
        assert float((point[:, 0] - wall).abs().min()) >= 3.6 - 1e-4
        assert 6.6 - 1e-4 <= float(point.min()) and float(point.max()) <= 57.4 + 1e-4
        assert float(point[:, 1].mean()) == pytest.approx(32, abs=1)
    assert not solved_at_start(start, goal).any()
    assert (len(wall.unique()) == 1) == (walls == "fixed")
    if walls == "random":
        assert 20 <= float(wall.min()) < 20.2 and 53.8 < float(door.max()) <= 54


def test_integers_are_decided_by_their_generator():
    one, two, other = (SMALL.integers(50, np.random.RandomState(seed)) for seed in (0, 0, 1))
    assert one.keys() == SMALL.quanta.keys()
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes() and array.tobytes() != other[name].tobytes()
    first = {name: array[0].tolist() for name, array in SMALL.integers(5, np.random.RandomState(0)).items()}
    assert first == {"x": [3853, 3860], "y": [8931, 9117], "wall": [6319], "door": [7424]}  # on every machine


def test_rules_of_success_from_their_sentences():
    stream = generator()
    goal = 30 + 5 * torch.randn(500, 2, generator=stream)
    positions = 30 + 5 * torch.randn(500, 4, 2, generator=stream)
    solved = {name: rule(positions, goal) for name, rule in RULES.items()}
    for b in range(500):
        gaps = [math.dist(p, goal[b].tolist()) for p in positions[b].tolist()]
        assert bool(solved["eb_jepa"][b]) == (gaps[-1] < 4.5)
        assert bool(solved["pldm"][b]) == (min(gaps) < math.sqrt(2))
        assert bool(solved["lewm"][b]) == (min(gaps) < PIXELS)
    assert all(0.01 < float(value.double().mean()) < 0.99 for value in solved.values())
    with pytest.raises(ValueError, match="^positions, goal: expected"):
        RULES["pldm"](positions, goal[:3])


def test_episodes_are_acted_in():
    tasks = SMALL.tasks(8, generator())
    episodes = SMALL.episodes(tasks, generator=generator(1))
    assert isinstance(episodes, Acting) and episodes.steps == 0 and episodes.blocked.shape == (8, 0)
    assert torch.equal(episodes.goal, SMALL.draw(tasks.layouts, tasks.goal.unsqueeze(1))[:, 0])
    first = episodes.observe()
    assert torch.equal(first, SMALL.draw(tasks.layouts, tasks.start.unsqueeze(1))[:, 0])
    a = torch.tensor([[0.5, 0.0], [3e38, 3e38], [0.0, 0.0], [-1e-30, 0.0], [0.0, 99.0], [3.0, 4.0], [1.0, 1.0], [2, 2]])
    found = episodes.act(a)
    step = episodes.positions[:, 1] - tasks.start
    assert found.shape == first.shape and not torch.equal(found, first) and episodes.steps == 1
    unhit = ~episodes.blocked[:, 0]
    assert unhit.sum() >= 6
    expected = a.double() * (2.45 / a.double().norm(dim=-1, keepdim=True)).clamp(max=1).nan_to_num()
    torch.testing.assert_close(step[unhit].double(), expected[unhit], atol=1e-5, rtol=0)
    for wrong in (torch.full((8, 2), math.nan), torch.zeros(7, 2)):
        with pytest.raises(ValueError, match="^a: expected"):
            episodes.act(wrong)
    assert episodes.steps == 1


def test_dots_that_are_led_through_the_door_solve_their_tasks():
    world = Rooms(size=9)
    tasks = world.tasks(64, generator())
    episodes = world.episodes(tasks, generator=generator(1))
    door = tasks.layouts.doors[:, 0]
    passed, far = torch.zeros(64, 1, dtype=torch.bool), torch.sign(tasks.goal[:, :1] - door[:, :1])
    for _ in range(90):
        p = episodes.positions[:, -1]
        passed = passed | ((p[:, :1] - door[:, :1]) * far > 1.5)
        lined = ((p[:, 1:] - door[:, 1:]).abs() < 2) | ((p[:, :1] - door[:, :1]).abs() > 6)
        mouth = torch.cat([door[:, :1] - 4 * far, door[:, 1:]], 1)
        through = torch.cat([door[:, :1] + 4 * far, door[:, 1:]], 1)
        near = (p - mouth).norm(dim=-1, keepdim=True) < 3
        target = torch.where(
            passed, tasks.goal, torch.where(near | (lined & ((p - mouth)[:, :1] * far > 0)), through, mouth)
        )
        episodes.act(target - p)
    solved = {name: float(rule(episodes.positions, tasks.goal).double().mean()) for name, rule in RULES.items()}
    assert all(share > 0.9 for share in solved.values()), solved


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rooms(walls="none"), "walls: expected one of random, fixed, found 'none'"),
        (lambda: Rooms(view="color"), "view: expected one of channels, gray"),
        (lambda: Rooms(policy="expert"), "policy: expected one of mixed, published"),
        (lambda: Rooms(collisions="pass"), "collisions: expected one of stay, push, slide"),
        (lambda: Rooms(size=0), "size: expected at least 1, found 0"),
        (lambda: Rooms(group=0), "group: expected at least 1, found 0"),
        (lambda: Rooms(brightness=0.0), "brightness: expected a number above 0"),
        (lambda: Rooms(step_limit=math.nan), "step_limit: expected a number above 0"),
        (lambda: SMALL.trajectories(4, 2, generator()), "count: expected a multiple of 3"),
        (lambda: SMALL.trajectories(0, 2, generator()), "count: expected at least 1, found 0"),
        (lambda: SMALL.trajectories(3, 0, generator()), "steps: expected at least 1, found 0"),
        (lambda: SMALL.tasks(0, generator()), "count: expected at least 1, found 0"),
        (lambda: SMALL.integers(-1, np.random.RandomState(0)), "count: expected at least 1, found -1"),
        (lambda: SMALL.episodes(SMALL.tasks(2, generator())), "generator: expected one"),
        (lambda: SMALL.episodes(SMALL.tasks(2, generator()), "bounce"), "collisions: expected one of"),
    ],
)
def test_what_describes_no_world_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_tasks_that_cannot_be_done_are_refused():
    layouts = two_rooms(torch.tensor([32.0]), torch.tensor([18.0]))
    left, right, wall = torch.tensor([[10.0, 10.0]]), torch.tensor([[50.0, 10.0]]), torch.tensor([[32.0, 40.0]])
    gate = torch.tensor([[[31.0, 14.0, 33.0, 22.0]]])
    shut = layouts._replace(solids=torch.cat([layouts.solids, gate], 1))
    for tasks, message in (
        (Tasks(layouts, wall, right), "start: expected points outside of walls"),
        (Tasks(layouts, left, wall), "goal: expected points outside of walls"),
        (Tasks(layouts, left, torch.tensor([[70.0, 10.0]])), "goal: expected points outside of walls"),
        (Tasks(layouts, left, right[:0]), "goal: expected"),
        (Tasks(layouts, left * math.nan, right), "start: expected finite numbers"),
        (Tasks(shut, left, right), "goal: expected a way from every start to its goal, found none from task 0"),
        (Tasks(layouts.rows(slice(0, 0)), left[:0], right[:0]), "count: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            SMALL.episodes(tasks, "stay")
    SMALL.episodes(Tasks(shut, left, left + 3), "stay")
