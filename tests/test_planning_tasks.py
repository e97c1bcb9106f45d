"""Tasks as sets of cost modules: against closed forms, brute force and shortest paths in product graphs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import networkx as nx
import numpy as np
import pytest
import torch
from conftest import generator, normal

from jepa.planning import Box, Distance, Level, episodic, moves
from jepa.planning.cells import Grid
from jepa.planning.hierarchical import Hierarchy, Searching, Settings, Upper, control, with_task
from jepa.planning.hierarchical.course import Course, Rules
from jepa.planning.hierarchical.proposals import Lower, Rounds
from jepa.planning.hierarchical.pursuit import toward
from jepa.planning.search import Search, search
from jepa.planning.tasks import Avoid, Both, Late, Little, Progress, Reach, Task, Through, for_lowest
from jepa.planning.tasks.segments import segment_distance
from jepa.worlds.rooms import Maze
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.motion import walk

UNIT = 8.0  # world units for which a code of 1 stands
START, GOAL = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 0.0]])


def free(s, a, z):
    """s' = s + a."""
    return s + a


class Walked:
    """The step of mazes on positions in units of 8: dots that slide along walls."""

    def __init__(self, layouts):
        self.layouts = layouts

    def __call__(self, s, a, z):
        batch, count = (max(part.shape[axis] for part in (s, a)) for axis in (0, 1))
        p, a = (part.expand(batch, count, -1).flatten(0, 1) for part in (s * UNIT, a * UNIT))
        ends = walk(self.layouts.repeat(count), p, a.unsqueeze(1), "slide")[0][:, 1]
        return ends.unflatten(0, (batch, count)) / UNIT

    def rows(self, index):
        return Walked(self.layouts.rows(index))


class World:
    """Episodes of a step, seen as they are."""

    def __init__(self, step, s):
        self.step, self.s, self.way = step, s, [s]

    def observe(self):
        return self.s

    def act(self, a):
        self.s = self.step(self.s.unsqueeze(1), a.unsqueeze(1), None)[:, 0]
        self.way.append(self.s)
        return self.s


def level(goal, step=free, longest=0.5, stride=1, horizon=100):
    return episodic(Level(step, Distance(goal), horizon, Box(2, norm=longest), stride))


def compass(longest=0.5, headings=16, shares=(1.0,)):
    return moves(Box(2, norm=longest), headings, shares)


def sought(task, s, of=None, **fields):
    """Return what the search finds for a task, from its beginning, and the states of the way with the start."""
    settings = Search(**{"moves": compass(), "cell": 0.15, "tolerance": 0.09, "greed": 2.0, **fields})
    of = level(task.reach.goal) if of is None else of
    progress = Progress(task)
    progress.start(s)
    begin = progress.appended(s, torch.arange(len(s)))
    found = search(*task.planned(of, settings, progress.value)[:1], begin, generator(), task.planned(of, settings)[1])
    return found, torch.cat([begin.unsqueeze(1), found.plan.states], 1)


def apart(points, way):
    """Return the least distance [B, N] of points [B, N, 2] to polygons [B, T, 2], from many points of each segment."""
    t = torch.linspace(0, 1, 201)[:, None, None, None]
    between = way[:, :-1] + t * (way[:, 1:] - way[:, :-1])  # [201, B, T−1, 2]
    return (between.unsqueeze(-2) - points[:, None]).norm(dim=-1).amin((0, 2))


def test_distances_to_segments_are_those_of_many_points_on_them():
    s, after, points = normal(5, 7, 3), normal(5, 7, 3, seed=1), normal(5, 4, 3, seed=2)
    t = torch.linspace(0, 1, 2001)[:, None, None, None]
    dense = ((s + t * (after - s)).unsqueeze(-2) - points.unsqueeze(1)).norm(dim=-1).amin(0)
    found = segment_distance(points, s, after)
    assert (found <= dense + 1e-5).all() and (found >= dense - 2e-3).all()
    torch.testing.assert_close(segment_distance(points, s, s), (s.unsqueeze(2) - points.unsqueeze(1)).norm(dim=-1))


