"""The world `crossing`: the way from the formula, integers against floats, its four ways and the open square."""

import re

import numpy as np
import pytest
import torch
from conftest import generator
from scipy import stats

from jepa.worlds.clips import QUANTUM
from jepa.worlds.crossing import GRID, HEADING, RANGES, SLOWEST, WAYS, Crossing
from jepa.worlds.scene import fields, paint

FOUR, OPEN = Crossing(), Crossing(open=True)
WORLDS = pytest.mark.parametrize("world", [FOUR, OPEN, Crossing(size=40, frames=2)], ids=["four", "open", "large"])


def drawn(world, count, seed=0):
    """Factors in double precision."""
    factors = world.draw(count, generator(seed))
    return {name: value if name == "branch" else value.double() for name, value in factors.items()}


def expected(world, f, shift):
    """Arguments of `paint`; a complex number is right + i up."""
    k = torch.tensor([k for k in range(-world.frames, world.frames + 1) if k])
    before = 1j * torch.exp(-1j * f["heading"])
    behind = 1j * torch.exp(-1j * (f["heading"] + f["turn"] * torch.pi / 2))
    direction = torch.where(k < 0, before, behind)
    arc = torch.where(k < 0, 1.0, f["pace"]) * (f["speed"] * k - f["approach"])
    position = f["right"] + direction * (arc - 1j * f["lane"])
    position += (k > 0) * torch.view_as_complex(shift).unsqueeze(1)
    textures = torch.cat([f["texture_x"], f["texture_y"]], 1).unflatten(1, (-1, 8))
    rays = before * torch.tensor([1, -1j, -1, 1j])
    origin = torch.cat([f["right"], torch.zeros_like(f["right"])], 1)
    rays, position, direction = map(torch.view_as_real, (rays, position, direction.expand_as(position)))
    return origin, rays, textures, position, direction


@WORLDS
def test_frames_and_positions_from_the_formula(world):
    factors, shift = drawn(world, 4), torch.tensor([[1.5, -2.0], [0.0, 0.7], [-3.0, 0.0], [0.0, 0.0]]).double()
    found = world.render(factors, shift=shift)
    origin, rays, textures, position, direction = expected(world, factors, shift)
    pictures = paint(fields(world.size), origin, rays, textures, position, direction)
    torch.testing.assert_close(torch.cat([found.x, found.y], 1), pictures, rtol=0, atol=1e-10)
    torch.testing.assert_close(world.positions(factors), expected(world, factors, 0 * shift)[3])


@WORLDS
def test_integers_are_the_world_to_one_quantum(world):
    world = Crossing(world.size, world.frames, open=world.open, noise=0.0)
    made = world.integers(40, np.random.RandomState(3))
    factors = {name: torch.from_numpy(made[name].astype(np.int64)) for name in world.factor_labels}
    factors = {name: value if name == "branch" else value * world.quanta[name] for name, value in factors.items()}
    pairs = world.render(factors)
    for name, frames in (("x", pairs.x), ("y", pairs.y)):
        assert (torch.from_numpy(made[name]) * QUANTUM - frames).abs().max() <= 0.52 * QUANTUM


def test_branches_come_by_their_odds_and_fix_turn_and_pace():
    factors = Crossing(odds=(1, 2, 3, 6)).draw(6000, generator())
    counts = torch.bincount(factors["branch"][:, 0], minlength=4)
    assert stats.chisquare(counts, np.array([1, 2, 3, 6]) * 500).pvalue > 0.001
    ways = torch.cat([factors["turn"], factors["pace"]], 1)
    assert torch.equal(ways, torch.tensor(WAYS)[factors["branch"][:, 0]])
    made = FOUR.integers(4000, np.random.RandomState(0))
    assert stats.chisquare(np.bincount(made["branch"][:, 0]), np.array([4, 3, 2, 1]) * 400).pvalue > 0.001


def test_open_square_is_left_any_way_at_any_pace():
    factors = OPEN.draw(4000, generator())
    assert "branch" not in factors and OPEN.branches == 0
    assert stats.kstest(factors["turn"][:, 0], stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert stats.kstest(factors["pace"][:, 0], stats.uniform(SLOWEST, 1 - SLOWEST).cdf).pvalue > 0.001
    with pytest.raises(ValueError, match="open: expected a crossing with branches"):
        OPEN.branch(factors)


@WORLDS
def test_predictable_factors_are_uniform_and_held_out_headings_are_not_seen(world):
    for unseen in (False, True):
        factors = world.draw(3000, generator(1), unseen)
        for name, (low, high) in RANGES.items():
            assert stats.kstest(factors[name][:, 0], stats.uniform(low, high - low).cdf).pvalue > 0.001
        band = ((factors["heading"] + HEADING) / (2 * HEADING) * world.bands).floor().long()
        assert (band % 2 == int(unseen)).double().mean() > 0.999


def test_oracle_of_the_open_square_knows_true_pairs_from_others():
    factors = drawn(OPEN, 300)
    assert OPEN.futures(factors).shape == (300, GRID[0] * GRID[1], OPEN.frames, 2)
    other = {name: value.roll(1, 0) for name, value in factors.items()}
    true, wrong = OPEN.oracle(factors, factors), OPEN.oracle(factors, other)
    assert float(true.max()) < 0.5 and float((wrong > 1).double().mean()) > 0.3


def test_alternatives_show_every_branch_with_textures_of_their_own():
    factors, clips = FOUR.draw(6, generator()), FOUR.alternatives(FOUR.draw(6, generator()), generator(2))
    for m, (turn, pace) in enumerate(WAYS):
        way = {"branch": torch.full((6, 1), m), "turn": torch.full((6, 1), turn), "pace": torch.full((6, 1), pace)}
        plain = FOUR.render(factors | way).y
        difference, bright = clips[:, m] - plain, plain > 2.4  # the car, whose middle hides the ground
        noise = difference[bright].std()
        assert difference[bright].abs().max() <= FOUR.noise + 1e-5 and noise > 0.5 * FOUR.noise
        assert difference[~bright].std() > 1.5 * noise  # where the ground is textured


def test_car_stays_in_the_picture():
    assert FOUR.last_arc + RANGES["right"][1] < 16.5
    positions = OPEN.positions(OPEN.draw(2000, generator()))
    assert float(positions.abs().max()) < 17


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 9}, "frames: expected a car that stays in the picture"),
        ({"odds": (1, 2, 3)}, "odds: expected 4 whole odds above 0"),
        ({"odds": (1, 2, 3, 0)}, "odds: expected 4 whole odds above 0"),
    ],
)
def test_numbers_that_describe_no_world_are_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Crossing(**options)
