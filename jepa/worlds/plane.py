"""The world `plane`: a point x goes to one of M places, shifted, spread and bent; all of it polynomial.

    y = corner(m) + Bend(share · x + spread_i · c),   Bend(v)_i = v_i + bend · v_{i−1}²  (v_{−1} = 0)

x, c ∈ [−1, 1]^D are uniform and the mode m ∈ {0 … M − 1} is a fair draw. The corners lie on a circle of the given
radius in the first two coordinates. Bend is a shear: invertible, it leaves volumes as they are. Everything is a sum of
products of multiples of 2⁻¹², so that data made by integer arithmetic agree with this module to one quantum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.worlds.pairs import Pairs

QUANTUM = 2.0**-12  # unit of every stored number of this world


@dataclass(frozen=True)
class Plane:
    """The world's constants; lengths are in units of x's half-width."""

    dimension: int = 2  # D, of x and of y
    modes: int = 4  # M places y can go to
    radius: float = 1.0  # of the circle on which the places lie; 0 for a single one
    share: float = 0.25  # how much of x is in y
    spread: float = 0.0625  # half-width of the unpredictable part in its first dimension
    falloff: float = 1.0  # factor of that half-width from each dimension to the next
    bend: float = 0.0  # curvature of the shear, per unit of length

    factor_labels = {"x": "predictable", "mode": "unpredictable", "offset": "unpredictable"}
    quanta = {"x": QUANTUM, "y": QUANTUM, "mode": 1, "offset": QUANTUM}  # units of the arrays made by `integers`

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that describe no world."""
        if self.dimension < 1 or (self.dimension < 2 and self.modes > 1):
            raise ValueError(f"dimension: expected at least {2 if self.modes > 1 else 1}, found {self.dimension}")
        if self.modes < 1:
            raise ValueError(f"modes: expected at least 1, found {self.modes}")
        if self.spread < 0 or not 0 < self.falloff <= 1:
            raise ValueError(
                f"spread, falloff: expected spread >= 0 and falloff in (0, 1], found {self.spread}, {self.falloff}"
            )

    @property
    def widths(self) -> tuple[int, int, int]:
        """Widths of x, a and y."""
        return self.dimension, 0, self.dimension

    def corners(self) -> Tensor:
        """Return the M places [M, D], multiples of the quantum."""
        return self._corners().to(torch.get_default_dtype())

    @cache  # noqa: B019 (a constant of the world, asked for at every batch)
    def _corners(self) -> Tensor:
        """Return the M places in double precision."""
        angle = 2 * math.pi * torch.arange(self.modes, dtype=torch.float64) / self.modes + math.pi / 4
        places = torch.zeros(self.modes, self.dimension, dtype=torch.float64)
        if self.modes > 1:
            places[:, 0], places[:, 1] = angle.cos(), angle.sin()
        return ((self.radius * places) / QUANTUM).round().mul(QUANTUM)

    def spreads(self) -> Tensor:
        """Return the half-widths spread_i [D], multiples of the quantum."""
        return self._spreads().to(torch.get_default_dtype())

    @cache  # noqa: B019
    def _spreads(self) -> Tensor:
        """Return the half-widths in double precision."""
        widths = self.spread * self.falloff ** torch.arange(self.dimension, dtype=torch.float64)
        return (widths / QUANTUM).round().mul(QUANTUM)

    def sample(self, count: int, generator: Generator) -> Pairs:
        """Return `count` pairs drawn on the generator's device. Raises: ValueError for count < 1."""
        if count < 1:
            raise ValueError(f"count: expected at least 1, found {count}")
        options = {"generator": generator, "device": generator.device}
        x = torch.rand(count, self.dimension, **options) * 2 - 1
        c = torch.rand(count, self.dimension, **options) * 2 - 1
        mode = torch.randint(self.modes, (count,), **options)
        return self.render(x, mode, c)

    def render(self, x: Tensor, mode: Tensor, c: Tensor) -> Pairs:
        """Return the pairs made of contexts x [B, D], modes [B] and offsets c [B, D]."""
        v = self.share * x + self.spreads().to(c) * c
        y = self.corners().to(x)[mode] + bend(v, self.bend)
        return Pairs(x, x.new_zeros(len(x), 0), y, {"x": x, "mode": mode.unsqueeze(-1), "offset": c})

    def integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return `count` pairs in integer arithmetic, in units of the quantum: the same numbers on every machine.

        Returns: x, y, offset [count, D] and mode [count, 1], int16.
        Raises: ValueError if a number does not fit.
        """
        one = round(1 / QUANTUM)
        share, curvature = round(self.share * one), round(self.bend * one)
        spreads, corners = ((t.double() / QUANTUM).round().long().numpy() for t in (self.spreads(), self.corners()))
        x, c = random.randint(-one, one + 1, (2, count, self.dimension), dtype=np.int64)
        mode = random.randint(0, self.modes, (count, 1), dtype=np.int64)
        v = share * x + spreads * c  # in units of the quantum squared
        bow = np.zeros_like(v)
        bow[:, 1:] = curvature * _rounded(v[:, :-1] ** 2, one**2)  # cubed, as one * v is
        y = corners[mode[:, 0]] + _rounded(one * v + bow, one**2)
        arrays = {"x": x, "y": y, "mode": mode, "offset": c}
        limit = np.iinfo(np.int16)
        if max(abs(array).max() for array in arrays.values()) > limit.max:
            raise ValueError(f"plane: expected coordinates within {limit.max * QUANTUM:.2f}, found larger ones")
        return {name: array.astype(np.int16) for name, array in arrays.items()}

    def targets(self, x: Tensor) -> Tensor:
        """Return the M true centers [B, M, D] that y can go to from x [B, D] (offset 0)."""
        return self.corners().to(x) + bend(self.share * x, self.bend).unsqueeze(1)

    def box(self) -> tuple[Tensor, Tensor]:
        """Return the corners low, high [D] of the smallest box that holds every y."""
        reach = abs(self.share) + self.spreads()
        bow = torch.cat([torch.zeros(1), self.bend * reach[:-1] ** 2])
        places = self.corners()
        return places.amin(0) - reach + bow.clamp(max=0), places.amax(0) + reach + bow.clamp(min=0)


def bend(v: Tensor, curvature: float) -> Tensor:
    """Return the shear v_i + curvature · v_{i−1}² of v [..., D]; its Jacobian has determinant 1."""
    return v + curvature * torch.nn.functional.pad(v[..., :-1].square(), (1, 0))


def _rounded(product: np.ndarray, one: int) -> np.ndarray:
    """Return product / one rounded to the nearest integer, halves up."""
    return (2 * product + one) // (2 * one)
