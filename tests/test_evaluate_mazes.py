"""What is measured in mazes, on a hierarchy made by hand that knows its map, and on tiny ones that know nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import generator, values
from known_mazes import codes, known

from jepa.abstract import OF, Abstract
from jepa.encoders import Identity
from jepa.evaluate import late as late_module
from jepa.evaluate import reconfigured as reconfigured_module
from jepa.evaluate.following import Done, Numbers
from jepa.evaluate.hierarchical import (
    PAIRS,
    SEES,
    Arrived,
    Spent,
    arrived,
    chosen,
    costs,
    differences,
    driven,
    growth,
    hierarchical,
    kinds_of,
    operations,
    rows_of,
    seen,
)
from jepa.evaluate.late import WAYS, Looking, late, live, lived, looking
from jepa.evaluate.mazes import Planning
from jepa.evaluate.methods import METHODS, WITHOUT, method
from jepa.evaluate.oracles import CLEARANCE, aside
from jepa.evaluate.proposals import SLACK, WITHIN, Places, impossible, inside, proposals
from jepa.evaluate.reconfigured import AFTER, CLEAR, drawn, judged, on_the_way, reconfigured
from jepa.evaluate.scenes import PIXEL
from jepa.hierarchy import HJEPA, Window
from jepa.keypoints import Keypoints
from jepa.latents.finite import NoLatent
from jepa.latents.stochastic import Gaussian
from jepa.maps import MapReader
from jepa.model import JEPA
from jepa.planning.hierarchical import Memory, Rounds
from jepa.streams import generator_for
from jepa.worlds.rooms import Maze, Rooms
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.grid import built, mapped
from jepa.worlds.rooms.maze_tasks import misleading
from jepa.worlds.rooms.tasks import Tasks

FEW = {"steps": 5, "doubt": -100.0, "budget": 400, "cem_samples": 8, "cem_rounds": 1, "cem_horizon": 8}
LEARNED = [name for name in METHODS + WITHOUT if name != "oracle"]


def untrained(of="outcome"):
    """Return a tiny hierarchy that is not trained, with six tasks in mazes of 2 × 2 rooms."""
    torch.manual_seed(0)
    world = Maze(rooms=2)
    places = Keypoints(world.static, channels=2, symmetric=True)
    first = JEPA(places, places, MapReader(2, 2, static=world.static, channels=(2, 2), hidden=(4,)), NoLatent())
    same, tiny = Identity(2), {"channels": (2, 2), "strides": (1, 2), "hidden": (4,)}
    second = JEPA(same, same, Abstract(2, 2, 16, 2, static=world.static, of=of, **tiny), Gaussian(2))
    model = HJEPA([first, second], [Window(1, 1), Window(1, 8)]).eval()
    return Planning(model, world, world.tasks(6, generator()), 1.0, lambda name: generator_for("purpose", 0, name))


@pytest.fixture(scope="module")
def subject():
    """Return a hierarchy made by hand, with tasks in mazes of 3 × 3 rooms, some of them misleading."""
    return known(tasks=12, seed=1)


@pytest.fixture(scope="module")
def found(subject):
    """Return what came of planners on maps in which gates look open, by name."""
    names = ("greedy", "experience", "iterated", "unweighted", "oracle", "straight")
    return {name: driven(subject, subject.tasks, name, chosen(subject), "map") for name in names}


class Blind:
    """Episodes that are seen in pictures, and, once they are shut, no other way."""

    def __init__(self, acting):
        self._acting, self.done, self.shut = acting, [], False

    def __getattr__(self, name):
        if self.shut and name in ("positions", "blocked", "tasks"):
            raise AssertionError(f"expected pictures to be enough, but {name} was asked for")
        return getattr(self._acting, name)

    def act(self, a):
        self.done.append(a)
        return self._acting.act(a)


def corridor(*kinds):
    """Return a row of rooms, with doors in the middle: "open", "gate" or "wall"."""
    kinds = np.array([kinds])
    opened, gates = (torch.from_numpy(kinds == kind) for kind in ("open", "gate"))
    return built(1, kinds.shape[1] + 1, torch.full(kinds.shape, 0.5), opened, gates)


def outcome(solved, evaluations, levels=(1, 2), doubts=()):
    """Return what came of episodes."""
    solved, evaluations = torch.tensor(solved), torch.tensor(evaluations)
    none = torch.zeros(len(solved), dtype=torch.long)
    return Arrived(solved, none + 7, Done(none + 2, evaluations, none, None, levels, dict(doubts)))


# -- what planners are told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sees", SEES)
@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("of", ["untrained", "known"])
def test_learned_planners_are_told_pictures_alone(of, name, sees):
    subject = untrained() if of == "untrained" else known(2, 3)
    actions = []
    for shut in (False, True):
        acting = Blind(subject.world.episodes(subject.tasks))
        told = replace(seen(subject, acting, sees), world=SimpleNamespace(resolution=1))
        acting.shut = shut
        method(name)(told, Numbers(**FEW), generator())
        actions.append(torch.stack(acting.done))
    assert torch.equal(*actions)


def test_the_oracle_is_told_more():
    subject = known(2, 3)
    acting = Blind(subject.world.episodes(subject.tasks))
    told = seen(subject, acting)
    method("oracle")(told, Numbers(**FEW), generator())
    acting.shut = True
    with pytest.raises(AssertionError, match="tasks was asked for"):
        method("oracle")(told, Numbers(**FEW), generator())


@pytest.mark.parametrize("name", WAYS)
def test_late_ways_are_told_pictures_alone(name):
    subject = known(3, 4)
    world, actions = replace(subject.world, sight=5.0), []
    for shut in (False, True):
        acting = Blind(world.episodes(subject.tasks))
        of, sight = looking(subject, world, acting, name == "late")
        of = replace(of, world=SimpleNamespace(resolution=1))
        acting.shut = shut
        lived(of, sight, Numbers(**FEW | {"steps": 10, "doubt": 0.0, "budget": 10**9}), generator(), name)
        actions.append(torch.stack(acting.done))
    assert torch.equal(*actions)


@pytest.mark.parametrize("name", ["avoid", "through", "both", "late"])
def test_tasks_that_are_set_are_told_pictures_alone(name, monkeypatch):
    subject, actions, control = known(3, 4), [], reconfigured_module.control
    what = drawn(subject, name, 2)
    for shut in (False, True):

        def blind(acting, *rest, shut=shut):
            hidden = Blind(acting)
            hidden.shut = shut
            log = control(hidden, *rest)
            actions.append(torch.stack(hidden.done))
            return log

        monkeypatch.setattr(reconfigured_module, "control", blind)
        reconfigured_module.followed(subject, name, what, chosen(subject, {"steps": 6}), True)
    assert torch.equal(*actions)


def test_lowest_level_sees_the_gates_and_upper_levels_see_them_where_they_are_told(subject):
    acting = subject.world.episodes(subject.tasks)
    told, untold = (seen(subject, acting, sees) for sees in SEES)
    walls, layouts = subject.world.walls, subject.tasks.layouts
    assert torch.equal(told.percept, untold.percept) and torch.equal(told.map, told.percept)
    assert torch.equal(told.percept[:, 1], walls(layouts)) and torch.equal(untold.map[:, 1], walls(mapped(layouts)))
    assert float(untold.map[:, 0].max()) == 0 and torch.equal(told.goal, untold.goal)
    s = codes(subject.world, subject.world.uniform(layouts.repeat(8), generator())).view(-1, 8, 2)
    a = torch.randn(12, 8, 2, generator=generator(1))
    a = a / a.norm(dim=-1, keepdim=True).clamp(min=1)
    assert torch.equal(told.lowest.step(s, a, s), untold.lowest.step(s, a, s))
    doors = layouts.doors.shape[1]
    sides = torch.where(torch.arange(doors).unsqueeze(1) < doors // 2, torch.tensor([2.0, 0]), torch.tensor([0, 2.0]))
    before, after = (codes(subject.world, layouts.doors + side) for side in (-sides, sides))
    free = [of.upper(2, 0.0).passage(before, after, after).isfinite() for of in (told, untold)]
    assert torch.equal(free[0], layouts.open) and torch.equal(free[1], layouts.open | layouts.gates)


# -- what is measured --------------------------------------------------------------------------------------------------


def test_thinking_between_levels_finds_the_way_where_the_map_misleads(found, subject):
    wrong = misleading(subject.tasks)
    rates = {name: float(of.solved[wrong].double().mean()) for name, of in found.items()}
    assert 3 <= int(wrong.sum()) <= 9
    assert rates["iterated"] == rates["oracle"] == 1 and found["iterated"].done.plans.double().mean() < 1.5
    assert rates["greedy"] < rates["experience"] < 1 and rates["straight"] < 0.5
    assert all(bool(found[name].solved[~wrong].all()) for name in ("greedy", "iterated", "oracle"))


@pytest.mark.parametrize("of", ["untrained", "known"])
def test_unweighted_is_greedy_to_the_bit(of, found, subject):
    if of == "untrained":
        subject = untrained()
        found = {name: driven(subject, subject.tasks, name, chosen(subject, FEW), "map") for name in PAIRS[2]}
    one, other = (found[name].done for name in PAIRS[2])
    assert PAIRS[2] == ("unweighted", "greedy")
    for name in ("actions", "states", "plans", "evaluations", "failed"):
        assert torch.equal(getattr(one.log, name), getattr(other.log, name))
    kinds, spent = kinds_of(subject.world, subject.tasks), costs(subject, subject.tasks)
    gained = values(differences("d", *(found[name] for name in PAIRS[2]), kinds, spent))
    ratios = {name for name in gained if name.endswith("_ratio")}
    assert {gained[name] for name in ratios} == {1.0} and {gained[name] for name in gained if name not in ratios} == {0}


def test_rows_are_of_all_tasks_and_of_parts_of_them(subject):
    numbers, names = {"steps": 40}, ("greedy", "iterated", "flat_servo", "random")
    rows = hierarchical(subject, 12, "map", names, numbers=numbers)
    found, counts = values(rows), {row.metric: row.count for row in rows}
    tasks = subject.some_tasks(12)
    wrong, solved = misleading(tasks), {}
    assert found["misleading"] == float(wrong.double().mean()) and counts["misleading"] == 12
    for name in names:
        solved[name] = driven(subject, tasks, name, chosen(subject, numbers), "map").solved.double()
        assert found[f"{name}_success"] == float(solved[name].mean()) and counts[f"{name}_success"] == 12
        for parts in (("misleading", "clean"), ("near", "middle", "far")):
            sizes = [counts[f"{name}_success_{part}"] for part in parts]
            rates = [found[f"{name}_success_{part}"] for part in parts]
            assert sum(sizes) == 12 and np.dot(sizes, rates) / 12 == pytest.approx(found[f"{name}_success"])
    for one, other in (("iterated", "greedy"), ("greedy", "flat_servo"), ("iterated", "flat_servo")):
        gain = solved[one] - solved[other]
        assert found[f"{one}_minus_{other}"] == float(gain.mean())
        for kind, some in (("misleading", wrong), ("clean", ~wrong)):
            assert found[f"{one}_minus_{other}_{kind}"] == pytest.approx(float(gain[some].mean()))
    assert found["random_plans"] == 0 and not {"random_evaluations", "random_growth", "random_gigaflops"} & set(found)
    pairs = {name.split("_minus_")[0] for name in found if "_minus_" in name}
    assert pairs == {"iterated", "greedy"} and "greedy_over_oracle" not in found


def test_hand_made_episodes_give_the_rows_that_can_be_counted():
    one = outcome([True, True, False, True], [[10, 1], [20, 2], [30, 3], [40, 4]], doubts={2: 2.0})
    other = outcome([True, False, True, False], [[5, 5], [5, 5], [5, 5], [5, 5]], (1, 1), {0: 4})
    length = torch.tensor([1.0, 2.0, 3.0, 4.0])
    kinds = {"misleading": torch.tensor([False, True, True, False]), "clean": torch.tensor([True, False, False, True])}
    kinds["length"] = length
    spent = Spent({1: 2e6, 2: 4e6}, {0: 0.5e6, 2: 1e6})
    rows = rows_of("p", one, kinds, spent)
    found = values(rows)
    assert found["p_success"] == 0.75 and found["p_success_misleading"] == 0.5 and found["p_success_clean"] == 1
    assert found["p_steps"] == 7 and found["p_plans"] == 2 and found["p_evaluations"] == 27.5
    assert found["p_evaluations_1"] == 25 and found["p_evaluations_2"] == 2.5
    assert found["p_evaluations_per_success"] == pytest.approx(27.5 / 0.75) and found["p_growth"] == pytest.approx(1)
    assert found["p_gigaflops"] == pytest.approx((25 * 2e6 + 2.5 * 4e6 + 2 * 1e6) / 1e9)
    assert operations(other.done, spent).tolist() == [2e6 * 10 + 0.5e6 * 4] * 4
    gained = values(differences("d", one, other, kinds, spent))
    assert gained["d"] == 0.25 and gained["d_misleading"] == 0 and gained["d_clean"] == 0.5
    assert gained["d_evaluation_ratio"] == pytest.approx(2.75) and gained["d_growth"] == pytest.approx(1)
    assert gained["d_compute_ratio"] == pytest.approx(62 / 22)
    never = values(rows_of("p", outcome([False] * 4, [[1, 1]] * 4), kinds, None))
    assert never["p_evaluations_per_success"] == 2 / (0.5 / 4) and "p_gigaflops" not in never


def test_growth_is_the_slope_of_least_squares():
    draw = generator()
    length, evaluations = 5 + 40 * torch.rand(50, generator=draw), (1e4 * torch.rand(50, generator=draw)).double()
    evaluations[:3] = 0  # count as one
    slope = np.polyfit(length.double().log().numpy(), evaluations.clamp(min=1).log().numpy(), 1)[0]
    assert growth(evaluations, length) == pytest.approx(slope, rel=1e-9)
    assert growth(3 * length.double() ** 2.5, length) == pytest.approx(2.5)


def test_operations_are_those_of_steps_and_heads():
    subject = known(tasks=4)
    spent = costs(subject, subject.tasks)
    # products of pairs with 2 × 2 matrices are 8 operations: one of the step, two of level 2's; its head's is 2
    assert spent == Spent({1: 8, 2: 2 * 8}, {0: 2, 2: 2})
    found = {
        name: driven(subject, subject.tasks, name, chosen(subject), "percept") for name in ("greedy", "flat_servo")
    }
    kinds = kinds_of(subject.world, subject.tasks)
    gained = values(differences("d", found["greedy"], found["flat_servo"], kinds, spent))
    one, other = (of.done.evaluations.double().mean(0) for of in found.values())
    doubts = found["greedy"].done.doubts
    assert set(doubts) == {2} and 0 < doubts[2] < one[1] and not found["flat_servo"].done.doubts
    paid = float(8 * one[0] + 16 * one[1] + 2 * doubts[2])
    assert gained["d_compute_ratio"] == pytest.approx(paid / float(8 * other.sum()))
    asked = driven(subject, subject.tasks, "flat_servo", chosen(subject, {"flat_doubt": 0.0}), "percept").done
    used = asked.evaluations.double()
    assert set(asked.doubts) == {0} and 0 < asked.doubts[0] < float(used[:, 1].mean()) / 3  # of three held steps one
    assert torch.equal(operations(asked, spent), 8 * used.sum(1) + 2 * asked.doubts[0])


def test_two_rooms_are_judged_by_their_own_rule_and_parted_by_length():
    world = Rooms()
    tasks = world.tasks(30, generator())
    kinds = kinds_of(world, tasks)
    assert set(kinds) == {"near", "middle", "far", "length"}
    assert (kinds["near"].long() + kinds["middle"].long() + kinds["far"].long() == 1).all()
    assert float(kinds["length"][kinds["near"]].max()) <= float(kinds["length"][kinds["far"]].min())
    assert (kinds["length"] >= (tasks.start - tasks.goal).norm(dim=1) - 1e-3).all()
    goal = torch.tensor([[30.0, 30.0]] * 3)
    positions = torch.tensor([[[0.0, 30.0], [30, 30]], [[30, 30], [0, 30]], [[30, 30], [30, 34.4]]])
    done = outcome([True], [[1]]).done
    last, any_ = (arrived(of, positions, goal, done) for of in (world, Maze()))
    assert last.solved.tolist() == [True, False, True] and any_.solved.tolist() == [True, True, True]
    assert last.first.tolist() == any_.first.tolist() == [1, 0, 0]
    steps = [chosen(SimpleNamespace(world=of)).steps for of in (world, Maze(rooms=5), Maze(rooms=4))]
    assert steps == [200, 160, 160]


# -- late instantiation ------------------------------------------------------------------------------------------------


def at_gate(keep=False, sight=5.0):
    """Return what is given of an episode that begins 7.5 units from a shut gate, and what is seen of it."""
    subject, layouts = known(3, 1, sight=sight), corridor("open", "gate")
    tasks = Tasks(layouts, torch.tensor([[10.0, 4.0]]), torch.tensor([[2.0, 4.0]]))
    return looking(subject, subject.world, subject.world.episodes(tasks), keep)


@pytest.mark.parametrize("keep", [False, True])
def test_a_gate_that_comes_into_view_changes_the_step_and_the_plan_and_is_remembered_where_that_is_asked(keep):
    of, sight = at_gate(keep)
    world = of.world
    level, one = live(of, sight), torch.arange(1)
    s, a = codes(world, torch.tensor([[[16.5, 4.0]]])), torch.tensor([[[1.0, 0.0]]])
    use = Numbers()
    plan, right = Looking(of, sight, use, Rounds(1)), torch.tensor([[1.0, 0.0]])

    def planned():
        """Return how far a plan to behind the gate leads, across."""
        now, behind = of.encode(of.acting.observe()), codes(world, torch.tensor([[24.0, 4.0]]))
        proposal, _ = plan(one, now, behind, Memory.empty(now, 0.0, 1.0), generator(), torch.tensor([2000]))
        return float(proposal.states[0, : int(proposal.length), 0].max() - codes(world, torch.tensor(17.0)))

    for step, x in enumerate((10.0, 11.0, 12.0, 13.0, 12.0, 11.0)):
        near = 17.5 - x <= 5 or (keep and step > 3)
        torch.testing.assert_close(
            of.encode(of.acting.observe()), codes(world, torch.tensor([[x, 4.0]])), atol=5e-3, rtol=0
        )
        moved = [float((of_level.step(s, a, s) - s)[0, 0, 0]) for of_level in (level, level.rows(one))]
        assert moved == pytest.approx([0.0, 0.0] if near else [PIXEL, PIXEL], abs=1e-6)
        assert bool(sight.static[0, 1, 6, 20] > 0.99) == near and not bool(of.map[0, 1, 6, 20] > 0.01)
        assert (planned() > 0) != near
        of.acting.act(right if step < 3 else -right)


def test_the_map_is_read_once_a_step(monkeypatch):
    of, sight = at_gate()
    read, bound = [], of.model.levels[0].bound
    monkeypatch.setattr(of.model.levels[0], "bound", lambda static: read.append(1) or bound(static))
    level = live(of, sight)
    read.clear()
    for _ in range(3):
        for _ in range(4):
            level.step(of.goal.unsqueeze(1), torch.zeros(1, 1, 2), torch.zeros(1, 1, 0))
            level.rows(torch.arange(1)).step(of.goal.unsqueeze(1), torch.zeros(1, 1, 2), torch.zeros(1, 1, 0))
        of.acting.act(torch.zeros(1, 2))
    assert len(read) == 3


def test_one_plan_is_made_once_and_what_was_not_met_is_remembered_in_late_alone(subject, monkeypatch):
    world, done, told, control = replace(subject.world, sight=5.0), {}, {}, late_module.control

    def kept(*given):
        """Keep the settings that control is given."""
        told[name] = given[-1]
        return control(*given)

    monkeypatch.setattr(late_module, "control", kept)
    for name in WAYS:
        acting = world.episodes(subject.tasks)
        of = lived(*looking(subject, world, acting, name == "late"), chosen(subject, steps=160), generator(), name)
        done[name] = arrived(world, acting.positions, subject.tasks.goal, of)
    assert [told[name].experience for name in WAYS] == [False, False, True]
    assert (done["once"].done.plans == 1).all() and all((done[name].done.plans > 1).any() for name in WAYS[1:])
    assert done["late"].solved.all() and done["once"].solved.sum() < done["forgetful"].solved.sum()


def test_rows_of_late_are_the_three_ways_and_what_is_between_them(subject):
    found = values(late(subject, 6, steps=40))
    for other in WAYS[:2]:
        assert found[f"late_minus_{other}"] == pytest.approx(found["late_success"] - found[f"{other}_success"])
    assert found["once_plans"] == 1 and found["late_evaluations"] >= found["once_evaluations"]


# -- tasks that are set ------------------------------------------------------------------------------------------------

FAR, GOAL, PLACE, SECOND = [50.0, 50.0], [10.0, 0.0], [0.0, 10.0], [0.0, 20.0]
NEAR_GOAL, NEAR_PLACE = [10.0, 1.4], [1.4, 10.0]
WAYS_OF = [  # of a task, the steps of a way, whether it succeeds, whether it violates
    ("avoid", [FAR, GOAL, FAR], True, False),
    ("avoid", [FAR, NEAR_PLACE, GOAL], False, True),
    ("avoid", [FAR, [1.6, 10.0], NEAR_GOAL], True, False),
    ("avoid", [GOAL, FAR, PLACE], False, True),  # after it was at the goal
    ("avoid", [FAR, FAR, [10.0, 1.6]], False, False),
    ("through", [FAR, NEAR_PLACE, NEAR_GOAL], True, False),
    ("through", [PLACE, FAR, GOAL], True, False),
    ("through", [GOAL, PLACE, FAR], False, False),  # the goal came too early, and is left
    ("through", [GOAL, PLACE, GOAL], True, False),
    ("through", [FAR, [1.6, 10.0], GOAL], False, True),
    ("through", [FAR, GOAL, FAR], False, False),
    ("both", [SECOND, PLACE, GOAL], True, False),
    ("both", [PLACE, FAR, SECOND, FAR, GOAL, FAR], True, False),
    ("both", [PLACE, GOAL], False, True),
    ("both", [PLACE, GOAL, SECOND, GOAL], True, False),
    ("both", [PLACE, SECOND, FAR], False, False),
    ("both", [SECOND, GOAL, PLACE], False, False),
    ("late", [FAR] * AFTER + [GOAL], True, False),  # the step AFTER, counted from 0 where it begins
    ("late", [FAR] * (AFTER - 1) + [GOAL], False, True),
    ("late", [FAR] * (AFTER - 1) + [[10.0, 2.9]] + [GOAL], False, True),
    ("late", [FAR] * (AFTER - 1) + [[10.0, 3.1]] + [NEAR_GOAL], True, False),
    ("late", [FAR] * AFTER + [[10.0, 1.6]], False, False),
    ("late", [FAR] * AFTER + [FAR, GOAL, FAR], True, False),
]


@pytest.mark.parametrize(("name", "way", "good", "bad"), WAYS_OF)
def test_success_and_violation_are_what_the_table_says(name, way, good, bad):
    places = {"late": [], "both": [PLACE, SECOND]}.get(name, [PLACE])
    places = torch.tensor([places]).view(1, -1, 2)
    found = judged(name, torch.tensor([way]), torch.tensor([GOAL]), places)
    assert [part.tolist() for part in found] == [[good], [bad]]


def test_discs_are_on_the_way_and_clear_of_doors_starts_and_goals():
    subject = known(4, 1)
    tasks = subject.world.tasks(200, generator())
    points, fits = on_the_way(subject.world, tasks, generator())
    assert 0.2 < float(fits.double().mean()) < 1
    ways = [geodesic(tasks.layouts, *ends).length for ends in ((tasks.start, points), (points, tasks.goal))]
    whole = geodesic(tasks.layouts, tasks.start, tasks.goal).length
    assert float((ways[0] + ways[1] - whole).abs().max()) < 1e-3
    others = torch.cat([tasks.layouts.doors, tasks.start.unsqueeze(1), tasks.goal.unsqueeze(1)], 1)
    apart = (others - points.unsqueeze(1)).norm(dim=-1).amin(1)
    assert float(apart[fits].min()) > CLEAR - 1e-3


def test_places_are_drawn_in_rooms_and_too_many_discs_are_refused(monkeypatch):
    subject = known(3, 1)
    for name, number in (("avoid", 1), ("through", 1), ("both", 2), ("late", 0)):
        tasks, places = drawn(subject, name, 7)
        assert len(tasks.start) == len(tasks.layouts.bounds) == 7 and places.shape == (7, number, 2)
        if name in ("through", "both"):
            within = places - 9 * (places / 9).floor()
            assert 1.5 - 1e-4 <= float(within.min()) and float(within.max()) <= 6.5 + 1e-4
        again = drawn(subject, name, 7)
        assert torch.equal(places, again[1]) and torch.equal(tasks.start, again[0].start)
    monkeypatch.setattr(reconfigured_module, "CLEAR", 30.0)
    with pytest.raises(ValueError, match="^episodes: expected at most 0 tasks with room for a disc, found 2"):
        drawn(subject, "avoid", 2)


def test_tasks_that_are_set_are_done_and_the_plain_goal_violates_them():
    found = values(reconfigured(known(3, 1), 3, numbers={"rounds": 2}))
    names = [f"{n}{plain}_{row}" for n in ("avoid", "through", "both", "late") for plain in ("", "_plain")
             for row in ("success", "violation", "evaluations")]  # fmt: skip
    assert [*found] == names
    for name in ("avoid", "through", "both", "late"):
        assert found[f"{name}_success"] > 0.6 and found[f"{name}_violation"] < 0.4
        assert found[f"{name}_plain_success"] < found[f"{name}_success"]
        assert found[f"{name}_plain_violation"] > 0.5


# -- proposals and the oracle ------------------------------------------------------------------------------------------


def test_what_cannot_be_is_within_walls_or_too_far():
    layouts = corridor("open", "gate").repeat(1)
    start = torch.tensor([[4.0, 4.0]])
    points = torch.tensor(
        [[
            [7.0, 4.0],  # in the room
            [10.0, 4.0],  # through the door
            [8.5, 4.0],  # within the door
            [8.5, 1.0],  # within a wall
            [8.0 + 0.5 * WITHIN, 3.0],  # at the edge of a door
            [8.0 + 0.5 * WITHIN, 1.0],  # not deep enough within a wall to count
            [-1.0, 4.0],  # beyond the border
            [13.0, 4.0],  # too far
            [4.0 + 8 + SLACK - 0.1, 4.0],  # as far as can be
        ]]
    )  # fmt: skip
    expected = [False, False, False, True, False, False, True, True, False]
    assert impossible(layouts, start, points, 8.0).tolist() == [expected]
    assert inside(layouts, points).tolist() == [[False, False, False, True, False, False, True, False, False]]
    behind = torch.tensor([[[17.5, 4.0], [19.0, 4.0], [15.0, 4.0]]])  # within the gate, behind it, before it
    found = impossible(layouts, torch.tensor([[14.0, 4.0]]), behind, 8.0)
    assert found.tolist() == [[True, True, False]]
    assert impossible(mapped(layouts), torch.tensor([[14.0, 4.0]]), behind, 8.0).tolist() == [[False] * 3]


def test_ways_around_corners_count_by_their_length_and_starts_may_differ_by_point():
    layouts = corridor("open")
    beside = torch.tensor([[7.5, 1.0]])  # of the wall, 1.5 units from the edge of the door
    way = 2 * math.hypot(0.5, 1.5) + 1
    behind = torch.tensor([[[9.5, 1.0]]])
    assert not impossible(layouts, beside, behind, way - SLACK + 0.01).any()
    assert impossible(layouts, beside, behind, way - SLACK - 0.01).all()  # although it is 2 units away
    starts = torch.tensor([[[7.5, 1.0], [9.0, 1.0], [8.5, 1.0]]])  # the last one within the wall: no way leads from it
    assert impossible(layouts, starts, behind.expand(1, 3, 2), 2.0).tolist() == [[True, False, True]]


def test_places_are_read_exactly_where_they_are_linear():
    draw = generator()
    position = 30 * torch.rand(60, 2, generator=draw)
    weights, shift = torch.randn(2, 5, generator=draw), torch.randn(5, generator=draw)
    s = position @ weights + shift
    read = Places(s, position)
    torch.testing.assert_close(read(s), position, atol=1e-3, rtol=0)
    more = 30 * torch.rand(4, 3, 2, generator=draw)
    torch.testing.assert_close(read(more @ weights + shift), more, atol=1e-3, rtol=0)


def test_heads_that_know_the_map_let_nothing_pass_that_cannot_be():
    subject = known(3, 1)
    told, untold = (values(proposals(subject, 30, sees)) for sees in SEES)
    assert told["proposed_impossible"] == untold["proposed_impossible"] > 0.2
    assert told["kept_impossible"] < 0.02 < untold["kept_impossible"] < 0.5 * untold["proposed_impossible"]
    assert told["doubted"] >= told["proposed_impossible"] - 0.02
    assert told["planned_impossible"] < 0.02 and told["planned_inside"] == 0
    assert "condition_correlation" not in told  # which subgoals have none of


@pytest.mark.parametrize("of", OF)
def test_proposals_of_any_abstract_action_have_their_rows(of):
    found = values(proposals(untrained(of), 8, numbers={"doubt": -100.0}, budget=300))
    rows = {"proposed_impossible", "kept_impossible", "doubted", "planned_impossible", "planned_inside"}
    assert set(found) == rows | (set() if of == "subgoal" else {"condition_correlation"})
    assert found["doubted"] == 0 and found["kept_impossible"] == found["proposed_impossible"]


def test_heads_that_let_nothing_pass_are_named():
    with pytest.raises(ValueError, match="some step that the heads let pass, found none at doubt 99.0"):
        proposals(untrained("outcome"), 8, numbers={"doubt": 99.0}, budget=300)


def test_bends_are_moved_from_corners_along_walls_and_goals_stay():
    world = Maze(rooms=4)
    tasks = world.tasks(150, generator())
    way = geodesic(tasks.layouts, tasks.start, tasks.goal)
    moved = aside(tasks.layouts, way.points)
    rows = torch.arange(150)
    assert torch.equal(moved[:, 0], tasks.start) and torch.equal(moved[rows, way.count - 1], tasks.goal)
    bends = (torch.arange(way.points.shape[1]) < way.count.unsqueeze(1) - 1) & (torch.arange(way.points.shape[1]) > 0)
    by = (moved - way.points)[bends]
    assert len(by) > 150
    assert torch.allclose(by.abs().amax(1), torch.tensor(CLEARANCE)) and float(by.abs().amin(1).max()) < 1e-6
    doors = (tasks.layouts.doors.unsqueeze(1) - moved.unsqueeze(2)).abs().amax(-1).amin(2)[bends]
    assert torch.allclose(doors, torch.tensor(1.5 - CLEARANCE), atol=1e-3)


def test_dots_that_walk_from_bend_to_bend_arrive_and_seldom_touch_a_wall():
    world = Maze(rooms=3)
    tasks = world.tasks(300, generator())
    points = aside(tasks.layouts, geodesic(tasks.layouts, tasks.start, tasks.goal).points)
    episodes, rows, which = world.episodes(tasks), torch.arange(300), torch.ones(300, dtype=torch.long)
    for _ in range(80):
        at = episodes.positions[:, -1]
        there = (points[rows, which] - at).norm(dim=-1) < 0.01
        which = torch.where(there, which + 1, which).clamp(max=points.shape[1] - 1)
        episodes.act(points[rows, which] - at)
    met, there = episodes.blocked.any(1), (episodes.positions[:, -1] - tasks.goal).norm(dim=-1) < 0.01
    assert there[~met].all() and float(there.double().mean()) > 0.98
    assert float(met.double().mean()) < 0.06  # where a bend's new place is hidden behind another corner


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [hierarchical, late, proposals, reconfigured])
def test_other_subjects_and_numbers_are_refused_by_name(measure, subject):
    with pytest.raises(ValueError, match=f"^measure: expected a hierarchy .* for '{measure.__name__}', found Simple"):
        measure(SimpleNamespace())
    with pytest.raises(ValueError, match="^numbers: expected some of steps, .*, found pace, rythm"):
        measure(subject, 2, numbers={"rythm": 1, "pace": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("greedy", "best")}, "methods: expected some of flat_cem, .*, found 'best'"),
        ({"sees": "gates"}, "measure.hierarchical.sees: expected one of percept, map, found 'gates'"),
        ({"episodes": 13}, "measure.planning.episodes: expected at most 12, the held-out tasks, found 13"),
    ],
)
def test_what_does_not_exist_is_named(options, message, subject):
    with pytest.raises(ValueError, match=f"^{message}"):
        hierarchical(subject, **{"episodes": 2, "methods": ("straight",), **options})