def test_cells_tell_progress_apart_exactly():
    numbers = torch.tensor(list(itertools.product(range(3), repeat=2))).float()
    s = torch.cat([torch.zeros(9, 2), numbers + 0.2 * normal(9, 2).clamp(-1, 1)], 1)
    grid, episode = Grid(10.0, torch.zeros(1, 2), extra=2), torch.zeros(9, dtype=torch.long)
    assert len(grid.keys(grid.place(s, episode), episode).unique()) == 9
    plain = Grid(10.0, torch.zeros(1, 2))
    assert len(plain.keys(plain.place(s, episode), episode).unique()) == 1
    for bad in (-1.0, 5000.0):
        with pytest.raises(ValueError, match="extra: expected 2 numbers from 0 to 4095"):
            grid.keys(
                grid.place(torch.full((1, 4), bad).clamp(max=5000) * torch.tensor([0, 0, 1, 1.0]), episode[:1]),
                episode[:1],
            )
    with pytest.raises(ValueError, match="extra: expected fewer"):
        search(level(GOAL), START, generator(), Search(compass(), extra=2))


def test_plans_around_discs_never_touch_them():
    batch = 12
    start, goal = START.expand(batch, -1), GOAL.expand(batch, -1)
    center = torch.stack(
        [torch.tensor([1.5, 0.0]) + 0.5 * normal(batch, 2), torch.tensor([1.5, 1.2]) + 0.2 * normal(batch, 2, seed=1)],
        1,
    )
    center[:, :, 0].clamp_(1.0, 2.0)
    found, way = sought(Task(Reach(goal), (Avoid(center, 0.4, margin=0.1),)), start)
    assert found.total.isfinite().all()
    assert (apart(center, way[..., :2]) > 0.5 - 1e-4).all()
    through, straight = sought(Task(Reach(goal)), start)
    assert (apart(center, straight[..., :2]) < 0.5).any() and (found.total >= through.total).all()


def test_who_is_within_a_disc_gets_out_and_never_in():
    disc = Avoid(torch.tensor([[[0.0, 0.0]]]), 1.0)
    s = torch.tensor([[[0.5, 0.0], [0.5, 0.0], [0.5, 0.0], [2.0, 0.0], [2.0, 0.0], [1.5, 0.0]]])
    after = torch.tensor([[[0.7, 0.0], [0.4, 0.0], [0.5, 0.0], [0.9, 0.0], [-2.0, 0.0], [1.5, 3.0]]])
    assert disc.passage(s, after, after).isinf().tolist() == [[False, True, True, True, True, False]]
    soft = Avoid(disc.center, 1.0, weight=3.0)
    assert soft.passage(s, after, after).tolist() == [[3, 3, 3, 3, 3, 0]]


def test_soft_discs_are_crossed_where_the_way_around_costs_more():
    center = torch.tensor([[[1.5, 0.0]]])
    cheap, way = sought(Task(Reach(GOAL), (Avoid(center, 0.6, weight=0.01),)), START)
    dear, around = sought(Task(Reach(GOAL), (Avoid(center, 0.6, weight=100.0),)), START)
    assert apart(center, way[..., :2]) < 0.6 < apart(center, around[..., :2]) + 1e-4
    assert cheap.total < dear.total < 100


@pytest.mark.parametrize("greed", [0.0, 2.0])
def test_ways_pass_through_places(greed):
    place = torch.tensor([[1.0, 1.5], [-1.0, 0.0], [3.0, 0.5]])
    start, goal = START.expand(3, -1), GOAL.expand(3, -1)
    found, way = sought(Task(Reach(goal), (Through(place, 0.2),)), start, greed=greed)
    assert found.total.isfinite().all() and (way[:, -1, 2] == 1).all()
    assert (apart(place.unsqueeze(1), way[..., :2])[:, 0] <= 0.2 + 1e-4).all()
    detour = (place - start).norm(dim=1) + (goal - place).norm(dim=1)
    assert (found.total >= ((detour - 2 * 0.2 - 0.3) / 0.5).ceil()).all()  # longest steps, straight
    assert (found.total <= (detour / 0.5 * 1.15 + 2)).all()


def test_plans_pass_within_the_margin_and_what_is_seen_counts_up_to_the_radius():
    place = torch.tensor([[1.0, 1.5]])
    task = Task(Reach(GOAL), (Through(place, 0.4, margin=0.3),))
    found, way = sought(task, START, width=64)
    assert apart(place.unsqueeze(1), way[..., :2]) <= 0.1 + 1e-4 and found.total.isfinite()
    progress = Progress(task)
    assert progress.start(START) == 0 and progress.seen(START, place - 0.27) == 1  # 0.38 from it
    assert progress.seen(START, START) == 1


