"""What planners are given of a batch of episodes: how it is seen, its map, and the levels of a trained hierarchy.

Nobody is told a position. The lowest level sees the *percept*, in which shut gates are shut. Upper levels see the same,
or a *map*, in which shut gates look open: they are told of the gates, or not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jepa.abstract import Abstract
from jepa.keypoints import UNIT
from jepa.planning.actions import Box
from jepa.planning.level import Level, episodic
from jepa.static import OVERLAP, moving, separate

PIXEL = 1 / UNIT  # what a pixel is in a code of places
FARTHEST = 2.3  # length of an abstract action at most: within what training has seen, 93 % of N(0, 1) in the plane
TRIED = 2.2  # length of those that a search tries
STEP = 6.0  # the same of subgoals, in pixels


@dataclass(frozen=True)
class Scene:
    """A batch of episodes as a trained hierarchy sees it."""

    model: Any  # an HJEPA
    acting: Any
    percept: Tensor  # [B, C, S, S] what stays the same, with the gates as they are
    map: Tensor  # [B, C, S, S] what the upper levels see
    encode: Callable[[Tensor], Tensor]  # pictures [B, C, S, S] -> s [B, D]
    goal: Tensor  # [B, D]
    world: Any
    doubts: Counter = field(default_factory=Counter)  # steps that the heads of each level were asked about; 0: flat

    @property
    def pixel(self) -> float:
        """What a pixel is in the world's units."""
        if hasattr(self.world, "resolution"):
            return 1 / self.world.resolution
        x0, _, x1, _ = self.acting.tasks.layouts.extent[0].tolist()
        return (x1 - x0) / self.world.size

    def codes(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Return codes [n, P, D] of dots at positions [n, P, 2] of episodes rows [n], for oracles and pictures."""
        pictures = self.world.draw(self.acting.tasks.layouts.rows(rows), positions)
        moved = (pictures - self.percept[rows].unsqueeze(1)).clamp(min=0)
        return self.model.levels[0].representation(moved.flatten(0, 1)).unflatten(0, positions.shape[:2])

    def stride(self, number: int) -> int:
        """Return how many steps of the lowest level a step of level `number` spans."""
        return self.model.clocks[number - 1].stride

    @property
    def lowest(self) -> Level:
        """The lowest level; its cost is not asked."""
        step = self.model.levels[0].bound(self.percept)
        return episodic(Level(step, Free(), 1, Box(2, norm=self.acting.limit)))

    def upper(self, number: int, doubt: float) -> Level:
        """Return level `number`, from 2, whose actions are abstract ones. Args: doubt: least log odds of a step."""
        predictor = self.model.levels[number - 1].predictor
        passage = Plausible(doubts(predictor, self.map), doubt, self.doubts, number)
        box = Box(predictor.latent, norm=None if predictor.of == "subgoal" else FARTHEST)
        return episodic(Level(Acted(predictor.bind(self.map)), Free(), 1, box, self.stride(number), passage=passage))


def scene(model: Any, world: Any, acting: Any, map: Tensor | None = None) -> Scene:
    """Return what a hierarchy is given of episodes at their start.

    Args: world: of the episodes; map: [B, C, S, S] without a dot, that upper levels see in the place of the percept.
    """
    static, _ = separate(torch.stack([acting.observe(), acting.goal], 1))

    def encode(pictures: Tensor) -> Tensor:
        """Return s [B, D]."""
        return model.levels[0].representation(moving(pictures.unsqueeze(1), static, OVERLAP)[:, 0])

    shown = static if map is None else torch.minimum(static, map)
    return Scene(model, acting, static, shown, encode, encode(acting.goal), world)


class Free:
    """A cost of nothing, for levels whose goal somebody else names."""

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return [B, K] zeros."""
        return states.new_zeros(states.shape[:2])

    def rows(self, index: Tensor) -> Free:
        """Return the same."""
        return self


class Acted:
    """The step of an upper level whose actions are its latents: (s, z, ·) -> s̃."""

    def __init__(self, bound: Any) -> None:
        self._bound = bound

    def __call__(self, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return s̃ [B, K, D]."""
        return self._bound(s, s.new_zeros(1, 1, 0), a)

    def rows(self, index: Tensor) -> Acted:
        """Return the step of some episodes."""
        return Acted(self._bound.rows(index))


class Plausible:
    """A passage that forbids the steps that heads doubt: 0, or infinity where the least of the log odds is too low."""

    def __init__(self, heads: tuple[Any, ...], least: float, asked: Counter, level: int) -> None:
        """Args: heads: (s, s', ·) -> log odds; asked: counts the steps they are asked about, under `level`."""
        self._heads, self._least, self._asked, self._level = heads, least, asked, level

    def __call__(self, s: Tensor, after: Tensor, a: Tensor) -> Tensor:
        """Return [B, K]."""
        self._asked[self._level] += after.shape[:2].numel()
        odds = torch.stack([head(s, after, after)[..., 0] for head in self._heads]).amin(0)
        return torch.where(odds >= self._least, 0.0, math.inf)

    def rows(self, index: Tensor) -> Plausible:
        """Return the passage of some episodes."""
        return Plausible(tuple(head.rows(index) for head in self._heads), self._least, self._asked, self._level)


def doubts(predictor: Abstract, static: Tensor) -> tuple[Any, ...]:
    """Return the heads of a predictor that doubt steps, on maps static [B, C, S, S]."""
    return predictor.on(predictor.fine(static), "doubts"), predictor.on(predictor.map(static), "end")


def abstract_moves(predictor: Abstract, headings: int, shorter: int) -> Tensor:
    """Return the abstract actions [M, 2] that a search tries: headings, and so many at half of the length."""
    length = STEP * PIXEL / predictor.reach if predictor.of == "subgoal" else TRIED
    return around(((headings, length), (shorter, length / 2)))


def around(rings: tuple[tuple[int, float], ...], scale: float = 1.0) -> Tensor:
    """Return points [M, 2] evenly spaced on rings, (number, radius) each, in a unit of `scale`."""
    parts = []
    for number, radius in rings:
        angle = 2 * math.pi / max(number, 1) * torch.arange(number)
        parts.append(scale * radius * torch.stack([angle.cos(), angle.sin()], -1))
    return torch.cat(parts)
