"""The rows that a planner has to be seen beside: chance, a straight line, and the tree on the world itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from jepa.evaluate.acting import Acting, needed
from jepa.evaluate.planning import Agent, Oracle, driven, rows_of, tree_settings
from jepa.evaluate.subject import Row
from jepa.planning.control import Log
from jepa.worlds.rooms.episodes import Episodes

Act = Callable[[Acting, Episodes, int, Generator], Log]  # (subject, episodes, steps, generator) -> what was done


@torch.no_grad()
def known(subject: Acting, episodes: int = 200, steps: int = 200, collisions: str = "push") -> list[Row]:
    """Return success and cost of episodes without a model: random actions, the straight line, and true dynamics.

    `random`: headings and lengths uniform, anew in every step. `straight`: the longest step toward the true goal, less
    where it is nearer; `straight_stay` the same where a blocked step does not happen, because the published push lets
    a dot creep along a wall to its door. `oracle`: the tree, on true positions and with the world's own step, which is
    told of no push.
    Args: as for `planning`.
    """
    needed("known", subject)
    rows: list[Row] = []
    for name, act in (("random", _random), ("straight", _straight), ("straight_stay", _straight), ("oracle", _oracle)):
        drive = partial(_driven, act, subject, steps, name)
        rule = "stay" if name == "straight_stay" else collisions
        rows += rows_of(subject, episodes, drive, f"{name}_", rule, f"{name} collisions")
    return rows


def _driven(act: Act, subject: Acting, steps: int, name: str, acting: Episodes, number: int) -> Log:
    """Return what is done in a batch of episodes."""
    return act(subject, acting, steps, subject.stream(f"{name} {number}"))


def _random(subject: Acting, acting: Episodes, steps: int, generator: Generator) -> Log:
    """Return what random actions do."""
    angle, length = torch.rand(2, len(acting.tasks.goal), steps, generator=generator)
    a = torch.stack([(2 * torch.pi * angle).cos(), (2 * torch.pi * angle).sin()], -1)
    done = list((a * length.unsqueeze(-1) * acting.limit).unbind(1))
    for a_t in done:
        acting.act(a_t)
    return _log(done)


def _straight(subject: Acting, acting: Episodes, steps: int, generator: Generator) -> Log:
    """Return what going straight does."""
    done = []
    for _ in range(steps):
        way = acting.tasks.goal - acting.positions[:, -1]
        length = way.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        done.append(way / length * length.clamp(max=acting.limit))
        acting.act(done[-1])
    return _log(done)


def _oracle(subject: Acting, acting: Episodes, steps: int, generator: Generator) -> Log:
    """Return what the tree does that is told positions and dynamics."""
    search, settings = tree_settings(16, 1.0, steps, 40, subject.world.size)
    return driven(oracle(subject, acting), acting, search, settings, acting.limit, generator)


def oracle(subject: Acting, acting: Episodes) -> Agent:
    """Return the agent that sees true positions, in the unit of a code of locations, and steps as the world does."""
    tasks, extent = acting.tasks, acting.tasks.layouts.extent[0]
    step = Oracle(tasks.layouts, float(extent[2] - extent[0]) / subject.world.size, float(extent[::2].mean()))
    return Agent(lambda pictures: step.code(acting.positions[:, -1]), step, step.code(tasks.goal))


def _log(actions: list[Tensor]) -> Log:
    """Return the log of actions that nothing was asked for."""
    none = torch.zeros(len(actions[0]), dtype=torch.long)
    return Log(torch.stack(actions, 1), torch.empty(0), none, none, [])
