"""The optimizer loop: a function of what it is given, whatever modules, sources and callbacks that is."""

from __future__ import annotations

import math
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from conftest import generator
from torch import nn

from jepa.objectives.base import Loss
from jepa.objectives.pairs import PairObjective
from jepa.runs import build
from jepa.runs.config import configure
from jepa.train import Train, fit

MLP = {"name": "mlp", "outputs": 5, "hidden": [8]}
NETWORK = {"inference": {"name": "amortized", "features": 3, "hidden": 4}}
KINDS = {
    "cooled codes": {"latent": {"name": "discrete", "size": 4}, "loss.beta_start": 1.0},
    "free latent": {"latent": {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 2}},
    "inferring network": {"latent": {"name": "low_dimensional", "size": 2, "alpha": 0.1}, **NETWORK},
    "latent with noise": {"latent": {"name": "dropped", "size": 2, "alpha": 0.1}, **NETWORK},
    "learned codes": {"latent": {"name": "vector_quantized", "size": 3, "width": 2, "decay": 0.8}, **NETWORK},
    "auto-encoder": {"context": "y", "encoder": MLP},
    "joint embedding": {
        **{"encoder": MLP, "target_encoder": MLP, "predictor": "identity"},
        **{"expander": {"name": "expander", "outputs": 6, "hidden": [7]}, "loss.variance": 1.0, "loss.covariance": 0.5},
    },
}
SMALL = {"train": {"steps": 12, "batch": 8, "rate": 0.01}, "predictor": {"hidden": [8]}, "monitor.times": 0}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class Cut(Exception):
    """What ends a training from outside."""


def settings(*diffs):
    """Return the configuration of a small training."""
    return configure(SMALL, *diffs)


def run(config, seed=0, checkpoint=None, sample=None, change=None, **given):
    """Return all that a training leaves: weights and buffers, curve, state of the generator."""
    of, drawing = build.parts(config, seed), generator(seed)
    if change:
        change(of.model)
    curve = fit(of.model, of.objective, sample or of.sample, drawing, config.train, checkpoint=checkpoint, **given)
    return {**of.model.state_dict(), **of.objective.state_dict(), "generator": drawing.get_state()}, curve


def same(one, other) -> bool:
    """Return whether two results agree to the bit."""
    (tensors, curve), (others, other_curve) = one, other
    equal = tensors.keys() == others.keys() and all(torch.equal(tensors[key], others[key]) for key in tensors)
    return equal and curve == other_curve


def source_of(config):
    """Return the source of a configuration's pairs."""
    return build.source(config, build.world(config))


def cut_after(config, steps):
    """Return a source of pairs that is cut when it has served a number of steps."""
    source, left = source_of(config), count(steps, -1)

    def sample(batch, generator):
        if next(left) == 0:
            raise Cut
        return source(batch, generator)

    return sample


@pytest.fixture
def spy(monkeypatch):
    """Return lists that fill with what the optimizer and the objective are given at every step."""
    seen = SimpleNamespace(rates=[], decays=[], progress=[])
    forward, step = PairObjective.forward, torch.optim.AdamW.step

    def watched_forward(objective, model, batch, progress):
        seen.progress.append(progress)
        return forward(objective, model, batch, progress)

    def watched_step(optimizer):
        (group,) = optimizer.param_groups
        seen.rates.append(group["lr"])
        seen.decays.append(group["weight_decay"])
        return step(optimizer)

    monkeypatch.setattr(PairObjective, "forward", watched_forward)
    monkeypatch.setattr(torch.optim.AdamW, "step", watched_step)
    return seen


# -- what is learned ---------------------------------------------------------------------------------------------------


def test_eight_pairs_are_learned_by_heart():
    config = settings({"train": {"steps": 300, "batch": 8, "rate": 0.02}, "predictor.hidden": [32, 32]})
    pairs = build.world(config).sample(8, generator())
    _, curve = run(config, sample=lambda batch, generator: pairs)
    assert curve.terms["energy"][-1] < 1e-4 < 0.1 < curve.terms["energy"][0]
    assert curve.terms["energy"] == curve.terms["total"] and curve.steps == list(range(3, 301, 3))


