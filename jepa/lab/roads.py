"""Pictures of the world `fork`: film strips with decoded futures, what models keep, an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from jepa.lab import style
from jepa.worlds.scene import SIDE

GRAY = {"cmap": "gray", "vmin": -1.2, "vmax": 2.2, "extent": (-SIDE / 2, SIDE / 2) * 2}


def frame(axes: Axes, picture: Tensor, title: str = "") -> None:
    """Draw one frame [S, S] with the world's units on its axes."""
    axes.imshow(picture, interpolation="nearest", **GRAY)
    axes.set(xticks=[], yticks=[], xlim=(-SIDE / 2, SIDE / 2), ylim=(-SIDE / 2, SIDE / 2))
    axes.set_title(title, fontsize=8, loc="center", fontweight="normal")
    for spine in axes.spines.values():
        spine.set_visible(False)


def futures(axes: Axes, paths: Tensor, at: int | None, colors: Sequence = style.COLORS) -> None:
    """Draw predicted paths [K, T, 2], a color each, with a ring where the car should be in frame `at` of y."""
    for path, color in zip(paths, colors, strict=False):
        axes.plot(*path.T, color=color, lw=1.1, alpha=0.7)
        if at is not None:
            axes.plot(*path[at], marker="o", mfc="none", mec=color, ms=7, mew=1.6)


def film(axes: Sequence[Axes], clip: Tensor, paths: Tensor, titles: bool = True, **options) -> None:
    """Draw a clip [2 T, S, S] frame by frame; predicted paths [K, T, 2] lie over the frames behind the fork."""
    half = len(clip) // 2
    for t, panel in enumerate(axes):
        title = f"x, frame {t + 1}" if t < half else f"y, frame {t - half + 1}"
        frame(panel, clip[t], title if titles else "")
        if t >= half:
            futures(panel, paths, t - half, **options)


def kept(axes: Axes, table: pd.DataFrame) -> None:
    """Draw R² of factors (rows) in models (columns) as a table of shades, numbers in it; below 0 counts as 0."""
    shown = table.clip(lower=0)
    options = {"annot": True, "fmt": ".2f", "annot_kws": {"fontsize": 8}, "linewidths": 1.5}
    seaborn.heatmap(shown, ax=axes, vmin=0, vmax=1, cmap="crest", cbar_kws={"label": "R²"}, **options)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.set_xticklabels(axes.get_xticklabels(), rotation=0)
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)


def animate(path: Path, clips: Sequence[Tensor], paths: Sequence[Tensor], milliseconds: int = 350) -> None:
    """Write a GIF: clips [2 T, S, S] side by side, their predicted paths [K, T, 2] drawn as soon as x has been seen.

    The same numbers make the same bytes.
    """
    length = len(clips[0])
    half, pictures = length // 2, []
    for t in [*range(length), length - 1, length - 1]:
        figure, axes = pyplot.subplots(1, len(clips), figsize=(2.2 * len(clips), 2.35), squeeze=False)
        for panel, clip, found in zip(axes[0], clips, paths, strict=True):
            frame(panel, clip[t], "what the model sees" if t < half else "what happens, and both predictions")
            if t >= half - 1:
                futures(panel, found, t - half if t >= half else None)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=100, metadata={"Software": None})
        pyplot.close(figure)
        pictures.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=False)
