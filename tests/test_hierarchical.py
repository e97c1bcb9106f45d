"""Plans over two levels: the iterated planner as a lazy search, joint costs in closed form, conditions and memory."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from conftest import generator, normal
from test_search import Fields, Graphs, fields, graphs, lattice, place, settings

from jepa.planning import Box, Level, episodic
from jepa.planning.costs import Distance
from jepa.planning.hierarchical import (
    Course,
    Descending,
    Lower,
    Memory,
    Proposal,
    Rounds,
    Rules,
    Sampled,
    Sampling,
    Searching,
    descended,
    joint,
    propose,
    sampled,
)
from jepa.planning.hierarchical.proposals import MISSED, UNREACHED
from jepa.planning.hierarchical.pursuit import toward
from jepa.planning.level import selected
from jepa.planning.minimizers import Descent
from jepa.planning.passages import Passages, with_passage
from jepa.planning.search import search

NODES = 10
ONCE = Rules(near=1.0, missed=2.0, patience=1, stall=1)  # of a lower level that goes from node to node in a step
EXACT = {"weight": 1e4, "spread": 1.0}  # a memory of the very transition, which is never taken again


def doubtful(seed, batch=6, share=0.35, shut=0.25):
    """Return graphs that an upper level believes in, the same with some edges shut, starts, and both lists of edges."""
    believed, start, _ = graphs(batch, NODES, seed, share)
    closed = torch.rand(believed.weights.shape, generator=generator(seed + 1000)) < shut
    true = Graphs(torch.where(closed, torch.inf, believed.weights), believed.goal)
    exact, count = [], []
    for b in range(batch):
        graph = nx.DiGraph()
        graph.add_nodes_from(range(NODES))
        graph.add_weighted_edges_from((i, j, true.weights[b, i, j].item()) for i, j in edges(true, b))
        lengths = nx.single_source_dijkstra_path_length(graph, start[b].item())
        exact.append(lengths.get(believed.goal[b].item(), math.inf))
        count.append(len(edges(believed, b)) - len(edges(true, b)))
    return believed, true, start, torch.tensor(exact, dtype=torch.float64), count


def edges(world, b):
    """Return the edges of an episode's graph, without those from a node to itself."""
    return [(i, j) for i, j in world.weights[b].isfinite().nonzero().tolist() if i != j]


def pursuing(world):
    """Return a lower level that goes from node to node."""
    return Lower(world.level._replace(passage=None), ONCE, torch.arange(NODES, dtype=torch.float64).unsqueeze(1))


def nothing(s, weight=10.0, spread=2.5):
    """Return a memory of nothing."""
    return Memory.empty(s, weight, spread)


@pytest.mark.parametrize("seed", range(8))
def test_the_iterated_planner_is_a_lazy_search(seed):
    believed, true, start, exact, shut = doubtful(seed)
    s, rounds = place(start), Rounds(most=max(shut) + 1)
    proposal, memory = propose(
        (believed.level, settings(NODES)), pursuing(true), s, generator(), nothing(s, **EXACT), rounds
    )
    reached = exact.isfinite()
    torch.testing.assert_close(proposal.cost[reached], exact[reached], atol=1e-3, rtol=0)
    assert (proposal.cost[~reached] >= MISSED).all()
    for b in reached.nonzero()[:, 0].tolist():
        nodes = [start[b].item(), *(proposal.states[b, : proposal.length[b], 0] / 100).round().long().tolist()]
        way = sum(true.weights[b, i, j].item() for i, j in zip(nodes, nodes[1:], strict=False))
        assert way == pytest.approx(exact[b].item(), abs=1e-3)
        mine = [(r.unmet[r.rows == b].item(), r) for r in proposal.trace if (r.rows == b).any()]
        assert len(mine) <= shut[b] + 1 and mine[-1][0] == -1 and all(unmet >= 0 for unmet, _ in mine[:-1])
        failed = memory.failed[b][memory.known[b]]
        assert len(failed) == len(mine) - 1
        pairs = [tuple((pair[:, 0] / 100).round().long().tolist()) for pair in failed]
        assert len(set(pairs)) == len(pairs)  # no edge is asked for twice
        assert all(true.weights[b, i, j].isinf() and believed.weights[b, i, j].isfinite() for i, j in pairs)


