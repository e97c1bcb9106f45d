"""Worlds of video: the car's way from the formula, integers against floating point, who sees which factor."""

import re
from dataclasses import replace
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
from jepa.worlds.crossing import GRID, HEADING, SLOWEST, WAYS, Crossing
from jepa.worlds.fork import RANGES, Fork
from jepa.worlds.scene import ASPHALT, CAR, FIELD, ROAD, TREE, paint

SHORT, LONG, LOUD = Fork(frames=2), Fork(high=0.85), Fork(frames=2, noise=0.25)
LARGE = Fork(size=40, turns=(-1.0, 0.25, 1.0), odds=(1, 2, 5))
UNEVEN = Fork(frames=2, turns=LARGE.turns, odds=LARGE.odds)
STRAIGHT = Fork(size=64, frames=3, turns=(-1.0, 0.0, 1.0), odds=(1, 1, 1))
FOUR, OPEN = Crossing(), Crossing(open=True)
WORLDS = {
    "short": SHORT, "large": LARGE, "straight": STRAIGHT,
    "four": FOUR, "open": OPEN, "large crossing": Crossing(size=40, frames=2),
}  # fmt: skip
every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
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
    made = {name: value.long() if name == "branch" else value.double() for name, value in made.items()}
    return torch.cat([made.pop("x"), made.pop("y")], 1), made


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
    fork, k = isinstance(world, Fork), clock(world)
    unit, middle = (f["angle"], f["place"]) if fork else (torch.pi / 2, f["right"])

    def heads(turns):
        return 1j * torch.exp(-1j * (f["heading"] + turns * unit))

    before, turns = heads(torch.zeros(1)), torch.tensor(world.turns).double() if fork else f["turn"]
    taken = turns[f["branch"]] if fork else f["turn"]
    direction = torch.where(k < 0, before, heads(taken if turn is None else turn))
    arc = (f["speed"] * k - f["approach"]) * torch.where(k < 0, 1.0, 1.0 if fork else f["pace"])
    position = middle + direction * (arc - 1j * f["lane"]) + (k > 0) * torch.view_as_complex(shift).unsqueeze(1)
    textures = torch.cat([f["texture_x"], f["texture_y"]], 1).reshape(len(position), -1, 8)
    rays = torch.cat([-before, heads(turns)], 1) if fork else before * torch.tensor([1, -1j, -1, 1j])
    rays, position, direction = map(torch.view_as_real, (rays, position, direction))
    return torch.cat([middle, torch.zeros_like(middle)], 1), rays, textures, position, direction


@every_world
def test_frames_from_the_formula(world):
    factors, plain = drawn(world, 4), torch.zeros(4, 2).double()
    if isinstance(world, Fork):
        factors["branch"] = torch.arange(4).unsqueeze(1) % world.branches
    shift = torch.tensor([[1.5, -2.0], [0.0, 0.7], [-3.0, 0.0], [0.0, 0.0]]).double()
    turn = torch.tensor([[0.4], [-0.9], [0.0], [1.0]]).double()
    for off in ({"shift": shift}, {"shift": shift, "turn": turn}, {"shift": plain, "turn": turn}, {"shift": plain}):
        found, expected = clip(world.render(factors, **off)), scene(world, factors, **off)
        torch.testing.assert_close(found, paint(world.ground(world.size), *expected), rtol=0, atol=1e-11)
    assert torch.equal(found, clip(world.render(factors)))
    torch.testing.assert_close(world.positions(factors), expected[3])
    single = factors | {name: value.float() for name, value in factors.items() if name != "branch"}
    assert clip(world.render(single)).dtype == torch.float32
    torch.testing.assert_close(clip(world.render(single)).double(), found, rtol=0, atol=5e-5)


@pytest.mark.parametrize("world", [FOUR, OPEN, WORLDS["large crossing"]], ids=["four", "open", "large"])
def test_integers_are_the_crossing_to_one_quantum(world):
    made, factors = from_integers(replace(world, noise=0.0), 40, 3)
    assert_one_rounding(made, clip(world.render(factors)))


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
    assert max(CAR, TREE, FIELD, -ASPHALT) + 0.25 <= 127 * QUANTUM


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


