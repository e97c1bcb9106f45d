"""What is said of the levels of a hierarchy, against hierarchies whose codes and predictions are known by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from conftest import values
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jepa.data import load
from jepa.evaluate import horizons as module
from jepa.evaluate import routes as routing
from jepa.evaluate.costs import training_cost
from jepa.evaluate.horizons import HORIZONS, contents, drawn, horizons
from jepa.evaluate.levels import PERIOD, Stacked, presents_of
from jepa.evaluate.routes import APART, routes
from jepa.hierarchy import HJEPA, Window
from jepa.latents.finite import Discrete, NoLatent
from jepa.model import JEPA
from jepa.runs.config import Part
from jepa.runs.data import generate
from jepa.streams import generator_for
from jepa.worlds.drive import Drive
from jepa.worlds.drive.ring import LAP

TURN = 2 * math.pi / LAP  # angle of a px along the ring
PLACES = {  # what is told of a factor -> where in a picture, of standard deviation 1 each
    "place": slice(0, 2), "speed": slice(2, 3), "road": slice(3, 4), "wobble": slice(4, 5), "other": slice(5, 7),
    "texture": slice(7, 15), "time": slice(15, 16),
}  # fmt: skip
CHANNELS = 16
FACTORS = ("place", "road", "speed", "wobble", "other", "texture")
DRIVE = [(2, 1), (8, 8), (4, 4)]


@dataclass(frozen=True)
class Told(Drive):
    """The world drive, where a picture says the factors themselves, and the number of the frame."""

    held_out_frames: int = 161

    def draw(self, factors, generator=None):
        """Return pictures [B, T, 16, 1, 1]."""
        angle, road = TURN * factors["place"], factors["road"].to(factors["place"])
        time = torch.arange(angle.shape[1]).view(1, -1, 1).expand(len(angle), -1, 1)
        parts = [2**0.5 * angle.cos(), 2**0.5 * angle.sin(), spoken(factors["speed"]), 1 - 2 * road]
        parts += [factors["wobble"] / 3, factors["other"] / 5, factors["texture"] * 3**0.5 / 0.4, time.to(angle)]
        return torch.cat(parts, -1)[..., None, None]


def spoken(speed):
    """Return a speed as it is told."""
    return (speed - 1.2) * 12**0.5 / 1.4


def px(told):
    """Return the speed, in px a frame, of what is told of it."""
    return 1.2 + told * 1.4 / 12**0.5


class Kept(nn.Module):
    """An encoder that keeps some of what single frames of its window tell, each part at a scale."""

    def __init__(self, wide, *parts, frames=(-1,), scale=()):
        """Args: wide: numbers of a frame or a code below; parts: slices of it; frames: of the window."""
        super().__init__()
        self.wide, self.parts, self.frames, self.scale = wide, parts, frames, scale or (1.0,) * len(parts)
        widths = [len(range(wide)[part]) for part in parts]
        self.outputs = sum(widths) * len(frames)

    def forward(self, x):
        """Return s [B, D] of windows [B, W · D] or [B, W · C, 1, 1]."""
        seen = x.flatten(1).unflatten(1, (-1, self.wide))
        found = [
            seen[:, frame, part] * by for frame in self.frames for part, by in zip(self.parts, self.scale, strict=True)
        ]
        return torch.cat(found, -1)


class Said(nn.Module):
    """A predictor by a formula (s, z) -> s̃."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, s, a, z):
        """Return s̃ [B, K, D]."""
        batch, many = max(len(s), len(z)), max(s.shape[1], z.shape[1])
        return self.formula(s.expand(batch, many, -1), z.expand(batch, many, -1))


def turned(frames, count=1):
    """Return the formula that drives on by so many frames: s = count × (cos, sin), …, speed at the end of all."""

    def formula(s, z):
        angle = frames * TURN * px(s[..., -1:])
        places = s[..., : 2 * count].unflatten(-1, (count, 2))
        cos, sin = places[..., 0], places[..., 1]
        on = torch.stack([cos * angle.cos() - sin * angle.sin(), sin * angle.cos() + cos * angle.sin()], -1)
        return torch.cat([on.flatten(-2), s[..., 2 * count :]], -1)

    return formula


