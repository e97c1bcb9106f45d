"""Gradient descent, the cross-entropy method and path integrals as the inference of actions, at equal evaluations."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor

from jepa.evaluate.acting import Acting, needed
from jepa.evaluate.known import oracle
from jepa.evaluate.planning import Agent, learned, level_of, near_moves, pixel, rows_of
from jepa.evaluate.subject import Row
from jepa.minimize.sampling import Elites, Softmin, cem, mppi
from jepa.planning.control import Control, Log, control
from jepa.planning.costs import Distance, Module, Value
from jepa.planning.growth import TreeSearch
from jepa.planning.held import held
from jepa.planning.level import Level, Minimizer, Plan
from jepa.planning.minimizers import Descent
from jepa.planning.servo import nearest
from jepa.planning.togo import cost_to_go
from jepa.worlds.rooms.episodes import Episodes

DYNAMICS = ("learned", "oracle")
COSTS = ("distance", "to_go")


@dataclass(frozen=True)
class Budget:
    """What every planner has for one plan: horizon · candidates evaluations of the step."""

    horizon: int = 16  # steps that are imagined
    hold: int = 2  # steps that an action is held
    candidates: int = 192  # plans that are imagined
    execute: int = 4  # steps of a plan that are taken
    steps: int = 200  # of an episode


@dataclass(frozen=True)
class Costs:
    """What a plan costs, and what one step near the goal does."""

    far: Module
    near: Module

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return the costs [B, K] of plans."""
        return self.far(states, actions)

    def rows(self, index: Tensor) -> Costs:
        """Return the costs of some episodes."""
        return Costs(self.far.rows(index), self.near.rows(index))


