"""What planners think is what they did: every plan, of the right episode, at the right step, with its rounds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from conftest import generator

from jepa.abstract import Abstract
from jepa.encoders import Identity
from jepa.evaluate.hierarchical import chosen, driven
from jepa.evaluate.mazes import Planning
from jepa.evaluate.methods import METHODS, WITHOUT
from jepa.evaluate.reconfigured import drawn, followed
from jepa.evaluate.thoughts import proposed, thoughts, told, watched
from jepa.hierarchy import HJEPA, Window
from jepa.keypoints import Keypoints
from jepa.latents.finite import NoLatent
from jepa.latents.stochastic import Gaussian
from jepa.maps import MapReader
from jepa.model import JEPA
from jepa.planning.hierarchical.control import Kept
from jepa.planning.hierarchical.proposals import Proposal, Round
from jepa.streams import generator_for
from jepa.worlds.rooms.maze import Maze

FEW = {"steps": 6, "doubt": -100.0, "budget": 900, "cem_samples": 8, "cem_rounds": 1, "cem_horizon": 8}


@pytest.fixture(scope="module")
def subject():
    """Return a tiny hierarchy that is not trained, with six tasks in mazes of 2 × 2 rooms."""
    torch.manual_seed(0)
    world = Maze(rooms=2)
    places = Keypoints(world.static, channels=2, symmetric=True)
    first = JEPA(places, places, MapReader(2, 2, static=world.static, channels=(2, 2), hidden=(4,)), NoLatent())
    same, tiny = Identity(2), {"channels": (2, 2), "strides": (1, 2), "hidden": (4,)}
    second = JEPA(same, same, Abstract(2, 2, 16, 2, static=world.static, **tiny), Gaussian(2))
    model = HJEPA([first, second], [Window(1, 1), Window(1, 8)]).eval()
    tasks = world.tasks(6, generator())
    return Planning(model, world, tasks, 1.0, lambda purpose: generator_for("purpose", 0, purpose))


@pytest.mark.parametrize("name", METHODS + WITHOUT)
def test_every_planner_is_watched_doing_what_is_measured(subject, name):
    found = watched(subject, subject.tasks, name, numbers=FEW)
    same = driven(subject, subject.tasks, name, chosen(subject, FEW), "percept")
    assert [one.name for one in found] == [name] * 6 and [one.solved for one in found] == same.solved.tolist()
    assert [sum(one.evaluations) for one in found] == same.done.evaluations.sum(1).tolist()
    assert {len(one.evaluations) for one in found} == {max(same.done.levels)}
    for row, one in enumerate(found):
        assert one.positions.shape == (7, 2) and torch.equal(one.positions[0], subject.tasks.start[row])
        assert torch.equal(one.layouts.gates[0], subject.tasks.layouts.gates[row])
        assert torch.equal(one.goal, subject.tasks.goal[row])
        steps = [plan.step for plan in one.plans]
        assert steps == sorted(steps) and len(steps) == (0 if name in ("flat_cem", "flat_tree", "random") else
                                                         int(same.done.plans[row]))  # fmt: skip


@pytest.mark.parametrize("sees", ["percept", "map"])
def test_plans_begin_where_the_dot_is(subject, sees):
    found = watched(subject, subject.tasks, "iterated", sees, FEW)
    plans = [(one, plan) for one in found for plan in one.plans]
    assert len(plans) >= 6
    for one, plan in plans:
        assert torch.allclose(plan.start, one.positions[plan.step], atol=1.0)
        assert all(torch.allclose(thought.path[0], plan.start) for thought in plan.rounds)


def test_rounds_say_what_was_asked_for_and_what_was_not_met(subject):
    found = watched(subject, subject.tasks, "iterated", numbers=FEW | {"rounds": 3})
    plans = [plan for one in found for plan in one.plans]
    assert {plan.level for plan in plans} == {2} and all(1 <= len(plan.rounds) <= 3 for plan in plans)
    for plan in plans:
        assert torch.equal(plan.rounds[plan.taken].asked, plan.asked)
        assert all(-1 <= thought.unmet < max(1, len(thought.asked)) for thought in plan.rounds)
        assert all(thought.unmet >= 0 for thought in plan.rounds[:-1])  # after one that is met nobody thinks on


def test_greedy_plans_have_no_rounds_and_a_single_episode_has_its_own(subject):
    one = thoughts(subject, subject.tasks, 4, "greedy", "map", FEW)
    assert all(plan.rounds == [] and plan.taken == -1 for plan in one.plans)
    assert torch.equal(one.positions[0], subject.tasks.start[4])
    again = thoughts(subject, subject.tasks, 4, "greedy", "map", FEW)
    assert torch.equal(again.positions, one.positions)


def test_budget_of_one_evaluation_leaves_what_was_planned_before_it_was_spent(subject):
    found = watched(subject, subject.tasks, "iterated", numbers=FEW | {"budget": 1})
    assert all(len(one.plans) == 1 and one.plans[0].asked.shape == (0, 2) for one in found)
    assert all(thought.path.shape == (1, 2) for one in found for thought in one.plans[0].rounds)


def test_an_episode_is_read_from_its_own_rows_without_what_was_only_waited():
    start = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    states = torch.arange(12.0).view(2, 2, 3)  # three numbers: the last says how much of a task is done
    path = torch.tensor([[[2.0, 0.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]])
    trace = [
        Round(torch.tensor([0, 1]), states + 1, torch.tensor([2, 1]), torch.zeros(2, 0, 2), torch.tensor([1, 0])),
        Round(torch.tensor([1]), states[1:], torch.tensor([2]), path, torch.tensor([-1])),
    ]
    none = torch.zeros(2, dtype=torch.long)
    proposal = Proposal(states, torch.tensor([0, 2]), states[..., :1], torch.zeros(2), none, none, trace)
    kept = Kept(5, 3, torch.tensor([7, 9]), start, proposal)
    plan = proposed(kept, 1, lambda s: 10 * s)
    assert (plan.step, plan.level, plan.taken) == (5, 3, 1)
    assert plan.start.tolist() == [10, 10] and plan.asked.tolist() == [[60, 70], [90, 100]]
    first, second = plan.rounds
    assert (first.unmet, second.unmet) == (0, -1)
    assert first.asked.tolist() == [[70, 80]] and first.path.tolist() == [[10, 10]]
    assert second.path.tolist() == [[10, 10], [20, 0], [20, 10]]
    other = proposed(kept, 0, lambda s: s)
    assert len(other.rounds) == 1 and other.taken == -1 and other.asked.shape == (0, 2)


@pytest.mark.parametrize("name", ["through", "both", "late"])
def test_tasks_that_are_set_at_plan_time_are_told_without_their_progress(subject, name):
    what = drawn(subject, name, 2)
    of, done = followed(subject, name, what, chosen(subject, FEW | {"keep": True}), True)
    found = told(subject, of, name, done)
    assert len(found) == 2 and done.log.kept[0].proposal.states.shape[-1] >= 2
    for row, one in enumerate(found):
        assert torch.equal(one.positions, of.acting.positions[row]) and one.plans
        assert sum(one.evaluations) == int(done.evaluations[row].sum())
        assert all(plan.asked.shape[1:] == (2,) and plan.start.shape == (2,) for plan in one.plans)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": 6}, "row: expected from 0 to 5, the tasks, found 6"),
        ({"row": -1}, "row: expected from 0 to 5"),
        ({"name": "best"}, "methods: expected some of .*found 'best'"),
        ({"sees": "all"}, "sees: expected one of percept, map, found 'all'"),
        ({"numbers": {"step": 3}}, "numbers: expected some of .*found step"),
        ({"subject": SimpleNamespace()}, "measure: expected a hierarchy that plans in mazes"),
    ],
)
def test_what_cannot_be_watched_is_named(subject, change, message):
    given = {"subject": subject, "row": 0, "name": "greedy", "sees": "percept", "numbers": FEW} | change
    with pytest.raises(ValueError, match=message):
        thoughts(given["subject"], subject.tasks, given["row"], given["name"], given["sees"], given["numbers"])