def same(s, z):
    """Return what was."""
    return s


def keeping(*names, **options):
    """Return an encoder of two frames that keeps factors of the last one, by name."""
    return Kept(CHANNELS, *(PLACES[name] for name in names), **options)


def level(encoder, formula=same, latent=None):
    """Return a level made by hand."""
    return JEPA(encoder, encoder, Said(formula), latent or NoLatent())


@pytest.fixture(scope="module")
def subject_of(tmp_path_factory):
    """Return what makes a subject of levels made by hand."""

    @cache
    def clips(**constants):
        folder = tmp_path_factory.mktemp("drive") / "clips"
        generate(folder, Part("drive", {"held_out_frames": 161, **constants}), 80, seed=5)
        return load(folder)

    def made(*levels, windows=DRIVE, samples=80, frames=161, below=None, **constants):
        hierarchy = HJEPA(levels, [Window(*window) for window in windows[: len(levels)]]).eval()
        world, held_out = Told(**constants), clips(**constants)
        options = {"samples": samples, "frames": frames, "probe": 48, "below": below or {}}
        return Stacked(hierarchy, world, held_out, 1.0, stream, **options)

    return made


def stream(purpose):
    """Return the generator of a purpose."""
    return generator_for("purpose", 0, purpose)


def three(*names, formula=same):
    """Return three levels that keep factors of the last frame they speak of."""
    wide = keeping(*names).outputs
    upper = [level(Kept(wide, slice(None)), formula) for _ in range(2)]
    return [level(keeping(*names), formula), *upper]


# -- which frames codes speak of ---------------------------------------------------------------------------------------


def test_codes_at_a_frame_are_those_that_end_there(subject_of):
    subject = subject_of(*three("time"))
    assert subject.presents.tolist() == [32, 64, 96, 128, 160] and subject.starts.tolist() == [32, 64, 96]
    assert subject.ahead == 64
    for clips, count in ((subject.learned, 80), (subject.tested, 80)):
        for number in (1, 2, 3):
            found = subject.at(clips, number, subject.presents)
            assert torch.equal(found[..., 0], subject.presents.float().expand(count, -1))
            stride = subject.model.clocks[number - 1].stride
            after = subject.at(clips, number, subject.starts + stride)
            assert torch.equal(after[0, :, 0], subject.starts + stride)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from([1, 2, 3, 4, 5, 8, 16, 32, 33])), min_size=1, max_size=3))
def test_presents_are_refused_exactly_where_some_level_has_no_code_that_ends_there(windows):
    hierarchy = HJEPA([level(nn.Identity()) for _ in windows], [Window(*window) for window in windows])
    ends = [{clock.last(code) for code in range(clock.codes(161))} for clock in hierarchy.clocks]
    expected = [*range(PERIOD, 161, PERIOD)]
    if all({*expected} <= end for end in ends):
        assert presents_of(hierarchy, Told(), 161).tolist() == expected
    else:
        number = 1 + next(n for n, end in enumerate(ends) if not {*expected} <= end)
        with pytest.raises(ValueError, match=f"measure: expected codes that end at .* at level {number}$"):
            presents_of(hierarchy, Told(), 161)


@pytest.mark.parametrize("frame", [*range(-8, 0)])
def test_contents_are_those_of_the_last_frame_alone(subject_of, frame):
    both = [level(keeping("texture"))]  # drawn anew in every frame
    found = values(contents(subject_of(*both, level(Kept(8, slice(None), frames=(frame,))))))
    assert found["exact_1_texture"] > 0.99 and found["held_1_texture"] > 0.97
    assert found["held_2_texture"] > 0.97 if frame == -1 else found["exact_2_texture"] < 0.05
    earlier = values(contents(subject_of(level(keeping("texture", frames=(-2,))))))
    assert earlier["exact_1_texture"] < 0.05


