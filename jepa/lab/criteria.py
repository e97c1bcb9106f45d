"""Pictures of what happens when a criterion of training is dropped and restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jepa.lab import style
from jepa.measures.collapse import COLLAPSED_CONTRAST, COLLAPSED_R2, HEALTHY_CONTRAST, HEALTHY_R2

DIAGNOSTICS = {"contrast": "contrast", "probe_r2": "probe R²", "effective_rank": "effective rank", "auroc": "AUROC"}
LEAST = 1e-4  # contrast below which the axis of the curves does not go
LIMITS = (1e-7, 50.0)  # of the axis of contrast on the chart
COLLAPSED = {"contrast": COLLAPSED_CONTRAST, "probe_r2": COLLAPSED_R2}
HEALTHY = {"contrast": HEALTHY_CONTRAST, "probe_r2": HEALTHY_R2}


def curves(diagnostics: pd.DataFrame, pairs: Mapping[str, tuple[str, str]], worlds: Sequence[str]) -> Figure:
    """Return the diagnostics (rows) while a criterion (columns) is missing and after it is restored, by world.

    Args: diagnostics: as from `Study.diagnostics`; pairs: title -> names without the world of the two trainings, one
        after the other; worlds: prefixes of the variants.
    """
    figure, axes = style.panels(len(pairs), rows=len(DIAGNOSTICS), height=1.15, sharex="col", sharey="row")
    for column, (title, (dropped, restored)) in enumerate(pairs.items()):
        for world, color in zip(worlds, style.COLORS, strict=False):
            first = diagnostics[diagnostics.variant == f"{world}_{dropped}"]
            then = diagnostics[diagnostics.variant == f"{world}_{restored}"].copy()
            then["step"] += first.step.max()
            for row, name in enumerate(DIAGNOSTICS):
                table = pd.concat([part[part["name"] == name] for part in (first, then)])
                if name == "contrast":
                    table = table.assign(value=table.value.clip(lower=LEAST))
                options = {"x": "step", "y": "value", "color": color, "errorbar": ("pi", 100), "lw": 1.2}
                label = world if row == column == 0 else None
                seaborn.lineplot(table, ax=axes[row, column], legend=False, label=label, **options)
        for panel in axes[:, column]:
            panel.axvspan(0, first.step.max(), color="#bb3e03", alpha=0.08, lw=0)
            panel.set(xlabel="", ylabel="", xlim=(0, then.step.max()))
        axes[0, column].set_title(title, fontsize=8)
    axes[0, 0].set(yscale="log", ylim=(LEAST, None))
    for panel, (name, words) in zip(axes[:, 0], DIAGNOSTICS.items(), strict=True):
        panel.set_ylabel(words)
        for other in axes[list(DIAGNOSTICS).index(name)]:
            for level in (COLLAPSED.get(name), HEALTHY.get(name)):
                if level is not None:
                    other.axhline(level, color="gray", lw=0.6, ls=":")
    axes[1, 0].set_ylim(-0.3, 1.05)
    axes[1, 0].legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7, loc="upper left", handlelength=1)
    figure.supxlabel("training steps: criterion dropped (shaded), then restored", fontsize=9)
    return figure


def chart(axes: Axes, table: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Draw runs by contrast and probe R² (columns of those names, and `variant`), with the two regions of the rule."""
    shown = table.assign(contrast=table.contrast.clip(lower=1e-7), probe_r2=table.probe_r2.clip(lower=-0.2))
    axes.axhspan(-0.25, COLLAPSED["probe_r2"], xmax=_share(COLLAPSED["contrast"]), color="#bb3e03", alpha=0.12, lw=0)
    axes.axhspan(HEALTHY["probe_r2"], 1.05, xmin=_share(HEALTHY["contrast"]), color="#0a9396", alpha=0.12, lw=0)
    for (variant, name), color in zip(names.items(), style.COLORS, strict=False):
        for world, marker in (("fork", "o"), ("crossing", "^")):
            points = shown[shown.variant == f"{world}_{variant}"]
            label = name if world == "fork" else None
            options = {"marker": marker, "s": 22, "edgecolor": "white", "linewidth": 0.4}
            axes.scatter(points.contrast, points.probe_r2, color=color, label=label, **options)
    axes.set(xscale="log", xlim=LIMITS, ylim=(-0.25, 1.05), xlabel="contrast", ylabel="probe R² of s_y")
    axes.text(1.6e-7, 0.02, "collapsed", fontsize=8, color="#bb3e03", va="center")
    axes.text(LIMITS[1] * 0.8, 0.8, "healthy", fontsize=8, color="#0a9396", ha="right", va="center")


def _share(contrast: float) -> float:
    """Return where a contrast is on the logarithmic axis, from 0 to 1."""
    return log(contrast / LIMITS[0]) / log(LIMITS[1] / LIMITS[0])
