"""Pictures of hierarchies show the table's numbers and what codes hold; what is decoded is what was planted."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.patches import Rectangle
from PIL import Image
from torch import nn

from jepa.evaluate import decoding
from jepa.evaluate.levels import Stacked
from jepa.hierarchy import HJEPA
from jepa.lab import figures, foreseen, levels, lines, style
from jepa.latents.finite import Discrete, NoLatent
from jepa.measures.intervals import interval
from jepa.measures.probes import Probe
from jepa.model import JEPA
from jepa.streams import generator_for
from jepa.worlds.drive import Drive
from jepa.worlds.drive.ring import LAP

LEVELS = {"level 1": ("tower", 1), "level 2": ("tower", 2)}
SIDE = 4  # pixels a side of the belt


@pytest.fixture(autouse=True)
def closed():
    """Set the style and close all figures afterwards."""
    style.use()
    yield
    pyplot.close("all")


def measured(seeds=3):
    """Return measurements: level 1 is better up to 4 frames, level 2 from 8 on, by as much."""
    rows = []
    for seed in range(seeds):
        shift = 0.1 * (seed - (seeds - 1) / 2)
        for n, frames in enumerate(lines.FRAMES):
            rows += [("tower", seed, f"map_px_1_{frames}", 1 + n + shift, None)]
            rows += [("tower", seed, f"map_px_2_{frames}", (2 + n if frames <= 4 else n) + 2 * shift, None)]
            rows += [("flat", seed, f"map_px_2_{frames}", 3 + n + shift, None)]
        for number, factor in enumerate(levels.FACTORS):
            for variant, level in (("tower", 1), ("tower", 2), ("stopped", 2)):
                value = 0.15 * (number - 1) + (0.1 if level == 2 else 0) + shift / 10
                rows.append((variant, seed, f"held_{level}_{factor}", value, None))
        for n, variant in enumerate(("level_1", "level_2", "level_3"), 1):
            rows += [(variant, seed, "cost_training", 40.0 / n, None), (variant, seed, "cost_codes", 2.0 * n, None)]
    table = pd.DataFrame(rows, columns=["variant", "seed", "metric", "value", "count"]).assign(claim="H1")
    return table.astype({"count": "Int64"})


def solid(axes):
    """Return the lines that have a name."""
    return [line for line in axes.lines if not line.get_label().startswith("_")]


def rings(axes):
    """Return where rings are, [n, 2]."""
    return [line.get_xydata()[0] for line in axes.lines if line.get_markersize() == 11]


def test_lines_are_means_and_bands_are_intervals_over_seeds():
    table = measured()
    _, axes = style.panels(1)
    levels.crossing(axes, table, LEVELS, chance=9.5)
    for line, band, (variant, level) in zip(solid(axes), axes.collections, LEVELS.values(), strict=True):
        found = [
            table[(table.variant == variant) & (table.metric == f"map_px_{level}_{n}")].value for n in lines.FRAMES
        ]
        limits = [interval(values) for values in found]
        assert line.get_xdata().tolist() == list(lines.FRAMES)
        assert np.allclose(line.get_ydata(), [values.mean() for values in found])
        for n, one in zip(lines.FRAMES, limits, strict=True):
            edge = band.get_paths()[0].vertices
            assert np.allclose([edge[edge[:, 0] == n, 1].min(), edge[edge[:, 0] == n, 1].max()], [one.low, one.high])
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(n) for n in lines.FRAMES]
    assert [text.get_text() for text in axes.texts] == ["6 frames", "level 2", "level 1", "chance"]


def test_ring_is_where_neighbors_cross_on_the_drawn_lines():
    _, axes = style.panels(1)
    levels.crossing(axes, measured(), LEVELS)
    assert np.allclose(rings(axes), [[32**0.5, 3.5]])  # halfway between 4 and 8 on the axis, and from 3 to 4
    _, axes = style.panels(1)
    levels.crossing(axes, measured(), {"upper": ("tower", 2), "lower": ("tower", 1)})
    assert rings(axes) == []
    flipped = measured().replace(
        {"metric": {f"map_px_{k}_{n}": f"place_r2_{k}_{n}" for n in lines.FRAMES for k in (1, 2)}}
    )
    flipped["value"] *= -1
    _, axes = style.panels(1)
    levels.crossing(axes, flipped, LEVELS, "place_r2")
    assert np.allclose(rings(axes), [[32**0.5, -3.5]])


def test_controls_are_dashed_and_open_and_oracles_dotted_in_the_level_s_color():
    _, axes = style.panels(1)
    oracle = {"level 2": {1: 0.5, 8: 2.0}}
    levels.crossing(axes, measured(), LEVELS | {"flat": ("flat", 2)}, oracle=oracle)
    own, control = solid(axes)[1:]
    assert own.get_linestyle() == "-" != control.get_linestyle() and own.get_color() == control.get_color()
    assert control.get_markerfacecolor() == "white" and own.get_marker() != control.get_marker()
    (dotted,) = (line for line in axes.lines if line.get_linestyle() == ":")
    assert dotted.get_xydata().tolist() == [[1, 0.5], [8, 2]] and dotted.get_color() == own.get_color()
    assert len(rings(axes)) == 1


def test_names_at_the_ends_do_not_overlap():
    figure, axes = style.panels(1)
    table = measured()
    names = {f"level {n}": ("tower", 1 + n % 2) for n in range(6)}
    levels.crossing(axes, table, names, chance=9.0)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts[-7:]), key=lambda box: box.y0)
    assert all(one.y1 <= other.y0 + 1 for one, other in zip(boxes, boxes[1:], strict=False))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.floats(0.01, 2))
def test_heights_are_moved_apart_around_where_they_were(heights, least):
    heights = np.sort(heights)
    found = lines.apart(heights, least)
    assert (np.diff(found) >= least - 1e-9).all() and np.isclose(found.mean(), heights.mean())
    if (np.diff(heights) >= least + 1e-9).all():
        assert np.allclose(found, heights)


def test_single_seed_has_lines_and_no_warnings():
    _, (left, right) = style.panels(2)
    levels.crossing(left, measured(1), LEVELS)
    levels.at_horizon(right, measured(1), 8, LEVELS)
    assert len(solid(left)) == 2 and left.get_ylim()[1] < 15


def test_contents_has_the_means_of_levels_and_the_oracle_above():
    table, oracle = measured(), {name: 0.5 for name in levels.FACTORS}
    _, axes = style.panels(1)
    levels.contents(axes, table, LEVELS, oracle=oracle)
    cells = np.array(axes.collections[0].get_array()).reshape(3, 6)
    first = np.clip(0.15 * (np.arange(6) - 1), 0, None)
    second = np.clip(0.15 * (np.arange(6) - 1) + 0.1, 0, None)
    assert np.allclose(cells, [[0.5] * 6, first, second])
    assert [text.get_text() for text in axes.texts[6:12]] == [f"{value:.2f}" for value in first]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(levels.FACTORS.values())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["oracle, one step", *LEVELS]
    with pytest.raises(ValueError, match="oracle: .*found none of speed"):
        levels.contents(axes, table, LEVELS, oracle={name: 0.5 for name in list(levels.FACTORS)[:-1]})


def test_causes_has_a_dot_for_each_recipe_and_factor_and_a_line_for_the_first():
    figure = levels.causes(measured(), {"the recipe": "tower", "stop-gradient": "stopped"})
    means = np.clip(0.15 * (np.arange(6) - 1) + 0.1, 0, None)
    assert len(figure.axes) == 6
    for panel, mean in zip(figure.axes, means, strict=True):
        dots = [bars.lines[0].get_xdata()[0] for bars in panel.containers]
        assert np.allclose(dots, [mean] * 2, atol=1e-9)
        (line,) = (line for line in panel.lines if line.get_linestyle() == ":")
        assert np.allclose(line.get_xdata(), mean)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["the recipe", "stop-gradient"]


def test_bars_at_a_horizon_are_means_on_one_scale_for_all(monkeypatch):
    _, panels = style.panels(2)
    for panel, frames in zip(panels, (1, 64), strict=True):
        levels.at_horizon(panel, measured(), frames, LEVELS, chance=9.5)
    heights = [[bar.get_height() for bar in panel.patches] for panel in panels]
    assert np.allclose(heights, [[1, 2], [9, 8]]) and panels[0].get_ylim() == panels[1].get_ylim()
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["1", "2"]
    with pytest.raises(ValueError, match="horizon: .*found 3"):
        levels.at_horizon(panels[0], measured(), 3, LEVELS)
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    figures.slider(
        lambda axes, frames: levels.at_horizon(axes, measured(), frames, LEVELS), "frames", lines.FRAMES[::2]
    )
    assert len(shown) == 2


def test_costs_add_up_in_units_of_the_first():
    _, axes = style.panels(1)
    stacks = {"one": ["level_1"], "three": ["level_1", "level_2", "level_3"], "at once": "level_2"}
    levels.costs(axes, measured(), stacks)
    widths = {}
    for bar in axes.patches:
        widths.setdefault(round(bar.get_y() + bar.get_height() / 2), []).append(bar.get_width())
    assert {row: pytest.approx(found) for row, found in widths.items()} == {
        0: [1], 1: [1, 0.1, 0.5, 1 / 3], 2: [0.5]
    }  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["1.00", "1.93", "0.50"]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["level 1", "codes, made once", "level 2", "level 3", "at once"]


def test_what_was_not_measured_is_named():
    _, axes = style.panels(1)
    table = measured()
    with pytest.raises(ValueError, match="'map_px_3_1' of 'tower'"):
        levels.crossing(axes, table, {"level 3": ("tower", 3)})
    with pytest.raises(ValueError, match="oracle: .*found 'other'"):
        levels.crossing(axes, table, LEVELS, oracle={"other": {1: 1.0}})
    with pytest.raises(ValueError, match="'held_3_texture' of 'tower'"):
        levels.contents(axes, table, {"level 3": ("tower", 3)})
    with pytest.raises(ValueError, match="'held_2_texture' of 'none'"):
        levels.causes(table, {"none": "none"})
    with pytest.raises(ValueError, match="'cost_training' of 'tower'"):
        levels.costs(axes, table, {"one": ["tower"]})


class Part(nn.Module):
    """An encoder by a formula, or a predictor by one of s and z."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, s, a=None, z=None):
        """Return what the formula makes of it."""
        return self.formula(s) if z is None else self.formula(s, z)


