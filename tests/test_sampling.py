"""Sources of pairs: drawn in portions, or with replacement from a pool of given ones."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import generator
from scipy import stats

from jepa.sampling import draw, pool, portions
from jepa.worlds.pairs import Pairs


@pytest.mark.parametrize("count", [1, 40, 600])
def test_pool_is_given_pairs_drawn_whole(count):
    x, y, a = (torch.rand(count, width, generator=generator(width)) for width in (3, 2, 1))
    found = pool(x, y, a)(3000, generator(1))
    rows = (found.a == a[:, 0]).long()
    assert (rows.sum(1) == 1).all() and found.factors == {}  # each is one of the pairs …
    for name, everything in zip("xay", (x, a, y), strict=True):  # … with all that belongs to it
        assert torch.equal(getattr(found, name), everything[rows.argmax(1)])
    assert stats.chisquare(rows.sum(0)).pvalue > 0.001 if count > 1 else rows.sum() == 3000  # with replacement
    assert pool(x, y)(5, generator()).a.shape == (5, 0)


def test_draws_from_a_pool_are_decided_by_their_generator():
    source, before, drawn = pool(*torch.rand(2, 20, 3, generator=generator())), torch.get_rng_state(), generator(3)
    first, second = source(8, drawn), source(8, drawn)
    assert torch.equal(first.x, source(8, generator(3)).x) and not torch.equal(first.x, source(8, generator(4)).x)
    assert not torch.equal(first.x, second.x) and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [1, 256, 257, 700])
def test_portions_are_as_many_pairs_as_asked_for(count):
    sizes = []

    def sample(size, of):
        sizes.append(size)
        x = torch.rand(size, 2, generator=of)
        return Pairs(x, x[:, :0], x, {"x": x})

    found = [len(part.x) for part in portions(sample, count, generator())]
    assert found == sizes and sum(sizes) == count and max(sizes) <= 256 and len(sizes) == math.ceil(count / 256)
    whole, parts = draw(sample, count, generator(1)), list(portions(sample, count, generator(1)))
    assert torch.equal(whole.x, torch.cat([part.x for part in parts])) and torch.equal(whole.factors["x"], whole.x)
