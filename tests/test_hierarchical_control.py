"""Hierarchical control in worlds that are known: who plans when, what is counted, gates that nobody knew were shut."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import generator, normal

from jepa.planning import Box, Level, episodic, moves
from jepa.planning.hierarchical import (
    Descending,
    Hierarchy,
    Lower,
    Proposal,
    Rounds,
    Rules,
    Sampled,
    Sampling,
    Searching,
    Settings,
    Upper,
    control,
)
from jepa.planning.hierarchical.proposals import UNREACHED
from jepa.planning.minimizers import Descent
from jepa.planning.search import Search

BOX = Box(2, norm=1.0)
SERVO = moves(BOX, 12, (1.0, 0.5, 0.2)).double()
RULES = Rules(near=0.4, missed=0.8, patience=10, stall=3)
GATES = {"shut": (0.0, 1.0), "open": (9.0, 10.0)}  # heights of the gates in the wall at x = 5


class Seen:
    """Points that move by a step; only what they show can be read, and actions are taken."""

    def __init__(self, start, step):
        self.__dict__["_kept"] = (start, step)

    def __getattribute__(self, name):
        if name in ("observe", "act", "__dict__", "__class__"):
            return object.__getattribute__(self, name)
        raise AssertionError(f"{name} was read")

    def observe(self):
        return 2 * self.__dict__["_kept"][0]

    def act(self, a):
        place, step = self.__dict__["_kept"]
        assert (a.norm(dim=1) <= 1 + 1e-6).all() and a.isfinite().all()
        self.__dict__["_kept"] = (step(place.unsqueeze(1), a.unsqueeze(1), None)[:, 0], step)
        return self.observe()


def encode(pictures):
    """Return the places of what is seen."""
    return pictures / 2


def free(s, a, z):
    """Return where a step ends that nothing stops."""
    return s + a


def walled(gates):
    """Return the step in a world with a wall at x = 5 that has some gates: who runs into it stays."""

    def step(s, a, z):
        after = s + a
        return torch.where(blocked(gates, s, after).unsqueeze(-1), s.expand_as(after), after)

    return step


def blocked(gates, s, after):
    """Return which steps run into the wall."""
    one, other = s[..., 0] - 5, after[..., 0] - 5
    share = one / (one - other).where(one != other, 1.0)
    height = s[..., 1] + share * (after[..., 1] - s[..., 1])
    through = torch.zeros_like(height, dtype=torch.bool)
    for name in gates:
        through |= (height >= GATES[name][0]) & (height <= GATES[name][1])
    return ((one < 0) != (other < 0)) & ~through


def ring(length, headings=8):
    """Return moves [headings, 2] of one length."""
    angle = 2 * math.pi * torch.arange(headings, dtype=torch.float64) / headings
    return length * torch.stack([angle.cos(), angle.sin()], -1)


class Counted:
    """A step that counts the states it is asked for."""

    def __init__(self, step):
        self.step, self.total = step, 0

    def __call__(self, s, a, z):
        after = self.step(s, a, z)
        self.total += after.shape[0] * after.shape[1]
        return after


def unasked(states, actions):
    """A cost that nobody asks, because the goal is somebody else's to name."""
    raise AssertionError("the level's own cost was asked")


unasked.rows = lambda index: unasked


def world(gates, believed):
    """Return the steps of both levels, which count, the lowest level, and what makes planners of the upper one."""
    steps = Counted(walled(gates)), Counted(free)
    lowest = episodic(Level(steps[0], unasked, 1, BOX))
    passage = lambda s, after, a: torch.where(blocked(believed, s, after), torch.inf, 0.0)  # noqa: E731
    upper = episodic(Level(steps[1], unasked, 1, Box(2, norm=2.0), 2, passage=passage))
    how = Search(ring(2.0), cell=1.0, tolerance=1.0, greed=0.5, rotate=False)

    def planner(rounds, kind="search"):
        search = Searching(upper, how, Lower(lowest, RULES, SERVO), rounds)
        if kind == "sampled":
            return Sampling(upper, Sampled(6, 64, 4, 8, 4, spread=1.5), Lower(lowest, RULES, SERVO), 1.0)
        if kind == "gradient":
            return Descending(upper, Lower(lowest, RULES, SERVO), search, Descent(20, 0.05))
        return search

    return steps, lowest, planner


