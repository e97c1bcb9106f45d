"""What steps cost beyond their length, added up, asked of where it matters, and levels with such costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jepa.planning.cells import first_least
from jepa.planning.level import Level, Passage, selected

LATER = 1e-5  # by how much cheaper a way to a known cell has to be


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


def priced(level: Level, nodes: Any, new: Any, group: Tensor, cells: int) -> Any:
    """Return the new nodes with what their steps cost: infinity where that cannot make them the cheapest of their cell.

    Asked are, of the new ones that would be the cheapest if passages cost nothing, the first of each cell, and then
    those others that are cheaper than what that came to.

    Args: nodes, new: of a search (`jepa.planning.search`), the known ones and those that may be added; group: which of
        so many cells each of both is in, the known ones first.
    Raises: ValueError for a passage below 0.
    """
    if level.passage is None:
        return new
    known, group = group[: len(nodes.key)], group[len(nodes.key) :]
    least = nodes.total.new_full((cells,), torch.inf).scatter_reduce(0, known, nodes.total, "amin")
    total = torch.full_like(new.total, torch.inf)
    asked = torch.zeros_like(group, dtype=torch.bool)
    for first in (True, False):
        at = ((new.total + LATER < least[group]) & ~asked).nonzero()[:, 0]
        if first:
            each = first_least(group[at], (new.total[at],), cells)
            at = at[each[each < len(at)].sort().values]
        if not len(at):
            break
        asked[at] = True
        total[at] = new.total[at] + _passage(level, nodes, new, at)
        least = least.scatter_reduce(0, group[at], total[at], "amin")
    return new._replace(total=total)


def _passage(level: Level, nodes: Any, new: Any, at: Tensor) -> Tensor:
    """Return what the steps to some of the new nodes cost beyond their length [n]."""
    before, after, a = nodes.state[new.parent[at]], new.state[at], new.action[at]
    cost = selected(level, new.episode[at]).passage(*(part.unsqueeze(1) for part in (before, after, a)))[:, 0]
    if not bool((cost >= 0).all()):
        raise ValueError(f"passage: expected costs of at least 0, found {float(cost.amin())}")
    return cost
