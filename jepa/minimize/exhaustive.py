"""The minimum over finitely many candidates, by trying them all."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa.minimize.base import Cost, Minimum, checked


@torch.no_grad()
def exhaustive(cost: Cost, candidates: Tensor) -> Minimum:
    """Return the best of the given candidates: argmin_k cost(z_k), all of them in one batch.

    Args: cost: [B, K, N] -> [B, K]; candidates: [B, K, N], or [1, K, N] for the same candidates in every problem.
    Returns: the minimum; on a tie the first candidate; its trace has one row.
    Raises: ValueError if there is no candidate or a cost is not a number (on an accelerator its value is nan instead).
    """
    if candidates.dim() != 3 or candidates.shape[1] == 0:
        raise ValueError(f"candidates: expected shape [B, K, N] with K of at least 1, found {list(candidates.shape)}")
    values = checked(cost(candidates))
    value, index = values.min(1)
    rows = torch.arange(len(values), device=values.device)
    return Minimum(candidates.expand(len(values), -1, -1)[rows, index], value, value[None])
