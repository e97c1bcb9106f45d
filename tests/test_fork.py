"""The world `fork`: the car's way from the formula, integers against floating point, who sees which factor."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from conftest import generator
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from jepa.runs import build
from jepa.runs.config import configure, to_dict
from jepa.worlds.clips import QUANTUM, UNIT
from jepa.worlds.fork import RANGES, Fork
from jepa.worlds.scene import ASPHALT, CAR, ROAD, TREE, crowns, paint

SHORT, LONG, LOUD = Fork(frames=2), Fork(high=0.85), Fork(frames=2, noise=0.25)
LARGE = Fork(size=40, turns=(-1.0, 0.25, 1.0), odds=(1, 2, 5))
UNEVEN = Fork(frames=2, turns=LARGE.turns, odds=LARGE.odds)
STRAIGHT = Fork(size=64, frames=3, turns=(-1.0, 0.0, 1.0), odds=(1, 1, 1))
NAMES = ("approach", "speed", "lane", "heading", "place", "angle", "branch", "texture_x", "texture_y")


def drawn(world, count, seed=0):
    """Factors in double precision."""
    factors = world.draw(count, generator(seed))
    return factors | {name: value.double() for name, value in factors.items() if name != "branch"}


def clip(pairs):
    """All frames [B, 2 T, S, S]."""
    return torch.cat([pairs.x, pairs.y], 1)


def in_units(world, arrays):
    """Frames and factors of the integer generator, in the world's units."""
    made = {name: torch.from_numpy(array) * world.quanta[name] for name, array in arrays.items()}
    made = {name: value if name == "branch" else value.double() for name, value in made.items()}
    return torch.cat([made.pop("x"), made.pop("y")], 1), made | {"branch": made["branch"].long()}


@cache
def from_integers(world, count, seed=0):
    return in_units(world, world.integers(count, np.random.RandomState(seed)))


def changed(a, b):
    return (a != b).flatten(1).any(1)


def assert_one_rounding(frames, expected):
    assert (frames - expected).abs().max() <= 0.52 * QUANTUM  # half a quantum, and a little from the arithmetic before


def clock(world):
    """How many frames before or behind the fork each frame is."""
    return torch.tensor([k for k in range(-world.frames, world.frames + 1) if k])


def scene(world, f, shift, turn=None):
    """Arguments of `paint`; a complex number is right + i up."""
    k, turns = clock(world), torch.tensor(world.turns).double()
    behind = 1j * torch.exp(-1j * (f["heading"] + turns * f["angle"]))
    before, branch = 1j * torch.exp(-1j * f["heading"]), behind.gather(1, f["branch"])
    branch = branch if turn is None else 1j * torch.exp(-1j * (f["heading"] + turn * f["angle"]))
    direction = torch.where(k < 0, before, branch)
    position = f["place"] + direction * (f["speed"] * k - f["approach"] - 1j * f["lane"])
    position += (k > 0) * torch.view_as_complex(shift).unsqueeze(1)
    textures = torch.cat([f["texture_x"], f["texture_y"]], 1).reshape(len(position), -1, 8)
    rays, position, direction = map(torch.view_as_real, (torch.cat([-before, behind], 1), position, direction))
    origin = torch.cat([f["place"], torch.zeros_like(f["place"])], 1)
    return origin, rays, textures, position, direction


