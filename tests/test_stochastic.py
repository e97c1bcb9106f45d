"""Stochastic latents: energies against sums written out and closed forms, noise that is drawn once or anew."""

import math

import numpy as np
import pytest
import torch
from conftest import generator, normal
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from jepa.encoders import Identity
from jepa.latents.stochastic import Draws, Dropped, Gaussian, Noisy
from jepa.model import JEPA, Representations

pytestmark = pytest.mark.usefixtures("seeded")


class Linear(nn.Module):
    """The predictor s̃ = s + W z."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, s, a, z):
        return s + z @ self.weight.T


WEIGHT = normal(5, 2, seed=9)
PAIRS, NOTHING = Representations(normal(6, 5), normal(6, 5, seed=1)), normal(6, 0)


def energy(model):
    """Return E of the pairs as a function of z."""
    return model.latent.energy(model.D(PAIRS.s_x, NOTHING, PAIRS.s_y))


def minimum(model):
    """Return what is inferred of the pairs."""
    return model.minimum(PAIRS.s_x, NOTHING, PAIRS.s_y)


def made(latent):
    """Return a model with a linear predictor, ready to infer."""
    return JEPA(Identity(5), Identity(5), Linear(WEIGHT), latent).double().eval()


every_latent = pytest.mark.parametrize("make, versions", [
    (lambda: Noisy(2, 0.3, sigma=0.7, draws=5), 5),
    (lambda: Dropped(2, 0.3, probability=0.4), 1),
    (lambda: Gaussian(2, 0.5, draws=5), 5),
], ids=["noisy", "dropped", "gaussian"])  # fmt: skip


@every_latent
def test_energy_is_the_mean_over_what_is_given_plus_the_regularizer(make, versions):
    latent = make()
    model, z = made(latent), 0.5 * normal(6, 3, latent.inferred_width, seed=2)
    found = energy(model)(z)
    for b in range(6):
        for k in range(3):
            given = latent.predictor_input(z[b, k])
            assert given.shape == (versions, 2)
            each = [float((PAIRS.s_y[b] - PAIRS.s_x[b] - WEIGHT @ one).square().sum()) for one in given]
            assert float(found[b, k]) == pytest.approx(sum(each) / len(each) + float(latent.regularize(z[b, k])))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.0])
def test_noise_raises_the_energy_by_what_it_moves_the_prediction(sigma):
    # the mean of ‖r − W (z + σ ε)‖² is ‖r − W z‖² + σ² ‖W‖²
    model, z = made(Noisy(2, 0.3, sigma, draws=4096)), normal(6, 3, 2, seed=2)
    plain = (PAIRS.s_y - PAIRS.s_x).unsqueeze(1) - z @ WEIGHT.T
    expected = plain.square().sum(-1) + sigma**2 * WEIGHT.square().sum() + 0.3 * z.square().sum(-1)
    torch.testing.assert_close(energy(model)(z), expected, rtol=0.01, atol=0.02)


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_nothing_is_dropped_outside_of_training(probability):
    latent, z = Dropped(2, 0.5, probability).double().eval(), normal(3, 4, 2)
    state = latent.draws.get_extra_state()
    assert torch.equal(latent.predictor_input(z), z.unsqueeze(-2))
    assert torch.equal(latent.draws.get_extra_state(), state)
    plain = minimum(made(Noisy(2, 0.5, sigma=0.0, draws=1)))
    torch.testing.assert_close(minimum(made(latent)).value, plain.value)


@pytest.mark.parametrize(("probability", "alpha"), [(0.0, 0.5), (0.3, 0.5), (0.8, 4.0), (1.0, 0.5)])
def test_dropping_in_training_is_as_frequent_as_asked_for(probability, alpha):
    latent = Dropped(2, alpha, probability).train()
    given = latent.predictor_input(torch.full((4000, 2), 50.0))[:, 0]
    dropped = given[(given != 50).all(-1)].double()
    assert ((given == 50).all(-1) | (given != 50).all(-1)).all()  # all of z or nothing
    assert given.shape == (4000, 2) and stats.binomtest(len(dropped), 4000, probability).pvalue > 0.001
    for i in range(2 if probability else 0):
        assert stats.kstest(dropped[:, i], stats.norm(scale=1 / math.sqrt(2 * alpha)).cdf).pvalue > 0.001


@pytest.mark.parametrize("temperature", [0.1, 3.0])
def test_regularizer_and_bits_of_a_gaussian_are_its_divergence(temperature):
    mean, log_deviation = normal(40, 3), normal(40, 3, seed=1)
    nats = kl_divergence(Normal(mean, log_deviation.exp()), Normal(torch.zeros(3), torch.ones(3))).sum(-1)
    latent, z = Gaussian(3, temperature).double(), torch.cat([mean, log_deviation], -1)
    torch.testing.assert_close(latent.regularize(z), temperature * nats)
    assert latent.rate_bits(z) == pytest.approx(float(nats.mean()) / math.log(2), rel=1e-10)
    assert latent.regularize(torch.zeros(6).double()) == latent.rate_bits(torch.zeros(5, 6)) == 0


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_inference_of_a_gaussian_is_its_closed_form(temperature):
    # E = ‖r − W μ‖² + Σ σ_i² ‖W_i‖² + T KL: μ = (WᵀW + T/2)⁻¹ Wᵀ r, σ_i² = T / (T + 2 ‖W_i‖²)
    model = made(Gaussian(2, temperature, draws=8192, steps=300))
    found = minimum(model)
    r = PAIRS.s_y - PAIRS.s_x
    mean = torch.linalg.solve(WEIGHT.T @ WEIGHT + temperature / 2 * torch.eye(2), WEIGHT.T @ r.T).T
    deviation = (temperature / (temperature + 2 * WEIGHT.square().sum(0))).sqrt()
    torch.testing.assert_close(found.argmin[:, :2], mean, rtol=0, atol=0.02)
    torch.testing.assert_close(found.argmin[:, 2:].exp(), deviation.expand(6, -1), rtol=0.02, atol=0.0)


@every_latent
def test_noise_is_fixed_in_measuring_and_new_in_training(make, versions):
    latent = make().eval()
    z, before = normal(4, latent.inferred_width).float(), torch.get_rng_state()
    assert torch.equal(latent.predictor_input(z), latent.predictor_input(z))
    assert latent.predictor_input(z).shape == (4, versions, 2)
    state = {name: value.clone() for name, value in latent.train().state_dict().items()}
    first, second = latent.predictor_input(z), latent.predictor_input(z)
    assert first.shape == (4, 1, 2) and not torch.equal(first, second)
    latent.load_state_dict(state)
    assert torch.equal(latent.predictor_input(z), first) and torch.equal(latent.predictor_input(z), second)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_noise_is_standard_normal():
    drawn = Draws(8, 3).train()(torch.Size((2000, 3))).double().flatten()
    assert stats.kstest(drawn, stats.norm.cdf).pvalue > 0.001


def test_bits_are_the_capacity_of_the_channel():
    assert Noisy(4, alpha=0.5, sigma=1.0).bits == pytest.approx(2.0)  # power 1, noise 1: half a bit for each number
    assert Noisy(1, alpha=0.5, sigma=1 / math.sqrt(3)).bits == pytest.approx(1.0)
    assert Noisy(1, 0.5, sigma=0.0).bits == Gaussian(1).bits == math.inf


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("sigma", [0.2, 1.5])
def test_bits_spent_are_the_capacity_for_the_covariance_of_z(size, sigma):
    z = normal(300, size) @ normal(size, size, seed=1)
    ratio = np.eye(size) + np.atleast_2d(np.cov(z.numpy().T)) / sigma**2
    expected = 0.5 * np.linalg.slogdet(ratio)[1] / np.log(2)
    assert Noisy(size, 0.5, sigma).rate_bits(z) == pytest.approx(expected, rel=1e-10)
    assert Noisy(size, 0.5, sigma).rate_bits(torch.ones(9, size)) == pytest.approx(0, abs=1e-12)
    assert Noisy(size, 0.5, sigma=0.0).rate_bits(z) == Dropped(size, 0.5).rate_bits(z) == math.inf


def test_bits_spent_under_the_prior_are_the_bits():
    latent = Noisy(3, alpha=0.25, sigma=0.5)
    drawn = latent.sample((20_000,), generator())
    assert latent.rate_bits(drawn) == pytest.approx(latent.bits, rel=0.01)


@pytest.mark.parametrize("training", [True, False])
def test_without_noise_and_regularizer_z_is_free(training):
    latent, z = Noisy(2, alpha=0.0, sigma=0.0, draws=3).double().train(training), 1e6 * normal(4, 2)
    assert not latent.regularize(z).any() and latent.bits == latent.rate_bits(z) == math.inf
    assert torch.equal(latent.predictor_input(z), z.unsqueeze(-2).expand(4, 1 if training else 3, 2))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Noisy(0, 1.0), "size: expected at least 1 dimension, found 0"),
    (lambda: Noisy(2, 0.0), "alpha: expected a number above 0, found 0.0"),
    (lambda: Noisy(2, 0.0, sigma=1e-9), "alpha: expected a number above 0, found 0.0"),
    (lambda: Noisy(2, math.nan, sigma=0.0), "alpha: expected a number of at least 0, found nan"),
    (lambda: Noisy(2, 0.0, sigma=math.nan), "sigma: expected a number of at least 0, found nan"),
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