def level(encoder, predictor, latent=None):
    """Return a level of given formulas."""
    part = Part(encoder)
    return JEPA(part, part, Part(predictor), latent or NoLatent())


@dataclass(frozen=True)
class Belt:
    """A world whose pictures, drawn once for each clip, move on by one pixel a frame, round and round."""

    size = SIDE
    roads = 2
    colors = "plain"
    held_out_frames = 200

    def factors(self, count, steps, generator):
        """Return the rows of the pictures in the first frame, and how far they have moved."""
        row = torch.rand(count, 1, 3, SIDE, generator=generator).expand(-1, steps + 1, -1, -1)
        moved = torch.arange(steps + 1.0).view(1, -1, 1).expand(count, -1, -1)
        return {"row": row, "place": moved, "position": moved.expand(-1, -1, 2)}

    def draw(self, factors, generator=None):
        """Return pictures all of whose rows are alike."""
        at = (torch.arange(SIDE) - factors["place"].long()) % SIDE
        row = factors["row"].gather(-1, at.unsqueeze(2).expand(-1, -1, 3, -1))
        return row.unsqueeze(-2).expand(-1, -1, -1, SIDE, -1)

    def clips_of(self, held_out):
        """Return clips of which one is among those that probes learn from."""
        return self.factors(4, self.held_out_frames - 1, generator_for("purpose", 0, "probe clips"))


