"""Predictors that are told a map: reading against grid_sample, what is far away, shared maps, rows and candidates."""

import pytest
import torch
from conftest import normal
from torch import nn

from jepa.bound import Bound
from jepa.keypoints import UNIT
from jepa.latents.finite import NoLatent
from jepa.maps import MapCode, MapReader
from jepa.model import JEPA
from jepa.predictors import MLP, PREDICTORS, rollout
from jepa.runs.kinds import Part, kind_of, parameters

KINDS = [MapReader, MapCode]
SIZE = (1, 12, 9)


def made(kind=MapReader, width=2, latent=0, **options):
    """Return a predictor on small maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"static": SIZE, "channels": (4, 5, 3), "hidden": (8,), "reach": 1.0} | options
        return kind(width, width, 2, latent, **options).double()


def told(batch=6, candidates=1, width=2, latent=0, seed=0):
    """Return s, a and z."""
    s = 0.4 * normal(batch, candidates, width, seed=seed)
    return s, normal(batch, candidates, 2, seed=seed + 1), normal(batch, candidates, latent, seed=seed + 2)


def maps(count=6, size=SIZE, seed=9):
    """Return static parts."""
    return normal(count, *size, seed=seed)


class Seen(nn.Module):
    """A motion that keeps what it is given and does not move."""

    def forward(self, given):
        self.given = given
        return given.new_zeros(*given.shape[:-1], 2)


@pytest.mark.parametrize("size", [(1, 12, 9), (2, 33, 33), (1, 2, 7)])
def test_features_are_read_as_grid_sample_does(size):
    reader, static, s = made(static=size), maps(5, size), 3 * normal(5, 40, 2)  # many beyond the border
    reader.motion = Seen()
    reader.bind(static)(s, s.new_zeros(1, 1, 2), s.new_zeros(1, 1, 0))
    side = torch.tensor([size[2] - 1, size[1] - 1])
    pixel = s * UNIT + side / 2
    grid = (2 * pixel / side - 1).unsqueeze(1)
    features = reader.map(static).unflatten(1, size[1:]).movedim(-1, 1)
    options = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}
    expected = nn.functional.grid_sample(features, grid, **options)[:, :, 0].transpose(1, 2)
    beyond = (pixel != pixel.clamp(min=torch.zeros(2), max=side)).any(-1)
    assert 0.1 < beyond.double().mean() < 1 and features.shape[2:] == size[1:]
    read, within = reader.motion.given[..., :3], reader.motion.given[..., 3:5]
    torch.testing.assert_close(read, expected, rtol=1e-9, atol=1e-9)
    inside = ~beyond
    torch.testing.assert_close(within[inside], (pixel - pixel.floor() - 0.5)[inside], rtol=0, atol=1e-9)


def test_two_locations_are_read_side_by_side():
    reader, static = made(width=4), maps(5)
    reader.motion, (s, a, z) = Seen(), told(5, 3, width=4)
    reader.motion.forward = lambda given: setattr(reader.motion, "given", given) or given.new_zeros(5, 3, 4)
    reader.bind(static)(s, a, z)
    both = reader.motion.given[..., :10]
    for place in (slice(0, 2), slice(2, 4)):
        one = made()
        one.load_state_dict({k: v for k, v in reader.state_dict().items() if k.startswith("map.")}, strict=False)
        one.motion = Seen()
        one.bind(static)(s[..., place], a, z)
        first = 0 if place.start == 0 else 5
        torch.testing.assert_close(both[..., first : first + 5], one.motion.given[..., :5], rtol=1e-12, atol=0)


def test_the_reader_sees_what_is_near_and_nothing_else():
    reader, one = made(static=(1, 33, 33)), torch.zeros(1, 1, 33, 33).double()
    s, a = torch.tensor([[[-0.53, 0.21]]]).double(), normal(1, 1, 2)
    column, row = (int(value * UNIT + 16) for value in (-0.53, 0.21))
    before = reader.bind(one)(s, a, a[..., :0])
    for reach, changes in ((4, True), (5, False)):  # three convolutions of 3 × 3 and the pixel's right neighbor
        far = one.clone()
        far[0, 0, row, column + reach] = 9.0
        assert torch.equal(before, reader.bind(far)(s, a, a[..., :0])) != changes
    walled = torch.full_like(one, 5.0)
    walled[0, 0, row - 4 : row + 6, column - 4 : column + 6] = 0
    assert torch.equal(before, reader.bind(walled)(s, a, a[..., :0]))
    assert not torch.equal(*(made(MapCode, static=(1, 33, 33)).bind(m)(s, a, a[..., :0]) for m in (one, walled)))


def test_what_is_learned_at_one_place_holds_at_all():
    reader, (s, a, z) = made(static=(1, 33, 33)), told(1)
    static = maps(1, (1, 33, 33))
    shifted = static.roll((3, 2), (2, 3))
    there = s + torch.tensor([2.0, 3.0]).double() / UNIT
    step = reader.bind(static)(s, a, z) - s
    torch.testing.assert_close(reader.bind(shifted)(there, a, z) - there, step, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_that_several_share_are_those_of_each_in_a_row(kind):
    predictor, given = made(kind), told()
    for groups in (1, 2, 3, 6):
        static = maps(groups)
        each = predictor.bind(static.repeat_interleave(6 // groups, 0))(*given)
        torch.testing.assert_close(predictor.bind(static)(*given), each, rtol=1e-12, atol=1e-12)
    for batch in (4, 7):
        with pytest.raises(ValueError, match=f"^static: expected .* divides the batch of {batch}, found 3"):
            predictor.bind(maps(3))(*told(batch))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_repeat_and_leave_out_also_of_rows(kind):
    predictor, (s, a, z) = made(kind), told()
    step, index, again = predictor.bind(maps()), torch.tensor([5, 0, 0, 3]), torch.tensor([3, 3, 1])
    whole = step(s, a, z)
    torch.testing.assert_close(step.rows(index)(s[index], a[index], z[index]), whole[index], rtol=1e-12, atol=1e-12)
    nested = index[again]
    found = step.rows(index).rows(again)(s[nested], a[nested], z[nested])
    torch.testing.assert_close(found, whole[nested], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="^s: expected a batch of 4, as rows were chosen, found 6"):
        step.rows(index)(s, a, z)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latent", [0, 3])
@pytest.mark.parametrize("shared", ["", "s", "a", "z", "sa"])
def test_candidates_at_once_are_those_one_by_one(kind, latent, shared):
    step = made(kind, latent=latent).bind(maps(3))
    s, a, z = (
        part[:, :1] if name in shared else part for name, part in zip("saz", told(6, 5, latent=latent), strict=True)
    )
    found = step(s, a, z)
    assert found.shape == (6, 5, 2)
    for k in range(5):
        one = step(*(part[:, k % part.shape[1], None] for part in (s, a, z)))
        torch.testing.assert_close(found[:, k], one[:, 0], rtol=1e-12, atol=1e-12)
    alone = step(s, a[:1], z[:1])
    torch.testing.assert_close(alone, step(s, a[:1].expand(6, -1, -1), z[:1].expand(6, -1, -1)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_map_state_action_and_weights(kind):
    predictor, static = made(kind, latent=1, channels=(8, 8, 8)), maps(2).requires_grad_()
    s, a, z = (part.requires_grad_() for part in told(latent=1))

    def total(static, s, a, z):
        return rollout(
            predictor.bind(static), s, a.unsqueeze(2).expand(-1, -1, 3, -1), z.unsqueeze(2).expand(-1, -1, 3, -1)
        )

    (total(static, s, a, z) * normal(6, 1, 3, 2)).sum().backward()
    assert all(part.grad.abs().max() > 1e-9 for part in (static, s, a, z, *predictor.parameters()))
    assert torch.autograd.gradcheck(total, (static, s, a, z), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_in_units_of_the_limit_and_the_reach_scales_the_step(kind):
    (s, a, z), static = told(), maps()
    step = made(kind).bind(static)(s, a, z) - s
    torch.testing.assert_close(made(kind, limit=2.5).bind(static)(s, 2.5 * a, z) - s, step, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(made(kind, reach=0.2).bind(static)(s, a, z) - s, 0.2 * step, rtol=1e-9, atol=1e-12)
    assert (0.2 * step).abs().max() < 0.1  # at first nothing moves much


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_state_that_is_no_number_disturbs_no_other(bad):
    (s, a, z), step = told(), made().bind(maps())
    lost = s.clone()
    lost[2] = bad
    found = step(lost, a, z)
    assert not found[2].isfinite().any()
    kept = [0, 1, 3, 4, 5]
    assert torch.equal(found[kept], step(s, a, z)[kept])


def test_a_model_binds_what_its_predictor_is_told_and_nothing_else():
    (s, a, z), static = told(), maps()
    plain = JEPA(nn.Identity(), nn.Identity(), MLP(2, 2, 2).double(), NoLatent())
    bound = JEPA(nn.Identity(), nn.Identity(), made(), NoLatent())
    assert bound.binds and not plain.binds
    assert torch.equal(bound.bound(static)(s, a, z), bound.predictor.bind(static)(s, a, z))
    for nothing in (static, static[:, :0, 0, 0], static[:4]):  # it is not told, whatever it is
        assert torch.equal(plain.bound(nothing)(s, a, z), plain.step(s, a, z))
    index = torch.tensor([4, 1, 1])
    for model in (plain, bound):
        step = model.bound(static)
        expected = step(s, a, z)[index]
        torch.testing.assert_close(step.rows(index)(s[index], a[index], z[index]), expected, rtol=1e-12, atol=1e-12)
    for model in (plain, bound):
        model.predictor.bind = lambda static: Bound(lambda parts, rows, s, a, z: s[..., 0], static)
        with pytest.raises(ValueError, match=r"^predictor: expected floating-point numbers \[6, 1, D\]"):
            model.bound(static)(s, a, z)


@pytest.mark.parametrize("name", ["map_reader", "map_code"])
def test_map_predictors_are_found_by_name_and_say_what_they_are_told(name):
    known = parameters("predictor", Part(name), PREDICTORS)
    assert {"static", "limit", "reach"} <= known and "static" not in parameters("predictor", Part("mlp"), PREDICTORS)
    assert kind_of("predictor", Part(name), PREDICTORS) in KINDS
    with pytest.raises(ValueError, match="^predictor: expected one of .*found 'map_read'; did you mean 'map_reader'"):
        kind_of("predictor", Part("map_read"), PREDICTORS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda kind: made(kind)(*told()), r"static: expected a map, found none; .*`bind\(static\)`"),
        (lambda kind: made(kind).bind(maps(2, (2, 12, 9))), r"static: expected \[G, 1, 12, 9\], found \[2, 2, 12, 9\]"),
        (lambda kind: made(kind).bind(None), r"static: expected \[G, 1, 12, 9\], found NoneType"),
        (lambda kind: made(kind).bind(maps(0))(*told()), "static: expected a number of parts .*found 0"),
        (lambda kind: kind(2, 4), "inputs, outputs: expected the same width, found 2, 4"),
        (lambda kind: kind(0, 0), "inputs, outputs: expected the same width, found 0, 0"),
        (lambda kind: made(kind, static=33), "static: expected a map, C, H, W, found a width of 33"),
        (lambda kind: made(kind, channels=()), "channels, hidden, code, limit, reach: expected numbers above 0"),
        (lambda kind: made(kind, channels=(4, 0)), "channels, .*: expected numbers above 0, found .4, 0"),
        (lambda kind: made(kind, limit=0.0), "channels, .*: expected numbers above 0"),
        (lambda kind: made(kind, reach=-1.0), "channels, .*: expected numbers above 0"),
    ],
)
def test_predictor_that_cannot_be_is_named(kind, call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call(kind)


@pytest.mark.parametrize(
    ("width", "options", "message"),
    [
        (3, {}, "inputs: expected two numbers a keypoint, found 3"),
        (2, {"static": (1, 1, 9)}, "static: expected at least 2 pixels a side"),
    ],
)
def test_reader_needs_places_and_pixels_between_which_to_read(width, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        made(width=width, **options)
    assert made(MapCode, width, **options).bind(maps(2, options.get("static", SIZE)))(*told(width=width)).shape == (
        6,
        1,
        width,
    )
