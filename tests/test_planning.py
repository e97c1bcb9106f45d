"""Plans over levels: linear worlds with closed forms, limits, budgets, cost modules, and the servo (property P5)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from conftest import generator, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa.minimize import Elites, Softmin, cem, mppi
from jepa.planning import Box, Descent, Level, Tried, costs, episodic, moves, nearest, plan, servo

PROPERTY = settings(deadline=None, derandomize=True, max_examples=15)
SEEDS = st.integers(0, 10_000)
FREE = Box(2)
MINIMIZERS = {
    "cem": partial(cem, spread=2.0, sampling=Elites(samples=200, rounds=30, elites=50, floor=1e-4)),
    "mppi": partial(mppi, spread=0.3, sampling=Softmin(samples=200, rounds=30)),
    "gradient": Descent(steps=60, rate=0.1, restarts=2),
    "tried": Tried(0.3 * normal(40, 3, 2, seed=7)),
}
CALLS = {"cem": 200 * 30, "mppi": 200 * 30 + 1, "gradient": 2 * 61, "tried": 40}  # candidates


class Counted:
    """s' = s + a, counting the states it returns per episode."""

    def __init__(self):
        self.count = 0

    def __call__(self, s, a, z):
        assert z.shape == (1, 1, 0)
        out = s + a
        self.count += out.shape[1]
        return out


def toward(goal, effort=0.0, **fields):
    """Return the plant s' = s + a, with the distance to a goal and a price of effort."""
    cost = costs.weighted((1.0, costs.Distance(goal)), (1.0, costs.Effort(effort)))
    return Level(**{"step": Counted(), "cost": cost, "horizon": 3, "actions": FREE, **fields})


@pytest.mark.parametrize("name, near", [("cem", 5e-4), ("mppi", 0.02), ("gradient", 1e-8)])
def test_plans_are_the_closed_form(name, near):
    # min ‖g − s − Σ a‖² + w Σ ‖a‖²: a = (g − s) / (T + w) in each of T steps, of cost w ‖g − s‖² / (T + w)
    s, goal, effort = normal(4, 2), normal(4, 2, seed=1), 0.1
    found = plan(toward(goal, effort), s, MINIMIZERS[name], generator())
    least = effort * (goal - s).square().sum(1) / (3 + effort)
    assert (found.value >= least - 1e-12).all() and (found.value < least + near * 10).all()
    exact = ((goal - s) / (3 + effort)).unsqueeze(1).expand(-1, 3, -1)
    apart = (found.actions - exact).square().sum((1, 2))  # the cost is convex, its least curvature 2 w
    assert (apart <= (found.value - least) / effort + 1e-9).all()
    torch.testing.assert_close(found.states, s.unsqueeze(1) + found.actions.cumsum(1))
    assert found.length.tolist() == [3] * 4


@pytest.mark.parametrize("name", MINIMIZERS)
def test_evaluations_are_counted_exactly(name):
    level = toward(normal(4, 2, seed=1))
    found = plan(level, normal(4, 2), MINIMIZERS[name], generator())
    assert found.evaluations.tolist() == [level.step.count] * 4
    assert level.step.count == 3 * (CALLS[name] + 1)  # and the plan that is returned, once more for its states


