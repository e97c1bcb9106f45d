"""Charts of hierarchies: how far ahead each level sees, what it holds, what makes it so, and what it costs.

Tables are as in `jepa.lab.charts`; how levels and their controls are named and drawn `jepa.lab.lines` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jepa.lab import lines, rates, roads, style
from jepa.lab.charts import arms, estimate
from jepa.lab.lines import FRAMES, Curve, Of
from jepa.lab.walks import OUTLINE

FACTORS = {  # from detail to coarse, and in words
    "texture": "texture",
    "other": "other car",
    "wobble": "wobble",
    "place": "place",
    "road": "road",
    "speed": "speed",
}
NAMES = {
    "map_px": "error of the place on the map, px",
    "place_px": "error of the place along the road, px",
    "place_r2": "R² of the place",
}
UNITS = {"map_px": "error, px", "place_px": "error, px", "place_r2": "R²"}
GRAY = "0.55"
NARROW, ROOMY = 3.0, 2.0  # inches, of axes by frames ahead, and of bars with room beside them
LEVEL = "level "  # a word that is written but once where all names begin with it


def crossing(
    axes: Axes, table: pd.DataFrame, variants: Mapping[str, Of], metric: str = "map_px",
    oracle: Mapping[str, Mapping[int, float]] | None = None, chance: float | None = None,
) -> None:  # fmt: skip
    """Draw the error of each level by frames ahead, named at the line's end; a ring where the next one is better.

    Args: variants: name in words -> variant and level, from the lowest; metric: of metrics `<metric>_<level>_<frames>`;
        oracle: name -> frames ahead -> the least error, dotted in the color of that name; chance: the error of
        knowing nothing.
    Raises: ValueError for a variant without such metrics, or an oracle of a name that is not drawn.
    """
    found = lines.curves(table, variants, metric)
    for curve in found:
        lines.draw(axes, curve)
    named = {curve.label: curve for curve in found}
    for label, errors in (oracle or {}).items():
        if label not in named:
            raise ValueError(f"oracle: expected names among {list(named)}, found {label!r}")
        axes.plot(list(errors), list(errors.values()), color=named[label].color, ls=":", lw=1.2, zorder=1)
    for lower, upper in pairwise(curve for curve in found if not curve.control):
        for frames, error in lines.overtaken(lower, upper, metric):
            axes.plot(frames, error, marker="o", ms=11, mfc="none", mec="black", mew=1.1, ls="", zorder=5)
            words = {"fontsize": 8, "textcoords": "offset points", "va": "top"}
            axes.annotate(f"{frames:.0f} frames", (frames, error), (7, -6), **words)
    ends = {curve.label: (float(curve.means[-1]), curve.color) for curve in found}
    if chance is not None:
        axes.axhline(chance, color=GRAY, lw=0.8, zorder=0)
        ends["chance"] = chance, GRAY
    _frame(axes, found, metric, chance)
    lines.names(axes, ends)


def crossings(table: pd.DataFrame, variant: str, upper: int, metric: str = "map_px") -> pd.Series:
    """Return how often the errors of a level and of the one below it cross, by seed: changes of who is the better one.

    Args: upper: the level; metric: of metrics `<metric>_<level>_<frames>`.
    Raises: ValueError if it was not measured.
    """
    rows = table[table.variant == variant]
    parts = rows.metric.str.extract(rf"^{metric}_(?P<level>\d+)_(?P<frames>\d+)$").astype(float)
    wide = rows.assign(**parts).pivot_table("value", ["seed", "frames"], "level")
    if missing := [level for level in (upper - 1, upper) if level not in wide]:
        raise ValueError(f"table: expected {metric} of level {missing[0]} of {variant!r}, found none")
    better = np.sign(wide[upper] - wide[upper - 1]).unstack("frames")
    return (better.diff(axis=1).abs() > 0).sum(axis=1)


def at_horizon(
    axes: Axes, table: pd.DataFrame, horizon: int, variants: Mapping[str, Of], metric: str = "map_px",
    chance: float | None = None,
) -> None:  # fmt: skip
    """Draw the error of all levels that many frames ahead as bars, on one scale for all horizons.

    For `jepa.lab.figures.slider(lambda axes, frames: at_horizon(axes, table, frames, variants), "frames", FRAMES)`.
    Args: as for `crossing`; horizon: in frames, one of those measured.
    Raises: ValueError for a variant or a horizon without such metrics.
    """
    found = lines.curves(table, variants, metric)
    for x, curve in enumerate(found):
        if horizon not in curve.frames:
            raise ValueError(f"horizon: expected one of {curve.frames.tolist()}, found {horizon}")
        one = curve.found[curve.frames.tolist().index(horizon)]
        look = {"hatch": "////", "fill": False, "edgecolor": curve.color} if curve.control else {"color": curve.color}
        axes.bar(x, one.estimate, width=0.72, **look)
        axes.errorbar([x], [one.estimate], yerr=arms([one]), ls="", color="0.2", elinewidth=1.2)
        above = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "path_effects": OUTLINE}
        axes.annotate(f"{one.estimate:.1f}", (x, np.nanmax([one.estimate, one.high])), (0, 2), **above)
    if chance is not None:
        axes.axhline(chance, color=GRAY, lw=0.8, zorder=0)
        if lines.inches(axes)[0] > ROOMY:
            beside = {"color": GRAY, "va": "center", "fontsize": 8, "transform": axes.get_yaxis_transform()}
            axes.text(1.01, chance, "chance", **beside)
    names = [curve.label for curve in found]
    if all(name.startswith(LEVEL) for name in names):
        axes.set_xticks(range(len(names)), [name.removeprefix(LEVEL) for name in names])
        axes.set_xlabel(LEVEL.strip(), fontsize=8)
    else:
        axes.set_xticks(range(len(names)), names, rotation=90)
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.set(ylim=(0, 1.08 * _top(found, chance)), xlim=(-0.6, len(found) - 0.4), yticks=[])
    axes.set_ylabel(UNITS.get(metric, metric), fontsize=8)
    axes.spines["left"].set_visible(False)


def contents(
    axes: Axes, table: pd.DataFrame, rows: Mapping[str, Of], prefix: str = "held",
    oracle: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Draw R² of factors (columns, from detail to coarse) at levels (rows) as shades with numbers; below 0 counts as 0.

    Args: rows: name in words -> variant and level; prefix: of metrics `<prefix>_<level>_<factor>`; oracle: factor ->
        R² that can be foreseen one step ahead, in a row above.
    Raises: ValueError for a variant without such metrics, or an oracle without one of the factors.
    """
    shown = {}
    if oracle is not None:
        if missing := [name for name in FACTORS if name not in oracle]:
            raise ValueError(f"oracle: expected R² of {', '.join(FACTORS)}, found none of {', '.join(missing)}")
        shown["oracle, one step"] = [oracle[name] for name in FACTORS]
    for label, (variant, level) in rows.items():
        shown[label] = [estimate(table, (variant, f"{prefix}_{level}_{name}"))[0].estimate for name in FACTORS]
    roads.kept(axes, pd.DataFrame(shown, index=list(FACTORS.values())).T)
    if oracle is not None:
        axes.axhline(1, color="white", lw=5)
    axes.set_xlabel("from detail to coarse", fontsize=9)