@pytest.mark.parametrize("steps", [1, 12, 250])
def test_curve_ends_with_the_last_step_and_has_a_hundred_points_at_least(steps):
    _, curve = run(settings({"train.steps": steps}))
    assert curve.steps[-1] == steps and min(steps, 100) <= len(curve.steps) <= 130
    assert list(curve.terms) == ["total", "energy", "variance", "covariance"]
    assert all(len(values) == len(curve.steps) for values in curve.terms.values())


@pytest.mark.parametrize("rate, steps", [(0.3, 100), (0.3, 1)])
def test_learning_rate_warms_up_and_falls_as_half_a_cosine(spy, rate, steps):
    run(settings({"train": {"steps": steps, "rate": rate, "decay": 0.02}}))
    warm = [rate * step / 5 for step in range(1, 6)] if steps == 100 else [rate]
    cosine = [rate * math.cos(math.pi / 2 * step / 95) ** 2 for step in range(95)] if steps == 100 else []
    assert spy.rates == pytest.approx(warm + cosine) and set(spy.decays) == {0.02}
    assert spy.progress == [step / steps for step in range(steps)] and spy.rates[-1] > 0


@pytest.mark.parametrize("beta2, clip", [(0.0, 1e9), (0.5, 1e9), (0.999, 1e9), (0.5, 0.3)])
def test_two_steps_are_those_of_adamw_on_clipped_gradients(beta2, clip):
    config = settings(KINDS["joint embedding"], {"train": {"steps": 2, "beta2": beta2, "decay": 0.3, "clip": clip}})
    of, other, drawing = build.parts(config, 0), build.parts(config, 0), generator()
    batches = [of.sample(8, drawing) for _ in range(2)]
    batches[0] = batches[0]._replace(y=9 * batches[0].y)  # clipped much more than the second
    served = iter(batches)

    def sample(count, given):
        assert count == 8 and given is drawing
        return next(served)

    fit(of.model, of.objective, sample, drawing, config.train)
    weights = [*other.model.parameters(), *other.objective.parameters()]
    first, second, norms = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights], []
    for step, batch in enumerate(batches, start=1):
        total = other.objective(other.model, batch, 0.0).total
        slopes = torch.autograd.grad(total, weights)
        norms.append(float(torch.cat([slope.flatten() for slope in slopes]).norm()))
        for i, (weight, slope) in enumerate(zip(weights, slopes, strict=True)):
            slope = slope * min(1.0, clip / norms[-1])
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = beta2 * second[i] + (1 - beta2) * slope.square()
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - beta2**step)
            weight.data.copy_(weight * (1 - 0.01 * 0.3) - 0.01 * mean / (square.sqrt() + 1e-8))
    assert clip > 1 or norms[0] > 1.5 * norms[1] > 1.5 * clip
    for found, expected in zip([*of.model.parameters(), *of.objective.parameters()], weights, strict=True):
        torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-4, atol=1e-5)


def test_weights_are_clipped_in_the_order_of_model_and_objective(monkeypatch):
    # a norm is a sum in this order, which decides its last bit
    seen = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda weights, _: seen.append(list(weights)))
    config = settings(KINDS["learned codes"], {"encoder": MLP, "target_encoder": "shared", "expander": "expander"})
    config = configure({"train.steps": 1, "loss.variance": 1.0}, base=config)
    of = build.parts(config, 0)
    fit(of.model, of.objective, of.sample, generator(), config.train)
    parts = of.model.encoder, of.model.predictor, of.model.latent, of.objective.expander_x
    expected = [weight for part in parts for weight in part.parameters()]
    assert [id(weight) for weight in seen[0]] == [id(weight) for weight in expected]


