"""The network that infers z: its formula, the energy at its answer, and the gradient that teaches it."""

import pytest
import torch
from conftest import generator, normal
from torch import nn

from jepa.encoders import MLP as Perceptron
from jepa.encoders import Convolutional, Identity
from jepa.latents.amortized import Amortized
from jepa.latents.continuous import LowDimensional
from jepa.model import JEPA
from jepa.predictors import MLP as Predictor
from jepa.runs import build
from jepa.runs.config import configure

pytestmark = pytest.mark.usefixtures("seeded")
MLP = {"name": "mlp", "outputs": 3, "hidden": [8]}
NETWORK = {"name": "amortized", "features": 5, "hidden": 8}
CURVE = {"name": "low_dimensional", "size": 2, "alpha": 0.3, "steps": 20}
CODES = {"name": "discrete", "size": 4}
CLIPS = {"world": {"name": "fork", "frames": 2}, "latent": CURVE, "predictor": {"hidden": [8]}}
FILTERS = {"name": "convolutional", "outputs": 6, "channels": [2], "patch": 8, "hidden": 4}
CHANNELS = {"channels": [2], "patch": 8}


def scattered(model):
    """Return the model in double precision with every weight drawn anew, biases too."""
    for parameter in model.double().parameters():
        nn.init.normal_(parameter)
    return model


def made(**diff):
    """Return a JEPA on the plane that infers z by a network."""
    defaults = {"predictor": {"hidden": [8]}, "latent": CURVE, "inference": NETWORK}
    return build.parts(configure(defaults, {"encoder": MLP, "target_encoder": MLP}, diff), 0).model.double()


def test_network_is_linear_in_the_context_and_in_what_it_makes_of_the_target():
    model, s_x, s_y = scattered(Amortized(3, 4, 2, features=5, hidden=6)), normal(7, 3), normal(7, 4, seed=1)
    weight_1, bias_1, weight_2, bias_2, last, shift = (p.detach() for p in model.parameters())
    assert (weight_1.shape, weight_2.shape, last.shape) == ((6, 4), (5, 6), (2, 8))
    hidden = s_y @ weight_1.T + bias_1
    features = (hidden * hidden.sigmoid()) @ weight_2.T + bias_2
    torch.testing.assert_close(model(s_x, s_y).detach(), s_x @ last[:, :3].T + features @ last[:, 3:].T + shift)


def test_network_sees_pixels_through_convolutions():
    model = scattered(Amortized(3, (2, 8, 12), 2, features=5, hidden=6, channels=[3, 4], patch=2))
    first, bias_1, second, bias_2, wide, bias_3, narrow, bias_4, last, shift = (p.detach() for p in model.parameters())
    s_x, pixels, silu = normal(7, 3), normal(7, 2, 8, 12, seed=1), nn.functional.silu
    picture = silu(nn.functional.conv2d(pixels, first, bias_1, stride=2, padding=1))
    picture = silu(nn.functional.conv2d(picture, second, bias_2, stride=2, padding=1))
    assert picture.shape == (7, 4, 2, 3) and len(wide) == 6 and len(narrow) == 5
    features = silu(picture.flatten(1) @ wide.T + bias_3) @ narrow.T + bias_4
    expected = torch.cat([s_x, features], 1) @ last.T + shift
    torch.testing.assert_close(model(s_x, pixels).detach(), expected)
    assert torch.equal(model(s_x, pixels.flatten(1)), model(s_x, pixels))  # as a generative model has them


@pytest.mark.parametrize("target", [4, (1, 8, 8)])
def test_single_context_serves_all_targets(target):
    model = scattered(Amortized(3, target, 2, features=5, hidden=6))
    s_x, s_y = normal(1, 3), normal(7, 4 if target == 4 else 64, seed=1)
    assert torch.equal(model(s_x, s_y), model(s_x.repeat(7, 1), s_y))
    torch.testing.assert_close(model(s_x, s_y), torch.cat([model(s_x, row[None]) for row in s_y]))