def test_both_is_the_shortest_of_all_orders():
    places = torch.tensor([[[2.0, 1.5], [-1.0, 0.5], [1.0, -1.5]]])
    found, way = sought(Task(Reach(GOAL), (Both(places, 0.25),)), START, width=64)
    passed = [apart(places, way[:, : t + 1, :2])[0] <= 0.25 + 1e-4 for t in range(1, way.shape[1])]
    first = torch.stack(passed).float().argmax(0)
    assert passed[-1].all() and way[0, -1, 2] == 7

    def length(order):
        points = [START[0], *(places[0, i] for i in order), GOAL[0]]
        return sum(float((b - a).norm()) for a, b in itertools.pairwise(points))

    lengths = {order: length(order) for order in itertools.permutations(range(3))}
    assert tuple(first.argsort().tolist()) == min(lengths, key=lengths.get)
    singles = Task(Reach(GOAL), tuple(Through(places[:, i], 0.25) for i in range(3)))
    assert sought(singles, START, width=64)[0].total == found.total  # one number or three: the same automaton


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("after", [0, 3, 20, 27])
def test_late_arrives_when_it_is_time(stride, after):
    task = Task(Reach(GOAL), (Late(GOAL, 0.45, after),))
    found, way = sought(task, START, level(GOAL, stride=stride), cell=0.3, width=400)
    steps = stride * int(found.plan.length)
    times = stride * torch.arange(way.shape[1])
    distance = (way[0, :, :2] - GOAL).norm(dim=1)
    assert steps >= after and distance[-1] <= 0.3 and way[0, -1, 2] == after
    assert (distance[times < after] > 0.45).all()
    if stride == 1:
        assert steps == max(after, 6)  # 3 − 0.3 in steps of 0.5
    else:  # no step into the circle begins before the last that is too early
        inside = (segment_distance(GOAL.unsqueeze(1), way[:, :-1, :2], way[:, 1:, :2])[0, :, 0] <= 0.45).nonzero()[0, 0]
        assert times[inside] + 1 >= after and steps < max(after, 24) + 2 * stride


def test_little_changes_nothing_without_weight_and_chooses_lengths_as_the_closed_form():
    # n moves of length ℓ over a distance d: n (1 + w ℓ²) with n = d / ℓ, least at ℓ = 1 / √w
    line = torch.cat([torch.tensor([[length, 0.0]]) for length in (1.0, 0.5, 0.25)])
    fields = {"moves": line, "rotate": False, "tolerance": 1e-6, "cell": 0.01, "greed": 0.0}
    plain = sought(Task(Reach(GOAL)), START, level(GOAL, longest=1.0), **fields)[0]
    none = sought(Task(Reach(GOAL), (Little(0.0),)), START, level(GOAL, longest=1.0), **fields)[0]
    assert torch.equal(plain.plan.actions, none.plan.actions) and torch.equal(plain.total, none.total)
    for weight, best in ((1.0, 1.0), (4.0, 0.5), (16.0, 0.25)):
        found = sought(Task(Reach(GOAL), (Little(weight),)), START, level(GOAL, longest=1.0), **fields)[0]
        assert found.plan.actions[0].norm(dim=1).tolist() == [best] * round(3 / best)
        assert float(found.total) == pytest.approx(3 * (1 / best + weight * best))


