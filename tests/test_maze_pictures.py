"""Pictures of planners in mazes show what was thought and walked; charts of arrivals have a mark for every number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import generator
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from jepa.evaluate.thoughts import Proposed, Thought, Watched
from jepa.lab import arrivals, beside, charts, figures, mazes, style, walks
from jepa.measures.intervals import interval
from jepa.worlds.rooms.grid import grid

START, GOAL = torch.tensor([2.0, 2.0]), torch.tensor([14.0, 14.0])


@pytest.fixture(autouse=True)
def closed():
    """Set the style and close all figures afterwards."""
    style.use()
    yield
    pyplot.close("all")


def layouts(shut=1.0, seed=3):
    """Return a maze of 2 × 2 rooms, one of whose doors may be a shut gate."""
    return grid(1, 2, 2, generator(seed), loops=1.0, shut=shut)


def proposed(step=0, rounds=3, level=2, start=START):
    """Return a plan of as many rounds: the first fail at their second condition, the last one is met and taken."""
    found = []
    for number in range(rounds):
        asked = start + torch.tensor([[1.0, 4.0], [5.0, 8.0], [12.0, 12.0]]) + number / 4
        path = start + torch.linspace(0, 1, 5 + number).unsqueeze(1) * torch.tensor([5.0, 7.0])
        found.append(Thought(asked, path, -1 if number == rounds - 1 else 1))
    asked = found[-1].asked if found else start + torch.tensor([[6.0, 6.0], [12.0, 12.0]])
    return Proposed(step, level, start, asked, found, len(found) - 1)


def watched(steps=8, plans=None, solved=True, name="iterated"):
    """Return an episode that goes straight to its goal, or half of the way."""
    share = torch.linspace(0, 1 if solved else 0.5, steps + 1).unsqueeze(1)
    positions = START + share * (GOAL - START)
    plans = [proposed(), proposed(3, 2, start=positions[min(3, steps)])] if plans is None else plans
    return Watched(name, layouts(), GOAL, positions, solved, (90, 360), plans)


def colored(axes, color):
    """Return the boxes of a color, (x0, y0, x1, y1) each."""
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_facecolor()[:3] == color]
    return [tuple(box.get_bbox().extents) for box in boxes]


def lines(axes, marker):
    """Return the data of lines with a marker."""
    return [line.get_xydata() for line in axes.lines if line.get_marker() == marker]


def paths(axes, color):
    """Return the data of whole lines of a color."""
    return [
        line.get_xydata()
        for line in axes.lines
        if line.get_marker() == "None" and line.get_linestyle() == "-" and to_rgb(line.get_color()) == color
    ]


# -- mazes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_shut_gates_have_a_color_of_their_own_and_open_doors_are_free(seed):
    made = grid(2, 3, 3, generator(seed), shut=0.7)
    _, axes = style.panels(1)
    mazes.maze(axes, made, 1)
    boxes, centers = colored(axes, mazes.GATE), made.doors[1][made.gates[1]].tolist()
    found = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes]
    assert len(found) == len(centers) > 0 and np.allclose(found, centers)
    assert all(sorted((x1 - x0, y1 - y0)) == pytest.approx([1, 3]) for x0, y0, x1, y1 in boxes)
    assert len(colored(axes, walks.WALL)) == len(made.drawn[1])
    for x, y in made.doors[1][made.open[1]].tolist():
        assert not any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in colored(axes, walks.WALL))
    assert axes.get_xlim() == (-0.5, 26.5) and axes.get_ylim() == (26.5, -0.5)


def test_every_round_has_a_panel_with_what_was_asked_for_realized_and_not_met():
    one = watched()
    plan = one.plans[0]
    figure, axes = style.panels(4, rows=1)
    mazes.round_by_round(axes, one, plan)
    for panel, thought in zip(axes, plan.rounds, strict=False):
        (dots,) = [data for data in lines(panel, "o") if len(data) > 1]
        assert np.allclose(dots, torch.cat([START[None], thought.asked]))
        (path,) = paths(panel, walks.IMAGINED)
        assert np.allclose(path, thought.path)
        crosses = lines(panel, "X")
        assert len(crosses) == (thought.unmet >= 0) and all(np.allclose(one, thought.asked[1]) for one in crosses)
        assert len(lines(panel, "*")) == 1
    words = [panel.get_title(loc="center") for panel in axes]
    assert words == ["round 1: 1 of 3 met", "round 2: 1 of 3 met", "round 3: all met, taken", ""]
    assert axes[0].axison and not axes[3].axison
    with pytest.raises(ValueError, match="axes: expected at least 3, one for each round, found 2"):
        mazes.round_by_round(axes[:2], one, plan)


def test_a_plan_without_rounds_and_one_without_conditions_are_drawn():
    _, axes = style.panels(2)
    none = torch.zeros(0, 2)
    mazes.round_by_round(axes[:1], watched(), proposed(rounds=0))
    stuck = Proposed(0, 2, START, none, [Thought(none, START[None], -1)], 0)
    mazes.round_by_round(axes[1:], watched(), stuck)
    assert [panel.get_title(loc="center") for panel in axes] == ["taken as it is", "round 1: all met, taken"]
    assert [max(map(len, lines(panel, "o"))) for panel in axes] == [3, 1]
    assert len(paths(axes[1], walks.IMAGINED)[0]) == 1
    for plan, panels in ((proposed(), 3), (proposed(rounds=0), 3), (proposed(rounds=8), 8)):
        assert len(mazes.rounds(watched(), plan).axes) == panels


def test_film_shows_what_was_walked_and_the_plan_that_was_followed():
    one = watched()
    last = mazes.arrival(one)
    assert last == 8 and mazes.arrival(watched(solved=False)) == 8
    _, axes = style.panels(5, height=1.4)
    mazes.film(axes, one)
    steps = [0, 2, 4, 6, 8]
    assert [panel.get_title(loc="center") for panel in axes] == ["start", *(f"step {t}" for t in steps[1:])]
    for panel, t in zip(axes, steps, strict=True):
        (way,) = paths(panel, walks.WALKED)
        assert np.allclose(way, one.positions[: t + 1])
        plan = one.plans[0 if t < 3 else 1]
        assert any(len(dots) == 4 and np.allclose(dots[1:], plan.asked) for dots in lines(panel, "o"))


@pytest.mark.parametrize("plans", [[], [proposed(rounds=0)], [proposed(7)]])
def test_films_of_one_step_of_no_plan_and_of_one_that_was_made_late(plans):
    for steps in (1, 8):
        _, axes = style.panels(3, height=1.4)
        one = watched(steps, plans)
        mazes.film(axes, one)
        mazes.gallery(axes[:1], [one], ["for no reason"])
        mazes.tasks({"goal": one})(axes[1], "goal")
        assert list(beside.frames(one, one))
    assert mazes.current(watched(plans=[]), 8) == []


def test_conditions_of_a_higher_level_are_squares_over_the_plan_below():
    one = watched(plans=[proposed(level=3), proposed()])
    assert [plan.level for plan in mazes.current(one, 4)] == [2, 3]
    _, axes = style.panels(1)
    mazes.moment(axes, one, 4)
    (squares,) = lines(axes, "s")
    assert np.allclose(squares, one.plans[0].asked)


def test_gallery_has_a_reason_under_each_and_leaves_the_rest_empty():
    _, axes = style.panels(2, rows=2)
    long = "the gate looks open on the map and what failed is not remembered, so that it asks for the same again"
    mazes.gallery(axes, [watched(solved=False), watched(), watched(plans=[])], ["short", long, "none"])
    (first, second), (third, fourth) = axes
    assert [panel.get_xlabel().replace("\n", " ") for panel in (first, second, third)] == ["short", long, "none"]
    assert "\n" in second.get_xlabel() and not fourth.axison
    assert [panel.get_title(loc="center") for panel in (first, second)] == ["step 8: not there", "step 8: at the goal"]
    with pytest.raises(ValueError, match="reasons: expected 1, one for each episode, found 2"):
        mazes.gallery(axes, [watched()], ["one", "two"])
    with pytest.raises(ValueError, match="axes: expected at least 2, one for each episode, found 1"):
        mazes.gallery(axes.flat[:1], [watched()] * 2, ["one", "two"])


def test_slider_shows_the_plan_of_each_task_with_what_it_asks_for(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    found = {"goal": watched(), "around": watched(plans=[proposed(rounds=0)])}
    marks = {"around": [mazes.Mark("avoid", (8.0, 4.0), 2.0, "not here"), mazes.Mark("late", (14.0, 14.0), 1.5)]}
    draw = mazes.tasks(found, marks)
    _, (left, right) = style.panels(2)
    draw(left, "goal")
    draw(right, "around")
    discs = [(patch.center, patch.radius) for patch in right.patches if isinstance(patch, Circle)]
    assert discs == [((8, 4), 2), ((14, 14), 1.5)] and not any(isinstance(patch, Circle) for patch in left.patches)
    assert [text.get_text() for text in right.texts] == ["not here", ""]
    assert [max(map(len, lines(panel, "o"))) for panel in (left, right)] == [4, 3]
    assert np.allclose(paths(left, walks.WALKED)[0], found["goal"].positions)
    figures.slider(draw, "task", list(found))
    moved, image = shown[1].children
    before = image.value
    moved.value = "around"
    assert image.value != before
    with pytest.raises(ValueError, match="marks: expected some of goal, found through"):
        mazes.tasks({"goal": watched()}, {"through": []})
    with pytest.raises(ValueError, match="marks: expected of kind avoid, through, late, found near"):
        mazes.tasks({"goal": watched()}, {"goal": [mazes.Mark("near", (1.0, 1.0), 1.0)]})


def test_key_names_what_it_is_asked_for():
    figure, _ = style.panels(1)
    mazes.key(figure, "goal", "walked")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["goal", "walked"]
    with pytest.raises(ValueError, match="names: expected some of walked, .*found door"):
        mazes.key(figure, "door")


# -- two episodes side by side -----------------------------------------------------------------------------------------


def test_both_stand_while_one_of_them_thinks():
    greedy, iterated = watched(20, [proposed(rounds=0), proposed(6, 0)], False), watched(plans=[proposed()])
    shown = list(beside.frames(greedy, iterated))
    first = [frame for frame in shown if frame.left.t == 0 and frame.right.t == 0]
    rounds = [(frame.right.round, frame.right.realized) for frame in first[:7]]
    assert rounds == [(0, False), (0, True), (1, False), (1, True), (2, False), (2, True), (-1, False)]
    assert first[1].right.words == "step 0: it thinks, round 1: 1 of 3 met"
    assert sum(frame.left.words == "step 6: it plans again" for frame in shown) == 1
    for side in ("left", "right"):
        times = [getattr(frame, side).t for frame in shown]
        assert times == sorted(times) and times[0] == 0
    assert shown[-1].left.words == "step 20: not there" and shown[-1].right.words == "step 8: at the goal"
    assert max(frame.right.t for frame in shown) == 8  # who is there rests


def test_rounds_of_later_plans_and_plans_after_the_goal_are_not_shown():
    many = watched(plans=[proposed(step) for step in range(8)] + [proposed(9)])
    shown = [frame.left for frame in beside.frames(many, watched(plans=[]))]
    assert {one.t for one in shown if one.round >= 0} == set(range(beside.SLOW))
    assert {one.t for one in shown if "plans" in one.words} == set(range(8))


def test_long_walk_is_shown_in_strides():
    shown = list(beside.frames(watched(400, [], False), watched(plans=[])))
    assert len(shown) <= beside.WALK + 3 and shown[-1].left.t == 400


def test_a_moment_draws_its_round_and_forgets_it():
    one = watched()
    _, axes = style.panels(1)
    mazes.maze(axes, one.layouts)
    beside.draw(axes, one, beside.Moment(4, (one.plans[0],), 1, True, "words"))
    (path,) = paths(axes, walks.IMAGINED)
    assert np.allclose(path, one.plans[0].rounds[1].path) and axes.texts[0].get_text() == "words"
    assert np.allclose(paths(axes, walks.WALKED)[0], one.positions[:5]) and len(lines(axes, "X")) == 1


def test_animation_is_small_has_its_time_and_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "DPI", 40)
    greedy, iterated = watched(12, [proposed(rounds=0)], False), watched()
    for name in ("a", "b"):
        beside.beside(tmp_path / name / "two.gif", greedy, iterated, ("greedy", "iterated"))
    shown = list(beside.frames(greedy, iterated))
    with Image.open(tmp_path / "a" / "two.gif") as gif:
        assert gif.size == (200, 120) and 10 < gif.n_frames <= len(shown)
        total, pictures = 0, []
        for number in range(gif.n_frames):
            gif.seek(number)
            total += gif.info["duration"]
            pictures.append(np.asarray(gif.convert("RGB"), float))
    assert total == sum(frame.milliseconds for frame in shown)
    assert all((one != two).any() for one, two in zip(pictures, pictures[1:], strict=False))
    ink = np.array(walks.IMAGINED) * 255
    red = [(np.abs(picture - ink).max(-1) < 30).sum() for picture in pictures]
    assert max(red) == max(red[:7]) > 2 * red[-1]  # rounds are gone when it walks
    assert (tmp_path / "a" / "two.gif").read_bytes() == (tmp_path / "b" / "two.gif").read_bytes()


# -- charts ------------------------------------------------------------------------------------------------------------

METHODS = {"greedy": "greedy", "iterated": "iterated", "mine": "one that nobody knows"}
SIZES = {"three_told": "3 × 3", "five_told": "5 × 5"}
PAIRS = {"iterated_minus_greedy": "iterated − greedy"}


def measured(seeds=3):
    """Return measurements of planners, as a study has them."""
    rows = []
    for seed in range(seeds):
        for place, variant in enumerate([*SIZES, "three_budget_4000", "three_budget_500", "three_budget_x"]):
            for number, method in enumerate(METHODS):
                rate = (50 + 10 * number - 20 * place + 5 * seed) / 100
                rates = {f"{method}_success{suffix}": rate for suffix in ("", "_misleading", "_clean", "_near", "_far")}
                spent = {f"{method}_evaluations": 1000.0 * (1 + number + seed), f"{method}_gigaflops": 1.0 + number}
                rows += [(variant, seed, metric, max(0.0, value), 100) for metric, value in rates.items()]
                rows += [(variant, seed, metric, value, None) for metric, value in spent.items()]
            gains = {f"iterated_minus_greedy{suffix}": 0.1 + seed / 50 for suffix in arrivals.KINDS}
            rows += [(variant, seed, metric, value, None) for metric, value in gains.items()]
    table = pd.DataFrame(rows, columns=["variant", "seed", "metric", "value", "count"]).assign(claim="P9")
    return table.astype({"count": "Int64"})


def rates(table, variant, metric):
    """Return the values of a rate."""
    return table[(table.variant == variant) & (table.metric == metric)].value.to_numpy()


@pytest.mark.parametrize("seeds", [1, 3])
def test_success_has_a_mark_for_every_method_size_and_kind(seeds):
    table = measured(seeds)
    figure, axes = style.panels(3, sharey=True)
    arrivals.success(axes, table, SIZES, METHODS)
    charts.legend(figure, axes[0])
    for panel, suffix in zip(axes, arrivals.KINDS, strict=True):
        for container, variant in zip(panel.containers, SIZES, strict=True):
            values = [rates(table, variant, f"{method}_success{suffix}") for method in METHODS]
            assert container.lines[0].get_xdata() == pytest.approx([
                interval(one, "logit", [100] * seeds).estimate for one in values
            ])  # fmt: skip
            ends = [segment[:, 0] for segment in container.lines[2][0].get_segments()]
            if seeds == 1:
                assert all(low == high for low, high in ends)
            else:
                found = [interval(one, "logit", [100] * seeds) for one in values]
                assert np.allclose(ends, [(one.low, one.high) for one in found])
        heights = np.concatenate([container.lines[0].get_ydata() for container in panel.containers])
        assert len(set(heights)) == len(METHODS) * len(SIZES)
    assert [panel.get_title(loc="left") for panel in axes] == list(arrivals.KINDS.values())
    assert [text.get_text() for text in axes[0].get_yticklabels()] == list(METHODS.values())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(SIZES.values())


@pytest.mark.parametrize(("cost", "first"), [("evaluations", 6 ** (1 / 3) * 1000), ("gigaflops", 1.0)])
def test_spent_has_a_mark_for_every_method_and_a_line_for_those_that_ask_nothing(cost, first):
    _, axes = style.panels(1)
    arrivals.spent(axes, measured(), "three_told", {"greedy": "greedy", "mine": "mine"}, {"iterated": "free"}, cost)
    assert axes.get_xscale() == "log" and len(axes.containers) == 2
    (x,), (y,) = axes.containers[0].lines[0].get_data()
    assert x == pytest.approx(first) and y == pytest.approx(0.55, abs=0.01)
    axes.set_xlim(700, 40000)
    axes.figure.canvas.draw()
    named = {text.get_position()[0]: text.get_text() for text in axes.get_xticklabels()}
    assert [words for at, words in named.items() if 700 <= at <= 40000] == ["1k", "3k", "10k", "30k"]
    flat = [line for line in axes.lines if line.get_label() == "free"]
    assert [line.get_ydata()[0] for line in flat] == pytest.approx([0.65], abs=0.01)
    with pytest.raises(ValueError, match="cost: expected one of evaluations, gigaflops, found 'time'"):
        arrivals.spent(axes, measured(), "three_told", METHODS, cost="time")


def test_budgets_are_read_from_the_names_of_variants_in_their_order():
    _, axes = style.panels(1)
    arrivals.budgets(axes, measured(), "three_budget", METHODS)
    assert len(axes.containers) == 3
    assert axes.containers[1].lines[0].get_xdata() == pytest.approx([500, 4000])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["500", "4k"]
    with pytest.raises(ValueError, match="expected variants two_<evaluations>, found .*three_budget_500"):
        arrivals.budgets(axes, measured(), "two", METHODS)


def test_distance_has_a_line_for_every_method_over_its_bins():
    _, axes = style.panels(1)
    arrivals.distance(axes, measured(), "five_told", METHODS, {"near": "near", "far": "far"})
    assert [len(container.lines[0].get_xdata()) for container in axes.containers] == [2, 2, 2]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["near", "far"]
    with pytest.raises(ValueError, match="'greedy_success_middle' of 'five_told'"):
        arrivals.distance(axes, measured(), "five_told", METHODS)


def test_differences_are_paired_and_beside_zero():
    _, axes = style.panels(3, sharex=True, sharey=True)
    arrivals.differences(axes, measured(), SIZES, PAIRS)
    assert [container.lines[0].get_xdata()[0] for container in axes[0].containers] == pytest.approx([0.12, 0.12])
    assert all(panel.lines[0].get_xdata() == [0, 0] for panel in axes)


@pytest.mark.parametrize(
    ("draw", "missing"),
    [
        (lambda axes: arrivals.success([axes] * 3, measured(), SIZES, {"best": ""}), "best_success"),
        (lambda axes: arrivals.spent(axes, measured(), "three_told", {"best": ""}), "best_evaluations"),
        (lambda axes: arrivals.budgets(axes, measured(), "three_budget", {"best": ""}), "best_success"),
        (lambda axes: arrivals.differences([axes] * 3, measured(), SIZES, {"a_minus_b": ""}), "a_minus_b"),
        (lambda axes: arrivals.spent(axes, measured(), "nine_told", METHODS), "of 'nine_told'"),
    ],
)
def test_a_metric_that_is_missing_is_named(draw, missing):
    with pytest.raises(ValueError, match=f"table: expected the metric .*{missing}"):
        draw(style.panels(1)[1])


def test_methods_look_the_same_in_all_charts():
    _, (left, right) = style.panels(2)
    arrivals.budgets(left, measured(), "three_budget", METHODS)
    arrivals.distance(right, measured(), "five_told", {"iterated": "", "greedy": ""}, {"near": "", "far": ""})
    looks = [
        [(one.lines[0].get_color(), one.lines[0].get_marker()) for one in axes.containers] for axes in (left, right)
    ]
    assert looks[0][:2] == looks[1][::-1] and len(set(looks[0])) == 3


def test_figures_are_the_same_bytes_for_the_same_numbers(tmp_path):
    for name in ("a.png", "b.png"):
        figure, axes = style.panels(3)
        mazes.film(axes[:2], watched())
        arrivals.spent(axes[2], measured(), "three_told", METHODS)
        style.save(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