def driven(gates, believed, rounds, settings=None, kind="search", batch=3, **changes):
    """Return the log of episodes from the left of the wall to its right, and the steps, which counted."""
    start = torch.tensor([[2.0, 0.5], [1.0, 1.5], [3.0, 0.0]]).double()[:batch]
    goal = torch.tensor([[8.0, 0.5], [9.0, 1.0], [8.0, 0.0]]).double()[:batch]
    steps, lowest, planner = world(gates, believed)
    of = Hierarchy(lowest, SERVO, (Upper(planner(rounds, kind), RULES),), goal)
    numbers = {"steps": 60, "arrived": 0.2, "near": 1.2, "weight": 30.0, "spread": 1.0, "keep": True} | changes
    log = control(Seen(start, walled(gates)), encode, of, generator(), settings or Settings(**numbers))
    return log, steps, goal


def arrived(log, goal):
    """Return which episodes end at their goals."""
    return (log.states[:, -1] - goal).norm(dim=1) <= 0.3


BOTH, ONE = ("shut", "open"), ("open",)


@pytest.mark.parametrize("kind", ["search", "sampled", "gradient"])
@pytest.mark.parametrize("rounds", [Rounds(1), Rounds(6)])
def test_all_planners_arrive_where_nothing_is_shut_and_count_exactly(kind, rounds):
    log, steps, goal = driven(BOTH, BOTH, rounds, kind=kind)
    assert arrived(log, goal).all()
    assert log.evaluations.sum(0).tolist() == [step.total for step in steps]
    assert log.states.shape == (3, 61, 2) and log.actions.shape == (3, 60, 2)
    assert (log.actions.norm(dim=-1) <= 1 + 1e-6).all()


def test_without_experience_a_greedy_planner_repeats_its_plan_at_a_shut_gate():
    log, steps, goal = driven(ONE, BOTH, Rounds(1), experience=False)
    assert not arrived(log, goal).any() and (log.states[..., 0] < 5).all()
    assert (log.failed > 5).all() and (log.plans > 5).all()
    last = [kept for kept in log.kept if bool((kept.rows == 0).any())][-2:]
    one, other = (
        kept.proposal.states[at, : kept.proposal.length[at]]
        for kept in last
        for at in (kept.rows == 0).nonzero()[0].tolist()
    )
    assert torch.equal(one, other)
    assert log.evaluations.sum(0).tolist() == [step.total for step in steps]


def test_with_experience_it_goes_around():
    log, steps, goal = driven(ONE, BOTH, Rounds(1))
    assert arrived(log, goal).all() and (log.failed >= 1).all()
    assert log.evaluations.sum(0).tolist() == [step.total for step in steps]


def test_the_iterated_planner_goes_around_at_once():
    log, steps, goal = driven(ONE, BOTH, Rounds(20))
    greedy, _, _ = driven(ONE, BOTH, Rounds(1))
    assert arrived(log, goal).all() and (log.failed == 0).all() and (log.plans == 1).all()
    first = [((found.states - goal[:, None]).norm(dim=-1) <= 0.3).double().argmax(1) for found in (log, greedy)]
    assert (first[0] < first[1]).all()
    assert log.evaluations.sum(0).tolist() == [step.total for step in steps]  # what is imagined counts
    trace = log.kept[0].proposal.trace
    assert len(trace) > 1 and (trace[0].unmet >= 0).all()


def test_who_is_told_of_the_gate_needs_no_thought():
    log, _, goal = driven(ONE, ONE, Rounds(1), experience=False)
    assert arrived(log, goal).all() and (log.failed == 0).all()


@pytest.mark.parametrize("budget", [1, 60, 2500])
def test_beyond_the_budget_no_more_plans_are_made(budget):
    log, _, _ = driven(ONE, BOTH, Rounds(4), budget=budget)
    spent = torch.zeros(3, dtype=torch.long)
    for kept in log.kept:
        assert (spent[kept.rows] < budget).all()
        assert (kept.proposal.upper <= budget - spent[kept.rows]).all()
        spent[kept.rows] += kept.proposal.upper + kept.proposal.lower
    more, _, _ = driven(ONE, BOTH, Rounds(4))
    assert log.plans.sum() <= more.plans.sum()
    if budget == 1:
        assert (log.plans == 1).all() and (log.evaluations[:, 1] == 0).all()


