"""Data on disk: integer arrays with a manifest, made again bit for bit anywhere, verified before use.

    python -m jepa.data --out build/data

writes the held-out sets that `experiments/data.yaml` names. All arithmetic is on integers, all randomness from
`RandomState`, whose stream NumPy has frozen: neither the processor nor a version changes a byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa.runs.config import Part, read_diff
from jepa.runs.kinds import make
from jepa.runs.processes import die_with_parent
from jepa.worlds import WORLDS

REMEDY = "to restore it: `dvc checkout --force data.dvc`, or make it again: `dvc repro data.dvc`"


class HeldOut(NamedTuple):
    """A held-out set: pairs with the factors that made them."""

    x: Tensor  # [N, …] contexts, in the world's units
    y: Tensor  # [N, …] targets
    factors: dict[str, Tensor]  # name -> [N, F]; integers where the factor is a choice


def write(folder: Path, world: Part, count: int, seed: int) -> None:
    """Write `count` pairs of a world into `folder`, all or nothing.

    Args: folder: replaced if it is there; world: its name and constants; count, seed: of the draw.
    Raises: ValueError for a world, option or number that does not exist.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")
    made = make("world", world, WORLDS)
    arrays = made.integers(count, np.random.RandomState(seed))
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}{end}") for end in ("", ".old"))
    temporary.mkdir(parents=True)
    try:
        files = {}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
            files[name] = {"sha256": _digest(temporary / f"{name}.npy"), "quantum": made.quanta[name]}
        manifest = {"world": {"name": world.name, **world.options}, "count": count, "seed": seed, "files": files}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Return the manifest of a data folder whose files are what it says.

    Raises: ValueError for a missing folder or file, or for a changed one, with both hashes and how to restore it.
    """
    if not (folder / "manifest.json").is_file():
        raise ValueError(f"data: expected {folder.name}/manifest.json, found no such file; {REMEDY}")
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        digests = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"expected a manifest in {folder.name}/manifest.json"
        raise ValueError(f"data: {what}, found {error!r}; {REMEDY}") from error
    for name, digest in digests.items():
        file = folder / f"{name}.npy"
        found = _digest(file) if file.is_file() else "no such file"
        if found != digest:
            what = f"{folder.name}/{file.name}"
            raise ValueError(f"data: expected {what} with SHA-256 {digest}, found {found}; {REMEDY}")
    return manifest


def load(folder: Path, world: Part, count: int = 0) -> HeldOut:
    """Return the verified held-out set of a world, its first `count` pairs, or all for 0, in the default precision.

    Raises: ValueError if it is missing or changed, or was made by another world than the one given.
    """
    manifest = verify(folder)
    expected = {"name": world.name, **world.options}
    if manifest["world"] != expected:
        raise ValueError(f"data: expected {folder.name} made by the world {expected}, found {manifest['world']}")
    tensors = {}
    for name, entry in manifest["files"].items():
        array = torch.from_numpy(np.load(folder / f"{name}.npy", allow_pickle=False))
        array = array[:count] if count else array
        real = array.to(torch.get_default_dtype())
        tensors[name] = array.long() if entry["quantum"] == 1 else real * entry["quantum"]
    return HeldOut(tensors["x"], tensors["y"], tensors)


def main(arguments: list[str] | None = None) -> None:
    """Write every set that the list of sets names, one folder each."""
    parser = argparse.ArgumentParser(description="Make the held-out data, the same bytes everywhere.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--sets", type=Path, default=Path("experiments/data.yaml"), help="which sets to make")
    options = parser.parse_args(arguments)
    for name, entry in read_diff(options.sets).items():
        write(options.out / name, Part.of(entry["world"]), entry["count"], entry["seed"])


def _digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; one that was not written since is not read again."""
    state = file.stat()
    return _hashed(file, state.st_mtime_ns, state.st_size)


@cache
def _hashed(file: Path, *_: int) -> str:
    """Return the SHA-256 of a file as it was at a time."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    die_with_parent()
    main()