@pytest.mark.parametrize("world", [SHORT, LARGE, STRAIGHT], ids=["short", "large", "straight"])
def test_frames_from_the_formula(world):
    factors, plain = drawn(world, 3), torch.zeros(3, 2).double()
    factors["branch"] = torch.arange(3).unsqueeze(1) % len(world.turns)
    shift, turn = torch.tensor([[1.5, -2.0], [0.0, 0.7], [-3.0, 0.0]]).double(), torch.tensor([[0.4], [-0.9], [0.0]])
    for off in ({"shift": shift}, {"shift": shift, "turn": turn}, {"shift": plain, "turn": turn}, {"shift": plain}):
        found, expected = clip(world.render(factors, **off)), scene(world, factors, **off)
        torch.testing.assert_close(found, paint(crowns(world.size), *expected), rtol=0, atol=1e-11)
    assert torch.equal(found, clip(world.render(factors)))
    torch.testing.assert_close(world.positions(factors), expected[3])
    single = factors | {name: value.float() for name, value in factors.items() if name != "branch"}
    assert clip(world.render(single)).dtype == torch.float32
    torch.testing.assert_close(clip(world.render(single)).double(), found, rtol=0, atol=5e-5)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([32, 33, 48]), st.integers(2, 4), st.integers(2, 12),
    st.lists(st.tuples(st.floats(-1, 1, width=32), st.integers(1, 9)), min_size=1, max_size=4), st.just(3),
)  # fmt: skip
@example(0, 32, 2, 9, [(-1.0, 1), (1.0, 1)], 260)  # more than are painted at once
def test_integers_are_the_world_to_one_quantum(seed, size, frames, bands, branches, count):
    world = Fork(size, frames, *zip(*branches, strict=True), bands=bands, noise=0.0)
    made, factors = from_integers(world, count, seed)
    assert_one_rounding(made, clip(world.render(factors)))


@pytest.mark.parametrize("noise, loudest", [(0.25, 8), (0.1, 3), (0.2, None)])
def test_noise_is_uniform(noise, loudest):
    if loudest:  # in quanta of the integers
        (noisy, factors), (calm, same) = from_integers(Fork(noise=noise), 12), from_integers(Fork(noise=0.0), 12)
        assert all(torch.equal(factors[name], same[name]) for name in NAMES)  # drawn last, so that the rest is the same
        grain = (noisy - calm) / QUANTUM + loudest
        assert stats.chisquare(np.bincount(grain.long().flatten(), minlength=2 * loudest + 1)).pvalue > 0.001
        assert grain.max() == 2 * loudest
    else:
        pairs = Fork(noise=noise).sample(12, generator())
        grain = (clip(pairs) - clip(Fork().render(pairs.factors))).double()
        assert grain.abs().max() < noise + 1e-5
        assert stats.kstest(grain.flatten(), stats.uniform(-noise, 2 * noise).cdf).pvalue > 0.001
    neighbors = grain.reshape(-1, 8).T
    for rows in (grain.transpose(0, 1).flatten(1), grain.flatten(1), neighbors):
        assert (torch.corrcoef(rows) - torch.eye(len(rows))).abs().max() < 4.5 / rows.shape[1] ** 0.5
    assert Fork(33, 3).draw_noise(1, generator()).shape == (1, 6, 33, 33)  # pixels that are no multiple of eight


class Extreme:
    """A generator that only ever draws the largest number, or the least."""

    def __init__(self, largest):
        self.largest = largest

    def randint(self, low, high=None, size=None, dtype=int):
        low, high = (0, low) if high is None else (low, high)
        return np.full(size, high - 1 if self.largest else low, dtype)


@pytest.mark.parametrize("largest", [False, True])
def test_brightest_and_darkest_frames_fit_their_integers(largest):
    arrays = LOUD.integers(1, Extreme(largest))
    assert all(array.dtype == (np.int8 if name in "xy" else np.int16) for name, array in arrays.items())
    made, factors = in_units(LOUD, arrays)
    assert_one_rounding(made, clip(LOUD.render(factors)) + (0.25 if largest else -0.25))
    assert max(CAR, TREE, -ASPHALT) + 0.25 <= 127 * QUANTUM