def graph(seed, nodes=30):
    """Return a connected graph with coordinates of its nodes."""
    random = np.random.RandomState(seed)
    at = random.permutation(400)[:nodes]
    points = np.stack([at % 20, at // 20], 1).astype(np.float32)
    of, order = nx.Graph(), random.permutation(nodes)
    of.add_edges_from((int(order[i]), int(order[random.randint(i)])) for i in range(1, nodes))
    of.add_edges_from(tuple(int(n) for n in random.choice(nodes, 2, replace=False)) for _ in range(nodes // 2))
    return of, torch.from_numpy(points)


def edges_as_moves(of, points):
    """Return a step whose action k leads to the k-th neighbor, 0 or one there is not nowhere, and the moves."""
    most = max(dict(of.degree).values())
    after = torch.arange(len(points)).repeat(most + 1, 1)
    for node in of:
        for k, neighbor in enumerate(of[node]):
            after[k + 1, node] = neighbor

    def step(s, a, z):
        node = torch.cdist(s, points.unsqueeze(0)).argmin(-1)
        return points[after[a[..., 0].round().long(), node]]

    return step, torch.arange(most + 1.0).unsqueeze(1)


@pytest.mark.parametrize("seed", range(6))
def test_graphs_are_searched_as_their_products_with_automata(seed):
    of, points = graph(seed)
    step, arcs = edges_as_moves(of, points)
    start, goal, first, second, forbidden, after = 0, 1, 2, 3, (4, 5), 7
    parts = (
        Avoid(points[None, forbidden], 0.01),
        Both(points[None, (first, second)], 0.01),
        Late(points[None, goal], 0.01, after),
    )

    # whether a straight edge comes by a node is geometry, so the witness gets it from dense points on the edge
    @cache
    def by(a, b, node):
        t = torch.linspace(0, 1, 2001)[:, None]
        return float(((points[a] + t * (points[b] - points[a])) - points[node]).norm(dim=1).min()) <= 0.0101

    product = nx.DiGraph()
    for node, mask, time in itertools.product(of, range(4), range(after + 1)):
        for to in (*of[node], node):
            if any(by(node, to, n) and (node == to or node != n) for n in forbidden):  # from a node one may leave
                continue
            if by(node, to, goal) and (node == to or node != goal) and time + 1 < after:
                continue
            new = mask | by(node, to, first) | 2 * by(node, to, second)
            product.add_edge((node, mask, time), (to, new, min(time + 1, after)))
    lengths = nx.single_source_shortest_path_length(product, (start, 0, 0)) if (start, 0, 0) in product else {}
    expected = lengths.get((goal, 3, after), math.inf)
    where = Level(step, None, 100, Box(1), 1)
    task = Task(Reach(points[None, goal]), parts)
    found, _ = sought(task, points[None, start], where, moves=arcs, rotate=False, cell=1.0, tolerance=1e-4, greed=0.0)
    assert float(found.total) == expected
    if math.isinf(expected):
        assert float(found.plan.value) > 1e-4


def test_graph_distances_without_parts_are_those_of_networkx():
    of, points = graph(10)
    step, arcs = edges_as_moves(of, points)
    goals, starts = points[1:6], points[:1].expand(5, -1)
    where = Level(step, None, 100, Box(1), 1)
    found, _ = sought(Task(Reach(goals)), starts, where, moves=arcs, rotate=False, cell=1.0, tolerance=1e-4, greed=0.0)
    assert found.total.tolist() == [nx.shortest_path_length(of, 0, goal) for goal in range(1, 6)]


def maze(count, rooms=2, seed=0):
    world = Maze(rooms=rooms)
    tasks = world.tasks(count, generator(seed))
    return tasks, Walked(tasks.layouts), tasks.start / UNIT, tasks.goal / UNIT


def test_mazes_are_crossed_through_places_and_around_discs():
    tasks, step, start, goal = maze(8)
    place = Maze(rooms=2).uniform(tasks.layouts, generator(3), 1.5) / UNIT
    center = Maze(rooms=2).uniform(tasks.layouts, generator(4), 3.0)[:, None] / UNIT
    center = torch.where(((center[:, 0] - goal).norm(dim=1) < 0.3)[:, None, None], 9.0, center)
    where = episodic(Level(step, Distance(goal), 100, Box(2, norm=0.4)))
    fields = {"moves": compass(0.4), "cell": 0.12, "tolerance": 0.2**2, "greed": 2.5}
    through, way = sought(Task(Reach(goal), (Through(place, 0.2),)), start, where, **fields)
    assert through.total.isfinite().all()
    assert (apart(place[:, None], way[..., :2])[:, 0] <= 0.2 + 1e-4).all()
    exact = sum(geodesic(tasks.layouts, a * UNIT, b * UNIT).length for a, b in ((start, place), (place, goal))) / UNIT
    assert (through.total * 0.4 >= exact - 2 * 0.2 - 0.2 - 1e-4).all()
    around, way = sought(Task(Reach(goal), (Avoid(center, 0.15, margin=0.02),)), start, where, **fields)
    solved = around.total.isfinite() & ((center[:, 0] - start).norm(dim=1) > 0.17)
    assert solved.sum() >= 6 and (apart(center, way[..., :2])[solved] > 0.17 - 1e-4).all()


def test_contradictions_are_told():
    inside = Avoid(torch.tensor([[[9.0, 9.0], [2.9, 0.0]]]), 0.3)
    with pytest.raises(ValueError, match=r"goal \[3.0, 0.0\] of episode 0 within 0.3 of center \[2.9, 0.0\]"):
        Task(Reach(GOAL), (inside,))
    Task(Reach(GOAL), (Avoid(inside.center, 0.3, weight=5.0),))  # dear, and possible
    walled = Task(Reach(GOAL), (Avoid(torch.tensor([[[3.0, 0.5]]]), 0.3, margin=0.6),))
    never = Task(Reach(GOAL), (Late(GOAL, 0.5, 12),))
    fields = {"cell": 0.4, "width": 100, "most": 40_000}
    for task, of in (
        (walled, level(GOAL)),
        (never, level(GOAL, horizon=11)),
        (never, level(GOAL, stride=4, horizon=2)),
    ):
        found, _ = sought(task, START, of, **fields)
        assert found.total.isinf().all() and (found.plan.value > 0.09).all()
    assert sought(never, START, level(GOAL, horizon=12), **fields)[0].total == 12


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Avoid(torch.zeros(1, 1, 2), -1.0), "radius: expected a number of at least 0, found -1.0"),
        (lambda: Avoid(torch.zeros(1, 1, 2), 1.0, weight=-2.0), "weight: expected .* found -2.0"),
        (lambda: Avoid(torch.zeros(1, 1, 2), 1.0, margin=math.nan), "margin: expected .* found nan"),
        (lambda: Avoid(torch.zeros(1, 2), 1.0), r"center: expected \[B, N, X\], found \[1, 2\]"),
        (lambda: Through(torch.zeros(2), 1.0), r"place: expected \[B, X\], found \[2\]"),
        (lambda: Through(torch.zeros(1, 2), -0.1), "radius: expected"),
        (lambda: Through(torch.zeros(1, 2), 0.1, 0.2), "margin: expected at most the radius 0.1, found 0.2"),
        (lambda: Both(torch.zeros(1, 21, 2), 1.0), "places: expected from 1 to 20, found 21"),
        (lambda: Late(GOAL, 1.0, -1), "after: expected a number of at least 0"),
        (lambda: Late(GOAL, 1.0, 1.5), "after: expected a whole number"),
        (lambda: Little(-1.0), "weight: expected"),
        (lambda: Reach(torch.zeros(2)), r"goal: expected \[B, X\]"),
        (
            lambda: Task(Reach(torch.zeros(3, 2)), (Through(torch.zeros(2, 2), 1.0),)),
            r"same number of episodes in all, found \[2, 3\]",
        ),
        (lambda: Progress(Task(Reach(torch.zeros(3, 2)))).start(torch.zeros(2, 2)), "s: expected 3 episodes"),
    ],
)
def test_errors_are_clear(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_tasks_of_episodes_that_are_chosen_are_those_of_each():
    goal, center, places = normal(6, 2) + 5, normal(6, 3, 2), normal(6, 2, 2, seed=1)
    task = Task(Reach(goal), (Avoid(center, 0.1), Late(goal, 0.2, 5), Both(places, 0.5), Little(0.1)))
    index, s, after = torch.tensor([4, 1, 1]), normal(6, 4, 2, seed=2), normal(6, 4, 2, seed=3)
    progress = torch.zeros(6, 4, 2)
    some = task.rows(index)
    assert torch.equal(
        some.advance(progress[index], s[index], after[index], 2), task.advance(progress, s, after, 2)[index]
    )
    both = torch.cat([s, progress], -1), torch.cat([after, progress], -1)
    whole = task.planned(level(goal), Search(compass()))[0]
    part = whole.rows(index)
    a = normal(6, 4, 2, seed=4)
    assert torch.equal(part.passage(*(b[index] for b in both), a[index]), whole.passage(*both, a)[index])
    assert torch.equal(part.cost(both[0][index].unsqueeze(2), a), whole.cost(both[0].unsqueeze(2), a)[index])


def test_the_lowest_level_is_repelled_and_never_lost():
    center, s = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[0.1, 0.0]])
    low = for_lowest(Task(Reach(GOAL), (Avoid(center, 0.5), Little(1.0))), level(GOAL, longest=0.1))
    steps = compass(0.1)
    after = s.unsqueeze(1) + steps
    within = (0.5 - after.norm(dim=-1)).clamp(min=0)
    torch.testing.assert_close(low.passage(s.unsqueeze(1).expand_as(after), after, steps[None]), 1e4 * within.square())
    a, end = toward(low, s, torch.tensor([[-1.0, 0.0]]), steps)  # all are forbidden: the least bad leads out
    assert a.isfinite().all() and end[0].tolist() == pytest.approx([0.2, 0.0], abs=1e-6)
    task = Task(Reach(GOAL), (Through(GOAL, 1.0),))
    assert for_lowest(task, low) is low


