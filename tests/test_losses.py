"""The loss as a weighted sum of named terms, each from its own module."""

import math

import pytest
import torch
from conftest import normal

from jepa.energy import free_energy
from jepa.objectives.pairs import Weights, loss
from jepa.objectives.vicreg import covariance, variance
from jepa.runs import build
from jepa.runs.config import configure

WEIGHTS = Weights(energy=0.7, variance=3.0, covariance=2.0, information_x=1.0, information_y=1.0, beta=math.inf)
ENERGY = WEIGHTS._replace(energy=1.0, variance=0.0, covariance=0.0)  # alone


@pytest.fixture
def model():
    """Two encoders of unlike width, each with an expander of its own."""
    expander = {"name": "expander", "outputs": 5, "hidden": [7]}
    wide, narrow = {"name": "mlp", "outputs": 4, "hidden": [8]}, {"name": "mlp", "outputs": 3, "hidden": [8]}
    diff = {"encoder": wide, "target_encoder": narrow, "latent": {"name": "discrete", "size": 3}, "expander": expander}
    return build.model(configure(diff), seed=0).double()


BATCH = normal(16, 2), normal(16, 0), normal(16, 2, seed=1)


def by_hand(model, beta=math.inf):
    """The three terms, each by its own module."""
    x, _, y = BATCH
    v_x, v_y = model.expander_x(model.encoder(x)), model.expander_y(model.target_encoder(y))
    return {
        "energy": free_energy(model.energy(x, y, model.latent.codes.unsqueeze(0)), beta).mean(),
        "variance": (variance(v_x) + variance(v_y)) / 2,
        "covariance": covariance(v_x) + covariance(v_y),
    }


@pytest.mark.parametrize("beta", [0.5, math.inf])
def test_terms_are_those_of_their_modules_and_the_total_is_their_weighted_sum(model, beta):
    terms = loss(model, *BATCH, WEIGHTS._replace(beta=beta))
    for name, expected in by_hand(model, beta).items():
        torch.testing.assert_close(getattr(terms, name), expected)
    torch.testing.assert_close(terms.total, 0.7 * terms.energy + 3 * terms.variance + 2 * terms.covariance)
    assert min(terms).item() > 0.01


@pytest.mark.parametrize("name", ["energy", "variance", "covariance"])
def test_gradient_of_each_term_reaches_both_branches(model, name):
    weights = ENERGY._replace(**{"energy": 0.0, name: 2.0})
    totals = loss(model, *BATCH, weights).total, 2 * by_hand(model)[name]
    found, expected = (
        torch.autograd.grad(total, list(model.parameters()), allow_unused=True, materialize_grads=True)
        for total in totals
    )
    assert max(slope.abs().max() for slope in expected) > 1e-3
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("silent", ["variance", "covariance"])
def test_term_without_weight_is_zero_and_changes_no_other(model, silent):
    full, part = loss(model, *BATCH, WEIGHTS), loss(model, *BATCH, WEIGHTS._replace(**{silent: 0.0}))
    assert getattr(part, silent).item() == 0
    kept = {"energy", "variance", "covariance"} - {silent}
    assert {name: getattr(part, name) for name in kept} == {name: getattr(full, name) for name in kept}
    torch.testing.assert_close(part.total, full.total - getattr(WEIGHTS, silent) * getattr(full, silent))


@pytest.mark.parametrize("i_x, i_y", [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0), (0.0, 0.0)])
def test_information_of_each_encoder_has_a_factor_of_its_own(model, i_x, i_y):
    x, _, y = BATCH
    v_x, v_y = model.expander_x(model.encoder(x)), model.expander_y(model.target_encoder(y))
    terms = loss(model, *BATCH, WEIGHTS._replace(information_x=i_x, information_y=i_y))
    torch.testing.assert_close(terms.variance, (i_x * variance(v_x) + i_y * variance(v_y)) / 2)
    torch.testing.assert_close(terms.covariance, i_x * covariance(v_x) + i_y * covariance(v_y))
    torch.testing.assert_close(terms.total, 0.7 * terms.energy + 3 * terms.variance + 2 * terms.covariance)
    assert terms.energy == loss(model, *BATCH, WEIGHTS).energy


@pytest.mark.parametrize("dropped, kept", ["xy", "yx"])
def test_encoder_without_information_is_left_to_the_energy(model, dropped, kept):
    loss(model, *BATCH, WEIGHTS._replace(**{"energy": 0.0, f"information_{dropped}": 0.0})).total.backward()
    for part in ("encoder", "expander"):
        slopes = [weight.grad for weight in getattr(model, f"{part}_{dropped}").parameters()]
        assert all(slope is None or not slope.any() for slope in slopes)
        assert any(weight.grad.any() for weight in getattr(model, f"{part}_{kept}").parameters())


def test_terms_that_are_dropped_are_not_computed(model):
    model.expander_y = torch.nn.Linear(1, 1)  # does not fit: whoever asks it, fails
    terms = loss(model, *BATCH, WEIGHTS._replace(information_y=0.0))
    assert terms.variance > 0 and terms.covariance > 0
    with pytest.raises(RuntimeError):
        loss(model, *BATCH, WEIGHTS)


def test_factors_of_one_change_no_bit(model):
    x, a, y = BATCH
    v_x, v_y = model.expander_x(model.encoder(x)), model.expander_y(model.target_encoder(y))
    terms = loss(model, *BATCH, WEIGHTS)
    spread, decorrelation = sum(variance(v) for v in (v_x, v_y)) / 2, sum(covariance(v) for v in (v_x, v_y))
    assert (terms.variance, terms.covariance) == (spread, decorrelation)
    assert terms.total == 0.7 * terms.energy + 3.0 * spread + 2.0 * decorrelation


def test_energy_alone_needs_no_statistics_and_leaves_the_expanders_alone(model):
    terms = loss(model, *(tensor[:1] for tensor in BATCH), ENERGY)
    assert terms.total == terms.energy > 0
    assert terms.variance == terms.covariance == 0
    terms.total.backward()
    assert all(parameter.grad is None for parameter in model.expander_x.parameters())


def test_both_branches_are_kept_informative(model):
    x, a, y = BATCH
    both = loss(model, x, a, y, WEIGHTS).variance
    for collapsed in ((0 * x, a, y), (x, a, 0 * y)):
        assert loss(model, *collapsed, WEIGHTS).variance > both + 0.1


@pytest.mark.parametrize("expander", ["identity", {"name": "expander", "hidden": [4]}])
@pytest.mark.parametrize("name", ["variance", "covariance"])
def test_batch_of_one_is_refused(name, expander):
    model = build.model(configure({"expander": expander}), seed=0)
    weights = ENERGY._replace(**{name: 1.0})
    with pytest.raises(ValueError, match="^(v: expected .* at least 2 samples|Expected more than 1 value per channel)"):
        loss(model, torch.ones(1, 2), torch.zeros(1, 0), torch.ones(1, 2), weights)


@pytest.mark.parametrize("where", [0, 2])
@pytest.mark.parametrize("weights, argument", [
    (ENERGY, "cost"),
    (ENERGY._replace(variance=1.0, beta=1.0), "v"),
    (ENERGY._replace(covariance=1.0, beta=1.0), "v"),
])  # fmt: skip
def test_batch_that_is_not_finite_is_refused(model, where, weights, argument):
    batch = [tensor.clone() for tensor in BATCH]
    batch[where][3, 1] = math.nan
    with pytest.raises(ValueError, match=f"^{argument}: expected .*numbers|^{argument}: expected finite entries"):
        loss(model, *batch, weights)
