"""What every world is: a source of pairs whose factors are known; in some a thing moves, and its ways branch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import generator

from jepa.encoders import Identity
from jepa.latents.finite import Discrete
from jepa.model import JEPA
from jepa.objectives.pairs import PairObjective, Weights
from jepa.predictors import MLP
from jepa.runs.config import Part
from jepa.runs.kinds import make
from jepa.train import Train, fit
from jepa.worlds import WORLDS
from jepa.worlds.base import Branching, World
from jepa.worlds.crossing import Crossing
from jepa.worlds.fork import Fork
from jepa.worlds.pairs import Pairs, mismatched

LABELS = {"predictable", "unpredictable", "irrelevant"}
SEQUENCES = {"rooms", "maze", "drive"}  # worlds whose samples are no pairs
every_world = pytest.mark.parametrize("name", [name for name in WORLDS if name not in SEQUENCES])


def made(name):
    """Return a world by name."""
    return make("world", Part(name), WORLDS)


@every_world
def test_world_makes_pairs_with_the_factors_that_it_states(name):
    world = made(name)
    assert isinstance(world, World) and set(world.factor_labels.values()) <= LABELS
    one, two, other = (world.sample(5, generator(seed)) for seed in (0, 0, 1))
    for part, width in zip(one[:3], world.widths, strict=True):
        assert part.shape == (5, *([width] if isinstance(width, int) else width)) and part.dtype == torch.float32
    assert one.factors.keys() == world.factor_labels.keys()
    assert all(factor.ndim == 2 and len(factor) == 5 for factor in one.factors.values())
    assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y)
    assert all((a != b).flatten(1).any(1).all() for a, b in ((one.x, other.x), (one.y, other.y)))


@every_world
def test_integers_are_pairs_in_quanta_decided_by_their_generator(name):
    world, pairs = made(name), made(name).sample(5, generator())
    one, two, other = (world.integers(5, np.random.RandomState(seed)) for seed in (0, 0, 1))
    assert one.keys() == world.quanta.keys() == {"x", "y", *world.factor_labels}
    for part, array in one.items():
        assert array.shape == {"x": pairs.x, "y": pairs.y, **pairs.factors}[part].shape
        assert array.tobytes() == two[part].tobytes()
        assert array.tobytes() != other[part].tobytes() or len(np.unique(array)) == 1  # as the pace on four roads


@every_world
@pytest.mark.parametrize("count", [0, -3])
def test_pairs_that_cannot_be_drawn_are_refused(name, count):
    with pytest.raises(ValueError, match=f"^count: expected at least 1, found {count}$"):
        made(name).sample(count, generator())


@pytest.mark.parametrize("count", [0, -3])
def test_clips_that_cannot_be_drawn_are_refused(count):
    with pytest.raises(ValueError, match=f"^count: expected at least 1, found {count}$"):
        Fork().integers(count, np.random.RandomState(0))


def test_worlds_of_things_that_move_branch_and_others_do_not():
    assert (
        isinstance(Fork(), Branching) and isinstance(Crossing(), Branching) and not isinstance(made("plane"), Branching)
    )


@pytest.mark.parametrize("world", [Fork(), Fork(turns=(-1, 0, 1), odds=(1, 2, 5)), Crossing()], ids=["2", "3", "4"])
def test_what_happened_is_one_of_the_futures(world):
    factors = world.draw(200, generator())
    futures, paths = world.futures(factors), world.positions(factors)
    assert futures.shape == (200, world.branches, world.frames, 2) and paths.shape == (200, 2 * world.frames, 2)
    torch.testing.assert_close(futures[torch.arange(200), world.branch(factors)], paths[:, world.frames :])
    gaps = (futures.unsqueeze(2) - futures.unsqueeze(1)).square().sum(-1).mean(-1).sqrt()
    assert (gaps + 9 * torch.eye(world.branches)).min() > 1  # no two are near each other
    assert world.alternatives(factors, generator()).shape == (200, world.branches, *world.widths[2])
    other = {name: factor.roll(-1, 0) for name, factor in factors.items()}
    truth = world.positions(other)[:, world.frames :]
    for b, found in enumerate(mismatched(world, factors)[:9]):
        gaps = [sum(float((way[t] - truth[b, t]).square().sum()) for t in range(world.frames)) for way in futures[b]]
        assert float(found) == pytest.approx(min(gaps) / world.frames, rel=1e-4)
    assert float(world.oracle(factors, factors).max()) < 1e-9


class Coin:
    """The least that a world is: y is to one side of x or to the other."""

    factor_labels = {"x": "predictable", "side": "unpredictable"}
    widths = 2, 0, 2

    def sample(self, count, generator):
        """Return pairs."""
        x, side = torch.randn(count, 2, generator=generator), torch.randint(2, (count, 1), generator=generator) * 2 - 1
        return Pairs(x, x.new_zeros(count, 0), x + 2 * side, {"x": x, "side": side})


def test_world_of_three_attributes_is_one_and_is_learned_by_hand():
    assert isinstance(Coin(), World) and not isinstance(Coin(), Branching) and not isinstance(Coin.sample, World)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = JEPA(Identity(2), Identity(2), MLP(2, 2, latent=2, hidden=[32]), Discrete(2))
    curve = fit(model, PairObjective(Weights()), Coin().sample, generator(), Train(steps=300, batch=64, rate=1e-2))
    assert curve.steps[-1] == 300 and curve.terms["energy"][-1] < 0.05 * curve.terms["energy"][0]
    pairs = Coin().sample(200, generator(1))
    code = model.infer(pairs.x, pairs.y).argmin.argmax(1)
    assert len({*zip(code.tolist(), pairs.factors["side"][:, 0].tolist(), strict=True)}) == 2  # the code is the coin
