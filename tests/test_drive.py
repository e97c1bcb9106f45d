"""The world drive: its laws against closed forms, its pictures, stored clips, and what its oracle says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import generator
from torch import Tensor

from jepa.batches import checked
from jepa.data import HeldOut, load, write
from jepa.runs.config import Part
from jepa.runs.data import generate, made_by
from jepa.worlds.drive import Drive
from jepa.worlds.drive.laws import coefficients, damped
from jepa.worlds.drive.oracle import damped_r2, place_error, place_r2, predictability, road_r2, speed_r2
from jepa.worlds.drive.pictures import BASE, COLORS, CROWN, around, crowns, middles, scenery
from jepa.worlds.drive.ring import LAP, MIDDLE, height, offsets, positions
from jepa.worlds.drive.stored import normal_integers

WORLD = Drive()
SHAPES = {"place": 1, "jitter": 1, "wobble": 1, "other": 2, "speed": 1, "road": 1, "position": 2, "texture": 8}


def explained(x: Tensor, y: Tensor) -> float:
    """Return R² of a least-squares regression of y [N, K] on x [N, D] and a constant."""
    x, y = x - x.mean(0), y - y.mean(0)
    rest = y - x @ torch.linalg.lstsq(x, y).solution
    return 1 - float(rest.square().mean() / y.square().mean())


@pytest.fixture(scope="module")
def many() -> dict[str, Tensor]:
    """Return the factors of 20,000 clips of 41 frames, in double precision."""
    factors = WORLD.factors(20000, 40, generator())
    return {name: value.double() if value.is_floating_point() else value for name, value in factors.items()}


@pytest.mark.parametrize(("roads", "size", "colors"), [(1, 16, "plain"), (2, 32, "other"), (3, 64, "plain")])
def test_clips_are_batches_decided_by_their_generator(roads, size, colors):
    world = Drive(roads=roads, size=size, colors=colors)
    one, two, other = (world.trajectories(5, 3, generator(seed)) for seed in (0, 0, 1))
    assert checked(one) is one and one.frames.shape == (5, 4, 3, size, size) and one.frames.shape[2:] == world.widths[0]
    assert world.widths == (world.widths[2], one.a.shape[-1], (3, size, size)) and one.static.shape == (5, 0)
    assert {name: tuple(value.shape) for name, value in one.factors.items()} == {
        name: (5, 4, width) for name, width in SHAPES.items()
    }
    assert world.factor_labels.keys() < SHAPES.keys() and one.factors["road"].dtype == torch.int64
    assert torch.equal(one.frames, two.frames) and not torch.equal(one.frames, other.frames)
    for name, value in world.factors(5, 3, generator()).items():
        assert torch.equal(value, one.factors[name]) and torch.equal(value, two.factors[name])
    assert torch.equal(
        one.factors["position"], positions(*(one.factors[n] for n in ("place", "road", "wobble")), roads)
    )


def test_everything_is_in_the_default_precision():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert checked(WORLD.trajectories(2, 2, generator())).factors["place"].dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", ["jitter", "wobble", "other"])
def test_noises_are_stationary_and_correlate_in_time_as_critically_damped_ones(many, name):
    sd, time = getattr(WORLD, name), getattr(WORLD, f"{name}_time")
    for t in (0, 20, 40):
        assert float(many[name][:, t].mean()) == pytest.approx(0, abs=0.04 * sd)
        assert float(many[name][:, t].std()) == pytest.approx(sd, rel=0.02)
    for lag in (1, 3, 8, 20):
        found = (many[name][:, lag:] * many[name][:, :-lag]).mean() / sd**2
        assert float(found) == pytest.approx((1 + lag / time) * math.exp(-lag / time), abs=0.02)
    assert float((many["wobble"] * many["jitter"]).mean()) == pytest.approx(0, abs=0.05)
    assert float(many["other"].prod(-1).mean()) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("time", [0.5, 4.0, 30.0])
def test_states_are_those_of_the_differential_equation(time):
    transition, spread = coefficients(torch.tensor([time], dtype=torch.float64))
    drift = torch.tensor([[0.0, 1 / time], [-1 / time, -2 / time]], dtype=torch.float64)  # of (x, τ x′)
    torch.testing.assert_close(transition[0], torch.linalg.matrix_exp(drift))
    torch.testing.assert_close((transition @ transition.mT + spread @ spread.mT)[0], torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("horizon", [1, 2, 4, 8, 16])
def test_damped_noise_is_foreseen_from_its_state_as_well_as_the_oracle_says(horizon):
    normals = torch.randn(20, 2, 20000, 2, generator=generator(), dtype=torch.float64)
    time = torch.tensor([4.0, 6.0], dtype=torch.float64)
    states = damped(normals, time)
    for c in range(2):
        found = explained(states[3, c], states[3 + horizon, c, :, :1])
        assert found == pytest.approx(damped_r2(horizon, float(time[c])), abs=0.015)


@pytest.mark.parametrize(("window", "horizon"), [(1, 4), (2, 1), (2, 16), (8, 8), (16, 24)])
def test_place_and_speed_are_foreseen_from_a_window_as_well_as_the_oracle_says(many, window, horizon):
    place, last = many["place"][..., 0], window - 1
    seen = place[:, :last] - place[:, last:window]
    ahead = place[:, last + horizon, None] - place[:, last:window]
    error = math.sqrt((1 - explained(seen, ahead)) * float(ahead.var())) if last else float(ahead.std())
    assert error == pytest.approx(place_error(window, horizon, WORLD), rel=0.02)
    found = explained(seen, many["speed"][:, 0]) if last else 0.0
    assert found == pytest.approx(speed_r2(window, WORLD), abs=0.01)
    if window == 8:  # the rest is nearly normal
        seen, ahead = seen - seen.mean(0), ahead - ahead.mean(0)
        rest = ahead - seen @ torch.linalg.lstsq(seen, ahead).solution
        ring = torch.polar(torch.ones_like(rest), 2 * math.pi / LAP * rest)
        assert float(ring.mean().abs().square()) == pytest.approx(place_r2(window, horizon, WORLD), abs=0.01)


def test_prototype_measured_about_the_same_limits():
    world = Drive(slow=0.6, fast=1.8)
    for window, errors in {2: (1.8, 3.4, 6.5, 12.5), 8: (1.6, 2.7, 4.8, 8.7), 32: (1.2, 1.8, 2.4, 3.7)}.items():
        found = [place_error(window, horizon, world) for horizon in (8, 16, 32, 64)]
        assert found == pytest.approx(errors, rel=0.05)
    assert [speed_r2(n, world) for n in (2, 8, 16, 32)] == pytest.approx([0.68, 0.86, 0.94, 0.98], abs=0.02)


@pytest.mark.parametrize("horizon", [1, 8, 16, 20, 40])
def test_road_is_known_until_the_junction(many, horizon):
    smooth = many["place"] - many["jitter"]
    same = (smooth[:, horizon] / LAP).floor() == (smooth[:, 0] / LAP).floor()
    assert float(same.double().mean()) == pytest.approx(road_r2(horizon, WORLD.slow, WORLD.fast), abs=0.012)
    v = torch.linspace(0.5, 1.9, 100001, dtype=torch.float64)
    expected = float((1 - v * horizon / LAP).clamp(min=0).mean())
    assert road_r2(horizon, 0.5, 1.9) == pytest.approx(expected, abs=1e-4)
    assert road_r2(100, 0.5, 1.9) == 0


def test_the_longer_the_window_the_better_and_the_farther_the_worse():
    table = predictability(WORLD, (1, 2, 4, 8, 16, 32, 64), 8)
    assert table.keys() == WORLD.factor_labels.keys() and table["texture"] == [0] * 7
    for values in table.values():
        assert len(values) == 7 and values == sorted(values, reverse=True) and 0 <= min(values) <= max(values) <= 1
    for horizon in (1, 8, 64):
        errors = [place_error(window, horizon, WORLD) for window in (1, 2, 4, 8, 16, 32, 64)]
        assert errors == sorted(errors, reverse=True)
        assert place_error(3, horizon, Drive(jitter=0.0)) == pytest.approx(0, abs=1e-6)
    assert speed_r2(1, WORLD) == 0 and speed_r2(2, Drive(jitter=0.0)) == pytest.approx(1)


def test_places_lie_on_a_torus_along_x_and_roads_part_and_meet():
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    h = height(LAP * u)
    torch.testing.assert_close(h, h.flip(0))
    assert float(h[0]) == 0 and float(h[100]) == 0 and torch.equal(h[16:85], torch.ones(69, dtype=torch.float64))
    assert (h[:17].diff() > 0).all() and float(h[8]) == pytest.approx(0.5) and float(h[1]) < 0.02
    place = torch.rand(50, 1, generator=generator(), dtype=torch.float64) * 90 - 20
    road, wobble = torch.arange(50).unsqueeze(1) % 3, torch.randn(50, 1, generator=generator(1), dtype=torch.float64)
    one, two = positions(place, road, wobble, 3), positions(place + 2 * LAP, road, wobble, 3)
    torch.testing.assert_close(one, two)
    assert 0 <= float(one[:, 0].min()) and float(one[:, 0].max()) < LAP
    for n in range(50):
        expected = 16 + float(height(place[n])) * (-8, 0, 8)[int(road[n])] + float(wobble[n])
        assert one[n].tolist() == pytest.approx([float(place[n]) % 32, expected])
    assert offsets(2, h).tolist() == [-8, 8] and offsets(1, h).tolist() == [0]


@pytest.mark.parametrize("roads", [2, 3])
def test_road_is_drawn_uniformly_once_a_lap_and_kept_when_the_car_jitters_back(roads):
    world = Drive(roads=roads, slow=0.0, fast=1.0, jitter=6.0, jitter_time=3.0)
    found = world.factors(3000, 80, generator())
    laps, road = (found["place"] / LAP).floor().long(), found["road"]
    back = (laps.diff(dim=1) < 0).any(1)
    assert float(back.double().mean()) > 0.3
    drawn = {}
    for n in range(500):
        for lap, taken in zip(laps[n, :, 0].tolist(), road[n, :, 0].tolist(), strict=True):
            assert drawn.setdefault((n, lap), taken) == taken
    share = torch.bincount(road[:, 0, 0], minlength=roads) / 3000
    torch.testing.assert_close(share, torch.full((roads,), 1 / roads), atol=0.04, rtol=0)
    passed = [(taken, drawn[n, lap + 1]) for (n, lap), taken in drawn.items() if (n, lap + 1) in drawn]
    same = sum(one == two for one, two in passed) / len(passed)
    assert len(passed) > 300 and same == pytest.approx(1 / roads, abs=4 * 0.5 / math.sqrt(len(passed)))


def test_speed_is_constant_and_uniform_as_is_the_place_on_the_ring(many):
    speed, place = many["speed"][..., 0], many["place"][..., 0]
    assert torch.equal(speed, speed[:, :1].expand_as(speed))
    for t in (0, 40):
        bins = torch.histc(torch.remainder(place[:, t], LAP), 8, 0, LAP) / len(place)
        assert float((bins - 1 / 8).abs().max()) < 0.01
    assert 0.5 <= float(speed.min()) < 0.505 and 1.895 < float(speed.max()) <= 1.9
    assert float(speed.mean()) == pytest.approx(1.2, abs=0.01) and float(speed.var()) == pytest.approx(
        1.4**2 / 12, 0.02
    )
    moved = (place - many["jitter"][..., 0]).diff(dim=1)
    torch.testing.assert_close(moved, speed[:, 1:], atol=1e-4, rtol=0)


def test_texture_is_uniform_and_tells_nothing_of_the_next_frame_or_another_group(many):
    texture = many["texture"] / WORLD.texture
    assert float(texture.abs().max()) <= 1 and float(texture.var()) == pytest.approx(1 / 3, rel=0.01)
    assert float((texture[:, 1:] * texture[:, :-1]).mean().abs()) < 0.002
    correlation = torch.einsum("btg,bth->gh", texture, texture) / texture[..., 0].numel() * 3
    torch.testing.assert_close(correlation, torch.eye(8, dtype=torch.float64), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["position", "other"])
@pytest.mark.parametrize("roads", [2, 3])
def test_cars_are_where_their_factors_say(name, roads):
    world = Drive(roads=roads, noise=0.0)
    factors = world.factors(60, 3, generator(2))
    where = factors[name] if name == "position" else factors[name] + MIDDLE
    channel = {"position": 0, "other": 2}[name]
    alone = world.draw(factors)[:, :, channel] - _background(factors, roads)[:, :, channel]
    assert float(alone.amin()) > -1e-5 and float(alone.amax()) <= 1 + 1e-5
    turn = torch.polar(torch.ones(32), middles(32).float() * 2 * math.pi / LAP)
    x = (alone.sum(2) * turn).sum(-1).angle() * LAP / (2 * math.pi)
    y = (alone.sum(3) * middles(32)).sum(-1) / alone.sum((2, 3))
    inside = (where[..., 1] > 5) & (where[..., 1] < 27)
    assert float(inside.double().mean()) > 0.6
    assert float(around(x - where[..., 0]).abs().max()) < 0.01
    assert float((y - where[..., 1])[inside].abs().max()) < 0.02


def _background(factors: dict[str, Tensor], roads: int) -> Tensor:
    """Return pictures [B, T, 3, 32, 32] of roads and trees, from their definition."""
    still, groups = (part.float() for part in scenery(32, roads, "plain"))
    return still + (factors["texture"].view(*factors["texture"].shape, 1, 1, 1) * groups).sum(2)


def test_pictures_go_round_the_ring_and_what_leaves_below_does_not_come_back_above():
    texture = torch.zeros(1, 33, 8)
    place = torch.arange(33.0).view(1, 33, 1) + 0.3
    low = torch.cat([torch.remainder(place, LAP), torch.full_like(place, 20.0)], -1)
    factors = {"position": low, "other": torch.zeros(1, 33, 2), "texture": texture}
    red = Drive().draw(factors)[0, :, 0] - scenery(32, 2, "plain")[0][0].float()
    for t in range(33):
        torch.testing.assert_close(red[t], red[0].roll(t, 1), atol=1e-5, rtol=0)
    away = factors | {"other": torch.full((1, 33, 2), 19.0), "position": low * 0 - 20}
    torch.testing.assert_close(Drive().draw(away)[0, 0, 0], scenery(32, 2, "plain")[0][0].float())
    assert float((Drive().draw(away) - Drive().draw(factors))[0, 0, 2, :4].abs().max()) < 1e-6
    shifted = factors | {"other": factors["other"] + torch.tensor([LAP, 0.0])}
    torch.testing.assert_close(Drive().draw(shifted), Drive().draw(factors))


@pytest.mark.parametrize("colors", ["plain", "other"])
@pytest.mark.parametrize("roads", [2, 3])
def test_a_larger_picture_shows_the_same_map(colors, roads):
    factors = Drive(roads=roads).factors(8, 3, generator())
    small, large = (Drive(roads=roads, size=size, colors=colors).draw(factors) for size in (32, 64))
    halved = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 2).view_as(small)
    assert float((halved - small).abs().max()) < 0.06 and float((halved - small).abs().mean()) < 0.004
    assert float(small.std()) > 0.05


def test_noise_is_uniform_within_its_bounds_and_drawn_by_its_generator():
    factors = WORLD.factors(20, 3, generator())
    clean = WORLD.draw(factors)
    noise = WORLD.draw(factors, generator(1)) - clean
    assert float(noise.abs().max()) <= WORLD.noise + 1e-6 and float(noise.mean().abs()) < 3e-4
    assert float(noise.var()) == pytest.approx(WORLD.noise**2 / 3, rel=0.02)
    assert float((noise[..., 1:] * noise[..., :-1]).mean().abs()) < 2e-5
    assert torch.equal(Drive(noise=0.0).draw(factors, generator(1)), clean)
    assert torch.equal(WORLD.draw(factors, generator(1)), WORLD.draw(factors, generator(1)))


@pytest.mark.parametrize(("roads", "least", "most"), [(2, 4, 5), (3, 3, 5)])
def test_trees_stand_beside_the_roads_in_eight_groups(roads, least, most):
    groups = crowns(64, roads)
    sizes = groups.sum((1, 2)) / (math.tau * (2 * CROWN) ** 2)  # trees of a group, less what the map's edge cuts off
    assert groups.shape == (8, 64, 64) and float(groups.amax()) < 1.2
    assert float(sizes.min()) > least - 0.2 and float(sizes.max()) < most + 0.2
    at = middles(64)
    place = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1] * LAP
    line = torch.stack([place.expand(roads, -1), MIDDLE + height(place) * offsets(roads, place).unsqueeze(1)], -1)
    x, y = around(at - line[..., :1]), at - line[..., 1:]  # [M, 4000, S]
    apart = torch.stack([(x.square() + y[..., i : i + 1].square()).amin((0, 1)).sqrt() for i in range(64)])
    assert float(groups[:, apart < 0.3].amax()) < 0.2 < 0.9 < float(groups[:, apart > 2].amax())
    still, trees = scenery(64, roads, "plain")
    road = (still - BASE * trees.sum(0))[0] / 0.12
    assert float(road.amin()) > -1e-9 and float(road.amax()) < 1 + 1e-9
    assert float(road[apart < 0.3].amin()) > 0.9 and float(road[apart > 3.5].amax()) < 0.1


def test_maps_of_more_roads_have_the_same_trees_but_for_those_in_the_way():
    gone = crowns(32, 2) - crowns(32, 3)
    assert float(gone.amin()) >= 0 and float(gone.amax()) > 0.8 and (gone.amax(0)[[0, 5, 26, 31]] < 1e-3).all()


def test_palettes_show_the_same_in_other_hues():
    for name in ("car", "other", "trees"):
        plain, other = (COLORS[palette][name] for palette in ("plain", "other"))
        assert sorted(plain) == sorted(other) and max(range(3), key=plain.__getitem__) != max(
            range(3), key=other.__getitem__
        )
    for palette in COLORS.values():
        assert len({max(range(3), key=palette[name].__getitem__) for name in ("car", "other", "trees")}) == 3
    factors = WORLD.factors(2, 2, generator())
    assert not torch.allclose(WORLD.draw(factors), Drive(colors="other").draw(factors), atol=0.1)


def test_integers_are_decided_by_their_generator_and_the_same_on_every_machine():
    world = Drive(held_out_frames=20)
    one, two, other = (world.integers(50, np.random.RandomState(seed)) for seed in (0, 0, 1))
    assert one.keys() == world.quanta.keys()
    assert {name: (array.shape, array.dtype) for name, array in one.items()} == {
        "x": ((50, 20, 4), np.int32),
        "y": ((50, 20, 1), np.int8),
        "speed": ((50, 1), np.int16),
        "texture": ((50, 20, 8), np.int8),
    }
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes() and array.tobytes() != other[name].tobytes()
    first = Drive(held_out_frames=3).integers(2, np.random.RandomState(0))
    assert first["x"][0].tolist() == [[7872, 170, -1838, 286], [8078, 392, -1828, 368], [8288, 791, -1563, 325]]
    assert first["speed"].flatten().tolist() == [3701, 5312] and first["y"].flatten().tolist() == [1, 1, 0, 1, 1, 1]
    assert first["texture"][0, 0].tolist() == [50, 37, -27, -32, -10, -13, -43, -6]


def test_stored_clips_follow_the_same_laws(tmp_path, many):
    world = Drive(held_out_frames=41)
    write(tmp_path / "set", world.integers(4000, np.random.RandomState(3)), world.quanta, {})
    found = world.clips_of(load(tmp_path / "set"))
    assert found.keys() == SHAPES.keys() - {"jitter"}
    for name, value in found.items():
        assert value.shape == (4000, 41, SHAPES[name]) and value.dtype == WORLD.factors(1, 1, generator())[name].dtype
    for name in ("wobble", "other", "speed", "texture"):
        stored, drawn = found[name].double(), many[name][:4000]
        for t in (0, 40):
            assert float(stored[:, t].mean()) == pytest.approx(float(many[name].mean()), abs=0.05 * float(drawn.std()))
            assert float(stored[:, t].std()) == pytest.approx(float(many[name].std()), rel=0.04)
        for lag in (1, 4, 12):
            both = [(value[:, lag:] * value[:, :-lag]).mean() / value.square().mean() for value in (stored, many[name])]
            assert float(both[0]) == pytest.approx(float(both[1]), abs=0.03)
    for lag in (1, 4, 12):
        both = [(part["place"].diff(n=1, dim=1) - part["speed"][:, 1:]).double() for part in (found, many)]
        both = [value.unfold(1, lag, 1).sum(-1).var() for value in both]
        assert float(both[0]) == pytest.approx(float(both[1]), rel=0.04)
    place, road = found["place"], found["road"]
    assert float((torch.histc(place[:, 9] % LAP, 8, 0, LAP) / 4000 - 1 / 8).abs().max()) < 0.025
    assert float(road.double().mean()) == pytest.approx(0.5, abs=0.02)
    kept = (place / LAP).floor().diff(dim=1) == 0
    assert (road.diff(dim=1)[kept] == 0).all() and float((road.diff(dim=1)[~kept] == 0).double().mean()) < 0.6
    assert torch.equal(found["position"], positions(place, road, found["wobble"], 2))
    clips = {name: value[:3] for name, value in found.items()}
    assert world.draw(clips, generator()).shape == (3, 41, 3, 32, 32)


def test_normal_integers_are_standard_normal():
    numbers = normal_integers((200000,), np.random.RandomState(0)) / 2**16
    assert abs(numbers.mean()) < 0.01 and numbers.std() == pytest.approx(1, abs=0.01)
    assert (numbers**4).mean() == pytest.approx(3 - 0.1, abs=0.1) and (np.abs(numbers) < 1).mean() == pytest.approx(
        0.68, abs=0.01
    )


def test_a_stored_set_is_decided_by_its_laws_and_serves_all_looks(tmp_path):
    looks = Part("drive", {"size": 64, "colors": "other", "noise": 0.0, "roads": 3, "held_out_frames": 4})
    assert made_by(looks) == {"world": {"name": "drive", "roads": 3, "held_out_frames": 4}}
    generate(tmp_path / "set", looks, 4, seed=1)
    held_out = load(tmp_path / "set", made_by(looks))
    assert Drive(roads=3).clips_of(held_out)["road"].amax() == 2
    with pytest.raises(
        ValueError, match="^y: expected whole numbers from 0 to 1, the roads, found torch.int64 from 0 to 2"
    ):
        Drive().clips_of(held_out)
    assert set(Drive.of_tasks) == set(Drive.__dataclass_fields__) - {"size", "colors", "noise"}


def test_sets_that_hold_no_clips_are_refused():
    arrays = Drive(held_out_frames=4).integers(3, np.random.RandomState(0))
    tensors = {name: torch.from_numpy(array).float() for name, array in arrays.items()} | {
        "y": torch.zeros(3, 4, 1).long()
    }
    for name, value, message in (
        ("speed", None, "held_out: expected x, y, speed, texture, found x, y, texture without speed"),
        ("texture", None, "held_out: expected x, y, speed, texture, found x, y, speed without texture"),
        ("x", torch.zeros(3, 2), r"x: expected \[3, 2, 4\], found \[3, 2\]"),
        ("x", torch.zeros(3, 4, 5), r"x: expected \[3, 4, 4\], found \[3, 4, 5\]"),
        ("speed", torch.zeros(3, 2), r"speed: expected \[3, 1\], found \[3, 2\]"),
        ("texture", torch.zeros(3, 5, 8), r"texture: expected \[3, 4, 8\], found \[3, 5, 8\]"),
        ("y", torch.zeros(3, 4, 1), "y: expected whole numbers from 0 to 1, the roads, found torch.float32"),
        ("y", torch.full((3, 4, 1), -1), "y: expected whole numbers from 0 to 1"),
    ):
        changed = tensors | {name: value}
        factors = {key: tensor for key, tensor in changed.items() if tensor is not None}
        with pytest.raises(ValueError, match=f"^{message}"):
            WORLD.clips_of(HeldOut(changed["x"], changed["y"], factors))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Drive(roads=0), "roads: expected from 1 to 64, found 0"),
        (lambda: Drive(size=24), "size: expected a multiple of 16 pixels, found 24"),
        (lambda: Drive(size=0), "size: expected a multiple of 16 pixels, found 0"),
        (lambda: Drive(slow=1.9), "slow, fast: expected speeds 0 <= slow < fast <= 7.5, found 1.9 and 1.9"),
        (lambda: Drive(slow=-0.1), "slow, fast: expected speeds"),
        (lambda: Drive(fast=9.0), "slow, fast: expected speeds"),
        (lambda: Drive(jitter=-1.0), "jitter: expected a number from 0 on, found -1.0"),
        (lambda: Drive(wobble=math.nan), "wobble: expected a number from 0 on, found nan"),
        (lambda: Drive(other=math.inf), "other: expected a number from 0 on, found inf"),
        (lambda: Drive(other_time=0.0), "other_time: expected from 0.1 to 1000 frames, found 0.0"),
        (lambda: Drive(texture=-0.4), "texture: expected a half-width from 0 to 1, found -0.4"),
        (lambda: Drive(noise=-0.1), "noise: expected a half-width from 0 to 0.5, found -0.1"),
        (lambda: Drive(colors="red"), "colors: expected one of plain, other, found 'red'"),
        (lambda: Drive(held_out_frames=1), "held_out_frames: expected from 2 to 4096, found 1"),
        (lambda: WORLD.trajectories(0, 2, generator()), "count: expected at least 1, found 0"),
        (lambda: WORLD.trajectories(2, 0, generator()), "steps: expected at least 1, found 0"),
        (lambda: WORLD.factors(-2, 1, generator()), "count: expected at least 1, found -2"),
        (lambda: WORLD.integers(0, np.random.RandomState(0)), "count: expected at least 1, found 0"),
        (lambda: place_error(0, 1, WORLD), "window: expected at least 1, found 0"),
        (lambda: place_error(1, 0, WORLD), "horizon: expected at least 1, found 0"),
        (lambda: speed_r2(0, WORLD), "window: expected at least 1, found 0"),
        (lambda: damped_r2(0, 4.0), "horizon: expected at least 1, found 0"),
        (lambda: road_r2(1, 2.0, 1.0), "slow, fast: expected speeds"),
    ],
)
def test_what_describes_no_world_is_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
