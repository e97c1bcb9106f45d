"""Minima, volumes and dimensions against brute force and closed forms."""

import math

import numpy as np
import pytest
import torch
from conftest import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jepa.measures.landscape import Box, Walk, codimension, grid, log_volumes, minima

WALK = Walk(chains=512, moves=12)


def cube(dimension, low=-1.0, high=1.0):
    return Box(torch.full((dimension,), low), torch.full((dimension,), high))


def subspace(d):
    """The squared distance to the subspace of the first d coordinates."""
    return lambda y: y[:, d:].square().sum(1)


def margin(volume):
    """Four standard deviations of log V by the documented √(3 levels / chains), whose factor is about 1 here."""
    return 4 * math.sqrt(3 * max(1.0, -volume / math.log(4)) / WALK.chains)


def ball(dimension, radius):
    """The logarithm of a ball's volume."""
    return dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1) + dimension * math.log(radius)


def brute_minima(rows):
    """Cells below all neighbors, where of cells that tie the last one counts as the lower."""
    cells = {(i, j): (value, -i, -j) for i, row in enumerate(rows) for j, value in enumerate(row)}
    around = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1) if (di, dj) != (0, 0)]
    near = {(i, j): [cells[i + di, j + dj] for di, dj in around if (i + di, j + dj) in cells] for i, j in cells}
    return [[all(cells[i, j] < other for other in near[i, j]) for j in range(len(rows[0]))] for i in range(len(rows))]


def test_grid_holds_the_centers_of_equal_cells_first_axis_slowest():
    found = grid(Box(torch.tensor([-1.0, 10.0]), torch.tensor([1.0, 14.0])), 4)
    assert found.tolist() == [[x, y] for x in (-0.75, -0.25, 0.25, 0.75) for y in (10.5, 11.5, 12.5, 13.5)]
    assert grid(cube(2, 0.0, 3.0), 1).tolist() == [[1.5, 1.5]]


@settings(deadline=None, max_examples=200)
@given(arrays(int, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 3)).map(np.ndarray.tolist))
def test_minima_are_those_of_a_loop_over_neighbors(rows):
    assert minima(torch.tensor(rows, dtype=torch.float64)).tolist() == brute_minima(rows)


@pytest.mark.parametrize("rows, count", [
    ([[5]], 1),
    ([[0, 1], [1, 1]], 1),  # a corner
    ([[1, 1, 1], [1, 2, 0], [1, 1, 1]], 1),  # a border; what surrounds it ties among itself but not with it
    ([[2, 2, 2, 2], [2, 0, 0, 2], [2, 2, 2, 2]], 1),  # one valley of two cells, whichever way it lies
    ([[2, 2, 2], [2, 0, 2], [2, 0, 2], [2, 2, 2]], 1),
    ([[2, 2, 2, 2], [2, 0, 2, 2], [2, 2, 0, 2], [2, 2, 2, 2]], 1),
    ([[2, 2, 2, 2], [2, 2, 0, 2], [2, 0, 2, 2], [2, 2, 2, 3]], 1),
    ([[2, 2, 2, 2, 2], [2, 0, 2, 0, 2], [2, 2, 2, 2, 2]], 2),
    ([[0, 2, 0], [2, 2, 2], [0, 2, 0]], 4),
    ([[7] * 5] * 4, 1),
])  # fmt: skip
def test_hand_made_valleys_are_counted_once(rows, count):
    assert int(minima(torch.tensor(rows, dtype=torch.float32)).sum()) == count


CORNER = Box(torch.tensor([0.0, 10.0]), torch.tensor([4.0, 10.5]))
WELLS = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])


@pytest.mark.parametrize("energy, box, epsilon, exact", [
    *[(subspace(size - lacking), cube(size), epsilon, ball(lacking, math.sqrt(epsilon)) - lacking * math.log(2))
      for size, lacking, epsilon in [
          (1, 1, 1e-4), (8, 1, 1e-6), (3, 2, 1e-3), (8, 2, 1e-5), (8, 4, 0.01), (8, 8, 0.5), (8, 8, 0.05),
      ]],  # a slab lacks 1 dimension, a tube 2, a ball all; as a share of a cube of side 2
    (lambda y: (y - CORNER.low).square().sum(1), CORNER, 1e-4, math.log(math.pi * 1e-4 / 4 / 2)),  # a quarter of a disc
    (lambda y: torch.cdist(y, WELLS).square().amin(1), cube(2), 1e-4, math.log(4 * math.pi * 1e-4 / 4)),
    (lambda y: y.square().sum(1).clamp(max=0.2), cube(2), 0.01, math.log(math.pi * 0.01 / 4)),  # flat but for a well
    (lambda y: y.square().sum(1).clamp(min=0.5), cube(2), 0.7, math.log(math.pi * 0.7 / 4)),  # flat at its lowest
])  # fmt: skip
def test_regions_of_low_energy_have_their_volume(energy, box, epsilon, exact):
    found = log_volumes(energy, box, [epsilon], generator(), WALK)
    assert found.item() == pytest.approx(exact, abs=margin(exact))