def test_the_iterated_planner_counts_what_both_levels_are_asked_for():
    believed, true, start, _, _ = doubtful(3)
    s = place(start)
    for rounds in (Rounds(1), Rounds(3), Rounds(20)):
        believed.total.zero_()
        true.total.zero_()
        proposal, _ = propose((believed.level, settings(NODES)), pursuing(true), s, generator(), nothing(s), rounds)
        assert torch.equal(proposal.upper, believed.total) and torch.equal(proposal.lower, true.total)
        assert len(proposal.trace) <= rounds.most


@pytest.mark.parametrize("limit", [0, 10, 50, 200])
def test_no_round_begins_beyond_the_budget(limit):
    believed, true, start, _, _ = doubtful(5)
    s, left = place(start), torch.full((6,), limit)
    proposal, _ = propose(
        (believed.level, settings(NODES)), pursuing(true), s, generator(), nothing(s), Rounds(20), left
    )
    assert (proposal.upper <= limit).all()
    assert not proposal.cost.isnan().any()
    free, _ = propose((believed.level, settings(NODES)), pursuing(true), s, generator(), nothing(s), Rounds(20))
    assert (proposal.upper <= free.upper).all()
    if limit == 0:
        assert (proposal.upper == 0).all() and (proposal.length == 0).all()
        assert torch.equal(proposal.cost >= UNREACHED, start != believed.goal)


def test_episodes_are_thought_about_apart():
    believed, true, start, _, _ = doubtful(7)
    s = place(start)
    together, memory = propose(
        (believed.level, settings(NODES)), pursuing(true), s, generator(), nothing(s, **EXACT), Rounds(30)
    )
    for b in range(6):
        one = torch.tensor([b])
        alone, own = propose(
            (believed.rows(one), settings(NODES)), pursuing(Graphs(true.weights[one], true.goal[one])), s[one],
            generator(), nothing(s[one], **EXACT), Rounds(30),
        )  # fmt: skip
        length = int(alone.length)
        assert together.cost[b] == alone.cost[0] and together.length[b] == length
        assert torch.equal(together.states[b, :length], alone.states[0, :length])
        assert together.upper[b] == alone.upper[0] and together.lower[b] == alone.lower[0]
        assert torch.equal(memory.failed[b][memory.known[b]], own.failed[0][own.known[0]])


@pytest.mark.parametrize("rounds", [Rounds(1), Rounds(8, weight=0.0), Rounds(1, weight=0.0)])
def test_one_round_or_no_weight_below_is_greedy_to_the_bit(rounds):
    believed, true, start, _, _ = doubtful(2)
    s = place(start)
    found = search(believed.level, s, generator(), settings(NODES))
    proposal, memory = propose((believed.level, settings(NODES)), pursuing(true), s, generator(), nothing(s), rounds)
    assert torch.equal(proposal.states, found.plan.states) and torch.equal(proposal.actions, found.plan.actions)
    assert torch.equal(proposal.length, found.plan.length) and torch.equal(proposal.upper, found.plan.evaluations)
    assert (proposal.lower == 0).all() and (true.total == 0).all() and memory.failed.shape[1] == 0
    assert torch.equal(proposal.cost[found.total.isfinite()], found.total[found.total.isfinite()])


