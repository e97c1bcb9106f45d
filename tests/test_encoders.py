"""Encoders against their formulas in NumPy, and the scale of a signal that goes through them."""

import numpy as np
import pytest
import torch
from conftest import normal
from torch import nn

from jepa.encoders import MLP, Convolutional, Coupling, Identity, perceptron
from jepa.objectives.heads import Expander, RandomFeatures

pytestmark = pytest.mark.usefixtures("seeded")
PIXELS = (2, 8, 12)


def arrays(module):
    return [parameter.detach().numpy() for parameter in module.parameters()]


def test_identity_keeps_everything():
    x = normal(3, 4)
    assert torch.equal(Identity(4)(x), x)
    assert Identity(4, outputs=4).outputs == 4


def test_identity_puts_pixels_in_one_row():
    model, x = Identity(PIXELS), normal(3, *PIXELS)
    assert (model.inputs, model.outputs) == (PIXELS, 192) and Identity(PIXELS, outputs=192).outputs == 192
    rows = [torch.cat([x[b, c, h] for c in range(2) for h in range(8)]) for b in range(3)]
    assert torch.equal(model(x), torch.stack(rows))
    assert torch.equal(model(x.unsqueeze(1)), torch.stack(rows).unsqueeze(1))


@pytest.mark.parametrize("hidden", [[], [5], [5, 4]])
def test_mlp_is_its_formula(hidden):
    model, x = MLP(3, 2, hidden=hidden).double(), normal(7, 3)
    for parameter in model.parameters():
        nn.init.normal_(parameter)  # biases too
    s, (*hidden, weight, bias) = x.numpy(), arrays(model)
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        s = s @ w.T + b
        s = s / (1 + np.exp(-s))
    np.testing.assert_allclose(model(x).detach(), s @ weight.T + bias, rtol=1e-12)


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


