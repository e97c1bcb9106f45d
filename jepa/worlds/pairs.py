"""What every world draws: contexts and targets, with the factors that made them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa.batches import Pairs
from jepa.worlds.base import Branching

__all__ = ["NEAR", "Pairs", "joined", "mismatched"]
NEAR = 1.0  # a prediction meets a future, and a pair is plausible, up to that distance, in a world's units of length


def mismatched(world: Branching, factors: dict[str, Tensor]) -> Tensor:
    """Return the energy on true states [B] of every pair's x with the y of the next pair, of the first for the last.

    Up to NEAR² such a pair is plausible, and no model can tell it from a true one.
    """
    return world.oracle(factors, {name: factor.roll(-1, 0) for name, factor in factors.items()})


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Return the pairs of all parts, in their order."""
    x, a, y = (torch.cat(tensors) for tensors in zip(*(part[:3] for part in parts), strict=True))
    return Pairs(x, a, y, {name: torch.cat([part.factors[name] for part in parts]) for name in parts[0].factors})