def moved(frames):
    """Return a predictor of numbers in rows of the belt, so many frames on."""
    return lambda s, z: s.unflatten(-1, (-1, SIDE)).roll(frames, -1).flatten(-2).expand(-1, max(1, z.shape[1]), -1)


def stacked(world, parts, windows, **options):
    """Return a hierarchy with what it is measured on."""
    stream = lambda purpose: generator_for("purpose", 0, purpose)  # noqa: E731
    options = {"samples": 40, "frames": 129, "probe": 16} | options
    return Stacked(HJEPA(parts, windows).eval(), world, None, 1.0, stream, **options)


@pytest.fixture(scope="module")
def belt():
    """Return three levels that keep all they see and know how it moves on."""
    parts = [level(lambda x: x[:, :, 0].flatten(1), moved(1)), *(level(lambda x: x, moved(n)) for n in (8, 32))]
    return stacked(Belt(), parts, [(1, 1), (9, 8), (4, 4)])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_decoder_restores_pixels_that_codes_keep_at_every_horizon(belt, number, monkeypatch):
    monkeypatch.setattr(decoding, "FEATURES", 8)
    horizons = (1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 96)
    found, truth = decoding.decoded(belt, number, 0, horizons), decoding.pictures(belt, 0, horizons)
    assert found.shape == (11, 3, SIDE, SIDE) and found.dtype == torch.float32
    assert (found - truth).abs().max() < 0.05 < truth.std()
    assert torch.equal(truth[0], belt.world.draw(belt.tested.factors)[0, 33])  # 32 is the first present
    assert torch.equal(decoding.pictures(belt, 0, [0])[0], belt.world.draw(belt.tested.factors)[0, 32])


