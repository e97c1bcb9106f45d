"""Pictures have a cell for every number and a line for every training; a smoke-level look at the scoreboard and at what
happens when a criterion is dropped.
"""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from jepa.lab import criteria, scoreboard, style
from jepa.lab.scoreboard import Column, board


@pytest.fixture(autouse=True)
def closed():
    """Set the style and close all figures afterwards."""
    style.use()
    yield
    pyplot.close("all")


COLUMNS = [
    Column("recall", "mode_recall", ".2f", good=1.0),
    Column("bits", "bits_spent", ".1f"),
    Column("cost", "inference_cost", ".0f", good=1.0, bad=100.0, log=True),
]
GROUPS = {"none": {"none": "no latent"}, "finite": {"codes": "K codes", "grid": "a grid"}}


def scores():
    """Return a row a variant: one has no bits, one spends any amount."""
    rows = {"none": [0.25, 0.0, 1.0], "codes": [1.0, np.nan, 100.0], "grid": [0.5, math.inf, 10.0]}
    return pd.DataFrame.from_dict(rows, "index", columns=[column.metric for column in COLUMNS])


def shades(figure):
    """Return the color of each cell, by row and column."""
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert len(patches) == 3 * len(COLUMNS)
    rows = sorted({round(patch.get_y(), 3) for patch in patches})
    return {(rows.index(round(p.get_y(), 3)), int(p.get_x())): p.get_facecolor()[:3] for p in patches}


def test_board_has_a_cell_for_every_variant_and_question():
    figure = board(scores(), COLUMNS, GROUPS)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert [words.count(text) for text in ("recall", "bits", "cost", "none", "finite")] == [1] * 5
    assert [words.count(text) for text in ("no latent", "K codes", "a grid")] == [1] * 3
    assert sorted(words[words.index("no latent") + 1 :][:3]) == ["0.0", "0.25", "1"]
    assert words.count("–") == words.count("∞") == 1 and {"1.00", "100", "0.50", "10"} <= set(words)
    assert len(words) == 3 + 2 + 3 * (1 + len(COLUMNS)) and len(shades(figure)) == 9


def test_shades_go_from_bad_to_good_and_none_is_gray():
    found = shades(board(scores(), COLUMNS, GROUPS))
    red_less_green = {key: color[0] - color[1] for key, color in found.items()}
    assert red_less_green[1, 0] < red_less_green[2, 0] < red_less_green[0, 0]  # recall: 1, 0.5, 0.25
    assert red_less_green[0, 2] < red_less_green[2, 2] < red_less_green[1, 2]  # cost: 1, 10, 100
    grays = {found[row, 1] for row in range(3)}
    assert len(grays) == 1 and len(set(next(iter(grays)))) == 1


@pytest.mark.parametrize(
    ("value", "share"),
    [(1.0, 1.0), (100.0, 0.0), (10.0, 0.5), (0.01, 1.0), (1e4, 0.0)],
)
def test_share_between_bad_and_good_may_be_in_factors(value, share):
    assert scoreboard._share(COLUMNS[2], value) == pytest.approx(share)
    assert scoreboard._share(COLUMNS[2]._replace(log=False), 50.5) == pytest.approx(0.5)


def test_metric_that_no_variant_has_is_a_dash():
    figure = board(scores().drop(columns="bits_spent"), COLUMNS, GROUPS)
    assert [text.get_text() for text in figure.axes[0].texts].count("–") == 3


WORLDS = ("fork", "crossing")
PAIRS = {"criterion 1": ("without_1", "restored_1"), "criteria 1 and 2": ("without_12", "restored_12")}


def monitored(last=100):
    """Return diagnostics of two seeds of every training."""
    rows = [
        {"variant": f"{world}_{variant}", "seed": seed, "step": step, "name": name, "value": seed / 10 - step / 1e3}
        for world in WORLDS
        for names in PAIRS.values()
        for variant in names
        for seed in (0, 1)
        for step in (0, last // 2, last)
        for name in (*criteria.DIAGNOSTICS, "spread")
    ]
    return pd.DataFrame(rows)


def test_curves_have_a_line_for_each_world_and_follow_one_training_by_the_next():
    figure = criteria.curves(monitored(), PAIRS, WORLDS)
    axes = np.array(figure.axes).reshape(len(criteria.DIAGNOSTICS), len(PAIRS))
    for panel in axes.flat:
        lines = [line for line in panel.lines if len(line.get_xdata()) > 2]
        assert len(lines) == len(WORLDS)
        assert all(sorted(set(line.get_xdata())) == [0, 50, 100, 150, 200] for line in lines)
        assert panel.get_xlim() == (0, 200)
    assert [panel.get_title(loc="left") for panel in axes[0]] == list(PAIRS)
    assert [panel.get_ylabel() for panel in axes[:, 0]] == list(criteria.DIAGNOSTICS.values())
    contrast = [line.get_ydata() for line in axes[0, 0].lines if len(line.get_xdata()) > 2]
    assert min(values.min() for values in contrast) >= criteria.LEAST and axes[0, 0].get_yscale() == "log"
    for row, name in enumerate(criteria.DIAGNOSTICS):  # the levels of the rule
        expected = [level[name] for level in (criteria.COLLAPSED, criteria.HEALTHY) if name in level]
        for panel in axes[row]:
            assert [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() == ":"] == expected
    (legend,) = [panel.get_legend() for panel in axes.flat if panel.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == list(WORLDS)


def test_chart_has_a_point_for_every_run():
    rows = [
        {"variant": f"{world}_{name}", "contrast": value, "probe_r2": value}
        for world in WORLDS
        for name, value in (("full", 0.95), ("full", 0.9), ("without_1", -5.0))
    ]
    _, axes = style.panels(1)
    criteria.chart(axes, pd.DataFrame(rows), {"full": "all", "without_1": "1 dropped"})
    points = [np.asarray(one.get_offsets()) for one in axes.collections if len(one.get_offsets())]
    assert sorted(map(len, points)) == [1, 1, 2, 2]
    x, y = np.concatenate(points).T
    low, high = axes.get_xlim()
    assert (
        x.min() >= low and x.max() <= high and y.min() >= axes.get_ylim()[0]
    )  # what is off the chart lies on its edge
    assert {"collapsed", "healthy"} <= {text.get_text() for text in axes.texts}
    labels = [label for label in axes.get_legend_handles_labels()[1] if not label.startswith("_")]
    assert labels == ["all", "1 dropped"]


def test_regions_of_the_chart_are_those_of_the_rule():
    _, axes = style.panels(1)
    criteria.chart(axes, pd.DataFrame(columns=["variant", "contrast", "probe_r2"], dtype=float), {})
    to_data = lambda share: axes.transData.inverted().transform(axes.transAxes.transform((share, 0)))[0]  # noqa: E731
    assert to_data(criteria._share(0.01)) == pytest.approx(0.01) and to_data(criteria._share(0.5)) == pytest.approx(0.5)


def test_pictures_are_the_same_bytes_for_the_same_numbers():
    def drawn():
        """Return the bytes of both pictures."""
        figures = (board(scores(), COLUMNS, GROUPS), criteria.curves(monitored(), PAIRS, WORLDS))
        files = [io.BytesIO() for _ in figures]
        for figure, file in zip(figures, files, strict=True):
            figure.savefig(file, dpi=60, metadata={"Software": None})
        return [file.getvalue() for file in files]

    assert drawn() == drawn()
