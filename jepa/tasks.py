"""What is asked for: a configuration and a seed, and the fingerprints by which a run is found again.

A run is kept under the fingerprint of all that decides its training: configuration, seed and source. What was measured
on it is kept under that of all that decides the measuring.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepa.config import Config, to_dict
from jepa.data import verify
from jepa.variants import Variant

# source that decides no result
BESIDE = ("lab", "__main__.py", "pool.py", "progress.py", "runs.py", "tasks.py", "variants.py")
MEASURING = (*BESIDE, "measures", "evaluate")  # source that decides no training


class Task(NamedTuple):
    """A run that is asked for."""

    name: str  # of the variant
    config: Config
    seed: int
    held_out: Path  # folder of the held-out set
    frozen: Task | None = None  # the run whose trained encoders this one keeps as they are
    start: Task | None = None  # the run whose trained weights this one begins with

    @property
    def parent(self) -> Task | None:
        """The run that has to be done before this one."""
        return self.frozen or self.start


def tasks(
    variants: Mapping[str, Variant], chosen: Sequence[Variant], seeds: Iterable[int], data: Callable[[str], Path]
) -> list[Task]:
    """Return a task for every chosen variant and seed.

    Args: variants: all of the notebook by name, among them those that the chosen ones are built on; data: the folder
        of a held-out set by its name.
    """

    def task(variant: Variant, seed: int) -> Task:
        """Return the task of a variant, with that of the run it is built on."""
        links = {"frozen": variant.frozen, "start": variant.start}
        older = {link: task(variants[name], seed) for link, name in links.items() if name}
        return Task(variant.name, variant.config, seed, data(variant.data), **older)

    seeds = list(seeds)
    return [task(variant, seed) for variant in chosen for seed in seeds]


def identity(task: Task) -> str:
    """Return the fingerprint of all that a task asks for."""
    older = [identity(task.parent)] if task.parent else []
    return fingerprint(task.name, to_dict(task.config), task.seed, str(task.held_out), task.frozen is None, *older)


def training_key(task: Task) -> str:
    """Return the fingerprint of all that decides the weights."""
    settings = {key: value for key, value in to_dict(task.config).items() if key != "measure"}
    older = [] if task.parent is None else [task.frozen is None, training_key(task.parent)]
    return fingerprint(settings, task.seed, source(*MEASURING), torch.__version__, *older)


def measuring_key(task: Task) -> str:
    """Return the fingerprint of all that decides the measurements on given weights."""
    return fingerprint(to_dict(task.config)["measure"], _files(task.held_out, _stamps(task.held_out)), source(*BESIDE))


@lru_cache  # hundreds of runs are measured on the same few sets of tens of megabytes
def _files(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> dict[str, Any]:
    """Return the files of a held-out set by its manifest, verified once as long as none is written again."""
    return verify(folder)["files"]


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the files of a folder, when each was last written, and its size."""
    states = {file.name: file.stat() for file in sorted(folder.glob("*"))}
    return tuple((name, state.st_mtime_ns, state.st_size) for name, state in states.items())


def fingerprint(*parts: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the parts written as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def source(*left_out: str) -> str:
    """Return the hash of the package's source without the modules and folders left out."""
    root, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if name.parts[0] not in left_out:
            total.update(name.as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()
