"""The world `drive`: a car seen from above on a ring of roads, whose factors can be foreseen for different times."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Generator, Tensor

from jepa.batches import Trajectories
from jepa.worlds.drive.laws import Laws
from jepa.worlds.drive.pictures import COLORS, add_noise, draw


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
