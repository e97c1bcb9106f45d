"""The free energy between its bounds, at its limits and in closed form; the wells that a latent digs."""

import math

import numpy as np
import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa.energy import distance, energy, free_energy
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import NoLatent
from jepa.measures.landscape import Box, grid, minima

ENERGIES = st.lists(st.floats(-100, 100), min_size=1, max_size=8).map(lambda e: torch.tensor(e, dtype=torch.float64))
BETAS = st.floats(-2, 4).map(lambda exponent: 10**exponent)
SIDE = 41
POINTS = grid(Box(*torch.tensor([[-2.05, -2.05], [2.05, 2.05]], dtype=torch.float64)), SIDE)  # 0.1 apart, one at 0
CODES = torch.tensor([[0.0, 0.0], [1.0, -1.5], [-1.2, 0.8], [1.7, 1.7], [-1.5, -1.5]], dtype=torch.float64)


def wells(y, codes):
    """The free energy of a predictor that returns its code."""
    return free_energy(energy(y, codes.unsqueeze(0)))


def test_energy_is_a_sum_over_features_plus_the_regularizer():
    s_y, prediction, penalty = normal(3, 5), normal(3, 4, 5, seed=1), normal(3, 4, seed=2)
    expected = np.empty((3, 4))
    for b in range(3):
        for k in range(4):
            gaps = [float(s_y[b, d] - prediction[b, k, d]) for d in range(5)]
            expected[b, k] = math.fsum(gap**2 for gap in gaps) + float(penalty[b, k])
    np.testing.assert_allclose(energy(s_y, prediction, penalty), expected, rtol=1e-13)
    np.testing.assert_allclose(energy(s_y, prediction), expected - penalty.numpy(), rtol=1e-12)


@settings(deadline=None)
@given(ENERGIES, BETAS)
def test_free_energy_lies_between_the_minimum_and_the_mean(energies, beta):
    rounding = 1e-13 * (1 / beta + energies.abs().max().item())
    assert energies.min() - rounding <= free_energy(energies, beta) <= energies.mean() + rounding


@settings(deadline=None)
@given(ENERGIES, BETAS, st.floats(-100, 100), st.integers(2, 5))
def test_free_energy_moves_with_the_energies_and_does_not_count_copies(energies, beta, shift, copies):
    found = free_energy((energies + shift).repeat(copies), beta)
    torch.testing.assert_close(found, free_energy(energies, beta) + shift, rtol=1e-12, atol=1e-13 / beta + 1e-11)


@settings(deadline=None)
@given(ENERGIES)
def test_infinite_beta_is_exactly_the_minimum(energies):
    assert free_energy(energies).item() == min(energies.tolist())
    assert free_energy(energies, math.inf).item() == min(energies.tolist())


@settings(deadline=None)
@given(ENERGIES)
def test_limits_of_beta_are_the_minimum_and_the_mean(energies):
    # F_β − min E ≤ log K / β, and mean E − F_β → β Var E / 2 as β → 0
    assert 0 <= free_energy(energies, 1e6) - energies.min() + 1e-12 <= math.log(len(energies)) / 1e6 + 1e-11
    slope = (energies.mean() - free_energy(energies, 1e-5)) / 1e-5
    spread = (energies.max() - energies.min()).item()
    assert slope.item() == pytest.approx(energies.var(correction=0).item() / 2, abs=1e-5 * (1 + spread**3))


@pytest.mark.parametrize("beta", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("mean, half", [(0.0, 0.5), (3.0, 2.0), (-7.0, 0.0)])
def test_two_energies_have_a_closed_form(mean, half, beta):
    found = free_energy(torch.tensor([mean - half, mean + half], dtype=torch.float64), beta)
    assert found.item() == pytest.approx(mean - math.log(math.cosh(beta * half)) / beta, abs=1e-12)


@pytest.mark.parametrize("beta", [0.3, 5.0, math.inf])
def test_gradient_is_the_gibbs_distribution(beta):
    energies = normal(3, 4).requires_grad_()
    (slope,) = torch.autograd.grad(free_energy(energies, beta).sum(), energies)
    one_hot = torch.nn.functional.one_hot(energies.argmin(-1), 4).double()
    expected = one_hot if math.isinf(beta) else torch.softmax(-beta * energies, -1)
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("large", [1e30, -1e30])
def test_large_energies_neither_overflow_nor_vanish(large):
    assert free_energy(torch.tensor([large, large]), 10.0).item() == pytest.approx(large)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_there_are_as_many_minima_as_codes_and_they_are_at_the_codes(count):
    is_low = minima(wells(POINTS, CODES[:count]).view(SIDE, SIDE)).flatten()
    found = sorted(POINTS[is_low].round(decimals=6).tolist())
    np.testing.assert_allclose(found, sorted(CODES[:count].tolist()), atol=1e-6)
    assert wells(CODES[:count], CODES[:count]).tolist() == [0.0] * count


def test_without_a_latent_there_is_one_well():
    found = NoLatent().infer(lambda z: energy(POINTS, CODES[1].expand(1, z.shape[1], 2)))
    assert int(minima(found.value.view(SIDE, SIDE)).sum()) == 1
    assert POINTS[found.value.argmin()].tolist() == pytest.approx(CODES[1].tolist(), abs=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_continuous_latent_drives_the_free_energy_to_zero_on_what_it_spans(size):
    decoder = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)[:, :size]
    found = LowDimensional(size, steps=60).double().infer(lambda z: energy(POINTS, z @ decoder.T))
    axis, _ = torch.linalg.qr(decoder)
    outside = POINTS - POINTS @ axis @ axis.T
    torch.testing.assert_close(found.value, outside.square().sum(1), rtol=1e-8, atol=1e-10)
    assert (found.value.max() < 1e-10) == (size == 2)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_beta_that_is_not_positive_is_refused(beta):
    with pytest.raises(ValueError, match=f"^beta: expected a number above 0, found {beta}"):
        free_energy(torch.zeros(2), beta)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="^energies: expected at least one candidate"):
        free_energy(torch.zeros(3, 0))
    with pytest.raises(ValueError, match="^b: expected 2 features as in a, found 1"):
        distance(torch.zeros(4, 2), torch.zeros(4, 1))  # would be broadcast
    with pytest.raises(ValueError, match="^b: expected 1 features"):
        energy(torch.zeros(4, 2), torch.zeros(4, 3, 1))
