"""Sparse codes: FISTA against another solver and the optimality conditions, LISTA against ISTA written out."""

import math

import numpy as np
import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import Lasso

from jepa.latents.lista import Lista
from jepa.latents.sparse import Sparse


def distance(dictionary, targets):
    """Return the distance of a linear predictor as a function of candidates."""
    return lambda z: (targets.unsqueeze(1) - z @ dictionary.T).square().sum(-1)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(st.integers(2, 6), st.integers(1, 8), st.floats(0.05, 3), st.integers(0, 1000))
def test_codes_are_those_of_the_lasso(features, size, alpha, seed):
    dictionary, targets = normal(features, size, seed=seed), normal(5, features, seed=seed + 1)
    latent = Sparse(size, alpha, steps=1500).double()
    found = latent.infer(distance(dictionary, targets))
    for target, value in zip(targets, found.value, strict=True):
        # scikit-learn minimizes ‖t − A z‖² / (2 D) + a ‖z‖₁
        solver = Lasso(alpha / (2 * features), fit_intercept=False, tol=1e-12, max_iter=1_000_000)
        z = solver.fit(dictionary.numpy(), target.numpy()).coef_
        best = float(((target.numpy() - dictionary.numpy() @ z) ** 2).sum() + alpha * np.abs(z).sum())
        assert float(value) == pytest.approx(best, rel=1e-5, abs=1e-8)


def test_trace_never_rises_and_ends_at_the_value():
    dictionary, targets = normal(6, 10), normal(4, 6, seed=1)
    latent = Sparse(10, 0.3, steps=30).double()
    found = latent.infer(distance(dictionary, targets))
    assert (found.trace.diff(dim=0) <= 0).all() and found.trace.shape == (31, 4)
    torch.testing.assert_close(found.trace[-1], found.value, rtol=1e-9, atol=1e-12)
    expected = (targets - found.argmin @ dictionary.T).square().sum(1) + 0.3 * found.argmin.abs().sum(1)
    torch.testing.assert_close(found.value, expected)


def test_a_stronger_penalty_leaves_fewer_components():
    dictionary, targets = normal(8, 16), normal(60, 8, seed=1)
    active = []
    for alpha in (0.01, 0.3, 1.0, 3.0, 1000.0):
        latent = Sparse(16, alpha, steps=400).double()
        active.append(float((latent.infer(distance(dictionary, targets)).argmin.abs() > 1e-9).double().mean()))
    assert active == sorted(active, reverse=True) and active[0] > active[2] > active[3] > active[4] == 0


def test_without_a_penalty_the_best_code_is_least_squares():
    dictionary, targets = normal(6, 3), normal(4, 6, seed=1)
    latent = Sparse(3, 0.0, steps=3000).double()
    expected = np.linalg.lstsq(dictionary.numpy(), targets.numpy().T, rcond=None)[0].T
    np.testing.assert_allclose(latent.infer(distance(dictionary, targets)).argmin, expected, atol=1e-5)