def test_conditions_are_waited_out():
    c = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    rules = Rules(near=0.1, missed=0.5, patience=4, stall=2)
    course = Course(c[:, 0], c, torch.tensor([2]), rules, torch.tensor([[6, 0]]))
    at, rows = [], torch.tensor([0])
    for _ in range(6):
        course.seen(rows, c[:, 0])
        at.append(int(course.at))
    assert at == [0, 0, 0, 0, 0, 1] and bool(course.active)
    lost = Course(c[:, 0], c, torch.tensor([2]), rules, torch.tensor([[6, 0]]))
    for _ in range(3):
        lost.seen(rows, c[:, 0] + 2) if bool(lost.active) else None
    assert bool(lost.unmet)  # who does not get there at all does not wait


def hierarchy(goal, step, task=None, rounds=4, strides=(4,)):
    """Return two levels, or three with two strides: steps of the lowest level in one step of each upper level."""
    rules = Rules(near=0.1, missed=0.25)
    lowest = episodic(Level(step, Distance(goal), 1, Box(2, norm=0.125)))
    moved, uppers = compass(0.125, 16, (1.0, 0.6, 0.3)), []
    lower = Lower(lowest, rules, moved)
    for number, stride in enumerate(strides):
        above = episodic(Level(step, Distance(goal), 60, Box(2, norm=0.125 * stride), stride))
        find = Search(compass(0.125 * stride, 12), cell=0.05 * stride, tolerance=(0.2, 0.45)[number] ** 2)
        find = replace(find, greed=8.0 / stride)
        uppers.append(Upper(Searching(above, find, lower, Rounds(rounds)), rules))
        rules = Rules(near=0.25, missed=0.4, patience=32, stall=12)  # of what is pursued by a search
        lower = Lower(above, rules, None, find)
    of = Hierarchy(lowest, moved, tuple(uppers), goal)
    return of if task is None else with_task(of, task)


