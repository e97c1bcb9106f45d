"""Rates in rows: success beside its controls, planners beside each other, a recipe beside itself without a part.

Tables are as in `jepa.lab.charts`: a row has a name in words, a mean over seeds, its 95 % interval and every seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jepa.lab import style
from jepa.lab.charts import FAINT, MARKERS, RATE, RATES, Where, arms, estimate, factors
from jepa.measures.intervals import Interval

INK = (0.3, 0.3, 0.3)  # of a row that is no subject of the figure


class Column(NamedTuple):
    """A question of the table of what is left out."""

    metric: str
    title: str
    form: str  # of the number, as for `format`
    scale: str = "linear"  # or "log", or "logit" for a rate


ABLATED = (
    Column("position_rmse", "position read\nfrom s, units", ".2f", "log"),
    Column("unroll_rmse_32", "error after\n32 steps, units", ".1f", "log"),
    Column("leak_near", "through the\nwall, near", ".2f", "logit"),
    Column("success_eb_jepa", "success\nrate", ".2f", "logit"),
)


def controls(
    axes: Axes, table: pd.DataFrame, rows: Mapping[str, Where], published: Mapping[str, float] | None = None,
    ours: Sequence[str] = (),
) -> None:  # fmt: skip
    """Draw success rates as horizontal dots with intervals, one below the other, and published ones as open marks.

    Args: rows: name in words -> variant and metric; published: name -> rate, in the row of that name or in a new one
        below; ours: names drawn in color.
    """
    published = dict(published or {})
    names = [*rows, *(name for name in published if name not in rows)]
    for y, name in enumerate(names):
        color = style.COLORS[0] if name in ours else INK
        if name in rows:
            found, values = estimate(table, rows[name], "logit")
            _across(axes, (found, values), y, color)
        if name in published:
            axes.plot(published[name], y, marker="D", ms=6, mfc="none", mec="black", mew=1.2, ls="", zorder=4)
        shown = published[name] if name not in rows else found.estimate
        _number(axes, y, f"{100 * shown:.0f} %", color)
    named_rows(axes, names, RATE, RATES)


def planners(axes: np.ndarray, table: pd.DataFrame, panels: Mapping[str, Mapping[str, Where]]) -> None:
    """Draw success by planner, in a panel for each kind of dynamics and of cost, all at equal evaluations.

    Args: axes: as many as there are panels, such as 2 × 2 that share both axes; panels: title -> planner in words ->
        variant and metric; a planner keeps its row in all of them.
    """
    grid = np.atleast_2d(axes)
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    for number, (panel, (title, rows)) in enumerate(zip(grid.flat, panels.items(), strict=True)):
        for y, name in enumerate(names):
            if name in rows:
                marker = MARKERS[y % len(MARKERS)]
                _across(panel, estimate(table, rows[name], "logit"), y, style.COLORS[y % 10], marker)
        below = number // grid.shape[1] == grid.shape[0] - 1
        named_rows(panel, names, RATE if below else "", RATES)
        panel.set_title(title, fontsize=9)


def ablations(table: pd.DataFrame, names: Mapping[str, str], columns: Sequence[Column] = ABLATED) -> Figure:
    """Return a table of what is lost without each term or prior: numbers, means with intervals, the first as a line.

    Args: names: variant -> what is left out, in words; the first is the whole recipe; columns: the questions.
    """
    figure, axes = style.panels(len(columns), height=0.27 * len(names) + 0.85, sharey=True, squeeze=False)
    for panel, column in zip(axes[0], columns, strict=True):
        for y, variant in enumerate(names):
            found, values = estimate(table, (variant, column.metric), column.scale)
            color = style.COLORS[0] if y == 0 else INK
            _across(panel, (found, values), y, color)
            _number(panel, y, format(found.estimate, column.form), color)
            if y == 0:
                panel.axvline(found.estimate, color=color, lw=0.8, ls=":", zorder=1)
        limits = (-0.05, 1.05) if column.scale == "logit" else None
        if column.scale == "log":
            panel.set_xscale("log")
            factors(panel.xaxis, (1, 3))
        named_rows(panel, list(names.values()), "", limits)
        panel.set_title(column.title, fontsize=8, fontweight="normal")
        panel.tick_params(axis="x", labelsize=7)
    return figure


def _across(axes: Axes, of: tuple[Interval, np.ndarray], y: int, color: object, marker: str = "o") -> None:
    """Draw one estimate with its level interval at y, and every seed."""
    found, values = of
    axes.plot(values, np.full(len(values), y + 0.22), marker="o", color=color, **FAINT)
    options = {"color": color, "marker": marker, "ms": 5, "ls": "", "elinewidth": 1.4, "zorder": 3}
    axes.errorbar([found.estimate], [y], xerr=arms([found]), **options)


def _number(axes: Axes, y: int, number: str, color: object) -> None:
    """Write a number to the right of a row."""
    axes.text(1.04, y, number, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=color)


def named_rows(axes: Axes, names: Sequence[str], label: str, limits: tuple[float, float] | None) -> None:
    """Name the rows of a panel, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=label)
    if limits is not None:
        axes.set(xlim=limits)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="0.9", lw=0.6)
    axes.set_axisbelow(True)
