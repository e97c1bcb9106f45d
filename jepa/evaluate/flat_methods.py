"""The flat planners that are compared in mazes: over held actions of level 1, by search and by cross-entropy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.evaluate.following import ARRIVED, NEAR, Done, Numbers, admissible, lower, run, servo
from jepa.evaluate.scenes import PIXEL, Plausible, Scene, around, doubts
from jepa.minimize.sampling import Elites, cem
from jepa.planning.control import Control, control
from jepa.planning.held import held
from jepa.planning.hierarchical import Searching, Upper
from jepa.planning.hierarchical.pursuit import aimed
from jepa.planning.level import Level, Plan, episodic
from jepa.planning.search import Search, search
from jepa.planning.servo import nearest

NONE = -99.0  # log odds that doubt nothing


def flat_search(of: Scene, numbers: Numbers) -> Search:
    """Return the search of level 1 over held actions."""
    tried = 0.95 * of.acting.limit * around(((numbers.flat_headings, 1.0),))
    greed = numbers.flat_greed * admissible(numbers.flat_hold * of.acting.limit * PIXEL / of.pixel)
    hold, cell = numbers.flat_hold, numbers.flat_cell * PIXEL
    return Search(
        tried, hold, cell, (ARRIVED * 2 * PIXEL) ** 2, greed, numbers.width, min(numbers.flat_most, numbers.budget)
    )


def doubted(of: Scene, least: float) -> Level:
    """Return level 1 with steps that the heads of level 2 let pass; all, where none are asked."""
    if least <= NONE:
        return of.lowest
    head = doubts(of.model.levels[1].predictor, of.percept)[:1]
    return episodic(of.lowest._replace(passage=Plausible(head, least, of.doubts, 0)))


def flat_servo(of: Scene, numbers: Numbers, generator: Generator) -> Done:
    """Return what a flat plan does whose states are followed by the servo."""
    below, search = lower(of), flat_search(of, numbers)
    level = doubted(of, numbers.flat_doubt)._replace(stride=search.hold)
    done = run(of, (Upper(Searching(level, search, below), below.rules),), numbers, generator, False)
    return done._replace(levels=(1, 1))


def flat_tree(of: Scene, numbers: Numbers, generator: Generator) -> Done:
    """Return what a flat plan does whose actions are taken until they lead elsewhere."""
    how = flat_search(of, numbers)

    def whole(level: Any, s: Tensor, generator: Generator, start: Tensor | None) -> Plan:
        """Return a plan in single steps; behind a macro-action stands where it ends."""
        plan = search(level, s, generator, how).plan
        parts = (part.repeat_interleave(how.hold, 1) for part in (plan.actions, plan.states))
        return Plan(*parts, plan.length * how.hold, plan.value, plan.evaluations)

    control_of = Control(
        numbers.steps, (ARRIVED * PIXEL) ** 2, (NEAR * PIXEL) ** 2, 0.75 * PIXEL, every=how.hold, plans=40
    )
    return _flat(of, doubted(of, numbers.flat_doubt), (whole, partial(_near, servo(of))), control_of, generator)


def flat_cem(of: Scene, numbers: Numbers, generator: Generator) -> Done:
    """Return what the cross-entropy method does over held actions of level 1, in receding horizon."""
    elites = Elites(numbers.cem_samples, numbers.cem_rounds, width=2, elites=max(2, numbers.cem_samples // 8))
    minimizer = partial(cem, spread=numbers.cem_spread * of.acting.limit, sampling=elites)

    def whole(level: Any, s: Tensor, generator: Generator, start: Tensor | None) -> Plan:
        """Return a plan of held actions, whose cost is the sum of the distances on the way."""
        summed = level._replace(cost=replace(level.cost, over="sum"), horizon=numbers.cem_horizon)
        return held(summed, s, minimizer, numbers.cem_hold, generator, start)

    control_of = Control(
        numbers.steps, (ARRIVED * PIXEL) ** 2, (NEAR * PIXEL) ** 2, execute=numbers.cem_execute, plans=numbers.steps
    )
    return _flat(of, of.lowest, (whole, partial(_near, servo(of))), control_of, generator)


def _near(tried: Tensor, level: Any, s: Tensor, generator: Generator) -> Plan:
    """Return the best of the servo's moves."""
    return nearest(level, s, tried)


def _flat(of: Scene, level: Level, planners: tuple, control_of: Control, generator: Generator) -> Done:
    """Return what flat planners do."""
    aim = aimed(level, of.goal)
    log = control(of.acting, of.encode, aim, planners, generator, control_of)
    return Done(log.plans, log.evaluations.unsqueeze(1), torch.zeros_like(log.plans), log)
