"""The world `plane`: integers against floating point, the shear, and what is independent of what."""

import numpy as np
import pytest
import torch
from conftest import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jepa.worlds.plane import QUANTUM, Plane, bend

CLOUD = Plane(dimension=8, modes=1, radius=0.0, spread=1.0, falloff=0.9, bend=0.25)
BENT = Plane(dimension=3, modes=5, radius=0.7, share=0.5, spread=0.4, falloff=0.75, bend=-0.5)
WORLDS = {"places": Plane(), "cloud": CLOUD, "bent": BENT}


def drawn(world, count=4000, seed=0):
    return world.sample(count, generator(seed))


def from_integers(world, count=4000, seed=0):
    """The integer generator's pairs, in the world's units."""
    arrays = world.integers(count, np.random.RandomState(seed))
    return {name: torch.from_numpy(array.astype(np.float64)) * world.quanta[name] for name, array in arrays.items()}


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 5), st.integers(1, 7), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 1),
    st.sampled_from([-1.0, -0.25, 0.0, 0.25, 0.5, 1.0]),
)  # fmt: skip
def test_integers_are_the_world_to_one_quantum(dimension, modes, radius, share, spread, falloff, curvature):
    share = round(share * 1024) / 1024  # the world's constants are multiples of the quantum
    world = Plane(dimension, modes, radius, share, spread, falloff, curvature)
    made = from_integers(world, 500)
    y = world.render(made["x"], made["mode"][:, 0].long(), made["offset"]).y
    assert (y - made["y"]).abs().max() <= 0.51 * QUANTUM  # half a quantum is the one rounding


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_formula_coordinate_by_coordinate(world):
    x, mode, c = drawn(world, 20).factors.values()
    pairs = world.render(x.double(), mode[:, 0], c.double())
    for b in range(20):
        angle = 2 * np.pi * int(mode[b]) / world.modes + np.pi / 4
        place = [world.radius * np.cos(angle), world.radius * np.sin(angle)] if world.modes > 1 else [0, 0]
        before = 0.0
        for i in range(world.dimension):
            v = world.share * float(x[b, i]) + world.spread * world.falloff**i * float(c[b, i])
            y = (place[i] if i < 2 else 0.0) + v + world.bend * before**2
            assert float(pairs.y[b, i]) == pytest.approx(y, abs=2.5 * QUANTUM)  # constants rounded to the quantum
            before = v


@pytest.mark.parametrize("curvature", [-2.0, 0.0, 0.7])
def test_shear_is_invertible_and_leaves_volumes_alone(curvature):
    v = 2 * torch.randn(30, 5, generator=generator(), dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: bend(row, curvature)))(v)
    torch.testing.assert_close(torch.linalg.det(jacobian), torch.ones(30).double())
    found, back = bend(v, curvature), []
    for i in range(5):
        back.append(found[:, i] - curvature * back[-1].square() if i else found[:, 0])
    torch.testing.assert_close(torch.stack(back, 1), v)
    assert (curvature == 0) == torch.equal(found, v)


@pytest.mark.parametrize("world", [Plane(), BENT], ids=["places", "bent"])
@pytest.mark.parametrize("source", ["torch", "integers"])
def test_factors_are_uniform_and_independent(world, source):
    factors = drawn(world).factors if source == "torch" else from_integers(world)
    x, c, mode = (factors[name].double().numpy() for name in ("x", "offset", "mode"))
    columns = np.concatenate([x, c, mode], axis=1)
    assert stats.chisquare(np.bincount(mode[:, 0].astype(int), minlength=world.modes)).pvalue > 0.001
    for column in columns[:, :-1].T:
        assert stats.kstest(column, stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])).max() < 0.06  # 4 / √4000
    for column in columns[:, :-1].T:  # quarters of each against the mode, and against the next pair's
        quarter = np.digitize(column, [-0.5, 0, 0.5])
        for other in (mode[:, 0], np.roll(quarter, 1)):
            assert stats.chi2_contingency(stats.contingency.crosstab(quarter, other).count).pvalue > 0.001


@pytest.mark.parametrize("share", [0.5, -0.5])
@pytest.mark.parametrize("curvature", [-0.5, 0.0, 0.5])
def test_box_is_the_smallest_that_holds_every_target(curvature, share):
    world = Plane(3, 4, 0.7, share, 0.4, 0.75, curvature)
    low, high = world.box()
    assert ((drawn(world).y >= low) & (drawn(world).y <= high)).all()
    made = from_integers(world)["y"]
    assert ((made >= low - QUANTUM) & (made <= high + QUANTUM)).all()
    ends = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
    every = torch.cat([world.render(ends * np.sign(share), torch.full((27,), mode), ends).y for mode in range(4)])
    torch.testing.assert_close(every.amin(0), low)
    torch.testing.assert_close(every.amax(0), high)


def test_targets_are_where_each_mode_goes_without_an_offset():
    x = drawn(BENT, 9).x
    for mode in range(5):
        expected = BENT.render(x, torch.full((9,), mode), torch.zeros(9, 3)).y
        torch.testing.assert_close(BENT.targets(x)[:, mode], expected)
    assert torch.pdist(BENT.targets(x)[0]).min() > 0.5


@pytest.mark.parametrize("name", ["x", "mode", "offset"])
def test_every_factor_shows_in_y_and_only_the_predictable_one_in_x(name):
    before, redrawn = drawn(BENT, 50), drawn(BENT, 50, seed=1).factors
    factors = before.factors | {name: redrawn[name]}
    moved = factors[name] != before.factors[name]
    after = BENT.render(factors["x"], factors["mode"][:, 0], factors["offset"])
    assert torch.equal((after.y != before.y).any(1), moved.any(1))
    assert torch.equal(after.x, before.x) == (BENT.factor_labels[name] != "predictable")


@pytest.mark.parametrize("wrong, argument", [
    ({"dimension": 0, "modes": 1}, "dimension"),
    ({"dimension": 1}, "dimension"),
    ({"modes": 0}, "modes"),
    ({"spread": -0.1}, "spread, falloff"),
    ({"falloff": 0.0}, "spread, falloff"),
    ({"falloff": 1.1}, "spread, falloff"),
])  # fmt: skip
def test_numbers_that_describe_no_world_are_refused(wrong, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        Plane(**wrong)


def test_pairs_that_cannot_be_stored_are_refused():
    with pytest.raises(ValueError, match="^plane: expected coordinates within 8.00, found larger ones"):
        Plane(radius=12.0).integers(100, np.random.RandomState(0))
