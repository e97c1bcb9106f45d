"""The world `fork`: video from above of a car that nears a fork; which branch it takes, no frame before can tell.

The origin of `jepa.worlds.clips` is the fork, (place, 0), and on branch m the car heads (LeCun 2022, section 4.4)

    Heading(turn_m) = heading + turn_m · angle

at its old speed. Trees stand beside the road.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.worlds.arithmetic import number, times, unit_vector
from jepa.worlds.clips import Clips, toss, toss_integers
from jepa.worlds.scene import crowns

RANGES = {  # of the predictable factors but the angle: low, high
    "approach": (-1.6, 1.6),  # way left to the fork half-way between the last frame of x and the first of y
    "speed": (2.0, 3.4),  # way per frame
    "lane": (-2.0, 2.0),  # to the right of the road's middle
    "heading": (-0.15, 0.15),  # of the road before the fork, clockwise from up
    "place": (-2.0, 2.0),  # of the fork, to the right of the picture's middle
}


@final
@dataclass(frozen=True)
class Fork(Clips):
    """The world's constants."""

    size: int = 32  # S, pixels per side
    frames: int = 4  # T, before the fork and again after it
    turns: tuple[float, ...] = (-1.0, 1.0)  # of each branch, in units of the angle; a single one is a bend, no fork
    odds: tuple[int, ...] = (1, 1)  # of the branches
    low: float = 0.4  # least fork angle, between a branch and straight on
    high: float = 0.75  # largest
    bands: int = 9  # of fork angles; training sees the 1st, 3rd …, held-out sets the bands between
    noise: float = 0.125  # half-width of the pixel noise, uniform

    ranges = RANGES
    banded = "angle"
    unpredictable = ("branch",)
    ground = staticmethod(crowns)

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that describe no world."""
        for name in ("turns", "odds"):  # YAML has lists, which cannot be hashed
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check()
        whole = all(isinstance(odds, int) and odds > 0 for odds in self.odds)
        if not self.turns or len(self.turns) != len(self.odds) or not whole:
            raise ValueError(f"turns, odds: expected as many whole odds as turns, found {self.turns} and {self.odds}")
        if not 0.2 <= self.low < self.high <= 0.85:
            raise ValueError(f"low, high: expected angles 0.2 <= low < high <= 0.85, found {self.low}, {self.high}")
        if not all(abs(turn) <= 1 for turn in self.turns):
            raise ValueError(f"turns: expected numbers from -1 to 1, found {self.turns}")

    @property
    def branches(self) -> int:
        """How many branches there are."""
        return len(self.turns)

    def branch(self, factors: dict[str, Tensor]) -> Tensor:
        """Return which branch was taken, [B]. Raises: ValueError in a world with a single branch."""
        if self.branches < 2:
            raise ValueError(f"turns: expected at least 2 branches to tell apart, found {self.branches}")
        return factors["branch"][:, 0]

    def ways(self, factors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the factors of the same clips on each of the M branches."""
        return [factors | {"branch": torch.full_like(factors["branch"], m)} for m in range(self.branches)]

    def _choose(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Return branches [count, 1] by their odds."""
        return {"branch": toss(self.odds, count, generator)}

    def _choose_integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return branches [count, 1] by their odds, int64."""
        return {"branch": toss_integers(self.odds, count, random)}

    def _origin(self, factors: dict[str, Tensor]) -> Tensor:
        """Return the fork [B, 2], at half the picture's height."""
        return torch.cat([factors["place"], torch.zeros_like(factors["place"])], 1)

    def _rays(self, factors: dict[str, Tensor]) -> Tensor:
        """Return unit vectors [B, 1 + M, 2] of the road that the car comes from and of the branches."""
        headings = factors["heading"] + times(self._turns(factors), factors["angle"])
        return torch.cat([-unit_vector(factors["heading"]), unit_vector(headings)], 1)

    def _course(self, factors: dict[str, Tensor], turn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the heading [B, 1] of the branch taken, or of a turn [B, 1] in units of the angle; the pace is 1."""
        turn = self._turns(factors)[factors["branch"]] if turn is None else turn
        return factors["heading"] + times(turn, factors["angle"]), number(1.0, factors["speed"])

    def _turns(self, factors: dict[str, Tensor]) -> Tensor:
        """Return the turns of the branches [M], in floating point or on integers, as the factors are."""
        return number(torch.tensor(self.turns, dtype=torch.float64), factors["angle"])
