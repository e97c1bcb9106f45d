"""Sparse codes on dictionaries of orthonormal columns, where soft thresholds are the minimum in closed form."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import generator, values
from torch import nn

from jepa.data import HeldOut
from jepa.evaluate.sparsity import covering, sparsity, unrolled
from jepa.evaluate.subject import Subject
from jepa.latents.finite import Discrete
from jepa.latents.lista import Lista
from jepa.latents.sparse import Sparse
from jepa.model import JEPA
from jepa.predictors import MLP, Additive

ALPHA, WIDE, SIZE = 0.5, 8, 4
Q = torch.linalg.qr(torch.randn(WIDE, SIZE, generator=generator(5)))[0]  # orthonormal columns


def subject(y, columns=Q, unit=True, network=None, context=2):
    """Return a subject that predicts W z of targets y [N, D] whatever the context."""
    predictor = Additive(context, columns.shape[0], latent=columns.shape[1], hidden=(3,), unit=unit)
    with torch.no_grad():
        predictor.atoms.copy_(columns)
        for weights in predictor.mean.parameters():
            weights.zero_()
    latent = Sparse(columns.shape[1], ALPHA, steps=200).amortize(network)
    return measured_on(JEPA(nn.Identity(), nn.Identity(), predictor, latent).eval(), y, context)


def measured_on(model, y, context=2):
    """Return a subject of a model of targets y [N, D]."""
    x = torch.randn(len(y), context, generator=generator(3))
    return Subject(model, None, HeldOut(x, y, {}), x[:, :0], 1.0, lambda purpose: generator(4), None)


def targets(count=400, scale=1.0):
    """Return targets [N, D] that columns explain in part."""
    return scale * torch.randn(count, WIDE, generator=generator(6)) / 2


def soft(y, columns=Q):
    """Return argmin ‖y − Q z‖² + α Σ |z_i|."""
    code = y @ columns
    return code.sign() * (code.abs() - ALPHA / 2).clamp(min=0)


def energy(y, z):
    """Return ‖y − Q z‖² + α Σ |z_i|."""
    return (y - z @ Q.T).square().sum(1) + ALPHA * z.abs().sum(1)


def test_active_numbers_are_those_above_the_threshold():
    y = targets()
    found, z = values(sparsity(subject(y))), soft(y)
    active = (z != 0).double().sum(1)
    assert found["active"] == pytest.approx(float(active.mean())) and 0.5 < found["active"] < 3.5
    assert found["local_dimension"] == pytest.approx(float(active.mean()))  # orthonormal columns are independent
    assert found["column_norm"] == pytest.approx(1)
    assert found["code_norm"] == pytest.approx(float(z.abs().sum(1).mean()), rel=1e-4)
    assert found["span_residual"] < 1e-9


def test_columns_that_are_active_together_make_fewer_sets_than_chance():
    together = (torch.rand(2000, 1, generator=generator(7)) < 0.5).float()
    found = values(sparsity(subject(2 * together * Q.sum(1))))  # all four or none
    assert found["active_sets"] == 2 and found["active_sets_over_chance"] == pytest.approx(2 / 2**SIZE, rel=0.1)
    assert found["active"] == found["local_dimension"] == pytest.approx(4 * float(together.mean()))


def test_nothing_is_active_where_all_is_below_the_threshold():
    found = values(sparsity(subject(targets(scale=0.01))))
    assert found["active"] == found["local_dimension"] == found["code_norm"] == found["span_residual"] == 0
    assert found["active_sets"] == found["active_sets_over_chance"] == 1


def test_parallel_columns_span_one_dimension():
    double = torch.cat([Q[:, :1], Q[:, :1]], 1)
    y = 2 * Q[:, :1].T + targets(50, 0.01)
    found = values(sparsity(subject(y, double)))
    assert found["active"] == pytest.approx(2) and found["local_dimension"] == 1 and found["span_residual"] < 1e-9


def test_columns_have_the_length_they_have():
    y = targets()
    assert values(sparsity(subject(y, 3 * Q, unit=False)))["column_norm"] == pytest.approx(3)
    short, long = (values(sparsity(subject(y, c * Q, unit=False))) for c in (1, 3))
    assert long["code_norm"] < short["code_norm"]  # long columns are cheap
    assert values(sparsity(subject(y, 3 * Q)))["column_norm"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((100,), 1), ((95, 5), 1), ((94, 6), 2), ((50, 40, 5, 5), 3), ((25, 25, 25, 25), 4), ((90, *[1] * 10), 6)],
)
def test_sets_are_taken_from_the_most_frequent_on_until_they_cover(counts, expected):
    rows = [
        row
        for row, count in zip(itertools.product((False, True), repeat=4), counts, strict=False)
        for _ in range(count)
    ]
    order = torch.randperm(len(rows), generator=generator())
    assert covering(torch.tensor(rows)[order]) == expected


class Share(nn.Module):
    """A network that proposes a share of the minimum."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, s_x, s_y):
        """Return z [B, Z]."""
        return self.share * soft(s_y)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_gap_of_a_network_is_in_closed_form(share):
    y = targets()
    found = values(unrolled(subject(y, network=Share(share))))
    least = float(energy(y, soft(y)).double().mean())
    gap = float(energy(y, share * soft(y)).double().mean()) / least - 1
    assert found["gap"] == pytest.approx(gap, rel=1e-3)
    if share:  # z = 0, where FISTA begins, is worse; its first step is the minimum
        assert found["fista_steps"] == 1
    begin = float(energy(y, 0 * soft(y)).double().mean()) / least - 1
    assert begin > 0.05 and found["fista_steps_to_5_percent"] == 1


def test_unrolled_from_slanted_columns_needs_its_steps():
    slanted = nn.functional.normalize(Q + 0.6 * Q.roll(1, 1), dim=0)
    gaps = []
    for steps in (1, 3, 10, 60):
        network = Lista(2, WIDE, SIZE, steps)
        network.begin(slanted, ALPHA)
        gaps.append(values(unrolled(subject(targets(60), slanted, network=network)))["gap"])
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 1e-3 and gaps[-1] < 1e-4


@pytest.mark.parametrize("ask", [sparsity, unrolled])
def test_other_parts_are_an_error(ask):
    model = subject(targets(8)).model
    others = [(MLP(2, WIDE, latent=SIZE), model.latent), (model.predictor, Discrete(SIZE))]
    for predictor, latent in others:
        wrong = JEPA(nn.Identity(), nn.Identity(), predictor, latent)
        with pytest.raises(ValueError, match="^measure: expected a predictor Additive and a latent Sparse for 'spars"):
            ask(measured_on(wrong, targets(8)))


def test_network_is_asked_for_where_it_is_compared():
    with pytest.raises(ValueError, match="^measure: expected a network that infers z for 'unrolled', found none"):
        unrolled(subject(targets(8)))