@torch.no_grad()
def planners(
    subject: Acting, episodes: int = 60, steps: int = 200, horizon: int = 16, hold: int = 2,
    candidates: int = 192, execute: int = 4, cem_spread: float = 1.5, cem_elites: float = 0.125, cem_rounds: int = 3,
    mppi_spread: float = 1.5, mppi_temperature: float = 0.1, mppi_rounds: int = 3, gradient_rate: float = 1.0,
    gradient_spread: float = 1.0, gradient_rounds: int = 12, cell: float = 1.0, only: str = "",
) -> list[Row]:  # fmt: skip
    """Return success of each planner, with learned and with true dynamics, by distance in s and by the cost to go.

    All imagine `candidates` plans of `horizon` steps before they act, in receding horizon, `execute` steps of each; the
    cost is summed over the imagined states. The cost to go is what a flood of the same dynamics from the goal counts,
    in steps; its evaluations come on top, once an episode, and are the same for all.
    Args: episodes, steps: as for `planning`; the rest as tuned on tuning tasks, spreads in units, elites as a share of
        a round, rounds as the parts that the candidates are tried in; only: rows whose names begin with it.
    Raises: ValueError for `only` that begins no name.
    """
    needed("planners", subject)
    kept = max(1, round(cem_elites * (candidates // cem_rounds)))
    elites = Elites(candidates // cem_rounds, cem_rounds, width=2, elites=kept)
    softmin = Softmin(candidates // mppi_rounds, mppi_rounds, width=2, temperature=mppi_temperature)
    minimizers = {
        "gradient": Descent(gradient_rounds - 1, gradient_rate, candidates // gradient_rounds, gradient_spread),
        "cem": partial(cem, spread=cem_spread, sampling=elites),
        "mppi": partial(mppi, spread=mppi_spread, sampling=softmin),
    }
    kinds = {f"{n}_{d}_{c}_": (d, c, n) for d, c, n in itertools.product(DYNAMICS, COSTS, minimizers)}
    if not any(prefix.startswith(only) for prefix in kinds):
        raise ValueError(f"only: expected the beginning of one of {', '.join(kinds)}, found {only!r}")
    budget, rows = Budget(horizon, hold, candidates, execute, steps), []
    for prefix, (dynamics, cost, name) in kinds.items():
        if prefix.startswith(only):
            known, named = (dynamics, cost, cell), (prefix, minimizers[name])
            rows += _episodes(subject, episodes, known, named, budget)
    return rows


@torch.no_grad()
def sampled(
    subject: Acting, episodes: int = 60, steps: int = 200, horizon: int = 40, hold: int = 4, candidates: int = 128,
    execute: int = 4, rounds: int = 2, spread: float = 1.5, temperature: float = 0.1,
) -> list[Row]:  # fmt: skip
    """Return success by path integrals on the summed distance in s, as published: for a code of any kind.

    It knows no cells, so it serves codes that hold no location. At the goal, and near it, is what one step of the
    training trajectories and three of them move the code by.
    Args: as for `planners`.
    """
    needed("sampled", subject)
    one = float((subject.s[:, 1:] - subject.s[:, :-1]).square().sum(-1).mean())
    numbers = {"width": 2, "rounds": rounds, "samples": candidates // rounds}
    minimizer = partial(mppi, spread=spread, sampling=Softmin(temperature=temperature, **numbers))
    budget, how = Budget(horizon, hold, candidates, execute, steps), (minimizer, (one, 9 * one))

    def drive(acting: Episodes, number: int) -> Log:
        """Return what the minimizer does."""
        agent = learned(subject, acting.observe(), acting.goal)
        level = level_of(agent.step, _by_distance(agent), budget.horizon, acting.limit)
        return _controlled(agent, acting, level, how, budget, subject.stream(f"sampled {number}"))

    return rows_of(subject, episodes, drive, "sampled_")


def _episodes(
    subject: Acting, episodes: int, known: tuple[str, str, float], named: tuple[str, Minimizer], budget: Budget
) -> list[Row]:  # fmt: skip
    """Return the rows of one planner. Args: known: dynamics, cost, side of a cell in pixels; named: what it is."""
    (dynamics, cost, cell), (prefix, minimizer), one = known, named, pixel(subject.world.size)
    how = minimizer, ((0.5 * one) ** 2, (2 * one) ** 2)

    def drive(acting: Episodes, number: int) -> Log:
        """Return what the minimizer does."""
        agent = _agent(subject, acting, dynamics)
        costs = _by_distance(agent)
        level = level_of(agent.step, costs, budget.horizon, acting.limit)
        if cost == "to_go":
            search = TreeSearch(headings=16, hold=2, reach=0.92, cell=cell * one, depth=64)
            value = cost_to_go(level, agent.goal, subject.stream(f"flood {number}"), search)
            level = level_of(agent.step, replace(costs, far=Value(value, "sum")), budget.horizon, acting.limit)
        return _controlled(agent, acting, level, how, budget, subject.stream(f"{prefix}{number}"))

    return rows_of(subject, episodes, drive, prefix)


def _by_distance(agent: Agent) -> Costs:
    """Return the costs of being far from the goal in s: of plans the sum over what is imagined."""
    return Costs(Distance(agent.goal, "sum"), Distance(agent.goal))


def _controlled(
    agent: Agent, acting: Episodes, level: Level, how: tuple[Minimizer, tuple[float, float]], budget: Budget,
    generator: Generator,
) -> Log:  # fmt: skip
    """Return what was done in episodes that a minimizer of costs plans; near the goal one step at a time, as all do.

    Args: how: the minimizer, and the squared distances of s up to which an episode is at its goal and near it.
    """
    minimizer, (arrived, near) = how
    candidates = near_moves(level.actions)

    def planner(level: Level, s: Tensor, generator: Generator, start: Tensor | None) -> Plan:
        """Return a plan of held actions."""
        return held(level, s, minimizer, budget.hold, generator, start)

    def close(level: Level, s: Tensor, generator: Generator) -> Plan:
        """Return the best of a few moves, by the distance in s."""
        return nearest(level._replace(cost=level.cost.near), s, candidates)

    def proximity(s: Tensor) -> Tensor:
        """Return the squared distance [B] from the goal."""
        return (s - agent.goal).square().sum(-1)

    settings = Control(budget.steps, arrived, near, execute=budget.execute, plans=budget.steps, proximity=proximity)
    return control(acting, agent.encode, level, (planner, close), generator, settings)


def _agent(subject: Acting, acting: Episodes, dynamics: str) -> Agent:
    """Return what a planner is given of episodes, learned or true."""
    if dynamics == "oracle":
        return oracle(subject, acting)
    return learned(subject, acting.observe(), acting.goal)
