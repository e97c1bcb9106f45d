"""The objective for pairs as a weighted sum of named terms, each from its own module."""

import math
from contextlib import nullcontext

import pytest
import torch
from conftest import normal

from jepa.batches import Pairs
from jepa.energy import free_energy
from jepa.objectives.pairs import PairObjective, Weights
from jepa.objectives.vicreg import covariance, variance
from jepa.runs import build
from jepa.runs.config import configure

ALL = {"energy": 0.7, "variance": 3.0, "covariance": 2.0}
ENERGY = {"energy": 1.0, "variance": 0.0, "covariance": 0.0}  # alone
BATCH = Pairs(normal(16, 2), normal(16, 0), normal(16, 2, seed=1), {})


@pytest.fixture
def made():
    """Two encoders of unlike width, each with an expander of its own."""
    expander = {"name": "expander", "outputs": 5, "hidden": [7]}
    wide, narrow = {"name": "mlp", "outputs": 4, "hidden": [8]}, {"name": "mlp", "outputs": 3, "hidden": [8]}
    diff = {"encoder": wide, "target_encoder": narrow, "latent": {"name": "discrete", "size": 3}, "expander": expander}
    of = build.parts(configure(diff), seed=0)
    return of._replace(model=of.model.double(), objective=of.objective.double())


def loss(made, batch=BATCH, weights=ALL, progress=0.0, **changes):
    """Return total and terms under weights that are changed."""
    made.objective.weights = Weights(**{**weights, **changes})
    return made.objective(made.model, batch, progress)


def embeddings(made, batch=BATCH):
    """Return v_x and v_y."""
    s = made.model.encode(batch.x, batch.y)
    return made.objective.expander_x(s.s_x), made.objective.expander_y(s.s_y)


def by_hand(made, beta=math.inf, i_x=1.0, i_y=1.0):
    """The three terms, each by its own module."""
    v_x, v_y = embeddings(made)
    energies = made.model.energy(BATCH.x, BATCH.y, made.model.latent.codes.unsqueeze(0))
    return {
        "energy": free_energy(energies, beta).mean(),
        "variance": (i_x * variance(v_x) + i_y * variance(v_y)) / 2,
        "covariance": i_x * covariance(v_x) + i_y * covariance(v_y),
    }


@pytest.mark.parametrize("beta, i_x, i_y", [
    (0.5, 1.0, 1.0), (math.inf, 1.0, 1.0), (math.inf, 1.0, 0.0), (math.inf, 0.0, 1.0), (math.inf, 0.5, 2.0),
    (math.inf, 0.0, 0.0),
])  # fmt: skip
def test_terms_are_those_of_their_modules_and_the_total_is_their_weighted_sum(made, beta, i_x, i_y):
    total, terms = loss(made, beta=beta, information_x=i_x, information_y=i_y)
    assert (*terms,) == PairObjective.terms and terms["total"] is total
    for name, expected in by_hand(made, beta, i_x, i_y).items():
        torch.testing.assert_close(terms[name], expected)
    weighted = 0.7 * terms["energy"] + 3.0 * terms["variance"] + 2.0 * terms["covariance"]
    assert total == weighted and terms["energy"] > 0.01
    assert min(terms.values()).item() > 0.01 or not i_x or not i_y


@pytest.mark.parametrize("name", ALL)
def test_gradient_of_each_term_reaches_both_branches(made, name):
    totals = loss(made, weights=ENERGY, **{"energy": 0.0, name: 2.0}).total, 2 * by_hand(made)[name]
    weights = [*made.model.parameters(), *made.objective.parameters()]
    found, expected = (
        torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True) for total in totals
    )
    assert max(slope.abs().max() for slope in expected) > 1e-3
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("silent", ["variance", "covariance"])
def test_term_without_weight_is_zero_and_changes_no_other(made, silent):
    full, part = loss(made), loss(made, **{silent: 0.0})
    assert part.terms[silent].item() == 0
    torch.testing.assert_close(part.total, full.total - ALL[silent] * full.terms[silent])
    kept = {*ALL} - {silent}
    assert {name: part.terms[name] for name in kept} == {name: full.terms[name] for name in kept}


def test_terms_that_are_dropped_are_not_computed(made):
    made.objective.expander_y = torch.nn.Linear(1, 1)  # does not fit: whoever asks it, fails
    terms = loss(made, information_y=0.0).terms
    assert terms["variance"] > 0 and terms["covariance"] > 0
    with pytest.raises(RuntimeError):
        loss(made)
    one = Pairs(*(part[:1] for part in BATCH[:3]), {})
    total, terms = loss(made, one, ENERGY)  # no statistics, which one pair has not
    assert total == terms["energy"] > 0 and terms["variance"] == terms["covariance"] == 0
    total.backward()
    assert all(parameter.grad is None for parameter in made.objective.parameters())


def test_representations_may_stand_in_the_place_of_what_is_encoded(made):
    s = made.model.encode(BATCH.x, BATCH.y)
    behind = PairObjective(Weights(**ALL), (made.objective.expander_x, made.objective.expander_y), encoded=True)
    found = behind(made.model, BATCH._replace(x=s.s_x, y=s.s_y), 0.0).terms
    assert found == loss(made).terms and found["energy"] != loss(made, BATCH._replace(y=BATCH.x)).terms["energy"]


