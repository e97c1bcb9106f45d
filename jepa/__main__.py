"""Do the runs of a notebook without the notebook, on a machine that has little else than torch.

    python -m jepa 01_energies_and_capacity discrete_8 --profile gpu --seeds 10

Finished runs are kept in build/runs, where the notebook finds them; a run that was cut goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys

from jepa.lab import paths, progress
from jepa.runs import behavior
from jepa.runs.config import read_diff, unknown
from jepa.runs.processes import cores
from jepa.runs.tasks import tasks
from jepa.runs.variants import choose, read
from jepa.runs.workers import execute_all


def main(arguments: list[str] | None = None) -> None:
    """Do the named runs and print what was measured; exit status 1 with a one-line error."""
    parser = argparse.ArgumentParser(prog="python -m jepa", description="Train and measure the variants of a notebook.")
    parser.add_argument("notebook", help="a folder of experiments/")
    parser.add_argument("variants", nargs="*", help="default: all")
    parser.add_argument("--profile", default="cpu", help="smoke, cpu or gpu")
    parser.add_argument("--seeds", type=int, help="default: the profile's")
    options = parser.parse_args(arguments)
    try:
        settings = read_diff(paths.profile(options.profile))
        name = options.notebook.partition("_")[2]
        if name not in settings:
            notebooks = [path.name for path in (paths.root() / "experiments").glob("[0-9]*")]
            raise unknown("notebook", options.notebook, notebooks)
        section = settings[name]
        known = read(paths.variants(options.notebook), {"device": settings["device"]}, section["overrides"])
        chosen, seeds = choose(known, tuple(options.variants)), range(options.seeds or section["seeds"])
        asked = tasks(known, chosen, seeds, paths.data, behavior.read(paths.behaviors()))
        with progress.shown(options.notebook) as file:
            runs = execute_all(asked, paths.runs(), settings["workers"] or cores(), file)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    for run in runs:
        print(run.task.name, run.task.seed, *(f"{row.metric} {row.value:.4g}" for row in run.rows))


if __name__ == "__main__":
    main()
