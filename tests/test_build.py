"""From a configuration to its parts: by name, with weights from the seed alone, on the configured device."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch
from conftest import ROOT, generator
from scipy import stats

from jepa.runs import build
from jepa.runs.config import configure
from jepa.train import fit

JOINT = {
    "encoder": {"name": "mlp", "outputs": 6, "hidden": [8]},
    "target_encoder": {"name": "mlp", "outputs": 5, "hidden": [8]},
    "latent": {"name": "discrete", "size": 3},
    "expander": {"name": "expander", "outputs": 7, "hidden": [9]},
}
FILTERS = {"name": "convolutional", "outputs": 6, "channels": [2], "patch": 8, "hidden": 4}
NETWORK = {"name": "amortized", "features": 3, "hidden": 8}


def weights(seed: int, **diff) -> torch.Tensor:
    """Return all weights of a model side by side."""
    return torch.cat([p.detach().flatten() for p in build.model(configure(JOINT, diff), seed).parameters()])


@pytest.mark.parametrize(
    ("part", "known"),
    [
        ("world", build.WORLDS),
        ("encoder", build.ENCODERS),
        ("target_encoder", [*build.ENCODERS, "shared"]),
        ("predictor", build.PREDICTORS),
        ("latent", build.LATENTS),
        ("inference", build.INFERENCES),
        ("expander", build.EXPANDERS),
    ],
)
def test_kind_that_does_not_exist_is_named_with_those_that_do(part, known):
    nearest = sorted(known)[0]
    with pytest.raises(ValueError, match=f"{part}: expected one of {', '.join(sorted(known))}, found '{nearest}z'"):
        build.model(configure(JOINT, {part: f"{nearest}z"}), seed=0)


def test_only_the_target_encoder_can_be_shared():
    with pytest.raises(
        ValueError, match="encoder: expected one of convolutional, coupling, identity, mlp, found 'shared'"
    ):
        build.model(configure(JOINT, {"encoder": "shared"}), seed=0)


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
        (
            {"encoder": {"name": "convolutional", "outputs": 6}},
            "inputs: expected pixels, C, H, W, found a width of 2",
        ),
        ({"world": "fork"}, r"inputs: expected a width, found pixels \[4, 32, 32\]"),
        ({"world": "fork", "encoder": {**FILTERS, "patch": 5}}, "patch: expected an even number that divides 32"),
        ({"encoder": {**FILTERS, "chanels": [2]}}, "encoder: option of 'convolutional'.*did you mean 'channels'"),
        ({"expander": {"name": "random_features", "featurs": 2}}, "expander: option of .*did you mean 'features'"),
        ({"expander": {"name": "random_features", "features": 0}}, "inputs, features: expected widths of at least 1"),
        ({"inference.steps": 3}, "inference: option of 'minimize': expected one of none, found 'steps'"),
    ],
)
def test_option_that_does_not_exist_or_fit_is_an_error(diff, message):
    with pytest.raises(ValueError, match=message):
        build.model(configure(JOINT, diff), seed=0)


def test_widths_that_do_not_meet_are_an_error():
    with pytest.raises(ValueError, match="inputs 6, outputs 5, action 0, latent 3"):
        build.model(configure(JOINT, {"predictor": "identity"}), seed=0)


def test_seed_alone_decides_the_weights():
    first = weights(3)
    torch.manual_seed(99)
    assert torch.equal(weights(3), first)
    assert not torch.equal(weights(4), first)


def test_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    build.model(configure(JOINT), seed=3)
    with pytest.raises(ValueError):
        build.model(configure(JOINT, {"predictor": "identity"}), seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_shared_encoder_is_one_module_with_one_expander():
    shared = build.model(configure(JOINT, {"target_encoder": "shared"}), seed=0)
    assert shared.encoder is shared.target_encoder and shared.expander_x is shared.expander_y
    siamese = build.model(configure(JOINT, {"target_encoder.outputs": 6}), seed=0)
    x = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*shared.encode(x, x))
    assert not torch.equal(*siamese.encode(x, x))
    assert not torch.equal(siamese.expander_x.layers[0].weight, siamese.expander_y.layers[0].weight)


def test_source_is_that_of_the_world_and_for_an_auto_encoder_shows_the_target_twice():
    config = configure({"world.dimension": 3})
    world = build.world(config)
    pairs, plain = world.sample(8, generator(5)), build.source(config, world)(8, generator(5))
    twice = build.source(configure({"context": "y"}, base=config), world)(8, generator(5))
    assert torch.equal(plain.x, pairs.x) and torch.equal(plain.y, pairs.y)
    assert torch.equal(twice.x, pairs.y) and torch.equal(twice.y, pairs.y) and not torch.equal(twice.x, pairs.x)


def test_convolutional_encoder_reads_the_clips_of_a_world():
    shared = build.model(configure(JOINT, {"world": "fork", "encoder": FILTERS, "target_encoder": "shared"}), seed=0)
    assert type(shared.encoder).__name__ == "Convolutional" and shared.encoder is shared.target_encoder
    assert (shared.encoder.inputs, shared.encoder.outputs) == ((4, 32, 32), 6)
    generative = {"world": {"name": "fork", "frames": 2}, "encoder": FILTERS, "target_encoder": "identity"}
    config = configure(JOINT, generative)
    model, pairs = build.model(config, seed=0), build.world(config).sample(3, torch.Generator().manual_seed(0))
    found = model.infer(pairs.x, pairs.y).value
    predictions = model.predictions(pairs.x, model.latent.codes.unsqueeze(0))
    assert predictions.shape == (3, 3, 2 * 32 * 32)
    gaps = (predictions.unflatten(2, (2, 32, 32)) - pairs.y.unsqueeze(1)).square().sum((2, 3, 4))
    torch.testing.assert_close(found, gaps.amin(1))


def test_random_features_are_those_of_each_representation_and_never_trained():
    diff = {"expander": {"name": "random_features", "features": 7}}
    model = build.model(configure(JOINT, diff), seed=0)
    assert (model.expander_x.outputs, model.expander_y.outputs) == (6 + 7, 5 + 7)
    assert not any(name.startswith("expander") for name, _ in model.named_parameters())
    assert sum(name.startswith("expander") for name in model.state_dict()) == 4
    again = build.model(configure(JOINT, diff), seed=0)
    assert torch.equal(model.expander_x.weight, again.expander_x.weight)
    shared = build.model(configure(JOINT, diff, {"target_encoder": "shared"}), seed=0)
    assert shared.expander_x is shared.expander_y


@pytest.mark.parametrize("inference", ["minimize", NETWORK])
def test_head_is_the_model_behind_its_encoders(inference):
    config = configure(JOINT, {"inference": inference})
    model, pairs = build.model(config, seed=0).eval(), build.world(config).sample(6, generator())
    head, s = build.head(model), model.encode(pairs.x, pairs.y)
    assert torch.equal(head.infer(*s).value, model.infer(pairs.x, pairs.y).value)
    assert torch.equal(head.infer(*s).argmin, model.infer(pairs.x, pairs.y).argmin)
    rest = {id(p) for name, p in model.named_parameters() if not name.startswith("encoder")}
    assert {id(p) for p in head.parameters()} == rest
    assert torch.equal(head.expander_x(s.s_x), model.expander_x(s.s_x))
    assert torch.equal(head.expander_y(s.s_y), model.expander_y(s.s_y))


@pytest.mark.parametrize("inference", ["minimize", NETWORK])
def test_training_the_head_trains_the_model_but_for_its_encoders(inference):
    config = configure(JOINT, {"inference": inference, "train": {"steps": 4, "batch": 8}, "loss.variance": 1.0})
    model = build.model(config, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pairs = build.world(config).sample(32, generator())
    with torch.no_grad():
        pool = build.pool(*model.encode(pairs.x, pairs.y))
    fit(build.head(model), pool, (config.train, config.loss), generator(1))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("encoder"), name


@pytest.mark.parametrize("count", [1, 40, 600])
def test_pool_is_given_pairs_drawn_whole(count):
    x, y, a = (torch.rand(count, width, generator=generator(width)) for width in (3, 2, 1))
    found = build.pool(x, y, a)(3000, generator(1))
    rows = (found.a == a[:, 0]).long()
    assert (rows.sum(1) == 1).all() and found.factors == {}  # each is one of the pairs …
    for name, everything in zip("xay", (x, a, y), strict=True):  # … with all that belongs to it
        assert torch.equal(getattr(found, name), everything[rows.argmax(1)])
    assert stats.chisquare(rows.sum(0)).pvalue > 0.001 if count > 1 else rows.sum() == 3000  # with replacement
    assert build.pool(x, y)(5, generator()).a.shape == (5, 0)


def test_draws_from_a_pool_are_decided_by_their_generator():
    draw, before, drawn = build.pool(*torch.rand(2, 20, 3, generator=generator())), torch.get_rng_state(), generator(3)
    first, second = draw(8, drawn), draw(8, drawn)
    assert torch.equal(first.x, draw(8, generator(3)).x) and not torch.equal(first.x, draw(8, generator(4)).x)
    assert not torch.equal(first.x, second.x) and torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [1, 256, 257, 700])
def test_portions_are_as_many_pairs_as_asked_for(count):
    sizes = []
    sample = lambda size, _: sizes.append(size) or size  # noqa: E731
    assert list(build.portions(sample, count, generator())) == sizes
    assert sum(sizes) == count and max(sizes) <= 256 and len(sizes) == math.ceil(count / 256)


TOLD = {"world": {"name": "plane", "modes": 3}, "told": ["mode", "offset"]}


def test_predictor_is_told_factors_as_its_action():
    config = configure(JOINT, TOLD)
    world, model = build.world(config), build.model(config, seed=0)
    assert model.predictor.action == 1 + 2 and build.model(configure(JOINT), seed=0).predictor.action == 0
    pairs, plain = build.source(config, world)(8, generator(5)), world.sample(8, generator(5))
    assert torch.equal(pairs.x, plain.x) and torch.equal(pairs.y, plain.y)
    assert pairs.a.dtype == torch.float and torch.equal(pairs.a[:, :1], plain.factors["mode"].float())
    assert torch.equal(pairs.a[:, 1:], plain.factors["offset"]) and torch.equal(
        pairs.a, build.told(config, plain.factors)
    )
    twice = build.source(configure({"context": "y"}, base=config), world)(8, generator(5))
    assert torch.equal(twice.x, plain.y) and torch.equal(twice.a, pairs.a)
    s = model.encode(pairs.x, pairs.y)
    assert not torch.equal(model.minimum(s, pairs.a).value, model.minimum(s, pairs.a.roll(1, 0)).value)


def test_nothing_told_is_of_no_width():
    pairs = build.world(configure()).sample(8, generator())
    assert build.told(configure(), pairs.factors).shape == (8, 0)


def test_factor_that_cannot_be_told_is_named():
    config = configure(JOINT, TOLD, {"told": ["mood"]})
    with pytest.raises(ValueError, match="^told: expected one of mode, offset, x, found 'mood'; did you mean 'mode'"):
        build.model(config, seed=0)
    with pytest.raises(ValueError, match="^told: expected one of"):
        build.source(config, build.world(config))(4, generator())


@pytest.mark.parametrize("name", ["plane", "fork"])
def test_watch_is_told_all_that_the_world_can_tell(name, monkeypatch):
    monkeypatch.setattr(build, "Watch", lambda *given: given)
    config = configure({"world": name, "told": ["mode" if name == "plane" else "branch"]}, {"train.watched": 300})
    world, before = build.world(config), torch.get_rng_state()
    _, pairs, targets, plausible = build.watch(config, world, None)
    known = [key for key, label in world.factor_labels.items() if label == "predictable"]
    assert torch.equal(targets, torch.cat([pairs.factors[key] for key in known], 1)) and len(pairs.x) == 300
    assert torch.equal(pairs.a, build.told(config, pairs.factors)) and pairs.a.shape == (300, 1)
    again = build.watch(config, world, None)
    assert torch.equal(pairs.x, again[1].x) and torch.equal(torch.get_rng_state(), before)
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
def test_model_is_wholly_on_the_configured_device(diff):
    model = build.model(configure(JOINT, diff, {"device": "meta"}), seed=0)
    assert {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]} == {"meta"}


def devices(text: str) -> set[str]:
    """Return the names of accelerators that a module's code speaks of, docstrings and comments apart."""
    tree, names = ast.parse(text), {"cuda", "mps", "xpu", "hip"}
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    documents = {
        id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node)
    }
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            found.add(node.value.split(":")[0])
    return found & names


@pytest.mark.parametrize("file", sorted((ROOT / "jepa").rglob("*.py")), ids=lambda file: file.stem)
def test_nothing_names_an_accelerator_but_the_configuration(file: Path):
    assert devices(file.read_text()) == set()


def test_an_accelerator_named_in_code_is_probe():
    assert devices('"""On cuda."""\nx.cuda()') == devices("y.to('cuda:0')") == {"cuda"}
    assert devices('def f():\n    """cuda"""\n    # cuda\n    return torch.mps.seed()') == {"mps"}
