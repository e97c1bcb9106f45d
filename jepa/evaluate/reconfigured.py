"""Tasks that a configurator sets at plan time, in mazes: avoid, through, both, late (LeCun 2022, sections 3.2 and 4.7).

Nothing is trained for them. Places are shown as pictures with a dot there, as goals are, and what is wanted of them is
a set of cost modules (`jepa.planning.tasks`). Success and violations are judged by true positions.

| task      | success                                                        | violation                             |
|-----------|----------------------------------------------------------------|---------------------------------------|
| `avoid`   | within 1.5 units of the goal, never within 1.5 of the disc     | within 1.5 of the disc at any step    |
| `through` | within 1.5 of the place, and after that of the goal            | ends at the goal, never at the place  |
| `both`    | within 1.5 of two places in any order, after that of the goal  | ends at the goal, not at both before  |
| `late`    | within 1.5 of the goal at step 60 or later, not within 3 before| within 3 of the goal before step 60   |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.evaluate.following import Done, Numbers, lower, servo, settings
from jepa.evaluate.hierarchical import PERCEPT, PLENTY, chosen, known, seen
from jepa.evaluate.methods import hierarchy_search
from jepa.evaluate.scenes import PIXEL, Scene
from jepa.evaluate.subject import Row
from jepa.planning.hierarchical import Hierarchy, Rounds, Searching, Upper, control
from jepa.planning.hierarchical.planners import with_task
from jepa.planning.tasks import Avoid, Both, Late, Reach, Task, Through
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.maze import Maze
from jepa.worlds.rooms.success import RADIUS
from jepa.worlds.rooms.tasks import Tasks

DISC, EARLY, AFTER = 1.5, 3.0, 60  # units, units, steps
MARGIN = 0.75  # units that plans stay farther from a disc, come nearer to a place
WAITING = 2.5  # units that plans stay farther from a goal for which it is too early
CLEAR = 3.5  # units between a disc's center and every door, start and goal
STEPS = {"avoid": 100, "through": 140, "both": 200, "late": 140}  # of an episode
HORIZON = 40  # steps of an upper plan at most, for what has to be late


@torch.no_grad()
def reconfigured(
    subject: Any, episodes: int = 100, budget: int = PLENTY, steps: int = 0, numbers: dict[str, Any] | None = None
) -> list[Row]:
    """Return success and violations of tasks that are set at plan time, and those of the plain goal beside them.

    Args: episodes: of each task; budget, numbers: as for `hierarchical`; steps: of an episode, 0 for as many as each
        task asks for.
    Raises: ValueError for another subject, a number that does not exist, or more episodes than have room for a disc.
    """
    known(subject, "reconfigured")
    rows = []
    for name in STEPS:
        tasks, places = drawn(subject, name, episodes)
        use = chosen(subject, numbers, budget, steps or STEPS[name])
        for prefix, set_ in ((name, True), (f"{name}_plain", False)):
            positions, spent = acted(subject, name, (tasks, places), use, set_)
            good, bad = judged(name, positions, tasks.goal, places)
            rows.append(Row(f"{prefix}_success", float(good.double().mean()), episodes))
            rows.append(Row(f"{prefix}_violation", float(bad.double().mean()), episodes))
            rows.append(Row(f"{prefix}_evaluations", float(spent.double().mean())))
    return rows


def drawn(subject: Any, name: str, count: int) -> tuple[Tasks, Tensor]:
    """Return tasks and the places that they are about, [N, P, 2] in units; P is 0 where there is none.

    A disc stands on the shortest way, far enough from doors, start and goal that a way leads around it; tasks without
    such a point are drawn again. Other places are anywhere, at least 1.5 units from walls.
    """
    world, generator = subject.world, subject.stream(f"tasks {name}")
    if name != "avoid":
        tasks = world.tasks(count, generator)
        number = {"through": 1, "both": 2, "late": 0}[name]
        each = [world.uniform(tasks.layouts, generator, RADIUS) for _ in range(number)]
        return tasks, torch.stack(each, 1) if each else tasks.goal.new_zeros(count, 0, 2)
    tasks = world.tasks(6 * count, generator)
    center, fits = on_the_way(world, tasks, generator)
    at = fits.nonzero()[:count, 0]
    if len(at) < count:
        raise ValueError(f"episodes: expected at most {len(at)} tasks with room for a disc, found {count}")
    return tasks.rows(at), center[at].unsqueeze(1)


def on_the_way(world: Maze, tasks: Tasks, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return a point [N, 2] of every shortest way that is clear of doors, start and goal, and whether there is one."""
    points = geodesic(tasks.layouts, tasks.start, tasks.goal).points
    legs = (points[:, 1:] - points[:, :-1]).norm(dim=-1)
    share = torch.rand(len(points), 16, generator=generator) * legs.sum(1, keepdim=True)
    leg = (share.unsqueeze(-1) >= legs.cumsum(1).unsqueeze(1)).sum(-1).clamp(max=legs.shape[1] - 1)
    rest = share - torch.cat([legs.new_zeros(len(legs), 1), legs.cumsum(1)], 1).take_along_dim(leg, 1)
    along = (rest / legs.take_along_dim(leg, 1).clamp(min=1e-6)).clamp(0, 1).unsqueeze(-1)
    pick = leg.unsqueeze(-1).expand(-1, -1, 2)
    found = torch.lerp(points.take_along_dim(pick, 1), points.take_along_dim(pick + 1, 1), along)  # [N, 16, 2]
    others = torch.cat([tasks.layouts.doors, tasks.start.unsqueeze(1), tasks.goal.unsqueeze(1)], 1)
    clear = torch.cdist(found, others).amin(2) > CLEAR
    first = clear.double().argmax(1)
    return found[torch.arange(len(found)), first], clear.any(1)


