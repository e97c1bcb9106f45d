"""From a configuration to its parts: by name, with weights from the seed alone, on the configured device."""

from __future__ import annotations

import ast

import pytest
import torch
from conftest import ROOT, generator

from jepa.evaluate import MEASURES
from jepa.runs import build
from jepa.runs.config import configure

JOINT = {
    "encoder": {"name": "mlp", "outputs": 6, "hidden": [8]},
    "target_encoder": {"name": "mlp", "outputs": 5, "hidden": [8]},
    "latent": {"name": "discrete", "size": 3},
    "expander": {"name": "expander", "outputs": 7, "hidden": [9]},
}
FILTERS = {"name": "convolutional", "outputs": 6, "channels": [2], "patch": 8, "hidden": 4}
NETWORK = {"name": "amortized", "features": 3, "hidden": 8}


def weights(seed: int, **diff) -> torch.Tensor:
    """Return all weights of a model and of its objective side by side."""
    of = build.parts(configure(JOINT, diff), seed)
    return torch.cat([weight.detach().flatten() for part in of[1:3] for weight in part.parameters()])


def model_of(*diffs):
    """Return a model of seed 0."""
    return build.parts(configure(JOINT, *diffs), 0).model


@pytest.mark.parametrize(
    ("part", "known"),
    [
        ("world", build.WORLDS),
        ("encoder", build.ENCODERS),
        ("target_encoder", [*build.ENCODERS, "shared"]),
        ("predictor", build.PREDICTORS),
        ("latent", build.LATENTS),
        ("inference", [*build.NETWORKS, "minimize"]),
        ("expander", build.EXPANDERS),
    ],
)
def test_kind_that_does_not_exist_is_named_with_those_that_do(part, known):
    nearest = sorted(known)[0]
    with pytest.raises(ValueError, match=f"{part}: expected one of {', '.join(sorted(known))}, found '{nearest}z'"):
        model_of({part: f"{nearest}z"})


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ({"world": {"name": "plane", "mods": 3}}, "world: option of 'plane'.*found 'mods'; did you mean 'modes'"),
        ({"encoder.outptus": 3}, "encoder: option of 'mlp'.*did you mean 'outputs'"),
        ({"target_encoder": {"name": "identity", "width": 3}}, "target_encoder: option of 'identity'.*found 'width'"),
        ({"target_encoder": {"name": "shared", "hidden": [3]}}, "target_encoder: option of 'shared'.*found 'hidden'"),
        ({"encoder.inputs": 2}, "encoder: option of 'mlp'.*found 'inputs'"),  # the world decides
        ({"predictor.latent": 3}, "predictor: option of 'mlp'.*found 'latent'"),
        ({"latent.sise": 3}, "latent: option of 'discrete'.*did you mean 'size'"),
        ({"expander.hiden": [3]}, "expander: option of 'expander'.*did you mean 'hidden'"),
        ({"latent": "discrete", "encoder.hidden": [1e3]}, "encoder: 'mlp' cannot be built"),
        ({"latent": {"name": "low_dimensional"}}, "latent: 'low_dimensional' cannot be built from {}.*size"),
        ({"latent": {"name": "low_dimensional", "size": 2, "rate": "1e-2"}}, "latent.rate: expected float"),
        ({"predictor.hidden": 64}, "predictor.hidden: expected tuple, found 64"),
        ({"world.dimension": 2.5}, "world.dimension: expected int, found 2.5"),
        ({"target_encoder.outputs": 0}, "widths: expected at least 1"),
        ({"encoder": {"name": "convolutional", "outputs": 6}}, "inputs: expected pixels, C, H, W, found a width"),
        ({"encoder": "shared"}, "encoder: expected one of convolutional, .*, found 'shared'"),
        ({"predictor": "identity"}, "inputs 6, outputs 5, action 0, latent 3"),  # widths that do not meet
        ({"world": "fork"}, r"inputs: expected a width, found pixels \[4, 32, 32\]"),
        ({"encoder": {**FILTERS, "chanels": [2]}}, "encoder: option of 'convolutional'.*did you mean 'channels'"),
        ({"expander": {"name": "random_features", "featurs": 2}}, "expander: option of .*did you mean 'features'"),
        ({"inference.steps": 3}, "inference: option of 'minimize': expected one of none, found 'steps'"),
        ({"inference": {**NETWORK, "hiden": 3}}, "inference: option of 'amortized'.*did you mean 'hidden'"),
    ],
)
def test_option_that_does_not_exist_or_fit_is_an_error(diff, message):
    with pytest.raises(ValueError, match=message):
        model_of(diff)