def test_estimate_has_no_bias_beyond_its_error():
    exact, energy = ball(4, 0.1) - 4 * math.log(2), subspace(0)
    found = torch.stack([log_volumes(energy, cube(4), [0.01], generator(seed), Walk(256, 8)) for seed in range(16)])
    error = math.sqrt(3 * -exact / math.log(4) / 256)
    assert found.mean().item() == pytest.approx(exact, abs=4 * error / 4)
    assert 0.3 * error < found.std() < 2 * error


def test_stretched_axes_change_nothing():
    unit = torch.tensor([1.0, 1024.0, 1 / 4096])  # powers of two, so that not a bit differs
    found = log_volumes(subspace(0), cube(3), [0.01], generator())
    box = Box(*(corner * unit for corner in cube(3)))
    assert log_volumes(lambda y: subspace(0)(y / unit), box, [0.01], generator()) == found


@pytest.mark.parametrize("seed", [0, 1])
def test_large_volumes_agree_with_plain_sampling(seed):
    weights = torch.randn(5, 40, generator=generator(seed)), torch.randn(40, generator=generator(seed + 9))

    def energy(y):
        return (1 + torch.tanh(2 * y @ weights[0]) @ weights[1] / 40).square()

    values = energy(torch.rand(100_000, 5, generator=generator(7)) * 2 - 1)
    epsilons = [float(values.quantile(share)) for share in (0.6, 0.3, 0.1, 0.02)]
    found = log_volumes(energy, cube(5), epsilons, generator(), WALK)
    for volume, share in zip(found.tolist(), (0.6, 0.3, 0.1, 0.02), strict=True):
        assert volume == pytest.approx(math.log(share), abs=margin(math.log(share)))


def test_same_generator_same_volume():
    first, again, other = (log_volumes(subspace(1), cube(3), [0.01], generator(s)) for s in (3, 3, 4))
    assert first == again and first != other


def test_energy_is_asked_inside_the_box_only():
    asked = []
    log_volumes(lambda y: asked.append(y) or y.square().sum(1), cube(2, 0.0, 3.0), [1e-4], generator(), Walk(64, 4))
    points = torch.cat(asked)
    assert len(asked) > 20 and points.min() >= 0 and points.max() <= 3


@pytest.mark.parametrize("value, expected", [(0.5, [0.0, 0.0, -math.inf]), (2.0, [-math.inf] * 3), (0.0, [0.0] * 3)])
def test_constant_energy_fills_the_box_or_none_of_it(value, expected):
    found = log_volumes(lambda y: torch.full((len(y),), value), cube(3), [1.0, 0.6, 0.2], generator())
    assert found.tolist() == expected


def test_energy_that_is_flat_at_its_lowest_leaves_nothing_below():
    found = log_volumes(lambda y: y.square().sum(1).clamp(min=0.5), cube(2), [0.7, 0.2], generator(), WALK)
    assert found[0] > -1 and found[1] == -math.inf


@pytest.mark.parametrize("d", range(9))
def test_codimension_is_what_the_region_lacks(d):
    # The tube's formula holds exactly here, so that only the volumes' error remains: claim E2 allows 0.4.
    epsilons = [0.1, 0.03, 0.01, 0.003, 0.001]
    found = codimension(epsilons, log_volumes(subspace(d), cube(8), epsilons, generator(1), WALK))
    assert found == pytest.approx(8 - d, abs=0.4)


@pytest.mark.parametrize("lacking", [0.0, 1.0, 2.5])
def test_codimension_is_twice_the_slope_in_logarithms(lacking):
    epsilons = [0.5, 0.2, 0.01]
    volumes = torch.tensor([3 + lacking / 2 * math.log(epsilon) for epsilon in epsilons], dtype=torch.float64)
    assert codimension(epsilons, volumes) == pytest.approx(lacking)


@pytest.mark.parametrize("epsilons", [[], [0.1, 0.1], [0.1, 0.2], [0.1, 0.0], [-1.0]])
def test_thresholds_that_do_not_fall_are_refused(epsilons):
    with pytest.raises(ValueError, match="^epsilons: expected falling numbers above 0, found"):
        log_volumes(subspace(0), cube(2), epsilons, generator())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_energy_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="^free_energy: expected finite numbers, found nan or infinity at [1-9]"):
        log_volumes(lambda y: torch.where(y[:, 0] > 0.9, value, y[:, 0] + 2), cube(2), [0.1], generator())


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="^box: expected two dimensions for a grid, found 3"):
        grid(cube(3), 4)
    with pytest.raises(ValueError, match="^points: expected at least 1 per axis, found 0"):
        grid(cube(2), 0)
    for epsilons, volumes in (([0.1], [0.0]), ([0.2, 0.1], [0.0]), ([0.2, 0.1], [0.0, -math.inf])):
        with pytest.raises(ValueError, match="^volumes: expected finite log volumes of at least two epsilons"):
            codimension(epsilons, torch.tensor(volumes, dtype=torch.float64))
