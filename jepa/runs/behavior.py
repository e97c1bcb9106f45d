"""What code does, in the place of its text: by that stored runs are found again.

A *short run* is a run at the settings of `experiments/behavior.yaml`, in double precision. `results/behavior` holds
what the short runs of a notebook came to (`jepa.lab.behavior` writes it). Two versions of the code that bring the same
numbers there are taken for the same: a stored run is kept under its settings and under what its short run came to. A
file counts only for the code it was computed for; a run that has no short run is kept under the hash of the code.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
BESIDE = ("lab", "__main__.py")  # code that decides no run


class Code(NamedTuple):
    """Fingerprints of the code behind a run."""

    source: str  # of the code's text
    training: str  # of what decides the weights
    measuring: str  # of what decides the measurements on given weights
    encoding: str  # of what decides what frozen encoders make of a world's pairs


class Behavior(NamedTuple):
    """What the short runs of one notebook came to."""

    settings: Mapping[str, Any]  # that make a run short
    trainings: Mapping[str, str]  # address of a short training -> fingerprint of what it came to
    measurings: Mapping[str, str]
    whole: str  # fingerprint of all of them


def read(folder: Path) -> list[Behavior]:
    """Return the behaviors in a folder that were computed for the present code.

    Raises: ValueError as `source`, or for a file that is damaged.
    """
    return [behavior(file) for file in sorted(folder.glob("*.json")) if computed_for(file) == source()]


def behavior(file: Path) -> Behavior:
    """Return the behavior in a file. Raises: ValueError if it is damaged."""
    try:
        text = json.loads(file.read_text(encoding="utf-8"))
        runs = text["runs"].values()
        trainings = {run["training"]: fingerprint(run["trained"]) for run in runs}
        measurings = {run["measuring"]: fingerprint(run["measured"]) for run in runs}
        return Behavior(text["settings"], trainings, measurings, fingerprint(trainings, measurings))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"expected what the short runs of a notebook came to, found {error!r}"
        raise ValueError(f"{file}: {what}; `git checkout -- {file.name}`, or `dvc repro -f` its stage") from error


def computed_for(file: Path) -> str:
    """Return the hash of the code that a behavior was computed for, "" if nothing says so."""
    beside = file.with_suffix(".source")
    return beside.read_text(encoding="utf-8").split()[0] if beside.is_file() else ""


def source() -> str:
    """Return the hash of the code that decides runs, comments and docstrings aside.

    Raises: ValueError if a file of it is not what it was when this process imported the package: the process would
    train with one code and file it under another.
    """
    now = digests()
    changed = sorted(name for name in {*now, *LOADED} if now.get(name) != LOADED.get(name))
    if changed:
        what = f"expected the code that this process imported, found changes in {', '.join(changed)}"
        raise ValueError(f"jepa: {what}; restart the kernel, or the program")
    return loaded()


def loaded() -> str:
    """Return the hash of the code as it was when this process imported the package."""
    return fingerprint(LOADED)


def digests(left_out: Iterable[str] = BESIDE) -> dict[str, str]:
    """Return the hash of each file of the package, comments and docstrings aside, by its name."""
    files = (file.relative_to(ROOT) for file in sorted(ROOT.rglob("*.py")))
    return {name.as_posix(): _digest((ROOT / name).read_bytes()) for name in files if name.parts[0] not in left_out}


def fingerprint(*parts: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the parts written as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def _digest(text: bytes) -> str:
    """Return the hash of a module's syntax tree without docstrings; of its bytes where it has none."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return hashlib.sha256(text).hexdigest()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
            del body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node: ast.expr) -> bool:
    """Return whether an expression is a string."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


LOADED = digests()