def test_seed_alone_decides_the_weights():
    first = weights(3)
    torch.manual_seed(99)
    assert torch.equal(weights(3), first)
    assert not torch.equal(weights(4), first)


def test_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    of = build.parts(configure(JOINT, {"at_measurement": {"scale": 2.0}}), seed=3)
    build.as_measured(configure(JOINT, {"at_measurement": {"scale": 2.0}}), of.model)
    with pytest.raises(ValueError):
        model_of({"predictor": "identity"})
    assert torch.equal(torch.get_rng_state(), before)


def test_shared_encoder_is_one_module_with_one_expander():
    one, two = (build.parts(configure(JOINT, diff), 0) for diff in ({"target_encoder": "shared"}, {}))
    assert one.model.encoder is one.model.target_encoder and one.objective.expander_x is one.objective.expander_y
    assert two.model.encoder is not two.model.target_encoder
    assert two.objective.expander_x is not two.objective.expander_y
    siamese, x = model_of({"target_encoder.outputs": 6}), torch.rand(4, 2, generator=generator())
    assert torch.equal(*one.model.encode(x, x)) and not torch.equal(*siamese.encode(x, x))


def test_source_is_that_of_the_world_and_for_an_auto_encoder_shows_the_target_twice():
    config = configure({"world.dimension": 3})
    world = build.world(config)
    pairs, plain = world.sample(8, generator(5)), build.source(config, world)(8, generator(5))
    twice = build.source(configure({"context": "y"}, base=config), world)(8, generator(5))
    assert torch.equal(plain.x, pairs.x) and torch.equal(plain.y, pairs.y)
    assert torch.equal(twice.x, pairs.y) and torch.equal(twice.y, pairs.y) and not torch.equal(twice.x, pairs.x)


def test_convolutional_encoder_reads_the_clips_of_a_world():
    shared = model_of({"world": "fork", "encoder": FILTERS, "target_encoder": "shared"})
    assert type(shared.encoder).__name__ == "Convolutional" and shared.encoder is shared.target_encoder
    assert (shared.encoder.inputs, shared.encoder.outputs) == ((4, 32, 32), 6)
    generative = {"world": {"name": "fork", "frames": 2}, "encoder": FILTERS, "target_encoder": "identity"}
    config = configure(JOINT, generative)
    model, pairs = build.parts(config, 0).model, build.world(config).sample(3, generator())
    found = model.infer(pairs.x, pairs.y).value
    predictions = model.predictions(pairs.x, model.latent.codes.unsqueeze(0))
    assert predictions.shape == (3, 3, 2 * 32 * 32)
    gaps = (predictions.unflatten(2, (2, 32, 32)) - pairs.y.unsqueeze(1)).square().sum((2, 3, 4))
    torch.testing.assert_close(found, gaps.amin(1))


def test_random_features_are_those_of_each_representation_and_never_trained():
    diff = {"expander": {"name": "random_features", "features": 7}}
    objective, again = (build.parts(configure(JOINT, diff), 0).objective for _ in range(2))
    assert (objective.expander_x.outputs, objective.expander_y.outputs) == (6 + 7, 5 + 7)
    assert not list(objective.parameters()) and len(objective.state_dict()) == 4
    assert torch.equal(objective.expander_x.weight, again.expander_x.weight)


@pytest.mark.parametrize("inference", ["minimize", NETWORK])
def test_objective_behind_frozen_encoders_is_that_of_pairs_given_what_they_make(inference):
    config = configure(JOINT, {"inference": inference, "loss": {"variance": 1.0, "covariance": 1.0}})
    of, behind = (build.parts(config, 0, encoded) for encoded in (False, True))
    pairs = of.sample(6, generator())
    s = of.model.encode(pairs.x, pairs.y)
    one, two = of.objective(of.model, pairs, 0.5), behind.objective(of.model, pairs._replace(x=s.s_x, y=s.s_y), 0.5)
    assert one.terms == two.terms and one.terms["covariance"] > 0


CONDITIONED = {"world": {"name": "plane", "modes": 3}, "condition_on": ["mode", "offset"]}


