"""What a figure shows, as numbers and words: so that two figures can be compared without comparing pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from jepa.lab.numbers import summary


def drawn(figure: Figure) -> dict[str, Any]:
    """Return the words of a figure and a summary of its numbers: data, limits, colors and widths of lines, by kind."""
    found: dict[str, list[Any]] = {}
    for artist in figure.findobj(lambda artist: artist.get_visible()):
        for kind in (Axes, Line2D, AxesImage, Collection, Patch, Text):
            if isinstance(artist, kind):
                found.setdefault(kind.__name__, []).extend(_numbers(artist))
    words = [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    return {"words": words, **{kind: summary(*arrays) for kind, arrays in sorted(found.items())}}


def _numbers(artist: Artist) -> Iterator[Any]:
    """Yield the numbers that an artist draws."""
    if isinstance(artist, Axes):
        yield from (artist.get_xlim(), artist.get_ylim())
    elif isinstance(artist, Line2D):
        yield from (artist.get_xydata(), to_rgba_array(artist.get_color()), artist.get_linewidth())
    elif isinstance(artist, AxesImage):
        yield from (np.ma.filled(artist.get_array(), np.nan), artist.get_clim(), artist.get_extent())
    elif isinstance(artist, Collection):
        yield from (np.ma.filled(artist.get_offsets(), np.nan), artist.get_facecolor(), artist.get_edgecolor())
        yield from (path.vertices for path in artist.get_paths())
    elif isinstance(artist, Patch):
        yield from (artist.get_patch_transform().transform(artist.get_path().vertices), artist.get_facecolor())
    elif isinstance(artist, Text):
        yield to_rgba_array(artist.get_color())