def test_only_the_given_parts_are_trained_and_only_what_requires_a_gradient():
    config = settings(KINDS["joint embedding"], {"predictor": {"name": "mlp", "hidden": [8]}})
    of = build.parts(config, 0)
    of.model.predictor.first.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in of.model.state_dict().items()}
    parts = [of.model.predictor, of.objective]
    fit(of.model, of.objective, of.sample, generator(), config.train, parts=parts)
    moved = {name for name, value in of.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("predictor.") for name in moved) and "predictor.first.weight" not in moved
    of.model.requires_grad_(False)
    with pytest.raises(ValueError, match="^parts: expected weights to train, found none that require a gradient"):
        fit(of.model, of.objective, of.sample, generator(), config.train, parts=[of.model])


def test_objective_may_be_any_function_of_model_and_batch():
    model, x = nn.Linear(3, 1), torch.ones(8, 3)
    curve = fit(
        model,
        lambda model, batch, progress: Loss((model(batch) - 2).square().mean(), {"gap": model(batch).mean() - 2}),
        lambda count, generator: x,
        generator(),
        Train(steps=200, rate=0.05),
    )
    assert list(curve.terms) == ["gap"] and abs(curve.terms["gap"][-1]) < 1e-3 < abs(curve.terms["gap"][0])


def test_no_steps_leave_the_weights_as_they_are_drawn():
    config = settings({"train.steps": 0})
    (left, curve), drawn = run(config, seed=3), build.parts(config, 3).model.state_dict()
    assert curve.steps == [] and all(torch.equal(left[name], weight) for name, weight in drawn.items())


# -- what decides it ---------------------------------------------------------------------------------------------------


@kinds
def test_same_seed_trains_to_the_same_bits_and_another_does_not(kind):
    first = run(settings(kind), seed=1)
    assert same(run(settings(kind), seed=1), first)
    assert not same(run(settings(kind), seed=2), first)


def with_dropout(model):
    """Give a model an encoder that draws from the global generator."""
    model.encoder = nn.Sequential(model.encoder, nn.Dropout(0.5))


def draws(*_):
    """Draw global numbers, as whoever does not care."""
    torch.rand(3)


def test_global_numbers_are_ours_during_a_training_and_everybodys_again_after_it():
    config = settings(KINDS["auto-encoder"])
    source, first = source_of(config), run(config, change=with_dropout)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert same(run(config, change=with_dropout, callbacks=[draws]), first)
    assert torch.equal(torch.get_rng_state(), before)
    noisy = run(config, change=with_dropout, sample=lambda *given: draws() or source(*given))
    assert not same(noisy, first) and not same(run(config), first)  # dropout hears what its training draws
    with pytest.raises(Cut):
        run(config, change=with_dropout, sample=cut_after(config, 3))
    assert torch.equal(torch.get_rng_state(), before)
    drawn = []
    for seed in (0, 1):
        run(config, seed, change=with_dropout, callbacks=[lambda *_: drawn.append(float(torch.rand(())))])
    assert len({*drawn}) == len(drawn) == 26  # other masks at every step and for every generator


@kinds
def test_what_training_makes_is_made_where_the_model_is(kind):
    config = settings(kind, {"train.steps": 4})
    expected = run(config)
    # another default device takes the part of an accelerator: whatever forgets to ask the model meets the wrong one
    of, drawing = build.parts(config, 0), generator()
    of.sample(1, generator())  # a world's constants are made once
    with torch.device("meta"):
        curve = fit(of.model, of.objective, of.sample, drawing, config.train)
    left = {**of.model.state_dict(), **of.objective.state_dict(), "generator": drawing.get_state()}
    assert same((left, curve), expected)


# -- modes -------------------------------------------------------------------------------------------------------------


