"""The world `drive`: a car seen from above on a ring of roads, whose factors can be foreseen for different times."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from torch import Generator, Tensor

from jepa.batches import HeldOut, Trajectories
from jepa.worlds.drive.laws import Laws
from jepa.worlds.drive.pictures import COLORS, add_noise, draw
from jepa.worlds.drive.stored import QUANTA, integer_clips, stored_factors


@dataclass(frozen=True)
class Drive(Laws):
    """The world's constants: those of its laws, and how it looks."""

    size: int = 32  # S, pixels a side, a multiple of 16
    colors: str = "plain"  # or "other", another palette
    noise: float = 0.06  # half-width of the pixel noise, uniform

    of_tasks = tuple(field.name for field in fields(Laws))  # constants that decide a stored set
    factor_labels = {
        **dict.fromkeys(("place", "speed", "road", "wobble", "other"), "predictable"),
        "texture": "irrelevant",
    }
    quanta = QUANTA  # units of the arrays made by `integers`

    def __post_init__(self) -> None:
        """Raises: ValueError for names or numbers that describe no world."""
        super().__post_init__()
        if self.size < 16 or self.size % 16:
            raise ValueError(f"size: expected a multiple of 16 pixels, found {self.size}")
        if self.colors not in COLORS:
            raise ValueError(f"colors: expected one of {', '.join(COLORS)}, found {self.colors!r}")
        if not 0 <= self.noise <= 0.5:
            raise ValueError(f"noise: expected a half-width from 0 to 0.5, found {self.noise}")

    @property
    def widths(self) -> tuple[tuple[int, int, int], int, tuple[int, int, int]]:
        """Shape of a picture, width of an action, shape of the next picture."""
        shape = (3, self.size, self.size)
        return shape, 0, shape

    def trajectories(self, count: int, steps: int, generator: Generator) -> Trajectories:
        """Return clips drawn on the generator's device; nothing acts in them, and nothing is static.

        Args: count: B; steps: T.
        Returns: frames [B, T+1, 3, S, S]; a [B, T, 0]; static [B, 0]; factors: as from `factors`.
        Raises: ValueError for count or steps < 1.
        """
        factors = self.factors(count, steps, generator)
        frames = self.draw(factors, generator)
        return Trajectories(frames, frames.new_zeros(count, steps, 0), frames.new_zeros(count, 0), factors)

    def draw(self, factors: dict[str, Tensor], generator: Generator | None = None) -> Tensor:
        """Return pictures [B, T, 3, S, S] of given factors.

        Args: factors: position, other [B, T, 2] and texture [B, T, 8], as from `factors`; generator: of the pixel
            noise, None for none.
        """
        frames = draw(factors, self.size, self.roads, self.colors)
        return frames if generator is None or not self.noise else add_noise(frames, self.noise, generator)

    def integers(self, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return what happens in `count` clips of `held_out_frames`, in integer arithmetic: the same on every machine.

        Returns: x, y, speed and texture, as `jepa.worlds.drive.stored.integer_clips` says, in their quanta.
        Raises: ValueError for count < 1.
        """
        return integer_clips(self, count, random)

    def clips_of(self, held_out: HeldOut) -> dict[str, Tensor]:
        """Return the factors of a stored set that `integers` made, from which `draw` makes pictures.

        Returns: place, speed, road, wobble [N, T, 1], other, position [N, T, 2], texture [N, T, 8].
        Raises: ValueError for a set without one of its arrays, of shapes that do not fit, or with other roads.
        """
        return stored_factors(held_out, self.roads)
