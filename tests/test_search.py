"""Best-first search against shortest paths of NetworkX on graphs and lattices; its budgets, counts and refusals."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from conftest import generator, normal

from jepa.planning import Box, Level
from jepa.planning.costs import Distance
from jepa.planning.search import Search, search

SIDE = 7
APART = 100.0  # between the nodes of a graph world: each has a cell of its own
STEPS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)


class Graphs:
    """Graphs of B episodes over N nodes, node i at (APART · i, 0); action m goes to the m-th node, if there is an edge.

    Counts the states that its step is asked for, of each episode.
    """

    def __init__(self, weights, goal, total=None, of=None):
        self.weights, self.goal = weights, goal  # [B, N, N] of edges, infinity for none; [B] nodes
        self.total = torch.zeros(len(weights), dtype=torch.long) if total is None else total
        self.of = torch.arange(len(weights)) if of is None else of

    def step(self, s, a, z):
        at, to = (s[..., 0] / APART).round().long(), a[..., 0].round().long().expand(len(s), -1)
        self.total.index_add_(0, self.of, torch.full_like(self.of, to.shape[1]))
        at = at.expand_as(to)
        open_ = self.weights[torch.arange(len(s))[:, None], at, to].isfinite()
        return place(torch.where(open_, to, at))

    def passage(self, s, after, a):
        one, other = ((part[..., 0] / APART).round().long() for part in (s, after))
        cost = self.weights[torch.arange(len(after))[:, None], one.expand_as(other), other] - 1
        return torch.where(one == other, 0.0, cost)

    def cost(self, states, actions):
        return Distance(place(self.goal))(states, actions)

    def rows(self, index):
        return Graphs(self.weights[index], self.goal[index], self.total, self.of[index]).level

    @property
    def level(self):
        return Level(self.step, self.cost, 1, Box(1), rows=self.rows, passage=self.passage)


def place(node):
    """Return the states [..., 2] of nodes."""
    return torch.stack([APART * node.double(), torch.zeros_like(node, dtype=torch.double)], -1)


def graphs(batch, count, seed, share=0.35):
    """Return random graphs whose edges cost from 1 to 4, starts, and the costs of shortest paths of NetworkX."""
    draws = generator(seed)
    weights = 1 + 3 * torch.rand(batch, count, count, generator=draws, dtype=torch.float64)
    weights[torch.rand(batch, count, count, generator=draws) > share] = torch.inf
    start, goal = torch.randint(count, (2, batch), generator=draws)
    exact = []
    for b in range(batch):
        graph = nx.DiGraph()
        graph.add_nodes_from(range(count))
        edges = weights[b].isfinite().nonzero().tolist()
        graph.add_weighted_edges_from((i, j, weights[b, i, j].item()) for i, j in edges if i != j)
        lengths = nx.single_source_dijkstra_path_length(graph, start[b].item())
        exact.append(lengths.get(goal[b].item(), math.inf))
    return Graphs(weights, goal), start, torch.tensor(exact, dtype=torch.float64)


def settings(count, **changes):
    """Return a search that tries all nodes of a graph."""
    numbers = {"cell": 1.0, "axes": 1, "rotate": False} | changes
    return Search(torch.arange(count, dtype=torch.float64).unsqueeze(1), **numbers)


def priced(world, start, found, b):
    """Return what the plan of an episode costs, step by step, and the nodes on its way."""
    nodes = [start[b].item(), *(found.plan.states[b, : found.plan.length[b], 0] / APART).round().long().tolist()]
    return sum(world.weights[b, i, j].item() for i, j in zip(nodes, nodes[1:], strict=False)), nodes


class Fields:
    """Moves on lattices [B, SIDE, SIDE] with blocked fields, by unit steps that cost 1 + extra where they end."""

    def __init__(self, blocked, extra, goal):
        self.blocked, self.extra, self.goal = blocked, extra, goal

    def at(self, of, s):
        index = s.round().long().clamp(0, SIDE - 1)
        return of[torch.arange(len(s))[:, None], index[..., 0], index[..., 1]]

    def step(self, s, a, z):
        return s + a

    def passage(self, s, after, a):
        inside = ((after.round() >= 0) & (after.round() < SIDE)).all(-1)
        return torch.where(inside & ~self.at(self.blocked, after), self.at(self.extra, after), torch.inf)

    def rows(self, index):
        return Fields(self.blocked[index], self.extra[index], self.goal[index]).level

    @property
    def level(self):
        return Level(self.step, Distance(self.goal), 1, Box(2, norm=1.0), rows=self.rows, passage=self.passage)


def fields(batch, seed, share=0.25, most=2.0):
    """Return lattices whose fields cost up to `most` more, starts, and the costs of shortest paths of NetworkX."""
    draws = generator(seed)
    blocked = torch.rand(batch, SIDE, SIDE, generator=draws) < share
    extra = most * torch.rand(batch, SIDE, SIDE, generator=draws, dtype=torch.float64)
    ends, exact = [], []
    for b in range(batch):
        free = (~blocked[b]).nonzero()
        pick = free[torch.randint(len(free), (2,), generator=draws)]
        ends.append(pick)
        graph = nx.grid_2d_graph(SIDE, SIDE, create_using=nx.DiGraph)
        graph.remove_nodes_from([tuple(field) for field in blocked[b].nonzero().tolist()])
        for _, end, edge in graph.edges(data=True):
            edge["weight"] = 1 + extra[b][end].item()
        start, goal = (tuple(field) for field in pick.tolist())
        exact.append(nx.single_source_dijkstra_path_length(graph, start).get(goal, math.inf))
    ends = torch.stack(ends).double()
    return Fields(blocked, extra, ends[:, 1]), ends[:, 0], torch.tensor(exact, dtype=torch.float64)


def lattice(**changes):
    """Return a search by unit steps."""
    return Search(STEPS, **({"cell": 1.0, "tolerance": 0.01, "rotate": False} | changes))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("width", [1, 16])
def test_search_on_graphs_costs_what_the_shortest_path_of_networkx_costs(seed, width):
    world, start, exact = graphs(8, 12, seed, share=0.2)
    found = search(world.level, place(start), generator(), settings(12, width=width))
    torch.testing.assert_close(found.total, exact, atol=1e-3, rtol=0)
    for b in exact.isfinite().nonzero()[:, 0].tolist():
        cost, nodes = priced(world, start, found, b)
        assert cost == pytest.approx(exact[b].item(), abs=1e-3)
        assert nodes[-1] == world.goal[b] and found.plan.actions[b, : len(nodes) - 1, 0].tolist() == nodes[1:]


@pytest.mark.parametrize("seed", range(6))
def test_search_on_lattices_with_an_admissible_greed_costs_the_same_and_asks_for_less(seed):
    world, start, exact = fields(8, seed)
    plain, greedy = (search(world.level, start, generator(), lattice(greed=greed, width=1)) for greed in (0.0, 1.0))
    for found in (plain, greedy):
        torch.testing.assert_close(found.total, exact, atol=1e-3, rtol=0)
    reached = exact.isfinite()
    assert (greedy.plan.evaluations <= plain.plan.evaluations)[reached].double().mean() > 0.8
    assert greedy.plan.evaluations[reached].sum() < plain.plan.evaluations[reached].sum()


@pytest.mark.parametrize("radius", [1.0, 2.3])
def test_greed_is_admissible_for_goals_with_a_size(radius):
    world, start, _ = fields(64, 0, share=0.1, most=0.5)
    sized = {"width": 1, "tolerance": radius**2}
    plain, greedy = (search(world.level, start, generator(), lattice(greed=greed, **sized)) for greed in (0.0, 1.0))
    torch.testing.assert_close(greedy.total, plain.total, atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_too_much_greed_is_never_cheaper_but_finds_what_there_is(seed):
    world, start, exact = fields(8, seed)
    found = search(world.level, start, generator(), lattice(greed=4.0, width=1))
    assert torch.equal(found.total.isfinite(), exact.isfinite())
    assert (found.total >= exact - 1e-3).all()


@pytest.mark.parametrize("most", [0, 11, 12, 40, 100, 1000])
def test_budgets_are_never_exceeded_and_evaluations_are_counted_exactly(most):
    for seed in range(4):
        world, start, _ = graphs(5, 12, seed)
        left = torch.tensor([0, 5, 30, 100, -3])
        for limits, at_most in ((None, torch.full((5,), most)), (left, left.clamp(min=0, max=most))):
            world.total.zero_()
            found = search(world.level, place(start), generator(), settings(12, most=most, width=3), limits)
            assert torch.equal(found.plan.evaluations, world.total)
            assert (world.total <= at_most).all()
            assert torch.equal(found.plan.length == 0, found.plan.length < 1)
            assert found.plan.states.isfinite().all() and not found.total.isnan().any()


class Asked:
    """Lattices as `Fields`, whose blocked fields are told by the passage, or by steps that lead nowhere."""

    def __init__(self, of, lazily, count=None):
        self.of, self.lazily, self.count = of, lazily, [0] if count is None else count

    def step(self, s, a, z):
        after = s + a
        open_ = self.of.passage(s, after, a).isfinite()
        return after if self.lazily else torch.where(open_.unsqueeze(-1), after, torch.nan)

    def passage(self, s, after, a):
        self.count[0] += after.shape[:2].numel()
        return self.of.passage(s, after, a)

    @property
    def level(self):
        """The level, of all episodes and of some."""
        whole, passage = self.of.level, self.passage if self.lazily else self.of.passage
        rows = lambda index: Asked(Fields(*(p[index] for p in self.parts)), self.lazily, self.count).level  # noqa: E731
        cost = whole.cost
        return whole._replace(step=self.step, cost=lambda s, a: cost(s.nan_to_num(), a), rows=rows, passage=passage)

    @property
    def parts(self):
        return self.of.blocked, self.of.extra, self.of.goal


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("greed", [0.0, 1.0, 3.0])
def test_passages_are_asked_only_where_a_cell_could_become_cheaper_and_nothing_else_changes(seed, greed):
    world, start, _ = fields(8, seed, most=0.0)
    lazy, eager = Asked(world, True), Asked(world, False)
    one, other = (search(of.level, start, generator(), lattice(greed=greed, width=3)) for of in (lazy, eager))
    for name in ("actions", "states", "length", "evaluations"):
        assert torch.equal(getattr(one.plan, name), getattr(other.plan, name))
    for name in ("states", "parent", "episode", "depth"):
        assert torch.equal(getattr(one.plan.tree, name), getattr(other.plan.tree, name))
    assert torch.equal(one.total, other.total)
    kept = len(one.plan.tree.depth) - len(start)
    assert kept <= lazy.count[0] < 0.8 * int(one.plan.evaluations.sum())


def test_held_macro_actions_count_every_step_and_stay_within_budgets():
    world, start, _ = fields(6, 1, share=0.0)
    counted = [0]

    def step(s, a, z):
        counted[0] += (s + a).shape[0] * a.shape[1]
        return s + a

    level = world.level._replace(step=step, rows=lambda index: world.rows(index)._replace(step=step))
    found = search(level, start, generator(), lattice(hold=3, most=100, tolerance=1.0))
    assert found.plan.evaluations.sum() == counted[0]
    assert (found.plan.evaluations <= 100).all() and (found.plan.evaluations % 12 == 0).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("greed", [0.0, 1.0])
def test_episodes_do_not_influence_each_other(seed, greed):
    world, start, _ = fields(6, seed, share=0.35)
    left = torch.tensor([1000, 40, 0, 1000, 13, 200])
    together = search(world.level, start, generator(), lattice(greed=greed, width=2), left)
    for b in range(6):
        one = torch.tensor([b])
        alone = search(world.rows(one), start[one], generator(), lattice(greed=greed, width=2), left[one])
        length = int(alone.plan.length)
        assert together.total[b] == alone.total[0] and together.plan.length[b] == length
        assert together.plan.evaluations[b] == alone.plan.evaluations[0]
        assert together.plan.value[b] == alone.plan.value[0]
        assert torch.equal(together.plan.states[b, :length], alone.plan.states[0])
        assert torch.equal(together.plan.actions[b, :length], alone.plan.actions[0])


def test_behind_its_end_a_plan_stays_and_what_it_imagines_is_what_its_actions_do():
    world, start, exact = fields(10, 3)
    plan = search(world.level, start, generator(), lattice()).plan
    s = start
    for t in range(plan.actions.shape[1]):
        meant = (t < plan.length).unsqueeze(1)
        s = torch.where(meant, s + plan.actions[:, t], s)
        assert torch.equal(s, plan.states[:, t]) and (meant | (plan.actions[:, t] == 0)).all()
    torch.testing.assert_close(plan.value, (s - world.goal).square().sum(1))
    assert (plan.value[exact.isfinite()] <= 0.01).all()


def test_the_tree_holds_every_way():
    world, start, _ = fields(5, 4)
    tree = search(world.level, start, generator(), lattice()).plan.tree
    child = tree.parent >= 0
    parent = tree.parent[child]
    assert torch.equal(tree.episode[parent], tree.episode[child])
    assert torch.equal(tree.depth[parent] + 1, tree.depth[child])
    assert torch.equal(tree.states[:5], start)
    torch.testing.assert_close((tree.states[child] - tree.states[parent]).norm(dim=1), torch.ones(len(parent)).double())


def test_goals_that_cannot_be_reached_cost_infinitely_and_plans_lead_to_what_is_nearest():
    some = 0
    for seed in range(6):
        world, start, exact = fields(8, seed, share=0.45)
        found = search(world.level, start, generator(), lattice())
        assert torch.equal(found.total.isfinite(), exact.isfinite())
        for b in (~exact.isfinite()).nonzero()[:, 0].tolist():
            graph = nx.grid_2d_graph(SIDE, SIDE, create_using=nx.DiGraph)
            graph.remove_nodes_from([tuple(field) for field in world.blocked[b].nonzero().tolist()])
            there = nx.descendants(graph, tuple(start[b].long().tolist())) | {tuple(start[b].long().tolist())}
            goal = world.goal[b].tolist()
            near = min(math.dist(field, goal) ** 2 for field in there)
            assert found.plan.value[b].item() == pytest.approx(near) and near > 0.01
            some += 1
    assert some > 5


def test_a_start_at_the_goal_is_a_plan_of_nothing():
    world, start, _ = fields(4, 0)
    found = search(world.level, world.goal, generator(), lattice())
    assert (found.plan.length == 0).all() and (found.total == 0).all() and (found.plan.evaluations == 0).all()
    assert found.plan.states.shape == (4, 0, 2) and found.plan.actions.shape == (4, 0, 2)


def test_where_nothing_is_better_than_the_start_the_plan_is_empty_and_its_total_infinite():
    level = Level(lambda s, a, z: s - a.abs(), Distance(torch.ones(1, 2).double()), 1, Box(2, norm=1.0))
    found = search(level, torch.zeros(3, 2).double(), generator(), lattice(rounds=5))
    assert (found.plan.length == 0).all() and found.total.isinf().all() and (found.plan.value == 2).all()


def test_costs_that_are_infinite_but_at_the_goal_are_searched_through_without_greed():
    world, start, exact = fields(6, 5)
    away = world.level._replace(rows=lambda index: out(world.rows(index)))

    def out(level):
        return level._replace(cost=lambda s, a: torch.where(level.cost(s, a) > 0.5, torch.inf, 0.0).double())

    found = search(away, start, generator(), lattice())
    torch.testing.assert_close(found.total, exact, atol=1e-3, rtol=0)


def test_no_rounds_and_no_episodes():
    world, start, _ = fields(4, 0)
    found = search(world.level, start, generator(), lattice(rounds=0))
    assert (found.plan.length == 0).all() and (found.plan.evaluations == 0).all()
    none = search(world.rows(torch.arange(0)), start[:0], generator(), lattice())
    assert none.total.shape == (0,) and none.plan.states.shape == (0, 0, 2)


def test_turned_moves_stay_within_limits_and_arrive():
    start, goal = normal(6, 2, seed=1), normal(6, 2, seed=2) + 4
    cost = Distance(goal)
    level = Level(lambda s, a, z: s + a, cost, 1, Box(2, norm=1.0))
    level = level._replace(rows=lambda index: level._replace(cost=cost.rows(index)))
    angle = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    how = Search(2 * torch.stack([angle.cos(), angle.sin()], -1), cell=0.5, tolerance=0.25, greed=1.0, most=20_000)
    one, other, same = (search(level, start, generator(seed), how) for seed in (0, 1, 0))
    for found in (one, other):
        assert found.total.isfinite().all() and (found.plan.actions.norm(dim=-1) <= 1).all()
        assert (found.plan.length >= ((goal - start).norm(dim=1) - 0.5).ceil()).all()
    assert not torch.equal(one.plan.actions[:, 0], other.plan.actions[:, 0])
    assert torch.equal(one.plan.actions, same.plan.actions)
    still = search(level, start, generator(), Search(how.moves, cell=0.5, tolerance=0.25, greed=1.0, rotate=False))
    assert (still.plan.actions.norm(dim=-1) <= 1).all()  # moves are moved to where they are allowed


def test_the_same_in_single_precision():
    world, start, exact = fields(8, 2)
    single = Fields(world.blocked, world.extra.float(), world.goal.float())
    found = search(single.level, start.float(), generator(), lattice(greed=1.0))
    assert found.total.dtype == torch.float32 and found.plan.states.dtype == torch.float32
    torch.testing.assert_close(found.total, exact.float(), atol=1e-3, rtol=0)


BAD = [
    ({"moves": torch.zeros(2)}, "moves: expected .M, A."),
    ({"moves": torch.zeros(0, 2)}, "moves: expected .M, A."),
    ({"hold": 0}, "hold: expected at least 1, found 0"),
    ({"width": 0}, "width: expected at least 1, found 0"),
    ({"rounds": -1}, "rounds: expected at least 0, found -1"),
    ({"greed": -0.1}, "greed: expected at least 0"),
    ({"greed": math.nan}, "greed: expected at least 0, found nan"),
    ({"most": -1}, "most: expected at least 0, found -1"),
    ({"cell": 0.0}, "cell: expected a number above 0"),
    ({"cell": math.inf}, "cell: expected a number above 0"),
    ({"axes": 4}, "axes: expected from 1 to 3, found 4"),
    ({"tolerance": math.nan}, "tolerance: expected a number, found nan"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_settings_outside_their_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Search(**({"moves": STEPS} | change))


def test_worlds_that_cannot_be_searched_are_refused():
    world, start, _ = fields(3, 0)
    level, one = world.level, lambda **parts: world.level._replace(rows=None, **parts)
    with pytest.raises(ValueError, match="s: expected .B, D., found .3."):
        search(level, start[:, 0], generator(), lattice())
    with pytest.raises(ValueError, match="s: expected numbers, found nan in 1 of 3"):
        search(level, start.index_fill(0, torch.tensor([1]), math.nan), generator(), lattice())
    with pytest.raises(ValueError, match="moves: expected actions of width 3, found 2"):
        search(one(actions=Box(3)), start, generator(), lattice())
    with pytest.raises(ValueError, match="cost: expected numbers, found nan"):
        search(one(cost=lambda s, a: s[:, :, 0, 0] * math.nan), start, generator(), lattice())
    with pytest.raises(ValueError, match="left: expected .3., found .2."):
        search(level, start, generator(), lattice(), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="s: expected at most 32767 episodes, found 32768"):
        search(one(cost=lambda s, a: s[:, :, 0, 0]), torch.zeros(32768, 2), generator(), lattice())
    for value in (-0.5, math.nan):
        passage = lambda s, after, a, value=value: torch.full_like(after[..., 0], value)  # noqa: E731
        with pytest.raises(ValueError, match=f"passage: expected costs of at least 0, found {value}"):
            search(one(cost=lambda s, a: s[:, :, 0, 0] + 9, passage=passage), start, generator(), lattice())
