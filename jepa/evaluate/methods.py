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

The servo takes the best of a few moves by one imagined step; all that have one have the same
(`jepa.evaluate.following`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Generator, Tensor

from jepa.evaluate.flat_methods import flat_cem, flat_servo, flat_tree
from jepa.evaluate.following import REACHED, Done, Numbers, admissible, lower, rules, run
from jepa.evaluate.oracles import Shortest
from jepa.evaluate.scenes import PIXEL, Scene, abstract_moves
from jepa.planning.hierarchical import (
    Descending,
    Lower,
    Memory,
    Proposal,
    Rounds,
    Rules,
    Sampled,
    Sampling,
    Searching,
    Upper,
)
from jepa.planning.minimizers import Descent
from jepa.planning.search import Search

METHODS = ("flat_cem", "flat_tree", "flat_servo", "greedy", "experience", "iterated", "sampled", "gradient", "oracle")
WITHOUT = ("straight", "random")  # that have no plan
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


def hierarchy_search(of: Scene, number: int, numbers: Numbers) -> Search:
    """Return the search of an upper level."""
    predictor, stride = of.model.levels[number - 1].predictor, of.stride(number)
    greed = numbers.greed * admissible(stride * of.acting.limit * PIXEL / of.pixel)
    longer = stride / of.stride(2)  # what is coarser has to be met less exactly
    reached, cell = REACHED * longer * PIXEL, numbers.cell * longer * PIXEL
    return Search(
        abstract_moves(predictor, numbers.headings, numbers.shorter), 1, cell, reached**2, greed, numbers.width
    )


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
