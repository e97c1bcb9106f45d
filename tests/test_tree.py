"""The tree against shortest paths of NetworkX, its budgets and its chances; the cost to go against the same paths."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from conftest import generator, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa.planning import Box, Level, TreeSearch, cost_to_go, costs, episodic, nearest, tree
from jepa.planning.cells import Grid, first_least, least_per_group

PROPERTY = settings(deadline=None, derandomize=True, max_examples=12)
SEEDS = st.integers(0, 10_000)
SIDE = 9
LATTICE = TreeSearch(headings=4, hold=1, reach=1.0, cell=1.0, tolerance=0.1, depth=100, rotate=False)


class Lattice:
    """Moves on a lattice whose blocked fields stop a step; every episode has a lattice [B, SIDE, SIDE] of its own.

    Counts the states that it returns for each episode.
    """

    def __init__(self, blocked, total=None, of=None):
        self.blocked = blocked
        self.total = torch.zeros(len(blocked), dtype=torch.long) if total is None else total
        self.of = torch.arange(len(blocked)) if of is None else of

    def __call__(self, s, a, z):
        new = s + a
        self.total.index_add_(0, self.of, torch.full_like(self.of, new.shape[1]))
        at = new.round().long()
        inside = ((at >= 0) & (at < SIDE)).all(-1)
        at = at.clamp(0, SIDE - 1)
        free = inside & ~self.blocked[torch.arange(len(s))[:, None], at[..., 0], at[..., 1]]
        return torch.where(free.unsqueeze(-1), new, s.expand_as(new))

    def rows(self, index):
        return Lattice(self.blocked[index], self.total, self.of[index])


def world(blocked, goal):
    """Return the level of lattices and goals."""

    def level(step, cost):
        rows = lambda index: level(step.rows(index), cost.rows(index))  # noqa: E731
        return Level(step, cost, 1, Box(2, norm=1.0), rows=rows)

    return level(Lattice(blocked), costs.Distance(goal))


def mazes(count, seed, share=0.3):
    """Return blocked fields, starts and goals on free ones, and the distances of NetworkX (inf: no way)."""
    draws = generator(seed)
    blocked = torch.rand(count, SIDE, SIDE, generator=draws) < share
    ends, exact = [], []
    for lattice in blocked:
        graph = nx.grid_2d_graph(SIDE, SIDE)
        free = (~lattice).nonzero()
        graph.remove_nodes_from([tuple(place) for place in lattice.nonzero().tolist()])
        pick = free[torch.randint(len(free), (2,), generator=draws)]
        ends.append(pick)
        start, goal = (tuple(place) for place in pick.tolist())
        exact.append(nx.shortest_path_length(graph, start, goal) if nx.has_path(graph, start, goal) else math.inf)
    ends = torch.stack(ends).double()
    return blocked, ends[:, 0], ends[:, 1], torch.tensor(exact)


def followed(level, s, plan):
    """Return where the episodes end that follow their plans in the world, [B, D]; and check what was imagined."""
    for t in range(plan.actions.shape[1]):
        meant = (t < plan.length).unsqueeze(1)
        s = torch.where(meant, level.step(s[:, None], plan.actions[:, t : t + 1], None)[:, 0], s)
        torch.testing.assert_close(s, plan.states[:, t])
        assert (meant | (plan.actions[:, t] == 0)).all()
    return s


@PROPERTY
@given(SEEDS)
def test_tree_finds_the_shortest_paths_of_networkx(seed):
    blocked, s, goal, exact = mazes(6, seed)
    level = world(blocked, goal)
    found = tree(level, s, generator(), LATTICE)
    reached = found.value <= 0.1
    assert torch.equal(reached, exact.isfinite())
    assert torch.equal(found.length[reached].double(), exact[reached].double())
    assert torch.equal(level.step.total, found.evaluations)
    torch.testing.assert_close((followed(level, s, found) - goal).square().sum(1), found.value)


def test_unreachable_goals_end_at_the_nearest_state_there_is():
    for seed in range(8):
        blocked, s, goal, exact = mazes(6, seed, share=0.5)
        found = tree(world(blocked, goal), s, generator(), LATTICE)
        for b in (~exact.isfinite()).nonzero()[:, 0].tolist():
            graph = nx.grid_2d_graph(SIDE, SIDE)
            graph.remove_nodes_from([tuple(place) for place in blocked[b].nonzero().tolist()])
            lengths = nx.single_source_shortest_path_length(graph, tuple(s[b].long().tolist()))
            near = min(math.dist(place, goal[b].tolist()) ** 2 for place in lengths)
            assert found.value[b].item() == pytest.approx(near) and near > 0.5
            fewest = min(n for place, n in lengths.items() if math.dist(place, goal[b].tolist()) ** 2 < near + 1e-9)
            assert found.length[b] == fewest
            assert found.evaluations[b] == 4 * len(lengths)  # every place there is was tried once


@PROPERTY
@given(SEEDS)
def test_batched_trees_are_single_ones(seed):
    blocked, s, goal, _ = mazes(5, seed)
    together = tree(world(blocked, goal), s, generator(), LATTICE)
    for b in range(5):
        one = slice(b, b + 1)
        alone = tree(world(blocked[one], goal[one]), s[one], generator(), LATTICE)
        length = int(alone.length)
        assert length == together.length[b] and alone.evaluations == together.evaluations[b]
        torch.testing.assert_close(alone.actions[0], together.actions[b, :length])
        torch.testing.assert_close(alone.value[0], together.value[b])
        mine = together.tree.states[together.tree.episode == b]
        torch.testing.assert_close(alone.tree.states, mine)


def room(s, a, z):
    """Two rooms of side 20 with a door at height 15 to 19 in the wall between them."""
    new = s + a
    through = (s[..., 0] < 10) != (new[..., 0] < 10)
    height = s[..., 1] + a[..., 1] * ((10 - s[..., 0]) / torch.where(through, a[..., 0], 1))
    bad = ((new < 0) | (new > 20)).any(-1) | (through & ((height < 15) | (height > 19)))
    return torch.where(bad.unsqueeze(-1), s.expand_as(new), new)


def rooms(goal):
    """Return the level of two rooms."""
    return episodic(Level(room, costs.Distance(goal), 1, Box(2, norm=2.0)))


def across(count, seed):
    """Return starts in the left room and goals in the right one."""
    draws = generator(seed)
    s, goal = (torch.rand(count, 2, generator=draws) * torch.tensor([8.0, 10.0]) + 1 for _ in range(2))
    return s, goal + torch.tensor([10.0, 0.0])


@pytest.mark.parametrize("hold", [1, 2, 3])
def test_tree_goes_through_the_door_with_any_headings(hold):
    s, goal = across(12, hold)
    level, search = rooms(goal), TreeSearch(hold=hold, cell=1.0, tolerance=1.0)
    found = tree(level, s, generator(3), search)
    assert (found.value <= 1.0).all()
    assert (found.actions.norm(dim=-1) <= 0.92 * 2.0 * (1 + 1e-6)).all()
    torch.testing.assert_close((followed(level, s, found) - goal).square().sum(1), found.value)
    direct = ((s - goal).norm(dim=1) / 1.84).ceil()
    assert (found.length > direct).all()  # the wall is in the way
    door = (goal.new_tensor([10.0, 16.0]) - s).norm(dim=1) + (goal - goal.new_tensor([10.0, 16.0])).norm(dim=1)
    assert (found.length <= door / 1.84 * 1.35 + 2 * hold).all()


def test_nodes_are_one_per_cell_and_lead_back_to_their_roots():
    s, goal = across(5, 1)
    search = TreeSearch(hold=2, cell=1.5, tolerance=0.5, rotate=False)
    found = tree(rooms(goal), s, generator(), search)
    nodes = found.tree
    cell = torch.cat([nodes.episode[:, None], (nodes.states / 1.5).round().long()], 1)
    assert len(cell.unique(dim=0)) == len(cell)
    assert torch.equal(nodes.parent[:5], torch.full((5,), -1)) and torch.equal(nodes.states[:5], s)
    child, parent = torch.arange(5, len(cell)), nodes.parent[5:]
    assert torch.equal(nodes.episode[child], nodes.episode[parent]) and (parent < child).all()
    assert torch.equal(nodes.depth[child], nodes.depth[parent] + 1)
    assert ((nodes.states[child] - nodes.states[parent]).norm(dim=1) <= 2 * 2 * 0.92 + 1e-4).all()


def test_plans_of_one_state_differ_by_chance_and_only_by_it():
    s, goal = across(1, 2)
    s, goal = s.expand(4, -1), goal.expand(4, -1)
    search = TreeSearch(cell=1.0, tolerance=1.0)
    first, again, other = (tree(rooms(goal), s, generator(seed), search) for seed in (1, 1, 2))
    assert torch.equal(first.actions, again.actions) and torch.equal(first.tree.states, again.tree.states)
    assert not torch.equal(first.actions[0, 0], other.actions[0, 0])  # per plan
    assert len(first.actions[:, 0].unique(dim=0)) == 4  # per episode
    fixed = tree(rooms(goal), s, generator(1), TreeSearch(cell=1.0, tolerance=1.0, rotate=False))
    assert len(fixed.actions[:, 0].unique(dim=0)) == 1


@pytest.mark.parametrize("most", [0, 15, 16, 100, 1000])
def test_evaluations_never_exceed_their_cap(most):
    s, goal = across(6, 4)
    search = TreeSearch(headings=8, hold=2, cell=1.0, tolerance=-1.0, most=most)
    found = tree(rooms(goal), s, generator(), search)
    assert (found.evaluations <= most).all() and (found.evaluations % 16 == 0).all()
    assert (found.evaluations > most - 16).all()  # each of them spends what it may
    assert torch.equal(found.length > 0, (found.evaluations > 0) & (found.value < (s - goal).square().sum(1)))


def test_beam_and_depth_bound_what_is_expanded():
    s, goal = across(6, 4)
    for beam, depth in ((1, 5), (3, 4), (None, 2)):
        search = TreeSearch(headings=8, hold=1, cell=1.0, tolerance=-1.0, beam=beam, depth=depth)
        found = tree(rooms(goal), s, generator(), search)
        assert (found.evaluations <= 8 * (1 + (depth - 1) * (beam or 8))).all() and int(found.tree.depth.max()) == depth
        assert (found.length <= depth).all()
    free = goal - torch.tensor([10.0, 0.0])  # in the same room the best of each depth is enough
    narrow = TreeSearch(headings=16, hold=1, cell=0.5, tolerance=1.0, beam=1)
    greedy, wide = (tree(rooms(free), s, generator(), search) for search in (narrow, TreeSearch(hold=1, cell=0.5)))
    assert (greedy.value <= 1.0).all() and greedy.evaluations.sum() < 0.2 * wide.evaluations.sum()


def test_start_within_tolerance_is_a_plan_of_no_steps():
    s, goal = across(3, 5)
    goal[1] = s[1] + 0.1
    found = tree(rooms(goal), s, generator(), TreeSearch(cell=1.0, tolerance=0.5))
    assert found.length[1] == 0 and found.evaluations[1] == 0 and not found.actions[1].any()
    assert torch.equal(found.states[1], s[1].expand_as(found.states[1])) and (found.length[[0, 2]] > 0).all()
    alone = tree(rooms(goal[1:2]), s[1:2], generator(), TreeSearch(tolerance=0.5))
    assert alone.actions.shape == (1, 0, 2) and alone.states.shape == (1, 0, 2)
    empty = tree(rooms(goal[:0]), s[:0], generator(), TreeSearch())
    assert empty.actions.shape == (0, 0, 2) and empty.length.shape == (0,)


@pytest.mark.parametrize("width", [1, 3])
def test_other_widths_have_headings_too(width):
    s = torch.zeros(2, width)
    level = Level(lambda s, a, z: s + a, costs.Distance(torch.full((1, width), 3.0)), 1, Box(width, -0.7, 0.7))
    found = tree(level, s, generator(), TreeSearch(headings=24, hold=2, cell=0.7, tolerance=0.5, depth=12, beam=40))
    assert (found.value <= 0.5).all() and (found.actions.abs() <= 0.7).all()


def test_a_step_may_lead_to_nothing_but_a_cost_has_to_be_a_number():
    s, goal = across(2, 6)

    def broken(s, a, z):
        """Steps to the left lead nowhere."""
        return torch.where(a[..., :1] < 0, torch.inf, s + a)

    level = rooms(goal)._replace(step=broken)
    level = episodic(level)
    found = tree(level, s, generator(), TreeSearch(cell=1.0, tolerance=0.5))
    assert (found.value <= 0.5).all() and found.tree.states.isfinite().all()
    with pytest.raises(ValueError, match="^cost: expected numbers, found nan"):
        tree(episodic(level._replace(step=lambda s, a, z: math.nan * (s + a))), s, generator(), TreeSearch())


@PROPERTY
@given(SEEDS)
def test_cost_to_go_is_the_distances_of_networkx(seed):
    blocked, _, goal, _ = mazes(4, seed)
    value = cost_to_go(world(blocked, goal), goal, generator(), LATTICE)
    places = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    found = value(places.expand(4, -1, -1)).view(4, SIDE, SIDE)
    for b in range(4):
        graph = nx.grid_2d_graph(SIDE, SIDE)
        graph.remove_nodes_from([tuple(place) for place in blocked[b].nonzero().tolist()])
        exact = nx.single_source_shortest_path_length(graph, tuple(goal[b].long().tolist()))
        for x in range(SIDE):
            for y in range(SIDE):
                if (x, y) in exact:
                    assert found[b, x, y].item() == exact[x, y]
                else:
                    assert found[b, x, y] >= max(exact.values()) + 1
    index = torch.tensor([2, 2, 0])
    some = value.rows(index)(places.expand(3, -1, -1)).view(3, SIDE, SIDE)
    torch.testing.assert_close(some, found[index])


def test_cost_to_go_is_bilinear_and_has_its_gradient():
    goal = torch.tensor([[4.0, 4.0]]).double()
    value = cost_to_go(world(torch.zeros(1, SIDE, SIDE, dtype=torch.bool), goal), goal, generator(), LATTICE)
    s = (1.2 + 5.5 * torch.rand(1, 50, 2, generator=generator())).double().requires_grad_()
    found = value(s)
    torch.testing.assert_close(found, (s - 4).abs().sum(-1))  # of a sum of absolute values it is exact
    (slope,) = torch.autograd.grad(found.sum(), s)
    torch.testing.assert_close(slope, (s - 4).detach().sign())
    out = torch.tensor([[[-9.0, 4.0], [40.0, 4.0]]]).double().requires_grad_()
    (slope,) = torch.autograd.grad(value(out).sum(), out)
    assert torch.equal(slope[0, :, 0].sign(), torch.tensor([-1.0, 1.0]).double()) and value(out).min() > 9
    with pytest.raises(ValueError, match="^s: expected 1 episodes, found 2"):
        value(out.expand(2, -1, -1))


def test_going_down_the_cost_to_go_leads_through_the_maze():
    blocked, s, goal, exact = mazes(24, 3)
    level = world(blocked, goal)
    value = cost_to_go(level, goal, generator(), LATTICE)
    level = level._replace(cost=costs.to_go(value))
    compass = torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]).double()
    there = exact.isfinite()
    assert there.sum() > 10 and torch.equal(value(s)[there], exact[there].double())
    for t in range(1, int(exact[there].max()) + 1):
        s = nearest(level, s, compass).states[:, 0]
        torch.testing.assert_close(value(s)[there], (exact[there] - t).clamp(min=0).double())


@PROPERTY
@given(SEEDS, st.integers(0, 40))
def test_groups_by_a_loop(seed, count):
    group = torch.randint(5, (count,), generator=generator(seed))
    one, two = normal(2, count, seed=seed).round().unbind()
    found, most = first_least(group, (one, two), 5), torch.tensor([0, 1, 2, 3, 100])
    kept = least_per_group(group, one, most).tolist()
    for g in range(5):
        members = [i for i in range(count) if group[i] == g]
        assert found[g] == min(members, key=lambda i: (float(one[i]), float(two[i]), i), default=count)
        best = sorted(members, key=lambda i: (float(one[i]), i))[: int(most[g])]
        assert [i for i in kept if group[i] == g] == sorted(best)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_keys_tell_episodes_and_cells_apart(axes):
    grid = Grid(0.5, torch.rand(3, axes, generator=generator()))
    s, episode = 30 * torch.randn(4000, 4, generator=generator(1)), torch.randint(3, (4000,), generator=generator(2))
    place = grid.place(s, episode)
    keys, cells = grid.keys(place, episode), torch.cat([episode[:, None], place.round().long()], 1)
    assert len(keys.unique()) == len(cells.unique(dim=0)) == len(torch.cat([cells, keys[:, None]], 1).unique(dim=0))
    with pytest.raises(ValueError, match="^cell: expected states within"):
        grid.keys(torch.full((1, axes), 1e15), episode[:1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TreeSearch(headings=0), "headings: expected at least 1"),
        (lambda: TreeSearch(hold=0), "hold: expected at least 1"),
        (lambda: TreeSearch(beam=0), "beam: expected at least 1"),
        (lambda: TreeSearch(axes=4), "axes: expected at most 3"),
        (lambda: TreeSearch(depth=-1), "depth: expected at least 0"),
        (lambda: TreeSearch(reach=1.1), "reach: expected a share"),
        (lambda: TreeSearch(cell=0.0), "cell: expected a number above 0"),
        (lambda: TreeSearch(tolerance=math.nan), "tolerance: expected a number"),
        (
            lambda: tree(rooms(torch.zeros(1, 2)), torch.full((1, 2), math.nan), generator(), TreeSearch()),
            "s: expected",
        ),
        (lambda: tree(rooms(torch.zeros(1, 2)), torch.zeros(2), generator(), TreeSearch()), "s: expected .B, D."),
        (
            lambda: tree(
                rooms(torch.zeros(1, 2))._replace(actions=Box(2)), torch.zeros(1, 2), generator(), TreeSearch()
            ),
            "actions: expected limits in every direction",
        ),
    ],
)
def test_what_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