# -- what codes hold ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(name,) for name in FACTORS] + [("place", "wobble"), ("road", "speed", "other")])
@pytest.mark.parametrize("constants", [{}, {"roads": 3}], ids=str)
def test_what_is_in_a_code_is_read_and_nothing_else_is(subject_of, names, constants):
    if constants and "road" in names:
        names = tuple(name for name in names if name != "road")  # is told by a number, which is no line for three
    if not names:
        return
    found = values(contents(subject_of(*three(*names), **constants)))
    for number in (1, 2, 3):
        for name in FACTORS:
            held, exact = found[f"held_{number}_{name}"], found[f"exact_{number}_{name}"]
            assert (held > 0.97 and exact > 0.99) if name in names else max(held, exact) <= 0.05
    width = sum(len(range(CHANNELS)[PLACES[name]]) for name in names)
    assert 0.9 < found["spread_1"] < 1.1 and width - 0.2 < found["effective_rank_1"] <= width + 1e-6


def test_across_the_road_is_read_road_by_road(subject_of):
    found = values(contents(subject_of(level(keeping("wobble")))))
    assert found["held_1_wobble"] > 0.97 and found["held_1_road"] < 0.05


@pytest.mark.parametrize("name", ["speed", "wobble", "road", "place"])
def test_what_is_a_thousandth_of_the_rest_is_there_and_not_held(subject_of, name):
    encoder = keeping("texture", name, scale=(1.0, 1e-3))
    found = values(contents(subject_of(level(encoder))))
    assert found[f"exact_1_{name}"] > 0.99 and found[f"held_1_{name}"] < 0.05
    assert found["held_1_texture"] > 0.97
    finer = values(contents(subject_of(level(encoder)), precision=1e-4))
    assert finer[f"held_1_{name}"] > 0.97
    for scale in (1e-4, 1e4):  # of all together it says nothing
        scaled = keeping("texture", name, scale=(scale, 1e-3 * scale))
        again = values(contents(subject_of(level(scaled))))
        kept = [key for key in found if not key.startswith("spread")]
        assert {key: again[key] for key in kept} == pytest.approx({key: found[key] for key in kept}, abs=2e-3)
        assert again["spread_1"] == pytest.approx(scale * found["spread_1"], rel=1e-4)


class Constant(nn.Module):
    """An encoder that says the same of everything."""

    outputs = 3

    def forward(self, x):
        """Return s [B, 3]."""
        return x.new_tensor([0.3, -2.0, 1e-8]).expand(len(x), -1)


def test_constant_codes_hold_and_foresee_nothing(subject_of):
    levels = [level(Constant()), level(Constant()), level(Constant(), lambda s, z: s + 1)]
    subject = subject_of(*levels)
    found = values([*contents(subject), *horizons(subject)])  # finite, all of them
    assert all(value <= 1e-3 for name, value in found.items() if name.startswith(("held", "exact", "place_r2")))
    assert found["spread_1"] < 1e-6 and found["effective_rank_2"] == 0


def test_codes_that_have_nothing_to_do_with_it_foresee_nothing(subject_of):
    found = values(horizons(subject_of(*three("texture"))))
    assert all(value < 0.05 for name, value in found.items() if name.startswith("place_r2"))
    chance = LAP / 12**0.5  # of a direction drawn at random
    assert all(abs(value - chance) < 1 for name, value in found.items() if name.startswith("place_px"))


def test_measures_say_it_of_the_levels_that_are_asked_for(subject_of):
    subject = subject_of(*three("place", "speed", formula=turned(1)))
    for measure, name in ((contents, "held_{}_place"), (horizons, "map_px_{}_64")):
        every, one = values(measure(subject)), values(measure(subject, levels=[2]))
        assert {name.format(number) for number in (1, 2, 3)} <= every.keys() and name.format(2) in one
        assert one == {key: every[key] for key in one} and name.format(1) not in one


# -- how far ahead -----------------------------------------------------------------------------------------------------