def causes(table: pd.DataFrame, names: Mapping[str, str], level: int = 2, prefix: str = "held") -> Figure:
    """Return a table of what a level holds by recipe: dots with intervals, the first recipe also as a line.

    Args: names: recipe in words -> variant, the main one first; level: whose codes are read; prefix: as for `contents`.
    Raises: ValueError for a variant without such metrics.
    """
    clipped = table.assign(value=table.value.where(~table.metric.str.startswith(prefix), table.value.clip(lower=0)))
    columns = [rates.Column(f"{prefix}_{level}_{name}", words, ".2f") for name, words in FACTORS.items()]
    figure = rates.ablations(clipped, {variant: label for label, variant in names.items()}, columns)
    for panel in figure.axes:
        panel.set(xlim=(-0.08, 1.08), xticks=[0, 0.5, 1], xticklabels=["0", "", "1"])
        for number in panel.texts:
            number.set(fontsize=7, x=1.1)
    figure.get_layout_engine().set(wspace=0.1)
    figure.supxlabel("R² of what a code holds, from detail to coarse", fontsize=9)
    return figure


def costs(axes: Axes, table: pd.DataFrame, names: Mapping[str, str | Sequence[str]]) -> None:
    """Draw what trainings cost as stacked bars, in units of the first: of each level, and of the codes it learns from.

    Args: names: name in words -> the variants that are trained one above the other, from the lowest, each on the codes
        of those before it; or one variant that is trained at once, from frames.
    Raises: ValueError for a variant without costs.
    """
    stacks = {label: [of] if isinstance(of, str) else list(of) for label, of in names.items()}
    unit = _mean(table, next(iter(stacks.values()))[0], "cost_training")
    drawn = set()
    for y, (label, variants) in enumerate(stacks.items()):
        end = 0.0
        for part, length, look in _parts(table, variants, isinstance(names[label], str)):
            axes.barh(y, length / unit, left=end, height=0.62, label=None if part in drawn else part, **look)
            drawn.add(part)
            end += length / unit
        axes.annotate(f"{end:.2f}", (end, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axvline(1, color=GRAY, lw=0.8, ls=":", zorder=0)
    axes.set_yticks(range(len(stacks)), list(stacks))
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(stacks) - 0.4, -0.6), xlabel=f"multiply-adds, relative to {next(iter(stacks))}")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.1)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=5, fontsize=8, handlelength=1.4)


