"""Pictures of rooms against brute force: many points in every pixel, in a wall or not, with their brightness."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import generator

from jepa.worlds.rooms.layouts import random_two_rooms, two_rooms
from jepa.worlds.rooms.pictures import draw, draw_dots, draw_walls

FINE = 16  # points a side of a pixel


def points(size):
    """Return points [S · FINE] of an axis, evenly in the pixels."""
    return -0.5 + 65 * (torch.arange(size * FINE, dtype=torch.float64) + 0.5) / (size * FINE)


def averaged(values, size):
    """Return the mean in each pixel of values [B, S · FINE, S · FINE]."""
    return values.unflatten(1, (size, FINE)).unflatten(3, (size, FINE)).double().mean((2, 4))


@pytest.mark.parametrize("size", [13, 33, 65])
def test_walls_are_the_share_of_each_pixel_that_they_cover(size):
    layouts = random_two_rooms(3, generator())
    p = points(size)
    boxes = layouts.drawn.double().unsqueeze(-1)  # [B, V, 4, 1]
    inside_x, inside_y = ((p >= boxes[:, :, k]) & (p < boxes[:, :, k + 2]) for k in (0, 1))
    expected = averaged((inside_y.unsqueeze(3) & inside_x.unsqueeze(2)).any(1), size)
    found = draw_walls(layouts, size).double()
    # the edge of a wall is up to half a point off, on two sides of a pixel in x and two in y
    torch.testing.assert_close(found, expected, atol=2.1 / FINE, rtol=0)
    assert float((found - expected).mean().abs()) < 0.1 / FINE
    assert float(found.min()) == 0 and 0.5 < float(found.max()) <= 1 + 1e-5


def test_walls_on_whole_units_are_the_published_picture():
    wall, door = torch.tensor([20.0, 32.0, 44.0]), torch.tensor([10.0, 18.0, 53.0])
    found = draw_walls(two_rooms(wall, door), 65)
    for picture, w, d in zip(found, wall.int().tolist(), door.int().tolist(), strict=True):
        for y in range(65):
            for x in (*range(0, 65, 5), *range(w - 3, w + 4), 3, 4, 5, 59, 60, 61):
                part = abs(x - w) <= 1 and abs(y - d) > 4
                assert float(picture[y, x]) == pytest.approx(float(part or x in (4, 60) or y in (4, 60)), abs=1e-5)


def test_area_of_overlapping_boxes_counts_once():
    layouts = random_two_rooms(1, generator())
    boxes = torch.tensor([[[0.0, 0, 10, 10], [5.0, 5, 15, 15], [5.0, 5, 15, 15], [2.0, 2, 3, 3], [7.0, 7, 7, 30]]])
    for size in (1, 7, 64):
        found = draw_walls(layouts._replace(drawn=boxes), size)
        assert float(found.sum()) * (65 / size) ** 2 == pytest.approx(100 + 100 - 25, rel=1e-5)


@pytest.mark.parametrize("size", [13, 33, 65])
def test_dots_are_their_mean_in_each_pixel(size):
    layouts = random_two_rooms(2, generator())
    positions = 4 + 56 * torch.rand(2, 3, 2, generator=generator(1))
    p = points(size)
    for b in range(2):
        x, y = positions[b].double().T.unsqueeze(2)
        values = torch.exp(-((p - x).square().unsqueeze(1) + (p - y).square().unsqueeze(2)) / (2 * 1.3**2))
        half = 65 / size * ((torch.arange(FINE) + 0.5) / FINE - 0.5)  # of the pixel around a dot in its middle
        peak = torch.exp(-(half.square() + half.square().unsqueeze(1)) / (2 * 1.3**2)).mean()
        torch.testing.assert_close(
            draw_dots(layouts, positions, size)[b].double(), averaged(values, size) / peak, atol=2e-3, rtol=0
        )


def test_dot_is_brightest_in_the_middle_of_a_pixel():
    layouts = random_two_rooms(1, generator())
    middle = torch.tensor([[[32.0, 32.0]]])
    offsets = torch.cat([middle, 32 + torch.rand(1, 99, 2, generator=generator()) - 0.5], 1)
    brightest = draw_dots(layouts, offsets, 65).amax((0, 2, 3))
    assert float(brightest[0]) == pytest.approx(1, abs=1e-6) and bool((brightest[1:] < brightest[0]).all())


def test_views_show_dot_and_walls():
    layouts = random_two_rooms(2, generator())
    positions = torch.tensor([10.0, 50.0]).expand(2, 3, 2)
    channels, gray = (draw(layouts, positions, 33, 2.0, view) for view in ("channels", "gray"))
    assert channels.shape == (2, 3, 2, 33, 33) and gray.shape == (2, 3, 1, 33, 33)
    assert torch.equal(gray[:, :, 0], channels.amax(2))
    assert torch.equal(channels[:, 0, 1], draw_walls(layouts, 33))
    assert torch.equal(channels[:, :, 0], 2.0 * draw_dots(layouts, positions, 33))
    row, column = divmod(int(channels[0, 0, 0].argmax()), 33)
    assert (column, row) == (int(10.5 / 65 * 33), int(50.5 / 65 * 33))


def test_pictures_that_cannot_be_drawn_are_refused():
    layouts, positions = random_two_rooms(2, generator()), torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match="^view: expected one of channels, gray, found 'color'"):
        draw(layouts, positions, 33, 2.0, "color")
    with pytest.raises(ValueError, match="^size: expected at least 1 pixel, found 0"):
        draw(layouts, positions, 0)
    with pytest.raises(ValueError, match=re.escape("positions: expected [2, T, 2], found [3, 2]")):
        draw(layouts, positions[0], 33)