def test_predictor_is_conditioned_on_factors_as_its_action():
    config = configure(JOINT, CONDITIONED)
    world, model = build.world(config), build.parts(config, 0).model
    assert model.predictor.action == 1 + 2 and model_of().predictor.action == 0
    pairs, plain = build.source(config, world)(8, generator(5)), world.sample(8, generator(5))
    assert torch.equal(pairs.x, plain.x) and torch.equal(pairs.y, plain.y)
    assert pairs.a.dtype == torch.float and torch.equal(pairs.a[:, :1], plain.factors["mode"].float())
    assert torch.equal(pairs.a[:, 1:], plain.factors["offset"])
    assert torch.equal(pairs.a, build.actions(config, plain.factors))
    twice = build.source(configure({"context": "y"}, base=config), world)(8, generator(5))
    assert torch.equal(twice.x, plain.y) and torch.equal(twice.a, pairs.a)
    s = model.encode(pairs.x, pairs.y)
    one, two = (model.minimum(s.s_x, a, s.s_y).value for a in (pairs.a, pairs.a.roll(1, 0)))
    assert not torch.equal(one, two)


def test_nothing_to_be_conditioned_on_is_of_no_width():
    pairs = build.world(configure()).sample(8, generator())
    assert build.actions(configure(), pairs.factors).shape == (8, 0)


def test_factor_to_be_conditioned_on_that_does_not_exist_is_named():
    config = configure(JOINT, CONDITIONED, {"condition_on": ["mood"]})
    message = "^condition_on: expected one of mode, offset, x, found 'mood'; did you mean 'mode'"
    with pytest.raises(ValueError, match=message):
        build.parts(config, 0)
    with pytest.raises(ValueError, match=message):
        build.source(config, build.world(config))(4, generator())


@pytest.mark.parametrize("name", ["plane", "fork"])
def test_monitor_knows_all_that_the_world_can_tell(name, monkeypatch):
    monkeypatch.setattr(build, "Monitor", lambda *given: given)
    own = {"plane": {"condition_on": ["mode"]}, "fork": {"condition_on": ["branch"], "encoder": FILTERS}}[name]
    config = configure({"world": name, "train.steps": 7, "monitor": {"pairs": 300, "times": 3}}, own)
    of, before = build.parts(config, 0), torch.get_rng_state()
    model, objective, pairs, steps, times, targets, plausible = build.monitor(config, of)
    assert (model, objective, steps, times) == (of.model, of.objective, 7, 3)
    world = of.world
    known = [key for key, label in world.factor_labels.items() if label == "predictable"]
    assert torch.equal(targets, torch.cat([pairs.factors[key] for key in known], 1)) and len(pairs.x) == 300
    assert torch.equal(pairs.a, build.actions(config, pairs.factors)) and pairs.a.shape == (300, 1)
    again = build.monitor(config, of)
    assert torch.equal(pairs.x, again[2].x) and torch.equal(torch.get_rng_state(), before)
    if name == "plane":
        assert plausible is None
        return
    taken, ways = world.positions(pairs.factors)[:, world.frames :], world.futures(pairs.factors)
    near = [min(float((way - taken[(n + 1) % 300]).square().sum(1).mean()) for way in ways[n]) <= 1 for n in range(300)]
    assert plausible.tolist() == near and 0 < sum(near) < 150


@pytest.mark.parametrize(
    "diff",
    [
        {"latent": {"name": "low_dimensional", "size": 2}},
        {"latent": {"name": "discrete", "size": 3, "scale": 2.0}, "inference": NETWORK},
        {"expander": "random_features"},
    ],
)
def test_all_that_a_run_is_made_of_can_be_moved(diff):
    of = build.parts(configure(JOINT, diff, {"device": "meta"}), 0)
    modules = [module for part in of[1:3] for module in part.modules()]
    held = [value for module in modules for value in vars(module).values() if isinstance(value, torch.Tensor)]
    tensors = [tensor for part in of[1:3] for tensor in (*part.parameters(), *part.buffers())]
    assert not held and {tensor.device.type for tensor in tensors} == {"cpu"}  # a run moves them


NETWORKED = {"latent": {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 2}, "inference": NETWORK}


