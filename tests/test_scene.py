"""The picture of the world `fork`: pixel by pixel from its formula, on integers, and what its shapes measure."""

from math import pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa.worlds import scene as pictures
from jepa.worlds.arithmetic import unit_vector
from jepa.worlds.scene import ASPHALT, CAR, FIELD, GROUPS, LENGTH, ROAD, TREE, WIDTH, crowns, fields, middles

ONE = 2**16


def drawn(seed=0, clips=2, frames=3, roads=3, reach=12.0):
    """Arguments of `paint` in double precision, multiples of 2^-16."""
    random = np.random.RandomState(seed)
    sizes = {
        "origin": (3.0, (clips, 2)),
        "rays": (pi, (clips, roads)),
        "textures": (1.0, (clips, frames, 8)),
        "position": (reach, (clips, frames, 2)),
        "direction": (pi, (clips, frames)),
    }
    scene = {name: torch.from_numpy(random.uniform(-high, high, shape)) for name, (high, shape) in sizes.items()}
    scene |= {name: unit_vector(scene[name]) for name in ("rays", "direction")}
    return {name: (value * ONE).round() / ONE for name, value in scene.items()}


def paint(size, **scene):
    """Frames among trees."""
    return pictures.paint(crowns(size), **scene)


def line(square, end, full):
    """1 up to full^2, 0 from end^2 on."""
    return min(max((end**2 - square) / (end**2 - full**2), 0.0), 1.0)


def spots(size):
    """Middles (row, column, right, up) of all pixels."""
    return [(i, j, (j + 0.5) * 32 / size - 16, 16 - (i + 0.5) * 32 / size) for i, j in np.ndindex(size, size)]


def slow_crowns(size):
    """Groups of trees [8, S, S], one tree and pixel after the other."""
    random = np.random.RandomState(0)
    jitter, order = random.randint(-8, 9, (49, 2)), random.permutation(49)
    groups = np.zeros((8, size, size))
    for tree in range(49):
        right = (tree % 7 + 0.5 + jitter[tree, 0] / 32) * 32 / 7 - 16
        up = (tree // 7 + 0.5 + jitter[tree, 1] / 32) * 32 / 7 - 16
        group = groups[order[tree] % 8]
        for i, j, x, y in spots(size):
            group[i, j] = max(group[i, j], line((x - right) ** 2 + (y - up) ** 2, 2.4, 1.2))
    return groups


def slow(size, origin, rays, textures, position, direction):
    """Frames [F, S, S] of one clip, one pixel after the other."""
    trees, (place, height) = crowns(size).reshape(8, size, size).numpy(), origin.tolist()
    road, cars, frames = np.zeros((size, size)), *np.zeros((2, len(textures), size, size))
    for i, j, right, up in spots(size):
        for sine, cosine in rays.tolist():
            x, y = right - place, up - height
            u, w = x * sine + y * cosine, x * cosine - y * sine
            road[i, j] = max(road[i, j], line(min(u, 0) ** 2 + w**2, *ROAD))
        for t, ((x, y), (sine, cosine)) in enumerate(zip(position.tolist(), direction.tolist(), strict=True)):
            u, w = (right - x) * sine + (up - y) * cosine, (right - x) * cosine - (up - y) * sine
            cars[t, i, j] = line((u / LENGTH) ** 2 + (w / WIDTH) ** 2, 1.25, 0.75)
            leaves = sum(float(textures[t, k]) * trees[k, i, j] for k in range(8))
            ground = (1 - road[i, j]) * leaves + road[i, j] * ASPHALT
            frames[t, i, j] = ground + cars[t, i, j] * (CAR - ground)
    return frames


@pytest.mark.parametrize("size", [32, 40])
def test_frames_pixel_by_pixel(size):
    scene = drawn()
    found = paint(size, **scene)
    for b in range(2):
        expected = slow(size, **{name: value[b] for name, value in scene.items()})
        np.testing.assert_allclose(found[b], expected, rtol=0, atol=1e-12)
    single = paint(size, **{name: value.float() for name, value in scene.items()})
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), found, rtol=0, atol=5e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([32, 33, 40, 48]), st.integers(1, 4))
def test_integers_paint_the_same_picture(seed, size, roads):
    scene = drawn(seed, roads=roads, reach=16.0)
    fixed = {name: (value * ONE).long() for name, value in scene.items()}
    made = paint(size, **fixed)
    error = made - paint(size, **scene) * ONE
    assert made.dtype == torch.int64 and error.abs().max() < 60 and error.mean().abs() < 0.5


