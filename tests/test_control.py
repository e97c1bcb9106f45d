"""Control on plants that are known: when it plans again, when it rests, what it counts, one episode or many."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import generator, normal

from jepa.planning import Box, Level, Plan, TreeSearch, moves, nearest, plan, tree
from jepa.planning.control import Control, control
from jepa.planning.costs import Distance
from jepa.planning.minimizers import Descent

LIMIT = 0.5
BOX = Box(2, norm=LIMIT)


class Plant:
    """Points that move by what is done, and now and then by a push; they are seen as they are."""

    limit = LIMIT

    def __init__(self, start, goal, pushes=None):
        self.places, self.goal, self.pushes = [start], goal, pushes or {}

    def observe(self):
        """Return where they are, [B, 2]."""
        return self.places[-1]

    def act(self, a):
        """Return where they are after actions [B, 2]."""
        assert (a.norm(dim=1) <= LIMIT + 1e-9).all()
        push = self.pushes.get(len(self.places) - 1, 0.0)
        self.places.append(self.places[-1] + a + push)
        return self.observe()


class Counted:
    """A planner that straight-lines to the goal, and keeps what it was asked."""

    def __init__(self, goal, steps=4, evaluations=7):
        self.goal, self.steps, self.evaluations, self.asked = goal, steps, evaluations, []

    def of(self, s):
        """Return the goals of the states of some episodes, told apart by the nearest one."""
        return self.goal[torch.cdist(s, self.goal).argmin(1)]

    def __call__(self, level, s, draws, start=None):
        """Return plans of so many steps."""
        self.asked.append((s.clone(), start))
        a, trail = [], [s]
        for _ in range(self.steps):
            a.append(BOX.project(self.of(s) - trail[-1]))
            trail.append(trail[-1] + a[-1])
        long = torch.full((len(s),), self.steps)
        return Plan(torch.stack(a, 1), torch.stack(trail[1:], 1), long, s[:, 0], long * 0 + self.evaluations)


def level_of(goal, asked=None, horizon=4):
    """Return the level of s' = s + a with a goal of each episode; `asked` grows by the states its step is asked for."""

    def step(s, a, z):
        found = s + a
        if asked is not None:
            asked.append(found.shape[0] * found.shape[1])
        return found

    cost = Distance(goal)
    return Level(step, cost, horizon, BOX, rows=lambda index: level_of(goal[index], asked, horizon))


CANDIDATES = moves(BOX, 16, (1.0, 0.6, 0.3)).double()


def close(level, s, draws):
    """Return the best of a few moves."""
    return nearest(level, s, CANDIDATES)


def seen(plant, level, settings, planner, near=close, seed=0):
    """Return what is done on a plant."""
    return control(plant, lambda picture: picture, level, (planner, near), generator(seed), settings)


def places(count=5):
    """Return starts and goals [B, 2], far apart from one another."""
    goal = torch.arange(count).double().unsqueeze(1) * torch.tensor([20.0, 0.0]) + normal(count, 2)
    return goal + 2 * normal(count, 2, seed=1), goal


def searched(level, s, draws, start):
    """Return a plan by a tree."""
    return tree(level, s, draws, TreeSearch(hold=1, cell=0.3, tolerance=0.04, rotate=False, reach=1.0))


def descended(level, s, draws, start):
    """Return a plan by descent."""
    return plan(level, s, Descent(30, 0.3), draws, start)


@pytest.mark.parametrize("planner", [searched, descended])
def test_an_exact_model_leads_to_the_goal(planner):
    start, goal = places()
    plant = Plant(start, goal)
    arrived, near = 0.03, 0.25
    log = seen(plant, level_of(goal), Control(30, arrived, near), planner)
    states = torch.stack(plant.places, 1)
    assert torch.equal(log.states, states) and log.actions.shape == (5, 30, 2)
    torch.testing.assert_close(states.diff(dim=1), log.actions)
    cost = (states - goal.unsqueeze(1)).square().sum(-1)
    assert (cost[:, -1] <= arrived).all() and (cost[:, 0] > 1).any() and (log.plans >= 1).any()
    shortest = (cost[:, 0].sqrt() / LIMIT).ceil()
    assert ((cost > arrived).sum(1) <= 2 * shortest + 4).all()
    assert not log.states.requires_grad


