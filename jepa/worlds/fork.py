"""The world `fork`: video from above of a car that nears a fork; which branch it takes, no frame before can tell.

The car drives at constant speed; at the moment between x, its T frames before the fork, and y, the T frames behind it,
it is `approach` short of the fork (LeCun 2022, section 4.4):

    arc(k) = speed · k − approach,                                  k = −T … −1 in x, 1 … T in y
    p(k)   = (place, 0) + arc(k) · (sin α, cos α) + lane · (cos α, −sin α)
    α      = heading before the fork, heading + turn_m · angle on branch m behind it

`jepa.worlds.scene` paints it, pixel noise on top. The brightness of the trees is drawn anew in every frame, as is the
noise. The formula runs in floating point and on integers of 2⁻¹⁶, so that data made by integer arithmetic are the same
on every machine and agree with this module to one quantum.

Lengths are in units of a 32nd of the picture's side, a pixel at the least size; times in frames; angles in radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.worlds.arithmetic import BITS, number, times, unit_vector
from jepa.worlds.pairs import Pairs
from jepa.worlds.scene import GROUPS, SIDE, paint

QUANTUM = 2.0**-5  # unit of a stored pixel
UNIT = 2.0**-12  # unit of every other stored number
RANGES = {  # of the predictable factors but the angle: low, high
    "approach": (-1.6, 1.6),  # way left to the fork half-way between the last frame of x and the first of y
    "speed": (2.0, 3.4),  # way per frame
    "lane": (-2.0, 2.0),  # to the right of the road's middle
    "heading": (-0.15, 0.15),  # of the road before the fork, clockwise from up
    "place": (-2.0, 2.0),  # of the fork, to the right of the picture's middle
}


@dataclass(frozen=True)
class Fork:
    """The world's constants."""

    size: int = 32  # S, pixels per side
    frames: int = 4  # T, before the fork and again after it
    turns: tuple[float, ...] = (-1.0, 1.0)  # of each branch, in units of the angle; a single one is a bend, no fork
    odds: tuple[int, ...] = (1, 1)  # of the branches
    low: float = 0.4  # least fork angle, between a branch and straight on
    high: float = 0.75  # largest
    bands: int = 9  # of fork angles; training sees the 1st, 3rd …, held-out sets the bands between
    noise: float = 0.125  # half-width of the pixel noise, uniform

    factor_labels = {
        **dict.fromkeys([*RANGES, "angle"], "predictable"),
        "branch": "unpredictable",
        "texture_x": "irrelevant",
        "texture_y": "irrelevant",
    }
    quanta = {"x": QUANTUM, "y": QUANTUM, "branch": 1} | dict.fromkeys(
        [*RANGES, "angle", "texture_x", "texture_y"], UNIT
    )

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that describe no world."""
        for name in ("turns", "odds"):  # YAML has lists, which cannot be hashed
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.size < SIDE:
            raise ValueError(f"size: expected at least {SIDE:.0f} pixels, found {self.size}")
        if self.frames < 2:
            raise ValueError(f"frames: expected at least 2, for a speed to show, found {self.frames}")
        whole = all(isinstance(odds, int) and odds > 0 for odds in self.odds)
        if not self.turns or len(self.turns) != len(self.odds) or not whole:
            raise ValueError(f"turns, odds: expected as many whole odds as turns, found {self.turns} and {self.odds}")
        if not 0.2 <= self.low < self.high <= 0.85:
            raise ValueError(f"low, high: expected angles 0.2 <= low < high <= 0.85, found {self.low}, {self.high}")
        if not all(abs(turn) <= 1 for turn in self.turns):
            raise ValueError(f"turns: expected numbers from -1 to 1, found {self.turns}")
        if self.bands < 2:
            raise ValueError(f"bands: expected at least 2, some seen and some not, found {self.bands}")
        if not 0 <= self.noise <= 0.25:
            raise ValueError(f"noise: expected a half-width from 0 to 0.25, found {self.noise}")
        if self.last_arc > 15.5:
            raise ValueError(
                f"frames: expected a car that stays in the picture, found {self.frames}, which is too many"
            )

    @property
    def last_arc(self) -> float:
        """The farthest behind the fork that a car gets."""
        return RANGES["speed"][1] * self.frames - RANGES["approach"][0]

    @property
    def widths(self) -> tuple[tuple[int, int, int], int, tuple[int, int, int]]:
        """Shapes of x and y, width of a."""
        clip = (self.frames, self.size, self.size)
        return clip, 0, clip

    def sample(self, count: int, generator: Generator, unseen: bool = False) -> Pairs:
        """Return `count` clips drawn on the generator's device; `unseen`: at fork angles that training never sees.

        Raises: ValueError for count < 1.
        """
        _at_least_one(count)
        return self.render(self.draw(count, generator, unseen), self.draw_noise(count, generator))

    def draw(self, count: int, generator: Generator, unseen: bool = False) -> dict[str, Tensor]:
        """Return factors [count, F] of clips, all uniform and independent; the branch by its odds."""
        options = {"generator": generator, "device": generator.device}
        factors = {name: low + (high - low) * torch.rand(count, 1, **options) for name, (low, high) in RANGES.items()}
        band = 2 * torch.randint(self._bands(unseen), (count, 1), **options) + unseen
        factors["angle"] = self.low + (self.high - self.low) / self.bands * (band + torch.rand(count, 1, **options))
        odds = torch.tensor(self.odds, dtype=torch.float, device=generator.device)
        factors["branch"] = torch.multinomial(odds.expand(count, -1), 1, generator=generator)
        return factors | self.draw_texture(count, generator)

    def draw_texture(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Return the brightness of the trees in every frame, texture_x and texture_y [count, 8 T], from −1 to 1."""
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

        Args: factors: as from `draw`; noise: [B, 2 T, S, S], None for none. To leave the road behind the fork: shift:
            [B, 2] by which the car is moved right and up; turn: [B, 1] where it heads, in units of the fork angle, if
            not for its branch.
        """
        frames = self._paint(factors, shift, turn)
        if noise is not None:
            frames += noise
        place = factors["place"]
        return Pairs(frames[:, : self.frames], place.new_zeros(len(place), 0), frames[:, self.frames :], factors)

    def integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return `count` clips at unseen fork angles in integer arithmetic: the same numbers on every machine.

        Returns: x, y [count, T, S, S] int8; branch [count, 1] and every other factor [count, F] int16.
        Raises: ValueError for count < 1.
        """
        _at_least_one(count)
        units = {
            name: random.randint(round(low / UNIT), round(high / UNIT) + 1, (count, 1), dtype=np.int64)
            for name, (low, high) in RANGES.items()
        }
        edges = np.round(np.linspace(self.low, self.high, self.bands + 1) / UNIT).astype(np.int64)
        band = 2 * random.randint(self._bands(True), size=(count, 1), dtype=np.int64) + 1
        units["angle"] = edges[band] + random.randint(0, int(np.diff(edges).min()) + 1, (count, 1), dtype=np.int64)
        lot = random.randint(sum(self.odds), size=(count, 1), dtype=np.int64)
        branch = np.searchsorted(np.cumsum(self.odds), lot, side="right")
        one = round(1 / UNIT)
        for name in ("texture_x", "texture_y"):
            units[name] = random.randint(-one, one + 1, (count, self.frames * GROUPS), dtype=np.int64)
        fixed = {name: torch.from_numpy(array) * round(UNIT * 2**BITS) for name, array in units.items()}
        fixed["branch"] = torch.from_numpy(branch)
        grain, parts = round(QUANTUM * 2**BITS), []
        for chunk in range(0, count, 256):
            painted = self._paint({name: tensor[chunk : chunk + 256] for name, tensor in fixed.items()})
            parts.append(torch.div(painted + grain // 2, grain, rounding_mode="floor").numpy().astype(np.int8))
        frames = np.concatenate(parts)
        loudest = round(self.noise / QUANTUM)
        frames += random.randint(-loudest, loudest + 1, frames.shape, dtype=np.int8)
        arrays = {name: array.astype(np.int16) for name, array in {**units, "branch": branch}.items()}
        return {"x": frames[:, : self.frames], "y": frames[:, self.frames :], **arrays}

    def branch(self, factors: dict[str, Tensor]) -> Tensor:
        """Return which branch was taken, [B]. Raises: ValueError in a world with a single branch."""
        if len(self.turns) < 2:
            raise ValueError(f"turns: expected at least 2 branches to tell apart, found {len(self.turns)}")
        return factors["branch"][:, 0]

    def positions(self, factors: dict[str, Tensor]) -> Tensor:
        """Return where the car is in every frame, [B, 2 T, 2] right and up of the picture's middle."""
        return self._drive(factors, self._headings(factors, factors["branch"]))[0]

    def futures(self, factors: dict[str, Tensor]) -> Tensor:
        """Return where the car would be behind the fork on each of the M branches, [B, M, T, 2]."""
        branches = torch.arange(len(self.turns), device=factors["place"].device)
        paths = [self._drive(factors, self._headings(factors, m.expand(len(factors["place"]), 1)))[0] for m in branches]
        return torch.stack(paths, 1)[:, :, self.frames :]

    def oracle(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        """Return the energy on true states [B]: the least mean squared distance, over the branches that the clips of
        factors `before` may take, to where the car of the clips `after` is behind its fork.
        """
        gaps = (self.futures(before) - self.positions(after)[:, None, self.frames :]).square().sum(-1)
        return gaps.mean(-1).amin(-1)

    def _bands(self, unseen: bool) -> int:
        """Return the number of bands of fork angles."""
        return self.bands // 2 if unseen else (self.bands + 1) // 2

    def _headings(self, factors: dict[str, Tensor], branch: Tensor) -> Tensor:
        """Return the heading of branches behind the fork [B, …] of branch [B, …]."""
        turns = number(torch.tensor(self.turns, dtype=torch.float64), factors["angle"])
        return factors["heading"] + times(turns[branch], factors["angle"])

    def _drive(self, factors: dict[str, Tensor], behind: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return positions and directions [B, 2 T, 2] of the car that takes the heading `behind` [B, 1]."""
        steps = torch.tensor([k for k in range(-self.frames, self.frames + 1) if k], device=behind.device)
        arc = factors["speed"] * steps - factors["approach"]  # [B, 2 T]
        direction = unit_vector(torch.where(steps > 0, behind, factors["heading"]))  # [B, 2 T, 2]
        (right, up), lane = direction.unbind(-1), factors["lane"]
        x, y = times(arc, right) + times(lane, up), times(arc, up) - times(lane, right)
        p = torch.stack([factors["place"] + x, y], -1)
        if shift is not None:
            p = p + shift.unsqueeze(1) * (steps > 0).unsqueeze(-1)
        return p, direction

    def _paint(self, factors: dict[str, Tensor], shift: Tensor | None = None, turn: Tensor | None = None) -> Tensor:
        """Return frames [B, 2 T, S, S] without noise, in floating point or on integers, as the factors are."""
        every = torch.arange(len(self.turns), device=factors["place"].device).expand(len(factors["place"]), -1)
        headings = self._headings(factors, every)
        rays = torch.cat([-unit_vector(factors["heading"]), unit_vector(headings)], 1)  # [B, 1 + M, 2]
        textures = torch.cat([factors["texture_x"], factors["texture_y"]], 1).unflatten(1, (2 * self.frames, GROUPS))
        branch = headings.gather(1, factors["branch"])
        behind = branch if turn is None else factors["heading"] + turn * factors["angle"]
        position, direction = self._drive(factors, behind, shift)
        return paint(self.size, factors["place"], rays, textures, position, direction)


def _at_least_one(count: int) -> None:
    """Raises: ValueError for count < 1."""
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")