def error_of(subject, offsets):
    """Return the RMS error in px of driving on from `first` frames after a start by the speed: what the jitter makes.

    Args: offsets: frame that is read and frame that is asked for, both from the start on.
    """
    first, last = offsets
    place, speed = (subject.tested.factors[name][..., 0] for name in ("place", "speed"))
    starts = subject.starts
    error = place[:, starts + last] - place[:, starts + first] - speed[:, starts] * (last - first)
    return float(error.double().square().mean().sqrt())


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_error_of_an_exact_predictor_is_that_of_the_jitter_at_every_horizon(subject_of, jitter):
    subject = subject_of(level(keeping("place", "speed"), turned(1)), jitter=jitter)
    found = values(horizons(subject))
    asked = [horizon for horizon in HORIZONS if horizon <= 64]
    assert len(asked) == 9 and {f"place_px_1_{h}" for h in asked} == {n for n in found if n.startswith("place_px")}
    for horizon in asked:
        expected = error_of(subject, (0, horizon))
        assert found[f"place_px_1_{horizon}"] == pytest.approx(expected, rel=0.02, abs=0.05)
        assert (expected < 0.02) if not jitter else (expected > 0.15)
        truth = subject.tested.factors["position"][:, subject.starts + horizon, 1] - LAP / 2
        across = found[f"map_px_1_{horizon}"] ** 2 - found[f"place_px_1_{horizon}"] ** 2
        assert across == pytest.approx(float(truth.square().mean()), rel=0.1)  # of which the code says nothing
        best = 1 - (TURN * expected) ** 2  # of small angles
        assert found[f"place_r2_1_{horizon}"] == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_a_window_is_read_at_each_of_its_frames_from_one_frame_ahead_on(subject_of, jitter):
    subject = subject_of(*eight(turned(8, 8)), jitter=jitter)
    found = values(horizons(subject, levels=[2]))
    for horizon in (horizon for horizon in HORIZONS if horizon <= 64):
        back = -horizon % 8  # frames before the last of a window whose step is eight
        expected = error_of(subject, (-back, horizon))
        assert found[f"place_px_2_{horizon}"] == pytest.approx(expected, rel=0.03, abs=0.05)


def eight(formula):
    """Return two levels, of which the upper one keeps the place in each of eight frames, and the speed."""
    wide = 3
    upper = Kept(wide, slice(0, 2), frames=range(8))
    upper.outputs += 1
    upper.forward = lambda x: torch.cat([Kept.forward(upper, x), x[:, -1:]], -1)
    return [level(keeping("place", "speed"), turned(1)), level(upper, formula)]


def test_a_frame_too_many_or_too_few_is_seen(subject_of, monkeypatch):
    asked = [horizon for horizon in HORIZONS if horizon <= 64]
    right = values(horizons(subject_of(*eight(turned(8, 8)), jitter=0.0), levels=[2]))
    assert max(right[f"place_px_2_{horizon}"] for horizon in asked) < 0.05
    for frames in (7, 9):  # of a step
        wrong = values(horizons(subject_of(*eight(turned(frames, 8)), jitter=0.0), levels=[2]))
        assert (
            min(wrong[f"place_px_2_{horizon}"] for horizon in asked) > 1
        )  # the least speed is half a px, the mean 1.2
    read_at = module.read_at
    for shift in (-1, 1):  # of what is read
        monkeypatch.setattr(module, "read_at", lambda *given, shift=shift: read_at(*given[:2], given[2] + shift))
        wrong = values(horizons(subject_of(*eight(turned(8, 8)), jitter=0.0, frames=160), levels=[2]))
        assert min(wrong[f"place_px_2_{horizon}"] for horizon in asked[:-1]) > 1


def test_levels_are_asked_from_the_same_frames_on(subject_of):
    subject = subject_of(*three("place", "speed"), jitter=0.0)
    strides = [1, 8, 32]
    for one, frames in zip(subject.model.levels, strides, strict=True):
        one.predictor.formula = turned(frames)
    found = values(horizons(subject))
    for number, stride in enumerate(strides, 1):
        for horizon in (32, 64):
            assert found[f"place_px_{number}_{horizon}"] < 0.05
            assert found[f"place_r2_{number}_{horizon}"] > 0.999
        assert found[f"unexplained_{number}"] < 1e-4 and f"place_px_{number}_{1}" in found
        # nearer by: read from a code that says the last frame and the speed, of which a probe makes what it can
        assert found[f"place_px_{number}_1"] < (0.08 if stride == 1 else 5)