@pytest.mark.parametrize("options", [{"steps": 5}, {"network": False}, {"network": True, "starts": 3}], ids=str)
def test_measured_latent_has_its_own_options_and_the_weights_that_were_trained(options):
    own = {"inference": {**NETWORK, "refine": 2}}
    model = model_of(NETWORKED, own)
    measured = build.as_measured(configure(JOINT, NETWORKED, own, {"at_measurement": options}), model)
    found = [getattr(measured.latent, name) for name in ("steps", "network", "refine")]
    kept = [model.latent.network, 2] if options.get("network", True) else [None, 0]
    assert found == [options.get("steps", 2), *kept] and len(measured.latent.points) == options.get("starts", 4)
    assert all(getattr(measured, name) is getattr(model, name) for name in ("encoder", "target_encoder", "predictor"))
    assert (model.latent.steps, model.latent.refine, len(model.latent.points)) == (2, 2, 4)
    assert build.as_measured(configure(JOINT, NETWORKED), model) is model  # where nothing is said


def test_codebook_is_measured_as_it_was_trained():
    quantized = {
        "latent": {"name": "vector_quantized", "size": 4, "width": 3, "rate_weight": 0.5},
        "inference": NETWORK,
    }
    model = model_of(quantized)
    for buffer in model.latent.buffers():
        buffer += torch.rand(buffer.shape, generator=generator())
    config = configure(JOINT, quantized, {"at_measurement": {"network": False}})
    measured = build.as_measured(config, model).latent
    trained = {name: value for name, value in model.latent.state_dict().items() if not name.startswith("network.")}
    assert trained and all(torch.equal(value, measured.state_dict()[name]) for name, value in trained.items())
    x = torch.rand(5, 2, generator=generator(1))
    best = build.as_measured(config, model).infer(x, x).value
    assert (best <= model.infer(x, x).value).all() and torch.equal(measured.code_lengths, model.latent.code_lengths)


def test_measures_are_functions_of_a_subject_with_the_options_of_the_configuration():
    config = configure({"measure": ["collapse", {"name": "area", "grid": 8}]}, {"measure": {"area": {"epsilon": 0.5}}})
    found = build.measures(config)
    assert [one.func.__name__ for one in found] == ["collapse", "area"]
    assert [one.keywords for one in found] == [{}, {"grid": 8, "epsilon": 0.5}]
    assert len(build.measures(configure({"measure": sorted(MEASURES)}))) == len(MEASURES)  # all can be found


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ({"measure": ["aera"]}, "^measure: expected one of .*found 'aera'; did you mean 'area'"),
        ({"measure.area.gird": 8}, "^measure.area: option of 'area': expected .*found 'gird'; did you mean 'grid'"),
        ({"measure.collapse.grid": 8}, "^measure.collapse: option of 'collapse': expected one of none, found 'grid'"),
        ({"measure.area.subject": 8}, "^measure.area: option of 'area': expected .*found 'subject'"),
        ({"measure.area.grid": 8.5}, "^measure.area.grid: expected int, found 8.5"),
        ({"measure.area.epsilon": 0.0}, "^measure.area.epsilon: expected a number above 0, found 0.0"),
        (
            {"measure": [{"name": "volume", "chains": -1}]},
            "^measure.volume.chains: expected a number above 0",
        ),
        ({"at_measurement.sise": 3}, "^latent: option of 'low_dimensional'.*did you mean 'size'"),
        ({"at_measurement.steps": "5"}, "^latent.steps: expected int, found '5'"),
        ({"at_measurement.network": "no"}, "^at_measurement.network: expected bool, found 'no'"),
    ],
)
def test_measure_or_measuring_option_that_does_not_exist_or_cannot_be_is_named(diff, message):
    with pytest.raises(ValueError, match=message):
        build.measures(configure(JOINT, NETWORKED, {"measure": ["area", "collapse"]}, diff))


def devices(text: str) -> set[str]:
    """Return the names of accelerators that a module's code speaks of, docstrings and comments apart."""
    nodes = list(ast.walk(ast.parse(text)))
    words = {node.value.split(":")[0] for node in nodes if isinstance(node, ast.Constant) and type(node.value) is str}
    return (words | {node.attr for node in nodes if isinstance(node, ast.Attribute)}) & {"cuda", "mps", "xpu", "hip"}


def test_nothing_names_an_accelerator_but_the_configuration_and_where_its_generator_is_kept():
    found = {file.relative_to(ROOT).as_posix(): devices(file.read_text()) for file in (ROOT / "jepa").rglob("*.py")}
    assert {name: names for name, names in found.items() if names} == {"jepa/streams.py": {"cuda"}}