def backbone():
    """Return an encoder whose layers differ in training: running statistics, and dropout."""
    return nn.Sequential(nn.Linear(2, 5), nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5)))


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    ("whole", "part", "frozen", "kept"),
    [
        (True, False, False, True),  # in evaluation mode within a model in training mode
        (True, False, True, True),
        (False, False, True, True),  # frozen, in evaluation mode, as the model is
        (False, False, False, False),
        (True, True, False, False),
        (False, True, True, False),  # frozen, but in training mode
    ],
)
def test_what_is_in_evaluation_mode_to_stay_does(whole, part, frozen, kept):
    config, modes, drawn = settings(KINDS["auto-encoder"], {"train.steps": 3}), [], []
    of = build.parts(config, 0)
    of.model.train(whole).encoder = backbone().requires_grad_(not frozen).train(part)
    norm = of.model.encoder[1][0]

    def look(step, model):
        inner = {inner.training for inner in model.encoder.modules()}
        modes.append((inner, model.predictor.training and of.objective.training))
        x = torch.ones(4, 2)
        drawn.append(torch.equal(model.encoder(x), model.encoder(x)))  # no dropout

    fit(of.model, of.objective, of.sample, generator(), config.train, callbacks=[look])
    assert modes == [({not kept}, True)] * 4 and set(drawn) == {kept}
    assert (norm.num_batches_tracked == 0) == (not norm.running_mean.any()) == kept
    assert not any(inner.training for inner in of.model.modules()) and not of.objective.training


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_are_told_of_every_step_in_their_order():
    seen, config = [], settings({"train.steps": 3})
    of = build.parts(config, 0)
    watching = [lambda step, model, n=n: seen.append((step, n, model is of.model)) for n in (0, 1)]
    fit(of.model, of.objective, of.sample, generator(), config.train, callbacks=watching)
    assert seen == [(step, n, True) for step in range(4) for n in (0, 1)]


# -- what is not finite, or no batch -----------------------------------------------------------------------------------


def spoilt(config, step, **changes):
    """Return a source of pairs of which one batch is changed, each named field by a function."""
    source, number = source_of(config), count()

    def sample(batch, generator):
        pairs = source(batch, generator)
        if next(number) == step:
            pairs = pairs._replace(**{name: change(getattr(pairs, name)) for name, change in changes.items()})
        return pairs

    return sample


def holed(value):
    """Return a function that spoils a number."""

    def change(tensor):
        tensor = tensor.clone()
        tensor[3, 1] = value
        return tensor

    return change


@kinds
@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_is_not_finite_is_named_and_never_saved(kind, name, value, tmp_path):
    config, file = settings(kind, {"train.steps": 400, "train.checkpoint": 0.0}), tmp_path / "checkpoint.pt"
    with pytest.raises(ValueError, match=f"{name}: expected finite numbers .* after 5 steps"):
        run(config, checkpoint=file, sample=spoilt(config, 5, **{name: holed(value)}))
    state = torch.load(file, weights_only=True)
    assert state["step"] == 5 and all(tensor.isfinite().all() for tensor in state["model"].values())


def test_loss_that_overflows_is_an_error_with_a_remedy():
    config = settings({"loss.energy": 1e300})
    with pytest.raises(ValueError, match="loss: expected finite terms, found .*lower train.rate"):
        run(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": lambda a: None}, r"^a: expected torch.float32 \[B, A\], found NoneType; .*give \[B, 0\]"),
        ({"x": lambda x: x.to(torch.uint8)}, r"^x: expected torch.float32 .*found torch.uint8 \[8, 2\]; .* / 255"),
        ({"y": lambda y: y.double()}, r"^y: expected torch.float32 .*found torch.float64 \[8, 2\]; convert"),
        ({"y": lambda y: y[:5]}, "^y: expected a batch of 8 as for x, found 5"),
    ],
)
def test_source_of_other_batches_is_named(changes, message):
    config = settings({"train.steps": 3})
    with pytest.raises(ValueError, match=message):
        run(config, sample=spoilt(config, 2, **changes))
