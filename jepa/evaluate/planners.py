"""Gradient descent, the cross-entropy method and path integrals as the inference of actions, at equal evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.evaluate.acting import Acting
from jepa.evaluate.known import oracle
from jepa.evaluate.planning import Agent, batches, learned, level_of, scored
from jepa.evaluate.subject import Row, refused
from jepa.minimize.sampling import Elites, Softmin, cem, mppi
from jepa.planning.actions import Box
from jepa.planning.control import Control, control
from jepa.planning.costs import Distance, Value
from jepa.planning.level import Level, Plan, plan
from jepa.planning.minimizers import Descent
from jepa.planning.servo import moves, nearest
from jepa.planning.togo import cost_to_go
from jepa.planning.growth import TreeSearch

PLANNERS = ("gradient", "cem", "mppi")
DYNAMICS = ("learned", "oracle")
COSTS = ("distance", "to_go")


@dataclass(frozen=True)
class Budget:
    """What every planner has for one plan: horizon · candidates evaluations of the step."""

    horizon: int = 16  # steps that are imagined
    hold: int = 2  # steps that an action is held
    candidates: int = 192  # plans that are imagined
    execute: int = 4  # steps of a plan that are taken


@torch.no_grad()
def planners(
    subject: Acting, episodes: int = 60, steps: int = 200, horizon: int = 16, hold: int = 2,
    candidates: int = 192, execute: int = 4, rounds: int = 3, cem_spread: float = 1.5, cem_elites: int = 8,
    mppi_spread: float = 1.5, mppi_temperature: float = 0.1, gradient_steps: int = 11, gradient_rate: float = 1.0,
    gradient_spread: float = 1.0, cell: float = 1.0,
) -> list[Row]:  # fmt: skip
    """Return success of each planner, with learned and with true dynamics, by distance in s and by the cost to go.

    All imagine `candidates` plans of `horizon` steps before they act, in receding horizon, `execute` steps of each; the
    cost is summed over the imagined states. The cost to go is what a flood of the same dynamics from the goal counts, in
    steps; its evaluations come on top, once an episode, and are the same for all.
    Args: episodes, steps: as for `planning`; the rest as tuned, spreads in units, on tuning tasks.
    """
    if not isinstance(subject, Acting):
        raise refused("planners", "a world model with tasks", subject)
    numbers = {"width": 2, "rounds": rounds, "samples": candidates // rounds}
    limit = subject.world.step_limit
    inferences = {
        "gradient": Descent(gradient_steps, gradient_rate, candidates // (gradient_steps + 1), gradient_spread),
        "cem": partial(cem, spread=cem_spread, sampling=Elites(elites=cem_elites, **numbers)),
        "mppi": partial(mppi, spread=mppi_spread, sampling=Softmin(temperature=mppi_temperature, **numbers)),
    }
    budget, rows = Budget(horizon, hold, candidates, execute), []
    tasks = subject.some_tasks(episodes)
    for dynamics in DYNAMICS:
        for cost in COSTS:
            for name, inference in inferences.items():
                prefix = f"{name}_{dynamics}_{cost}_"
                rows += _episodes(subject, tasks, (dynamics, cost, cell, limit), (prefix, inference), budget, steps)
    return rows
