"""The world `crossing`: video from above of a car that comes up to four roads at right angles, or to an open square.

The origin of `jepa.worlds.clips` is the middle, (right, 0), and the car heads (LeCun 2022, section 4.4)

    Heading(turn) = heading + turn · π / 2

At the crossing it turns left, goes straight on, turns right, or turns back: turn = −1, 0, 1, 2 at pace 1, by odds. If
the square is open it leaves in any direction between left and right at any pace down to `SLOWEST`, both uniform: two
unpredictable numbers instead of one of four branches. Fields lie beside the roads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.worlds.arithmetic import number, times, unit_vector
from jepa.worlds.clips import UNIT, Clips, toss, toss_integers
from jepa.worlds.scene import fields

RANGES = {  # of the predictable factors but the heading: low, high
    "approach": (-2.0, 2.0),  # way left to the middle half-way between the last frame of x and the first of y
    "speed": (1.6, 3.0),  # way per frame
    "lane": (-2.2, 2.2),  # to the right of the road's middle
    "right": (-2.0, 2.0),  # of the crossing, from the picture's middle
}
HEADING = 0.25  # largest angle by which the whole cross is turned, either way
WAYS = ((-1.0, 1.0), (0.0, 1.0), (1.0, 1.0), (2.0, 1.0))  # turn and pace of each branch: left, straight, right, back
SLOWEST = 0.3  # pace on an open square
GRID = (25, 7)  # turns and paces that stand for all the ways over an open square


@final
@dataclass(frozen=True)
class Crossing(Clips):
    """The world's constants."""

    size: int = 32  # S, pixels per side
    frames: int = 4  # T, before the middle and again after it
    odds: tuple[int, ...] = (4, 3, 2, 1)  # of left, straight on, right, back; without effect if open
    open: bool = False  # whether the square is open
    bands: int = 9  # of headings; training sees the 1st, 3rd …, held-out sets the bands between
    noise: float = 0.125  # half-width of the pixel noise, uniform

    ranges = RANGES
    banded = "heading"
    low = -HEADING
    high = HEADING
    ground = staticmethod(fields)

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that describe no world."""
        object.__setattr__(self, "odds", tuple(self.odds))  # YAML has lists, which cannot be hashed
        self._check()
        if len(self.odds) != len(WAYS) or not all(isinstance(odds, int) and odds > 0 for odds in self.odds):
            raise ValueError(f"odds: expected {len(WAYS)} whole odds above 0, found {self.odds}")

    @property
    def unpredictable(self) -> tuple[str, ...]:
        """Names of the factors that are decided between x and y."""
        return ("turn", "pace") if self.open else ("branch", "turn", "pace")

    @property
    def branches(self) -> int:
        """How many branches there are, 0 if the square is open."""
        return 0 if self.open else len(WAYS)

    def branch(self, factors: dict[str, Tensor]) -> Tensor:
        """Return which branch was taken, [B]. Raises: ValueError if the square is open."""
        if self.open:
            raise ValueError("open: expected a crossing with branches to tell apart, found an open square")
        return factors["branch"][:, 0]

    def ways(self, factors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the factors of the same clips on each of the four branches, or on a grid of ways over the square."""
        speed, ways, found = factors["speed"], WAYS, []
        if self.open:
            turns, paces = torch.linspace(-1, 1, GRID[0]), torch.linspace(SLOWEST, 1, GRID[1])
            ways = torch.cartesian_prod(turns, paces).tolist()
        for m, (turn, pace) in enumerate(ways):
            way = {"turn": number(turn, speed).expand_as(speed), "pace": number(pace, speed).expand_as(speed)}
            found.append(factors | way | ({} if self.open else {"branch": torch.full_like(factors["branch"], m)}))
        return found

    def _choose(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Return branches by their odds with the turns and paces that follow, or any turns and paces, [count, 1]."""
        if self.open:
            turn, pace = torch.rand(2, count, 1, generator=generator, device=generator.device)
            return {"turn": turn * 2 - 1, "pace": SLOWEST + (1 - SLOWEST) * pace}
        branch = toss(self.odds, count, generator)
        turn, pace = torch.tensor(WAYS, device=generator.device)[branch].unbind(-1)
        return {"branch": branch, "turn": turn, "pace": pace}

    def _choose_integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return the same in quanta, int64."""
        one = round(1 / UNIT)
        if self.open:
            ends = {"turn": (-one, one), "pace": (round(SLOWEST * one), one)}
            return {
                name: random.randint(low, high + 1, (count, 1), dtype=np.int64) for name, (low, high) in ends.items()
            }
        branch = toss_integers(self.odds, count, random)
        turn, pace = np.moveaxis((np.array(WAYS) * one).astype(np.int64)[branch], -1, 0)
        return {"branch": branch, "turn": turn, "pace": pace}

    def _origin(self, factors: dict[str, Tensor]) -> Tensor:
        """Return the middle of the crossing [B, 2]."""
        return torch.cat([factors["right"], torch.zeros_like(factors["right"])], 1)

    def _rays(self, factors: dict[str, Tensor]) -> Tensor:
        """Return unit vectors [B, 4, 2] of the four roads."""
        ahead = unit_vector(factors["heading"])
        aside = torch.stack([ahead[..., 1], -ahead[..., 0]], -1)
        return torch.cat([ahead, aside, -ahead, -aside], 1)

    def _course(self, factors: dict[str, Tensor], turn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the heading [B, 1] of the turn taken, or of a turn [B, 1] in quarter turns, and the pace [B, 1]."""
        turn = factors["turn"] if turn is None else turn
        return factors["heading"] + times(turn, number(math.pi / 2, factors["heading"])), factors["pace"]