def test_decoder_is_the_probe_that_learns_pixels(belt):
    found = decoding.decoded(belt, 2, 1, [3])[0]
    presents = belt.presents
    s = belt.at(belt.learned, 2, presents).flatten(0, 1)
    pixels = belt.world.draw(belt.learned.factors)[:, presents - 5].flatten(0, 1).flatten(1)  # a step of 8 reaches 3
    ahead = belt.at(belt.tested, 2, presents[:1])[1, 0].unflatten(0, (-1, SIDE)).roll(8, -1).flatten()
    probe = Probe(s, pixels, decoding.FEATURES, decoding.PENALTY)
    assert torch.allclose(found.flatten(), probe(ahead), atol=1e-4)


def test_a_constant_code_shows_the_mean_picture():
    still = stacked(Belt(), [level(lambda x: torch.ones(len(x), 2), lambda s, z: s)], [(1, 1)])
    found = decoding.decoded(still, 1, 0, [1, 2])
    mean = still.world.draw(still.learned.factors)[:, still.presents].mean((0, 1))
    assert torch.allclose(found, mean.expand_as(found), atol=1e-5)


def test_of_a_roll_out_that_has_left_the_codes_nothing_is_read(monkeypatch):
    monkeypatch.setattr(decoding, "FEATURES", 8)
    lost = stacked(Belt(), [level(lambda x: x[:, :, 0].flatten(1), lambda s, z: 100 * s)], [(1, 1)])
    found = decoding.decoded(lost, 1, 0, [1, 64])
    assert found.isnan().all()
    _, axes = style.panels(1)
    foreseen.frame(axes, found[0], "level 1", torch.tensor([1.0, 2.0]))
    assert not axes.images and not axes.lines and axes.texts[0].get_text() == foreseen.LOST


def test_few_clips_are_decoded_from(belt, monkeypatch):
    drawn = []
    monkeypatch.setattr(decoding, "ROWS", 20)
    monkeypatch.setattr(decoding, "CHUNK", 3)
    draw = Belt.draw
    monkeypatch.setattr(
        Belt, "draw", lambda world, factors: drawn.append(len(factors["place"])) or draw(world, factors)
    )
    decoding.decoded(belt, 1, 0, [1])
    assert drawn == [3, 2]  # five clips of four presents