@pytest.mark.parametrize("world", [LONG, LARGE, STRAIGHT], ids=["long", "large", "straight"])
def test_car_stays_on_the_road_and_in_the_picture(world):
    ends, k = RANGES | {"angle": (world.low, world.high)}, clock(world)
    values = [torch.linspace(*ends[name], 7 if name in ("heading", "angle") else 2).double() for name in ends]
    corners = dict(zip(ends, torch.cartesian_prod(*values).T.unsqueeze(2), strict=True))
    every = {name: torch.cat([value, drawn(world, 500)[name]]) for name, value in corners.items()}
    for branch, turn in enumerate(world.turns):
        f = every | {"branch": torch.full((len(every["place"]), 1), branch)}
        p, course = world.positions(f), f["heading"] + (k > 0) * turn * f["angle"]  # in frame k
        torch.testing.assert_close(world.futures(f)[:, branch], p[:, world.frames :])
        x, y = p[..., 0] - f["place"], p[..., 1]
        arc, lane = x * course.sin() + y * course.cos(), x * course.cos() - y * course.sin()
        assert (arc * k.sign() > 0.3).all()  # x lies before the fork, y behind it
        assert float(arc.abs().max()) == pytest.approx(world.last_arc)
        assert lane.abs().max() < ROAD[1] - 1  # asphalt below the car's middle and a unit to either side
        assert p.abs().max() < (16 if world is LONG else 15.5)  # the picture's edge, and half a unit within it


@pytest.mark.parametrize("source", ["torch", "integers"])
@pytest.mark.parametrize("world", [SHORT, UNEVEN], ids=["even", "uneven"])
def test_factors_are_uniform_and_independent(world, source):
    factors = world.draw(4000, generator(), unseen=True) if source == "torch" else from_integers(world, 1500)[1]
    f = {name: factors[name].double().numpy() for name in NAMES}
    branch, count = f["branch"][:, 0].astype(int), len(f["branch"])
    expected = count * np.array(world.odds) / sum(world.odds)
    assert stats.chisquare(np.bincount(branch, minlength=len(expected)), expected).pvalue > 0.001
    angle = (f.pop("angle") - world.low) / (world.high - world.low) * 9  # in bands; every second one is drawn
    band = np.round((angle[:, 0] - 1.5) / 2).astype(int)
    assert stats.chisquare(np.bincount(band, minlength=4)).pvalue > 0.001 and len(np.unique(band)) == 4
    uniform = [(f[name] - low) / (high - low) for name, (low, high) in RANGES.items()]
    uniform += [angle - 2 * band[:, None] - 1, (f["texture_x"] + 1) / 2, (f["texture_y"] + 1) / 2]
    columns = np.concatenate(uniform, axis=1).T
    assert len(columns) == 6 + 2 * 2 * 8 and min(stats.kstest(column, "uniform").pvalue for column in columns) > 0.001
    every = np.stack([*columns, branch, band])
    assert np.abs(np.corrcoef(every) - np.eye(len(every))).max() < 4.5 / count**0.5
    quarters = [branch, band, *np.digitize(columns[:8], [0.25, 0.5, 0.75])]
    for i, quarter in enumerate(quarters):
        for other in (*quarters[:i], np.roll(quarter, 1)):  # the others, and its own in the next clip
            assert stats.chi2_contingency(stats.contingency.crosstab(quarter, other).count).pvalue > 0.001


@pytest.mark.parametrize("low, high, bands", [(0.4, 0.85, 9), (0.2, 0.85, 2), (0.3, 0.55, 4), (0.5, 0.7, 3)])
def test_angles_seen_and_unseen_share_no_band(low, high, bands):
    world, edges = Fork(frames=2, low=low, high=high, bands=bands), np.linspace(low, high, bands + 1)
    training, held_out = (world.sample(500, generator(), unseen).factors["angle"].numpy() for unseen in (False, True))
    for angles, first in ((training, 0), (held_out, 1), (from_integers(world, 100)[1]["angle"].numpy(), 1)):
        inside = (angles >= edges[:-1] - UNIT / 2) & (angles <= edges[1:] + UNIT / 2)  # integers' edges are rounded
        assert inside[:, first::2].any(1).all() and inside[:, first::2].any(0).all()
        assert angles.min() >= low - UNIT / 2 and angles.max() <= high + UNIT / 2


