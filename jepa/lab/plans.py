"""Plans that move: an episode with its imagined trees as a GIF, and the tree of a goal that a slider changes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from PIL import Image

from jepa.evaluate.imagined import HOLD, Episode, Imagined
from jepa.lab import walks
from jepa.worlds.rooms.layouts import Layouts

SIDE, DPI = 2.5, 160  # of a frame: inches and pixels an inch
GROWTH, WALK = 24, 44  # frames of the first tree, and of the walk, at most
FLASH = (220, 120, 220, 120, 500)  # milliseconds of a new tree that is shown, pale, shown, …
COLORS = 96  # of a GIF
PALE = (0.72, 0.75, 0.79)  # a tree that is no longer looked at

Ink = tuple[float, float, float]  # red, green, blue
INKS = ((0, 0, 0), (1, 1, 1), walks.WALL, walks.DOT, walks.WALKED, walks.IMAGINED, walks.GOAL["mfc"], PALE)


class Frame(NamedTuple):
    """What one frame of an animation shows."""

    t: int  # step of the episode
    depth: int | None  # of the tree, in macro-actions; None: it is pale
    path: bool  # whether the chosen path is shown
    title: str
    milliseconds: int


def frames(episode: Episode) -> Iterator[Frame]:
    """Yield the frames: the first tree grows, its path is chosen, the dot walks, and every new plan flashes."""
    first, last = walks.current(episode, 0), walks.arrival(episode)
    if first is not None:
        deepest = _deepest(first)
        for depth in sorted(set(np.linspace(0, deepest, GROWTH).round().astype(int).tolist())):
            yield Frame(0, depth, False, f"it imagines {HOLD * depth} steps", 110)
        yield Frame(0, deepest, True, "and takes a path that leads to the goal", 1200)
    stride = max(1, -(-last // WALK))
    steps, again = sorted({*range(0, last + 1, stride), last}), {plan.step for plan in episode.plans if plan.step > 0}
    for before, t in zip([0, *steps], steps, strict=False):
        for made in sorted(step for step in again if before < step <= t):
            deepest = _deepest(walks.current(episode, made))
            for number, milliseconds in enumerate(FLASH):
                yield Frame(made, None if number % 2 else deepest, True, f"step {made}: it plans again", milliseconds)
        yield Frame(t, None, True, f"step {t}", 110)
    yield Frame(last, None, True, f"step {last}: {'at the goal' if _there(episode, last) else 'not there'}", 2000)


def animate(path: Path, episode: Episode) -> None:
    """Write an episode as a GIF, `frames` of the pictures that the model sees and of what it imagines over them.

    The same numbers make the same bytes.
    """
    shown = list(frames(episode))
    write(path, [_rendered(episode, one) for one in shown], [one.milliseconds for one in shown])


def write(path: Path, pictures: list[Image.Image], milliseconds: list[int], inks: Sequence[Ink] = INKS) -> None:
    """Write pictures of one size as a GIF that repeats.

    Args: milliseconds: that each is shown; inks: colors that it has to have.
    """
    palette = _palette(pictures, inks)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=milliseconds, loop=0, optimize=False)


def goals(layouts: Layouts, plans: Mapping[str, Imagined], row: int = 0) -> Callable[[Axes, str], None]:
    """Return what draws the tree and the chosen path of a goal, for `jepa.lab.figures.slider(draw, "goal", plans)`.

    Args: plans: name of a goal -> plan in the layout of that row.
    """

    def draw(panel: Axes, goal: str) -> None:
        """Draw one goal."""
        walks.tree_picture(panel, layouts, plans[goal], row, bar=False)

    return draw


def _rendered(episode: Episode, shown: Frame) -> Image.Image:
    """Return one frame of an animation."""
    plan = walks.current(episode, shown.t)
    figure, axes = pyplot.subplots(figsize=(SIDE, 1.1 * SIDE))
    walks.seen(axes, episode.layouts, episode.pictures[shown.t])
    if plan is not None:
        walks.branches(axes, plan, shown.depth, PALE if shown.depth is None else None)
    left = walks.ahead(episode, shown.t)
    if shown.path and len(left):
        walks.chosen(axes, left)
    axes.plot(*episode.positions[: shown.t + 1].T, color=walks.WALKED, lw=1.6, zorder=5)
    walks.ends(axes, episode.positions[0], episode.goal)
    axes.set_title(shown.title, fontsize=9, loc="center", fontweight="normal")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
    pyplot.close(figure)
    return Image.open(buffer).convert("RGB")


def _palette(pictures: list[Image.Image], inks: Sequence[Ink]) -> Image.Image:
    """Return one palette for all frames: of what is drawn, in large patches, and of some of the frames."""
    wide, high = pictures[0].size
    some = pictures[:: -(-len(pictures) // 4)]
    sheet = Image.new("RGB", (wide, high * (len(some) + 1)))
    for number, ink in enumerate(inks):
        share = wide * number // len(inks), wide * (number + 1) // len(inks)
        sheet.paste(tuple(round(255 * part) for part in ink), (share[0], 0, share[1], high))
    for number, picture in enumerate(some):
        sheet.paste(picture, (0, high * (number + 1)))
    palette = sheet.quantize(COLORS, dither=Image.Dither.NONE)
    palette.putpalette([255 if part >= 250 else part for part in palette.getpalette()])  # the floor stays white
    return palette


def _deepest(plan: Imagined) -> int:
    """Return the depth of a tree, in macro-actions."""
    return int(plan.depth.max()) if len(plan.depth) else 0


def _there(episode: Episode, t: int) -> bool:
    """Return whether a step ends at the goal."""
    return float((episode.positions[t] - episode.goal).norm()) < walks.ARRIVED
