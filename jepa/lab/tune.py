"""Tuning: the same number of trials for every method, on seeds that no evaluation uses.

    python -m jepa.lab.tune 01_energies_and_capacity

runs the grid of experiments/tuning/<plan>.yaml, named after its notebook or naming it, and writes
results/tuning/<plan>.csv, a row per trial, the best of a method first. What it finds is written into the variants by
hand, and a test holds the two together. A plan may name settings that all its trials share (`overrides`), the held-out
set of a method (`data`), and that the least of the metric is the best (`least: true`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from typing import Any

import pandas as pd

from jepa.evaluate.subject import Row
from jepa.lab import paths, progress
from jepa.runs import behavior
from jepa.runs.config import configure, read_diff, unknown
from jepa.runs.processes import cores
from jepa.runs.tasks import tasks
from jepa.runs.variants import choose, read
from jepa.runs.workers import execute_all

KEYS = {"notebook", "metric", "least", "seeds", "data", "overrides", "methods"}  # of a plan


def trials(plan: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return method and settings of every trial of a plan.

    Raises: ValueError for a key, or a held-out set of a method, that does not exist, if methods have different numbers
        of trials, or if a seed is below 100, where evaluations are.
    """
    for key in plan:
        if key not in KEYS:
            raise unknown(f"key {key!r}", key, KEYS)
    for method in plan.get("data", {}):
        if method not in plan["methods"]:
            raise unknown("data", method, plan["methods"])
    found = [
        (method, dict(zip(grid, point, strict=True)))
        for method, grid in plan["methods"].items()
        for point in itertools.product(*grid.values())
    ]
    counts = {method: sum(name == method for name, _ in found) for method in plan["methods"]}
    if len(set(counts.values())) > 1:
        raise ValueError(f"methods: expected the same number of trials for each, found {counts}")
    if min(plan["seeds"]) < 100:
        raise ValueError(f"seeds: expected seeds from 100 on, apart from those of evaluation, found {plan['seeds']}")
    return found


def tune(name: str, workers: int) -> pd.DataFrame:
    """Return the mean of the plan's metric over seeds for every trial: method, settings, metric, mean, best first."""
    plan = read_diff(paths.root() / "experiments" / "tuning" / f"{name}.yaml")
    asked, behaviors, notebook = [], behavior.read(paths.behaviors()), plan.get("notebook", name)
    for method, settings in trials(plan):
        variants = read(paths.variants(notebook))
        (variant,) = choose(variants, (method,))  # what it is built on stays as it is
        shared = plan.get("overrides", {})
        trial = variant._replace(config=configure(shared, settings, base=variant.config))
        trial = trial._replace(data=plan.get("data", {}).get(method, variant.data))
        asked += tasks(variants, [trial], plan["seeds"], paths.data, behaviors)
    with progress.shown(name) as file:
        runs = execute_all(asked, paths.runs(), workers, file)
    values = [_value(run.rows, plan["metric"]) for run in runs]
    each = len(plan["seeds"])
    rows = [
        (method, json.dumps(settings), plan["metric"], sum(values[n * each : (n + 1) * each]) / each)
        for n, (method, settings) in enumerate(trials(plan))
    ]
    table = pd.DataFrame(rows, columns=["method", "settings", "metric", "mean"])
    return table.sort_values(["method", "mean"], ascending=[True, plan.get("least", False)], kind="stable")


def _value(rows: list[Row], metric: str) -> float:
    """Return a measured number. Raises: ValueError if it was not measured."""
    found = {row.metric: row.value for row in rows}
    if metric not in found:
        raise unknown("metric", metric, found)
    return found[metric]


def main(arguments: list[str] | None = None) -> None:
    """Run the trials of a plan and write the record."""
    parser = argparse.ArgumentParser(description="Repeat a tuning.")
    parser.add_argument("plan", help="its name, as in experiments/tuning/")
    parser.add_argument("--workers", type=int, default=cores(), help="processes at a time, default: as many as cores")
    options = parser.parse_args(arguments)
    try:
        table = tune(options.plan, options.workers)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    record = paths.root() / "results" / "tuning" / f"{options.plan}.csv"
    paths.write(record, table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    print(table.groupby("method").head(3).to_string(index=False))


if __name__ == "__main__":
    main()
