"""Plans of actions that are held: those of single steps among which only held ones are allowed."""

from __future__ import annotations

import pytest
import torch
from conftest import generator, normal

from jepa.planning import Box, Descent, Level, Tried, costs, plan
from jepa.planning.held import held, repeated

HORIZON = 6
TURN = torch.tensor([[0.9, -0.3], [0.2, 1.1]], dtype=torch.float64)
S, GOAL = normal(4, 2), 3 * normal(4, 2, seed=1)
BOX = Box(2, norm=0.4)
DIVISORS = pytest.mark.parametrize("hold", [1, 2, 3, 6])


class Turned:
    """s' = s M + a, counting the states it returns per episode."""

    def __init__(self):
        self.count = 0

    def __call__(self, s, a, z):
        out = s @ TURN + a
        self.count += out.shape[1]
        return out


def at_ends(cost, hold):
    """Return the cost that sees states and actions only at the ends of blocks."""
    return lambda states, a: cost(states[:, :, hold - 1 :: hold], a[:, :, hold - 1 :: hold])


def level_of(cost, step=None, box=BOX):
    """Return a level of single steps."""
    return Level(step or Turned(), cost, HORIZON, box)


@DIVISORS
def test_a_plan_of_held_actions_is_the_plan_of_single_steps_that_repeats_them(hold):
    cost = costs.weighted((1.0, costs.Distance(GOAL, "sum")), (0.1, costs.Effort()))
    tried = normal(30, HORIZON // hold, 2, seed=2)
    coarse = level_of(cost)
    found = held(coarse, S, Tried(tried), hold, generator())
    fine = plan(level_of(at_ends(cost, hold)), S, Tried(tried.repeat_interleave(hold, 1)), generator())
    torch.testing.assert_close(found.actions, fine.actions)
    torch.testing.assert_close(found.value, fine.value)
    torch.testing.assert_close(found.states[:, hold - 1 :: hold], fine.states[:, hold - 1 :: hold])
    assert torch.equal(found.states[:, ::hold], found.states[:, hold - 1 :: hold])  # those at the ends, all along
    assert torch.equal(found.length, fine.length) and found.length.tolist() == [HORIZON] * 4
    assert torch.equal(found.evaluations, fine.evaluations)
    assert found.evaluations.tolist() == [coarse.step.count] * 4 == [HORIZON * (30 + 1)] * 4  # of single steps


@DIVISORS
def test_the_best_held_plan_is_the_closed_form(hold):
    # min ‖g − s − h Σ b‖² + w Σ ‖b‖² over n = T / h blocks: b = h (g − s) / (h T + w)
    cost = costs.weighted((1.0, costs.Distance(GOAL)), (0.1, costs.Effort()))
    free = level_of(cost, lambda s, a, z: s + a, Box(2))
    found = held(free, S, Descent(60, 0.01), hold, generator())
    exact = hold * (GOAL - S) / (hold * HORIZON + 0.1)
    torch.testing.assert_close(found.actions, exact.unsqueeze(1).expand(-1, HORIZON, -1), rtol=0, atol=1e-6)


@DIVISORS
def test_no_held_action_is_longer_than_its_limit(hold):
    found = held(level_of(costs.Distance(GOAL)), S, Descent(10, 1.0, 3), hold, generator())
    length = found.actions.norm(dim=-1)
    assert (length <= 0.4).all() and length.amax() > 0.399
    blocks = found.actions.unflatten(1, (-1, hold))
    assert torch.equal(blocks, blocks[:, :, :1].expand_as(blocks))


@DIVISORS
def test_a_start_is_the_first_guess_by_the_first_action_of_each_block(hold):
    start = 0.1 * normal(4, HORIZON, 2, seed=3)
    found = held(level_of(costs.Distance(GOAL)), S, Descent(0), hold, generator(), start)
    torch.testing.assert_close(found.actions, BOX.project(start)[:, ::hold].repeat_interleave(hold, 1))
    unguessed = held(level_of(costs.Distance(GOAL)), S, Descent(0), hold, generator())
    assert not unguessed.actions.any()


@pytest.mark.parametrize("hold", [-2, -1, 0, 4, 5, 7, 12])
def test_hold_that_does_not_divide_the_horizon_is_refused(hold):
    with pytest.raises(ValueError, match=f"^hold: expected a divisor of the horizon 6, found {hold}"):
        held(level_of(costs.Distance(GOAL)), S, Descent(1), hold, generator())


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_start_of_another_length_is_refused(steps):
    with pytest.raises(ValueError, match=rf"^start: expected \[4, 6, 2\], found \[4, {steps}, 2\]"):
        held(level_of(costs.Distance(GOAL)), S, Descent(1), 2, generator(), torch.zeros(4, steps, 2))


@pytest.mark.parametrize("times", [1, 2, 5])
def test_repeated_step_takes_the_same_action_and_latent_so_often(times):
    def step(s, a, z):
        """Return a step that is not linear."""
        return (s + a).sin() * z

    s, a, z = normal(4, 3, 2), normal(1, 3, 2, seed=4), normal(4, 1, 1, seed=5)
    expected = s
    for _ in range(times):
        expected = step(expected, a, z)
    assert torch.equal(repeated(step, times)(s, a, z), expected)
    assert not torch.equal(expected, repeated(step, times + 1)(s, a, z))