def convolved(x, weight, bias, stride, padding):
    """Return the convolution of one picture [C, H, W], pixel by pixel."""
    side, x = weight.shape[-1], np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    out = np.empty((len(weight), *((n - side) // stride + 1 for n in x.shape[1:])))
    for k, i, j in np.ndindex(out.shape):
        window = x[:, i * stride : i * stride + side, j * stride : j * stride + side]
        out[k, i, j] = (window * weight[k]).sum() + bias[k]
    return out


@pytest.mark.parametrize("pixels, patch, channels, last", [
    (PIXELS, 4, [3], (2, 3)),
    (PIXELS, 2, [3, 2], (2, 3)),
    ((1, 6, 10), 2, [2, 3], (2, 3)),  # 3 by 5 patches: every further layer halves, rounding up
    ((1, 6, 10), 2, [2, 3, 4, 2], (1, 1)),
    ((3, 8, 8), 8, [2, 2], (1, 1)),
])  # fmt: skip
def test_convolutional_is_its_formula(pixels, patch, channels, last):
    model, x = Convolutional(pixels, 2, channels, patch, hidden=5).double(), normal(3, *pixels)
    for parameter in model.parameters():
        nn.init.normal_(parameter)  # biases too
    *layers, weight_1, bias_1, weight_2, bias_2 = arrays(model)
    expected = []
    for picture in x.numpy():
        stride, padding = patch, patch // 2
        for weight, bias in zip(layers[::2], layers[1::2], strict=True):
            picture = convolved(picture, weight, bias, stride, padding)
            picture, stride, padding = picture / (1 + np.exp(-picture)), 2, 1
        assert picture.shape == (channels[-1], *last)
        s = weight_1 @ picture.reshape(-1) + bias_1
        expected.append(weight_2 @ (s / (1 + np.exp(-s))) + bias_2)
    assert [len(weight) for weight in layers[::2]] == channels and layers[0].shape[-1] == 2 * patch
    np.testing.assert_allclose(model(x).detach(), expected, rtol=1e-9, atol=1e-11)


def test_convolutional_reads_pixels_in_one_row_and_a_part_of_a_clip_too():
    model, clip = Convolutional(PIXELS, 3, hidden=5).double(), normal(4, 5, 8, 12)
    s, x = model(clip[:, 3:].clone()), clip[:, 3:]
    assert s.shape == (4, 3) and (model.inputs, model.outputs) == (PIXELS, 3) and not x.is_contiguous()
    assert torch.equal(model(x), s)
    assert torch.equal(model(Identity(PIXELS)(x)), s)


@pytest.mark.parametrize("channels", [(16,), (16, 32)])
def test_convolutional_keeps_the_order_of_the_power_of_its_input(channels):
    # as a perceptron does; a little is lost at the border, where windows see zeros. PyTorch's own weights of the
    # convolutions alone would leave 0.09 of it after one and 0.006 after two.
    model = Convolutional((4, 32, 32), 64, channels, hidden=128)
    for scale in (1.0, 2.0):
        power = model(scale * torch.randn(64, 4, 32, 32)).square().mean().item() / scale**2
        assert 0.2 <= power <= 1.2
    assert all((layer.bias == 0).all() for layer in model.modules() if hasattr(layer, "bias"))


@pytest.mark.parametrize("pixels", [(2, 2, 2), (4, 5, 7), (6, 8, 8)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_coupling_can_be_undone(pixels, steps):
    model, x = Coupling(pixels, steps=steps).double(), normal(3, *pixels)
    with torch.no_grad():
        s = model(x)
        assert s.shape == (3, np.prod(pixels)) and model.outputs == np.prod(pixels) and model.inputs == pixels
        torch.testing.assert_close(model.invert(s), x, rtol=0, atol=1e-12)
        torch.testing.assert_close(model(model.invert(x.flatten(1))), x.flatten(1), rtol=0, atol=1e-12)
    assert (s - x.flatten(1)).abs().max() > 0.01  # it is not the identity


def test_coupling_is_its_formula():
    model, x = Coupling((4, 3, 3), steps=2).double(), normal(2, 4, 3, 3)
    first, second = model.maps
    a, b = x[:, :2], x[:, 2:]
    b = b + first(a)
    a = a + second(b)
    torch.testing.assert_close(model(x), torch.cat([a, b], 1).flatten(1), rtol=1e-12, atol=1e-12)


def test_random_features_are_the_signal_and_its_rectified_projections():
    model, s = RandomFeatures(3, features=7).double(), normal(9, 3)
    weight, bias = model.weight.numpy(), model.bias.numpy()
    rectified = [[max(0.0, weight[k] @ row + bias[k]) for k in range(7)] for row in s.numpy()]
    np.testing.assert_allclose(model(s), np.concatenate([s.numpy(), rectified], 1), rtol=1e-12)
    assert (model.inputs, model.outputs, model(s).shape[1]) == (3, 10, 10) and 0 < np.mean(rectified == np.zeros(1)) < 1


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("inputs", [4, 64])
def test_random_projections_have_the_stated_spread(scale, inputs):
    model, s = RandomFeatures(inputs, features=4000, scale=scale), torch.randn(100, inputs)
    assert (s @ model.weight.T).std().item() == pytest.approx(scale, rel=0.1)
    assert model.bias.std().item() == pytest.approx(1, rel=0.1) and abs(model.bias.mean().item()) < 0.1


def test_random_features_are_saved_and_never_trained():
    one, other, s = RandomFeatures(3, features=7), RandomFeatures(3, features=7), torch.randn(9, 3, requires_grad=True)
    assert list(one.parameters()) == [] and set(one.state_dict()) == {"weight", "bias"}
    assert not torch.equal(one(s), other(s))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(s), other(s))
    (slope,) = torch.autograd.grad(one(s)[:, 3:].sum(), s)  # the criteria reach s through them
    assert slope.abs().max() > 0


def test_expander_is_linear_normalized_and_rectified():
    head, s = Expander(3, outputs=2, hidden=[5, 4]).double(), normal(9, 3)
    first, scale_1, shift_1, second, scale_2, shift_2, last = arrays(head)
    v = s.numpy()
    for weight, scale, shift in ((first, scale_1, shift_1), (second, scale_2, shift_2)):
        v = v @ weight.T
        v = (v - v.mean(axis=0)) / np.sqrt(v.var(axis=0) + 1e-5)
        v = np.maximum(scale * v + shift, 0)
    np.testing.assert_allclose(head(s).detach(), v @ last.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("build, message", [
    (lambda: perceptron([3, 0, 2]), "widths: expected"),
    (lambda: MLP(3, 2, hidden=[4, 0]), "widths: expected"),
    (lambda: MLP(3, 2)(torch.zeros(5, 4)), "x: expected 3 features"),
    (lambda: Expander(3, 0), "inputs, hidden, outputs: expected"),
    (lambda: Expander(3, 2, hidden=[0]), "inputs, hidden, outputs: expected"),
    (lambda: Expander(3, 2)(torch.zeros(5, 4)), "s: expected 3 features"),
    (lambda: Identity(4, outputs=3), "outputs: expected 4 as at the input of an identity, found 3"),
    (lambda: Identity(PIXELS, outputs=2), "outputs: expected 192 as at the input of an identity, found 2"),
    (lambda: MLP(PIXELS, 2), r"inputs: expected a width, found pixels \[2, 8, 12\], which a convolutional one reads"),
    (lambda: Convolutional(12, 2), "inputs: expected pixels, C, H, W, found a width of 12"),
    (lambda: Convolutional(PIXELS, 2, patch=1), "patch: expected an even number that divides 8 and 12, found 1"),
    (lambda: Convolutional(PIXELS, 2, patch=-2), "patch: expected an even number that divides 8 and 12, found -2"),
    (lambda: Convolutional((1, 9, 9), 2, patch=3), "patch: expected an even number that divides 9 and 9, found 3"),
    (lambda: Convolutional(PIXELS, 2, patch=8), "patch: expected an even number that divides 8 and 12, found 8"),
    (lambda: Convolutional((2, 12, 8), 2, patch=8), "patch: expected an even number that divides 12 and 8"),
    (lambda: Convolutional(PIXELS, 2, []), r"channels, hidden, outputs: expected .*, found \[\], 512, 2"),
    (lambda: Convolutional(PIXELS, 2, [3, 0]), r"channels, hidden, outputs: expected .*, found \[3, 0\], 512, 2"),
    (lambda: Convolutional(PIXELS, 2, hidden=0), r"channels, hidden, outputs: expected .*, found \[16, 32\], 0, 2"),
    (lambda: Convolutional(PIXELS, 0), r"channels, hidden, outputs: expected .*, found \[16, 32\], 512, 0"),
    (lambda: Convolutional(PIXELS, 2)(torch.zeros(2, 96)), r"x: expected \[B, 2, 8, 12\], found shape \[2, 96\]"),
    (lambda: Coupling((3, 4, 4)), "inputs: expected C, H, W with an even number of pictures C, found .3, 4, 4"),
    (lambda: Coupling(12), "inputs: expected C, H, W with an even number of pictures C, found 12"),
    (lambda: Coupling((2, 4, 4), 31), "outputs: expected 32 as at the input of an invertible map, found 31"),
    (lambda: Coupling((2, 4, 4), steps=0), "steps, channels: expected at least 1, found 0, 16"),
    (lambda: Coupling((2, 4, 4), channels=0), "steps, channels: expected at least 1, found 2, 0"),
    (lambda: Coupling((2, 4, 4))(torch.zeros(5, 2, 4, 3)), r"x: expected \[B, 2, 4, 4\], found"),
    (lambda: Coupling((2, 4, 4)).invert(torch.zeros(5, 31)), r"s: expected 32 features on the last axis, found .*31"),
    (lambda: RandomFeatures(0), "inputs, features: expected widths of at least 1, found 0, 128"),
    (lambda: RandomFeatures(3, 0), "inputs, features: expected widths of at least 1, found 3, 0"),
    (lambda: RandomFeatures(3)(torch.zeros(5, 4)), r"s: expected 3 features on the last axis, found shape \[5, 4\]"),
])  # fmt: skip
def test_input_that_no_encoder_can_have_is_named(build, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build()


@pytest.mark.parametrize("shape", [(5, 8, 12, 2), (5, 3, 8, 12), (5, 2, 8, 8), (5, 96, 2)])
def test_pixels_in_another_order_are_refused(shape):
    for encoder in (Identity((2, 8, 12)), Convolutional((2, 8, 12), 3, channels=[4], patch=4, hidden=5)):
        with pytest.raises(ValueError, match=r"^x: expected .*2, 8, 12\], found shape"):
            encoder(torch.zeros(shape))
