"""One style for every figure, and the bytes of a figure the same for the same numbers."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import seaborn
from IPython.display import Image
from matplotlib import pyplot
from matplotlib.figure import Figure

PALETTE = "colorblind"
COLORS = seaborn.color_palette(PALETTE)
ENERGY = "mako"  # dark is low: energies
WIDTH = 7.2  # inches, the text width of a paper


def use() -> None:
    """Set the style for all figures that follow."""
    np.random.seed(0)  # seaborn jitters points by NumPy's global generator and takes no other
    seaborn.set_theme(context="paper", style="ticks", palette=PALETTE, font_scale=1.1)
    matplotlib.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "legend.frameon": False,
            "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
        }
    )


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG without the date and the version that would change its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def picture(figure: Figure) -> Image:
    """Return a figure as it is shown in a notebook, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return Image(buffer.getvalue())


def panels(columns: int, height: float = 2.4, rows: int = 1, **options) -> tuple[Figure, object]:
    """Return a figure of the text width with a row or grid of panels; `height` is that of one row, in inches."""
    return pyplot.subplots(rows, columns, figsize=(WIDTH, height * rows), **options)


def mosaic(layout: list[list[str]], height: float, **ratios) -> tuple[Figure, dict]:
    """Return a figure of the text width with panels by name, as `layout` shows them; `height` is in inches."""
    return pyplot.subplot_mosaic(layout, figsize=(WIDTH, height), gridspec_kw=ratios)