@pytest.mark.parametrize(
    ("given", "temperatures"),
    [
        ({}, [0, 0, 0, 0, 0, 0, 0, 0]),
        ({"beta_start": 0.5}, [2, 1.5, 1, 0.5, 0, 0, 0, 0]),
        ({"beta_start": 0.5, "anneal": 1.0}, [2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25]),
        ({"beta_start": 0.5, "beta": 1.0}, [2, 1.75, 1.5, 1.25, 1, 1, 1, 1]),
        ({"beta": 4.0}, [0.25] * 8),
        ({"beta_start": 4.0, "beta": 1.0}, [1] * 8),  # a start colder than the end: no annealing
    ],
)
def test_temperature_falls_linearly_to_its_final_value(made, given, temperatures):
    betas = [Weights(**given).annealed(step / 8)[1] for step in range(8)]
    assert [1 / beta for beta in betas] == pytest.approx(temperatures)
    for step in (0, 3):
        terms = loss(made, weights=given, progress=step / 8).terms
        torch.testing.assert_close(terms["energy"], by_hand(made, betas[step])["energy"])


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({}, [1] * 8),
        ({"energy_start": 0.2, "energy": 5.0}, [1, 2, 3, 4, 5, 5, 5, 5]),
        ({"energy_start": 3.0, "anneal": 1.0}, [3, 2.75, 2.5, 2.25, 2, 1.75, 1.5, 1.25]),
    ],
)
def test_weight_of_the_energy_goes_linearly_to_its_final_value(made, given, weights):
    assert [Weights(**given).annealed(step / 8)[0] for step in range(8)] == pytest.approx(weights)
    found = loss(made, weights=given, progress=3 / 8)
    torch.testing.assert_close(found.total, weights[3] * found.terms["energy"])


AMORTIZED = {"inference": {"name": "amortized", "features": 3, "hidden": 4}}
HOT = {
    "none": {},
    "cooled codes": {"latent": {"name": "discrete", "size": 4}, "loss.beta": 3.0},
    "codes": {"latent": {"name": "discrete", "size": 4}},
    "curve": {"latent": {"name": "low_dimensional", "size": 2, "restarts": 2}},
    "amortized": {"latent": {"name": "low_dimensional", "size": 2}, **AMORTIZED},
    "noise": {"latent": {"name": "noisy", "size": 2, "alpha": 0.1}, **AMORTIZED},
    "quantized": {"latent": {"name": "vector_quantized", "size": 3, "width": 2, "rate_weight": 0.1}, **AMORTIZED},
    "grid": {"latent": {"name": "finite_scalar", "levels": [3, 2], "rate_weight": 0.1}, **AMORTIZED},
    "LISTA": {"latent": {"name": "sparse", "size": 3, "alpha": 0.1}, "inference": "lista"},
}


@pytest.fixture
def on_meta(monkeypatch):
    """Return a function that returns the gradients of a loss where no number can be read."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which this device does not have
    return slopes_on_meta


def slopes_on_meta(diff):
    """Return the gradients of the loss of a configuration."""
    wide = {"name": "mlp", "outputs": 3, "hidden": [8]}
    head = {"expander": "expander", "loss": {"variance": 1.0, "covariance": 1.0}}
    of = build.parts(configure({"encoder": wide, "target_encoder": wide, **head}, diff), 0)
    model, objective = of.model.to("meta").train(), of.objective.to("meta").train()
    empty = torch.empty(16, 2, device="meta")
    total, terms = objective(model, Pairs(empty, empty[:, :0], empty, {}), 0.0)
    total.backward()
    assert total.device.type == "meta" and len(terms) == 4
    return [weight.grad for weight in (*model.parameters(), *objective.parameters())]


@pytest.mark.parametrize("kind", HOT)
def test_no_number_is_read_on_the_way_to_the_gradient(on_meta, kind):
    assert all(slope is not None for slope in on_meta(HOT[kind]))


def test_search_that_looks_whether_its_bound_holds_reads_numbers(on_meta):
    with pytest.raises(RuntimeError, match="meta"):
        on_meta({"latent": {"name": "sparse", "size": 3, "alpha": 0.1}})


@pytest.mark.parametrize("expander", ["identity", {"name": "expander", "hidden": [4]}])
@pytest.mark.parametrize("name", ["variance", "covariance"])
def test_batch_of_one_is_refused(name, expander):
    of = build.parts(configure({"expander": expander, f"loss.{name}": 1.0}), seed=0)
    with pytest.raises(ValueError, match="^(v: expected .* at least 2 samples|Expected more than 1 value per channel)"):
        of.objective(of.model, Pairs(torch.ones(1, 2), torch.zeros(1, 0), torch.ones(1, 2), {}), 0.0)


@pytest.mark.parametrize("where", ["x", "y"])
@pytest.mark.parametrize("weights, argument", [
    (ENERGY, "cost"),
    (ENERGY | {"variance": 1.0, "beta": 1.0}, "v"),
    (ENERGY | {"covariance": 1.0, "beta": 1.0}, "v"),
])  # fmt: skip
def test_batch_that_is_not_finite_is_refused(made, where, weights, argument):
    part = getattr(BATCH, where).clone()
    part[3, 1] = math.nan
    with pytest.raises(ValueError, match=f"^{argument}: expected .*numbers|^{argument}: expected finite entries"):
        loss(made, BATCH._replace(**{where: part}), weights)
