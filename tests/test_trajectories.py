"""The objective of trajectories: of one step that of pairs to the bit, of more a loop; every term by its formula."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import generator, normal, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jepa.batches import Pairs, Trajectories
from jepa.encoders import MLP as Encoder
from jepa.energy import distance
from jepa.maps import MapReader
from jepa.model import JEPA
from jepa.objectives.pairs import PairObjective, Weights
from jepa.objectives.trajectories import InverseDynamics, Terms, TrajectoryObjective, encoded, robust
from jepa.objectives.vicreg import covariance, variance
from jepa.runs import build
from jepa.runs.config import configure
from jepa.train import Train, fit

NETWORK = {"inference": {"name": "amortized", "features": 3, "hidden": 4}}
LATENTS = {
    "none": {},
    "recurrent": {"predictor": "recurrent"},
    "codes": {"latent": {"name": "discrete", "size": 3}},
    "warm codes": {"latent": {"name": "discrete", "size": 3}, "loss.beta_start": 0.5},
    "curve": {"latent": {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 2, "alpha": 0.1}},
    "amortized": {"latent": {"name": "low_dimensional", "size": 2, "alpha": 0.1}, **NETWORK},
    "noise": {"latent": {"name": "noisy", "size": 2, "alpha": 0.1}, **NETWORK},
    "learned codes": {"latent": {"name": "vector_quantized", "size": 3, "width": 2, "decay": 0.8}, **NETWORK},
    "dictionary": {"latent": {"name": "sparse", "size": 3, "alpha": 0.1}, "predictor": "additive"},
}
FREE = ["none", "recurrent", "codes", "curve"]
kinds = pytest.mark.parametrize("kind", LATENTS)


def made(kind="none", **diff):
    """Return a model with one encoder for all frames, and the weights of its loss."""
    own = {"encoder": {"name": "mlp", "outputs": 4, "hidden": [6]}, "target_encoder": "shared"}
    config = configure(own, {"world": {"name": "plane", "dimension": 5}}, LATENTS[kind], diff)
    of = SimpleNamespace(widths=(5, 2, 5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder = Encoder(5, 4, [6])
        latent = build.amortized(config, build.make("latent", config.latent, build.LATENTS), encoder, encoder)
        widths = {"inputs": 4, "outputs": 4, "action": of.widths[1], "latent": latent.width}
        predictor = build.make("predictor", config.predictor, build.PREDICTORS, **widths)
    return JEPA(encoder, encoder, predictor, latent), config.loss


def batch(count=8, steps=1, draws=None, static=0):
    """Return trajectories of 5 numbers, one static part for all that an MLP is not told of."""
    draws = draws or generator(1)
    frames, a = torch.randn(count, steps + 1, 5, generator=draws), torch.randn(count, steps, 2, generator=draws)
    return Trajectories(frames, a, torch.ones(1, static), {})


class Paired(nn.Module):
    """The objective of pairs, on trajectories of one step whose frames are encoded in one call."""

    terms, encoded = PairObjective.terms, False

    def __init__(self, weights):
        super().__init__()
        self.pairs = PairObjective(weights, encoded=True)

    def forward(self, model, batch, progress):
        """Return the loss of the pair of each trajectory."""
        s = encoded(model, batch.frames)
        return self.pairs(model, Pairs(s[:, 0], batch.a[:, 0], s[:, 1], {}), progress)


def energy_only(weights):
    """Return the objective of trajectories with no term but the energy."""
    return TrajectoryObjective(weights, Terms())


def slopes(objective, kind, data, progress=0.2):
    """Return the loss of a model in training, and the gradient of all its weights."""
    model, weights = made(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        total = objective(weights)(model.train(), data, progress).total
    total.backward()
    return total, [weight.grad for weight in model.parameters()], model.state_dict()


@kinds
@pytest.mark.parametrize("static", [0, 3])
def test_one_step_is_a_pair_to_the_bit_in_loss_and_gradient(kind, static):
    (ours, our_slopes, after), (theirs, their_slopes, then) = (
        slopes(objective, kind, batch(static=static)) for objective in (energy_only, Paired)
    )
    assert torch.equal(ours, theirs) and ours > 0.1 and same(after, then)
    for one, other in zip(our_slopes, their_slopes, strict=True):
        assert (one is None) == (other is None) and (one is None or torch.equal(one, other))
    assert sum(slope is not None and bool(slope.any()) for slope in our_slopes) >= 6


@kinds
def test_training_on_one_step_is_training_on_pairs_to_the_bit(kind):
    ends = []
    for objective in (energy_only, Paired):
        model, weights = made(kind)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        fit(model, objective(weights), lambda n, g: batch(n, 1, g), generator(5), Train(steps=5, batch=16, rate=0.01))
        assert not same(start, model.state_dict())
        ends.append(model.state_dict())
    assert same(*ends)


def test_criteria_of_one_step_are_the_pairs_criteria_over_both_frames_at_once():
    model, _ = made()
    weights, data = Weights(variance=2.0, covariance=3.0), batch(9)
    found = TrajectoryObjective(weights, Terms())(model, data, 0.0).terms
    both = data.frames.flatten(0, 1)
    pairs = PairObjective(weights)(model, Pairs(both, data.a.repeat_interleave(2, 0)[:, 0], both, {}), 0.0).terms
    torch.testing.assert_close(found["variance"], pairs["variance"])  # (V(v_x) + V(v_y)) / 2 of equal ones
    torch.testing.assert_close(2 * found["covariance"], pairs["covariance"])


@pytest.mark.parametrize("kind", FREE)
@pytest.mark.parametrize("delta", [math.inf, 0.3])
@pytest.mark.parametrize("steps", [1, 4])
def test_energy_is_that_of_a_loop_that_sees_the_first_frame_alone(kind, delta, steps):
    model, weights = made(kind)
    data = batch(6, steps)
    found = TrajectoryObjective(weights, Terms(delta=delta))(model, data, 1.0).terms["energy"]
    total, s = 0.0, model.encoder(data.frames)
    for b in range(6):
        current = s[b, 0]
        for t in range(steps):
            z = s.new_zeros(1, 0)
            if model.latent.width:
                z = model.minimum(s[b, t][None], data.a[b, t][None], s[b, t + 1][None]).argmin
            regularizer = model.latent.regularize(z).sum() if steps == 1 and math.isinf(delta) else 0.0
            current = model.predictor(current[None, None], data.a[b, t][None, None], z[None])[0, 0]
            gap = (current - s[b, t + 1]).abs()
            total += torch.where(gap <= delta, gap**2, delta * (2 * gap - delta)).nan_to_num().sum() + regularizer
    torch.testing.assert_close(found, total / 6 / steps)


def test_map_is_bound_once_and_read_in_every_step():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, reader = Encoder(5, 2, [6]), MapReader(2, 2, 2, 0, (1, 9, 9), (4,), (8,), reach=1.0)
    model, static = JEPA(encoder, encoder, reader, made()[0].latent), torch.rand(3, 1, 9, 9, generator=generator())
    for steps in (1, 3):
        data, calls = batch(6, steps)._replace(static=static), []
        handle = reader.map.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        found = energy_only(Weights())(model, data, 0.0).total
        handle.remove()
        assert len(calls) == 1
        current, energies = (s := encoder(data.frames))[:, :1], []
        for t in range(steps):
            current = reader.bind(static)(current, data.a[:, t, None], current[..., :0])
            energies.append(distance(current[:, 0], s[:, t + 1]))
        torch.testing.assert_close(found, torch.stack(energies).mean())
        other = energy_only(Weights())(model, data._replace(static=static.flip(0)), 0.0).total
        assert not torch.isclose(other, found, rtol=1e-5, atol=0)


def test_terms_are_their_formulas_and_the_total_is_their_weighted_sum():
    model, _ = made()
    head = InverseDynamics(4, 2, hidden=5)
    weights, data = Weights(energy=0.7, variance=3.0, covariance=2.0), batch(7, 3)
    found, terms = TrajectoryObjective(weights, Terms(0.5, 0.25), head, limit=2.0)(model, data, 1.0)
    assert (*terms,) == TrajectoryObjective.terms and terms["total"] is found
    s = model.encoder(data.frames)
    moved = [float((s[b, t + 1] - s[b, t]).square().sum().detach()) for b in range(7) for t in range(3)]
    guessed = [
        float((head(s[b, t], s[b, t + 1]) - data.a[b, t] / 2).square().sum().detach())
        for b in range(7)
        for t in range(3)
    ]
    assert float(terms["similarity"].detach()) == pytest.approx(sum(moved) / 21, rel=1e-5)
    assert float(terms["inverse"].detach()) == pytest.approx(sum(guessed) / 21, rel=1e-5)
    torch.testing.assert_close(terms["variance"], variance(s.flatten(0, 1)))
    torch.testing.assert_close(terms["covariance"], covariance(s.flatten(0, 1)))
    by_hand = sum(
        weight * terms[name]
        for name, weight in zip(TrajectoryObjective.terms[1:], (0.7, 3.0, 2.0, 0.5, 0.25), strict=True)
    )
    torch.testing.assert_close(found, by_hand)
    assert min(float(value.detach()) for value in terms.values()) > 1e-3


@pytest.mark.parametrize("name", ["variance", "covariance", "similarity", "inverse"])
def test_term_without_weight_reads_zero_and_changes_no_other(name):
    model, _ = made()
    head, data = InverseDynamics(4, 2), batch(7, 3)
    every = {"variance": 3.0, "covariance": 2.0, "similarity": 0.5, "inverse": 0.25}

    def loss(**weights):
        own = {key: weights.pop(key) for key in ("similarity", "inverse")}
        return TrajectoryObjective(Weights(**weights), Terms(**own), head)(model, data, 1.0)

    full, part = loss(**every), loss(**every | {name: 0.0})
    assert part.terms[name] == 0 < full.terms[name]
    torch.testing.assert_close(part.total, full.total - every[name] * full.terms[name])
    kept = {*full.terms} - {name, "total"}
    assert {key: part.terms[key] for key in kept} == {key: full.terms[key] for key in kept}


def test_weight_of_the_energy_and_progress_are_those_of_pairs():
    model, _ = made()
    weights = Weights(energy=5.0, energy_start=0.2)
    for progress, weight in ((0.0, 1.0), (0.25, 3.0), (1.0, 5.0)):
        total, terms = energy_only(weights)(model, batch(6, 3), progress)
        torch.testing.assert_close(total, weight * terms["energy"])


def test_frames_are_encoded_in_one_call():
    model, _ = made()
    sizes = []
    model.encoder.register_forward_hook(lambda module, given, result: sizes.append(given[0].shape))
    everything = TrajectoryObjective(Weights(variance=1.0, covariance=1.0), Terms(1.0, 1.0), InverseDynamics(4, 2))
    everything(model, batch(6, 3), 0.0)
    assert sizes == [(24, 5)]


def test_head_is_asked_and_trained_only_where_it_has_a_weight():
    (model, _), head = made(), InverseDynamics(4, 2)
    objective = TrajectoryObjective(Weights(), Terms(inverse=1.0), head)
    assert [id(weight) for weight in objective.parameters()] == [id(weight) for weight in head.parameters()]
    objective(model, batch(6, 3), 0.0).total.backward()
    assert all(weight.grad.abs().max() > 0 for weight in (*head.parameters(), *model.encoder.parameters()))
    head.forward = None  # whoever asks it, fails
    assert TrajectoryObjective(Weights(), Terms(), head)(model, batch(6, 3), 0.0).terms["inverse"] == 0
    with pytest.raises(TypeError):
        objective(model, batch(6, 3), 0.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.floats(0.01, 10.0), st.integers(0, 9))
def test_robust_distance_is_twice_hubers(width, delta, seed):
    a, b = normal(4, width, seed=seed), normal(4, width, seed=seed + 10)
    expected = 2 * nn.HuberLoss(reduction="none", delta=delta)(a, b).sum(-1)
    torch.testing.assert_close(robust(a, b, delta), expected, rtol=1e-12, atol=0)
    assert torch.equal(robust(a, b), distance(a, b))
    assert (robust(a, b, delta) <= distance(a, b) + 1e-12).all()
    torch.testing.assert_close(robust(a, b, 100.0), distance(a, b), rtol=1e-12, atol=0)


def test_settings_decide_a_training():
    one, two = (TrajectoryObjective(Weights(variance=2.0), Terms(similarity=w)).settings for w in (0.1, 0.2))
    assert one != two and one | {"similarity": 0.2} == two
    assert {"energy", "variance", "delta", "inverse"} <= one.keys()


def double(model):
    """Return a model with an encoder of its own for targets."""
    return JEPA(model.encoder, Encoder(5, 4, [6]), model.predictor, model.latent)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda loss, m, d: loss(m, d._replace(static=torch.ones(4, 0)), 0.0),
            "static: expected a batch of 6 .*found 4",
        ),
        (lambda loss, m, d: loss(m, d._replace(static=None), 0.0), r"static: expected .*give \[B, 0\]"),
        (lambda loss, m, d: loss(m, d._replace(a=d.a[:, :2]), 0.0), r"a: expected \[B, 3, A\] for frames"),
        (lambda loss, m, d: loss(m.double(), d, 0.0), "frames: expected torch.float64 .*found torch.float32"),
        (lambda loss, m, d: loss(double(m), d, 0.0), "target_encoder: expected the context's, as every frame is both"),
        (lambda loss, m, d: loss(m, Pairs(d.frames, d.a, d.frames, {}), 0.0), "a: expected .*B, A"),
        (lambda loss, m, d: loss(made("amortized")[0], d, 0.0), "inference: expected 'minimize', .* found one"),
        (lambda loss, m, d: loss(made("learned codes")[0], d, 0.0), "inference: expected 'minimize', .* found one"),
        (lambda loss, m, d: energy_only(Weights(beta=2.0))(made("codes")[0], d, 0.0), "loss.beta: expected infinity"),
        (lambda loss, m, d: robust(d.a, d.frames, 1.0), "b: expected 2 features as in a, found 5"),
        (lambda loss, m, d: Terms(similarity=-0.1), "objective.similarity: expected at least 0, found -0.1"),
        (lambda loss, m, d: Terms(inverse=math.nan), "objective.inverse: expected at least 0, found nan"),
        (lambda loss, m, d: Terms(delta=0.0), "objective.delta: expected a number above 0, found 0.0"),
        (lambda loss, m, d: Terms(delta=-1.0), "objective.delta: expected a number above 0, found -1.0"),
        (
            lambda loss, m, d: TrajectoryObjective(Weights(), Terms(inverse=0.5)),
            "head: expected one, as .* is 0.5, found",
        ),
        (lambda loss, m, d: InverseDynamics(4, 0), "widths: expected at least 1 everywhere"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(energy_only(Weights()), made()[0], batch(6, 3))


def test_latent_beside_a_map_is_refused():
    codes, _ = made("codes")
    codes.predictor.bind = lambda static: codes.predictor
    with pytest.raises(ValueError, match="^latent: expected none beside a map, found one"):
        energy_only(Weights())(codes, batch(6, 3), 0.0)
