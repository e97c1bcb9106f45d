"""Pictures that more than one notebook draws: energy landscapes, and a slider that degrades to a film strip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from IPython.display import display
from matplotlib import pyplot
from matplotlib.axes import Axes
from torch import Tensor

from jepa.evaluate.landscapes import free_energy
from jepa.lab import style
from jepa.measures.landscape import Box, grid
from jepa.model import JEPA

SIDE = 120  # points per axis of a picture


def landscape(axes: Axes, box: Box, energies: Tensor, top: float, level: float | None = None) -> None:
    """Draw energies [P²] over a two-dimensional box, dark where low, with the outline of the region below `level`.

    Args: axes: to draw on; box: of the plane; energies: on `jepa.measures.landscape.grid`; top: energy drawn brightest.
    """
    side = round(len(energies) ** 0.5)
    values = energies.view(side, side).T.numpy()
    extent = (float(box.low[0]), float(box.high[0]), float(box.low[1]), float(box.high[1]))
    axes.imshow(
        values,
        origin="lower",
        extent=extent,
        cmap=style.ENERGY,
        vmin=0,
        vmax=top,
        interpolation="bilinear",
        aspect="auto",
    )
    if level is not None and values.min() < level < values.max():
        x, y = (np.linspace(low, high, side) for low, high in (extent[:2], extent[2:]))
        axes.contour(x, y, values, levels=[level], colors="white", linewidths=0.8)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def free_energies(model: JEPA, x: Tensor, box: Box, side: int = SIDE) -> Tensor:
    """Return F(x, y) [side²] of one context x [1, D] over a two-dimensional box (LeCun 2022, equation 12)."""
    return free_energy(model, x)(grid(box, side))


def energies(model: JEPA, x: Tensor, z: Tensor, box: Box, side: int = SIDE) -> Tensor:
    """Return E(x, y, z) [side²] of one context x [1, D] and one latent z [Z] over a box (LeCun 2022, equation 10)."""
    y = grid(box, side)
    with torch.no_grad():
        return model.energy(x.expand(len(y), -1), y, z.view(1, 1, -1)).squeeze(1)


def slider(draw: Callable[[Axes, Any], None], name: str, values: Sequence[Any]) -> None:
    """Show `draw(axes, value)` for all values as a film strip, and under it one picture that a slider changes.

    The picture is an image widget, not captured output: a program that runs the notebook has nothing to wait for.

    Args: draw: draws one picture; name: of the slider; values: its positions.
    """
    from ipywidgets import HBox, Image, SelectionSlider

    figure, axes = style.panels(len(values), height=style.WIDTH / len(values) + 0.3, squeeze=False)
    for panel, value in zip(axes[0], values, strict=True):
        draw(panel, value)
        panel.set_title(f"{name} = {value}")
    display(style.picture(figure))

    def position(value: Any) -> bytes:
        """Return one position, larger, as PNG."""
        figure, axes = pyplot.subplots(figsize=(3.4, 3.4))
        draw(axes, value)
        axes.set_title(f"{name} = {value}")
        return style.picture(figure).data

    moved, image = SelectionSlider(options=list(values), description=name), Image(value=position(values[0]))
    moved.observe(lambda change: setattr(image, "value", position(change["new"])), "value")
    display(HBox([moved, image]))