def test_what_is_left_unexplained_is_nothing_of_an_exact_prediction_and_all_of_the_mean(subject_of):
    exact = subject_of(*three("place", "speed", formula=turned(1))[:1], jitter=0.0)
    assert values(horizons(exact))["unexplained_1"] < 1e-6
    after = exact.at(exact.tested, 1, exact.starts + 1).flatten(0, 1)
    mean, (one,) = after.mean(0), exact.model.levels
    one.predictor.formula = lambda s, z: mean.expand_as(s)
    assert values(horizons(exact))["unexplained_1"] == pytest.approx(1, abs=1e-5)
    one.predictor.formula = lambda s, z: (turned(1)(s, z) + mean) / 2
    assert values(horizons(exact))["unexplained_1"] == pytest.approx(0.25, abs=1e-5)
    # in any unit, and of the next code, not of this one
    standing = subject_of(level(keeping("place", "speed", scale=(100.0, 100.0))), jitter=0.0)
    told = standing.at(standing.tested, 1, standing.starts).flatten(0, 1) / 100
    expected = (told - after).square().sum(-1).mean() / (after - mean).square().sum(-1).mean()
    assert values(horizons(standing))["unexplained_1"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("factor", [10.0, 1e30, math.inf])
def test_a_roll_out_that_explodes_is_as_good_as_chance_and_finite(subject_of, factor):
    far = 64 if factor == 10 else 8  # by which all numbers are infinite, or none any more
    found = values(horizons(subject_of(level(keeping("place", "speed"), lambda s, z: s * factor + 0 * factor))))
    for horizon in [horizon for horizon in HORIZONS if far <= horizon <= 64]:
        assert -1 <= found[f"place_r2_1_{horizon}"] < -0.9
        assert found[f"place_px_1_{horizon}"] == pytest.approx(LAP / 12**0.5, rel=0.15)
        assert found[f"map_px_1_{horizon}"] < 40
    assert min(value for name, value in found.items() if name.startswith("place_r2")) >= -1
    assert found["unexplained_1"] == (1e6 if factor > 10 else pytest.approx(81, rel=0.1))


# -- latents -----------------------------------------------------------------------------------------------------------


def chooses(codes, roads=2):
    """Return the formula that drives on by eight frames, on the road that a code stands for; s ends with the speed."""

    def formula(s, z):
        road = 1 - 2 * (z.argmax(-1, keepdim=True) % roads).to(s) if z.shape[-1] else s[..., 2:3]
        on = turned(8)(torch.cat([s[..., :2], s[..., -1:]], -1), z)
        return torch.cat([on[..., :2], road, on[..., 2:]], -1)

    return formula


def choosing(codes=2, formula=None, roads=2):
    """Return two levels that keep place, road and speed; the upper one is told the road by its latent."""
    encoder = keeping("place", "road", "speed")
    latent = Discrete(codes) if codes else NoLatent()
    return [level(encoder), level(Kept(4, slice(None)), formula or chooses(codes, roads), latent)]


def by_hand(subject, clips, number):
    """Return clip, code and road of every transition that crosses one junction and ends on a road, by a loop."""
    clock, count = subject.model.clocks[number - 1], clips.codes[number - 1].shape[1]
    found = []
    for clip, (places, roads) in enumerate(zip(clips.factors["place"], clips.factors["road"], strict=True)):
        for code in range(count - 1):
            one, two = (float(places[clock.last(code + more)]) for more in (0, 1))
            share = two / LAP - math.floor(two / LAP)
            if math.floor(two / LAP) - math.floor(one / LAP) == 1 and APART[0] < share < APART[1]:
                found.append((clip, code, int(roads[clock.last(code + 1)])))
    return found


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("roads", [2, 3])
def test_transitions_across_a_junction_are_those_of_a_loop(subject_of, number, roads):
    subject = subject_of(*choosing(), level(Kept(4, slice(None))), roads=roads)
    for clips in (subject.learned, subject.tested):
        expected = by_hand(subject, clips, number)
        found = routing.crossings(subject, clips, number)
        rows = [(int(clip), int(code)) for clip, code, _ in expected]
        s = clips.codes[number - 1]
        assert len(expected) > 60 and {road for *_, road in expected} == {*range(roads)}
        assert found.road.tolist() == [road for *_, road in expected]
        assert torch.equal(found.s, torch.stack([s[clip, code] for clip, code in rows]))
        assert torch.equal(found.after, torch.stack([s[clip, code + 1] for clip, code in rows]))
        assert torch.equal(found.after[:, 2], 1 - 2 * found.road.float())  # of the code that comes, not of this one


@pytest.mark.parametrize("codes", [2, 3, 8])
def test_a_latent_that_is_the_road_names_it_in_all_ways(subject_of, codes):
    subject = subject_of(*choosing(codes))
    found = values(routes(subject))
    asked = ("route_decoded", "route_from_code", "route_majority", "route_relabelled")
    assert {name: found[name] for name in asked} == dict.fromkeys(asked, 1.0)
    assert found["route_ahead"] == pytest.approx(0.5, abs=0.08)  # no code knows the road that comes
    assert found["route_codes_used"] == 2  # the first of codes that stand for the same
    counts = {row.count for row in routes(subject) if row.metric != "route_codes_used"}
    assert counts == {len(by_hand(subject, subject.tested, 2))}


def test_of_three_roads_each_has_its_code(subject_of):
    found = values(routes(subject_of(*choosing(3, roads=3), roads=3)))
    asked = ("route_decoded", "route_from_code", "route_majority", "route_relabelled")
    assert {found[name] for name in asked} == {1.0} and found["route_codes_used"] == 3
    assert found["route_ahead"] == pytest.approx(1 / 3, abs=0.08)


def test_codes_that_are_shuffled_name_no_road(subject_of, monkeypatch):
    crossings = routing.crossings

    def shuffled(*given):
        found = crossings(*given)
        return found._replace(z=found.z[torch.randperm(len(found.z), generator=torch.Generator().manual_seed(1))])

    monkeypatch.setattr(routing, "crossings", shuffled)
    found = values(routes(subject_of(*choosing())))
    assert all(found[f"route_{name}"] == pytest.approx(0.5, abs=0.08) for name in ("decoded", "majority", "relabelled"))
    assert found["route_from_code"] == 1


@pytest.mark.parametrize("road", ["the one before", "none"])
def test_without_a_latent_the_road_is_chance(subject_of, road):
    on = chooses(0) if road == "the one before" else lambda s, z: chooses(0)(s * s.new_tensor([1, 1, 0, 1]), z)
    found = values(routes(subject_of(*choosing(0, on))))
    assert found["route_decoded"] == pytest.approx(0.5, abs=0.08) and found["route_from_code"] == 1
    assert {*found} == {"route_decoded", "route_from_code", "route_ahead"}


def test_a_latent_that_stands_for_something_else_names_no_road(subject_of):
    def faster(s, z):
        """Drive on, a little further or less far."""
        return chooses(0)(s, s[..., :0]) + 0.3 * (z.argmax(-1, keepdim=True) - 0.5) * s.new_tensor([1, 0, 0, 0])

    found = values(routes(subject_of(*choosing(2, faster))))
    assert found["route_codes_used"] == 2
    assert found["route_majority"] == pytest.approx(0.5, abs=0.1)
    assert found["route_decoded"] == pytest.approx(0.5, abs=0.1)


def test_z_of_a_roll_out_is_drawn_as_often_as_it_is_used(subject_of):
    subject = subject_of(*choosing(8))
    found = drawn(subject, 2, (40, 3, 50))
    assert found.shape == (40, 3, 50, 8) and torch.equal(found.sum(-1), torch.ones(40, 3, 50))
    road = subject.learned.codes[1][:, 1:, 2]
    share = float((road > 0).double().mean())
    assert found[..., 0].double().mean() == pytest.approx(share, abs=0.02)
    assert found[..., 1].double().mean() == pytest.approx(1 - share, abs=0.02) and not found[..., 2:].any()
    assert torch.equal(found, drawn(subject, 2, (40, 3, 50))) and drawn(subject, 1, (2, 1, 5)).shape == (2, 1, 5, 0)
    ahead = values(horizons(replace_world(subject_of, choosing(8)), levels=[2]))
    assert max(value for name, value in ahead.items() if name in {f"place_px_2_{8 * n}" for n in (1, 2, 3, 4)}) < 0.08


def replace_world(subject_of, levels):
    """Return a subject without jitter."""
    return subject_of(*levels, jitter=0.0)


# -- frozen levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_codes_of_frozen_levels_are_taken_as_they_are_known(subject_of, count):
    levels = three("place", "speed")
    plain = subject_of(*levels)
    names = {"probe clips": plain.learned, "held-out clips": plain.tested}
    below = {name: clips.codes[:count] for name, clips in names.items()}
    calls = []
    levels[0].encoder.register_forward_hook(lambda *_: calls.append(1))
    taken = subject_of(*levels, below=below)
    assert values(contents(taken)) == values(contents(plain)) and values(horizons(taken)) == values(horizons(plain))
    assert not calls
    for one, other in ((taken.learned, plain.learned), (taken.tested, plain.tested)):
        assert all(torch.equal(a, b) for a, b in zip(one.codes, other.codes, strict=True))


def test_probes_learn_in_other_clips_than_they_are_tested_in(subject_of):
    subject = subject_of(level(keeping("place")))
    speeds = [{*clips.factors["speed"][:, 0, 0].tolist()} for clips in (subject.learned, subject.tested)]
    assert not speeds[0] & speeds[1] and len(speeds[1]) > 70


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [contents, horizons, routes, training_cost])
def test_another_subject_is_refused(measure):
    with pytest.raises(ValueError, match=f"^measure: expected a hierarchy with clips for '{measure.__name__}', found "):
        measure(SimpleNamespace())


