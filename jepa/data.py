"""Data: the batches that models learn from (`jepa.batches`), and integer arrays on disk, verified before use.

A folder of data has a file for each array, and a manifest with their units, their hashes and what made them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa.batches import HeldOut, Pairs, Trajectories, checked, transitions, windows

__all__ = ["HeldOut", "Pairs", "Stored", "Trajectories"]
__all__ += ["checked", "dataset", "load", "transitions", "verify", "windows", "write"]
RESTORE = "to restore it: `dvc checkout --force data.dvc`, or make it again: `dvc repro data.dvc`"


class Stored(NamedTuple):
    """Arrays on disk, of which only what is asked for is read."""

    arrays: dict[str, np.ndarray]  # name -> integers [N, …], memory-mapped
    quanta: dict[str, float]  # name -> what one of these integers stands for

    def read(self, name: str, index: Any, real: bool = False) -> Tensor:
        """Return `array[index]` in its unit, in the default precision; where that is 1 and not `real`, as int64.

        Args: index: as NumPy takes it.
        """
        return _in_unit(self.arrays[name][index], self.quanta[name], real)


def write(folder: Path, arrays: Mapping[str, np.ndarray], quanta: Mapping[str, float], about: Mapping) -> None:
    """Write integer arrays into `folder`, all or nothing: a failure leaves the old folder whole.

    Args: folder: replaced if it is there; arrays: name -> integers [N, …], each a file; quanta: name -> what one of
        these integers stands for, 1 for what is counted or chosen; about: what made them, as JSON has it, for the
        manifest.
    Raises: ValueError for arrays that are not integers, of different N or without a quantum, or an entry "files" of
        `about`, which is the manifest's own.
    """
    _check(arrays, quanta)
    if "files" in about:
        raise ValueError("about: expected no entry 'files', which the manifest has, found one")
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}{end}") for end in ("", ".old"))
    temporary.mkdir(parents=True)
    try:
        files = {}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
            files[name] = {"sha256": _digest(temporary / f"{name}.npy"), "quantum": quanta[name]}
        manifest = json.dumps({**about, "files": files}, indent=1, sort_keys=True)
        (temporary / "manifest.json").write_text(manifest + "\n")
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def verify(folder: Path, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the manifest of a data folder whose files are what it says.

    Args: about: what must have made them, such as {"world": {"name": …}}, entry by entry; None for anything.
    Raises: ValueError for a missing folder or file, for a changed one, with both hashes and how to restore it, or if
        it was made by another world than the one given.
    """
    if not (folder / "manifest.json").is_file():
        raise ValueError(f"data: expected {folder.name}/manifest.json, found no such file; {RESTORE}")
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        digests = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"expected a manifest in {folder.name}/manifest.json"
        raise ValueError(f"data: {what}, found {error!r}; {RESTORE}") from error
    for name, digest in digests.items():
        file = folder / f"{name}.npy"
        found = _digest(file) if file.is_file() else "no such file"
        if found != digest:
            what = f"{folder.name}/{file.name}"
            raise ValueError(f"data: expected {what} with SHA-256 {digest}, found {found}; {RESTORE}")
    for name, expected in (about or {}).items():
        if manifest.get(name) != expected:
            what = f"expected {folder.name} made by the {name} {expected}"
            raise ValueError(f"data: {what}, found {manifest.get(name)}")
    return manifest


def load(folder: Path, about: Mapping[str, Any] | None = None, count: int = 0) -> HeldOut:
    """Return a verified held-out set, its first `count` pairs, or all for 0, in the default precision.

    Args: about: what must have made it, as for `verify`.
    Raises: ValueError as `verify`, or for data without x or y.
    """
    tensors = {}
    for name, entry in verify(folder, about)["files"].items():
        array = np.load(folder / f"{name}.npy", mmap_mode="r")
        tensors[name] = _in_unit(array[: count or None], entry["quantum"])
    if not {"x", "y"} <= tensors.keys():
        raise ValueError(f"data: expected x and y in {folder.name}, found {', '.join(tensors)}")
    return HeldOut(tensors["x"], tensors["y"], tensors)


def dataset(folder: Path, about: Mapping[str, Any] | None = None) -> Stored:
    """Return the verified arrays of a data folder, memory-mapped: however large they are, they take no memory.

    Args: about: what must have made them, as for `verify`.
    Raises: ValueError as `verify`.
    """
    files = verify(folder, about)["files"]
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in files}
    return Stored(arrays, {name: entry["quantum"] for name, entry in files.items()})


def _in_unit(integers: np.ndarray, quantum: float, real: bool = False) -> Tensor:
    """Return integers · quantum in the default precision; where that is 1 and not `real`, int64."""
    tensor = torch.from_numpy(np.array(integers))
    return tensor.long() if quantum == 1 and not real else tensor.to(torch.get_default_dtype()) * quantum


def _check(arrays: Mapping[str, np.ndarray], quanta: Mapping[str, float]) -> None:
    """Raises: ValueError for arrays that `write` cannot write."""
    if not arrays:
        raise ValueError("arrays: expected at least one, found none")
    count = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.integer) or array.shape[:1] != (count,):
            raise ValueError(f"{name}: expected integers [{count}, …], found {array.dtype} {list(array.shape)}")
        if name not in quanta:
            raise ValueError(f"quanta: expected one for {name!r}, found {', '.join(map(repr, quanta)) or 'none'}")


def _digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; one that was not written since is not read again."""
    state = file.stat()
    return _hashed(file, state.st_mtime_ns, state.st_size)


@cache
def _hashed(file: Path, *_: int) -> str:
    """Return the SHA-256 of a file as it was at a time."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
