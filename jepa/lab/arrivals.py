"""How often planners in mazes arrive, and at what cost: by kind and size of maze, by evaluations, budget and distance.

Tables are as in `jepa.lab.charts`. Metrics begin with the name of a planner, `<method>_success`, `<method>_evaluations`
(`jepa.evaluate.hierarchical`); `methods` is always that name -> words. A metric that is missing is named in the error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from jepa.lab import style
from jepa.lab.charts import FAINT, MARKERS, RATE, RATES, arms, estimate, factors, line, short
from jepa.lab.rates import named_rows

KINDS = {"": "all tasks", "_misleading": "the map misleads", "_clean": "it does not"}  # suffix of success -> words
THIRDS = {"near": "near", "middle": "middle", "far": "far"}  # of tasks, by the length of the way -> words
LOOKS = (
    "iterated",
    "flat_servo",
    "experience",
    "greedy",
    "flat_cem",
    "flat_tree",
    "sampled",
    "gradient",
    "oracle",
    "unweighted",
)
COSTS = {"evaluations": "evaluations an episode", "gigaflops": "GFLOP an episode"}


def success(
    axes: Sequence[Axes], table: pd.DataFrame, variants: Mapping[str, str], methods: Mapping[str, str],
    kinds: Mapping[str, str] = KINDS,
) -> None:  # fmt: skip
    """Draw success by method, a panel for each kind of task and a mark for each variant, such as sizes of mazes.

    Args: axes: as many as kinds, that share y; variants: variant -> words, such as three_told -> 3 × 3 rooms; kinds:
        what stands behind `<method>_success` -> title.
    """
    shifts = _shifts(len(variants), 0.56)
    for panel, (suffix, title) in zip(axes, kinds.items(), strict=True):
        for number, (variant, words) in enumerate(variants.items()):
            found = [estimate(table, (variant, f"{method}_success{suffix}"), "logit") for method in methods]
            y, color = np.arange(len(methods)) + shifts[number], style.COLORS[number]
            for place, (_, values) in zip(y, found, strict=True):
                panel.plot(values, np.full(len(values), place + 0.1), marker=MARKERS[number], color=color, **FAINT)
            options = {"color": color, "marker": MARKERS[number], "ms": 4, "ls": "", "elinewidth": 1.2, "zorder": 3}
            means = [one.estimate for one, _ in found]
            panel.errorbar(means, y, xerr=arms([one for one, _ in found]), label=words, **options)
        named_rows(panel, list(methods.values()), RATE, RATES)
        panel.set_title(title, fontsize=9)


def spent(
    axes: Axes, table: pd.DataFrame, variant: str, methods: Mapping[str, str], free: Mapping[str, str] | None = None,
    cost: str = "evaluations",
) -> None:  # fmt: skip
    """Draw success against what an episode takes, a mark with both intervals for each method.

    Args: free: methods that ask no model, as lines -> words; cost: evaluations or gigaflops.
    Raises: ValueError for another cost.
    """
    if cost not in COSTS:
        raise ValueError(f"cost: expected one of {', '.join(COSTS)}, found {cost!r}")
    for number, (method, words) in enumerate(methods.items()):
        x, _ = estimate(table, (variant, f"{method}_{cost}"), "log")
        y, _ = estimate(table, (variant, f"{method}_success"), "logit")
        look = _look(method, number)
        options = {"color": style.COLORS[look % 10], "marker": MARKERS[look % len(MARKERS)], "ms": 6, "ls": ""}
        axes.errorbar(
            [x.estimate], [y.estimate], xerr=arms([x]), yerr=arms([y]), elinewidth=1.2, label=words, **options
        )
    for number, (method, words) in enumerate((free or {}).items()):
        found, _ = estimate(table, (variant, f"{method}_success"), "logit")
        axes.axhline(found.estimate, color="gray", lw=1.2, ls=("--", ":", "-.")[number % 3], label=words, zorder=1)
    axes.set(xscale="log", xlabel=COSTS[cost], ylabel=RATE, ylim=RATES)
    factors(axes.xaxis, (1, 3))


def budgets(axes: Axes, table: pd.DataFrame, prefix: str, methods: Mapping[str, str]) -> None:
    """Draw success against the evaluations that an episode may take, a line for each method.

    Args: prefix: of the variants `<prefix>_<evaluations>`, such as budget or three_budget.
    Raises: ValueError if there are none.
    """
    form = re.compile(rf"{re.escape(prefix)}_(\d+)")
    found = {variant: form.fullmatch(variant) for variant in table.variant.unique()}
    most = sorted((int(match[1]), variant) for variant, match in found.items() if match)
    if not most:
        raise ValueError(f"table: expected variants {prefix}_<evaluations>, found {', '.join(sorted(found))}")
    x, shifts = np.array([number for number, _ in most], float), _shifts(len(methods), len(methods) - 1)
    for number, (method, words) in enumerate(methods.items()):
        y = [estimate(table, (variant, f"{method}_success"), "logit")[0] for _, variant in most]
        line(axes, x * 1.03 ** shifts[number], y, _look(method, number), words)
    axes.set(xscale="log", xlabel="evaluations an episode may take", ylabel=RATE, ylim=RATES)
    named = [number for number, _ in most]
    axes.set_xticks(named, [short(number) for number in named])
    axes.minorticks_off()


def distance(
    axes: Axes, table: pd.DataFrame, variant: str, methods: Mapping[str, str], bins: Mapping[str, str] = THIRDS
) -> None:
    """Draw success by how far the goal is, a line for each method.

    Args: bins: what stands behind `<method>_success_` -> words, from near to far.
    """
    shifts = _shifts(len(methods), 0.3)
    for number, (method, words) in enumerate(methods.items()):
        y = [estimate(table, (variant, f"{method}_success_{one}"), "logit")[0] for one in bins]
        line(axes, np.arange(len(bins)) + shifts[number], y, _look(method, number), words)
    axes.set_xticks(range(len(bins)), list(bins.values()))
    axes.set(xlabel="goal", ylabel=RATE, ylim=RATES, xlim=(-0.4, len(bins) - 0.6))


def differences(
    axes: Sequence[Axes], table: pd.DataFrame, variants: Mapping[str, str], pairs: Mapping[str, str],
    kinds: Mapping[str, str] = KINDS,
) -> None:  # fmt: skip
    """Draw the difference in success rate of two methods on the same tasks, a panel for each kind of task.

    Args: axes: as many as kinds, that share both axes; variants: as for `success`; pairs: `<one>_minus_<other>` ->
        words; kinds: what stands behind that -> title.
    """
    shifts = _shifts(len(variants), 0.5)
    for panel, (suffix, title) in zip(axes, kinds.items(), strict=True):
        panel.axvline(0, color="gray", lw=0.8, zorder=1)
        for number, (variant, words) in enumerate(variants.items()):
            found = [estimate(table, (variant, f"{pair}{suffix}"))[0] for pair in pairs]
            y, means = np.arange(len(pairs)) + shifts[number], [one.estimate for one in found]
            options = {"color": style.COLORS[number], "marker": MARKERS[number], "ms": 4, "ls": "", "elinewidth": 1.2}
            panel.errorbar(means, y, xerr=arms(found), label=words, **options)
        named_rows(panel, list(pairs.values()), "difference", None)
        panel.set_title(title, fontsize=9)


def _look(method: str, number: int) -> int:
    """Return the number of a method's color and mark, the same in all charts; `number` for one that is not known."""
    return LOOKS.index(method) if method in LOOKS else len(LOOKS) + number


def _shifts(count: int, width: float) -> np.ndarray:
    """Return by how much each of several marks is moved, so that none covers another."""
    return np.linspace(-width / 2, width / 2, count) if count > 1 else np.zeros(1)