def test_an_upper_level_that_is_the_one_below_plans_as_a_flat_search_does_to_the_bit():
    world, s, exact = fields(6, 1)
    flat = search(world.level, s, generator(5), lattice(greed=1.0))
    lower = Lower(world.level, Rules(0.1, 0.1, 3, 2), lattice().moves)
    plan = Searching(world.level, lattice(greed=1.0), lower, Rounds(8))
    proposal, memory = plan(torch.arange(6), s, world.goal, nothing(s), generator(5), None)
    assert torch.equal(proposal.states, flat.plan.states) and torch.equal(proposal.actions, flat.plan.actions)
    reached = exact.isfinite()
    assert torch.equal(proposal.cost[reached], flat.total[reached])  # all that is asked for is met
    assert memory.failed.shape[1] == 0 and (proposal.cost[~reached] >= UNREACHED).all()
    assert torch.equal(proposal.lower, len(lattice().moves) * proposal.length)


def test_planners_are_asked_for_some_episodes_and_for_goals_of_their_own():
    world, s, _ = fields(8, 6, share=0.1)
    goals = world.goal.flip(0)
    rows = torch.tensor([6, 1, 3])
    level = Fields(world.blocked, world.extra, torch.full_like(world.goal, math.nan)).level  # its cost is not asked
    lower = Lower(level, Rules(0.1, 0.1, 3, 2), lattice().moves)
    proposal, _ = Searching(level, lattice(), lower, Rounds(4))(
        rows, s[rows], goals[rows], nothing(s[rows]), generator(), None
    )
    found = search(Fields(world.blocked[rows], world.extra[rows], goals[rows]).level, s[rows], generator(), lattice())
    assert torch.equal(proposal.states, found.plan.states) and torch.equal(proposal.length, found.plan.length)


def test_thought_in_one_way_only():
    world, s, _ = fields(2, 0)
    with pytest.raises(ValueError, match="lower: expected moves or a search, found neither"):
        propose((world.level, lattice()), Lower(world.level, ONCE), s, generator(), nothing(s), Rounds(1))
    for bad in ({"most": 0}, {"weight": -1.0}, {"weight": math.nan}, {"weight": math.inf}):
        with pytest.raises(ValueError, match="expected"):
            Rounds(**bad)


# Joint costs on linear worlds.

UPPER, BELOW, STRIDE = Box(2), Box(2), 3
REACH = torch.tensor([1.0, 0.2], dtype=torch.float64)  # what an action of the lower level moves, by axis


def linear(goal, counted=None, reach=REACH):
    """Return an upper level s' = s + a, a lower one s' = s + reach · a, and how many states they were asked for."""
    counted = [0, 0] if counted is None else counted

    def step(number, scale):
        def of(s, a, z):
            new = s + scale * a
            counted[number] += new.shape[0] * new.shape[1]
            return new

        return of

    upper = episodic(Level(step(0, 1.0), Distance(goal), 1, UPPER, STRIDE))
    return upper, episodic(Level(step(1, reach), Distance(goal), 1, BELOW)), counted


def quadratic(s, goal, steps, weight, reach):
    """Return A and b of J(x) = ‖A x + b‖² on one axis, x the actions of the upper level, then of the lower one."""
    last = np.zeros((1, steps * (1 + STRIDE)))
    last[0, :steps] = 1
    rows, offsets = [last], [s - goal]
    for i in range(1, steps + 1):
        row = np.zeros((1, steps * (1 + STRIDE)))
        row[0, :i], row[0, steps : steps + i * STRIDE] = -1, reach
        rows.append(math.sqrt(weight) * row)
        offsets.append(0.0)
    return np.concatenate(rows), np.array(offsets)


def least(a, b):
    """Return min_x ‖A x + b‖²."""
    x = np.linalg.lstsq(a, -b, rcond=None)[0]
    return float(np.square(a @ x + b).sum())


def first_plan(s, steps, seed=0):
    """Return a proposal of random actions."""
    actions = 0.5 * normal(len(s), steps, 2, seed=seed)
    zero = torch.zeros(len(s), dtype=torch.long)
    return Proposal(s[:, None] + actions.cumsum(1), zero + steps, actions, zero.double(), zero, zero, [])