def acted(subject: Any, name: str, what: tuple[Tasks, Tensor], numbers: Numbers, set_: bool) -> tuple[Tensor, Tensor]:
    """Return positions [N, T+1, 2] and evaluations [N]. Args: as for `followed`."""
    of, done = followed(subject, name, what, numbers, set_)
    return of.acting.positions, done.evaluations.sum(1)


def followed(subject: Any, name: str, what: tuple[Tasks, Tensor], numbers: Numbers, set_: bool) -> tuple[Scene, Done]:
    """Return the scene after its episodes, and what was done in them.

    Args: set_: whether the task is set, or the goal alone.
    """
    tasks, places = what
    acting = subject.world.episodes(tasks)
    of, use = seen(subject, acting, PERCEPT), settings(numbers, True)
    level, below = of.upper(2, numbers.doubt)._replace(horizon=HORIZON), lower(of)
    search = hierarchy_search(of, 2, numbers)
    plan = Searching(level, search, below, Rounds(numbers.rounds, numbers.joint))
    levels = Hierarchy(of.lowest, servo(of), (Upper(plan, below.rules),), of.goal)
    if set_:
        levels = with_task(levels, task_of(name, of, places))
    log = control(acting, of.encode, levels, subject.stream(f"reconfigured {name}"), use)
    return of, Done(log.plans, log.evaluations, log.failed, log, (1, 2))


def task_of(name: str, of: Scene, places: Tensor) -> Task:
    """Return the cost modules of a task. Args: places: [N, P, 2] in units, shown to the encoder as dots."""
    goal, unit = of.goal, PIXEL / of.pixel
    rows = torch.arange(len(goal))
    codes = of.codes(rows, places) if places.shape[1] else goal.new_zeros(len(goal), 0, goal.shape[1])
    part: Callable[[], Any] = {
        "avoid": lambda: Avoid(codes, DISC * unit, margin=MARGIN * unit),
        "through": lambda: Through(codes[:, 0], RADIUS * unit, margin=MARGIN * unit),
        "both": lambda: Both(codes, RADIUS * unit, margin=MARGIN * unit),
        "late": lambda: Late(goal, (EARLY + WAITING) * unit, AFTER),
    }[name]
    return Task(Reach(goal), (part(),))


def judged(name: str, positions: Tensor, goal: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return success and violation [N], of true positions [N, T+1, 2] in units."""
    at_goal = (positions - goal.unsqueeze(1)).norm(dim=-1) < RADIUS  # [N, T+1]
    if name == "late":
        early = ((positions[:, :AFTER] - goal.unsqueeze(1)).norm(dim=-1) < EARLY).any(1)
        return at_goal[:, AFTER:].any(1) & ~early, early
    at_place = torch.cdist(positions, places) < (DISC if name == "avoid" else RADIUS)  # [N, T+1, P]
    if name == "avoid":
        touched = at_place[..., 0].any(1)
        return at_goal.any(1) & ~touched, touched
    passed = (at_place.long().cumsum(1) > 0).all(2)
    return (passed & at_goal).any(1), at_goal[:, -1] & ~(passed & at_goal).any(1)
