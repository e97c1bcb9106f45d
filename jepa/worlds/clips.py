"""Worlds of video from above: a car comes up to a point, and how it goes on no frame before can tell.

The car drives at constant speed; at the moment between x, its T frames before the point, and y, the T frames behind
it, it is `approach` short of the point, the origin (LeCun 2022, section 4.4):

    arc(k) = speed · k − approach in x,  pace · (speed · k − approach) in y,         k = −T … −1 in x, 1 … T in y
    p(k)   = origin + arc(k) · (sin α, cos α) + lane · (cos α, −sin α)
    α      = heading before the origin, Heading(turn) behind it

`jepa.worlds.scene` paints it. The brightness of the ground and the noise on top are drawn anew in every frame. The
formula runs in floating point and on integers of 2⁻¹⁶, so that data made by integer arithmetic are the same on every
machine and agree with this module to one quantum.

Lengths are in units of a 32nd of the picture's side, a pixel at the least size; times in frames; angles in radians.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.worlds.arithmetic import BITS, times, unit_vector
from jepa.worlds.pairs import Pairs
from jepa.worlds.scene import GROUPS, SIDE, paint

QUANTUM = 2.0**-5  # unit of a stored pixel
UNIT = 2.0**-12  # unit of every other stored number


class Clips(ABC):
    """What all these worlds share; what is declared here each of them has."""

    size: int  # S, pixels per side
    frames: int  # T, before the origin and again after it
    noise: float  # half-width of the pixel noise
    ranges: dict[str, tuple[float, float]]  # of the predictable factors but the banded one: low, high
    banded: str  # the predictable factor that has bands
    low: float  # least value of the banded factor
    high: float  # largest
    bands: int  # of that factor; training sees the 1st, 3rd …, held-out sets the bands between
    unpredictable: tuple[str, ...]  # names of the factors that are decided between x and y
    branches: int  # M, 0 where the way on is no choice among finitely many
    ground: Callable[[int], Tensor]  # S -> the patterns of the ground [8, S²]

    @abstractmethod
    def branch(self, factors: dict[str, Tensor]) -> Tensor:
        """Return which branch was taken, [B]. Raises: ValueError in a world without branches to tell apart."""

    @abstractmethod
    def ways(self, factors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the factors of the same clips on each of the M ways on, or on a fine grid of ways, one dict a way."""

    @abstractmethod
    def _choose(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Return unpredictable factors [count, 1]."""

    @abstractmethod
    def _choose_integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return unpredictable factors [count, 1] in their quanta, int64."""

    @abstractmethod
    def _origin(self, factors: dict[str, Tensor]) -> Tensor:
        """Return the origin [B, 2], right and up of the picture's middle."""

    @abstractmethod
    def _rays(self, factors: dict[str, Tensor]) -> Tensor:
        """Return unit vectors [B, R, 2] of the roads that leave the origin."""

    @abstractmethod
    def _course(self, factors: dict[str, Tensor], turn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the car's heading behind the origin [B, 1], that of `turn` if given, and its pace [B, 1] or one."""

    @property
    def factor_labels(self) -> dict[str, str]:
        """Who can tell each factor."""
        known = dict.fromkeys([*self.ranges, self.banded], "predictable")
        known |= dict.fromkeys(self.unpredictable, "unpredictable")
        return known | dict.fromkeys(["texture_x", "texture_y"], "irrelevant")

    @property
    def quanta(self) -> dict[str, float]:
        """Units of the arrays made by `integers`."""
        quanta = {"x": QUANTUM, "y": QUANTUM} | dict.fromkeys(self.factor_labels, UNIT)
        return quanta | ({"branch": 1} if "branch" in quanta else {})

    @property
    def last_arc(self) -> float:
        """The farthest behind the origin that a car gets."""
        return self.ranges["speed"][1] * self.frames - self.ranges["approach"][0]

    @property
    def widths(self) -> tuple[tuple[int, int, int], int, tuple[int, int, int]]:
        """Shapes of x and y, width of a."""
        return (self.frames, self.size, self.size), 0, (self.frames, self.size, self.size)

    def sample(self, count: int, generator: Generator, unseen: bool = False) -> Pairs:
        """Return `count` clips drawn on the generator's device; `unseen`: in the bands that training never sees.

        Raises: ValueError for count < 1.
        """
        _at_least_one(count)
        return self.render(self.draw(count, generator, unseen), self.draw_noise(count, generator))

    def draw(self, count: int, generator: Generator, unseen: bool = False) -> dict[str, Tensor]:
        """Return factors [count, F] of clips, the predictable ones all uniform and independent."""
        options = {"generator": generator, "device": generator.device}
        ranges = self.ranges.items()
        factors = {name: low + (high - low) * torch.rand(count, 1, **options) for name, (low, high) in ranges}
        band = 2 * torch.randint((self.bands + 1 - unseen) // 2, (count, 1), **options) + unseen
        step = (self.high - self.low) / self.bands
        factors[self.banded] = self.low + step * (band + torch.rand(count, 1, **options))
        return factors | self._choose(count, generator) | self.draw_texture(count, generator)

    def draw_texture(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Return the brightness of the patterns in every frame, texture_x and texture_y [count, 8 T], from −1 to 1."""
        shape = (2, count, self.frames * GROUPS)
        before, after = torch.rand(shape, generator=generator, device=generator.device) * 2 - 1
        return {"texture_x": before, "texture_y": after}

    def draw_noise(self, count: int, generator: Generator) -> Tensor:
        """Return pixel noise [count, 2 T, S, S], uniform on 256 levels."""
        shape = (count, 2 * self.frames, self.size, self.size)
        words = torch.empty((math.prod(shape) + 7) // 8, dtype=torch.int64, device=generator.device)
        words.random_(-(2**63), None, generator=generator)  # eight pixels each: four times as fast as one by one
        levels, step = words.view(torch.int8)[: math.prod(shape)].view(shape), self.noise / 128
        return torch.add(torch.tensor(step / 2, device=generator.device), levels, alpha=step)

    def render(
        self,
        factors: dict[str, Tensor],
        noise: Tensor | None = None,
        shift: Tensor | None = None,
        turn: Tensor | None = None,
    ) -> Pairs:
        """Return the clips of given factors.

        Args: factors: as from `draw`; noise: [B, 2 T, S, S], None for none. To leave the road behind the origin: shift:
            [B, 2] by which the car is moved right and up; turn: [B, 1] where it heads, if not where its factors say.
        """
        frames, speed = self._paint(factors, shift, turn), factors["speed"]
        if noise is not None:
            frames += noise
        return Pairs(frames[:, : self.frames], speed.new_zeros(len(speed), 0), frames[:, self.frames :], factors)

    def alternatives(self, factors: dict[str, Tensor], generator: Generator) -> Tensor:
        """Return the clips y that could follow, [B, M, T, S, S], each with texture and noise of its own."""
        count = len(factors["speed"])
        redrawn = (way | self.draw_texture(count, generator) for way in self.ways(factors))
        return torch.stack([self.render(way, self.draw_noise(count, generator)).y for way in redrawn], 1)

    def integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return `count` clips in the unseen bands in integer arithmetic: the same numbers on every machine.

        Returns: x, y [count, T, S, S] int8; every factor [count, F] int16, in its quanta.
        Raises: ValueError for count < 1.
        """
        _at_least_one(count)
        units = {
            name: random.randint(round(low / UNIT), round(high / UNIT) + 1, (count, 1), dtype=np.int64)
            for name, (low, high) in self.ranges.items()
        }
        edges = np.round(np.linspace(self.low, self.high, self.bands + 1) / UNIT).astype(np.int64)
        band = 2 * random.randint(self.bands // 2, size=(count, 1), dtype=np.int64) + 1
        units[self.banded] = edges[band] + random.randint(0, int(np.diff(edges).min()) + 1, (count, 1), dtype=np.int64)
        units |= self._choose_integers(count, random)
        shape, one = (count, self.frames * GROUPS), round(1 / UNIT)
        units |= {name: random.randint(-one, one + 1, shape, dtype=np.int64) for name in ("texture_x", "texture_y")}
        one, grain, parts = round(UNIT * 2**BITS), round(QUANTUM * 2**BITS), []
        fixed = {name: torch.from_numpy(array) * (1 if name == "branch" else one) for name, array in units.items()}
        for chunk in range(0, count, 256):
            painted = self._paint({name: tensor[chunk : chunk + 256] for name, tensor in fixed.items()})
            parts.append(torch.div(painted + grain // 2, grain, rounding_mode="floor").numpy().astype(np.int8))
        frames, loud = np.concatenate(parts), round(self.noise / QUANTUM)
        frames += random.randint(-loud, loud + 1, frames.shape, dtype=np.int8)
        arrays = {name: array.astype(np.int16) for name, array in units.items()}
        return {"x": frames[:, : self.frames], "y": frames[:, self.frames :], **arrays}

    def positions(self, factors: dict[str, Tensor]) -> Tensor:
        """Return where the car is in every frame, [B, 2 T, 2] right and up of the picture's middle."""
        return self._drive(factors)[0]

    def futures(self, factors: dict[str, Tensor]) -> Tensor:
        """Return where the car would be behind the origin on each of the M ways on, [B, M, T, 2]."""
        return torch.stack([self.positions(way)[:, self.frames :] for way in self.ways(factors)], 1)

    def oracle(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        """Return the energy on true states [B]: the least mean squared distance, over the ways on that the clips of
        factors `before` have, to where the car of the clips `after` is behind its origin.
        """
        gaps = self.futures(before) - self.positions(after)[:, None, self.frames :]
        return gaps.square().sum(-1).mean(-1).amin(-1)

    def _check(self) -> None:
        """Raises: ValueError for a size, frames, bands or a noise that describe no world."""
        if self.size < SIDE:
            raise ValueError(f"size: expected at least {SIDE:.0f} pixels, found {self.size}")
        if self.frames < 2:
            raise ValueError(f"frames: expected at least 2, for a speed to show, found {self.frames}")
        if self.bands < 2:
            raise ValueError(f"bands: expected at least 2, some seen and some not, found {self.bands}")
        if not 0 <= self.noise <= 0.25:
            raise ValueError(f"noise: expected a half-width from 0 to 0.25, found {self.noise}")
        if self.last_arc > 15.5:
            what = f"found {self.frames}, which is too many"
            raise ValueError(f"frames: expected a car that stays in the picture, {what}")

    def _drive(
        self, factors: dict[str, Tensor], shift: Tensor | None = None, turn: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return positions and directions [B, 2 T, 2] of the car, which heads to `turn` if that is given."""
        behind, pace = self._course(factors, turn)
        steps = torch.tensor([k for k in range(-self.frames, self.frames + 1) if k], device=behind.device)
        arc = factors["speed"] * steps - factors["approach"]  # [B, 2 T]
        arc = torch.where(steps > 0, times(pace, arc), arc)
        direction = unit_vector(torch.where(steps > 0, behind, factors["heading"]))  # [B, 2 T, 2]
        (right, up), lane = direction.unbind(-1), factors["lane"]
        x, y = times(arc, right) + times(lane, up), times(arc, up) - times(lane, right)
        p = self._origin(factors).unsqueeze(1) + torch.stack([x, y], -1)
        if shift is not None:
            p = p + shift.unsqueeze(1) * (steps > 0).unsqueeze(-1)
        return p, direction

    def _paint(self, factors: dict[str, Tensor], shift: Tensor | None = None, turn: Tensor | None = None) -> Tensor:
        """Return frames [B, 2 T, S, S] without noise, in floating point or on integers, as the factors are."""
        textures = torch.cat([factors["texture_x"], factors["texture_y"]], 1).unflatten(1, (2 * self.frames, GROUPS))
        where = self._origin(factors), self._rays(factors), textures, *self._drive(factors, shift, turn)
        return paint(self.ground(self.size), *where)


def toss(odds: tuple[int, ...], count: int, generator: Generator) -> Tensor:
    """Return `count` branches [count, 1], int64, by their odds."""
    weights = torch.tensor(odds, dtype=torch.float, device=generator.device)
    return torch.multinomial(weights.expand(count, -1), 1, generator=generator)


def toss_integers(odds: tuple[int, ...], count: int, random: np.random.RandomState) -> np.ndarray:
    """Return `count` branches [count, 1], int64, by their odds, in integer arithmetic."""
    lot = random.randint(sum(odds), size=(count, 1), dtype=np.int64)
    return np.searchsorted(np.cumsum(odds), lot, side="right")


def _at_least_one(count: int) -> None:
    """Raises: ValueError for count < 1."""
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")
