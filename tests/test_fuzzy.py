"""Fuzzy latents: energies against sums written out and closed forms, noise that is drawn once or anew."""

import math

import numpy as np
import pytest
import torch
from conftest import normal
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from jepa.encoders import Identity
from jepa.latents.fuzzy import Draws, Dropped, Gaussian, Noisy
from jepa.model import JEPA, Representations

pytestmark = pytest.mark.usefixtures("seeded")


class Linear(nn.Module):
    """The predictor s̃ = s + W z."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, s, a, z):
        return s.unsqueeze(1) + z @ self.weight.T


WEIGHT = normal(5, 2, seed=9)
PAIRS = Representations(normal(6, 5), normal(6, 5, seed=1))


def made(latent):
    """Return a model with a linear predictor, ready to infer."""
    return JEPA(Identity(5), Identity(5), Linear(WEIGHT), latent).double().eval()


LATENTS = [Noisy(2, 0.3, sigma=0.7, draws=5), Dropped(2, 0.3, probability=0.4, draws=5), Gaussian(2, 0.5, draws=5)]


@pytest.mark.parametrize("latent", LATENTS, ids=lambda latent: type(latent).__name__)
def test_energy_is_the_mean_over_what_is_heard_plus_the_regularizer(latent):
    model, z = made(latent), 0.5 * normal(6, 3, latent.free or 2, seed=2)
    found = model.cost(PAIRS)(z)
    for b in range(6):
        for k in range(3):
            heard = latent.heard(z[b, k])
            assert heard.shape == (5, 2)
            each = [float((PAIRS.s_y[b] - PAIRS.s_x[b] - WEIGHT @ one).square().sum()) for one in heard]
            assert float(found[b, k]) == pytest.approx(sum(each) / 5 + float(latent.regularize(z[b, k])))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.0])
def test_noise_raises_the_energy_by_what_it_moves_the_prediction(sigma):
    # the mean of ‖r − W (z + σ ε)‖² is ‖r − W z‖² + σ² ‖W‖²
    model, z = made(Noisy(2, 0.3, sigma, draws=4096)), normal(6, 3, 2, seed=2)
    plain = (PAIRS.s_y - PAIRS.s_x).unsqueeze(1) - z @ WEIGHT.T
    expected = plain.square().sum(-1) + sigma**2 * WEIGHT.square().sum() + 0.3 * z.square().sum(-1)
    torch.testing.assert_close(model.cost(PAIRS)(z), expected, rtol=0.01, atol=0.02)


@pytest.mark.parametrize(("probability", "kept"), [(0.0, 8), (0.25, 6), (0.5, 4), (1.0, 0)])
def test_share_of_what_is_heard_is_dropped(probability, kept):
    latent = Dropped(2, 0.5, probability, draws=8).double().eval()
    z = torch.full((3, 2), 50.0).double()
    heard = latent.heard(z)
    assert heard.shape == (3, 8, 2) and int((heard == 50).all(-1).sum()) == 3 * kept
    assert heard[heard != 50].abs().max() < 5 if kept < 8 else True
    assert torch.equal(latent.heard(z[0]), heard[0])


def test_dropping_in_training_is_as_frequent_as_asked_for():
    latent = Dropped(1, 0.5, probability=0.3).train()
    heard = latent.heard(torch.full((4000, 1), 50.0))
    dropped = heard[heard != 50].numpy()
    assert heard.shape == (4000, 1, 1) and stats.binomtest(len(dropped), 4000, 0.3).pvalue > 0.001
    assert stats.kstest(dropped, stats.norm(scale=1).cdf).pvalue > 0.001  # exp(−z²/2)


def test_divergence_is_that_of_normal_densities():
    mean, log_deviation = normal(7, 3), normal(7, 3, seed=1)
    expected = kl_divergence(Normal(mean, log_deviation.exp()), Normal(torch.zeros(3), torch.ones(3))).sum(-1)
    latent = Gaussian(3, temperature=0.4).double()
    torch.testing.assert_close(latent.regularize(torch.cat([mean, log_deviation], -1)), 0.4 * expected)
    assert latent.regularize(torch.zeros(6).double()) == 0


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_inference_of_a_gaussian_is_its_closed_form(temperature):
    # E = ‖r − W μ‖² + Σ σ_i² ‖W_i‖² + T KL: μ = (WᵀW + T/2)⁻¹ Wᵀ r, σ_i² = T / (T + 2 ‖W_i‖²)
    model = made(Gaussian(2, temperature, draws=8192, steps=300))
    found = model.minimum(PAIRS)
    r = PAIRS.s_y - PAIRS.s_x
    mean = torch.linalg.solve(WEIGHT.T @ WEIGHT + temperature / 2 * torch.eye(2), WEIGHT.T @ r.T).T
    deviation = (temperature / (temperature + 2 * WEIGHT.square().sum(0))).sqrt()
    torch.testing.assert_close(found.argmin[:, :2], mean, rtol=0, atol=0.02)
    torch.testing.assert_close(found.argmin[:, 2:].exp(), deviation.expand(6, -1), rtol=0.02, atol=0.0)


@pytest.mark.parametrize("latent", LATENTS, ids=lambda latent: type(latent).__name__)
def test_noise_is_fixed_in_measuring_and_new_in_training(latent):
    z = normal(4, latent.free or 2).float()
    latent = latent.float()
    before = torch.get_rng_state()
    assert torch.equal(latent.eval().heard(z), latent.heard(z)) and latent.heard(z).shape == (4, 5, 2)
    state = latent.train().state_dict()
    state = {name: value.clone() for name, value in state.items()}
    first, second = latent.heard(z), latent.heard(z)
    assert first.shape == (4, 1, 2) and not torch.equal(first, second)
    latent.load_state_dict(state)
    assert torch.equal(latent.heard(z), first) and torch.equal(latent.heard(z), second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("latent", LATENTS[:2], ids=lambda latent: type(latent).__name__)
def test_samples_have_the_density_of_the_regularizer(latent):
    drawn = latent.sample((3000,), torch.Generator().manual_seed(0)).double()
    for i in range(2):
        assert stats.kstest(drawn[:, i], stats.norm(scale=1 / math.sqrt(0.6)).cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(drawn.T)[0, 1]) < 0.07


def test_samples_of_a_gaussian_are_standard_normal():
    drawn = Gaussian(2).sample((3000,), torch.Generator().manual_seed(0)).double()
    assert drawn.shape == (3000, 2)
    assert all(stats.kstest(drawn[:, i], stats.norm.cdf).pvalue > 0.001 for i in range(2))


def test_training_noise_is_standard_normal():
    drawn = Draws(8, 3).train()(torch.Size((2000, 3))).double().flatten()
    assert stats.kstest(drawn, stats.norm.cdf).pvalue > 0.001


def test_bits_are_the_capacity_of_the_channel():
    assert Noisy(4, alpha=0.5, sigma=1.0).bits == pytest.approx(2.0)  # power 1, noise 1: half a bit for each number
    assert Noisy(1, alpha=0.5, sigma=1 / math.sqrt(3)).bits == pytest.approx(1.0)
    assert Noisy(1, 0.5, sigma=0.0).bits == Gaussian(1).bits == math.inf


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Noisy(0, 1.0), "size: expected at least 1 dimension, found 0"),
    (lambda: Noisy(2, 0.0), "alpha: expected a number above 0, found 0.0"),
    (lambda: Noisy(2, -1.0), "alpha: expected a number of at least 0, found -1.0"),
    (lambda: Noisy(2, 1.0, sigma=-0.1), "sigma: expected a number of at least 0, found -0.1"),
    (lambda: Noisy(2, 1.0, draws=0), "draws: expected at least 1, found 0"),
    (lambda: Dropped(2, 0.0), "alpha: expected a number above 0, found 0.0"),
    (lambda: Dropped(2, 1.0, probability=1.1), "probability: expected a number from 0 to 1, found 1.1"),
    (lambda: Dropped(2, 1.0, restarts=0), "restarts: expected 1 to starts = 64, found 0"),
    (lambda: Gaussian(0), "size: expected at least 1 dimension, found 0"),
    (lambda: Gaussian(2, temperature=0.0), "temperature: expected a number above 0, found 0.0"),
    (lambda: Gaussian(2, starts=2, restarts=3), "restarts: expected 1 to starts = 2, found 3"),
])  # fmt: skip
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
