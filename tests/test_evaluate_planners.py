"""Planners compared at equal evaluations, on a model of true dynamics: rows, budgets, and what the cost to go adds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from conftest import normal, values
from test_world_models import Free, Knowing, subject_of

from jepa.evaluate.planners import COSTS, DYNAMICS, Costs, planners, sampled
from jepa.planning.costs import Distance
from jepa.worlds.rooms.layouts import two_rooms
from jepa.worlds.rooms.tasks import Tasks

NAMES = ("gradient", "cem", "mppi")
TAKEN = ("success_eb_jepa", "success_pldm", "success_lewm", "steps", "plans", "evaluations", "longest_step")
IN_SIGHT = 1 / 3  # of the tasks
TINY = {"episodes": 6, "steps": 44, "candidates": 48, "cell": 2.0, "gradient_rounds": 4}
FIRST = TINY | {"steps": 1}  # the first plans of all episodes, which all begin far from their goals


def made_up():
    """Return six tasks, of which the door is in sight in two, and the same the other way round."""
    wall = torch.tensor([26.0, 30.0, 32.0, 36.0, 40.0, 32.0])
    door = torch.tensor([16.0, 18.0, 48.0, 46.0, 30.0, 40.0])
    y = torch.tensor([44.0, 46.0, 18.0, 20.0, 30.0, 40.0])
    here, there = torch.stack([wall - 14, y], 1), torch.stack([wall + 14, y], 1)
    return Tasks(two_rooms(wall.repeat(2), door.repeat(2)), torch.cat([here, there]), torch.cat([there, here]))


@cache
def subject(seed=0, kind=Knowing):
    """Return a model, of which the usual one knows all walls, with six tasks a seed."""
    return replace(subject_of(kind(), seed=seed, samples=8), tasks=made_up())


@cache
def found():
    """Return what all planners do by both costs, with learned and with true dynamics."""
    return values(planners(subject(), **TINY))


def test_every_planner_has_its_rows_under_every_dynamics_and_cost():
    expected = [f"{name}_{d}_{c}_{row}" for d in DYNAMICS for c in COSTS for name in NAMES for row in TAKEN]
    assert list(found()) == expected
    assert max(found()[name] for name in expected if name.endswith("longest_step")) <= 2.45 * (1 + 1e-6)


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_cost_to_go_reaches_goals_behind_walls_that_the_distance_does_not(dynamics):
    for name in NAMES:
        near, far = (found()[f"{name}_{dynamics}_{cost}_success_pldm"] for cost in COSTS)
        assert near == pytest.approx(IN_SIGHT) and far > 0.6


def test_only_selects_by_the_beginning_of_names_and_the_same_seed_gives_the_same_rows():
    for only in ("cem_learned_to_go", "mppi_oracle_dist"):
        some = values(planners(subject(), **TINY, only=only))
        assert some == {name: value for name, value in found().items() if name.startswith(only)} != {}
    other = values(planners(subject(1), **TINY, only="mppi_oracle_dist"))
    assert other.keys() == some.keys() and other != some


@pytest.mark.parametrize("only", ["ccem", "cem_orcle", "cem_learned_to_go_success"])
def test_only_that_begins_no_name_is_refused(only):
    with pytest.raises(ValueError, match=f"^only: expected the beginning of one of .*, found '{only}'"):
        planners(subject(), **FIRST, only=only)


@pytest.mark.parametrize("hold", [1, 8])
def test_all_planners_have_the_same_evaluations_for_a_plan(hold):
    spent = values(planners(subject(), **FIRST, horizon=8, hold=hold))
    for name, candidates in (("gradient", 48), ("cem", 48), ("mppi", 48 + 1)):  # its last mean
        for dynamics in DYNAMICS:
            for cost in COSTS:
                assert spent[f"{name}_{dynamics}_{cost}_plans"] == 1
                # and the plan that is returned, once more for its states
                assert spent[f"{name}_{dynamics}_{cost}_evaluations"] == 8 * (candidates + 1)


def test_true_dynamics_do_not_ask_the_model():
    blind = subject(kind=Free)
    oracle, learned = (values(planners(blind, **TINY, only=f"cem_{dynamics}_to_go")) for dynamics in DYNAMICS[::-1])
    assert oracle == {name: found()[name] for name in oracle}
    assert learned["cem_learned_to_go_success_pldm"] < found()["cem_learned_to_go_success_pldm"]


def test_sampled_reaches_what_is_in_sight_and_counts_its_plans():
    rows = sampled(subject(), episodes=6, steps=40, horizon=16, candidates=32)
    assert rows == sampled(subject(), episodes=6, steps=40, horizon=16, candidates=32)
    reached = values(rows)
    assert list(reached) == [f"sampled_{row}" for row in TAKEN]
    assert reached["sampled_success_pldm"] == pytest.approx(IN_SIGHT)
    first = values(sampled(subject(), episodes=6, steps=1, horizon=16, candidates=32))
    assert first["sampled_plans"] == 1 and first["sampled_evaluations"] == 16 * (32 + 2)


@pytest.mark.parametrize("measure", [planners, sampled])
def test_who_has_no_tasks_is_refused(measure):
    expected = f"^measure: expected a world model with tasks for '{measure.__name__}', found SimpleNamespace"
    with pytest.raises(ValueError, match=expected):
        measure(SimpleNamespace())


def test_costs_of_some_episodes_are_theirs_far_and_near():
    costs, index = Costs(Distance(normal(5, 2), "sum"), Distance(normal(5, 2, seed=1))), torch.tensor([4, 0, 0])
    states, a = normal(5, 3, 7, 2, seed=2), normal(5, 3, 7, 2, seed=3)
    some = costs.rows(index)
    assert torch.equal(costs(states, a), costs.far(states, a)) and not torch.equal(
        costs(states, a), costs.near(states, a)
    )
    for name in ("far", "near"):
        expected = getattr(costs, name)(states, a)[index]
        assert torch.equal(getattr(some, name)(states[index], a[index]), expected)