def _parts(table: pd.DataFrame, variants: Sequence[str], at_once: bool) -> list[tuple[str, float, dict]]:
    """Return the parts of a bar: name, multiply-adds and look. Args: at_once: whether the one training is of levels."""
    look = {"edgecolor": "white", "lw": 0.8}
    parts = []
    for number, variant in enumerate(variants):
        name, color = (f"level {number + 1}", style.COLORS[number]) if not at_once else ("at once", rates.INK)
        parts.append((name, _mean(table, variant, "cost_training"), {"color": color, **look}))
    if len(variants) > 1:
        codes = _mean(table, variants[-2], "cost_codes")
        parts.insert(1, ("codes, made once", codes, {"color": "0.8", "hatch": "////", **look}))
    return parts


def _mean(table: pd.DataFrame, variant: str, metric: str) -> float:
    """Return the mean of a metric over seeds. Raises: ValueError if it was not measured."""
    return estimate(table, (variant, metric))[0].estimate


def _frame(axes: Axes, found: Sequence[Curve], metric: str, chance: float | None) -> None:
    """Set the axes of lines by frames ahead."""
    axes.set_xscale("log", base=2)
    shown = sorted({int(frames) for curve in found for frames in curve.frames})
    crowded = lines.inches(axes)[0] < NARROW or shown[-1] > FRAMES[-1]
    axes.set_xticks(shown, ["" if crowded and frames & (frames - 1) else str(frames) for frames in shown])
    axes.minorticks_off()
    axes.set(xlabel="frames ahead", ylabel=NAMES.get(metric, metric), xlim=(0.9, 1.1 * shown[-1]))
    if not metric.endswith("r2"):
        axes.set_ylim(0, _top(found, chance))
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))


def _top(found: Sequence[Curve], chance: float | None) -> float:
    """Return the upper end of an axis of errors: means fit, and intervals unless they are much wider."""
    means = max(float(curve.means.max()) for curve in found)
    high = np.nanmax([means, *(one.high for curve in found for one in curve.found)])
    return 1.06 * max(min(float(high), 1.2 * means), chance or 0.0)
