"""The scoreboard of latents: a row each, a column a question, shaded from bad to good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jepa.lab import style


class Column(NamedTuple):
    """A question of the scoreboard."""

    title: str
    metric: str
    form: str  # of the number, as for `format`
    good: float | None = None  # the value that is shaded as good; None: no shade
    bad: float = 0.0  # the value that is shaded as bad
    log: bool = False  # whether what is between is measured in factors


COLUMNS = (
    Column("bits\nspent", "bits_spent", ".1f"),
    Column("bits about\nthe future", "bits_of_future", ".2f", good=1.85),
    Column("mode\nrecall", "mode_recall", ".2f", good=0.95, bad=0.5),
    Column("right mode\nlowest F", "right_mode_lowest", ".3f", good=0.99, bad=0.5),
    Column("contrast", "relative_contrast", "z.2f", good=0.5, bad=0.01),
    Column("wide z: F of\nwrong pairs", "wide", ".3f", good=0.5, bad=0.01),
    Column("cost of\ninference", "inference_cost", ".0f", good=1, bad=400, log=True),
)


def board(table: pd.DataFrame, columns: Sequence[Column], groups: Mapping[str, Mapping[str, str]]) -> Figure:
    """Return the scoreboard as a picture.

    Args: table: a row a variant, a column a metric, nan for what a latent does not have; columns: the questions;
        groups: class -> variant -> its name in words.
    """
    rows = sum(len(group) for group in groups.values()) + len(groups)
    figure, axes = style.panels(1, height=0.235 * rows + 0.75)
    width, left = 1.0, -2.5
    for number, column in enumerate(columns):
        axes.text(number + 0.5, -0.35, column.title, ha="center", va="bottom", fontsize=7.5)
    y = 0.0
    for group, names in groups.items():
        axes.text(left, y + 0.62, group, fontsize=8, fontweight="bold", va="center")
        axes.plot([left, len(columns)], [y + 0.14] * 2, color="gray", lw=0.4)
        y += 1
        for variant, name in names.items():
            axes.text(left + 0.1, y + 0.46, name, fontsize=8, va="center")
            for number, column in enumerate(columns):
                _cell(axes, (number, y), width, column, float(table.loc[variant].get(column.metric, np.nan)))
            y += 1
    axes.set(xlim=(left, len(columns)), ylim=(y + 0.05, -1.75))
    axes.axis("off")
    return figure


def _cell(axes, corner: tuple[float, float], width: float, column: Column, value: float) -> None:
    """Draw one number on its shade; what a latent does not have is a dash."""
    x, y = corner
    color, ink = "#f4f4f4", "black"
    if column.good is not None and not np.isnan(value):
        share = _share(column, value)
        color = colormaps["RdYlGn"](0.12 + 0.76 * share)
    axes.add_patch(Rectangle((x + 0.03, y + 0.05), width - 0.06, 0.88, facecolor=color, lw=0))
    text = "∞" if np.isinf(value) else "–" if np.isnan(value) else format(value, column.form)
    axes.text(x + width / 2, y + 0.48, text, ha="center", va="center", fontsize=8, color=ink)


def _share(column: Column, value: float) -> float:
    """Return how good a value is, from 0 to 1."""
    points = np.array([value, column.bad, column.good], dtype=float)
    if column.log:
        points = np.log(np.maximum(points, 1e-6))
    value, bad, good = points
    return float(np.clip((value - bad) / (good - bad), 0, 1))
