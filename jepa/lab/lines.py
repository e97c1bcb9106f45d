"""Lines by frames ahead: one for each level of a hierarchy, where they cross, and names at their ends.

Tables are as in `jepa.lab.charts`. A level is named by a variant and a number from 1, in which its metrics end; it has
a color and a mark of its own. Of several variants at one level the first is the level, drawn solid, and the others are
its controls, dashed with open marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from jepa.evaluate.horizons import HORIZONS
from jepa.lab import style
from jepa.lab.charts import MARKERS, estimate
from jepa.measures.intervals import Interval

FRAMES = HORIZONS[:9]  # ahead, of the profile `cpu`
DASHES = ((0, (4, 1.6)), (0, (6, 1.5, 1.2, 1.5)), (0, (2, 1.2)))  # of controls
CONTROLS = MARKERS[3:]
LETTERS = 8  # size of names, in points
LINE = 1.3  # distance of two names, in sizes of their letters
BAND = 0.16  # opacity of intervals

Of = tuple[str, int]  # variant and level


class Curve(NamedTuple):
    """One line of a chart."""

    label: str
    level: int
    control: int  # which control of its level, from 1; 0 for the level itself
    frames: np.ndarray  # [n] ahead
    found: list[Interval]  # [n]

    @property
    def means(self) -> np.ndarray:
        """The estimates, [n]."""
        return np.array([one.estimate for one in self.found])

    @property
    def color(self) -> tuple[float, float, float]:
        """The color of its level."""
        return style.COLORS[(self.level - 1) % 10]


def curves(table: pd.DataFrame, variants: Mapping[str, Of], metric: str = "map_px") -> list[Curve]:
    """Return the estimates of each level by frames ahead, as `jepa.lab.levels.crossing` draws them.

    Args: variants: name in words -> variant and level; metric: of metrics `<metric>_<level>_<frames>`.
    Raises: ValueError for a variant without such metrics.
    """
    counts: dict[int, int] = {}
    found = []
    for label, (variant, level) in variants.items():
        measured = set(table.metric[table.variant == variant])
        frames = [frames for frames in HORIZONS if f"{metric}_{level}_{frames}" in measured] or FRAMES[:1]
        intervals = [estimate(table, (variant, f"{metric}_{level}_{ahead}"))[0] for ahead in frames]
        control = counts.get(level, 0)
        counts[level] = control + 1
        found.append(Curve(label, level, control, np.array(frames), intervals))
    return found


def overtaken(lower: Curve, upper: Curve, metric: str = "map_px") -> list[tuple[float, float]]:
    """Return where the upper level becomes the better one, in frames ahead and its value there, read off the lines.

    Between two horizons a line is straight in the logarithm of the frames, as it is drawn.
    """
    frames = np.intersect1d(lower.frames, upper.frames)
    one, other = (curve.means[np.isin(curve.frames, frames)] for curve in (lower, upper))
    lead = (other - one) if metric.endswith("r2") else (one - other)  # of the upper level
    found = []
    for n in np.flatnonzero((lead[:-1] < 0) & (lead[1:] >= 0)):
        share = lead[n] / (lead[n] - lead[n + 1])
        at = 2 ** (np.log2(frames[n]) + share * np.log2(frames[n + 1] / frames[n]))
        found.append((float(at), float(one[n] + share * (one[n + 1] - one[n]))))
    return found


def draw(axes: Axes, curve: Curve) -> None:
    """Draw one line with its intervals as a band."""
    low, high = (np.array([getattr(one, name) for one in curve.found]) for name in ("low", "high"))
    axes.fill_between(curve.frames, low, high, color=curve.color, alpha=BAND, lw=0, zorder=1)
    options = {"color": curve.color, "marker": MARKERS[(curve.level - 1) % len(MARKERS)], "ms": 5, "lw": 1.6}
    if curve.control:
        number = curve.control - 1
        options |= {"ls": DASHES[number % len(DASHES)], "marker": CONTROLS[number % len(CONTROLS)]}
        options |= {"mfc": "white", "mew": 1.0, "ms": 4.5, "lw": 1.1}
    axes.plot(curve.frames, curve.means, label=curve.label, zorder=2 if curve.control else 3, **options)


def names(axes: Axes, ends: Mapping[str, tuple[float, object]]) -> None:
    """Write names beside the right ends of lines, none over another. Args: ends: name -> height and color."""
    low, high = axes.get_ylim()
    least = LINE * LETTERS / 72 / inches(axes)[1] * (high - low)
    ordered = sorted(ends, key=lambda name: ends[name][0])
    heights = apart(np.array([ends[name][0] for name in ordered]), least)
    across = blended_transform_factory(axes.transAxes, axes.transData)
    for name, height in zip(ordered, heights, strict=True):
        end, color = ends[name]
        axes.plot([1, 1.03], [end, height], color=color, lw=0.7, transform=across, clip_on=False, zorder=1)
        axes.text(1.04, height, name, color=color, fontsize=LETTERS, va="center", transform=across)


def apart(heights: np.ndarray, least: float) -> np.ndarray:
    """Return heights [n], sorted, moved as little as it takes, in squares, for neighbors to be `least` apart."""
    shift = least * np.arange(len(heights))
    blocks: list[list[float]] = []  # of what touches: sum and number
    for height in heights - shift:
        blocks.append([height, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    return np.concatenate([np.full(int(count), total / count) for total, count in blocks]) + shift


def inches(axes: Axes) -> np.ndarray:
    """Return about how wide and high axes are, [2] in inches, before anything is laid out."""
    return axes.figure.get_size_inches() * axes.get_position().size
