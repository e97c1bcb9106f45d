"""Numbers that stand for many, and comparing what holds them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

PROJECTIONS = 3
DIGITS = 9  # that are written
JUMPS = {"auroc": 1e-3}  # a rank statistic jumps where two nearly equal energies change places: absolute tolerance
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")


def summary(*arrays: Any) -> list[float]:
    """Return how many numbers there are, how many are finite, their root mean square r, and projections of them.

    A projection is Σ w_i x_i / (r √n) with w_i standard normal and fixed: of the order of 1, and no x_i can change
    without changing it.
    """
    x = np.concatenate([np.zeros(0), *(np.ravel(array).astype(float) for array in arrays)])
    clean = np.where(np.isfinite(x), x, 0.0)
    size = float(np.sqrt(np.mean(clean**2))) if len(x) else 0.0
    weights = np.random.RandomState(0).randn(PROJECTIONS, len(x))
    projections = weights @ clean / (size * np.sqrt(len(x))) if size else np.zeros(PROJECTIONS)
    return [len(x), int(np.isfinite(x).sum()), size, *projections.tolist()]


def rounded(of: Any) -> Any:
    """Return a structure with its numbers as they are written, what is not finite as text."""
    if isinstance(of, dict):
        return {str(key): rounded(value) for key, value in of.items()}
    if isinstance(of, list | tuple):
        return [rounded(value) for value in of]
    if isinstance(of, float):
        return float(f"{of:.{DIGITS}g}") if math.isfinite(of) else str(of)
    return of


def differences(a: Any, b: Any, relative: float, absolute: float, place: str = "") -> Iterator[str]:
    """Yield the places where two structures differ, numbers, also in texts, by more than both tolerances."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            inner = f"{place}, {key}" if place else key
            jump = max([absolute, *(size for name, size in JUMPS.items() if name in key)])
            if key in a and key in b:
                yield from differences(a[key], b[key], relative, jump, inner)
            else:
                yield inner
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = zip(a, b, strict=True)
        if not all(_none(differences(one, other, relative, absolute)) for one, other in pairs):
            yield place
    elif isinstance(a, str) and isinstance(b, str):
        (words, numbers), (others, theirs) = _taken_apart(a), _taken_apart(b)
        if words != others or not _none(differences(numbers, theirs, relative, absolute)):
            yield place
    elif isinstance(a, float | int) and isinstance(b, float | int):
        if not math.isclose(a, b, rel_tol=relative, abs_tol=absolute):
            yield place
    elif a != b:
        yield place


def _none(found: Iterator[str]) -> bool:
    """Return whether there is nothing."""
    return next(found, None) is None


def _taken_apart(text: str) -> tuple[list[str], list[float]]:
    """Return the words of a text and the numbers in it."""
    return NUMBER.split(text), [float(number) for number in NUMBER.findall(text)]