@pytest.mark.parametrize("reach", [(1.0, 0.2), (1.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_descent_reaches_the_minimum_of_a_quadratic_joint_cost(reach, weight):
    s, goal, steps = normal(3, 2, seed=1), 2 * normal(3, 2, seed=2), 3
    upper, lower, _ = linear(goal, reach=torch.tensor(reach, dtype=torch.float64))
    found = descended(upper, lower, s, first_plan(s, steps), generator(), Descent(400, 0.05), weight, STRIDE)
    for b in range(3):
        exact = sum(least(*quadratic(s[b, d].item(), goal[b, d].item(), steps, weight, reach[d])) for d in range(2))
        assert found.cost[b].item() == pytest.approx(exact, abs=1e-6)
    torch.testing.assert_close(found.states, s[:, None] + found.actions.cumsum(1))
    if weight == 0:
        torch.testing.assert_close(found.states[:, -1], goal, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [0, 1, 3, 10, 60])
def test_descent_never_raises_the_joint_cost_and_counts_exactly(steps):
    s, goal, weight = normal(4, 2, seed=3), 2 * normal(4, 2, seed=4), 1.5
    upper, lower, counted = linear(goal)
    first = first_plan(s, 2)
    for restarts in (1, 3):
        counted[:] = [0, 0]
        found = descended(upper, lower, s, first, generator(), Descent(steps, 0.05, restarts), weight, STRIDE)
        assert (4 * found.upper[0], 4 * found.lower[0]) == tuple(counted)
        assert len(set(found.upper.tolist())) == len(set(found.lower.tolist())) == 1
        end, all_ = first.states[:, -1] - goal, first.states - s[:, None]
        before = end.square().sum(1) + weight * all_.square().sum((1, 2))  # the lower level stays where it is
        assert (found.cost <= before + 1e-12).all()
        if steps == 0 and restarts == 1:
            torch.testing.assert_close(found.cost, before)
            assert torch.equal(found.actions, first.actions)


def test_the_first_descent_realizes_the_proposal():
    s, goal, weight = normal(4, 2, seed=3), 2 * normal(4, 2, seed=4), 5.0
    upper, lower, _ = linear(goal)
    first = first_plan(s, 2)
    found = descended(upper, lower, s, first, generator(), Descent(300, 0.05), weight, STRIDE)
    realized = (first.states[:, -1] - goal).square().sum(1)  # no mismatch is left
    assert (found.cost <= realized + 1e-6).all()


def test_what_is_behind_the_end_of_a_plan_does_not_count():
    s, goal = normal(2, 2, seed=5), 2 * normal(2, 2, seed=6)
    upper, lower, _ = linear(goal)
    long = first_plan(s, 3)._replace(length=torch.tensor([1, 3]))
    found = descended(upper, lower, s, long, generator(), Descent(200, 0.05), 1.0, STRIDE)
    assert torch.equal(found.length, long.length)
    assert torch.equal(found.actions[0, 1:], long.actions[0, 1:])
    none = first_plan(s, 0)
    assert descended(upper, lower, s, none, generator(), Descent(5), 1.0, STRIDE) is none


def test_descended_actions_keep_within_the_limits_of_both_levels():
    s, goal = normal(3, 2, seed=1), 9 * normal(3, 2, seed=2)
    upper, lower, _ = linear(goal)
    upper, lower = (level._replace(actions=Box(2, norm=0.5)) for level in (upper, lower))
    found = descended(upper, lower, s, first_plan(s, 3), generator(), Descent(50, 0.5), 0.1, STRIDE)
    assert (found.actions.norm(dim=-1) <= 0.5).all()
    shortest = ((goal - s).norm(dim=1) - 1.5).clamp(min=0)
    assert ((found.states[:, -1] - goal).norm(dim=1) >= shortest - 1e-9).all()


def test_descent_is_told_what_can_be():
    s = normal(2, 2)
    upper, lower, _ = linear(s)
    for weight, stride, message in ((-1.0, 3, "weight"), (math.nan, 3, "weight"), (1.0, 0, "stride: expected at le")):
        with pytest.raises(ValueError, match=message):
            descended(upper, lower, s, first_plan(s, 2), generator(), Descent(1), weight, stride)


SERVO = torch.tensor([[0, 0], *[[round(math.cos(a), 9), round(math.sin(a), 9)] for a in np.arange(12) * np.pi / 6]])


def realized(monkeypatch):
    """Return a list that grows by the courses that are realized."""
    kept, old = [], joint.realize

    def watched(level, s, course, moves, whole=False):
        found = old(level, s, course, moves, whole)
        kept.append(course)
        return found

    monkeypatch.setattr(joint, "realize", watched)
    return kept


def sampling(batch=3, weight=1.0, **changes):
    """Return starts, goals, both levels, what they were asked for, and how to sample."""
    s, goal = normal(batch, 2, seed=7), 3 * normal(batch, 2, seed=8)
    upper, lower, counted = linear(goal, reach=torch.ones(2, dtype=torch.float64))
    how = Sampled(
        **({"horizon": 4, "samples": 48, "rounds": 5, "realized": 6, "elites": 3, "weight": weight} | changes)
    )
    return s, goal, upper, Lower(lower, Rules(0.5, 1.0, 8, 2), SERVO), counted, how


def test_the_plan_that_is_chosen_was_realized_and_counts_are_exact(monkeypatch):
    courses = realized(monkeypatch)
    s, goal, upper, lower, counted, how = sampling()
    found = sampled(upper, lower, s, generator(), how, tolerance=0.25)
    assert found.upper.tolist() == [4 * 48 * 5] * 3
    assert counted == [int(found.upper.sum()), int(found.lower.sum())]
    assert len(courses) == how.rounds
    for b in range(3):
        best = math.inf
        for course in courses:
            states, missed = course.states.view(3, 6, 4, 2)[b], course.mismatch.view(3, 6, 4)[b]
            length = course.length.view(3, 6)[b]
            for k in range(6):
                n = int(length[k])
                cost = (states[k, :n] - goal[b]).norm(dim=-1).sum() + (missed[k] - 0.5).clamp(min=0).sum()
                if float(cost) < best:
                    best, chosen = float(cost), (states[k], n)
        assert torch.equal(found.states[b], chosen[0]) and found.length[b] == chosen[1]
        reached = (found.states[b, found.length[b] - 1] - goal[b]).square().sum() <= 0.25
        assert found.cost[b] >= UNREACHED or reached
        if reached:
            assert found.cost[b].item() == pytest.approx(best)


def test_sampled_plans_are_as_good_as_straight_ones_and_better_with_more_rounds():
    s, goal, upper, lower, _, how = sampling(samples=128, rounds=8, elites=6, realized=12)
    found = sampled(upper, lower, s, generator(), how, tolerance=0.25)
    end = found.states[torch.arange(3), found.length - 1]
    assert ((end - goal).square().sum(1) <= 0.25).all() and (found.cost < UNREACHED).all()
    few = sampled(upper, lower, s, generator(), Sampled(4, 128, 1, 12, 6), tolerance=0.25)
    assert (found.cost <= few.cost).all()
    torch.testing.assert_close(found.states, s[:, None] + found.actions.cumsum(1))


def test_without_weight_below_the_upper_cost_decides():
    one, other = (sampling(weight=0.0) for _ in range(2))
    slow = other[3]._replace(level=linear(other[1], reach=torch.zeros(2).double())[1])  # cannot do anything
    plans = [sampled(upper, lower, s, generator(), how, 0.25) for s, _, upper, lower, _, how in (one,)]
    plans.append(sampled(other[2], slow, other[0], generator(), other[5], 0.25))
    assert torch.equal(plans[0].states, plans[1].states) and torch.equal(plans[0].cost, plans[1].cost)


def test_sampled_plans_that_do_not_arrive_say_so():
    s, goal, upper, lower, _, how = sampling(horizon=1)
    far = upper._replace(cost=Distance(goal + 100), actions=Box(2, norm=1.0), rows=None)
    found = sampled(far, lower, s, generator(), how, 0.25)
    assert (found.cost >= UNREACHED).all()
    nearer = (found.cost - UNREACHED).double()
    torch.testing.assert_close(nearer, (found.states[:, 0] - goal - 100).norm(dim=1), atol=1e-2, rtol=1e-3)


def test_sampled_plans_keep_off_what_passages_forbid():
    s, goal, upper, lower, _, how = sampling(samples=128, rounds=8, elites=6, realized=12)
    middle = (s + goal) / 2

    def wall(of, states):
        return torch.where((states - of.unsqueeze(1)).norm(dim=-1) < 0.3, torch.inf, 0.0)

    closed = upper._replace(passage=lambda before, after, a: wall(middle, after), rows=None)
    found = sampled(closed, lower, s, generator(), how, 0.25)
    meant = torch.arange(4) < found.length.unsqueeze(1)
    assert not wall(middle, found.states)[meant].isinf().any()


def test_samplers_are_told_what_can_be():
    bad = [{"horizon": 0}, {"rounds": 0}, {"weight": -1.0}, {"weight": math.inf}, {"spread": 0.0}, {"elites": 0}]
    for change in [*bad, {"elites": 9}, {"realized": 65}, {"spread": math.inf}]:
        with pytest.raises(ValueError, match="expected"):
            Sampled(**change)
    s, goal, upper, lower, _, how = sampling()
    with pytest.raises(ValueError, match="lower: expected a level that pursues by moves, found none"):
        sampled(upper, lower._replace(moves=None), s, generator(), how, 0.25)
    with pytest.raises(ValueError, match="cost: expected numbers, found nan"):
        sampled(upper._replace(cost=lambda s, a: s[:, :, 0, 0] * math.nan), lower, s, generator(), how, 0.25)


def test_planners_sample_and_descend_for_some_episodes():
    s, goal, upper, lower, _, how = sampling(batch=4)
    rows = torch.tensor([2, 0])
    asked = (rows, s[rows], goal[rows], nothing(s[rows]))
    aim = upper._replace(cost=Distance(goal[rows]), rows=None)
    below = lower._replace(level=lower.level._replace(cost=Distance(goal[rows]), rows=None))
    plan = Sampling(upper, how, lower, 0.25)
    one, memory = plan(*asked, generator(), None)
    other = sampled(aim, below, s[rows], generator(), how, 0.25)
    assert torch.equal(one.states, other.states) and memory is asked[3]
    two, _ = Descending(upper, lower, plan, Descent(5), 0.7)(*asked, generator(), None)
    same = descended(aim, below.level, s[rows], other, generator(), Descent(5), 0.7, STRIDE)
    assert torch.equal(two.states, same.states) and torch.equal(two.upper, same.upper)


# What failed, and what is asked for.


def test_memory_costs_what_its_kernel_says():
    s, after = normal(2, 5, 3, seed=1), normal(2, 5, 3, seed=2)
    memory = Memory.empty(s[:, 0], 3.0, 0.8)
    assert (memory(s, after, s) == 0).all()
    pairs = [(torch.tensor([0, 1]), 0), (torch.tensor([1]), 1), (torch.tensor([0]), 2), (torch.tensor([0]), 3)]
    exact = torch.zeros(2, 5, dtype=torch.float64)
    for rows, k in pairs:
        memory = memory.added(rows, s[rows, k], after[rows, k])
        for b in rows.tolist():
            apart = (s[b] - s[b, k]).square().sum(-1) + (after[b] - after[b, k]).square().sum(-1)
            exact[b] += 3.0 * torch.exp(-apart / (2 * 0.8**2))
    torch.testing.assert_close(memory(s, after, s), exact)
    assert memory.known.sum(1).tolist() == [3, 2]
    assert (memory(s, after, s)[0, 0] >= 3.0) and torch.equal(memory.known[1], torch.tensor([True, True, False]))
    index = torch.tensor([1, 0, 1])
    torch.testing.assert_close(memory.rows(index)(s[index], after[index], s[index]), exact[index])
    assert memory.added(torch.tensor([], dtype=torch.long), s[:0, 0], s[:0, 0]) is memory


def test_memories_are_put_in_the_places_of_others():
    s = normal(3, 2, seed=4)
    memory, one = Memory.empty(s, 1.0, 1.0), torch.tensor([1])
    part = memory.rows(one).added(torch.tensor([0]), s[:1], s[1:2]).added(torch.tensor([0]), s[1:2], s[2:])
    grown = memory.replaced(one, part)
    assert grown.known.sum(1).tolist() == [0, 2, 0] and memory.failed.shape[1] == 0
    assert torch.equal(grown.failed[1], part.failed[0])
    shorter = grown.replaced(one, memory.rows(one))
    assert shorter.known.sum(1).tolist() == [0, 0, 0]
    for weight, spread in ((-1, 1), (1, 0), (math.nan, 1), (1, math.nan)):
        with pytest.raises(ValueError, match="weight, spread: expected at least 0 and above 0"):
            Memory.empty(s, weight, spread)


def test_passages_add_up_and_select():
    s, after = normal(3, 4, 2, seed=1), normal(3, 4, 2, seed=2)
    memory = Memory.empty(s[:, 0], 2.0, 1.0).added(torch.arange(3), s[:, 1], after[:, 1])
    both = Passages(None, memory, lambda s, after, a: (after - s).norm(dim=-1))
    index = torch.tensor([2, 2, 0])
    exact = memory(s, after, s) + (after - s).norm(dim=-1)
    torch.testing.assert_close(both(s, after, s), exact)
    torch.testing.assert_close(both.rows(index)(s[index], after[index], s[index]), exact[index])
    assert (Passages(None)(s, after, s) == 0).all()
    level = with_passage(episodic(Level(lambda s, a, z: s + a, Distance(s[:, 0]), 1, Box(2))), memory)
    twice = selected(selected(level, index), torch.tensor([1, 2]))
    at = torch.tensor([2, 0])
    torch.testing.assert_close(twice.passage(s[at], after[at], s[at]), memory.rows(at)(s[at], after[at], s[at]))
    torch.testing.assert_close(twice.cost(s[at][:, :, None], None), Distance(s[at, 0])(s[at][:, :, None], None))


def test_the_best_of_a_few_moves():
    s, target = normal(4, 2, seed=1), normal(4, 2, seed=2)
    level = Level(lambda s, a, z: s + a, None, 1, Box(2))
    a, after = toward(level, s, target, SERVO)
    apart = (s[:, None] + SERVO - target[:, None]).norm(dim=-1)
    torch.testing.assert_close((after - target).norm(dim=-1), apart.amin(1))
    torch.testing.assert_close(after, s + a)
    still = level._replace(passage=lambda s, after, a: 1e6 * (after - s).norm(dim=-1))
    assert (toward(still, s, target, SERVO)[0] == 0).all()
    upside = level._replace(up=lambda s: -s)
    torch.testing.assert_close(toward(upside, s, -target, SERVO)[1], after)


def course(rules, *points, batch=1):
    """Return a course along points of a line."""
    states = torch.tensor(points, dtype=torch.float64).view(1, -1, 1).expand(batch, -1, 1)
    return Course(torch.zeros(batch, 1).double(), states, torch.full((batch,), len(points)), rules)


def walked(of, *points):
    """Let the first episode be at points, one after the other, as long as there is something to pursue."""
    for point in points:
        if not of.active[0]:
            break
        of.seen(torch.tensor([0]), torch.tensor([[float(point)]]).double())
    return of


def test_conditions_are_met_one_after_the_other():
    of = course(Rules(0.5, 1.0, 9, 3), 1.0, 3.0)
    assert walked(of, 0.4).at.item() == 0
    assert walked(of, 0.6).at.item() == 1 and of.target(torch.tensor([0])).item() == 3
    before, after = of.asked(torch.tensor([0]))
    assert (before.item(), after.item()) == (1.0, 3.0)
    assert not walked(of, 2.0, 2.5).active and of.at.item() == 2 and not of.unmet
    torch.testing.assert_close(of.mismatch, torch.tensor([[0.4, 0.5]]).double())


@pytest.mark.parametrize(("last", "met"), [(1.2, True), (0.9, False)])
def test_who_gets_no_nearer_gives_up(last, met):
    of = walked(course(Rules(0.5, 1.0, 99, 3), 2.2), last, last, last)
    assert of.active.item() and of.at.item() == 0
    walked(of, last - 0.1 * (not met))
    assert (of.at.item() == 1, of.unmet.item()) == (met, not met)
    assert walked(of, 2.2).at.item() == int(met)  # nothing more is taken note of


def test_who_gets_nearer_for_too_long_gives_up():
    of = walked(course(Rules(0.5, 1.0, 4, 3), 10.0), 1, 2, 3)
    assert of.active.item()
    assert walked(of, 4).unmet.item() and of.at.item() == 0
    before, after = of.asked(torch.tensor([0]))
    assert (before.item(), after.item()) == (0.0, 10.0)
    assert of.mismatch.item() == 6
    of.skip(torch.tensor([0]))
    assert of.at.item() == 1 and not of.unmet.item() and not of.active.item()


def test_patience_begins_anew_with_every_condition():
    of = walked(course(Rules(0.5, 0.5, 3, 3), 1.0, 4.0), 0.2, 0.9, 2, 3)
    assert of.at.item() == 1 and of.active.item()
    assert walked(of, 3.9).at.item() == 2


def test_courses_begin_anew_get_longer_and_are_dropped():
    of = course(Rules(0.5, 1.0, 4, 2), 1.0, 2.0, batch=3)
    walked(of, 0.9)
    two = torch.tensor([2, 0])
    new = torch.arange(10.0).double().view(2, 5, 1)
    of.replace(two, torch.full((2, 1), 7.0).double(), new, torch.tensor([5, 3]))
    assert of.states.shape == (3, 5, 1) and of.mismatch.shape == (3, 5) and of.length.tolist() == [3, 2, 5]
    assert of.at.tolist() == [0, 0, 0] and (of.mismatch[two] == 0).all() and of.start[:, 0].tolist() == [7, 0, 7]
    assert torch.equal(of.states[two], new) and of.states[1, :2, 0].tolist() == [1, 2]
    of.replace(torch.tensor([1]), torch.zeros(1, 1).double(), new[:1, :1], torch.tensor([1]))
    assert of.length.tolist() == [3, 1, 5] and of.states.shape == (3, 5, 1)
    of.drop(torch.tensor([0, 2]))
    assert of.active.tolist() == [False, True, False]
    of.arrive(torch.tensor([1]), torch.tensor([[1.5]]).double())
    assert of.unmet[1] and of.mismatch[1, 0] == 1.5
    of.replace(torch.tensor([1]), torch.zeros(1, 1).double(), new[:1, :1], torch.tensor([1]))
    of.arrive(torch.tensor([1]), torch.tensor([[0.8]]).double())
    assert of.at[1] == 1 and not of.unmet[1] and not of.active.any()


def test_rules_are_told_what_can_be():
    bad = [{"near": -1.0}, {"near": 3.0}, {"missed": math.nan}, {"patience": 0}, {"stall": 0}]
    for change in bad:
        with pytest.raises(ValueError, match="expected"):
            Rules(**change)