def test_most_plans_of_an_episode():
    log, _, _ = driven(ONE, BOTH, Rounds(1), experience=False, plans=2)
    assert (log.plans == 2).all()


def test_episodes_do_not_influence_each_other():
    together, _, goal = driven(ONE, BOTH, Rounds(3))
    for count in (1, 2):
        fewer, _, _ = driven(ONE, BOTH, Rounds(3), batch=count)
        assert torch.equal(fewer.states, together.states[:count])
        assert torch.equal(fewer.evaluations, together.evaluations[:count])


def test_who_has_arrived_rests_and_is_asked_for_nothing():
    steps, lowest, planner = world(BOTH, BOTH)
    goal = torch.tensor([[8.0, 0.5], [1.0, 0.5]]).double()
    of = Hierarchy(lowest, SERVO, (Upper(planner(Rounds(1)), RULES),), goal)
    start = torch.tensor([[2.0, 0.5], [1.1, 0.5]]).double()
    log = control(Seen(start, walled(BOTH)), encode, of, generator(), Settings(40, 0.2, 1.2))
    assert (log.actions[1] == 0).all() and log.evaluations[1].sum() == 0 and log.plans.tolist() == [1, 0]


def test_there_are_episodes_and_settings_can_be():
    _, lowest, planner = world(BOTH, BOTH)
    of = Hierarchy(lowest, SERVO, (Upper(planner(Rounds(1)), RULES),), torch.zeros(0, 2).double())
    with pytest.raises(ValueError, match="acting: expected at least one episode, found none"):
        control(Seen(torch.zeros(0, 2).double(), free), encode, of, generator(), Settings())
    for change in ({"steps": 0}, {"arrived": -1.0}, {"near": math.nan}, {"plans": 0}, {"budget": 0}):
        with pytest.raises(ValueError, match="settings"):
            Settings(**change)


# Three levels.


def tower(step=free):
    """Return three levels in the plane, by steps of length 1, 2 and 6."""
    counted = [Counted(step), Counted(free), Counted(free)]
    lowest = episodic(Level(counted[0], unasked, 1, BOX))
    second = episodic(Level(counted[1], unasked, 1, Box(2, norm=2.0), 2))
    third = episodic(Level(counted[2], unasked, 1, Box(2, norm=6.0), 6))
    of_second = Search(ring(2.0, 12), cell=1.0, tolerance=1.0, greed=0.5, rotate=False)
    of_third = Search(ring(6.0, 12), cell=3.0, tolerance=9.0, greed=1 / 6, rotate=False)
    between = Rules(near=1.0, missed=2.0, patience=24, stall=12)
    return counted, lowest, (second, of_second), (third, of_third), between


@pytest.mark.parametrize("rounds", [Rounds(1), Rounds(4)])
def test_three_levels_arrive_and_late_plans_lead_to_what_is_asked_for_above(rounds):
    counted, lowest, (second, of_second), (third, of_third), between = tower()
    below = Lower(lowest, RULES, SERVO)
    uppers = (
        Upper(Searching(second, of_second, below, rounds), RULES),
        Upper(Searching(third, of_third, Lower(second, between, search=of_second), rounds), between),
    )
    start = normal(4, 2, seed=1)
    goal = start + torch.tensor([[20.0, 3.0], [-14.0, 14.0], [0.0, -25.0], [8.0, 8.0]]).double()
    of = Hierarchy(lowest, SERVO, uppers, goal)
    log = control(Seen(start, free), encode, of, generator(), Settings(60, 0.2, 3.0, keep=True))
    assert arrived(log, goal).all() and (log.failed == 0).all()
    assert log.evaluations.sum(0).tolist() == [step.total for step in counted]
    assert (log.plans >= 1).all()
    for b in range(4):
        asked, number = None, 0
        for kept in log.kept:
            at = (kept.rows == b).nonzero()[:, 0]
            if not len(at):
                continue
            states = kept.proposal.states[at[0], : kept.proposal.length[at[0]]]
            if kept.level == 3:
                asked, number = states, 0
                continue
            torch.testing.assert_close(kept.start[at[0]], log.states[b, kept.step])
            apart = (asked - states[-1]).norm(dim=-1)
            assert apart.amin() <= 1.0 + 1e-6  # of level 2's search
            assert apart.argmin() >= number  # one condition after the other
            number = int(apart.argmin())
            assert len(states) <= 8  # level 2 plans as far as the next condition, not to the goal
        assert number == len(asked) - 1 or (log.states[b, -1] - goal[b]).norm() <= 3