@pytest.mark.parametrize("build, message", [
    (lambda: Amortized(3, 4, 0), "inference: expected a latent with a width of at least 1, found 0$"),
    (lambda: Amortized(3, 4, 2, features=0), "widths: expected at least 1"),
    (lambda: Amortized(3, 4, 2, hidden=0), "widths: expected at least 1"),
    (lambda: Amortized(3, (1, 8, 8), 2, patch=3), "patch: expected an even number that divides 8 and 8, found 3"),
    (lambda: Amortized(3, (1, 8, 8), 2, channels=[]), "channels, hidden, outputs: expected"),
    (lambda: Amortized(3, 4, 2)(torch.zeros(7, 3), torch.zeros(7, 5)), "x: expected 4 features"),
    (lambda: Amortized(3, (1, 8, 8), 2)(torch.zeros(7, 3), torch.zeros(7, 60)), r"x: expected \[B, 1, 8, 8\]"),
    *[(lambda s_x=s_x: Amortized(3, 4, 2)(s_x, torch.zeros(2, 4)), r"s_x: expected \[2, 3\] or a single context, found")
      for s_x in (torch.zeros(3, 3), torch.zeros(2, 5))],
])  # fmt: skip
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build()


def test_network_hears_the_action_through_the_energy_alone():
    latent = LowDimensional(2).amortize(Amortized(2, 2, 2))
    model = JEPA(Identity(2), Identity(2), Predictor(2, 2, 1, 2, hidden=[8]), latent).double()
    x, y, a = normal(6, 2), normal(6, 2, seed=1), normal(6, 1, seed=2)
    assert torch.equal(model.infer(x, y, a).argmin, model.infer(x, y, a + 1).argmin)
    assert (model.infer(x, y, a).value - model.infer(x, y, a + 1).value).abs().min() > 1e-9
    torch.testing.assert_close(model(x, y, a), model.infer(x, y, a).value)


class Matrix(nn.Module):
    """The inference z = M s_y, or the predictor W z."""

    def __init__(self, matrix):
        super().__init__()
        self.weight = nn.Parameter(matrix)

    def forward(self, first, second, z=None):
        return (second if z is None else z.expand(len(first), -1, -1)) @ self.weight.T


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_gradient_leads_the_network_to_the_exact_minimum(alpha):
    # F = ‖s − W M s‖² + α ‖M s‖², whose slope over M is 2 ((WᵀW + α) M − Wᵀ) s sᵀ: 0 where M solves the ridge problem
    decoder, network, y, latent = normal(5, 2), normal(2, 5, seed=1), normal(9, 5, seed=2), LowDimensional(2, alpha)
    ridge = decoder.T @ decoder + alpha * torch.eye(2)
    for matrix in (network, torch.linalg.solve(ridge, decoder.T)):
        latent.amortize(Matrix(matrix.clone()))
        model = JEPA(Identity(2), Identity(5), Matrix(decoder), latent).double()
        loss = model(normal(9, 2), y).sum()
        (slope,) = torch.autograd.grad(loss, latent.network.weight)
        torch.testing.assert_close(slope, 2 * (ridge @ matrix - decoder.T) @ y.T @ y)
    assert slope.abs().max() < 1e-9
    latent.amortize(None).steps = 300
    torch.testing.assert_close(model.infer(normal(9, 2), y).value.sum(), loss.detach())


