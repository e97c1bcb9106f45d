"""Keypoints against a centroid by loops; where bright things are, whatever the picture's size; the plain encoder."""

import pytest
import torch
from conftest import generator, normal

from jepa.encoders import ENCODERS
from jepa.keypoints import UNIT, Keypoints
from jepa.runs.kinds import Part, make
from jepa.strided import Strided


def made(size=(2, 33, 33), outputs=2, seed=0, kind=Keypoints, **options):
    """Return an encoder whose weights are drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(size, outputs, **options).double()


def blob(x, y, size=(2, 33, 33), height=100.0):
    """Return a picture [1, C, H, W] whose first channel has a bump of 3 pixels a side around column x, row y."""
    picture = torch.zeros(1, *size, dtype=torch.float64)
    picture[0, 0, y - 1 : y + 2, x - 1 : x + 2] = height * torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    return picture


@pytest.mark.parametrize("size, outputs", [((2, 33, 33), 2), ((1, 9, 16), 4), ((3, 8, 5), 2)])
def test_code_is_the_centroid_of_a_heat_map_by_loops(size, outputs):
    encoder, x = made(size, outputs, sharpness=1.5), normal(3, *size)
    heat = encoder.heat(encoder.features(x).relu()).detach()
    assert heat.shape[2:] == ((size[1] + 1) // 2, (size[2] + 1) // 2)
    for b, code in enumerate(encoder(x).detach().unflatten(1, (-1, 2))):
        for j, (right, down) in enumerate(code):
            total = across = along = 0.0
            for row in range(heat.shape[2]):
                for column in range(heat.shape[3]):
                    weight = float((1.5 * heat[b, j, row, column]).exp())
                    total += weight
                    across += weight * (2 * column - (size[2] - 1) / 2) / UNIT
                    along += weight * (2 * row - (size[1] - 1) / 2) / UNIT
            assert float(right) == pytest.approx(across / total, rel=1e-9, abs=1e-9)
            assert float(down) == pytest.approx(along / total, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("right, down", [(2, 0), (0, -4), (6, 2)])
def test_what_is_bright_moves_the_code_by_as_many_pixels(seed, right, down):
    encoder = made(seed=seed, outputs=4)
    moved = encoder(blob(15 + right, 16 + down)) - encoder(blob(15, 16))
    expected = torch.tensor([[right, down, right, down]]).double() / UNIT
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_larger_picture_needs_no_other_code(seed):
    small, large = made(seed=seed), made((2, 65, 65))
    large.load_state_dict(small.state_dict())
    for x, y in ((16, 16), (9, 21), (24, 10)):
        found = large(blob(x + 16, y + 16, (2, 65, 65)))  # as far from the middle
        torch.testing.assert_close(found, small(blob(x, y)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_at_a_positive_start_bright_is_hot_and_the_code_is_where_the_bright_thing_is(seed):
    def slopes(positive):
        encoder, x = made(seed=seed, positive=positive), normal(4, 2, 33, 33).requires_grad_()
        return torch.autograd.grad(encoder.heat(encoder.features(x).relu()).sum(), x)[0]

    assert slopes(True).min() >= 0 > slopes(False).min()
    places = [(x, y) for x in (6, 16, 26) for y in (6, 16, 26)]
    found = torch.cat([made(seed=seed)(blob(x, y)) for x, y in places])
    assert (found - torch.tensor(places).double().sub(16) / UNIT).abs().max() < 2 / UNIT


def test_a_dark_picture_is_in_the_middle():
    for size in ((2, 33, 33), (2, 65, 65)):
        assert made(size)(torch.zeros(1, *size).double()).abs().max() < 0.05


@pytest.mark.parametrize("name", ["keypoints", "strided"])
def test_encoders_of_pictures_learn_and_are_found_by_name(name):
    encoder = make("encoder", Part(name, {"outputs": 4}), ENCODERS, inputs=(2, 17, 12)).double()
    x = normal(5, 2, 17, 12, seed=3).requires_grad_()
    assert encoder(x).shape == (5, encoder.outputs) == (5, 4)
    torch.testing.assert_close(encoder(x)[2:3], encoder(x[2:3]), rtol=1e-9, atol=1e-9)  # each on its own
    (encoder(x) * normal(5, 4)).sum().backward()
    assert all(part.grad.abs().max() > 0 for part in (x, *encoder.parameters()))
    for wrong in (normal(5, 2, 12, 17), normal(5, 1, 17, 12), normal(2, 17, 12)):
        with pytest.raises(ValueError, match=r"^x: expected \[B, 2, 17, 12\], found shape \["):
            encoder(wrong)


@pytest.mark.parametrize("size", [(1, 33, 33), (2, 65, 65), (1, 7, 20)])
def test_strided_halves_the_picture_and_is_normed(size):
    encoder, plain = (made(size, 16, kind=Strided, channels=(3, 5), normalize=norm) for norm in (True, False))
    x = torch.rand(4, *size, generator=generator()).double()
    high, wide = ((-(-side // 2) + 1) // 2 for side in size[1:])
    assert encoder.layers[-2][0].in_features == 5 * high * wide
    raw, found = plain(x), encoder(x)
    expected = (raw - raw.mean(1, keepdim=True)) / (raw.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("kind", "inputs", "options", "message"),
    [
        (Keypoints, 33, {}, "inputs: expected pixels, C, H, W, found a width of 33"),
        (Keypoints, (2, 9, 9), {"outputs": 3}, "outputs: expected two numbers a keypoint, found 3"),
        (Keypoints, (2, 9, 9), {"outputs": 0}, "outputs: expected two numbers a keypoint, found 0"),
        (Keypoints, (2, 9, 9), {"channels": 0}, "channels, sharpness: expected numbers above 0, found 0"),
        (Keypoints, (2, 9, 9), {"sharpness": 0.0}, "channels, sharpness: expected numbers above 0, found 8, 0.0"),
        (Strided, 33, {}, "inputs: expected pixels, C, H, W, found a width of 33"),
        (Strided, (2, 9, 9), {"channels": ()}, r"channels, outputs: expected widths of at least 1, found \[\]"),
        (Strided, (2, 9, 9), {"channels": (4, 0)}, r"channels, outputs: expected .*found \[4, 0\]"),
        (Strided, (2, 9, 9), {"outputs": 0}, "channels, outputs: expected widths of at least 1, found .* 0"),
    ],
)
def test_encoder_that_cannot_be_is_named(kind, inputs, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(inputs, **{"outputs": 2} | options)
