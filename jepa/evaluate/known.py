"""The rows that a planner has to be seen beside: chance, a straight line, and the tree on the world itself."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from jepa.evaluate.acting import Acting
from jepa.evaluate.planning import Agent, Oracle, batches, driven, scored, tree_settings
from jepa.evaluate.subject import Row, refused
from jepa.planning.control import Log
from jepa.worlds.rooms.tasks import Tasks


@torch.no_grad()
def known(subject: Acting, episodes: int = 200, steps: int = 200, collisions: str = "push") -> list[Row]:
    """Return success and cost of episodes without a model: random actions, the straight line, and true dynamics.

    `random`: headings and lengths uniform, anew in every step. `straight`: the longest step toward the true goal, less
    where it is nearer; `straight_stay` the same where a blocked step does not happen, because the published push lets
    a dot creep along a wall to its door. `oracle`: the tree, on true positions and with the world's own step, which is
    told of no push.
    Args: as for `planning`.
    """
    if not isinstance(subject, Acting):
        raise refused("known", "a world model with tasks", subject)
    rows, tasks = [], batches(subject.some_tasks(episodes))
    kinds = (("random", _random), ("straight", _straight), ("straight_stay", _straight), ("oracle", _oracle))
    for name, drive in kinds:
        found, rule = [], "stay" if name == "straight_stay" else collisions
        for number, part in enumerate(tasks):
            acting = subject.world.episodes(part, rule, subject.stream(f"{name} collisions {number}"))
            log = drive(subject, acting, part, steps, subject.stream(f"{name} {number}"))
            found.append((log, acting.positions, part))
        rows += scored(found, f"{name}_")
    return rows


def _random(subject: Acting, acting: object, tasks: Tasks, steps: int, generator: Generator) -> Log:
    """Return what random actions do."""
    angle, length = torch.rand(2, len(tasks.goal), steps, generator=generator)
    a = torch.stack([(2 * torch.pi * angle).cos(), (2 * torch.pi * angle).sin()], -1)
    return _done(acting, [a_t for a_t in (a * length.unsqueeze(-1) * acting.limit).unbind(1)])


def _straight(subject: Acting, acting: object, tasks: Tasks, steps: int, generator: Generator) -> Log:
    """Return what going straight does."""
    done = []
    for _ in range(steps):
        way = tasks.goal - acting.positions[:, -1]
        length = way.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        done.append(way / length * length.clamp(max=acting.limit))
        acting.act(done[-1])
    return _log(done)


def _oracle(subject: Acting, acting: object, tasks: Tasks, steps: int, generator: Generator) -> Log:
    """Return what the tree does that is told positions and dynamics."""
    search, settings = tree_settings(16, 1.0, steps, 40, subject.world.size)
    return driven(oracle(subject, acting, tasks), acting, search, settings, acting.limit, generator)


def oracle(subject: Acting, acting: object, tasks: Tasks) -> Agent:
    """Return the agent that sees true positions, in the unit of a code of locations, and steps as the world does."""
    extent = tasks.layouts.extent[0]
    step = Oracle(tasks.layouts, float(extent[2] - extent[0]) / subject.world.size, float(extent[::2].mean()))
    return Agent(lambda pictures: step.code(acting.positions[:, -1]), step, step.code(tasks.goal))


def _done(acting: object, actions: list[Tensor]) -> Log:
    """Return what given actions do."""
    for a in actions:
        acting.act(a)
    return _log(actions)


def _log(actions: list[Tensor]) -> Log:
    """Return the log of actions that nothing was asked for."""
    none = torch.zeros(len(actions[0]), dtype=torch.long)
    return Log(torch.stack(actions, 1), torch.empty(0), none, none, [])
