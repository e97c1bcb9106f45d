"""What a world is asked for: by trainings and monitors, and by the measures of worlds whose futures branch."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

from jepa.batches import Pairs

Width = int | tuple[int, int, int]  # a width D, or C, H, W of pixels


@runtime_checkable
class World(Protocol):
    """A source of pairs whose factors are known. Everything in a pair is on the generator's device."""

    @property
    def factor_labels(self) -> dict[str, str]:
        """Name of a factor -> predictable, unpredictable or irrelevant."""

    @property
    def widths(self) -> tuple[Width, int, Width]:
        """Widths of x, a and y."""

    def sample(self, count: int, generator: Generator) -> Pairs:
        """Return `count` pairs: x [count, …], a [count, A], y [count, …], factors [count, F]."""


@runtime_checkable
class Branching(World, Protocol):
    """A world of things that move along paths, where what comes after x may go one of several ways."""

    @property
    def frames(self) -> int:
        """T, of x and again of y."""

    @property
    def branches(self) -> int:
        """M, 0 where the ways on are no choice among finitely many."""

    def branch(self, factors: dict[str, Tensor]) -> Tensor:
        """Return which branch was taken, [B]."""

    def positions(self, factors: dict[str, Tensor]) -> Tensor:
        """Return where the thing is in every frame, [B, 2 T, 2], in the world's units of length."""

    def futures(self, factors: dict[str, Tensor]) -> Tensor:
        """Return where it would be in the frames of y on each of the M ways on, [B, M, T, 2]."""

    def alternatives(self, factors: dict[str, Tensor], generator: Generator) -> Tensor:
        """Return the targets y that could follow, [B, M, …]."""

    def oracle(self, before: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        """Return the energy on true states [B] of the targets of `after` behind the contexts of `before`."""
