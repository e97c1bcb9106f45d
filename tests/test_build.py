"""From a configuration to its parts: by name, with weights from the seed alone, on the configured device."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from jepa import build
from jepa.config import configure

JOINT = {
    "encoder_x": {"name": "mlp", "outputs": 6, "hidden": [8]},
    "encoder_y": {"name": "mlp", "outputs": 5, "hidden": [8]},
    "latent": {"name": "discrete", "size": 3},
    "expander": {"name": "expander", "outputs": 7, "hidden": [9]},
}


def weights(seed: int, **diff) -> torch.Tensor:
    """Return all weights of a model side by side."""
    return torch.cat([p.detach().flatten() for p in build.model(configure(JOINT, diff), seed).parameters()])


@pytest.mark.parametrize(
    ("part", "known"),
    [
        ("world", build.WORLDS),
        ("encoder_x", build.ENCODERS),
        ("encoder_y", [*build.ENCODERS, "shared"]),
        ("predictor", build.PREDICTORS),
        ("latent", build.LATENTS),
        ("expander", build.EXPANDERS),
    ],
)
def test_kind_that_does_not_exist_is_named_with_those_that_do(part, known):
    nearest = sorted(known)[0]
    with pytest.raises(ValueError, match=f"{part}: expected one of {', '.join(sorted(known))}, found '{nearest}z'"):
        build.model(configure(JOINT, {part: f"{nearest}z"}), seed=0)


def test_only_the_target_encoder_can_be_shared():
    with pytest.raises(ValueError, match="encoder_x: expected one of identity, mlp, found 'shared'"):
        build.model(configure(JOINT, {"encoder_x": "shared"}), seed=0)


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ({"world": {"name": "plane", "mods": 3}}, "world: option of 'plane'.*found 'mods'; did you mean 'modes'"),
        ({"encoder_x.outptus": 3}, "encoder_x: option of 'mlp'.*did you mean 'outputs'"),
        ({"encoder_y": {"name": "identity", "width": 3}}, "encoder_y: option of 'identity'.*found 'width'"),
        ({"encoder_y": {"name": "shared", "hidden": [3]}}, "encoder_y: option of 'shared'.*found 'hidden'"),
        ({"encoder_x.inputs": 2}, "encoder_x: option of 'mlp'.*found 'inputs'"),  # the world decides
        ({"predictor.latent": 3}, "predictor: option of 'mlp'.*found 'latent'"),
        ({"latent.sise": 3}, "latent: option of 'discrete'.*did you mean 'size'"),
        ({"expander.hiden": [3]}, "expander: option of 'expander'.*did you mean 'hidden'"),
        ({"latent": "discrete", "encoder_x.hidden": [1e3]}, "encoder_x: 'mlp' cannot be built"),
        ({"latent": {"name": "low_dimensional"}}, "latent: 'low_dimensional' cannot be built from {}.*size"),
        ({"latent": {"name": "low_dimensional", "size": 2, "rate": "1e-2"}}, "latent.rate: expected float"),
        ({"predictor.hidden": 64}, "predictor.hidden: expected tuple, found 64"),
        ({"world.dimension": 2.5}, "world.dimension: expected int, found 2.5"),
        ({"encoder_y.outputs": 0}, "widths: expected at least 1"),
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
    shared = build.model(configure(JOINT, {"encoder_y": "shared"}), seed=0)
    assert shared.encoder_x is shared.encoder_y and shared.expander_x is shared.expander_y
    siamese = build.model(configure(JOINT, {"encoder_y.outputs": 6}), seed=0)
    x = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(*shared.encode(x, x))
    assert not torch.equal(*siamese.encode(x, x))
    assert not torch.equal(siamese.expander_x.layers[0].weight, siamese.expander_y.layers[0].weight)


def test_source_is_that_of_the_world_and_for_an_auto_encoder_shows_the_target_twice():
    config = configure({"world.dimension": 3})
    world, generator = build.world(config), torch.Generator
    pairs = world.sample(8, generator().manual_seed(5))
    plain = build.source(config, world)(8, generator().manual_seed(5))
    twice = build.source(configure({"context": "y"}, base=config), world)(8, generator().manual_seed(5))
    assert torch.equal(plain.x, pairs.x) and torch.equal(plain.y, pairs.y)
    assert torch.equal(twice.x, pairs.y) and torch.equal(twice.y, pairs.y) and not torch.equal(twice.x, pairs.x)


@pytest.mark.parametrize("latent", [{"name": "discrete", "size": 3}, {"name": "low_dimensional", "size": 2}])
def test_model_is_wholly_on_the_configured_device(latent):
    model = build.model(configure(JOINT, {"latent": latent, "device": "meta"}), seed=0)
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


def test_an_accelerator_named_in_code_is_seen():
    assert devices('"""On cuda."""\nx.cuda()') == devices("y.to('cuda:0')") == {"cuda"}
    assert devices('def f():\n    """cuda"""\n    # cuda\n    return torch.mps.seed()') == {"mps"}
