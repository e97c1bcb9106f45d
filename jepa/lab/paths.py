"""Where things are in a checkout, and how a file gets there whole.

The root is found by walking up from the working directory, not from this file: a copy of the tree that DVC makes for
an experiment then writes into itself and not into the tree the package was installed from.
"""

from __future__ import annotations

import os
from pathlib import Path

MARKS = ("dvc.yaml", "data.dvc")  # together they lie in the root only


def root(start: Path | None = None) -> Path:
    """Return the root of the checkout around `start` (default: the working directory).

    Raises: ValueError outside a checkout.
    """
    start = start or Path.cwd()
    for folder in (start, *start.parents):
        if all((folder / mark).is_file() for mark in MARKS):
            return folder
    raise ValueError(f"working directory: expected one in a checkout (with {' and '.join(MARKS)}), found {start}")


def profiles() -> dict[str, Path]:
    """Return the parameters file of each profile by name; `cpu` is the one in the root."""
    files = sorted((root() / "experiments").glob("*/params.yaml"))
    return {"cpu": root() / "params.yaml"} | {file.parent.name: file for file in files}


def profile(name: str) -> Path:
    """Return the parameters file of a profile, or of the short runs. Raises: ValueError if there is no such profile."""
    known = profiles() | ({name: short_runs()} if name == short_runs().stem else {})
    if name not in known:
        raise ValueError(f"profile: expected one of {', '.join(known)}, found {name!r}")
    return known[name]


def short_runs() -> Path:
    """Return the parameters file of the short runs by which the code is known (`jepa.lab.behavior`)."""
    return root() / "experiments" / "behavior.yaml"


def behaviors() -> Path:
    """Return the folder of what the short runs came to."""
    return root() / "results" / "behavior"


def data(world: str) -> Path:
    """Return the folder of a world's stored data."""
    return root() / "data" / world


def notebook(name: str) -> Path:
    """Return the path of a committed notebook, given its name with or without the ending."""
    return root() / "notebooks" / f"{name.removesuffix('.ipynb')}.ipynb"


def variants(name: str) -> Path:
    """Return the folder with the variants of a notebook."""
    return root() / "experiments" / name


def results(profile: str, name: str) -> Path:
    """Return the folder of a notebook's committed results at a profile."""
    return root() / "results" / profile / name


def output(out: str, name: str) -> Path:
    """Return the folder a notebook writes to, made if missing: its parameter `out`, or scratch where that is empty."""
    folder = root() / out if out else root() / "build" / "scratch" / name
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    return folder


def runs() -> Path:
    """Return the folder with finished and unfinished trainings, one subfolder a fingerprint; DVC does not know it."""
    return root() / "build" / "runs"


def write(path: Path, text: str) -> None:
    """Write a text file whole: a temporary file beside the target takes its place only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