def test_who_has_arrived_rests_and_asks_nothing_more():
    start, goal = places()
    start[2] = goal[2] + 0.05
    planner, asked = Counted(goal), []
    log = seen(Plant(start, goal), level_of(goal, asked), Control(40, 0.03, 0.25), planner)
    cost = (log.states - goal.unsqueeze(1)).square().sum(-1)[:, :-1]
    arrived = cost <= 0.03
    assert not log.actions[arrived].any() and log.actions[~arrived].any(-1).all() and arrived[:, -1].all()
    assert log.plans[2] == log.evaluations[2] == 0
    asked.clear()
    rested = seen(Plant(goal.clone(), goal), level_of(goal, asked), Control(9, 0.03), planner)
    assert not rested.actions.any() and not rested.evaluations.any() and asked == [] and rested.first == []


def test_who_is_moved_after_arriving_plans_anew():
    start, goal = places(2)
    start = goal + torch.tensor([1.2, 0.0])
    pushes = {6: torch.tensor([[3.0, 0.0], [0.0, 0.0]])}
    planner = Counted(goal, steps=9)  # more steps than it takes
    log = seen(Plant(start, goal, pushes), level_of(goal), Control(16, 0.03), planner)
    assert log.plans.tolist() == [2, 1] and len(planner.asked) == 2
    torch.testing.assert_close(planner.asked[1][0], goal[:1] + torch.tensor([[3.0, 0.0]]))
    torch.testing.assert_close(log.states[:, -1], goal)


@pytest.mark.parametrize("push, again", [(0.29, False), (0.31, True)])
@pytest.mark.parametrize("every", [1, 2])
def test_it_plans_again_exactly_where_it_is_pushed_farther_than_it_allows(push, again, every):
    start, goal = places(3)
    start = goal + torch.tensor([20.0, 3.0]) * torch.tensor([[0.4]])
    shove = torch.zeros(3, 2, dtype=torch.float64)
    shove[1, 1] = push
    planner = Counted(goal, steps=12)
    log = seen(Plant(start, goal, {2: shove}), level_of(goal), Control(10, deviation=0.3, every=every), planner)
    assert log.plans.tolist() == [1, 1 + again, 1]
    if again:
        step = {1: 3, 2: 4}[every]  # a push is seen where a macro-action ends
        torch.testing.assert_close(planner.asked[1][0], log.states[1:2, step])


