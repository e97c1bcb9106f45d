"""How often planners arrive in mazes, and at what cost: flat ones and hierarchies, on the same tasks.

Tasks are *misleading* where the true shortest way is more than two units longer than the map says (`misleading`), by
the oracle maps and before any plan; the others are *clean*. An evaluation is a state that the step of any level was
asked for, in imagination as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jepa.evaluate.flat_methods import doubted
from jepa.evaluate.following import Done, Numbers
from jepa.evaluate.inference import Operations
from jepa.evaluate.mazes import Planning
from jepa.evaluate.methods import METHODS, WITHOUT, method
from jepa.evaluate.scenes import Scene, scene
from jepa.evaluate.subject import Row, refused
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.maze import Maze
from jepa.worlds.rooms.maze_tasks import misleading
from jepa.worlds.rooms.success import RADIUS, WITHIN, any_within_radius, first_within, last_within
from jepa.worlds.rooms.tasks import Tasks

STEPS = {2: 50, 3: 80, 5: 160, 7: 260}  # of an episode, by rooms a side; of two rooms as published
TWO_ROOMS = 200
PLENTY = 10**9  # evaluations
PERCEPT = "percept"
SEES = (PERCEPT, "map")
PAIRS = (
    ("iterated", "greedy"), ("iterated", "experience"), ("unweighted", "greedy"), ("greedy", "flat_servo"),
    ("experience", "flat_servo"), ("iterated", "flat_servo"), ("greedy", "flat_tree"), ("greedy", "flat_cem"),
)  # fmt: skip


class Spent(NamedTuple):
    """Floating-point operations."""

    steps: dict[int, float]  # of a step of each level, from 1
    heads: dict[int, float]  # of what the heads of each level say of a step; 0: of a flat plan's


class Arrived(NamedTuple):
    """What came of the episodes of a planner."""

    solved: Tensor  # [N] bool
    first: Tensor  # [N] steps until then, all if never
    done: Done


@torch.no_grad()
def hierarchical(
    subject: Planning, episodes: int = 200, sees: str = PERCEPT, methods: Sequence[str] = METHODS + WITHOUT,
    budget: int = PLENTY, steps: int = 0, numbers: dict[str, Any] | None = None, flat: dict[str, Any] | None = None,
    cem: dict[str, Any] | None = None,
) -> list[Row]:  # fmt: skip
    """Return success and cost of planners on this seed's held-out tasks, and the differences between them, by task.

    Args: episodes: of each; sees: what upper levels see, the percept, or the map, in which shut gates look open;
        methods: names (`methods.METHODS`); budget: evaluations of an episode from which on no more plans are made;
        steps: of an episode, 0 for as many as the size of the maze asks for; numbers, flat, cem: of the hierarchies, of
        flat searches and of the cross-entropy method (`following.Numbers`), that differ from the defaults.
    Raises: ValueError for another subject, or a planner, number or `sees` that does not exist.
    """
    known(subject, "hierarchical")
    if sees not in SEES:
        raise ValueError(f"measure.hierarchical.sees: expected one of {', '.join(SEES)}, found {sees!r}")
    settings = chosen(subject, {**(flat or {}), **(cem or {}), **(numbers or {})}, budget, steps)
    tasks = subject.some_tasks(episodes)
    kinds = kinds_of(subject.world, tasks)
    found = {name: driven(subject, tasks, name, settings, sees) for name in methods}
    spent = costs(subject, tasks)
    rows = [Row(name, float(of.double().mean()), episodes) for name, of in kinds.items() if name == "misleading"]
    for name, arrived in found.items():
        rows += rows_of(name, arrived, kinds, spent)
    for one, other in PAIRS:
        if one in found and other in found:
            rows += differences(f"{one}_minus_{other}", found[one], found[other], kinds, spent)
    if {"greedy", "oracle"} <= set(found):
        rows.append(Row("greedy_over_oracle", rate(found["greedy"]) / rate(found["oracle"])))
    return rows


def rate(found: Arrived) -> float:
    """Return the success rate, at least that of half an episode, so that ratios are finite."""
    return max(float(found.solved.double().mean()), 0.5 / len(found.solved))


def known(subject: Any, measure: str) -> None:
    """Raises: ValueError for another subject than a hierarchy that plans in mazes."""
    if not isinstance(subject, Planning):
        raise refused(measure, "a hierarchy that plans in mazes", subject)


def chosen(subject: Planning, numbers: dict[str, Any] | None = None, budget: int = PLENTY, steps: int = 0) -> Numbers:
    """Return the numbers of planners. Raises: ValueError for one that does not exist."""
    rooms = getattr(subject.world, "rooms", None)
    usual = TWO_ROOMS if rooms is None else STEPS.get(rooms, 40 * rooms)
    defaults = Numbers(steps=steps or usual, budget=budget)
    if strange := set(numbers or {}) - set(vars(defaults)):
        raise ValueError(f"numbers: expected some of {', '.join(vars(defaults))}, found {', '.join(sorted(strange))}")
    return replace(defaults, **(numbers or {}))


def driven(subject: Planning, tasks: Tasks, name: str, numbers: Numbers, sees: str) -> Arrived:
    """Return what came of a planner's episodes."""
    acting = subject.world.episodes(tasks, generator=subject.stream("collisions"))
    of = seen(subject, acting, sees)
    done = method(name)(of, numbers, subject.stream("planner"))
    done = done._replace(doubts={level: asked / len(tasks.start) for level, asked in of.doubts.items()})
    return arrived(subject.world, acting.positions, tasks.goal, done)


