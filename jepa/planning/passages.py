"""What steps cost beyond their length, added up, and levels with such costs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from jepa.planning.level import Level, Passage, selected


class Passages:
    """The sum of what several modules say of a step; None among them says nothing."""

    def __init__(self, *parts: Passage | None) -> None:
        self.parts: tuple[Callable, ...] = tuple(part for part in parts if part is not None)

    def __call__(self, s: Tensor, after: Tensor, a: Tensor) -> Tensor:
        """Return [B, K]."""
        total = s.new_zeros(s.shape[:2])
        for part in self.parts:
            total = total + part(s, after, a)
        return total

    def rows(self, index: Tensor) -> Passages:
        """Return the sum of the episodes index [n]."""
        return Passages(*(part.rows(index) if hasattr(part, "rows") else part for part in self.parts))


def with_passage(level: Level, *parts: object) -> Level:
    """Return a level whose steps cost what several modules say beside its own, of all episodes and of some."""

    def at(index: Tensor) -> Level:
        """Return the level of some episodes."""
        some = [part.rows(index) if hasattr(part, "rows") else part for part in parts if part is not None]
        return with_passage(selected(level, index), *some)

    return level._replace(passage=Passages(level.passage, *parts), rows=at)


def raised(level: Level, s: Tensor) -> Tensor:
    """Return what the level above makes of states [..., D]."""
    return s if level.up is None else level.up(s)