@pytest.mark.parametrize("number", [0, 3, -1, 1.0, True, "1"])
def test_levels_that_do_not_exist_are_named(subject_of, number):
    subject = subject_of(*choosing())
    for measure in (contents, horizons):
        with pytest.raises(
            ValueError, match=f"^measure.{measure.__name__}.levels: expected from 1 to 2, found {number!r}"
        ):
            measure(subject, levels=[1, number])
    with pytest.raises(ValueError, match="^measure.routes.levels: expected from 1 to 2, found 3"):
        routes(subject, level=3)


def test_steps_that_cross_no_junction_have_no_routes(subject_of):
    with pytest.raises(
        ValueError, match="^measure.routes.level: expected steps that cross .*found 0 of them at level 1"
    ):
        routes(subject_of(*choosing()), level=1)


@pytest.mark.parametrize("frames", [1, 32, 162])
def test_clips_that_are_too_short_or_too_long_are_named(subject_of, frames):
    subject = subject_of(level(keeping("place")), frames=frames)
    with pytest.raises(ValueError, match="^evaluation.frames: expected (from 33 )?.*"):
        contents(subject)
    with pytest.raises(ValueError, match="^evaluation.frames: expected at least 129 for horizons, found 128"):
        horizons(subject_of(level(keeping("place")), frames=128))
    assert values(horizons(subject_of(level(keeping("place")), frames=129))).keys() >= {"place_px_1_32"}


def test_held_out_clips_are_the_first_frames_of_those_stored(subject_of):
    short, long = (subject_of(level(keeping("place")), frames=frames) for frames in (97, 161))
    for name, value in short.tested.factors.items():
        assert torch.equal(value, long.tested.factors[name][:, :97])
    assert len(short.presents) == 3 and replace(short, frames=98).presents.tolist() == [32, 64, 96]
