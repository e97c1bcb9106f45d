"""The architectures of the table as configurations, inference against brute force, and the envelope theorem."""

import copy
import math

import pytest
import torch
from conftest import normal
from torch import nn

from jepa.encoders import MLP as Encoder
from jepa.encoders import Identity
from jepa.energy import distance, free_energy
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete
from jepa.model import JEPA, Representations
from jepa.predictors import MLP as Predictor
from jepa.runs import build
from jepa.runs.config import configure

MLP = {"name": "mlp", "outputs": 3, "hidden": [8]}
NARROW = {"name": "mlp", "outputs": 1, "hidden": [8]}
CODES = {"name": "discrete", "size": 4}
CURVE = {"name": "low_dimensional", "size": 1, "alpha": 0.2, "restarts": 3, "steps": 200}


def made(seed=0, **diff):
    return build.model(configure({"predictor": {"name": "mlp", "hidden": [8]}, **diff}), seed).double()


def with_action(latent):
    """A JEPA whose predictor is told an action of two numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = Encoder(2, 3, hidden=[8]), Encoder(2, 4, hidden=[8]), Predictor(3, 4, 2, latent.width, hidden=[8])
    return JEPA(*parts, latent).double()


class Even(nn.Module):
    """The encoder for which y and −y are the same."""

    def __init__(self):
        super().__init__()
        self.inner = Encoder(2, 3, hidden=[8])

    def forward(self, y):
        return self.inner(y.square())


class Copy(nn.Module):
    """The predictor that ignores s and returns z."""

    def forward(self, s, a, z):
        return z.expand(len(s), -1, -1)


@pytest.mark.parametrize("latent", [CODES, CURVE])
def test_energy_is_the_distance_to_the_prediction_plus_the_regularizer(latent):
    model, x, y = made(encoder=MLP, target_encoder=MLP, latent=latent), normal(5, 2), normal(5, 2, seed=1)
    z = model.latent.sample((5, 6), torch.Generator().manual_seed(0)).double()
    expected = torch.empty(5, 6, dtype=torch.float64)
    for b in range(5):
        for k in range(6):
            row, none = model.encoder(x[b : b + 1]), x.new_zeros(1, 0)
            prediction = model.predictor(row, none, z[b : b + 1, k : k + 1])[0, 0]
            expected[b, k] = (model.target_encoder(y[b]) - prediction).square().sum() + model.latent.regularize(z[b, k])
    torch.testing.assert_close(model.energy(x, y, z), expected)
    torch.testing.assert_close(distance(model.predictions(x, z), model.target_encoder(y).unsqueeze(1)),
                               expected - model.latent.regularize(z))  # fmt: skip


def test_generative_latent_variable_model_measures_its_energy_on_y_itself():
    model, x, y = made(encoder=MLP, latent=CODES), normal(5, 2), normal(5, 2, seed=1)
    outputs = model.predictions(x, model.latent.codes.unsqueeze(0))
    expected = torch.stack([(y - outputs[:, k]).square().sum(1) for k in range(4)]).amin(0)
    torch.testing.assert_close(model.infer(x, y).value, expected)


def test_auto_encoder_measures_what_it_fails_to_rebuild():
    config = configure({"context": "y", "encoder": NARROW, "predictor": {"hidden": [8]}})
    model, none = build.model(config, 0), torch.zeros(5, 1, 0)
    pairs = build.source(config, build.world(config))(5, torch.Generator().manual_seed(0))
    assert torch.equal(pairs.x, pairs.y)
    code = model.encoder(pairs.y)
    assert code.shape == (5, 1)
    rebuilt = model.predictor(code, code[:, :0], none)[:, 0]
    torch.testing.assert_close(model.infer(pairs.x, pairs.y).value, (pairs.y - rebuilt).square().sum(1))


def test_joint_embedding_compares_two_representations():
    model, x, y = made(encoder=MLP, target_encoder=MLP, predictor="identity"), normal(5, 2), normal(5, 2, seed=1)
    torch.testing.assert_close(model.infer(x, y).value, (model.encoder(x) - model.target_encoder(y)).square().sum(1))


def test_shared_encoder_is_one_module_with_one_expander():
    head = {"name": "expander", "outputs": 4, "hidden": []}
    shared = made(encoder=MLP, target_encoder="shared", predictor="identity", expander=head)
    apart = made(encoder=MLP, target_encoder=MLP, predictor="identity", expander=head)
    x, y = normal(5, 2), normal(5, 2, seed=1)
    assert 2 * sum(p.numel() for p in shared.parameters()) == sum(p.numel() for p in apart.parameters())
    assert shared.infer(x, x).value.tolist() == [0.0] * 5
    assert apart.infer(x, x).value.min() > 0
    torch.testing.assert_close(shared.infer(x, y).value, shared.infer(y, x).value)
    assert torch.equal(shared.expander_x(x.repeat(1, 2)[:, :3]), shared.expander_y(x.repeat(1, 2)[:, :3]))


def test_seed_makes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    models = [made(seed, encoder=MLP, target_encoder=MLP, latent=CODES) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    values = [model.infer(normal(5, 2), normal(5, 2, seed=1)).value for model in models]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


@pytest.mark.parametrize("latent", [Discrete(5), LowDimensional(1, alpha=0.2, restarts=8, steps=100)])
def test_inference_is_the_minimum_over_energies(latent):
    model, x, y, a = with_action(latent), normal(6, 2), normal(6, 2, seed=1), normal(6, 2, seed=2)
    grid = torch.linspace(-5, 5, 20_001, dtype=torch.float64).view(1, -1, 1)
    energies = model.energy(x, y, grid if latent.codes is None else latent.codes.unsqueeze(0), a)
    found = model.infer(x, y, a)
    torch.testing.assert_close(found.value, energies.amin(1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(model.energy(x, y, found.argmin.unsqueeze(1), a).squeeze(1), found.value)
    assert not any(tensor.requires_grad for tensor in found)


def test_action_is_heard():
    model, x, y, a = with_action(Discrete(3)), normal(6, 2), normal(6, 2, seed=1), normal(6, 2, seed=2)
    s, codes = model.encode(x, y), model.latent.codes.unsqueeze(0)
    assert (model.infer(x, y, a).value - model.infer(x, y, a + 1).value).abs().min() > 1e-6
    assert (model.free_energy(s, a) - model.free_energy(s, a + 1)).abs().min() > 1e-6
    assert (model.predictions(x, codes, a) - model.predictions(x, codes, a + 1)).abs().amax((1, 2)).min() > 1e-6
    with pytest.raises(ValueError, match="^a: expected 2 features"):
        model.infer(x, y)


@pytest.mark.parametrize("latent", ["none", CODES, CURVE])
def test_gradient_of_the_free_energy_is_that_of_the_minimum(latent):
    # The envelope theorem: ∂F/∂w = ∂E/∂w at ž; against central differences of min over z of E, inferred anew.
    model, x, y = made(encoder=MLP, target_encoder=MLP, latent=latent), normal(6, 2), normal(6, 2, seed=1)
    slopes = torch.autograd.grad(model.free_energy(model.encode(x, y)).sum(), list(model.parameters()))
    directions = [normal(*parameter.shape, seed=i) for i, parameter in enumerate(model.parameters())]

    def minimum(step):
        moved = copy.deepcopy(model)
        for parameter, direction in zip(moved.parameters(), directions, strict=True):
            parameter.data += step * direction
        return moved.infer(x, y).value.sum().item()

    expected = (minimum(1e-5) - minimum(-1e-5)) / 2e-5
    found = sum((slope * direction).sum().item() for slope, direction in zip(slopes, directions, strict=True))
    assert abs(expected) > 0.1
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 3.0, math.inf])
@pytest.mark.parametrize("latent", ["none", CODES])
def test_free_energy_sums_over_all_codes(latent, beta):
    model, x, y = made(encoder=MLP, target_encoder=MLP, latent=latent), normal(6, 2), normal(6, 2, seed=1)
    energies = model.energy(x, y, model.latent.codes.unsqueeze(0))
    torch.testing.assert_close(model.free_energy(model.encode(x, y), beta=beta), free_energy(energies, beta))
    (found,) = torch.autograd.grad(model.free_energy(model.encode(x, y), beta=beta).sum(), model.predictor.first.weight)
    (expected,) = torch.autograd.grad(free_energy(energies, beta).sum(), model.predictor.first.weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_latent_as_wide_as_s_y_is_copied_and_the_energy_is_flat(alpha):
    # LeCun 2022, section 4.5: nothing but R(z) holds the energy up; then min ‖s − z‖² + α ‖z‖² = α / (1 + α) ‖s‖².
    model = JEPA(Identity(2), Identity(3), Copy(), LowDimensional(3, alpha, steps=60)).double()
    x, y = normal(50, 2), 10 * normal(50, 3, seed=1)
    for partner in (y, y.flip(0), -3 * y):
        flat = alpha / (1 + alpha) * partner.square().sum(1)
        torch.testing.assert_close(model.infer(x, partner).value, flat, rtol=1e-6, atol=1e-9)


def test_targets_with_one_representation_have_exactly_one_energy():
    model, x, y = made(encoder=MLP, target_encoder=MLP, latent=CODES), normal(6, 2), normal(6, 2, seed=1)
    first = next(model.target_encoder.parameters())
    first.data[:, 1] = 0  # the second coordinate of y does not reach s_y
    detail = y.clone()
    detail[:, 1] += 5
    assert torch.equal(model.infer(x, y).value, model.infer(x, detail).value)
    detail[:, 0] += 0.1
    assert (model.infer(x, y).value != model.infer(x, detail).value).all()


@pytest.mark.parametrize("inference", ["minimize", {"name": "amortized", "hidden": 8}])
@pytest.mark.parametrize("latent", [CODES, CURVE])
def test_energies_are_equal_to_the_bit_where_representations_are(latent, inference):
    model = made(encoder=MLP, target_encoder=MLP, latent=latent, inference=inference)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.target_encoder = Even().double()
    x, y = normal(6, 2), normal(6, 2, seed=1)
    other = y * torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]).repeat(2, 1)
    z = model.latent.sample((6, 5), torch.Generator().manual_seed(0)).double()
    assert (y != other).any(1).all() and torch.equal(model.target_encoder(y), model.target_encoder(other))
    assert torch.equal(model.energy(x, y, z), model.energy(x, other, z))
    for found, expected in zip(model.infer(x, y), model.infer(x, other), strict=True):
        assert torch.equal(found, expected)
    free = [model.free_energy(model.encode(x, target)) for target in (y, other, y + 0.1)]
    assert torch.equal(free[0], free[1]) and (free[0] != free[2]).all()


@pytest.mark.parametrize("latent", ["none", CODES, CURVE])
def test_one_context_is_broadcast_against_many_targets(latent):
    model, x, y = made(encoder=MLP, target_encoder=MLP, latent=latent), normal(1, 2), normal(7, 2, seed=1)
    s, apart = Representations(model.encoder(x), model.target_encoder(y)), model.infer(x.expand(7, -1), y)
    assert apart.argmin.shape == (7, model.latent.width)
    for found, expected in zip(model.minimum(s), apart, strict=True):
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad
    torch.testing.assert_close(model.free_energy(s), apart.value)


def test_bad_input_is_named():
    model = made(latent=CURVE)
    with pytest.raises(ValueError, match="^y: expected a batch of 3 as for x, found 2"):
        model.infer(normal(3, 2), normal(2, 2))
    with pytest.raises(ValueError, match="^beta: expected infinity, .* found 2"):
        model.free_energy(model.encode(normal(3, 2), normal(3, 2)), beta=2.0)
    with pytest.raises(ValueError, match="^cost: expected numbers, found nan"):
        model.infer(normal(3, 2), torch.full((3, 2), math.nan).double())
    with pytest.raises(ValueError, match="^predictor: an identity expects"):
        made(predictor="identity", latent=CURVE)
    with pytest.raises(ValueError, match="^x: expected 2 features"):
        made(encoder=MLP).infer(normal(3, 3), normal(3, 2))
