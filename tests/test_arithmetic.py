"""One formula in two arithmetics: integers against exact fractions, floating point against double precision."""

from fractions import Fraction
from math import cos, floor, sin

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jepa.worlds.arithmetic import BITS, blend, matrix_times, number, ramp, times, unit_vector, whole

ONE = 2**16
UNITS = st.integers(-40 * ONE, 40 * ONE)
RAMPS = [(3.6, 2.8), (1.25, 0.75), (2.4, 1.2)]
FLOATS = pytest.mark.parametrize(
    "dtype, error", [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["double", "single"]
)


def integer(*values):
    return torch.tensor(values)


def nearest(value):
    """The integer nearest to a fraction, the upper one of two."""
    return floor(Fraction(value) + Fraction(1, 2))


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def exact_ramp(u, w, end, full):
    return min(max((end**2 - u**2 - w**2) / (end**2 - full**2), 0), 1)


@settings(deadline=None)
@given(st.floats(-100, 100))
@example(0.9 / ONE)
@example(-0.9 / ONE)
def test_number_is_the_nearest_unit(value):
    found = number(value, integer(7))
    assert found.dtype == torch.int64 and abs(int(found) - Fraction(value) * ONE) <= Fraction(1, 2)
    rows = torch.tensor([[value], [1.0]], dtype=torch.float64)
    assert BITS == 16 and number(rows, integer(7)).tolist() == [[found], [ONE]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_number_in_floating_point_is_left_as_it_is(dtype):
    for value in (0.1, torch.tensor([0.1, -3.0], dtype=torch.float64)):
        found = number(value, torch.zeros(3, dtype=dtype))
        assert found.dtype == dtype and torch.equal(found, torch.as_tensor(value, dtype=torch.float64).to(dtype))


@settings(deadline=None)
@given(UNITS, UNITS)
@example(1, ONE - 1)
@example(-1, ONE - 1)
@example(ONE - 1, -1)
@example(1, ONE // 2)  # the upper one of two that are as near
@example(1, -ONE // 2)
def test_integer_product_is_the_nearest_unit(a, b):
    assert times(integer(a), integer(b)).item() == nearest(Fraction(a * b, ONE))


@settings(deadline=None)
@given(st.lists(st.tuples(UNITS, UNITS, UNITS, UNITS), min_size=1, max_size=9))
@example([(1, 1, ONE // 4, ONE // 4)] * 3)
def test_integer_matrix_product_is_rounded_once(columns):
    a, b = torch.tensor(columns).T[:2], torch.tensor(columns)[:, 2:]  # [2, n] @ [n, 2]
    for i, j in np.ndindex(2, 2):
        exact = sum(Fraction(column[i] * column[2 + j], ONE) for column in columns)
        assert matrix_times(a, b)[i, j].item() == nearest(exact)


@FLOATS
def test_products_in_floating_point(dtype, error):
    a, b = normal(3, 5, dtype=dtype), normal(5, 4, dtype=dtype, seed=1)
    assert torch.equal(times(a, b[:, 0]), a * b[:, 0]) and times(a, b[:, 0]).dtype == dtype
    expected = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in b.T.tolist()] for row in a.tolist()]
    np.testing.assert_allclose(matrix_times(a, b), expected, rtol=0, atol=error)


def test_products_broadcast():
    a, b = ONE * torch.arange(12).reshape(2, 2, 3), integer(ONE // 2, -ONE, 2 * ONE)
    assert torch.equal(times(a, b), (a * torch.tensor([0.5, -1.0, 2.0])).long())
    assert torch.equal(matrix_times(a, b.unsqueeze(1)), times(a, b).sum(2, keepdim=True))


def test_unit_vector_is_sine_and_cosine():
    angles = np.arange(-2 * ONE, 2 * ONE, 3)
    exact = np.array([[sin(angle / ONE), cos(angle / ONE)] for angle in angles])
    assert np.array_equal(unit_vector(torch.from_numpy(angles)), np.rint(exact * ONE))
    found = unit_vector(torch.from_numpy(angles / ONE))
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-15)
    assert unit_vector(torch.ones(2, 3)).shape == (2, 3, 2) and unit_vector(torch.ones(2)).dtype == torch.float32


@pytest.mark.parametrize("end, full", RAMPS)
@FLOATS
def test_ramp_is_a_clamped_line(dtype, error, end, full):
    u, w = 2 * normal(300, dtype=dtype), 2 * normal(300, dtype=dtype, seed=1)
    expected = [exact_ramp(*pair, end, full) for pair in zip(u.tolist(), w.tolist(), strict=True)]
    assert {0, 1} < set(expected)
    kept = u.clone(), w.clone()
    np.testing.assert_allclose(ramp(u, w, end, full), expected, rtol=0, atol=error)
    assert torch.equal(u, kept[0]) and torch.equal(w, kept[1]) and ramp(u, w, end, full).dtype == dtype


@pytest.mark.parametrize("end, full", RAMPS)
def test_ramp_on_integers(end, full):
    u, w = np.random.RandomState(0).randint(-4 * ONE, 4 * ONE, (2, 4000))
    found = ramp(torch.from_numpy(u), torch.from_numpy(w), end, full).numpy()
    expected = np.clip((end**2 - (u / ONE) ** 2 - (w / ONE) ** 2) / (end**2 - full**2), 0, 1) * ONE
    # Rounded are the constant, the product, the slope (times at most end^2) and two squares (times the slope).
    assert np.abs(found - expected).max() <= 0.5 + 0.5 + 0.5 * end**2 + 1 / (end**2 - full**2)
    distance = np.hypot(u, w) / ONE
    assert (found[distance < full - 0.01] == ONE).all() and (found[distance > end + 0.01] == 0).all()
    between = (found > 0) & (found < ONE)
    assert between.mean() > 0.02 and abs((found - expected)[between].mean()) < 0.25 * end**2 + 1


@settings(deadline=None)
@given(UNITS, st.floats(-3, 3), st.integers(0, ONE))
def test_blend_on_integers_is_the_nearest_unit(below, above, share):
    level = number(above, integer(0)).item()
    assert blend(integer(below), above, integer(share)).item() == below + nearest(
        Fraction(share * (level - below), ONE)
    )
    assert blend(integer(below), above, integer(0, ONE)).tolist() == [below, level]


@given(UNITS)
def test_whole_numbers_are_floors(units):
    assert whole(integer(units)).item() == floor(Fraction(units, ONE))
    assert whole(torch.tensor(units / ONE, dtype=torch.float64)).item() == floor(units / ONE)
    assert whole(torch.tensor(units / ONE, dtype=torch.float64)).dtype == torch.int64


@FLOATS
def test_blend_in_floating_point(dtype, error):
    below, share = normal(50, dtype=dtype), normal(50, dtype=dtype, seed=1).sigmoid()
    share[:2] = torch.tensor([0.0, 1.0])
    first, (a, s) = below[0].item(), (below.double().numpy(), share.double().numpy())
    expected = a * (1 - s) - 0.3 * s
    found = blend(below, -0.3, share)
    np.testing.assert_allclose(found, expected, rtol=0, atol=error)
    assert found is below and found.dtype == dtype and found[0] == first and found[1] == torch.tensor(-0.3, dtype=dtype)
