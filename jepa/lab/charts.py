"""Charts of world models and of planning: means over seeds with their 95 % intervals, a mark for every model.

Tables have the rows of `Study.long` or `Study.table`: variant, seed, metric, value, count. A number that serves several
claims counts once. A single seed has no interval; what stands behind a mean is `jepa.measures.intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from jepa.evaluate.world_models import HORIZONS, WALKS
from jepa.lab import style
from jepa.measures.intervals import Interval, interval

MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # beside the color, which not everybody sees
KINDS = {"leak_far": "far", "leak_near": "near", "leak_edge": "edge"}  # of walks at a closed wall
FAINT = {"ms": 2.2, "mew": 0, "alpha": 0.35, "ls": ""}  # a seed
RATE = "success rate"
RATES = (-0.03, 1.03)  # of an axis

Where = tuple[str, str]  # variant and metric


def estimate(table: pd.DataFrame, where: Where, scale: str = "linear") -> tuple[Interval, np.ndarray]:
    """Return mean and interval of one metric of one variant, and its values by seed.

    A rate without known trials is given the linear interval within 0 to 1; the limits of a single seed are nan.

    Raises: ValueError if it was not measured.
    """
    rows = table[(table.variant == where[0]) & (table.metric == where[1])].drop_duplicates("seed")
    if rows.empty:
        raise ValueError(f"table: expected the metric {where[1]!r} of {where[0]!r}, found {sorted(set(table.metric))}")
    values = rows.value.to_numpy(float)
    known = scale == "logit" and "count" in rows and not rows["count"].isna().any()
    if known:
        found = interval(values, "logit", rows["count"].to_numpy(float))
    else:
        found = interval(values, "linear" if scale == "logit" else scale)
    if len(values) == 1:
        found = found._replace(low=np.nan, high=np.nan)
    elif scale == "logit":
        found = found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))
    return found, values


def horizons(axes: Axes, table: pd.DataFrame, names: Mapping[str, str], error: str = "unroll_rmse") -> None:
    """Draw the error of imagined positions by the number of steps, and that of staying where one is.

    Args: names: variant -> its name in words; error: of metrics `<error>_<steps>`; `still_rmse_<steps>` is beside.
    """
    for number, (variant, name) in enumerate(names.items()):
        found = [estimate(table, (variant, f"{error}_{step}"), "log")[0] for step in HORIZONS]
        shift = 1 + 0.035 * (number - (len(names) - 1) / 2)
        line(axes, shift * np.array(HORIZONS), found, number, name)
    rows = table[table.variant.isin(names)]
    still = [rows[rows.metric == f"still_rmse_{step}"].value.mean() for step in HORIZONS]
    axes.plot(HORIZONS, still, color="gray", ls="--", lw=1.2, label="staying where one is", zorder=1)
    axes.set(xscale="log", yscale="log", xlabel="steps imagined", ylabel="error, units")
    axes.set_xticks(HORIZONS, [str(step) for step in HORIZONS])
    axes.minorticks_off()
    factors(axes.yaxis)


def leaks(axes: Axes, table: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Draw how often imagined walks get through a closed wall, by kind, and through the open door, where all should.

    Args: names: variant -> its name in words.
    """
    kinds = {**KINDS, "door_passed": "door"}
    for number, (variant, name) in enumerate(names.items()):
        for place, metric in enumerate(kinds):
            found, values = estimate(table, (variant, metric), "logit")
            x = place + (number - (len(names) - 1) / 2) * 0.62 / len(names)
            axes.plot(np.full(len(values), x), values, marker=MARKERS[number], color=style.COLORS[number], **FAINT)
            _mark(axes, (x, found), number, label=name if place == 0 else None)
    axes.axvline(len(KINDS) - 0.5, color="gray", lw=0.6, ls=":")
    words = [f"{kind}\n{WALKS[kind][0]:g} to {WALKS[kind][1]:g}" for kind in KINDS.values()]
    axes.set_xticks(range(len(kinds)), [*words, "open\ndoor"])
    axes.tick_params(axis="x", length=0)
    axes.set(ylim=RATES, xlim=(-0.5, len(kinds) - 0.5), ylabel="share that gets through")
    axes.set_xlabel("units beyond the door's edge", loc="left")


def course(
    axes: Axes, table: pd.DataFrame, courses: Mapping[str, Mapping[str, int]], metric: str = "success_eb_jepa"
) -> None:
    """Draw success against how long the model was trained.

    Args: courses: name in words -> variant -> its training steps; metric: a rate.
    """
    for number, (name, steps) in enumerate(courses.items()):
        variants = sorted(steps, key=steps.__getitem__)
        found = [estimate(table, (variant, metric), "logit")[0] for variant in variants]
        line(axes, np.array([steps[variant] for variant in variants]), found, number, name)
    axes.set(xlabel="training steps", ylabel=RATE, ylim=RATES, xlim=(0, None))


def legend(figure: Figure, axes: Axes) -> None:
    """Say under a figure what the marks of one of its panels are, for all of them."""
    pairs = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: isinstance(pair[0], Line2D))
    handles, labels = zip(*pairs, strict=True)  # models first, what they are compared with last
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=8)


def line(axes: Axes, x: np.ndarray, found: Sequence[Interval], number: int, name: str) -> None:
    """Draw a line through estimates, each with its interval."""
    y = np.array([one.estimate for one in found])
    options = {"color": style.COLORS[number % 10], "marker": MARKERS[number % len(MARKERS)], "ms": 4.5, "lw": 1.3}
    axes.errorbar(x, y, yerr=arms(found), elinewidth=1.3, label=name, **options)


def _mark(axes: Axes, at: tuple[float, Interval], number: int, label: str | None) -> None:
    """Draw one estimate with its upright interval at x."""
    x, found = at
    options = {"color": style.COLORS[number % 10], "marker": MARKERS[number % len(MARKERS)], "ms": 5, "ls": ""}
    axes.errorbar([x], [found.estimate], yerr=arms([found]), elinewidth=1.3, label=label, zorder=3, **options)


def arms(found: Sequence[Interval]) -> np.ndarray:
    """Return how far intervals reach to both sides, [2, n]; not at all where there is none."""
    arms = np.array([[one.estimate - one.low for one in found], [one.high - one.estimate for one in found]])
    return np.nan_to_num(arms, nan=0.0).clip(min=0)


def factors(axis: Axis, named: Sequence[int] = (1, 2, 5)) -> None:
    """Name 1, 2 and 5 of every power of ten on a logarithmic axis, or the numbers given."""
    axis.set_major_locator(LogLocator(subs=named, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: short(value))


def short(number: float) -> str:
    """Return a number as an axis names it: 4000 as 4k."""
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"