def test_what_there_is_not_to_decode_is_named(belt):
    with pytest.raises(ValueError, match="levels: expected from 1 to 3, found 4"):
        decoding.decoded(belt, 4, 0, [1])
    with pytest.raises(ValueError, match="clip: expected from 0 to 3, found 4"):
        decoding.decoded(belt, 1, 4, [1])
    for horizons in ([], [0], [97]):
        with pytest.raises(ValueError, match="horizons: expected frames from 1 to 96"):
            decoding.decoded(belt, 1, 0, horizons)
    with pytest.raises(ValueError, match="numbers: expected frames from 0 to 128"):
        decoding.frames(belt, 0, torch.tensor([129]))
    with pytest.raises(ValueError, match="latent has values"):
        decoding.decoded_codes(belt, 2, 0, 32)
    with pytest.raises(ValueError, match="expected a hierarchy"):
        decoding.decoded(SimpleNamespace(), 1, 0, [1])


@dataclass(frozen=True)
class Told(Drive):
    """The world whose pictures say in three pixels where the car is on the ring and on which road."""

    size: int = 16

    def draw(self, factors, generator=None):
        """Return pictures that are black but for three pixels."""
        angle = factors["place"][..., 0] * (2 * torch.pi / LAP)
        frames = torch.zeros(*angle.shape, 3, self.size, self.size)
        frames[..., 0, 0, :2] = 0.5 + 0.5 * torch.stack([angle.cos(), angle.sin()], -1)
        frames[..., 2, 0, 0] = factors["road"][..., 0].float()
        return frames

    def clips_of(self, held_out):
        """Return eight clips."""
        return self.factors(8, 160, generator_for("purpose", 1, "held out"))


@pytest.fixture(scope="module")
def choosing():
    """Return two levels: the second keeps what its last frame says, and z says on which road the car will be."""
    read = level(lambda x: torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1], x[:, 2, 0, 0]], 1), lambda s, z: s)
    third = torch.tensor([0.0, 1.0, 5.0])  # the last value is that of no road

    def chosen(s, z):
        """Return where the car is, on the road that z says."""
        road = (z * third).sum(-1, keepdim=True)
        return torch.cat([s[..., :2].expand(-1, z.shape[1], -1), road.expand(len(s), -1, -1)], -1)

    upper = level(lambda x: x[:, -3:], chosen, Discrete(3))
    return stacked(Told(), [read, upper], [(1, 1), (9, 8)], samples=60, frames=161)


def test_values_of_z_show_what_they_say_and_how_often(choosing):
    clip, present = decoding.before_junction(choosing, 2)
    place = choosing.tested.factors["place"][clip, :, 0] / LAP
    assert place[present].floor() + 1 == place[present + 8].floor() and 0.15 < place[present + 8] % 1 < 0.85
    pictures, use = decoding.decoded_codes(choosing, 2, clip, present)
    assert pictures.shape == (3, 3, 16, 16) and pictures[2].isnan().all()  # no code is like that
    assert torch.allclose(pictures[:2, 2, 0, 0], torch.tensor([0.0, 1.0]), atol=0.05)
    last = torch.arange(8, 161, 8)
    road = choosing.learned.factors["road"][:, last[1:], 0]
    assert torch.allclose(use, torch.stack([(road == k).float().mean() for k in range(3)]))


def test_roads_of_values_are_those_taken_where_they_cross(choosing):
    found = decoding.code_roads(choosing, 2)
    assert torch.equal(found[:2], torch.eye(2)) and found[2].isnan().all()


def test_present_without_a_code_is_named(choosing):
    for present in (9, 0, 168):
        with pytest.raises(ValueError, match="present: expected one of every 8 frames from 8 to 160"):
            decoding.decoded_codes(choosing, 2, 0, present)
    with pytest.raises(ValueError, match="numbers"):
        foreseen.codes(choosing, 0, 160)


