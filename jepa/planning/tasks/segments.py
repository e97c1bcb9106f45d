"""How near steps come to points, in closed form.

The distance of a point c to the segment from s to s' is

    d(c) = ‖c − s − t (s' − s)‖,     t = clamp((c − s)·(s' − s) / ‖s' − s‖², 0, 1)

is the distance of a point c to the segment from s to s'.
"""

from __future__ import annotations

from torch import Tensor

TINY = 1e-30  # square length of a segment that is a point


def segment_distance(points: Tensor, s: Tensor, after: Tensor) -> Tensor:
    """Return distances [B, K, N] of points [B, N, X] to the segments from s to `after` [B, K, D]."""
    offset, along = _from_start(points, s, after)
    t = ((offset * along).sum(-1) / along.square().sum(-1).clamp(min=TINY)).clamp(0, 1)
    return (offset - t.unsqueeze(-1) * along).norm(dim=-1)


def enters(points: Tensor, s: Tensor, after: Tensor, radius: float) -> Tensor:
    """Return whether segments come within a radius of points, other than to lead away from within, [B, K, N]."""
    offset, along = _from_start(points, s, after)
    moves = (along != 0).any(-1)
    away = moves & ((offset * along).sum(-1) <= 0) & (offset.norm(dim=-1) <= radius)
    return (segment_distance(points, s, after) <= radius) & ~away


def _from_start(points: Tensor, s: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Return c − s [B, K, N, X] and s' − s [B, K, 1, X]."""
    s, after = (state[..., : points.shape[-1]].unsqueeze(2) for state in (s, after))
    return points.unsqueeze(1) - s, after - s
