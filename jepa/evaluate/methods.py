"""The planners that are compared in mazes, by name: flat ones, hierarchies, and those that know the world.

| name          | plans with                                         | follows it by                       |
|---------------|----------------------------------------------------|-------------------------------------|
| `flat_cem`    | level 1, held actions, cross-entropy               | its actions, anew after a few       |
| `flat_tree`   | level 1, held actions, best-first search           | its actions, until they go wrong    |
| `flat_servo`  | the same                                           | the servo that the hierarchies have |
| `greedy`      | level 2, best-first search                         | the servo                           |
| `experience`  | the same, with what failed in the world remembered | the servo                           |
| `iterated`    | the same, and what fails in imagination, 8 rounds  | the servo                           |
| `unweighted`  | the same, the lower level weighted by 0: greedy    | the servo                           |
| `sampled`     | level 2, cross-entropy on the joint cost           | the servo                           |
| `gradient`    | greedy, then descent on the joint cost             | the servo                           |
| `oracle`      | the true shortest way, bend by bend                | the servo                           |
| `straight`    | nothing                                            | the servo, to the goal              |
| `random`      | nothing                                            | random steps                        |

The servo takes the best of a few moves by one imagined step; all that have one have the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from jepa.evaluate.oracles import Shortest
from jepa.evaluate.scenes import PIXEL, Plausible, Scene, abstract_moves, around, doubts
from jepa.minimize.sampling import Elites, cem
from jepa.planning import moves
from jepa.planning.control import Control
from jepa.planning.control import control as flat_control
from jepa.planning.held import held
from jepa.planning.hierarchical import (
    Descending,
    Hierarchy,
    Lower,
    Memory,
    Proposal,
    Rounds,
    Rules,
    Sampled,
    Sampling,
    Searching,
    Settings,
    Upper,
    control,
)
from jepa.planning.hierarchical.pursuit import aimed
from jepa.planning.level import Level, Plan, episodic
from jepa.planning.minimizers import Descent
from jepa.planning.search import Search, search
from jepa.planning.servo import nearest

NONE = -99.0  # log odds that doubt nothing
ARRIVED, NEAR, REACHED = 0.5, 2.0, 1.5  # pixels: to rest, to go on alone, and of a plan to the goal
METHODS = ("flat_cem", "flat_tree", "flat_servo", "greedy", "experience", "iterated", "sampled", "gradient", "oracle")
WITHOUT = ("straight", "random")  # that have no plan


@dataclass(frozen=True)
class Numbers:
    """What planners are told, lengths in pixels; each was tuned for its own planner, by as many trials."""

    steps: int = 80  # of an episode
    flat_hold: int = 3
    flat_cell: float = 1.5
    flat_greed: float = 1.0  # 1: admissible
    flat_headings: int = 12
    flat_doubt: float = -99.0  # least log odds of a step of flat plans, by the heads of level 2; −99: none are asked
    width: int = 4  # nodes that a search expands in a round
    flat_most: int = 100000  # evaluations of a flat plan at most
    cell: float = 2.0
    greed: float = 1.0
    doubt: float = -2.0  # least log odds of a step of an upper level
    rounds: int = 8
    weight: float = 10.0  # of a transition that failed, in steps of the upper level
    spread: float = 2.5  # of what failed
    joint: float = 1.0  # weight of the lower level in the joint cost
    cem_horizon: int = 64
    cem_hold: int = 8
    cem_samples: int = 16
    cem_rounds: int = 2
    cem_spread: float = 1.0
    cem_execute: int = 8
    budget: int = 10**9  # evaluations of an episode from which on no more plans are made
    keep: bool = False


class Done(NamedTuple):
    """What was done in B episodes."""

    plans: Tensor  # [B]
    evaluations: Tensor  # [B, L] of each level
    failed: Tensor  # [B] conditions that were not met
    log: Any
    levels: tuple[int, ...] = (1,)  # which level's step each column of the evaluations is
    doubted: int = 0  # evaluations of the last column for each one of the heads that doubt flat plans; 0: none


Method = Callable[[Scene, Numbers, Generator], Done]


def method(name: str) -> Method:
    """Return a planner by name. Raises: ValueError for one that does not exist."""
    found = {
        "flat_cem": flat_cem,
        "flat_tree": flat_tree,
        "flat_servo": flat_servo,
        "greedy": partial(searched, rounds=1, experience=False),
        "experience": partial(searched, rounds=1, experience=True),
        "iterated": partial(searched, rounds=0, experience=True),
        "unweighted": partial(searched, rounds=0, experience=False, weight=0.0),
        "sampled": partial(joint, how="sampled"),
        "gradient": partial(joint, how="gradient"),
        "oracle": oracle,
        "straight": straight,
        "random": randomly,
    }
    if name not in found:
        raise ValueError(f"methods: expected some of {', '.join(found)}, found {name!r}")
    return found[name]


def servo(of: Scene) -> Tensor:
    """Return the moves of the lowest level, of which the best is taken: twelve headings, six shorter, and none."""
    return torch.cat([moves(of.lowest.actions, 12, (1.0,)), moves(of.lowest.actions, 6, (0.5,))[1:]])


def rules(stride: int = 8) -> Rules:
    """Return when a condition is met and when it is given up. Args: stride: steps that it is away at most."""
    return Rules(near=1.0 * PIXEL, missed=2.0 * PIXEL, patience=2 * stride, stall=3)


def lower(of: Scene, stride: int = 8) -> Lower:
    """Return the lowest level as hierarchies use it."""
    return Lower(of.lowest, rules(stride), servo(of))


def admissible(longest: float) -> float:
    """Return the greed of a search whose macro-steps move a code by at most so much."""
    return 1 / longest


def hierarchy_search(of: Scene, number: int, numbers: Numbers) -> Search:
    """Return the search of an upper level."""
    predictor, stride = of.model.levels[number - 1].predictor, of.stride(number)
    greed = numbers.greed * admissible(stride * of.acting.limit * PIXEL / of.pixel)
    longer = stride / of.stride(2)  # what is coarser has to be met less exactly
    reached, cell = REACHED * longer * PIXEL, numbers.cell * longer * PIXEL
    return Search(abstract_moves(predictor), 1, cell, reached**2, greed, numbers.width)


def flat_search(of: Scene, numbers: Numbers) -> Search:
    """Return the search of level 1 over held actions."""
    tried = 0.95 * of.acting.limit * around(((numbers.flat_headings, 1.0),))
    greed = numbers.flat_greed * admissible(numbers.flat_hold * of.acting.limit * PIXEL / of.pixel)
    hold, cell = numbers.flat_hold, numbers.flat_cell * PIXEL
    return Search(
        tried, hold, cell, (ARRIVED * 2 * PIXEL) ** 2, greed, numbers.width, min(numbers.flat_most, numbers.budget)
    )


def settings(numbers: Numbers, experience: bool) -> Settings:
    """Return when a hierarchy plans."""
    return Settings(
        numbers.steps, ARRIVED * PIXEL, NEAR * PIXEL, experience, numbers.weight, numbers.spread * PIXEL,
        budget=numbers.budget, keep=numbers.keep,
    )  # fmt: skip


def searched(
    of: Scene, numbers: Numbers, generator: Generator, rounds: int, experience: bool, weight: float = 1.0
) -> Done:
    """Return what a hierarchy does that plans by search.

    Args: rounds: of thought, 0 for as many as the numbers say; weight: factor of the lower level in the joint cost.
    """
    thought = Rounds(rounds or numbers.rounds, weight * numbers.joint)
    uppers, below = [], lower(of)
    for number in range(2, len(of.model.levels) + 1):
        level, how, stride = of.upper(number, numbers.doubt), hierarchy_search(of, number, numbers), of.stride(number)
        uppers.append(Upper(Searching(level, how, below, thought), below.rules))
        reached = math.sqrt(how.tolerance)
        between = Rules(reached, 2 * reached, 4 * stride, stall=2 * stride)
        below = Lower(level, between, search=how)
    return run(of, tuple(uppers), numbers, generator, experience)


def joint(of: Scene, numbers: Numbers, generator: Generator, how: str) -> Done:
    """Return what a hierarchy does that plans by the joint cost. Args: how: sampled, or gradient."""
    level, below, search = of.upper(2, numbers.doubt), lower(of), hierarchy_search(of, 2, numbers)
    if how == "sampled":
        sampling = Sampled(horizon=math.ceil(numbers.steps / 10), weight=numbers.joint)
        plan = Sampling(level, sampling, below, search.tolerance)
    else:
        first = Searching(level, search, below, Rounds(1))
        plan = Descending(level, below, first, Descent(steps=15, rate=0.05), numbers.joint)
    return run(of, (Upper(plan, below.rules),), numbers, generator, True)


def oracle(of: Scene, numbers: Numbers, generator: Generator) -> Done:
    """Return what the learned lowest level does on true shortest ways."""
    return run(of, (Upper(Shortest(of), replace(rules(), patience=40)),), numbers, generator, False)


def doubted(of: Scene, least: float) -> Level:
    """Return level 1 with steps that the heads of level 2 let pass; all, where none are asked."""
    if least <= NONE:
        return of.lowest
    head = doubts(of.model.levels[1].predictor, of.percept)[:1]
    return episodic(of.lowest._replace(passage=Plausible(head, least)))


def flat_servo(of: Scene, numbers: Numbers, generator: Generator) -> Done:
    """Return what a flat plan does whose states are followed by the servo."""
    below, search = lower(of), flat_search(of, numbers)
    level = doubted(of, numbers.flat_doubt)._replace(stride=search.hold)
    done = run(of, (Upper(Searching(level, search, below), below.rules),), numbers, generator, False)
    return done._replace(levels=(1, 1), doubted=0 if numbers.flat_doubt <= NONE else search.hold)


def run(of: Scene, uppers: tuple[Upper, ...], numbers: Numbers, generator: Generator, experience: bool) -> Done:
    """Return what a hierarchy does."""
    hierarchy = Hierarchy(of.lowest, servo(of), uppers, of.goal)
    log = control(of.acting, of.encode, hierarchy, generator, settings(numbers, experience))
    levels = tuple(range(1, 2 + len(uppers)))
    return Done(log.plans, log.evaluations, log.failed, log, levels)


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
    done = _flat(of, doubted(of, numbers.flat_doubt), (whole, partial(_near, servo(of))), control_of, generator)
    return done._replace(doubted=0 if numbers.flat_doubt <= NONE else how.hold)


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
    log = flat_control(of.acting, of.encode, aim, planners, generator, control_of)
    return Done(log.plans, log.evaluations.unsqueeze(1), torch.zeros_like(log.plans), log)


class Nothing:
    """A planner that has no plan."""

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return the goal as the one condition."""
        none = torch.zeros_like(rows)
        return Proposal(
            target.unsqueeze(1), none + 1, s.new_zeros(len(s), 1, 1), s.new_zeros(len(s)), none, none, []
        ), memory


def straight(of: Scene, numbers: Numbers, generator: Generator) -> Done:
    """Return what the servo does that is asked for the goal itself."""
    return run(of, (Upper(Nothing(), rules()),), numbers, generator, False)


def randomly(of: Scene, numbers: Numbers, generator: Generator) -> Done:
    """Return what random steps do, uniform in heading and length."""
    count = len(of.goal)
    for _ in range(numbers.steps):
        angle, length = torch.rand(2, count, 1, generator=generator)
        angle = 2 * math.pi * angle
        of.acting.act(of.acting.limit * length * torch.cat([angle.cos(), angle.sin()], 1))
    none = torch.zeros(count, dtype=torch.long)
    return Done(none, none.unsqueeze(1), none, None)
