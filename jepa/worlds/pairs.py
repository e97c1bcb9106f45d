"""What every world draws: contexts and targets, with the factors that made them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Pairs(NamedTuple):
    """A batch of contexts and targets with what made them."""

    x: Tensor  # [B, …] context
    a: Tensor  # [B, A] action, of width 0 where there is none
    y: Tensor  # [B, …] target
    factors: dict[str, Tensor]  # name -> [B, F] ground truth, for measuring only
