"""How plans in mazes are followed: the servo that all planners share, what they are told, and what was done.

The servo takes the best of a few moves by one imagined step; all that have one have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Generator, Tensor

from jepa.evaluate.scenes import PIXEL, Scene
from jepa.planning import moves
from jepa.planning.hierarchical import Hierarchy, Lower, Rules, Settings, Upper, control

ARRIVED, NEAR, REACHED = 0.5, 2.0, 1.5  # pixels: to rest, to go on alone, and of a plan to the goal


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
    headings: int = 12  # of abstract actions that a search tries
    shorter: int = 0  # of those of half the length
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
    doubts: Mapping[int, float] = {}  # steps that the heads of each level were asked about, per episode, 0: flat ones


def servo(of: Scene) -> Tensor:
    """Return the moves of the lowest level, of which the best is taken: none, and twelve headings."""
    return moves(of.lowest.actions, 12, (1.0,))


def rules(stride: int = 8) -> Rules:
    """Return when a condition is met and when it is given up. Args: stride: steps that it is away at most."""
    return Rules(near=1.0 * PIXEL, missed=2.0 * PIXEL, patience=2 * stride, stall=3)


def lower(of: Scene, stride: int = 8) -> Lower:
    """Return the lowest level as hierarchies use it."""
    return Lower(of.lowest, rules(stride), servo(of))


def admissible(longest: float) -> float:
    """Return the greed of a search whose macro-steps move a code by at most so much."""
    return 1 / longest


def settings(numbers: Numbers, experience: bool) -> Settings:
    """Return when a hierarchy plans."""
    return Settings(
        numbers.steps, ARRIVED * PIXEL, NEAR * PIXEL, experience, numbers.weight, numbers.spread * PIXEL,
        budget=numbers.budget, keep=numbers.keep,
    )  # fmt: skip


def run(of: Scene, uppers: tuple[Upper, ...], numbers: Numbers, generator: Generator, experience: bool) -> Done:
    """Return what a hierarchy does."""
    hierarchy = Hierarchy(of.lowest, servo(of), uppers, of.goal)
    log = control(of.acting, of.encode, hierarchy, generator, settings(numbers, experience))
    levels = tuple(range(1, 2 + len(uppers)))
    return Done(log.plans, log.evaluations, log.failed, log, levels)
