"""Encoders against their formulas in NumPy, and the scale of a signal that goes through them."""

import numpy as np
import pytest
import torch
from torch import nn

from jepa.encoders import MLP, Expander, Identity, perceptron


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def arrays(module):
    return [parameter.detach().numpy() for parameter in module.parameters()]


def test_identity_keeps_everything():
    x = normal(3, 4)
    assert torch.equal(Identity(4)(x), x)
    assert Identity(4, outputs=4).outputs == 4
    with pytest.raises(ValueError, match="^outputs: expected 4 as at the input of an identity, found 3"):
        Identity(4, outputs=3)


def test_mlp_is_its_formula():
    model, x = MLP(3, 2, hidden=[5, 4]).double(), normal(7, 3)
    for parameter in model.parameters():
        nn.init.normal_(parameter)  # biases too
    s, (*hidden, weight, bias) = x.numpy(), arrays(model)
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        s = s @ w.T + b
        s = s / (1 + np.exp(-s))
    np.testing.assert_allclose(model(x).detach(), s @ weight.T + bias, rtol=1e-12)


def test_mlp_without_hidden_layers_is_linear():
    model, x, other = MLP(3, 2, hidden=[]).double(), normal(7, 3), normal(7, 3, seed=1)
    torch.testing.assert_close(model(2 * x - other), 2 * model(x) - model(other))


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
def test_perceptron_keeps_the_scale_of_its_input(depth):
    # SiLU passes 0.36 of a standard normal's power where ReLU passes 0.5, for which the weights are meant: the power
    # falls by up to 1.5 a layer. PyTorch's own weights lose a factor of 3 at the end and about 10 in each layer before.
    x = torch.randn(500, 128)
    power = perceptron([128] * (depth + 1) + [128])(x).square().mean().item()
    assert 0.66**depth * 0.85 <= power <= 1.15
    model = nn.Sequential(*[nn.Linear(128, 128), nn.SiLU()] * 4, nn.Linear(128, 128))
    assert model(x).square().mean() < 0.02


def test_fan_in_is_what_sets_the_scale():
    x = torch.randn(500, 256)
    for widths in ([256, 16, 256], [256, 1024, 16]):
        assert 0.4 <= perceptron(widths)(x).square().mean().item() <= 1.2


def test_expander_is_linear_normalized_and_rectified():
    head, s = Expander(3, outputs=2, hidden=[5, 4]).double(), normal(9, 3)
    first, scale_1, shift_1, second, scale_2, shift_2, last = arrays(head)
    v = s.numpy()
    for weight, scale, shift in ((first, scale_1, shift_1), (second, scale_2, shift_2)):
        v = v @ weight.T
        v = (v - v.mean(axis=0)) / np.sqrt(v.var(axis=0) + 1e-5)
        v = np.maximum(scale * v + shift, 0)
    np.testing.assert_allclose(head(s).detach(), v @ last.T, rtol=1e-9, atol=1e-12)


def test_expander_sees_neither_offset_nor_scale_of_the_batch():
    head, s = Expander(3, outputs=6).double(), 100 * normal(40, 3)
    torch.testing.assert_close(head(7 * s + 3), head(s), rtol=0, atol=1e-6)
    assert (Expander(3, outputs=6, hidden=[]).double()(7 * s + 3) - head(s)).abs().max() > 1


@pytest.mark.parametrize("build, argument", [
    (lambda: perceptron([3, 0, 2]), "widths"),
    (lambda: MLP(3, 2, hidden=[4, 0]), "widths"),
    (lambda: MLP(0, 2), "widths"),
    (lambda: Expander(3, 0), "inputs, hidden, outputs"),
    (lambda: Expander(3, 2, hidden=[0]), "inputs, hidden, outputs"),
    (lambda: MLP(3, 2)(torch.zeros(5, 4)), "x"),
    (lambda: Expander(3, 2)(torch.zeros(5, 4)), "s"),
])  # fmt: skip
def test_width_that_does_not_fit_is_refused(build, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
