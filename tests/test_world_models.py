"""What is said of world models, against models that are known: one knows all walls, one none, one lets walls leak."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from conftest import generator, values
from torch import nn

from jepa.evaluate.acting import Acting
from jepa.evaluate.inference import Operations
from jepa.evaluate.known import known
from jepa.evaluate.operations import operations
from jepa.evaluate.planning import BATCH, Oracle, batches, level_of, pixel, planning, scored, tree_settings
from jepa.evaluate.world_models import HORIZONS, code, leaks, unrolling
from jepa.keypoints import UNIT
from jepa.latents.finite import NoLatent
from jepa.model import JEPA
from jepa.planning.control import Log
from jepa.planning.costs import Distance
from jepa.static import separate
from jepa.streams import generator_for
from jepa.worlds.rooms import Rooms
from jepa.worlds.rooms.layouts import FREE, SIDE, two_rooms
from jepa.worlds.rooms.motion import obstacles, touches, walk
from jepa.worlds.rooms.tasks import Tasks

MIDDLE = 32.0  # of a picture, in units


def centers(size):
    """Return the centers of a picture's pixels, in units."""
    return (torch.arange(size) + 0.5) * SIDE / size - 0.5


def walls_in(pictures):
    """Return wall and door [B] of pictures [B, 2, S, S] of two rooms; exact where a pixel is a unit."""
    x = centers(pictures.shape[-1])
    inner = ((x > FREE[0] + 0.6) & (x < FREE[1] - 0.6)).nonzero()[:, 0]
    covered = pictures[:, 1][:, inner][:, :, inner]
    across = covered.sum(1)
    wall = (across * x[inner]).sum(1) / across.sum(1)
    free = covered.sum(2).amax(1, keepdim=True) - covered.sum(2)
    return wall, (free * x[inner]).sum(1) / free.sum(1)


class Located(nn.Module):
    """The encoder that says where the dot is, and as much as it is told of where the wall is."""

    outputs = 2

    def __init__(self, size, leak=0.0):
        super().__init__()
        self.unit, self.leak = SIDE / size * UNIT, leak

    def forward(self, x):
        """Return s [B, 2] of pictures [B, 2, S, S]."""
        dots, places = x[:, 0], centers(x.shape[-1])
        position = torch.stack([(dots.sum(axis) * places).sum(1) for axis in (1, 2)], 1) / dots.sum((1, 2)).unsqueeze(1)
        if self.leak:
            position = position + self.leak * (walls_in(x)[0] - MIDDLE).unsqueeze(1)
        return (position - MIDDLE) / self.unit


class Free(nn.Module):
    """A step that knows of no wall."""

    def __init__(self, unit=UNIT):
        super().__init__()
        self.unit = unit

    def forward(self, s, a, z):
        """Return s̃ [B, K, 2]."""
        return s + a / self.unit


class Knowing(nn.Module):
    """A step that reads all walls off the static part, where a pixel is a unit, and moves as the world does."""

    def bind(self, static):
        """Return the step of the layouts seen in static [G, 2, S, S]."""
        layouts = two_rooms(*walls_in(static))
        return Told(layouts)