@pytest.mark.parametrize("size", [32, 33, 40, 96])
def test_middles_are_those_of_pixels(size):
    found = middles(size)
    assert found.dtype == torch.float64 and found[0] == 16 / size - 16
    torch.testing.assert_close(found.diff(), torch.full((size - 1,), 32 / size).double())
    torch.testing.assert_close(found.flip(0), -found)


def test_more_pixels_show_the_same_picture():
    scene = drawn()  # the middle one of 3 x 3 small pixels is the middle of a large one
    torch.testing.assert_close(paint(96, **scene)[..., 1::3, 1::3], paint(32, **scene), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [32, 40])
def test_trees_are_eight_groups_of_crowns(size):
    groups, found = slow_crowns(size), crowns(size)
    share = np.maximum(groups.sum(0), 1)  # where crowns overlap, they share the pixel
    np.testing.assert_allclose(found.reshape(8, size, size), TREE * groups / share, rtol=0, atol=1e-12)
    assert found.shape == (GROUPS, size**2) and found.min() == 0 and abs(found.sum(0).max() - TREE) < 1e-12
    area = groups.sum((1, 2)) * (32 / size) ** 2 / (pi * (2.4**2 + 1.2**2) / 2)  # in crowns
    assert (area > 5.4).all() and (area < 7.1).all() and 46 < area.sum() < 49  # some reach over the picture's edge
    assert (found.sum(1) > 0.08 * found.sum()).all() and (found.amax(1) == TREE).all()  # every group shows


def test_trees_do_not_touch_the_global_generator():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    assert torch.equal(crowns.__wrapped__(32), crowns(32)) and np.array_equal(np.random.get_state()[1], before)


def test_car_lies_where_it_is_along_its_direction():
    scene = drawn(clips=20, reach=11.0)
    scene |= {"textures": 0 * scene["textures"]}
    ground = paint(64, **scene | {"position": scene["position"] + 1000})
    car = (paint(64, **scene) - ground) / (CAR - ground)
    right, up = torch.meshgrid(middles(64), middles(64).flip(0), indexing="xy")
    spot = torch.stack([right, up], -1).flatten(0, 1)  # [S^2, 2]
    weight = (car / car.sum((2, 3), keepdim=True)).flatten(2).unsqueeze(-1)
    torch.testing.assert_close((weight * spot).sum(2), scene["position"], rtol=0, atol=0.02)
    away = spot - scene["position"].unsqueeze(2)
    sine, cosine = scene["direction"].unsqueeze(2).unbind(-1)
    u, w = away[..., 0] * sine + away[..., 1] * cosine, away[..., 0] * cosine - away[..., 1] * sine
    square = (1.25**4 + 1.25**2 * 0.75**2 + 0.75**4) / (1.25**2 + 0.75**2) / 6  # of a coordinate, in half-axes
    for along, half in ((u, LENGTH), (w, WIDTH)):
        spread = (weight[..., 0] * along.square()).sum(2)
        torch.testing.assert_close(spread, torch.full_like(spread, half**2 * square), rtol=0.02, atol=0)
    area = pi * LENGTH * WIDTH * (1.25**2 + 0.75**2) / 2
    torch.testing.assert_close(car.sum((2, 3)) / 4, torch.full((20, 3), area).double(), rtol=0.01, atol=0)


@pytest.mark.parametrize("size", [32, 48])
def test_fields_are_squares_in_eight_groups_that_do_not_overlap(size):
    groups = fields(size)
    assert groups.shape == (GROUPS, size**2)
    assert groups.amin() >= 0 and float(groups.sum(0).max()) == pytest.approx(FIELD)
    assert int((groups > 0).sum(0).max()) == 1  # no pixel is in two fields
    assert all(0.05 < share < 0.2 for share in (groups > 0).double().mean(1))
