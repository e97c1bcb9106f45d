"""The planners that are compared in mazes, on a world without walls whose levels are known: all of them arrive."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import generator

from jepa.evaluate.following import Numbers, admissible
from jepa.evaluate.methods import METHODS, method
from jepa.evaluate.scenes import PIXEL, Free
from jepa.planning import Box, Level, episodic

LIMIT, STEPS = 1.0, 60
KNOWN = [name for name in METHODS if name != "oracle"]  # which asks for a world with walls


class Acting:
    """Places in pixels, that move by what is done."""

    limit = LIMIT

    def __init__(self, start):
        self.places = [start]

    def observe(self):
        return self.places[-1]

    def act(self, a):
        assert a.isfinite().all() and (a.norm(dim=1) <= LIMIT + 1e-5).all()
        self.places.append(self.places[-1] + a)
        return self.observe()


class Open:
    """What planners are given of episodes in the open: codes are places, and upper levels know how far they can go."""

    pixel = 1.0

    def __init__(self, levels=2, batch=3):
        angle = torch.arange(batch) * 2.0
        self.acting = Acting(torch.zeros(batch, 2))
        self.target = (12 + 6 * torch.arange(batch).unsqueeze(1)) * torch.stack([angle.cos(), angle.sin()], -1)
        self.goal = PIXEL * self.target
        predictor = SimpleNamespace(of="subgoal", reach=PIXEL)
        self.model = SimpleNamespace(levels=[SimpleNamespace(predictor=predictor)] * levels)
        self.asked = [0] * levels

    def encode(self, pictures):
        return PIXEL * pictures

    def stride(self, number):
        return 8 ** (number - 1) if number < 3 else 16

    def step(self, number, scale):
        def of(s, a, z):
            after = s + scale * a
            self.asked[number - 1] += after.shape[0] * after.shape[1]
            return after

        return of

    @property
    def lowest(self):
        return episodic(Level(self.step(1, PIXEL), Free(), 1, Box(2, norm=LIMIT)))

    def upper(self, number, doubt):
        return episodic(Level(self.step(number, (number - 1) * PIXEL), Free(), 1, Box(2), self.stride(number)))


def numbers(**changes):
    """Return the numbers of planners."""
    return Numbers(**({"steps": STEPS, "flat_doubt": -math.inf} | changes))


@pytest.mark.parametrize("name", [*KNOWN, "straight"])
def test_all_planners_arrive_in_the_open_and_count_exactly(name):
    of = Open()
    done = method(name)(of, numbers(), generator())
    assert len(of.acting.places) == STEPS + 1
    assert ((of.acting.places[-1] - of.target).norm(dim=1) <= 0.75).all()
    asked = sum(of.asked) if done.evaluations.shape[1] == 1 or name == "flat_servo" else of.asked
    counted = done.evaluations.sum() if isinstance(asked, int) else done.evaluations.sum(0)
    assert counted.tolist() == asked
    assert (done.plans >= 1).all()
    if name != "straight":  # whose one condition is too far for its patience
        assert (done.failed == 0).all()


@pytest.mark.parametrize("name", ["greedy", "experience", "iterated"])
def test_three_levels_arrive_in_the_open_and_count_exactly(name):
    of = Open(levels=3, batch=1)  # at a distance of two steps of level 3
    done = method(name)(of, numbers(), generator())
    assert ((of.acting.places[-1] - of.target).norm(dim=1) <= 0.75).all()
    assert done.evaluations.sum(0).tolist() == of.asked


@pytest.mark.parametrize("name", ["greedy", "iterated"])
def test_budgets_of_episodes(name):
    done = method(name)(Open(), numbers(budget=200), generator())
    free = method(name)(Open(), numbers(), generator())
    assert (done.plans <= free.plans).all() and (done.evaluations[:, 1] <= 200).all()


def test_random_steps_are_within_the_limit_and_plan_nothing():
    of = Open()
    done = method("random")(of, numbers(), generator())
    lengths = torch.stack(of.acting.places).diff(dim=0).norm(dim=-1)
    assert (lengths <= LIMIT + 1e-5).all() and lengths.mean() == pytest.approx(LIMIT / 2, abs=0.1)
    assert len(lengths) == STEPS and done.plans.sum() == 0 and done.evaluations.sum() == 0


def test_names_and_greed():
    with pytest.raises(ValueError, match="methods: expected some of .*iterated.*, found 'nobody'"):
        method("nobody")
    assert admissible(4.0) == 0.25
