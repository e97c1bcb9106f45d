"""Pictures of rooms show what they are given: walls, paths, edges, frames; charts have a mark for every number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from PIL import Image

from jepa.evaluate import imagined as told
from jepa.evaluate.acting import Acting
from jepa.evaluate.imagined import Episode, Field, Imagined
from jepa.lab import charts, figures, plans, rates, style, walks
from jepa.measures.intervals import interval
from jepa.runs import build
from jepa.runs.config import configure
from jepa.streams import generator_for
from jepa.worlds.rooms.grid import grid
from jepa.worlds.rooms.layouts import fixed_two_rooms
from jepa.worlds.rooms.pictures import draw


@pytest.fixture(autouse=True)
def closed():
    """Set the style and close all figures afterwards."""
    style.use()
    yield
    pyplot.close("all")


def plan(step=0, begin=(10.0, 18.0), goal=(50.0, 20.0)):
    """Return a plan of four steps with a tree of a root, two children and a grandchild."""
    path = torch.tensor(begin) + torch.linspace(0, 1, 5).unsqueeze(1) * (torch.tensor(goal) - torch.tensor(begin))
    nodes = torch.stack([path[0], path[2], path[0] + 3, path[4]])
    parent, depth = torch.tensor([-1, 0, 0, 1]), torch.tensor([0, 1, 1, 2])
    return Imagined(step, torch.tensor(goal), path, nodes, parent, depth, 64)


def episode(view="channels", steps=4):
    """Return an episode that goes straight through the door, planned twice where it is long enough."""
    layouts, goal = fixed_two_rooms(1, torch.device("cpu")), torch.tensor([50.0, 20.0])
    positions = torch.tensor([10.0, 18.0]) + torch.linspace(0, 1, steps + 1).unsqueeze(1) * torch.tensor([40.0, 2.0])
    made = [plan()] if steps < 3 else [plan(), plan(2, tuple(positions[2].tolist()))]
    pictures = draw(layouts, positions.unsqueeze(0), 9, view=view)[0]
    return Episode(layouts, goal, positions, pictures, made)


def edges(axes):
    """Return the segments of the collections of lines."""
    return [part for found in axes.collections if isinstance(found, LineCollection) for part in found.get_segments()]


@pytest.fixture(scope="module")
def subject():
    """Return a tiny world model that is not trained, with four tasks."""
    settings = {
        "world": {"name": "rooms"}, "encoder": {"name": "keypoints"}, "target_encoder": "shared",
        "predictor": {"name": "map_reader"}, "objective": {"name": "trajectories", "steps": 2}, "measure": [],
    }  # fmt: skip
    of = build.parts(configure(settings), 0)
    tasks = of.world.tasks(4, torch.Generator().manual_seed(0))
    stream = lambda purpose: generator_for("purpose", 0, purpose)  # noqa: E731
    return Acting(of.model.eval(), of.world, tasks, 1.0, stream, of.sample, samples=24, probe=16)


def test_room_has_a_box_for_every_wall_and_a_line_for_every_path():
    generator = torch.Generator().manual_seed(0)
    for layouts in (fixed_two_rooms(2, torch.device("cpu")), grid(1, 1, 1, generator), grid(2, 2, 3, generator)):
        _, axes = style.panels(1)
        row, paths = len(layouts.bounds) - 1, [torch.rand(1, 2), torch.rand(7, 2)]
        walks.room(axes, layouts, row, torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), paths)
        boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        assert [(*box.get_xy(), box.get_width()) for box in boxes] == [
            (x0, y0, x1 - x0) for x0, y0, x1, _ in layouts.drawn[row].tolist()
        ]
        assert [len(line.get_xdata()) for line in axes.lines] == [1, 7, 1, 1]
        assert axes.get_aspect() == 1 and len(axes.get_xticks()) == 0 and axes.yaxis_inverted()


def test_composed_picture_is_warm_at_the_dot_and_dark_at_walls_and_gray_is_gray():
    shown = walks.composed(torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]))
    assert shown.shape == (1, 3, 3)
    assert np.allclose(shown[0], [walks.DOT, walks.WALL, walks.FLOOR], atol=1e-6)
    gray = walks.composed(torch.tensor([[[2.0, 1.0, 0.0]]]))[0]
    assert np.ptp(gray, axis=1).max() == 0 and gray[0, 0] < gray[1, 0] < gray[2, 0] == 1
    assert np.isfinite(walks.composed(torch.zeros(2, 3, 3))).all()


@pytest.mark.parametrize("view", ["channels", "gray"])
def test_film_shows_what_was_walked_and_what_is_left_of_the_plan(view):
    figure, axes = style.panels(5, height=1.4)
    walks.film(axes, episode(view))
    walks.key(figure)
    assert [panel.get_title(loc="center") for panel in axes] == ["start", *(f"step {t}" for t in range(1, 5))]
    ahead, walked, goal = zip(*(panel.lines for panel in axes), strict=True)
    assert [len(line.get_xdata()) for line in walked] == [1, 2, 3, 4, 5]
    assert [len(line.get_xdata()) for line in ahead] == [5, 4, 5, 4, 3]  # planned again at step 2
    assert all(len(panel.images) == 1 for panel in axes) and {tuple(*line.get_xydata()) for line in goal} == {(50, 20)}


def test_film_of_one_step_and_of_no_plan():
    figure, axes = style.panels(3, height=1.4)
    walks.film(axes, episode(steps=1))
    alone = episode(steps=1)._replace(plans=[])
    assert walks.current(alone, 0) is None and walks.ahead(alone, 1).shape == (0, 2)
    walks.film(axes, alone)
    assert walks.arrival(alone) == 1


def test_tree_has_an_edge_for_every_node_but_the_root():
    figure, axes = style.panels(1)
    one = plan()
    walks.tree_picture(axes, fixed_two_rooms(1, torch.device("cpu")), one)
    found = np.array(edges(axes))
    assert found.shape == (3, 2, 2) and np.allclose(found[:, 1], one.nodes[1:])
    assert np.allclose(found[:, 0], one.nodes[one.parent[1:]])
    colors = axes.collections[0].get_colors()
    assert (colors[0] == colors[1]).all() and colors[0].sum() > colors[2].sum()  # light is near
    assert figure.axes[1].get_ylim() == (0, 4)  # two macro-actions of two steps


def test_plan_without_a_tree_is_drawn_as_a_path():
    _, axes = style.panels(1)
    one, none = plan(), torch.zeros(0, dtype=torch.long)
    flat = one._replace(nodes=one.nodes[:0], parent=none, depth=none)
    walks.tree_picture(axes, fixed_two_rooms(1, torch.device("cpu")), flat)
    assert edges(axes) == [] and len(axes.lines[0].get_xdata()) == 5


def test_field_lies_on_its_points_and_has_a_color_for_walls():
    figure, axes = style.panels(1)
    steps = torch.arange(15.0).view(3, 5)
    steps[1, 2] = torch.nan
    found = Field(fixed_two_rooms(1, torch.device("cpu")), torch.tensor([10.0, 10.0]), steps, (4.0, 4.0, 60.0, 60.0))
    walks.field(axes, found)
    (image,) = axes.images
    assert image.get_extent() == [-3, 67, 74, -10]  # half a cell beyond the outer points
    assert image.get_array().mask.sum() == 1 and len(figure.axes) == 2
    walks.field(style.panels(1)[1], found._replace(steps=torch.zeros(3, 3)), bar=False)


def test_animation_has_its_frames_and_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "DPI", 30)
    shown = list(plans.frames(episode()))
    assert [one.title for one in shown[:4]] == [
        *(f"it imagines {steps} steps" for steps in (0, 2, 4)),
        "and takes a path that leads to the goal",
    ]
    assert sum(one.title == "step 2: it plans again" for one in shown) == len(plans.FLASH)
    assert [one.t for one in shown] == sorted(one.t for one in shown) and shown[-1].title == "step 4: at the goal"
    for name in ("a", "b"):
        plans.animate(tmp_path / name / "one.gif", episode())
    with Image.open(tmp_path / "a" / "one.gif") as gif:
        assert 10 <= gif.n_frames <= len(shown)  # frames that are alike are one that lasts longer
        total = 0
        for number in range(gif.n_frames):
            gif.seek(number)
            total += gif.info["duration"]
    assert total == sum(one.milliseconds for one in shown)
    assert (tmp_path / "a" / "one.gif").read_bytes() == (tmp_path / "b" / "one.gif").read_bytes()


def test_long_walk_is_shown_in_strides():
    still = episode()._replace(positions=torch.zeros(201, 2), plans=[])
    shown = list(plans.frames(still))
    assert len(shown) <= plans.WALK + 3 and shown[-1].title == "step 200: not there"


def test_slider_shows_the_tree_of_each_goal(monkeypatch):
    found = []
    monkeypatch.setattr(figures, "display", found.append)
    draw = plans.goals(fixed_two_rooms(1, torch.device("cpu")), {"near": plan(), "far": plan(goal=(55.0, 50.0))})
    figures.slider(draw, "goal", ["near", "far"])
    moved, image = found[1].children
    before = image.value
    moved.value = "far"
    assert len(found) == 2 and image.value != before


def test_what_a_planner_imagines_begins_at_the_present_and_follows_its_tree(subject):
    one = told.imagined(subject, subject.tasks, 1, (20.0, 30.0))
    assert one.goal.tolist() == [20, 30] and one.step == 0
    assert torch.allclose(one.path[0], one.nodes[0]) and one.parent[0] == -1
    assert (one.depth[1:] == one.depth[one.parent[1:]] + 1).all()
    assert torch.equal(told.imagined(subject, subject.tasks, 1, (20.0, 30.0)).nodes, one.nodes)


def test_episode_keeps_every_plan_with_its_step(subject):
    found = told.episode(subject, subject.tasks, 2, steps=6)
    assert found.positions.shape == (7, 2) and found.pictures.shape == (7, 2, 33, 33)
    assert torch.equal(found.positions[0], subject.tasks.start[2])
    made = [one.step for one in found.plans]
    assert made == sorted(set(made)) and made[0] == 0 and made[-1] < 6


def test_steps_to_go_are_missing_in_walls_alone(subject):
    found = told.steps_to_go(subject, subject.tasks, 0, side=15)
    wall = subject.tasks.layouts.solids[0, 0]
    x = torch.linspace(4, 60, 15)
    assert found.steps.shape == (15, 15) and found.corners == (4, 4, 60, 60)
    lost = found.steps.isnan().any(0)
    assert (lost <= ((x > wall[0]) & (x < wall[2]))).all()


NAMES = {"ours": "with a map", "plain": "without"}


def measured(seeds=3):
    """Return measurements of two variants, as a study has them."""
    rows = []
    for variant, bad in (("ours", 0.1), ("plain", 0.6)):
        for seed in range(seeds):
            errors = {f"unroll_rmse_{step}": (bad + seed / 10) * step for step in charts.HORIZONS}
            errors |= {f"still_rmse_{step}": 2.0 * step for step in charts.HORIZONS} | {"position_rmse": bad}
            rows += [("R1", variant, seed, metric, value, None) for metric, value in errors.items()]
            shares = {**dict.fromkeys(charts.KINDS, bad), "door_passed": 1.0, "success_eb_jepa": 1 - bad}
            rows += [("R2", variant, seed, metric, value, 100) for metric, value in shares.items()]
            rows.append(("R3", variant, seed, "success_eb_jepa", 1 - bad, 100))  # serves another claim as well
    return pd.DataFrame(rows, columns=["claim", "variant", "seed", "metric", "value", "count"]).astype(
        {"count": "Int64"}
    )


def test_estimate_counts_a_number_once_and_needs_two_seeds_for_an_interval():
    found, values = charts.estimate(measured(), ("ours", "success_eb_jepa"), "logit")
    assert found == interval([0.9] * 3, "logit", [100] * 3) and values.tolist() == [0.9] * 3
    alone, _ = charts.estimate(measured(1), ("ours", "position_rmse"), "log")
    assert alone.estimate == pytest.approx(0.1) and np.isnan([alone.low, alone.high]).all()
    unknown = measured().assign(count=pd.NA)
    assert charts.estimate(unknown, ("ours", "door_passed"), "logit")[0][:3] == (1, 1, 1)
    with pytest.raises(ValueError, match="success_x"):
        charts.estimate(measured(), ("ours", "success_x"))


@pytest.mark.parametrize("seeds", [1, 3])
def test_charts_have_a_mark_for_every_model_and_kind(seeds):
    table = measured(seeds)
    figure, (left, middle, right) = style.panels(3)
    charts.horizons(left, table, NAMES)
    charts.leaks(middle, table, NAMES)
    charts.course(right, table, {"one": {"plain": 600, "ours": 60}})
    charts.legend(figure, left)
    assert [len(one.lines[0].get_xdata()) for one in left.containers] == [4, 4]
    assert [len(one.lines[0].get_xdata()) for one in middle.containers] == [1] * 8
    assert right.containers[0].lines[0].get_xdata().tolist() == [60, 600]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*NAMES.values(), "staying where one is"]
    ticks = [text.get_text() for text in left.get_xticklabels()]
    assert ticks == [str(step) for step in charts.HORIZONS] and left.get_yscale() == "log"


@pytest.mark.parametrize("seeds", [1, 3])
def test_rows_of_rates_are_named_and_numbered(seeds):
    table, where = measured(seeds), {name: (variant, "success_eb_jepa") for variant, name in NAMES.items()}
    _, axes = style.panels(1)
    rates.controls(axes, table, where, {"without": 0.5, "published": 0.97}, ours=["with a map"])
    assert [text.get_text() for text in axes.get_yticklabels()] == [*NAMES.values(), "published"]
    assert [text.get_text() for text in axes.texts] == ["90 %", "40 %", "97 %"]
    opened = [line.get_xdata()[0] for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert opened == [0.5, 0.97]
    _, panels = style.panels(2, rows=2, sharex=True, sharey=True)
    rates.planners(panels, table, {title: where for title in "abcd"})
    assert [panel.get_title(loc="left") for panel in panels.flat] == list("abcd")
    assert all(len(panel.containers) == 2 for panel in panels.flat)
    table_of = rates.ablations(table, NAMES)
    assert [len(panel.containers) for panel in table_of.axes] == [2] * len(rates.ABLATED)
    assert [text.get_text() for text in table_of.axes[-1].texts] == ["0.90", "0.40"]


def test_figures_are_the_same_bytes_for_the_same_numbers(tmp_path):
    def saved(name):
        """Return the bytes of a film, a tree and a chart."""
        figure, axes = style.panels(3)
        walks.film(axes[:1], episode())
        walks.tree_picture(axes[1], episode().layouts, plan())
        charts.leaks(axes[2], measured(), NAMES)
        style.save(figure, tmp_path / name)
        return (tmp_path / name).read_bytes()

    assert saved("a.png") == saved("b.png")