def seen(subject: Planning, acting: Any, sees: str = PERCEPT) -> Scene:
    """Return what the hierarchy is given of episodes."""
    map = None if sees == PERCEPT else subject.world.map(acting.tasks.layouts)
    return scene(subject.model, subject.world, acting, map)


def arrived(world: Any, positions: Tensor, goal: Tensor, done: Done) -> Arrived:
    """Return what came of episodes at positions [N, T+1, 2]: in mazes at any step, in two rooms after the last one."""
    rule, radius = (any_within_radius, RADIUS) if isinstance(world, Maze) else (last_within, WITHIN)
    return Arrived(rule(positions, goal), first_within(positions, goal, radius), done)


def kinds_of(world: Any, tasks: Tasks) -> dict[str, Tensor]:
    """Return which tasks are of which kind, each [N] bool, and how long their ways are, in units.

    Thirds by that length; in mazes misleading and clean. In two rooms the way is that through the door's middle.
    """
    if not isinstance(world, Maze):
        door = tasks.layouts.doors[:, 0]
        length = (tasks.start - door).norm(dim=-1) + (tasks.goal - door).norm(dim=-1)
        return {**thirds(length), "length": length}
    length = geodesic(tasks.layouts, tasks.start, tasks.goal).length
    wrong = misleading(tasks)
    return {"misleading": wrong, "clean": ~wrong, **thirds(length), "length": length}


def thirds(length: Tensor) -> dict[str, Tensor]:
    """Return which tasks are of the nearest, the middle and the farthest third, [N] bool."""
    first, second = (length.quantile(share) for share in (1 / 3, 2 / 3))
    return {"near": length <= first, "middle": (length > first) & (length <= second), "far": length > second}


def rows_of(name: str, found: Arrived, kinds: dict[str, Tensor], spent: Spent | None) -> list[Row]:
    """Return the rows of one planner."""
    solved, used = found.solved.double(), found.done.evaluations.double()
    rows = [Row(f"{name}_success", float(solved.mean()), len(solved))]
    for kind, some in kinds.items():
        if some.dtype == torch.bool and bool(some.any()):
            rows.append(Row(f"{name}_success_{kind}", float(solved[some].mean()), int(some.sum())))
    rows.append(Row(f"{name}_steps", float(found.first.double().mean())))
    rows.append(Row(f"{name}_plans", float(found.done.plans.double().mean())))
    if float(used.sum()) == 0:
        return rows
    total = used.sum(1)
    rows.append(Row(f"{name}_evaluations_per_success", float(total.mean()) / rate(found)))
    rows += [Row(f"{name}_evaluations", float(total.mean())), Row(f"{name}_growth", growth(total, kinds["length"]))]
    rows += [Row(f"{name}_evaluations_{level}", float(part)) for level, part in enumerate(used.mean(0), 1)]
    return [*rows, Row(f"{name}_gigaflops", 1e-9 * float(operations(found.done, spent).mean()))] if spent else rows


def operations(done: Done, spent: Spent) -> Tensor:
    """Return the floating-point operations of steps [N], with those of heads in the mean over episodes.

    Pictures and maps, which are seen once, are not counted.
    """
    used = done.evaluations.double()
    total = sum(spent.steps[level] * used[:, at] for at, level in enumerate(done.levels))
    return total + sum(spent.heads[level] * asked for level, asked in done.doubts.items())


def growth(evaluations: Tensor, length: Tensor) -> float:
    """Return the slope of log evaluations against log length of the way, by least squares."""
    x, y = length.double().log(), evaluations.clamp(min=1).log()
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / x.square().sum())


def differences(
    name: str, one: Arrived, other: Arrived, kinds: dict[str, Tensor], spent: Spent | None = None
) -> list[Row]:
    """Return the differences of two planners, paired by task, and the ratio of what they take."""
    gain = one.solved.double() - other.solved.double()
    rows = [Row(name, float(gain.mean()))]
    for kind, some in kinds.items():
        if some.dtype == torch.bool and bool(some.any()):
            rows.append(Row(f"{name}_{kind}", float(gain[some].mean())))
    used = [found.done.evaluations.sum(1).double() for found in (one, other)]
    rows.append(Row(f"{name}_evaluation_ratio", float(used[0].mean() / used[1].mean())))
    if spent:
        both = [float(operations(found.done, spent).mean()) for found in (one, other)]
        rows.append(Row(f"{name}_compute_ratio", both[0] / both[1]))
    slopes = [growth(total, kinds["length"]) for total in used]
    return [*rows, Row(f"{name}_growth", slopes[0] - slopes[1])]


def costs(subject: Planning, tasks: Tasks) -> Spent:
    """Return what a step of each level takes, and what its heads take that doubt a step."""
    some = tasks.rows(slice(0, 1))
    of = seen(subject, subject.world.episodes(some, generator=subject.stream("costs")))
    steps, heads = {}, {}
    for number in range(1, len(subject.model.levels) + 1):
        level = of.upper(number, 0.0) if number > 1 else doubted(of, 0.0)  # the heads that flat plans ask are fewer
        s, a = of.goal.unsqueeze(1), of.goal.new_zeros(1, 1, level.actions.width)
        with Operations() as counted:
            after = level.step(s, a, s.new_zeros(1, 1, level.latent))
        with Operations() as doubting:
            level.passage(s, after, a)
        steps[number], heads[number if number > 1 else 0] = float(counted.total), float(doubting.total)
    return Spent(steps, heads)
