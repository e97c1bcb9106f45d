"""Compare fresh measurements with the committed ones, by tolerance, and say what moved.

    python -m jepa.lab.compare [PROFILE]

Trained numbers differ in the last digits from machine to machine. A mean over seeds has *moved* where it differs by
more than one percent and by more than the committed standard error of that mean.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

from jepa.lab import paths
from jepa.lab.ledger import count_findings, load

KEY = ["claim", "variant", "metric"]
TOLERANCE = 0.01  # relative


def means(measurements: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard error over seeds of each measured quantity."""
    values = measurements.fillna({"variant": "", "claim": ""}).groupby(KEY)["value"]
    return pd.DataFrame({"mean": values.mean(), "error": values.sem().fillna(0.0)})


def moved(committed: pd.DataFrame, fresh: pd.DataFrame, tolerance: float = TOLERANCE) -> pd.DataFrame:
    """Return the quantities whose means moved, with both means; a quantity that only one side has counts as moved.

    Args: committed, fresh: measurements, one row a claim, variant, seed and metric.
    Returns: claim, variant, metric, committed, fresh.
    """
    both = pd.concat({"committed": means(committed), "fresh": means(fresh)}, axis=1)
    old, new = both["committed", "mean"], both["fresh", "mean"]
    allowed = (tolerance * old.abs()).clip(lower=both["committed", "error"])
    equal = ((new - old).abs() <= allowed) | (new == old)  # the latter for infinities
    return pd.DataFrame({"committed": old, "fresh": new})[~equal].reset_index()


def committed(path: Path) -> str | None:
    """Return a file as the last commit has it, None where there is no commit, no git or no such file in it."""
    name = path.relative_to(paths.root()).as_posix()
    command = ["git", "-C", str(paths.root()), "show", f"HEAD:./{name}"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    except FileNotFoundError:
        return None
    return shown.stdout if shown.returncode == 0 else None


def verdicts(profile: str) -> str:
    """Return how many claims, identities apart, have which verdict, and which verdicts changed."""
    path = paths.root() / "results" / profile / "claims.json"
    if not path.is_file():
        return "no ledger yet"
    ledger, before = load(path), json.loads(committed(path) or "{}")
    counts = ", ".join(f"{number} {verdict}" for verdict, number in count_findings(ledger).items())
    pairs = {name: (before.get(name, entry)["verdict"], entry["verdict"]) for name, entry in ledger.items()}
    changes = [f"{name}: {old} -> {new}" for name, (old, new) in pairs.items() if old != new]
    return counts + (f"; changed against the last commit: {', '.join(changes)}" if changes else "")


def report(profile: str) -> str:
    """Return what moved at a profile and where its results are. Raises: ValueError for an unknown profile."""
    paths.profile(profile)
    files = sorted((paths.root() / "results" / profile).glob("*/measurements.csv"))
    lines = []
    for file in files:
        before = committed(file)
        if before is None:
            lines.append(f"{file.parent.name}: nothing committed to compare with")
            continue
        table = moved(pd.read_csv(io.StringIO(before)), pd.read_csv(file))
        total = len(means(pd.read_csv(file)))
        lines.append(f"{file.parent.name}: {len(table)} of {total} means moved against the last commit")
        lines += [table.to_string(index=False, float_format="{:.4g}".format)] if len(table) else []
    lines += [] if files else [f"no measurements at profile {profile} yet"]
    lines.append(f"ledger: results/{profile}/claims.json ({verdicts(profile)})")
    figures = sorted({file.parent.parent.name for file in (paths.root() / "results" / profile).glob("*/figures/*.*")})
    lines += [f"figures: results/{profile}/{name}/figures" for name in figures]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print the comparison of one profile."""
    parser = argparse.ArgumentParser(description="Compare fresh measurements with the committed ones.")
    parser.add_argument("profile", nargs="?", default="cpu")
    options = parser.parse_args(arguments)
    try:
        print(report(options.profile))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
