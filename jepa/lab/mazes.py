"""Pictures of planners in mazes: rounds of thought, film strips, failures with their reasons, plans of changed tasks.

The look is that of `jepa.lab.walks`: blue is where the dot has been, red what is imagined, a star the goal. Red dots
are the conditions that an upper level asks for, a red line is how the level below realizes them in imagination, and a
cross the condition that it did not meet.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Rectangle
from torch import Tensor

from jepa.evaluate.thoughts import Proposed, Thought, Watched
from jepa.lab import style, walks
from jepa.lab.walks import IMAGINED, WALKED
from jepa.worlds.rooms.layouts import Layouts

GATE = (0.76, 0.47, 0.40)  # a shut gate, which a map shows open: red-brown, and lighter than a wall
ASKED = {"color": IMAGINED, "marker": "o", "ms": 3.2, "mew": 0, "lw": 0.9, "ls": (0, (2.5, 1.2))}
ABOVE = {"color": IMAGINED, "marker": "s", "ms": 6.5, "mfc": "none", "mew": 1.2, "lw": 0}  # of a level above level 2
UNMET = {"marker": "X", "ms": 8.5, "mfc": "black", "mec": "white", "mew": 0.9, "ls": "", "clip_on": False}
MARKS = {  # of a task, by kind
    "avoid": {"fc": (0.45, 0.45, 0.45, 0.25), "ec": "0.3", "hatch": "xxxx", "lw": 0.8},
    "through": {"fc": "none", "ec": style.COLORS[2], "lw": 1.8},
    "late": {"fc": "none", "ec": style.COLORS[4], "lw": 1.4, "ls": "--"},
}
OUTLINE = [patheffects.withStroke(linewidth=2.6, foreground="white")]
LETTER = 0.062  # inches of a letter of 7.5 points


class Mark(NamedTuple):
    """What a task asks for beside its goal, as it is drawn."""

    kind: str  # "avoid", "through" or "late"
    place: tuple[float, float]  # x, y in units
    radius: float  # in units
    words: str = ""  # beside it


def maze(
    axes: Axes, layouts: Layouts, row: int = 0, start: Tensor | None = None, goal: Tensor | None = None,
    paths: Sequence[Tensor] = (),
) -> None:  # fmt: skip
    """Draw the walls of one layout, as `jepa.lab.walks.room`, and over them its shut gates, red-brown.

    Args: as for `jepa.lab.walks.room`.
    """
    walks.room(axes, layouts, row, start, goal, paths)
    doors = layouts.doors.shape[1]  # boxes of shut doors come behind the walls on both sides of each
    for x0, y0, x1, y1 in layouts.drawn[row, 2 * doors : 3 * doors][layouts.gates[row]].tolist():
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=GATE, lw=0, zorder=2.5))


def conditions(axes: Axes, plan: Proposed, thought: Thought | None = None) -> None:
    """Draw what a plan asks for, from where it begins, as connected dots. Args: thought: asked for in this round."""
    asked = plan.asked if thought is None else thought.asked
    if plan.level > 2:
        axes.plot(*asked.T, zorder=4.6, **ABOVE)
        return
    line = np.concatenate([plan.start[None].numpy(), asked.numpy()])
    axes.plot(*line.T, zorder=4.5, markevery=range(1, len(line)), **ASKED)


def realized(axes: Axes, thought: Thought) -> None:
    """Draw how the level below went in imagination, and a cross at the condition that it did not meet."""
    axes.plot(*thought.path.T, color=IMAGINED, lw=1.8, zorder=4.8, path_effects=OUTLINE, solid_capstyle="round")
    if thought.unmet >= 0:
        axes.plot(*thought.asked[thought.unmet].tolist(), zorder=6.5, **UNMET)


def round_by_round(axes: Sequence[Axes], watched: Watched, plan: Proposed) -> None:
    """Draw the rounds of a plan, a panel for each, and leave panels that are over empty; without rounds draw the plan.

    Args: axes: at least as many as there are rounds, in any arrangement.
    Raises: ValueError for fewer.
    """
    panels, rounds = list(np.ravel(np.asarray(axes, object))), plan.rounds or [None]
    if len(panels) < len(rounds):
        raise ValueError(f"axes: expected at least {len(rounds)}, one for each round, found {len(panels)}")
    for number, (panel, thought) in enumerate(zip(panels, rounds, strict=False)):
        maze(panel, watched.layouts, 0, plan.start, watched.goal)
        conditions(panel, plan, thought)
        if thought is not None:
            realized(panel, thought)
        words = "taken as it is" if thought is None else f"round {number + 1}: {outcome(thought)}"
        _title(panel, f"{words}, taken" if number == plan.taken else words)
    for panel in panels[len(rounds) :]:
        panel.axis("off")


def outcome(thought: Thought) -> str:
    """Return in words how many conditions of a round were met."""
    return "all met" if thought.unmet < 0 else f"{thought.unmet} of {len(thought.asked)} met"


def rounds(watched: Watched, plan: Proposed, columns: int = 4) -> Figure:
    """Return a figure of the rounds of a plan, as `round_by_round` draws them, with a key."""
    count = max(1, len(plan.rounds))
    columns = min(columns, count) if count > 2 else 3
    figure, axes = style.panels(columns, height=style.WIDTH / columns + 0.2, rows=-(-count // columns), squeeze=False)
    round_by_round(axes, watched, plan)
    thought = ("imagined below", "not met") if plan.rounds else ()
    key(figure, "conditions asked for", *thought, "shut gate", "goal")
    return figure


def film(axes: Sequence[Axes], watched: Watched) -> None:
    """Draw an episode, evenly spaced moments until the goal: what was walked, and the plan that was followed then."""
    last = arrival(watched)
    for panel, t in zip(axes, np.linspace(0, last, len(axes)).round().astype(int).tolist(), strict=True):
        moment(panel, watched, t)
        _title(panel, "start" if t == 0 else f"step {t}")


def moment(axes: Axes, watched: Watched, t: int) -> None:
    """Draw one moment of an episode: what was walked until step t, and the plans of all levels that were followed."""
    maze(axes, watched.layouts, 0, watched.positions[0], watched.goal)
    for plan in current(watched, t):
        conditions(axes, plan)
    walked(axes, watched, t)


def walked(axes: Axes, watched: Watched, t: int) -> None:
    """Draw what was walked until step t, and the dot where it is."""
    axes.plot(*watched.positions[: t + 1].T, color=WALKED, lw=1.6, zorder=5, path_effects=OUTLINE)
    axes.plot(*watched.positions[t].tolist(), marker="o", ms=5, mfc=walks.DOT, mec="black", mew=0.6, zorder=7)


def arrival(watched: Watched) -> int:
    """Return the first step that ends at the goal, or the last one."""
    near = (watched.positions - watched.goal).norm(dim=-1) < walks.ARRIVED
    return int(near.double().argmax()) if bool(near.any()) else len(near) - 1


def current(watched: Watched, t: int) -> list[Proposed]:
    """Return the plan of each level that was made last by step t, from the lowest; none before the first one."""
    made = {plan.level: plan for plan in watched.plans if plan.step <= t}
    return [made[level] for level in sorted(made)]


def gallery(axes: Sequence[Axes], watched: Sequence[Watched], reasons: Sequence[str]) -> None:
    """Draw how episodes ended, with the last plan of each, and write under each a reason; leave other panels empty.

    Raises: ValueError for another number of reasons than of episodes, or fewer panels.
    """
    panels = list(np.ravel(np.asarray(axes, object)))
    if len(reasons) != len(watched):
        raise ValueError(f"reasons: expected {len(watched)}, one for each episode, found {len(reasons)}")
    if len(panels) < len(watched):
        raise ValueError(f"axes: expected at least {len(watched)}, one for each episode, found {len(panels)}")
    for panel, one, reason in zip(panels, watched, reasons, strict=False):
        last = arrival(one)
        moment(panel, one, last)
        _title(panel, f"step {last}: {'at the goal' if one.solved else 'not there'}")
        wide = panel.figure.get_figwidth() / panel.get_subplotspec().get_gridspec().ncols
        panel.set_xlabel(textwrap.fill(reason, max(10, int(0.9 * wide / LETTER))), fontsize=7.5, labelpad=4)
    for panel in panels[len(watched) :]:
        panel.axis("off")


def tasks(
    found: Mapping[str, Watched], marks: Mapping[str, Sequence[Mark]] | None = None
) -> Callable[[Axes, str], None]:
    """Return what draws the first plan of a task, for `jepa.lab.figures.slider(draw, "task", list(found))`.

    Args: found: name of a task -> an episode of it; marks: name of a task -> what it asks for beside its goal.
    Raises: ValueError for marks of a task that is not there, or of an unknown kind.
    """
    marks = marks or {}
    if strange := set(marks) - set(found):
        raise ValueError(f"marks: expected some of {', '.join(found)}, found {', '.join(sorted(strange))}")
    if strange := {mark.kind for some in marks.values() for mark in some} - set(MARKS):
        raise ValueError(f"marks: expected of kind {', '.join(MARKS)}, found {', '.join(sorted(strange))}")

    def draw(panel: Axes, task: str) -> None:
        """Draw one task."""
        one = found[task]
        maze(panel, one.layouts, 0, one.positions[0], one.goal)
        for mark in marks.get(task, ()):
            _mark(panel, mark)
        for plan in one.plans[:1]:
            conditions(panel, plan)
        # all of it: a task may lead past its goal first
        panel.plot(*one.positions.T, color=WALKED, lw=1.6, zorder=5, path_effects=OUTLINE)

    return draw


def _mark(axes: Axes, mark: Mark) -> None:
    """Draw what a task asks for, with its words on the side of it where there is room."""
    axes.add_patch(Circle(mark.place, mark.radius, zorder=3, **MARKS[mark.kind]))
    (x, y), (left, right) = mark.place, axes.get_xlim()
    side = -1 if x > (left + right) / 2 else 1
    at, how = (x + side * (mark.radius + 0.5), y), "left" if side > 0 else "right"
    axes.text(*at, mark.words, fontsize=7, ha=how, va="center", zorder=8, path_effects=OUTLINE)


def key(figure: Figure, *names: str) -> None:
    """Say under a figure what its marks are. Args: names: some of them, in this order; default all.

    Raises: ValueError for one that does not exist.
    """
    handles = {
        "walked": Line2D([], [], color=WALKED, lw=1.6),
        "conditions asked for": Line2D([], [], **ASKED),
        "imagined below": Line2D([], [], color=IMAGINED, lw=1.8),
        "not met": Line2D([], [], **UNMET),
        "shut gate": Patch(facecolor=GATE, lw=0),
        "goal": Line2D([], [], ms=9, **walks.GOAL),
    }
    if strange := [name for name in names if name not in handles]:
        raise ValueError(f"names: expected some of {', '.join(handles)}, found {', '.join(strange)}")
    shown = names or tuple(handles)
    figure.legend([handles[name] for name in shown], shown, loc="outside lower center", ncols=6, fontsize=8)


def _title(axes: Axes, words: str) -> None:
    axes.set_title(words, fontsize=8, loc="center", fontweight="normal", pad=3)
