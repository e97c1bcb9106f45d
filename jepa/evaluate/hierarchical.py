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

from jepa.evaluate.inference import Operations
from jepa.evaluate.mazes import Planning
from jepa.evaluate.methods import METHODS, WITHOUT, Done, Numbers, method
from jepa.evaluate.scenes import Scene, scene
from jepa.evaluate.subject import Row, refused
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.maze_tasks import misleading
from jepa.worlds.rooms.success import any_within_radius
from jepa.worlds.rooms.tasks import Tasks

STEPS = {2: 50, 3: 80, 5: 160, 7: 260}  # of an episode, by rooms a side
PERCEPT = "percept"
SEES = (PERCEPT, "map")
PAIRS = (("iterated", "greedy"), ("iterated", "experience"), ("greedy", "flat_servo"), ("iterated", "flat_servo"))


class Arrived(NamedTuple):
    """What came of the episodes of a planner."""

    solved: Tensor  # [N] bool
    first: Tensor  # [N] steps until then, all if never
    done: Done


@torch.no_grad()
def hierarchical(
    subject: Planning, episodes: int = 200, sees: str = PERCEPT, methods: Sequence[str] = METHODS + WITHOUT,
    numbers: dict[str, Any] | None = None,
) -> list[Row]:  # fmt: skip
    """Return success and cost of planners on this seed's held-out tasks, and the differences between them, by task.

    Args: episodes: of each; sees: what upper levels see, the percept, or the map, in which shut gates look open; methods: names (`methods.METHODS`);
        numbers: of planners, that differ from the defaults (`methods.Numbers`).
    Raises: ValueError for a planner or number that does not exist.
    """
    known(subject, "hierarchical")
    if sees not in SEES:
        raise ValueError(f"measure.hierarchical.sees: expected one of {', '.join(SEES)}, found {sees!r}")
    settings = chosen(subject, numbers or {})
    tasks = subject.some_tasks(episodes)
    kinds = kinds_of(tasks)
    found = {name: driven(subject, tasks, name, settings, sees) for name in methods}
    spent = costs(subject, tasks)
    rows = [Row("misleading", float(kinds["misleading"].double().mean()), episodes)]
    for name, arrived in found.items():
        rows += rows_of(name, arrived, kinds, spent)
    for one, other in PAIRS:
        if one in found and other in found:
            rows += differences(f"{one}_minus_{other}", found[one], found[other], kinds)
    return rows


def known(subject: Any, measure: str) -> None:
    """Raises: ValueError for another subject than a hierarchy that plans in mazes."""
    if not isinstance(subject, Planning):
        raise refused(measure, "a hierarchy that plans in mazes", subject)


def chosen(subject: Planning, numbers: dict[str, Any]) -> Numbers:
    """Return the numbers of planners. Raises: ValueError for one that does not exist."""
    defaults = Numbers(steps=STEPS.get(subject.world.rooms, 40 * subject.world.rooms))
    if strange := set(numbers) - set(vars(defaults)):
        raise ValueError(f"numbers: expected some of {', '.join(vars(defaults))}, found {', '.join(sorted(strange))}")
    return replace(defaults, **numbers)


def driven(subject: Planning, tasks: Tasks, name: str, numbers: Numbers, sees: str) -> Arrived:
    """Return what came of a planner's episodes."""
    acting = subject.world.episodes(tasks)
    of = seen(subject, acting, sees)
    done = method(name)(of, numbers, subject.stream(f"planner {name}"))
    return arrived(acting.positions, tasks.goal, done)


def seen(subject: Planning, acting: Any, sees: str = PERCEPT) -> Scene:
    """Return what the hierarchy is given of episodes."""
    map = None if sees == PERCEPT else subject.world.map(acting.tasks.layouts)
    return scene(subject.model, subject.world, acting, map)


def arrived(positions: Tensor, goal: Tensor, done: Done) -> Arrived:
    """Return what came of episodes whose positions [N, T+1, 2] are known."""
    within = torch.stack([any_within_radius(p.unsqueeze(1), goal) for p in positions.unbind(1)], 1)
    first = torch.where(within.any(1), within.double().argmax(1), positions.shape[1] - 1)
    return Arrived(within.any(1), first, done)


def kinds_of(tasks: Tasks) -> dict[str, Tensor]:
    """Return which tasks are of which kind, each [N] bool: misleading, clean, and near: the nearest third."""
    length = geodesic(tasks.layouts, tasks.start, tasks.goal).length
    wrong = misleading(tasks)
    near = length <= length.quantile(1 / 3)
    return {"misleading": wrong, "clean": ~wrong, "near": near, "length": length}


def rows_of(name: str, found: Arrived, kinds: dict[str, Tensor], spent: tuple[float, ...]) -> list[Row]:
    """Return the rows of one planner."""
    solved, used = found.solved.double(), found.done.evaluations.double()
    rows = [Row(f"{name}_success", float(solved.mean()), len(solved))]
    for kind in ("misleading", "clean", "near"):
        some = kinds[kind]
        if bool(some.any()):
            rows.append(Row(f"{name}_success_{kind}", float(solved[some].mean()), int(some.sum())))
    rows.append(Row(f"{name}_steps", float(found.first.double().mean())))
    rows.append(Row(f"{name}_plans", float(found.done.plans.double().mean())))
    if float(used.sum()) == 0:
        return rows
    total = used.sum(1)
    rows += [Row(f"{name}_evaluations", float(total.mean())), Row(f"{name}_growth", growth(total, kinds["length"]))]
    rows += [Row(f"{name}_evaluations_{level}", float(part)) for level, part in enumerate(used.mean(0), 1)]
    flops = sum(each * float(part) for each, part in zip(spent, used.mean(0), strict=False))
    return [*rows, Row(f"{name}_gigaflops", 1e-9 * flops)]


def growth(evaluations: Tensor, length: Tensor) -> float:
    """Return the slope of log evaluations against log length of the way, by least squares."""
    x, y = length.double().log(), evaluations.clamp(min=1).log()
    x = x - x.mean()
    return float((x * (y - y.mean())).sum() / x.square().sum())


def differences(name: str, one: Arrived, other: Arrived, kinds: dict[str, Tensor]) -> list[Row]:
    """Return the differences of two planners, paired by task, and the ratio of what they take."""
    gain = one.solved.double() - other.solved.double()
    rows = [Row(name, float(gain.mean()))]
    rows += [Row(f"{name}_{kind}", float(gain[kinds[kind]].mean())) for kind in ("misleading", "clean", "near")]
    used = [found.done.evaluations.sum(1).double() for found in (one, other)]
    rows.append(Row(f"{name}_evaluation_ratio", float(used[0].mean() / used[1].mean())))
    slopes = [growth(total, kinds["length"]) for total in used]
    return [*rows, Row(f"{name}_growth", slopes[0] - slopes[1])]


def costs(subject: Planning, tasks: Tasks) -> tuple[float, ...]:
    """Return what an evaluation of each level takes, in floating-point operations, the heads that doubt it included."""
    some = Tasks(tasks.layouts.rows(slice(0, 1)), tasks.start[:1], tasks.goal[:1])
    of = seen(subject, subject.world.episodes(some))
    found = []
    for number in range(1, len(subject.model.levels) + 1):
        level = of.lowest if number == 1 else of.upper(number, 0.0)
        s, a = of.goal.unsqueeze(1), of.goal.new_zeros(1, 1, level.actions.width)
        with Operations() as counted:
            after = level.step(s, a, s.new_zeros(1, 1, level.latent))
            if level.passage is not None:
                level.passage(s, after, a)
        found.append(float(counted.total))
    return tuple(found)
