"""What the levels of a hierarchy foresee in the world `drive`, as pictures: film strips, values of z, an animation.

What is drawn of a level is read from its predictions by `jepa.evaluate.decoding`: what it does not know is blurred. A
ring is where the car really is. Pictures are drawn as on paper, frames and predictions alike.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torch import Tensor

from jepa.evaluate.decoding import code_roads, decoded, decoded_codes, frames, pictures, positions
from jepa.evaluate.levels import Stacked
from jepa.lab import style
from jepa.worlds.drive.pictures import COLORS
from jepa.worlds.drive.ring import LAP

SHOWN = (1, 8, 16, 32, 48, 64)  # frames ahead of a film strip
RING = {"marker": "o", "mfc": "none", "mec": "black", "mew": 0.9, "ls": ""}
CENTER = {"fontsize": 8, "loc": "center", "fontweight": "normal", "pad": 3}  # of titles
INK, SHADE = 0.6, 1.7  # how soon a color is dark on paper, and a gray
PALE = 0.45  # how much is left of what is green alone: trees, which say nothing
LOST = "has left\nthe codes"  # a roll-out, of which nothing can be read
EVENTS = "what happens"
ROADS = ("upper road", "lower road")  # where there are two
SIDE, DPI = 1.3, 100  # of a panel of an animation: inches and pixels an inch
STEPS = (0.05, 0.15, 0.3, 0.6, 1.0)  # of a car's color in an animation
TREES = (0.15, 0.4, 0.8)  # of the trees'
GRAYS = (0, 90, 150, 191)  # of its letters and frames, of 255
PAUSE = 8  # how many times as long its last frame lasts
SAME = 255  # the color in an animation's palette that leaves what was there


def on_paper(picture: Tensor) -> Tensor:
    """Return a picture [3, …], from 0 to 1, as one on paper: black is white, hues stay, and faint is easier to see.

    With v the largest and m the least of three colors x it is (1 − v^0.6 (1 − x / v)) (1 − 1.7 m), once green is pale.
    """
    red, green, blue = picture.detach().clamp(0, 1)
    others = torch.maximum(red, blue)
    x = torch.stack([red, torch.minimum(green, others) + PALE * (green - others).clamp(min=0), blue])
    largest, least = x.amax(0).clamp(min=1e-12), x.amin(0)
    return ((1 - largest**INK * (1 - x / largest)) * (1 - SHADE * least)).clamp(0, 1)


def frame(axes: Axes, picture: Tensor, title: str = "", car: Tensor | None = None) -> None:
    """Draw one picture [3, S, S] of the map, on paper, or say that it is nan.

    Args: car: [2] where it really is, in px, ringed if given.
    """
    if bool(picture.isnan().any()):
        axes.text(LAP / 2, LAP / 2, LOST, ha="center", va="center", fontsize=7, color="0.35")
        axes.set_aspect("equal")
        car = None
    else:
        axes.imshow(on_paper(picture).permute(1, 2, 0).numpy(), interpolation="nearest", extent=(0, LAP, LAP, 0))
    if car is not None:
        x, y = car.tolist()
        axes.plot([x - LAP, x, x + LAP], [y] * 3, ms=9, **RING)  # the map is a ring
    axes.set(xticks=[], yticks=[], xlim=(0, LAP), ylim=(LAP, 0))
    axes.set_title(title, **CENTER)
    for spine in axes.spines.values():
        spine.set(visible=True, color="0.75", lw=0.6)


def sees(subject: Stacked, clip: int = 0, horizons: Sequence[int] = SHOWN) -> Figure:
    """Return a film strip: frames that far ahead, and below them what can be read of each level's prediction of them.

    Args: clip: number of a held-out clip; horizons: in frames ahead of its first present.
    Raises: ValueError for a clip or horizon that there is not.
    """
    rows, cars = _rows(subject, clip, horizons), positions(subject, clip, horizons)
    figure, axes = style.panels(len(horizons), height=0.95 * style.WIDTH / (len(horizons) + 1), rows=len(rows))
    for y, (name, row) in enumerate(rows.items()):
        for x, (ahead, picture, car) in enumerate(zip(horizons, row, cars, strict=True)):
            words = f"{ahead} frame{'s' * (ahead > 1)} ahead" if y == 0 else ""
            frame(axes[y, x], picture, words, car if y else None)
        color = style.COLORS[y - 1] if y else "black"
        axes[y, 0].set_ylabel(name, rotation=0, ha="right", va="center", color=color, labelpad=6, fontsize=9)
    return figure


def codes(subject: Stacked, clip: int, present: int, level: int = 2) -> Figure:
    """Return what each value of z means, as pictures: a held-out frame, the one a step on, and what z says of it.

    Below are how often a value is used, and a bar of the roads that were taken where it stood for crossing a junction.
    Args: clip, present: number of a held-out clip and frame in it, such as `before_junction` finds; level: with a z of
        finitely many values.
    Raises: ValueError for a level, clip or present that there is not, or a latent without values.
    """
    seen, use = decoded_codes(subject, level, clip, present)
    roads, stride = code_roads(subject, level), subject.model.clocks[level - 1].stride
    numbers = torch.tensor([present, present + stride])
    real, car = frames(subject, clip, numbers), subject.tested.factors["position"][clip, present + stride]
    order = sorted(range(len(use)), key=lambda code: tuple((-roads[code].nan_to_num(-1)).tolist()))
    columns = -(-len(use) // 2)
    figure, axes = style.panels(columns + 1, height=style.WIDTH / (columns + 1) + 0.4, rows=2, squeeze=False)
    frame(axes[0, 0], real[0], "before the junction")
    frame(axes[1, 0], real[1], f"{stride} frames later")
    shown = [*axes[0, 1:], *axes[1, 1:]]
    for panel, code in zip(shown, order, strict=False):
        frame(panel, seen[code], f"z = {code + 1}, used in {100 * use[code]:.0f} %", car)
        _bar(panel, roads[code])
    for panel in shown[len(use) :]:
        panel.set_visible(False)
    names = ROADS if roads.shape[1] == len(ROADS) else [f"road {road + 1}" for road in range(roads.shape[1])]
    shades = zip(_shades(roads[0]), names, strict=True)
    handles = [Patch(facecolor=shade, edgecolor="0.3", label=name) for shade, name in shades]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize=8, handlelength=1.4)
    return figure


def animate(
    path: Path, subject: Stacked, clip: int = 0, horizons: Sequence[int] = range(1, 65), milliseconds: int = 160
) -> None:
    """Write a GIF: what happens, beside what can be read of each level's prediction, made once, so many frames ahead.

    The same numbers make the same bytes.
    Args: clip, horizons: as for `sees`; milliseconds: of each frame.
    Raises: ValueError for a clip or horizon that there is not.
    """
    rows, cars = _rows(subject, clip, horizons), positions(subject, clip, horizons)
    drawn = []
    for number, (ahead, car) in enumerate(zip(horizons, cars, strict=True)):
        figure, axes = pyplot.subplots(1, len(rows), figsize=(SIDE * len(rows), 1.28 * SIDE), squeeze=False)
        for panel, (name, row) in zip(axes[0], rows.items(), strict=True):
            frame(panel, row[number], name, None if name == EVENTS else car)
        figure.suptitle(f"{ahead} frame{'s' * (ahead > 1)} ahead", fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
        pyplot.close(figure)
        drawn.append(Image.open(buffer).convert("RGB"))
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = _changes(drawn, _palette(subject.world.colors))
    times = [milliseconds] * len(others) + [PAUSE * milliseconds]
    options = {"loop": 0, "optimize": False, "disposal": 1, "transparency": SAME}
    first.save(path, save_all=True, append_images=others, duration=times, **options)


def _rows(subject: Stacked, clip: int, horizons: Sequence[int]) -> dict[str, Tensor]:
    """Return what happens and what each level foresees of it, name -> [H, 3, S, S]."""
    levels = range(1, len(subject.model.levels) + 1)
    foreseen = {f"level {level}": decoded(subject, level, clip, horizons) for level in levels}
    return {EVENTS: pictures(subject, clip, horizons), **foreseen}


def _bar(axes: Axes, shares: Tensor) -> None:
    """Draw the share of each road [M] under a picture, or say that there is none."""
    options = {"transform": axes.transAxes, "clip_on": False}
    if bool(shares.isnan().any()):
        axes.text(0.5, -0.08, "crosses none", ha="center", va="center", fontsize=8, color="0.4", **options)
        return
    begins = (shares.cumsum(0) - shares).tolist()
    for begin, share, shade in zip(begins, shares.tolist(), _shades(shares), strict=True):
        axes.add_patch(Rectangle((begin, -0.12), share, 0.08, facecolor=shade, edgecolor="0.3", lw=0.6, **options))


def _shades(shares: Tensor) -> list[str]:
    """Return a gray for each of the roads [M], from dark to light."""
    return [f"{gray:.2f}" for gray in torch.linspace(0.3, 1.0, len(shares)).tolist()]


def _palette(colors: str) -> Image.Image:
    """Return the palette of an animation: what there is on the map in steps, on a road and beside it, on paper.

    Args: colors: name of the world's palette.
    """
    ink = {name: torch.tensor(color) for name, color in COLORS[colors].items()}
    found = [share * ink["road"] for share in (0.0, 0.5, 1.0)]
    for car in (ink["car"], ink["other"]):
        found += [step * car + ground for step in STEPS for ground in (torch.zeros(3), ink["road"])]
        found.append(STEPS[1] * car + TREES[1] * ink["trees"])
    found += [share * ink["trees"] for share in TREES]
    shades = (255 * on_paper(torch.stack(found, 1)).T).round().int().tolist() + [[gray] * 3 for gray in GRAYS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for shade in shades for part in shade] + [255] * 3 * (256 - len(shades)))
    return palette


def _changes(pictures: Sequence[Image.Image], palette: Image.Image) -> list[Image.Image]:
    """Return pictures in the colors of a palette, and of every one but the first only what has changed."""
    flat = [np.asarray(picture.quantize(palette=palette, dither=Image.Dither.NONE)) for picture in pictures]
    flat = [np.where(picture == SAME, 0, picture).astype(np.uint8) for picture in flat]  # both are white
    changed = [np.where(one == before, SAME, one).astype(np.uint8) for before, one in pairwise(flat)]
    found = [Image.fromarray(picture) for picture in (flat[0], *changed)]
    for picture in found:
        picture.putpalette(palette.getpalette())
    return found
