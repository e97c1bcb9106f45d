"""Late instantiation: gates that are seen only from near, and three ways to live with it (LeCun 2022, section 4.6).

`once`: one plan, made at the start. `forgetful`: a new plan, from what is seen by then, wherever the last one could not
be followed. `late`: the same with a memory, for the episode: of the walls that were seen, and of what could not be
followed. What is near is what is seen: both levels read the map of the present picture, anew in every step; with the
memory it is the pixelwise maximum over the pictures so far, as a shut gate is brighter than an open one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.evaluate.following import Done, Numbers, lower, servo, settings
from jepa.evaluate.hierarchical import PLENTY, arrived, chosen, differences, kinds_of, known, rows_of
from jepa.evaluate.methods import hierarchy_search
from jepa.evaluate.scenes import Scene
from jepa.evaluate.subject import Row
from jepa.planning.hierarchical import Hierarchy, Memory, Proposal, Rounds, Searching, Upper, control
from jepa.planning.level import Level
from jepa.static import separate

WAYS = ("once", "forgetful", "late")


@torch.no_grad()
def late(
    subject: Any, episodes: int = 200, sight: float = 5.0, budget: int = PLENTY, steps: int = 0,
    numbers: dict[str, Any] | None = None,
) -> list[Row]:  # fmt: skip
    """Return success and cost of the three ways, and the differences, where gates are seen within `sight` units.

    Args: episodes: of each way; budget, steps, numbers: as for `hierarchical`.
    Raises: ValueError for another subject, or a number that does not exist.
    """
    known(subject, "late")
    world, use = replace(subject.world, sight=sight), chosen(subject, numbers, budget, steps)
    tasks = subject.some_tasks(episodes)
    kinds = kinds_of(world, tasks)
    found = {}
    for name in WAYS:
        acting = world.episodes(tasks)
        of, sight = looking(subject, world, acting, name == "late")
        done = lived(of, sight, use, subject.stream(f"late {name}"), name)
        found[name] = arrived(world, acting.positions, tasks.goal, done)
    rows = []
    for name in WAYS:
        rows += rows_of(name, found[name], kinds, None)
    for other in WAYS[:2]:
        rows += differences(f"late_minus_{other}", found["late"], found[other], kinds)
    return rows


class Sight:
    """The static part of what is seen: the dots' overlap at the start, and the walls of now, or all that were seen."""

    def __init__(self, first: Tensor, keep: bool) -> None:
        """Args: first: [B, 2, S, S] the static part at the start; keep: whether walls are remembered."""
        self._dots, self._walls, self._keep = first[:, :1], first[:, 1:], keep

    def look(self, pictures: Tensor) -> None:
        """Take note of pictures [B, 2, S, S]."""
        now = pictures[:, 1:]
        self._walls = self._walls.maximum(now) if self._keep else now

    @property
    def static(self) -> Tensor:
        """Return [B, 2, S, S]."""
        return torch.cat([self._dots, self._walls], 1)


def looking(subject: Any, world: Any, acting: Any, keep: bool) -> tuple[Scene, Sight]:
    """Return what is given of episodes in which what is seen of walls changes: dots are told from them by channel.

    Args: keep: whether walls that were seen are remembered.
    """
    first, _ = separate(torch.stack([acting.observe(), acting.goal], 1))
    sight = Sight(first, keep)

    def code(pictures: Tensor) -> Tensor:
        """Return s [B, D] of the dots in pictures [B, 2, S, S]."""
        dots = torch.cat([pictures[:, :1] - first[:, :1], torch.zeros_like(pictures[:, 1:])], 1)
        return subject.model.levels[0].representation(dots.clamp(min=0))

    def encode(pictures: Tensor) -> Tensor:
        """Return s [B, D], and look at the walls."""
        sight.look(pictures)
        return code(pictures)

    return Scene(subject.model, acting, first, first, encode, code(acting.goal), world), sight


@dataclass(frozen=True)
class Looking:
    """A planner that reads the map of what is seen."""

    of: Scene
    sight: Sight
    numbers: Numbers
    rounds: Rounds

    def __call__(
        self, rows: Tensor, s: Tensor, target: Tensor, memory: Memory, generator: Generator, left: Tensor | None
    ) -> tuple[Proposal, Memory]:
        """Return plans (`jepa.planning.hierarchical.control.Planner`)."""
        now = replace(self.of, percept=self.sight.static, map=self.sight.static)
        plan = Searching(
            now.upper(2, self.numbers.doubt), hierarchy_search(now, 2, self.numbers), lower(now), self.rounds
        )
        return plan(rows, s, target, memory, generator, left)


class Live:
    """The lowest level's step on the map of what is seen, read once a step of the world."""

    def __init__(self, of: Scene, sight: Sight) -> None:
        self._of, self._sight, self._kept = of, sight, (-1, None)

    def bound(self) -> Any:
        """Return the step of now."""
        if self._kept[0] != self._of.acting.steps:
            self._kept = (self._of.acting.steps, self._of.model.levels[0].bound(self._sight.static))
        return self._kept[1]

    def __call__(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D] of all episodes."""
        return self.bound()(s, a, z)

    def rows(self, index: Tensor) -> Any:
        """Return the step of some episodes."""
        return self.bound().rows(index)


def lived(of: Scene, sight: Sight, numbers: Numbers, generator: Generator, name: str) -> Done:
    """Return what was done in one of the three ways."""
    lowest, below = live(of, sight), lower(of)
    planner = Looking(of, sight, numbers, Rounds(numbers.rounds, numbers.joint))
    levels = Hierarchy(lowest, servo(of), (Upper(planner, below.rules),), of.goal)
    use = replace(settings(numbers, name == "late"), plans=1 if name == "once" else 40)
    log = control(of.acting, of.encode, levels, generator, use)
    return Done(log.plans, log.evaluations, log.failed, log)


def live(of: Scene, sight: Sight) -> Level:
    """Return the lowest level on the map of what is seen."""
    lowest, step = of.lowest, Live(of, sight)

    def rows(index: Tensor) -> Level:
        """Return the level of some episodes."""
        return lowest._replace(step=step.rows(index), rows=None)

    return lowest._replace(step=step, rows=rows)