def test_picture_of_values_has_the_roads_as_bars(choosing):
    figure = foreseen.codes(choosing, *decoding.before_junction(choosing, 2))
    titles = [panel.get_title(loc="center") for panel in figure.axes if panel.get_visible()]
    use = decoding.decoded_codes(choosing, 2, 0, 32)[1]
    assert titles[0] == "before the junction" and "8 frames later" in titles
    assert sorted(titles[1:3]) + titles[4:] == [
        f"z = 1, used in {100 * use[0]:.0f} %", f"z = 2, used in {100 * use[1]:.0f} %", "z = 3, used in 0 %"
    ]  # fmt: skip
    bars = [[part.get_width() for part in panel.patches if isinstance(part, Rectangle)] for panel in figure.axes]
    assert [bar for bar in bars if bar] == [[1, 0], [0, 1]]
    assert sum(text.get_text() == "crosses none" for panel in figure.axes for text in panel.texts) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(foreseen.ROADS)


def test_paper_is_white_where_it_was_black_and_hues_stay():
    inks = torch.tensor([[0.0, 1, 0, 0, 0.1, 0.3], [0.0, 0, 0, 1, 0.1, 0], [0.0, 0, 1, 0, 0.1, 0]])
    white, red, blue, green, gray, faint = foreseen.on_paper(inks).T
    assert torch.allclose(white, torch.ones(3)) and torch.allclose(red, torch.tensor([1.0, 0, 0]))
    assert torch.allclose(blue, torch.tensor([0.0, 0, 1])) and green[1] == 1 > green[0] == green[2] > 0.2
    assert gray.amax() == gray.amin() < 1 and faint[0] == 1 > faint[1] > red[1]
    assert torch.equal(foreseen.on_paper(2 * inks).T[1], red)  # no brighter than it can be


def test_film_strip_has_a_row_for_what_happens_and_one_for_each_level(choosing):
    figure = foreseen.sees(choosing, 1, (1, 8, 16))
    panels = np.array(figure.axes).reshape(3, 3)
    assert [panel.get_title(loc="center") for panel in panels[0]] == [
        "1 frame ahead", "8 frames ahead", "16 frames ahead"
    ]  # fmt: skip
    assert [row[0].get_ylabel() for row in panels] == ["what happens", "level 1", "level 2"]
    truth = decoding.pictures(choosing, 1, (1, 8, 16))
    for panel, picture in zip(panels[0], truth, strict=True):
        assert np.allclose(panel.images[0].get_array(), foreseen.on_paper(picture).permute(1, 2, 0))
    cars = decoding.positions(choosing, 1, (1, 8, 16))
    assert not any(panel.lines for panel in panels[0])
    for panel, car in zip(panels[1], cars, strict=True):
        assert not panel.lines or np.allclose(panel.lines[0].get_xydata()[1], car)


def test_animation_has_its_frames_its_colors_and_the_same_bytes(tmp_path, choosing, monkeypatch):
    monkeypatch.setattr(foreseen, "DPI", 40)
    for name in ("a", "b"):
        foreseen.animate(tmp_path / name / "one.gif", choosing, 0, (1, 2, 8), milliseconds=100)
    assert (tmp_path / "a" / "one.gif").read_bytes() == (tmp_path / "b" / "one.gif").read_bytes()
    with Image.open(tmp_path / "a" / "one.gif") as gif:
        times = []
        for number in range(gif.n_frames):
            gif.seek(number)
            times.append(gif.info["duration"])
            corner = np.asarray(gif.convert("RGB"))[0, 0]
            assert corner.tolist() == [255, 255, 255]
    assert times == [100, 100, 800]


def test_palette_has_the_colors_of_the_cars_on_paper():
    palette = np.array(foreseen._palette("plain").getpalette()).reshape(-1, 3)
    car = foreseen.on_paper(torch.tensor([1.0, 0.1, 0.0]))
    assert (palette == (255 * car).round().int().numpy()).all(1).any() and palette[0].tolist() == [255] * 3
