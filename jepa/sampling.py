"""Sources of pairs: a source is a function (count, generator) -> batch, drawn in portions or from a pool."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from jepa.batches import Source
from jepa.worlds.pairs import Pairs, joined

CHUNK = 256  # pairs that are drawn or encoded at a time


def portions(sample: Source, count: int, generator: Generator) -> Iterator[Pairs]:
    """Return `count` pairs, a few hundred at a time: faster than all at once, whose memory no cache holds."""
    return (sample(min(CHUNK, count - first), generator) for first in range(0, count, CHUNK))


def draw(sample: Source, count: int, generator: Generator) -> Pairs:
    """Return `count` pairs that are drawn in portions."""
    return joined(list(portions(sample, count, generator)))


def pool(x: Tensor, y: Tensor, a: Tensor | None = None) -> Source:
    """Return a source of pairs that are drawn with replacement from given ones, x [N, …], y [N, …], a [N, A]."""
    a = x.new_zeros(len(x), 0) if a is None else a

    def sample(count: int, generator: Generator) -> Pairs:
        """Return pairs of the pool."""
        rows = torch.randint(len(x), (count,), generator=generator, device=x.device)
        return Pairs(x[rows], a[rows], y[rows], {})

    return sample