def test_gradient_is_that_of_the_energy_at_a_moving_answer():
    model, x, y = made(), normal(6, 2), normal(6, 2, seed=1)
    parameters = list(model.parameters())
    slopes = torch.autograd.grad(model(x, y).sum(), parameters)
    assert all(slope.abs().max() > 0 for slope in slopes)
    for slope, parameter in zip(slopes, parameters, strict=True):
        direction, values = torch.randn_like(parameter), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * direction
                values.append(model.infer(x, y).value.sum().item())
                parameter -= step * direction
        expected = (values[0] - values[1]) / 2e-5
        assert (slope * direction).sum().item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("diff, kind, width", [
    ({"encoder": FILTERS, "target_encoder": "identity", "inference": NETWORK | CHANNELS}, Convolutional, (2, 32, 32)),
    ({"encoder": FILTERS, "target_encoder": FILTERS | {"outputs": 3}, "inference": NETWORK}, Perceptron, 3),
    ({"world": "plane", "encoder": MLP, "target_encoder": "identity", "inference": NETWORK}, Perceptron, 2),
    ({"world": "plane", "encoder": MLP, "target_encoder": "shared", "inference": NETWORK}, Perceptron, 3),
])  # fmt: skip
def test_target_is_taken_as_it_comes(diff, kind, width):
    config = configure(CLIPS, diff)
    of = build.parts(config, 0)
    model, pairs = of.model, of.sample(3, generator())
    assert type(model.latent.network.encoder) is kind and model.latent.network.encoder.inputs == width
    assert model.latent.network.encoder.outputs == 5  # the configured features
    found = model.infer(pairs.x, pairs.y)
    assert found.argmin.shape == (3, 2) and found.value.isfinite().all()
    torch.testing.assert_close(found.value, model.energy(pairs.x, pairs.y, found.argmin.unsqueeze(1)).squeeze(1))


@pytest.mark.parametrize("diff, message", [
    ({"inference.steps": 3}, "inference: option of 'minimize': expected one of none, found 'steps'"),
    ({"inference": "amortised"}, "inference: expected one of .*, found 'amortised'; did you mean"),
    ({"inference": {"name": "amortized", "feature": 3}}, "inference: option of 'amortized'.*did you mean 'features'"),
    ({"inference": {"name": "amortized", "outputs": 3}}, "inference: option of 'amortized'.*found 'outputs'"),
    ({"inference": {"name": "amortized", "hidden": [3]}}, r"inference.hidden: expected int, found \[3\]"),
    ({"inference": NETWORK | {"refine": 2.5}}, "inference.refine: expected int, found 2.5"),
    ({"inference": NETWORK | {"refine": -1}}, "refine: expected at least 0 steps, found -1"),
    ({"inference": NETWORK | {"refine": 3}, "latent": CODES}, "refine: expected 0 steps for a latent of finitely many"),
    ({"inference": NETWORK | {"patch": 3}}, "patch: expected an even number that divides 32 and 32, found 3"),
    ({"inference": NETWORK, "latent": "none"}, "inference: expected a latent with a width of at least 1, found 0"),
])  # fmt: skip
def test_option_that_does_not_exist_or_fit_is_an_error(diff, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build.parts(configure(CLIPS, {"encoder": FILTERS}, diff), 0)


@pytest.mark.parametrize(
    "latent", [CODES, {"name": "vector_quantized", "size": 3, "width": 2}, {"name": "finite_scalar", "levels": [3, 2]}]
)
def test_gradient_reaches_the_network_straight_through_a_code(latent):
    model, x, y = made(latent=latent).eval(), normal(6, 2), normal(6, 2, seed=1)
    s = model.encode(x, y)
    given = s.s_x, x[:, :0], s.s_y
    E = model.latent.energy(model.D(*given))
    proposal = model.latent.network(*s)
    value = model.latent.constrain(proposal)[0].detach().requires_grad_()
    (slope,) = torch.autograd.grad(E(value.unsqueeze(1)).sum(), value, retain_graph=True)
    z, commitment = model.latent.constrain(proposal)
    torch.testing.assert_close(model.free_energy(*given), E(z.unsqueeze(1)).squeeze(1) + commitment)
    (found,) = torch.autograd.grad(E(z.unsqueeze(1)).sum(), proposal)
    chain = 1 - proposal.detach().tanh() ** 2 if latent["name"] == "finite_scalar" else 1
    torch.testing.assert_close(found, slope * chain)
