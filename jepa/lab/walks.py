"""Pictures of rooms: walls and paths, film strips of episodes, trees of imagined steps, steps to a goal.

One look for all of them: blue is where the dot has been, red where the model imagines it, a star the goal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn
import torch
from matplotlib import colormaps, colors, patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from jepa.evaluate.imagined import HOLD, Episode, Field, Imagined
from jepa.lab import style
from jepa.worlds.rooms.layouts import Layouts

WALKED, IMAGINED = style.COLORS[0], style.COLORS[3]
WALL, FLOOR, DOT = (0.22, 0.24, 0.29), (1.0, 1.0, 1.0), style.COLORS[1]
DEPTH = seaborn.color_palette("crest", as_cmap=True)  # light is near, and still seen on white
RIM = 0.5  # units shown beyond the border: half the line that it is drawn as
ARRIVED = 1.5  # units to the goal at which a film ends
START = {"marker": "o", "mfc": "white", "mec": "black", "mew": 1.0, "ls": ""}
GOAL = {"marker": "*", "mfc": style.COLORS[8], "mec": "black", "mew": 0.7, "ls": ""}
OUTLINE = [patheffects.withStroke(linewidth=3.2, foreground="white")]


def room(
    axes: Axes, layouts: Layouts, row: int = 0, start: Tensor | None = None, goal: Tensor | None = None,
    paths: Sequence[Tensor] = (),
) -> None:  # fmt: skip
    """Draw the walls of one layout, what was walked in it and where from and to.

    Args: start, goal: [2] in units, marked if given; paths: walked ones, [T, 2] in units.
    """
    for x0, y0, x1, y1 in layouts.drawn[row].tolist():
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=WALL, lw=0, zorder=2))
    _view(axes, layouts, row)
    for path in paths:
        axes.plot(*path.T, color=WALKED, lw=1.4, zorder=4, path_effects=OUTLINE, solid_capstyle="round")
    ends(axes, start, goal)


def ends(axes: Axes, start: Tensor | None, goal: Tensor | None) -> None:
    """Mark start and goal, [2] in units each, of a path."""
    for place, marker, size in ((start, START, 5), (goal, GOAL, 10)):
        if place is not None:
            axes.plot(*place.tolist(), ms=size, zorder=6, **marker)


def composed(picture: Tensor) -> np.ndarray:
    """Return a picture [C, S, S] as colors [S, S, 3]: of two channels the dot warm and the walls dark, of one gray."""
    shown = picture.detach().double()
    peak = float(shown[0].amax().clamp(min=1))
    if len(shown) == 1:
        return (1 - 0.9 * (shown[0] / peak).clamp(0, 1)).unsqueeze(-1).expand(-1, -1, 3).numpy()
    wall, dot = shown[1].clamp(0, 1).unsqueeze(-1), (shown[0] / peak).clamp(0, 1).unsqueeze(-1)
    rooms = torch.lerp(shown.new_tensor(FLOOR), shown.new_tensor(WALL), wall)
    return torch.lerp(rooms, shown.new_tensor(DOT), dot).numpy()


def seen(axes: Axes, layouts: Layouts, picture: Tensor) -> None:
    """Draw a picture [C, S, S] as the model sees it, the world's units on the axes. Args: layouts: one of them."""
    x0, y0, x1, y1 = layouts.extent[0].tolist()
    axes.imshow(composed(picture), interpolation="nearest", extent=(x0, x1, y1, y0))
    _view(axes, layouts, 0)


def film(axes: Sequence[Axes], episode: Episode) -> None:
    """Draw an episode, evenly spaced pictures until the goal: with what was walked and what is imagined from there."""
    last = arrival(episode)
    for panel, t in zip(axes, np.linspace(0, last, len(axes)).round().astype(int).tolist(), strict=True):
        seen(panel, episode.layouts, episode.pictures[t])
        panel.plot(*ahead(episode, t).T, color=IMAGINED, lw=1.1, ls=(0, (2.5, 1.2)), zorder=3)
        panel.plot(*episode.positions[: t + 1].T, color=WALKED, lw=1.4, zorder=4)
        panel.plot(*episode.goal.tolist(), ms=8, zorder=6, **GOAL)
        panel.set_title("start" if t == 0 else f"step {t}", fontsize=8, loc="center", fontweight="normal", pad=3)


