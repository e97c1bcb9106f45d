"""What a figure shows is told by its numbers and words, whatever the pixels are."""

from __future__ import annotations

import numpy as np
import pytest
import seaborn
from matplotlib import pyplot

from jepa.lab.drawn import drawn
from jepa.lab.numbers import differences


def shown(change=lambda axes: None):
    """Return what a figure of every kind of artist shows after a change."""
    figure, axes = pyplot.subplots(1, 3)
    axes[0].plot([1, 2, 3], [1, 4, 9], label="squares")
    axes[0].legend()
    axes[1].imshow(np.arange(12.0).reshape(3, 4))
    axes[1].scatter([0, 1], [1, 2], c=["C0", "C1"])
    seaborn.barplot(x=["a", "b"], y=[1.0, 2.0], ax=axes[2])
    change(axes)
    found = drawn(figure)
    pyplot.close(figure)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda axes: axes[0].lines[0].set_ydata([1, 4, 9.01]),
        lambda axes: axes[0].lines[0].set_color("red"),
        lambda axes: axes[0].lines[0].set_linewidth(3),
        lambda axes: axes[0].set_title("other"),
        lambda axes: axes[0].set_xlim(0, 4),
        lambda axes: axes[0].lines[0].set_visible(False),
        lambda axes: axes[1].images[0].set_data(np.arange(12.0).reshape(3, 4) + 0.01),
        lambda axes: axes[1].collections[0].set_offsets([[0, 1], [1, 2.01]]),
        lambda axes: axes[1].collections[0].set_facecolor(["C2", "C1"]),
        lambda axes: axes[2].patches[1].set_height(2.01),
    ],
)
def test_change_of_a_figure_is_seen(change):
    assert list(differences(shown(), shown(change), 1e-6, 1e-8))


def test_same_figure_shows_the_same():
    assert not list(differences(shown(), shown(), 1e-6, 1e-8))