class Told:
    """A planner that proposes what it is told to, one plan after the other, and keeps what it was asked for."""

    def __init__(self, *plans):
        self.plans, self.asked = list(plans), []

    def __call__(self, rows, s, target, memory, generator, left):
        self.asked.append((s.clone(), target.clone(), memory.known.sum().item()))
        states, cost = self.plans.pop(0) if len(self.plans) > 1 else self.plans[0]
        states = torch.tensor(states, dtype=s.dtype).view(1, -1, 2).expand(len(s), -1, -1)
        one = torch.ones(len(s), dtype=torch.long)
        none = states.new_zeros(len(s), states.shape[1], 1)
        return Proposal(states, states.shape[1] * one, none, cost * torch.ones(len(s)), 3 * one, 2 * one, []), memory


def test_what_a_level_cannot_lead_to_is_planned_again_above_and_anew_below():
    lowest = Level(free, unasked, 1, BOX)
    third = Told(([[50.0, 0.0]], 1.0), ([[0.0, 5.0]], 1.0))
    second = Told(([[9.0, 0.0]], UNREACHED + 1), ([[0.0, 5.0]], 1.0))
    rules = Rules(0.4, 0.8, 40, 9)
    of = Hierarchy(lowest, SERVO, (Upper(second, rules), Upper(third, rules)), torch.tensor([[0.0, 20.0]]).double())
    log = control(Seen(torch.zeros(1, 2).double(), free), encode, of, generator(), Settings(4, 0.1, 0.5, keep=True))
    assert log.failed.tolist() == [1] and log.plans.tolist() == [2]
    assert [target[0].tolist() for _, target, _ in third.asked] == [[0.0, 20.0]] * 2
    assert [known for *_, known in third.asked] == [0, 1]  # the level above remembers
    assert [target[0].tolist() for _, target, _ in second.asked] == [[50.0, 0.0], [0.0, 5.0]]
    assert [kept.step for kept in log.kept] == [0, 0, 1, 1]  # the level below does not go on with what is over
    assert log.evaluations.tolist() == [[4 * len(SERVO) + 2 * 2, 2 * 3 + 2 * 2, 2 * 3]]


def test_a_level_plans_when_the_one_above_goes_on():
    lowest = Level(free, unasked, 1, BOX)
    third = Told(([[0.0, 2.0], [0.0, 4.0]], 1.0))
    second = Told(([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], 1.0), ([[0.0, 4.0]], 1.0))
    rules = Rules(0.1, 0.2, 40, 9)
    of = Hierarchy(lowest, SERVO, (Upper(second, rules), Upper(third, rules)), torch.tensor([[0.0, 4.0]]).double())
    log = control(Seen(torch.zeros(1, 2).double(), free), encode, of, generator(), Settings(6, 0.1, 0.1, keep=True))
    assert [(kept.step, kept.level) for kept in log.kept] == [(0, 3), (0, 2), (2, 2)]
    assert [target[0].tolist() for _, target, _ in second.asked] == [[0.0, 2.0], [0.0, 4.0]]
    torch.testing.assert_close(second.asked[1][0], torch.tensor([[0.0, 2.0]]).double())
    assert (log.states[0, -1] - of.goal[0]).norm() < 0.1


def test_levels_are_seen_through_what_raises_states():
    lowest = episodic(Level(free, unasked, 1, BOX, up=lambda s: 10 * s))
    upper = episodic(Level(free, unasked, 1, Box(2, norm=20.0), 2))
    how = Search(ring(20.0), cell=10.0, tolerance=100.0, greed=0.05, rotate=False)
    rules = Rules(4.0, 8.0, 10, 3)
    plan = Searching(upper, how, Lower(lowest, rules, SERVO), Rounds(1))
    start, goal = normal(3, 2, seed=1), normal(3, 2, seed=2) + 8
    of = Hierarchy(lowest, SERVO, (Upper(plan, rules),), 10 * goal)
    log = control(Seen(start, free), encode, of, generator(), Settings(30, 2.0, 12.0, spread=10.0, keep=True))
    assert arrived(log, goal).all()
    assert torch.equal(log.kept[0].start, 10 * start)