@pytest.mark.parametrize("source", ["torch", "integers"])
def test_branches_come_by_their_odds_and_fix_turn_and_pace(source):
    world = Crossing(odds=(1, 2, 3, 6), frames=2)
    factors = world.draw(3000, generator()) if source == "torch" else from_integers(world, 3000)[1]
    counts = torch.bincount(factors["branch"][:, 0], minlength=4)
    assert stats.chisquare(counts, np.array([1, 2, 3, 6]) * 250).pvalue > 0.001
    ways = torch.cat([factors["turn"], factors["pace"]], 1)
    assert torch.equal(ways.float(), torch.tensor(WAYS)[factors["branch"][:, 0]])


@pytest.mark.parametrize("source", ["torch", "integers"])
def test_open_square_is_left_any_way_at_any_pace(source):
    factors = OPEN.draw(4000, generator()) if source == "torch" else from_integers(OPEN, 1000)[1]
    assert "branch" not in factors and OPEN.branches == 0
    assert stats.kstest(factors["turn"][:, 0], stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert stats.kstest(factors["pace"][:, 0], stats.uniform(SLOWEST, 1 - SLOWEST).cdf).pvalue > 0.001
    with pytest.raises(ValueError, match="open: expected a crossing with branches"):
        OPEN.branch(factors)


@pytest.mark.parametrize("world", [FOUR, OPEN], ids=["four", "open"])
def test_predictable_factors_are_uniform_and_held_out_headings_are_not_seen(world):
    for unseen in (False, True):
        factors = world.draw(3000, generator(1), unseen)
        for name, (low, high) in world.ranges.items():
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


def test_car_on_a_crossing_stays_in_the_picture():
    assert FOUR.last_arc + FOUR.ranges["right"][1] < 16.5
    positions = OPEN.positions(OPEN.draw(2000, generator()))
    assert float(positions.abs().max()) < 17


@pytest.mark.parametrize("kind, wrong, expected", [
    (Fork, {"size": 31}, "size: expected at least 32 pixels"),
    (Fork, {"frames": 1}, "frames: expected at least 2, for a speed to show"),
    (Fork, {"frames": 5}, "frames: expected a car that stays in the picture"),
    *[(Fork, {"odds": odds}, "turns, odds: expected as many whole odds as turns")
      for odds in [(1, 1, 1), (1, 0), (1.5, 1.5), ()]],
    *[(Fork, {"turns": turns}, "turns: expected numbers from -1 to 1") for turns in [(-1.01, 1.0), (0.5, np.nan)]],
    *[(Fork, {"low": low}, "low, high: expected angles 0.2 <= low < high <= 0.85") for low in (0.19, Fork.high)],
    (Fork, {"high": 0.86}, "low, high: expected angles 0.2 <= low < high <= 0.85"),
    (Fork, {"bands": 1}, "bands: expected at least 2, some seen and some not"),
    *[(Fork, {"noise": noise}, "noise: expected a half-width from 0 to 0.25") for noise in (-0.01, 0.26)],
    (Crossing, {"frames": 9}, "frames: expected a car that stays in the picture"),
    *[(Crossing, {"odds": odds}, "odds: expected 4 whole odds above 0") for odds in [(1, 2, 3), (1, 2, 3, 0)]],
])  # fmt: skip
def test_numbers_that_describe_no_world_are_refused(kind, wrong, expected):
    found = re.escape(str(*wrong.values()))
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}, found .*{found}"):
        kind(**wrong)


def test_branches_may_be_given_as_lists():
    config = configure({"world": {"name": "fork", "turns": [-1, 0.25, 1.0], "odds": [1, 2, 5]}, "world.frames": 2})
    world = build.world(config)
    assert world == UNEVEN and hash(world) == hash(UNEVEN) and build.world(configure(to_dict(config))) == UNEVEN
    assert torch.equal(clip(world.sample(3, generator())), clip(UNEVEN.sample(3, generator())))
    assert np.array_equal(*[w.integers(3, np.random.RandomState(0))["y"] for w in (world, UNEVEN)])
    with pytest.raises(ValueError, match=r"^turns, odds: expected as many .*, found \(-1.0, 1.0\) and \(2,\)$"):
        build.world(configure({"world": {"name": "fork", "odds": [2]}}))