def test_a_plan_is_taken_to_its_end_and_then_the_next_one():
    start, goal = places(3)
    start = goal + 8
    planner = Counted(goal, steps=4)
    log = seen(Plant(start, goal), level_of(goal), Control(11), planner)
    assert log.plans.tolist() == [3, 3, 3] and [len(s) for s, _ in planner.asked] == [3, 3, 3]
    assert all(start is None for _, start in planner.asked)
    for number, (s, _) in enumerate(planner.asked):
        assert torch.equal(s, log.states[:, 4 * number])


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_only_the_first_steps_are_taken_and_the_rest_is_where_the_next_plan_starts(execute):
    start, goal = places(3)
    start = goal + 8
    planner = Counted(goal, steps=4)
    log = seen(Plant(start, goal), level_of(goal), Control(6, execute=execute), planner)
    assert log.plans.tolist() == [-(-6 // execute)] * 3
    first, second = planner.asked[:2]
    made = Counted(goal, steps=4)(None, first[0], None).actions
    left = torch.cat([made[:, execute:], torch.zeros_like(made[:, :execute])], 1)
    assert first[1] is None and torch.equal(second[1], left)


def test_what_is_left_of_a_plan_that_was_given_up_early_is_what_was_not_done():
    start, goal = places(3)
    start = goal + 8
    shove = torch.zeros(3, 2, dtype=torch.float64)
    shove[1, 1] = 1.0
    planner = Counted(goal, steps=5)
    settings = Control(4, execute=4, deviation=0.3)
    seen(Plant(start, goal, {0: shove}), level_of(goal), settings, planner)
    whole = Counted(goal, steps=5)(None, planner.asked[0][0], None).actions
    s, left = planner.asked[1]
    assert len(s) == 1 and torch.equal(left[0, :4], whole[1, 1:]) and not left[0, 4].any()


@pytest.mark.parametrize("most", [1, 2, 4])
def test_plans_are_capped_and_from_then_on_it_goes_step_by_step(most):
    start, goal = places(3)
    start = goal + 30
    near = []

    def one(level, s, draws):
        near.append(len(s))
        return close(level, s, draws)

    log = seen(Plant(start, goal), level_of(goal), Control(20, plans=most), Counted(goal), one)
    assert log.plans.tolist() == [most] * 3 and near == [3] * (20 - 4 * most)
    assert log.actions.any(-1).all()


def test_a_plan_of_no_step_is_a_rest_and_then_another_plan():
    start, goal = places(2)

    def lost(level, s, draws, start):
        none = torch.zeros(len(s), dtype=torch.long)
        return Plan(s.new_zeros(len(s), 0, 2), s.new_zeros(len(s), 0, 2), none, s[:, 0], none + 3)

    log = seen(Plant(start, goal), level_of(goal), Control(5, plans=3), lost, close)
    assert log.plans.tolist() == [3, 3] and not log.actions[:, :3].any() and log.actions[:, 3:].any(-1).all()


@pytest.mark.parametrize("planner", [searched, descended])
def test_evaluations_are_all_the_states_that_the_step_was_asked_for(planner):
    start, goal = places()
    asked = []
    log = seen(Plant(start, goal), level_of(goal, asked), Control(12, 0.03, 0.5, plans=2), planner)
    assert int(log.evaluations.sum()) == sum(asked) > 500


def test_evaluations_of_each_episode_are_those_of_its_own_plans():
    start, goal = places(3)
    start = goal + 8
    start[2] = goal[2] + 0.6
    log = seen(Plant(start, goal), level_of(goal), Control(8, 0.03, 0.64), Counted(goal))
    away = (log.states[:, :-1] - goal.unsqueeze(1)).square().sum(-1)
    steps = ((away > 0.03) & (away <= 0.64)).sum(1)
    tried = len(CANDIDATES) + 1  # and the one that is returned, once more for its state
    assert log.evaluations.tolist() == (7 * log.plans + tried * steps).tolist() and log.plans.tolist() == [2, 2, 1]


def test_many_episodes_are_each_as_if_alone():
    start, goal = places(6)
    settings = Control(25, 0.03, 0.25, deviation=0.2)
    pushes = {3: 0.4 * normal(6, 2, seed=4), 5: 0.4 * normal(6, 2, seed=5)}
    together = seen(Plant(start, goal, pushes), level_of(goal), settings, searched)
    for b in range(6):
        own = {step: push[b : b + 1] for step, push in pushes.items()}
        alone = seen(Plant(start[b : b + 1], goal[b : b + 1], own), level_of(goal[b : b + 1]), settings, searched)
        torch.testing.assert_close(alone.states[0], together.states[b], rtol=0, atol=1e-9)
        assert alone.plans[0] == together.plans[b] and alone.evaluations[0] == together.evaluations[b]


def test_the_first_plan_is_kept():
    start, goal = places(3)
    start = goal + 8
    log = seen(Plant(start, goal), level_of(goal), Control(10), Counted(goal))
    (first,) = log.first
    assert torch.equal(first.actions, Counted(goal)(None, start, None).actions)
    assert torch.equal(first.actions, log.actions[:, :4]) and torch.equal(first.states, log.states[:, 1:5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s, g: seen(Plant(s[:0], g[:0]), level_of(g[:0]), Control(3), descended),
            "acting: expected at least one",
        ),
        (
            lambda s, g: seen(Plant(s * math.nan, g), level_of(g), Control(3), descended),
            "s: expected numbers, found nan in 2",
        ),
        (
            lambda s, g: seen(Plant(s * math.nan, g), level_of(g), Control(3), searched),
            "s: expected numbers, found nan in 2",
        ),
        (lambda s, g: seen(Plant(s, g), level_of(g, horizon=0), Control(3), descended), "horizon: expected at least 1"),
        (
            lambda s, g: seen(Plant(s, g), level_of(g[:1].repeat(3, 1)), Control(3), descended),
            "goal: expected .2 or 1, 2",
        ),
        (lambda s, g: Control(steps=0), "control.steps: expected at least 1, found 0"),
        (lambda s, g: Control(arrived=-1.0), "control.arrived: expected at least 0, found -1.0"),
        (lambda s, g: Control(near=math.nan), "control.near: expected at least 0, found nan"),
        (lambda s, g: Control(deviation=-0.1), "control.deviation: expected at least 0, found -0.1"),
        (lambda s, g: Control(every=0), "control.every: expected at least 1, found 0"),
        (lambda s, g: Control(execute=-1), "control.execute: expected at least 0, found -1"),
        (lambda s, g: Control(plans=0), "control.plans: expected at least 1, found 0"),
    ],
)
def test_what_cannot_be_controlled_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(*places(2))
