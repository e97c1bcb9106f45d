"""What `control` plans by, and levels of episodes that differ in their step."""

from __future__ import annotations

import torch
from conftest import generator

from jepa.bound import Bound
from jepa.planning import Box, Control, Distance, Level, TreeSearch, control, episodic, moves, planners

BOX, SEARCH = Box(2, norm=1.0), TreeSearch(hold=1, reach=1.0, cell=0.5, tolerance=0.25)


class Plants:
    """Episodes s' = s + g a, seen as they are, each with a gain g of its own."""

    limit = 1.0

    def __init__(self, s, gain):
        self.s, self.gain, self.goal = s, gain, torch.tensor([[3.0, 0.0], [0.0, 6.0], [-1.0, 1.0]])

    def observe(self):
        """Return s [B, 2]."""
        return self.s

    def act(self, a):
        """Return s after actions [B, 2]."""
        self.s = self.s + self.gain * a
        return self.s


def step_of(gain):
    """Return the step of episodes with gains [B, 1]."""
    return Bound(lambda parts, rows, s, a, z: s + parts[rows].unsqueeze(1) * a, gain)


def test_a_tree_and_then_single_moves_lead_to_the_goal_of_each_episode():
    gain = torch.tensor([[1.0], [2.0], [0.5]])
    acting = Plants(torch.zeros(3, 2), gain)
    level = episodic(Level(step_of(gain), Distance(acting.goal), 64, BOX))
    pair = planners(SEARCH, moves(BOX, 16, (1.0, 0.5, 0.2)))
    settings = Control(steps=16, arrived=0.1, near=1.0, deviation=0.1)
    log = control(acting, lambda seen: seen, level, pair, generator(), settings)
    assert ((acting.s - acting.goal).square().sum(1) <= 0.1).all() and (log.plans == 1).all()
    seen, done = log.states[:, 1:] - log.states[:, :-1], gain.unsqueeze(1) * log.actions
    torch.testing.assert_close(seen, done, atol=1e-5, rtol=0)  # no deviation: each was planned with its own gain


def test_a_step_that_all_share_stays_as_it_is():
    def step(s, a, z):
        """Return s + a."""
        return s + a

    level = episodic(Level(step, Distance(torch.rand(4, 2)), 1, BOX)).rows(torch.tensor([2, 2]))
    assert level.step is step and len(level.cost.goal) == 2
    own = episodic(Level(step_of(torch.rand(4, 1)), Distance(torch.rand(4, 2)), 1, BOX)).rows(torch.tensor([3]))
    assert own.step(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), torch.zeros(1, 1, 0)).shape == (1, 1, 2)
