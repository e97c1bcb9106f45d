"""Two episodes of the same task that move side by side, as a GIF: time stands while one of the planners thinks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jepa.evaluate.thoughts import Proposed, Watched
from jepa.lab import mazes, walks
from jepa.lab.plans import INKS, write

SIDE, HEAD, DPI = 2.5, 0.5, 120  # of a maze and of the words above it in inches, and pixels an inch
WALK = 60  # frames of the walk, at most
ASKED, WENT, AGAIN, STEP, END = 260, 420, 260, 90, 2500  # milliseconds that a frame is shown
SLOW = 3  # plans of each episode whose rounds are shown; of later ones what is taken


class Moment(NamedTuple):
    """What a frame shows of one of the episodes."""

    t: int  # step
    plans: tuple[Proposed, ...]  # that are shown, from the lowest level
    round: int = -1  # of the first of them; −1: what was taken
    realized: bool = False  # whether it is shown how the level below went
    words: str = ""


class Frame(NamedTuple):
    """What one frame shows."""

    left: Moment
    right: Moment
    milliseconds: int


def frames(left: Watched, right: Watched) -> Iterator[Frame]:
    """Yield the frames: both walk, and where one has made a plan both stand while its rounds are shown."""
    both = left, right
    last = max(mazes.arrival(left), mazes.arrival(right))
    stride = max(1, -(-last // WALK))
    steps, made = sorted({*range(0, last + 1, stride), last}), {plan.step for one in both for plan in one.plans}
    for before, t in zip([-1, *steps], steps, strict=False):
        for step in sorted(step for step in made if before < step <= t):
            yield from _thinking(left, right, step)
        yield Frame(*(_walking(one, t) for one in both), STEP)
    yield Frame(*(_walking(one, last) for one in both), END)


def beside(path: Path, left: Watched, right: Watched, titles: tuple[str, str]) -> None:
    """Write two episodes as a GIF, `frames` of both. The same numbers make the same bytes. Args: titles: of both."""
    figure = Figure(figsize=(2 * SIDE, SIDE + HEAD), dpi=DPI, layout="none")
    canvas, high = FigureCanvasAgg(figure), SIDE / (SIDE + HEAD)
    axes = [figure.add_axes((0.01 + place / 2, 0.01, 0.48, high - 0.02)) for place in (0, 1)]
    for panel, one, title in zip(axes, (left, right), titles, strict=True):
        mazes.maze(panel, one.layouts)
        panel.text(0.5, 1.115, title, transform=panel.transAxes, fontsize=9, fontweight="bold", ha="center")
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    pictures, times = [], []
    for frame in frames(left, right):
        canvas.restore_region(background)
        for panel, one, moment in zip(axes, (left, right), (frame.left, frame.right), strict=True):
            _blit(panel, one, moment)
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
        times.append(frame.milliseconds)
    write(path, pictures, times, (*INKS, mazes.GATE))


def draw(axes: Axes, watched: Watched, moment: Moment) -> None:
    """Draw what changes over a maze: the plans, how the level below went in imagination, what was walked, the words."""
    for number, plan in enumerate(moment.plans):
        thought = plan.rounds[moment.round] if number == 0 and moment.round >= 0 else None
        mazes.conditions(axes, plan, thought)
        if thought is not None and moment.realized:
            mazes.realized(axes, thought)
    mazes.walked(axes, watched, moment.t)
    walks.ends(axes, watched.positions[0], watched.goal)
    axes.text(0.5, 1.03, moment.words, transform=axes.transAxes, fontsize=8.5, ha="center")


def _thinking(left: Watched, right: Watched, step: int) -> Iterator[Frame]:
    """Yield the frames in which both stand at a step and the plans that are made there are shown."""
    shown = [list(_views(one, step)) or [(_walking(one, step), 0)] for one in (left, right)]
    for number in range(max(map(len, shown))):
        (first, one), (second, other) = (views[min(number, len(views) - 1)] for views in shown)
        yield Frame(first, second, max(one, other))


def _views(watched: Watched, step: int) -> Iterator[tuple[Moment, int]]:
    """Yield what is shown of the plans that an episode makes at a step, each with its milliseconds."""
    if step > mazes.arrival(watched):
        return
    for number, plan in enumerate(watched.plans):
        if plan.step != step:
            continue
        above = tuple(one for one in mazes.current(watched, step) if one.level > plan.level)
        shown = (plan, *above)
        for place, thought in enumerate(plan.rounds if number < SLOW else ()):
            words = f"step {step}: it thinks, round {place + 1}"
            yield Moment(step, shown, place, False, words), ASKED
            yield Moment(step, shown, place, True, f"{words}: {mazes.outcome(thought)}"), WENT
        yield Moment(step, shown, words=f"step {step}: it {'plans' if number == 0 else 'plans again'}"), AGAIN


def _walking(watched: Watched, t: int) -> Moment:
    """Return what is shown of an episode at a step; at the goal it rests."""
    last = mazes.arrival(watched)
    at = min(t, last)
    words = f"step {at}"
    if at == last:
        words += ": at the goal" if watched.solved else ": not there"
    return Moment(at, tuple(mazes.current(watched, at)), words=words)


def _blit(axes: Axes, watched: Watched, moment: Moment) -> None:
    """Draw a moment on what is there already, and forget it."""
    before = set(axes.get_children())
    draw(axes, watched, moment)
    new = [artist for artist in axes.get_children() if artist not in before]
    for artist in sorted(new, key=lambda artist: artist.get_zorder()):
        axes.draw_artist(artist)
        artist.remove()