def acted(start, goal, step=free, task=None, steps=80, rounds=4, strides=(4,), **fields):
    world = World(step, start)
    settings = Settings(**{"steps": steps, "arrived": 0.06, "near": 0.3, **fields})
    log = control(world, lambda s: s, hierarchy(goal, step, task, rounds, strides), generator(), settings)
    return log, torch.stack(world.way, 1)


@pytest.mark.parametrize("fields", [{}, {"rounds": 1}, {"budget": 3000}, {"strides": (4, 8), "budget": 9000}])
def test_control_without_a_task_and_with_one_of_no_parts_are_the_same_to_the_bit(fields):
    _, step, start, goal = maze(6, seed=2)
    plain, way = acted(start, goal, step, steps=50, **fields)
    empty, same = acted(start, goal, step, Task(Reach(goal)), steps=50, **fields)
    assert torch.equal(way, same)
    for name in ("actions", "states", "plans", "evaluations", "failed"):
        assert torch.equal(getattr(plain, name), getattr(empty, name)), name
    assert plain.progress is None and empty.progress.shape == (6, 51, 0)
    other = torch.cat([goal[:5], goal[5:] + 1])
    with pytest.raises(ValueError, match="task: expected the same goal"):
        acted(start, goal, step, Task(Reach(other)))


def test_control_passes_through_and_keeps_away_and_rests():
    batch = 5
    start, goal = START.expand(batch, -1), GOAL.expand(batch, -1)
    place = torch.tensor([1.5, 1.2]) + 0.3 * normal(batch, 2)
    center = torch.tensor([1.5, 0.2]) + 0.1 * normal(batch, 1, 2, seed=1)
    task = Task(Reach(goal), (Avoid(center, 0.3, margin=0.1), Through(place, 0.2)))
    log, way = acted(start, goal, task=task)
    assert (log.progress[:, -1, 0] == 1).all() and (log.progress.diff(dim=1) >= 0).all()
    assert (apart(place.unsqueeze(1), way)[:, 0] <= 0.2 + 1e-4).all()
    assert (apart(center, way) > 0.3).all()
    assert ((way[:, -1] - goal).norm(dim=1) <= 0.06).all() and (log.actions[:, -1] == 0).all()


