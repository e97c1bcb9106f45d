"""Sparse codes: what training asks of them, and LISTA against ISTA written out."""

import math

import numpy as np
import pytest
import torch
from conftest import normal

from jepa.latents.lista import Lista
from jepa.latents.sparse import Sparse


def distance(dictionary, targets):
    """Return the distance of a linear predictor as a function of candidates."""
    return lambda z: (targets.unsqueeze(1) - z @ dictionary.T).square().sum(-1)


def test_trace_never_rises_and_ends_at_the_value():
    dictionary, targets = normal(6, 10), normal(4, 6, seed=1)
    latent = Sparse(10, 0.3, steps=30).double()
    found = latent.infer(distance(dictionary, targets))
    assert (found.trace.diff(dim=0) <= 0).all() and found.trace.shape == (31, 4)
    torch.testing.assert_close(found.trace[-1], found.value, rtol=1e-9, atol=1e-12)
    expected = (targets - found.argmin @ dictionary.T).square().sum(1) + 0.3 * found.argmin.abs().sum(1)
    torch.testing.assert_close(found.value, expected)


def narrow(z, variance, target=0.5):
    """Return what a low variance over the batch costs, formula written out."""
    return float(variance * (target - (z.var(dim=0) + 1e-4).sqrt()).relu().square().sum() / len(z))


def test_search_in_training_counts_what_a_low_variance_costs():
    latent = Sparse(6, 3.0, steps=100, variance=600.0, target=0.5).double()
    D = distance(normal(6, 6), normal(64, 6, seed=1))
    codes = [latent.train(training).infer(D).argmin for training in (False, True)]
    plain, paid = (float(latent.energy(D)(z.unsqueeze(1)).mean()) + narrow(z, 600.0) for z in codes)
    assert paid < 0.9 * plain


@pytest.mark.parametrize(("variance", "cheated"), [(0.0, True), (600.0, False)])
def test_longer_columns_cheat_the_penalty_unless_codes_have_to_vary(variance, cheated):
    """What training would descend, for columns of the dictionary that are 1, 10, 100 times as long."""
    dictionary, targets = normal(6, 6), normal(64, 6, seed=1)
    losses = []
    for length in (1.0, 10.0, 100.0):
        latent = Sparse(6, 1.0, steps=100, variance=variance, target=0.5).double().train()
        found = latent.infer(distance(length * dictionary, targets))
        losses.append(float(found.value.mean()) + narrow(found.argmin, variance))
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
    proposal = torch.tensor([[0.0, 5.0], [1.0, -5.0], [2.0, 0.0]]).double()  # of variances 1 and 25, which is enough
    paid = variance * (3 - math.sqrt(1 + 1e-4)) ** 2 / 3
    z, cost = latent.train().constrain(proposal)
    assert torch.equal(z, proposal) and cost.tolist() == pytest.approx([paid] * 3, rel=1e-12)
    assert latent.constrain(proposal[:1])[1].tolist() == [0.0]  # one sample has no spread
    z, cost = latent.eval().constrain(proposal)
    assert torch.equal(z, proposal) and cost.tolist() == [0.0] * 3


def test_narrow_proposals_are_driven_apart():
    proposal = torch.tensor([[-0.1], [0.1]]).double().requires_grad_()
    Sparse(1, 0.5, variance=1.0).double().train().constrain(proposal)[1].sum().backward()
    assert proposal.grad[0] > 0 > proposal.grad[1]


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
