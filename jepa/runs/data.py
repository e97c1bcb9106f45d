"""The held-out sets of the experiments, made by the worlds in integer arithmetic: the same bytes on every machine.

    python -m jepa.runs.data --out build/data

writes the sets that `experiments/data.yaml` names. All randomness is from `RandomState`, whose stream NumPy has frozen:
neither the processor nor a version changes a byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from jepa.data import write
from jepa.runs.config import Part, read_diff
from jepa.runs.kinds import make
from jepa.runs.processes import die_with_parent
from jepa.worlds import WORLDS


def generate(folder: Path, world: Part, count: int, seed: int) -> None:
    """Write `count` pairs of a world into `folder`, all or nothing.

    Args: folder: replaced if it is there; world: its name and constants; count, seed: of the draw.
    Raises: ValueError for a world, option or number that does not exist.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")
    made = make("world", world, WORLDS)
    arrays = made.integers(count, np.random.RandomState(seed))
    write(folder, arrays, made.quanta, {**made_by(world), "count": count, "seed": seed})


def made_by(world: Part) -> dict[str, Any]:
    """Return what must have made a held-out set of a world: all its constants, or those that decide its tasks.

    Raises: ValueError for a world or option that does not exist.
    """
    flat, deciding = world.flat(), getattr(make("world", world, WORLDS), "of_tasks", None)
    return {"world": {name: flat[name] for name in flat if deciding is None or name in ("name", *deciding)}}


def main(arguments: list[str] | None = None) -> None:
    """Write every set that the list of sets names, one folder each."""
    parser = argparse.ArgumentParser(description="Make the held-out data, the same bytes everywhere.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--sets", type=Path, default=Path("experiments/data.yaml"), help="which sets to make")
    options = parser.parse_args(arguments)
    for name, entry in read_diff(options.sets).items():
        generate(options.out / name, Part.of(entry["world"]), entry["count"], entry["seed"])


if __name__ == "__main__":
    die_with_parent()
    main()