def arrival(episode: Episode) -> int:
    """Return the first step that ends at the goal, or the last one."""
    near = (episode.positions - episode.goal).norm(dim=-1) < ARRIVED
    return int(near.double().argmax()) if bool(near.any()) else len(near) - 1


def current(episode: Episode, t: int) -> Imagined | None:
    """Return the plan that was followed at step t, None before the first one."""
    made = [plan for plan in episode.plans if plan.step <= t]
    return made[-1] if made else None


def ahead(episode: Episode, t: int) -> Tensor:
    """Return what is left of the last plan's path at step t, [n, 2]; n is 0 where it has ended.

    Near the goal the dot goes one step at a time, and what was left of the plan is no longer followed.
    """
    plan = current(episode, t)
    return episode.positions[:0] if plan is None else plan.path[t - plan.step :]


def tree_picture(axes: Axes, layouts: Layouts, plan: Imagined, row: int = 0, bar: bool = True) -> None:
    """Draw the imagined tree of a plan, light where near and dark where far, and the chosen path thick.

    Args: row: of the layouts; bar: whether to say beside it how many steps the colors are.
    """
    room(axes, layouts, row)
    scale = branches(axes, plan)
    chosen(axes, plan.path)
    ends(axes, plan.path[0], plan.goal)
    if bar:
        _bar(axes, scale, "imagined steps from the start")


def branches(axes: Axes, plan: Imagined, depth: int | None = None, color: object = None) -> ScalarMappable:
    """Draw the edges of a tree in the colors of their depths, and return their scale in steps.

    Args: depth: in macro-actions, up to which to draw, None for all; color: one for all edges.
    """
    scale = ScalarMappable(colors.Normalize(0, HOLD * max(1, int(plan.depth.max()) if len(plan.depth) else 1)), DEPTH)
    some = plan.parent >= 0
    if depth is not None:
        some &= plan.depth <= depth
    edges = torch.stack([plan.nodes[plan.parent[some]], plan.nodes[some]], 1)
    drawn = scale.to_rgba(HOLD * plan.depth[some].numpy()) if color is None else color
    axes.add_collection(LineCollection(edges.numpy(), colors=drawn, linewidths=0.7, zorder=3), autolim=False)
    return scale


def chosen(axes: Axes, path: Tensor) -> None:
    """Draw the path [n, 2] that a plan chose, thick."""
    axes.plot(*path.T, color=IMAGINED, lw=2.0, zorder=5, path_effects=OUTLINE, solid_capstyle="round")


def field(axes: Axes, found: Field, every: int = 4, bar: bool = True) -> None:
    """Draw the imagined steps to a goal as shades, dark where near, with a line for `every` so many steps."""
    steps, (x0, y0, x1, y1) = np.ma.masked_invalid(found.steps.numpy()), found.corners
    half = (x1 - x0) / (steps.shape[1] - 1) / 2, (y1 - y0) / (steps.shape[0] - 1) / 2
    extent = (x0 - half[0], x1 + half[0], y1 + half[1], y0 - half[1])
    shown = colormaps[style.ENERGY].with_extremes(bad=WALL)
    shades = axes.imshow(steps, cmap=shown, vmin=0, extent=extent, interpolation="nearest")
    x, y = np.linspace(x0, x1, steps.shape[1]), np.linspace(y0, y1, steps.shape[0])
    levels = np.arange(every, float(steps.max()), every)
    if len(levels):
        axes.contour(x, y, steps, levels=levels, colors="white", linewidths=0.6)
    room(axes, found.layouts, goal=found.goal)
    if bar:
        _bar(axes, shades, "imagined steps to the goal")


def key(figure: Figure) -> None:
    """Say under a figure what its marks are."""
    handles = [
        Line2D([], [], color=WALKED, lw=1.6, label="walked"),
        Line2D([], [], color=IMAGINED, lw=1.6, ls=(0, (2.5, 1.2)), label="imagined"),
        Line2D([], [], ms=9, label="goal", **GOAL),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)


def _bar(axes: Axes, scale: ScalarMappable, label: str) -> None:
    """Say beside a picture what its colors are."""
    bar = axes.figure.colorbar(scale, ax=axes, fraction=0.045, pad=0.03)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _view(axes: Axes, layouts: Layouts, row: int) -> None:
    """Show one layout up to its border, x to the right and y down, without ticks and frame."""
    x0, y0, x1, y1 = layouts.bounds[row].tolist()
    axes.set(xlim=(x0 - RIM, x1 + RIM), ylim=(y1 + RIM, y0 - RIM), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set_visible(False)