def test_progress_survives_a_new_plan():
    # the way back to a place that was passed is not gone again: the plan breaks at a wall that only the world has
    def walled(s, a, z):
        after = s + a
        blocked = (s[..., :1] < 2) & (after[..., :1] >= 2) & (after[..., 1:].abs() < 0.8)
        return torch.where(blocked, s.expand_as(after), after)

    place = torch.tensor([[1.0, -0.5]])
    task = Task(Reach(GOAL), (Through(place, 0.2),))
    world, of = World(walled, START), hierarchy(GOAL, free, task, rounds=1)
    settings = Settings(steps=110, arrived=0.06, near=0.3, spread=0.3)
    log = control(world, lambda s: s, of, generator(), settings)
    way = torch.stack(world.way, 1)[0]
    visits = ((way - place).norm(dim=1) <= 0.25).int().diff().clamp(min=0).sum()
    assert log.plans > 1 and visits == 1 and log.progress[0, -1, 0] == 1
    assert (way[-1] - GOAL[0]).norm() <= 0.06


@pytest.mark.parametrize("after", [10, 45])
def test_control_comes_late_and_not_before(after):
    batch = 6
    start, goal = 0.2 * normal(batch, 2), GOAL + 0.2 * normal(batch, 2, seed=1)
    task = Task(Reach(goal), (Late(goal, 0.5, after),))
    log, way = acted(start, goal, task=task, steps=after + 40)
    distance = (way - goal.unsqueeze(1)).norm(dim=-1)
    assert (distance[:, :after] > 3 / UNIT).all()  # the rule of the experiments, in world units
    assert (distance[:, after:] < 1.5 / UNIT).any(1).all()
    assert (log.progress[:, -1, 0] == after).all() and (distance[:, -1] <= 0.06).all()


def test_control_waits_where_it_may_not_go_yet_and_has_no_plan():
    task = Task(Reach(GOAL), (Late(GOAL, 0.5, 1000),))
    log, way = acted(START, GOAL, task=task, steps=20, plans=3, budget=50_000)
    assert ((way - GOAL).norm(dim=-1) > 0.5).all() and log.plans <= 3


def test_three_levels_keep_away_pass_through_and_wait():
    batch, after = 3, 50
    start, goal = START.expand(batch, -1), GOAL.expand(batch, -1)
    center, place = (
        torch.tensor([1.5, 0.0]) + 0.2 * normal(batch, 1, 2),
        torch.tensor([1.0, 1.5]) + 0.2 * normal(batch, 2),
    )
    parts = (Late(goal, 0.7, after), Avoid(center, 0.3, margin=0.2), Through(place, 0.3, margin=0.1))
    log, way = acted(start, goal, task=Task(Reach(goal), parts), steps=140, strides=(4, 8))
    # conditions may be missed by more than the margin here, then the way back to the place takes steps, too
    distance = (way - goal.unsqueeze(1)).norm(dim=-1)
    assert (distance[:, :after] > 3 / UNIT).all() and (distance[:, -1] <= 0.06).all()
    assert (apart(center, way) > 0.3).all() and (apart(place.unsqueeze(1), way)[:, 0] <= 0.3 + 1e-4).all()
    assert log.progress[:, -1].tolist() == [[after, 1]] * batch


def test_levels_between_plan_for_what_is_asked_and_not_for_the_goal():
    place = torch.tensor([[0.0, 2.0]])
    log, _ = acted(START, GOAL, task=Task(Reach(GOAL), (Through(place, 0.3),)), steps=30, strides=(4, 8), keep=True)
    (first,) = (kept for kept in log.kept if kept.step == 0 and kept.level == 3)
    asked = first.proposal.states[0, 0, :2]
    (below,) = (kept for kept in log.kept if kept.step == 0 and kept.level == 2)
    end = below.proposal.states[0, int(below.proposal.length) - 1]
    assert (end - asked).norm() <= 0.2 < (end - GOAL[0]).norm()


def test_levels_that_cannot_take_a_task_say_so():
    of, task = hierarchy(GOAL, free), Task(Reach(GOAL))
    with pytest.raises(ValueError, match="task: expected levels without a task"):
        with_task(with_task(of, task), task)
    with pytest.raises(ValueError, match="task: expected planners that search, found function"):
        with_task(of._replace(uppers=(Upper(lambda *_: None, Rules()),)), task)