@pytest.mark.parametrize("name", NAMES)
def test_who_shows_which_factor(name):
    label = {"branch": "unpredictable", "texture_x": "irrelevant", "texture_y": "irrelevant"}.get(name, "predictable")
    assert SHORT.factor_labels[name] == label
    before, redrawn = drawn(SHORT, 24), drawn(SHORT, 24, seed=1)[name]
    after, moved = before | {name: redrawn}, changed(redrawn, before[name])
    a, b = SHORT.render(before), SHORT.render(after)
    assert torch.equal(changed(a.x, b.x), moved & (label == "predictable" or name == "texture_x"))
    assert torch.equal(changed(a.y, b.y), moved & (name != "texture_x"))
    assert torch.equal(changed(SHORT.positions(before), SHORT.positions(after)), moved & (label != "irrelevant"))


def test_clips_are_drawn_and_rendered_with_noise():
    stream, made = generator(), LARGE.sample(4, generator())
    factors = LARGE.draw(4, stream)
    assert torch.equal(clip(made), clip(LARGE.render(factors, LARGE.draw_noise(4, stream))))
    assert torch.equal(LARGE.branch(factors), factors["branch"][:, 0])
    assert made.x.shape[1:] == made.y.shape[1:] == LARGE.widths[0] == (4, 40, 40)


def test_bounds_themselves_are_allowed():
    Fork(32, 4, turns=(-1, 1), odds=(1, 1), low=0.2, high=0.85, bands=2, noise=0.25)
    with pytest.raises(ValueError, match=r"^turns, odds: expected as many whole odds as turns, found \(\) and \(\)$"):
        Fork(turns=(), odds=())
    bend = Fork(frames=2, turns=(1,), odds=(3,), noise=0.0)
    assert bend.sample(1, generator()).y.shape == (1, 2, 32, 32)
    with pytest.raises(ValueError, match="^turns: expected at least 2 branches to tell apart, found 1$"):
        bend.branch(bend.draw(3, generator()))


@pytest.mark.parametrize("wrong, expected", [
    ({"size": 31}, "size: expected at least 32 pixels"),
    ({"frames": 1}, "frames: expected at least 2, for a speed to show"),
    ({"frames": 5}, "frames: expected a car that stays in the picture"),
    *[({"odds": o}, "turns, odds: expected as many whole odds as turns") for o in [(1, 1, 1), (1, 0), (1.5, 1.5), ()]],
    *[({"turns": turns}, "turns: expected numbers from -1 to 1") for turns in [(-1.01, 1.0), (0.5, float("nan"))]],
    *[({"low": low}, "low, high: expected angles 0.2 <= low < high <= 0.85") for low in (0.19, Fork.high)],
    ({"high": 0.86}, "low, high: expected angles 0.2 <= low < high <= 0.85"),
    ({"bands": 1}, "bands: expected at least 2, some seen and some not"),
    *[({"noise": noise}, "noise: expected a half-width from 0 to 0.25") for noise in (-0.01, 0.26)],
])  # fmt: skip
def test_numbers_that_describe_no_world_are_refused(wrong, expected):
    found = re.escape(str(*wrong.values()))
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}, found .*{found}"):
        Fork(**wrong)


def test_branches_may_be_given_as_lists():
    config = configure({"world": {"name": "fork", "turns": [-1, 0.25, 1.0], "odds": [1, 2, 5]}, "world.frames": 2})
    world = build.world(config)
    assert world == UNEVEN and hash(world) == hash(UNEVEN) and build.world(configure(to_dict(config))) == UNEVEN
    assert torch.equal(clip(world.sample(3, generator())), clip(UNEVEN.sample(3, generator())))
    assert np.array_equal(*[w.integers(3, np.random.RandomState(0))["y"] for w in (world, UNEVEN)])
    with pytest.raises(ValueError, match=r"^turns, odds: expected as many .*, found \(-1.0, 1.0\) and \(2,\)$"):
        build.world(configure({"world": {"name": "fork", "odds": [2]}}))