def test_samples_have_the_density_of_the_regularizer():
    latent = Sparse(3, 0.7).double()
    drawn = latent.sample((2000,), torch.Generator().manual_seed(0)).double()
    for i in range(3):
        assert stats.kstest(drawn[:, i], stats.laplace(scale=1 / 0.7).cdf).pvalue > 0.001
    assert stats.kstest(latent.regularize(drawn), stats.gamma(3).cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.07 and latent.bits == math.inf


@pytest.mark.parametrize(("variance", "cheated"), [(0.0, True), (600.0, False)])
def test_longer_columns_cheat_the_penalty_unless_codes_have_to_vary(variance, cheated):
    """What training would descend, for columns of the dictionary that are 1, 10, 100 times as long."""
    dictionary, targets = normal(6, 6), normal(64, 6, seed=1)
    losses = []
    for length in (1.0, 10.0, 100.0):
        latent = Sparse(6, 1.0, steps=100, variance=variance, target=0.5).double().train()
        found = latent.infer(distance(length * dictionary, targets))
        narrow = (0.5 - (found.argmin.var(dim=0) + 1e-4).sqrt()).relu().square().sum() / 64
        losses.append(float(found.value.mean() + variance * narrow))
    assert losses == sorted(losses, reverse=cheated)


def test_codes_of_single_targets_do_not_hang_on_the_batch_once_trained():
    dictionary, targets = normal(6, 6), normal(8, 6, seed=1)
    latent = Sparse(6, 0.5, steps=500, variance=50.0).double().eval()
    together = latent.infer(distance(dictionary, targets)).argmin
    alone = [latent.infer(distance(dictionary, target[None])).argmin[0] for target in targets]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("variance", [0.0, 2.0])
def test_narrow_proposals_cost_in_training(variance):
    latent = Sparse(2, 0.5, variance=variance, target=3.0).double()
    proposal = torch.tensor(
        [[0.0, 5.0], [1.0, -5.0], [2.0, 0.0]]
    ).double()  # variances 1 and 25, the second wide enough
    narrow = variance * (3 - math.sqrt(1 + 1e-4)) ** 2 / 3
    z, cost = latent.train().constrain(proposal)
    assert torch.equal(z, proposal) and cost.tolist() == pytest.approx([narrow] * 3, rel=1e-12)
    assert latent.constrain(proposal[:1])[1].tolist() == [0.0]  # one sample has no spread
    z, cost = latent.eval().constrain(proposal)
    assert torch.equal(z, proposal) and cost.tolist() == [0.0] * 3


def test_narrow_proposals_are_driven_apart():
    proposal = torch.tensor([[-0.1], [0.1]]).double().requires_grad_()
    Sparse(1, 0.5, variance=1.0).double().train().constrain(proposal)[1].sum().backward()
    assert proposal.grad[0] > 0 > proposal.grad[1]


def test_bits_spent_by_a_sparse_latent_are_not_bounded():
    assert Sparse(2, 0.5).rate_bits(normal(5, 2)) == math.inf


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_lista_begun_from_a_dictionary_is_ista(steps):
    dictionary, s_y, alpha = normal(5, 8), normal(9, 5, seed=1), 0.4
    network = Lista(3, 5, 8, steps).double()
    network.begin(dictionary, alpha)
    step = 1 / (2 * np.linalg.norm(dictionary.numpy(), 2) ** 2)
    z = np.zeros((9, 8))
    for _ in range(steps):
        v = z - step * 2 * (z @ dictionary.numpy().T - s_y.numpy()) @ dictionary.numpy()
        z = np.sign(v) * np.maximum(0, np.abs(v) - alpha * step)
    np.testing.assert_allclose(network(normal(9, 3, seed=2), s_y).detach(), z, atol=1e-6)


def test_every_step_of_lista_lowers_the_energy_and_training_lowers_it_further():
    dictionary, s_y, alpha = normal(6, 12), normal(256, 6, seed=1), 0.5
    latent, s_x = Sparse(12, alpha, steps=2000).double(), torch.zeros(256, 1).double()
    D = distance(dictionary, s_y)
    best, E = latent.infer(D).value.mean(), latent.energy(D)
    gaps = []
    for steps in (1, 3, 9):
        network = Lista(1, 6, 12, steps).double()
        network.begin(dictionary, alpha)
        gaps.append(float((E(network(s_x, s_y).unsqueeze(1)).mean() - best).detach()))
    assert gaps[0] > gaps[1] > gaps[2] > 0
    network = Lista(1, 6, 12, 3).double()
    network.begin(dictionary, alpha)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(300):
        loss = E(network(s_x, s_y).unsqueeze(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0 < float(loss.detach() - best) < 0.5 * gaps[1]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Sparse(0, 1.0), "size: expected at least 1 dimension, found 0"),
    (lambda: Sparse(2, -0.1), "alpha: expected a number of at least 0, found -0.1"),
    (lambda: Sparse(2, math.nan), "alpha: expected a number of at least 0, found nan"),
    (lambda: Sparse(2, 1.0, steps=-1), "steps: expected at least 0, found -1"),
    (lambda: Sparse(2, 1.0, lipschitz=0.0), "lipschitz, target: expected numbers above 0, found 0.0, 1.0"),
    (lambda: Sparse(2, 1.0, target=0.0), "lipschitz, target: expected numbers above 0, found 1.0, 0.0"),
    (lambda: Sparse(2, 1.0, variance=-1.0), "variance: expected a number of at least 0, found -1.0"),
    (lambda: Sparse(2, 1.0).infer(lambda z: z.sum(-1) / 0), "cost: expected numbers, found nan"),
    (lambda: Sparse(2, 0.0).sample((3,), torch.Generator()), "alpha: expected a number above 0 to sample"),
    (lambda: Lista(3, (1, 8, 8), 2), r"target: expected a width, found pixels \[1, 8, 8\]"),
    (lambda: Lista(3, 2, 2, steps=0), "context, target, outputs, steps: expected at least 1 each, found 3, 2, 2, 0"),
    (lambda: Lista(3, 2, 2, threshold=0.0), "threshold: expected a number above 0, found 0.0"),
    (lambda: Lista(3, 2, 4).begin(torch.ones(4, 2), 1.0), r"dictionary: expected shape \[2, 4\], found \[4, 2\]"),
    (lambda: Lista(3, 2, 4).begin(torch.ones(2, 4), 0.0), "alpha: expected a number above 0, found 0.0"),
    (lambda: Lista(3, 2, 4)(torch.ones(5, 2), torch.ones(5, 2)), r"s_x: expected \[5, 3\] or a single context"),
])  # fmt: skip
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