BOXES = [Box(2, norm=0.3), Box(2, -0.2, 0.1), Box(2, (-0.2, -0.1), (0.3, 0.0)), Box(2, -0.2, 0.25, 0.3)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", MINIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limits_are_never_exceeded_not_even_on_the_way(name, box, dtype):
    def step(s, a, z):
        assert inside(a, box)
        return s + a

    s, goal = normal(6, 2).to(dtype), 4 * normal(6, 2, seed=1).to(dtype)
    start = torch.full((6, 3, 2), 9.0, dtype=dtype)
    found = plan(toward(goal, step=step, actions=box), s, MINIMIZERS[name], generator(), start)
    assert inside(found.actions, box) and found.actions.dtype == dtype
    if name == "gradient" and (box.norm is None or box.low is None):  # a convex problem with a known solution
        gap = goal - s
        wide = (
            Box(2, norm=0.9) if box.low is None else Box(2, *(3 * torch.tensor((box.low, box.high)).double()).tolist())
        )
        assert torch.allclose(found.actions.sum(1), wide.project(gap), atol=1e-3)


def inside(a, box):
    """Return whether all actions are allowed, to the bit."""
    low, high = (torch.tensor(limit, dtype=a.dtype) for limit in (box.low or -torch.inf, box.high or torch.inf))
    allowed = (a >= low) & (a <= high) if box.low is not None else torch.ones_like(a, dtype=torch.bool)
    return bool(allowed.all()) and (box.norm is None or bool((a.norm(dim=-1) <= box.norm).all()))


@PROPERTY
@given(SEEDS, st.sampled_from(BOXES))
def test_projection_is_idempotent_keeps_what_is_allowed_and_never_exceeds(seed, box):
    a = normal(200, 2, seed=seed).float()
    found = box.project(a)
    assert inside(found, box) and torch.equal(box.project(found), found)
    drawn = box.sample((50, 3), generator(seed))
    assert drawn.shape == (50, 3, 2) and inside(drawn, box) and torch.equal(box.project(drawn), drawn)
    direction = torch.nn.functional.normalize(a, dim=-1)
    far = box.farthest(direction)
    assert inside(far, box)
    longer = far + 1e-3 * direction
    assert ((box.project(longer) - longer).norm(dim=-1) > 0).all()


def test_samples_are_uniform():
    ball = Box(3, norm=2.0).sample((20_000,), generator())
    assert abs(float((ball.norm(dim=-1) < 1).float().mean()) - 1 / 8) < 0.01 and ball.mean(0).abs().max() < 0.03
    box = Box(2, (-1, 0), (1, 4)).sample((20_000,), generator())
    torch.testing.assert_close(box.mean(0), torch.tensor([0.0, 2.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(box.std(0), torch.tensor([2, 4]) / 12**0.5, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["gradient", "tried", "cem"])
def test_batched_plans_are_single_ones(name):
    s, goal = normal(4, 2), normal(4, 2, seed=1)
    minimizer = MINIMIZERS[name]
    if name == "cem":
        minimizer = partial(cem, spread=1.0, sampling=Elites(samples=64, rounds=4, elites=8, shared=True))
    if name == "gradient":
        minimizer = Descent(steps=20)
    together = plan(toward(goal, 0.1), s, minimizer, generator())
    for b in range(4):
        alone = plan(toward(goal[b : b + 1], 0.1), s[b : b + 1], minimizer, generator())
        torch.testing.assert_close(alone.actions[0], together.actions[b])
        torch.testing.assert_close(alone.value[0], together.value[b])


@pytest.mark.parametrize("name", MINIMIZERS)
def test_what_cannot_be_planned_is_named_and_an_empty_batch_is_empty(name):
    s, goal, minimizer = normal(2, 2), normal(2, 2, seed=1), MINIMIZERS[name]
    for level, state, message in (
        (toward(goal, horizon=0), s, "horizon: expected at least 1, found 0"),
        (toward(goal), torch.full_like(s, math.nan), "s: expected numbers, found nan in 2 of 2 episodes"),
        (toward(goal), s[0], "s: expected .B, D., found .2."),
        (toward(goal.expand(2, 2)[:, :1]), s, "goal: expected .2 or 1, 2."),
        (toward(goal), normal(3, 2), "goal: expected .3 or 1, 2."),
        (toward(goal, step=lambda s, a, z: (s + a) * math.nan), s, "cost: expected numbers, found nan"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            plan(level, state, minimizer, generator())
    with pytest.raises(ValueError, match="^start: expected .2, 3, 2., found .2, 2, 2."):
        plan(toward(goal), s, minimizer, generator(), torch.zeros(2, 2, 2))
    empty = plan(toward(goal[:0]), s[:0], minimizer, generator())
    assert empty.actions.shape == (0, 3, 2) and empty.value.shape == empty.evaluations.shape == (0,)


@pytest.mark.parametrize("name", ["cem", "gradient"])
def test_a_good_start_is_never_made_worse(name):
    s, goal = normal(3, 2), normal(3, 2, seed=1)
    start = ((goal - s) / 3).unsqueeze(1).expand(-1, 3, -1)
    poor = {"cem": partial(cem, spread=3.0, sampling=Elites(samples=2, rounds=1, elites=1)), "gradient": Descent(0)}
    assert plan(toward(goal), s, poor[name], generator(), start).value.max() < 1e-20
    assert plan(toward(goal), s, poor[name], generator()).value.min() > 1e-3


@PROPERTY
@given(SEEDS)
def test_cost_modules_are_their_formulas_and_select_episodes(seed):
    states, a, goal = normal(3, 4, 5, 2, seed=seed), normal(3, 4, 5, 2, seed=seed + 1), normal(3, 2, seed=seed + 2)

    def critic(s):
        return s.abs().sum(-1)

    gaps = (states - goal[:, None, None]).square().sum(-1)
    cases = {
        costs.Distance(goal): gaps[..., -1],
        costs.Distance(goal, "sum"): gaps.sum(-1),
        costs.Value(critic): states[:, :, -1].abs().sum(-1),
        costs.Value(critic, "sum"): states.abs().sum((-1, -2)),
        costs.Effort(0.3): 0.3 * a.square().sum((-1, -2)),
    }
    index = torch.tensor([2, 0, 0])
    parts = [(0.5 + number, module) for number, module in enumerate(cases)]
    cases[costs.weighted(*parts)] = sum(weight * cases[module] for weight, module in parts)
    for module, expected in cases.items():
        torch.testing.assert_close(module(states, a), expected)
        torch.testing.assert_close(module.rows(index)(states[index], a[index]), expected[index])
    level = episodic(toward(goal)).rows(index).rows(torch.tensor([1]))  # rows of rows
    torch.testing.assert_close(level.cost(states[:1], a[:1]), (states[:1, :, -1] - goal[0]).square().sum(-1))


@PROPERTY
@given(SEEDS, st.floats(0.05, 1.9))
def test_servo_is_proportional_control(seed, gain):
    s, goal = normal(3, 2, seed=seed), normal(3, 2, seed=seed + 1)
    level = toward(goal)._replace(cost=costs.weighted((0.5, costs.Distance(goal))))
    first, gap = s - goal, s
    for t in range(1, 8):
        held = s.clone().requires_grad_()
        (slope,) = torch.autograd.grad(0.5 * (held - goal).square().sum(), held)
        found = servo(level, s, gain, generator())
        assert torch.allclose(found.actions[:, 0], -gain * slope, atol=1e-6)
        s = found.states[:, 0]
        gap = s - goal
        assert torch.allclose(gap, (1 - gain) ** t * first, atol=1e-6)
    assert gap.norm() < first.norm()


def test_servo_does_not_raise_the_cost_and_keeps_to_limits():
    s, goal = normal(3, 2), normal(3, 2, seed=1)
    half = costs.weighted((0.5, costs.Distance(goal)))
    level = toward(goal)._replace(cost=half)
    assert torch.equal(servo(level, s, 2.5, generator()).actions, torch.zeros(3, 1, 2).double())
    short = servo(level._replace(actions=Box(2, norm=0.1)), s, 1.0, generator()).actions[:, 0]
    exact = 0.1 * torch.nn.functional.normalize(goal - s, dim=-1)
    assert torch.allclose(short, exact, atol=1e-6)
    with pytest.raises(ValueError, match="^gain: expected a number above 0"):
        servo(level, s, 0.0, generator())


def test_nearest_is_the_best_move_and_stays_at_the_goal():
    box = Box(2, norm=2.0)
    candidates = moves(box, 8, (0.25, 0.5, 1.0))
    assert candidates.shape == (25, 2) and inside(candidates, box) and not candidates[0].any()
    s, goal = normal(20, 2).float(), 2 * normal(20, 2, seed=1).float()
    found = nearest(toward(goal), s, candidates)
    ends = (s[:, None] + candidates - goal[:, None]).square().sum(-1)
    torch.testing.assert_close(found.value, ends.amin(1))
    assert torch.equal(found.actions[:, 0], candidates[ends.argmin(1)])
    assert found.evaluations.tolist() == [26] * 20
    assert not nearest(toward(s), s, candidates).actions.any()
    with pytest.raises(ValueError, match="^candidates: expected"):
        nearest(toward(goal), s, candidates[:0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Box(0), "width: expected at least 1"),
        (lambda: Box(2, (0.0,)), "low: expected 2 numbers, found 1"),
        (lambda: Box(2, 1.0, -1.0), "low: expected at most high"),
        (lambda: Box(2, norm=0.0), "norm: expected a number above 0"),
        (lambda: Box(2, 0.1, 1.0, 2.0), "low: expected limits around 0"),
        (lambda: Box(2).project(torch.zeros(3)), "a: expected 2 numbers"),
        (lambda: Box(2).sample((1,), generator()), "actions: expected limits on both sides"),
        (lambda: Box(2).farthest(torch.ones(1, 2)), "actions: expected limits in every direction"),
        (lambda: moves(Box(3, norm=1.0), 8, (1.0,)), "actions: expected width 2"),
        (lambda: moves(Box(2, norm=1.0), 0, (1.0,)), "headings: expected at least 1"),
        (lambda: Descent(restarts=0), "restarts: expected at least 1"),
        (lambda: Descent(spread=-1.0), "spread: expected"),
        (lambda: costs.weighted(), "parts: expected at least one"),
        (lambda: costs.Effort(-1.0), "weight: expected"),
        (lambda: costs.Distance(torch.zeros(2)), "goal: expected .B, D., found .2."),
        (lambda: costs.Distance(torch.zeros(1, 2), "mean"), "over: expected 'sum' or 'last', found 'mean'"),
        (lambda: costs.Value(torch.sum, "mean"), "over: expected"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