class Told:
    """The world's own step in layouts."""

    def __init__(self, layouts):
        self.layouts = layouts

    def __call__(self, s, a, z):
        """Return s̃ [B, K, 2] of B trajectories, of which as many in a row share a layout."""
        return Oracle(self.layouts.repeat(len(s) // len(self.layouts.bounds)), 1.0, MIDDLE)(s, a, z)

    def rows(self, index):
        """Return the step of some trajectories."""
        return Told(self.layouts.rows(index))


def subject_of(predictor=None, leak=0.0, tasks=30, seed=0, samples=48, probe=64, **options):
    """Return a subject whose code is where the dot is."""
    world = Rooms(**{"size": 65, "group": 4} | options)
    encoder = Located(world.size, leak)
    model = JEPA(encoder, encoder, predictor or Free(encoder.unit), NoLatent())
    held_out = world.tasks(tasks, generator(8))

    def stream(purpose):
        return generator_for("purpose", seed, purpose)

    return Acting(model, world, held_out, 1.0, stream, None, seed, samples, probe)


@cache
def shared(kind):
    """Return a subject that several tests look at."""
    return subject_of(kind())


# -- what a code holds -------------------------------------------------------------------------------------------------


def test_walls_are_read_off_pictures_exactly():
    world = Rooms(size=65)
    layouts = world.layouts(20, generator(2))
    static = world.draw(layouts, torch.full((20, 1, 2), 8.0))[:, 0]
    torch.testing.assert_close(torch.stack(walls_in(static), 1), layouts.doors[:, 0], rtol=0, atol=1e-3)


def test_code_that_is_the_position_is_read_as_such():
    found = values(code(shared(Free), layouts=32))
    assert found["position_rmse"] < 0.1 and found["code_driven"] > 0.5 and 0.05 < found["code_within"] < 1
    s = shared(Free).s
    assert found["code_spread"] == pytest.approx(float(s.flatten(0, 1).var(0, correction=0).mean().sqrt()), rel=1e-4)


def test_walls_that_leak_into_the_code_are_found_and_no_others():
    options = {"size": 33, "subtract": False, "probe": 512, "samples": 16}
    clean, little, much = (values(code(subject_of(leak=leak, **options))) for leak in (0.0, 0.3, 0.6))
    assert max(abs(clean[name]) for name in ("wall_r2", "door_r2")) <= 0.01
    # the best guess of the wall from 0.3 of it beside a position that may be anywhere is not much better than none
    assert little["wall_r2"] > 0.05 and much["wall_r2"] > 0.15
    assert max(abs(found["door_r2"]) for found in (little, much)) <= 0.01  # it is the wall that leaks


def test_codes_are_asked_at_places_that_know_nothing_of_the_walls(monkeypatch):
    asked, seen = [], Acting.seen
    monkeypatch.setattr(Acting, "seen", lambda self, *given: asked.append(given) or seen(self, *given))
    subject = subject_of(size=17, samples=16)
    code(subject, layouts=1000)
    assert sum(len(positions) for _, positions in asked) == 1000 and len(asked) > 1
    positions = torch.cat([positions for _, positions in asked])
    walls = torch.cat([layouts.doors[:, 0] for layouts, _ in asked])
    assert positions.min() >= FREE[0] and positions.max() <= FREE[1]
    apart = torch.corrcoef(torch.cat([positions.flatten(1), walls], 1).T)[:4, 4:]
    assert apart.abs().max() < 0.12  # of a thousand: four standard errors
    inside = (positions[:, :, 0] - walls[:, :1]).abs() < 1
    assert 0.02 < inside.double().mean() < 0.06  # also within the wall, as often as it is wide


def test_of_walls_that_are_all_the_same_nothing_is_said():
    found = values(code(subject_of(walls="fixed", size=33), layouts=32))
    assert "position_rmse" in found and not {"wall_r2", "door_r2"} & found.keys()


# -- what comes next ---------------------------------------------------------------------------------------------------


def test_true_dynamics_unroll_without_error_and_others_do_not():
    true, free = (values(unrolling(shared(kind))) for kind in (Knowing, Free))
    for step in HORIZONS:
        assert true[f"unroll_rmse_{step}"] < 0.15 and true[f"unroll_median_{step}"] < 0.15
        assert true[f"still_rmse_{step}"] == free[f"still_rmse_{step}"] > 1
    assert free["unroll_rmse_32"] > 1  # through walls
    batch, start = shared(Free).trajectories, shared(Free).half
    moved = batch.factors["position"][start:, 0] - batch.factors["position"][start:, 8]
    assert true["still_rmse_8"] == pytest.approx(float(moved.square().mean().sqrt()), rel=1e-5)


@pytest.mark.parametrize("group", [1, 7, 24, 150])
def test_trajectories_of_any_group_are_unrolled_in_their_own_layouts(group):
    subject = subject_of(Knowing(), group=group, samples=max(56, 2 * group), policy="published")
    assert values(unrolling(subject))["unroll_rmse_32"] < 0.3


def test_one_who_knows_no_wall_walks_through_all_and_one_who_knows_them_through_none():
    free, true = (leaks(shared(kind), walks=150) for kind in (Free, Knowing))
    assert {row.metric: row.value for row in free} == dict.fromkeys(
        ("leak_far", "leak_near", "leak_edge", "door_passed"), 1.0
    )
    assert {row.metric: row.value for row in true} == {
        "leak_far": 0.0, "leak_near": 0.0, "leak_edge": 0.0, "door_passed": 1.0
    }  # fmt: skip
    assert all(row.count == 150 for row in (*free, *true))


def test_walls_that_are_not_everywhere_closed_are_told_from_those_that_are():
    class Soft(Knowing):
        """A step that takes a door to be 1.5 units higher on both sides."""

        def bind(self, static):
            """Return the step in rooms with a higher door."""
            layouts = two_rooms(*walls_in(static))
            solids = layouts.solids.clone()
            solids[:, 0, 3] -= 1.5
            solids[:, 1, 1] += 1.5
            return Told(layouts._replace(solids=solids))

    found = values(leaks(subject_of(Soft()), walks=150))
    assert found["leak_edge"] == 1 and found["leak_far"] == 0 and 0.05 < found["leak_near"] < 0.35


# -- how it acts -------------------------------------------------------------------------------------------------------


def test_oracle_steps_as_the_world_does():
    world = Rooms(size=33)
    layouts = world.layouts(40, generator(3)).repeat(2)
    batch = Rooms(size=33, group=2).trajectories(80, 12, generator(3))
    layouts = two_rooms(batch.factors["wall"][:, 0], batch.factors["door"][:, 0])
    start, actions = batch.factors["position"][:, 0], batch.a
    truth, blocked = walk(layouts, start, actions, "stay", generator())
    step = Oracle(layouts, SIDE / 33, MIDDLE)
    assert blocked.any()
    for t in range(12):
        s, a = step.code(truth[:, t]).unsqueeze(1), actions[:, t].unsqueeze(1)
        found = step(s, torch.cat([a, 0 * a], 1), s[..., :0])
        torch.testing.assert_close(found[:, 0], step.code(truth[:, t + 1]), rtol=0, atol=1e-3)
        torch.testing.assert_close(found[:, 1], s[:, 0], rtol=0, atol=1e-6)
        index = torch.tensor([5, 5, 70])
        torch.testing.assert_close(step.rows(index)(s[index], a[index], s[..., :0])[:, 0], found[index, 0])


def test_true_dynamics_reach_all_goals_and_a_straight_line_does_not():
    subject = subject_of(tasks=20, size=17, samples=16)
    found = values(known(subject, episodes=20, steps=120))
    assert found["oracle_success_eb_jepa"] == found["oracle_success_lewm"] == 1
    assert found["straight_success_eb_jepa"] < 0.6 and found["random_success_eb_jepa"] < 0.4
    assert found["straight_plans"] == found["random_evaluations"] == 0 < found["oracle_evaluations"]
    assert 1 <= found["oracle_plans"] and found["oracle_steps"] < found["straight_steps"]
    limit = subject.world.step_limit
    assert max(found[f"{name}_longest_step"] for name in ("random", "straight", "oracle")) <= limit * (1 + 1e-6)


def test_a_model_of_true_dynamics_plans_as_well_from_pictures():
    found = values(planning(subject_of(Knowing(), tasks=6), episodes=6, steps=90))
    assert found["success_eb_jepa"] == found["success_pldm"] == found["success_lewm"] == 1
    assert found["steps"] < 60 and found["plans"] >= 1 and found["evaluations"] > 100
    blind = values(planning(subject_of(Free(), tasks=6), episodes=6, steps=90))
    assert blind["success_pldm"] < 1


@pytest.mark.parametrize("size", [9, 33, 65])
def test_lengths_of_planners_are_the_same_in_the_world_in_pictures_of_any_size(size):
    search, settings = tree_settings(16, 1.5, 50, 7, size)
    unit, published = SIDE / size * UNIT, SIDE / 33  # units of the world in one of the code, and in a pixel of 33
    lengths = [pixel(size), search.cell, search.tolerance**0.5, settings.deviation]
    lengths += [settings.arrived**0.5, settings.near**0.5]
    found = torch.tensor(lengths) * unit / published
    torch.testing.assert_close(found, torch.tensor([1.0, 1.5, 0.75, 0.6, 0.5, 2.0]))
    assert (search.headings, search.hold, settings.every, settings.steps, settings.plans) == (16, 2, 2, 50, 7)
    step = Oracle(two_rooms(torch.tensor([32.0]), torch.tensor([18.0])), SIDE / size, MIDDLE)
    apart = step.code(torch.tensor([10.0 + published, 10.0])) - step.code(torch.tensor([10.0, 10.0]))
    assert float(apart[0]) == pytest.approx(pixel(size), rel=1e-5)  # in codes of locations


class Charged(Knowing):
    """True dynamics whose binding and evaluations multiply matrices, to no effect."""

    def bind(self, static):
        """Return the step, after a product of 2 · 65 · 65 numbers."""
        static.flatten(1) @ static.new_ones(2 * 65 * 65, 1)
        return ChargedStep(two_rooms(*walls_in(static)))


class ChargedStep(Told):
    """The world's own step in layouts, and a product of 2 · 2 numbers for each state."""

    def __call__(self, s, a, z):
        """Return s̃ [B, K, 2]."""
        return super().__call__(s, a, z) @ torch.eye(2)

    def rows(self, index):
        """Return the step of some trajectories."""
        return ChargedStep(self.layouts.rows(index))


class ChargedCode(Located):
    """The encoder that says where the dot is, after a product of 2 · 3 · 2 numbers."""

    def forward(self, x):
        """Return s [B, 2]."""
        return super().forward(x) @ torch.eye(2, 3) @ torch.eye(3, 2)


def test_operations_of_an_episode_are_those_counted_by_hand_and_those_that_were_done():
    total, tasks = [], Rooms(size=65).tasks(3, generator(8))
    for encoder, predictor in ((Located(65), Knowing()), (ChargedCode(65), Charged())):
        model = JEPA(encoder, encoder, predictor, NoLatent())
        subject = replace(shared(Free), model=model, tasks=tasks)
        spent = operations(model, subject.trajectories.static, subject.trajectories.frames[0])
        with Operations() as counted:
            found = values(planning(subject, episodes=3, steps=12))
        total.append(counted.total)  # with those of drawing pictures, which are the same
    assert spent == (2 * 2 * 2, 2 * 2 * 3 * 2, 2 * 2 * 65 * 65)
    once = found["evaluations"] * spent.evaluation + (12 + 2) * spent.encoding + spent.binding
    assert found["teraflops"] == pytest.approx(1e-12 * once, rel=1e-9)
    measuring = spent.evaluation + 2 * spent.encoding + 2 * spent.binding
    assert total[1] - total[0] == pytest.approx(3 * once + measuring, rel=1e-6)


def test_the_straight_line_that_stays_where_it_is_blocked_arrives_exactly_where_no_wall_is_in_the_way():
    subject = subject_of(tasks=30, size=17, samples=8)
    tasks = subject.some_tasks(30)
    free = ~touches(obstacles(tasks.layouts), tasks.start, tasks.goal).any(1)
    pushed, stayed = (values(known(subject, episodes=30, steps=34, collisions=rule)) for rule in ("push", "stay"))
    rows = [name.removeprefix("straight_stay_") for name in pushed if name.startswith("straight_stay_")]
    assert rows and all(pushed[f"straight_stay_{row}"] == stayed[f"straight_{row}"] for row in rows)
    for rule in ("eb_jepa", "pldm"):  # 34 steps are longer than the rooms' diagonal
        assert pushed[f"straight_stay_success_{rule}"] == pytest.approx(float(free.double().mean()))
    assert 0 < pushed["straight_stay_success_pldm"] < pushed["straight_success_pldm"] < 1  # which creeps to the door
    assert pushed["straight_stay_plans"] == pushed["straight_stay_evaluations"] == 0
    assert {name: pushed[name] for name in pushed if name.startswith("straight_stay_")} == {
        name: stayed[name] for name in stayed if name.startswith("straight_stay_")
    }


def made_up():
    """Return tasks, positions and what was done in three episodes of four steps."""
    layouts = two_rooms(torch.full((3,), 32.0), torch.full((3,), 18.0))
    start, goal = torch.tensor([[10.0, 18.0]]).repeat(3, 1), torch.tensor([[50.0, 18.0]]).repeat(3, 1)
    way = torch.tensor([
        [10.0, 20.0, 45.4, 49.5, 50.5],  # ends at the goal, within 4.64 units at the third position
        [10.0, 20.0, 49.5, 40.0, 30.0],  # was at the goal
        [10.0, 20.0, 30.0, 40.0, 45.45],  # within 4.64 at the end, but not within 4.5
    ])  # fmt: skip
    positions = torch.stack([way, torch.full_like(way, 18.0)], -1)
    plans, evaluations = torch.tensor([1, 2, 6]), torch.tensor([10, 20, 60])
    log = Log(positions.diff(dim=1) / 10, positions, plans, evaluations, [])
    return log, positions, Tasks(layouts, start, goal)


@pytest.mark.parametrize("split", [False, True])
def test_scores_are_those_counted_by_hand(split):
    log, positions, tasks = made_up()
    parts = [(log, positions, tasks)]
    if split:
        parts = [
            (
                Log(*(part[rows] for part in log[:4]), []),
                positions[rows],
                Tasks(tasks.layouts.rows(rows), tasks.start[rows], tasks.goal[rows]),
            )
            for rows in (slice(0, 1), slice(1, 3))
        ]
    rows = scored(parts, "my_")
    found = {row.metric.removeprefix("my_"): row.value for row in rows}
    assert all(row.metric.startswith("my_") for row in rows)
    assert found == pytest.approx({
        "success_eb_jepa": 1 / 3,  # the first
        "success_pldm": 2 / 3,  # the first and the second
        "success_lewm": 1.0,
        "steps": (3 + 2 + 4) / 3,  # nearer than 4.5, or all
        "plans": 3.0,
        "evaluations": 30.0,
        "longest_step": 2.95,
    }, rel=1e-5)  # fmt: skip
    assert [row.count for row in rows[:3]] == [3] * 3


def test_tasks_that_begin_solved_are_refused():
    log, positions, tasks = made_up()
    solved = tasks._replace(start=tasks.goal - 1)
    with pytest.raises(ValueError, match="^tasks: expected none that begins solved, found 3"):
        scored([(log, positions, solved)], "")


def test_tasks_are_served_in_order_a_batch_at_a_time():
    tasks = Rooms(size=17).tasks(2 * BATCH + 3, generator())
    parts = batches(tasks)
    assert [len(part.start) for part in parts] == [BATCH, BATCH, 3]
    for name in ("start", "goal"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(tasks, name))
    assert torch.equal(torch.cat([part.layouts.doors for part in parts]), tasks.layouts.doors)


def test_seeds_have_tasks_of_their_own():
    starts = [subject_of(tasks=30, seed=seed, samples=8).some_tasks(10).start for seed in range(4)]
    every = torch.cat(starts[:3])
    assert len(every.unique(dim=0)) == 30 and torch.equal(starts[3], starts[0])
    with pytest.raises(ValueError, match="^measure.planning.episodes: expected at most 30, .* found 31"):
        shared(Free).some_tasks(31)


def test_level_of_some_episodes_is_that_of_their_steps_and_goals():
    subject = subject_of(samples=8)
    tasks = subject.some_tasks(5)
    step, index = Oracle(tasks.layouts, 1.0, MIDDLE), torch.tensor([4, 0, 0])
    goal = step.code(tasks.goal)
    level = level_of(step, Distance(goal), 7, 2.0)
    some = level.rows(index).rows(torch.tensor([0, 2]))
    s, a = step.code(tasks.start).unsqueeze(1), torch.ones(5, 1, 2)
    assert level.horizon == some.horizon == 7 and some.actions == level.actions
    moved = level.step(s, a, s[..., :0])
    chosen = torch.tensor([4, 0])
    torch.testing.assert_close(some.step(s[chosen], a[chosen], s[..., :0]), moved[chosen])
    cost = level.cost(moved.unsqueeze(2), a.unsqueeze(2))
    torch.testing.assert_close(some.cost(moved[chosen].unsqueeze(2), a[chosen].unsqueeze(2)), cost[chosen])
    torch.testing.assert_close(cost[:, 0], (moved[:, 0] - goal).square().sum(-1))


@pytest.mark.parametrize("subtract", [True, False])
def test_pictures_are_encoded_as_in_training_whether_the_static_part_is_subtracted_or_not(subtract):
    subject = subject_of(size=33, subtract=subtract, samples=8)
    tasks = subject.some_tasks(6)
    pictures = subject.world.draw(tasks.layouts, torch.stack([tasks.start, tasks.goal], 1))
    frames, static = subject.seen(tasks.layouts, torch.stack([tasks.start, tasks.goal], 1))
    assert torch.equal(static, separate(pictures)[0])
    assert torch.equal(frames, pictures - static.unsqueeze(1) if subtract else pictures)
    encode = subject.percept(static)
    for t in range(2):
        torch.testing.assert_close(encode(pictures[:, t]), subject.model.representation(frames[:, t]))


def test_probe_learns_in_other_layouts_than_it_is_tested_in():
    subject = shared(Free)
    wall, half = subject.trajectories.factors["wall"][:, 0], subject.half
    assert half % subject.world.group == 0 and 0 < half < len(wall)
    assert not {*wall[:half].tolist()} & {*wall[half:].tolist()}
    assert subject.s.shape == (48, 33, 2)
