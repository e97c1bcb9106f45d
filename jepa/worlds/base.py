"""What a world is asked for: by trainings and monitors, by the measures of worlds whose futures branch, by planners."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
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


@runtime_checkable
class Acting(Protocol):
    """A batch of episodes that one can act in. Pictures are as the model was trained to see them."""

    @property
    def goal(self) -> Tensor:
        """Pictures of the goals, [B, C, S, S]."""

    @property
    def limit(self) -> float:
        """The largest norm of an action."""

    def observe(self) -> Tensor:
        """Return what is seen now, [B, C, S, S]."""

    def act(self, a: Tensor) -> Tensor:
        """Return what is seen after actions a [B, A], [B, C, S, S]; longer ones are shortened to the limit.

        Raises: ValueError for actions of another shape, or that are not finite.
        """


def shortened(a: Tensor, limit: float, shape: tuple[int, ...]) -> Tensor:
    """Return actions [B, A], those longer than the limit shortened to it.

    Raises: ValueError for actions of another shape than given, or that are not finite.
    """
    if a.shape != shape:
        raise ValueError(f"a: expected {list(shape)}, found {list(a.shape)}")
    if not bool(a.isfinite().all()):
        raise ValueError(f"a: expected finite numbers, found {a[~a.isfinite()][0].item()}")
    largest = a.abs().amax(-1, keepdim=True).clamp(min=1e-30)  # its square may be beyond the largest number
    direction = a / largest
    size = direction.norm(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(size * largest > limit, direction * (limit / size), a)
