"""Batches: pairs and trajectories. T steps of a trajectory are T pairs; a level above it sees windows of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor

Batch = TypeVar("Batch")  # Pairs, Trajectories, or anything with the fields of one of them
Source = Callable[[int, Generator], Any]  # (count, generator) -> a batch on the generator's device
PAIRS = {"x": "[B, …]", "a": "[B, A]", "y": "[B, …]"}
TRAJECTORIES = {"frames": "[B, T+1, …]", "a": "[B, T, A]", "static": "[B, …]"}


class Pairs(NamedTuple):
    """A batch of contexts and targets with what made them."""

    x: Tensor  # [B, …] context
    a: Tensor  # [B, A] action, of width 0 where there is none
    y: Tensor  # [B, …] target
    factors: dict[str, Tensor]  # name -> [B, F] ground truth, for measuring only


class Trajectories(NamedTuple):
    """A batch of sequences of T steps with what made them."""

    frames: Tensor  # [B, T+1, …] what is seen before, between and after the steps
    a: Tensor  # [B, T, A] action of each step, of width 0 where there is none
    # [G, …] what stays the same throughout, such as a map, each of B/G trajectories in a row; [B, 0] if there is none
    static: Tensor
    factors: dict[str, Tensor]  # name -> [B, F] or [B, T+1, F] ground truth, for measuring only


class HeldOut(NamedTuple):
    """A held-out set: pairs with the factors that made them."""

    x: Tensor  # [N, …] contexts, in the world's units
    y: Tensor  # [N, …] targets
    factors: dict[str, Tensor]  # name -> [N, F]; integers where the factor is a choice


def transitions(s: Tensor, a: Tensor) -> Pairs:
    """Return the B·T pairs x = s_t, a = a_t, y = s_{t+1} of trajectories, trajectory by trajectory.

    Args: s: [B, T+1, …] frames or representations; a: [B, T, A].
    Raises: ValueError for shapes that do not fit.
    """
    if s.ndim < 2 or s.shape[1] < 2:
        raise ValueError(f"s: expected [B, T+1, …] with at least 2 frames, found {list(s.shape)}")
    if a.ndim != 3 or a.shape[:2] != (len(s), s.shape[1] - 1):
        raise ValueError(f"a: expected [{len(s)}, {s.shape[1] - 1}, A] for s {list(s.shape)}, found {list(a.shape)}")
    return Pairs(s[:, :-1].flatten(0, 1), a.flatten(0, 1), s[:, 1:].flatten(0, 1), {})


def windows(s: Tensor, width: int, stride: int | None = None) -> Tensor:
    """Return windows [B, n, width · D, …] of consecutive frames side by side; of width 1 and stride 1 they are s.

    Args: s: [B, T, D, …] frames or representations; width: of a window, in frames; stride: frames from the start of a
        window to that of the next, None for the width. Frames at the end that fill no window are left out.
    Raises: ValueError for shapes or numbers that do not fit.
    """
    stride = width if stride is None else stride
    if s.ndim < 3:
        raise ValueError(f"s: expected [B, T, D, …], found {list(s.shape)}")
    if not 1 <= width <= s.shape[1]:
        raise ValueError(f"width: expected from 1 to {s.shape[1]}, the frames of s {list(s.shape)}, found {width}")
    if stride < 1:
        raise ValueError(f"stride: expected at least 1, found {stride}")
    return s.unfold(1, width, stride).movedim(-1, 2).flatten(2, 3)


def checked(batch: Batch, dtype: torch.dtype | None = None) -> Batch:
    """Return a batch as it came, if its fields are those of Pairs or of Trajectories, in one precision.

    Args: dtype: of all numbers, None for the default precision.
    Raises: ValueError naming the first field that does not fit, what was expected and what was found.
    """
    shapes, dtype = TRAJECTORIES if hasattr(batch, "frames") else PAIRS, dtype or torch.get_default_dtype()
    if missing := [name for name in shapes if not hasattr(batch, name)]:
        what = f"expected the fields {', '.join(shapes)}, found {type(batch).__name__} without {', '.join(missing)}"
        raise ValueError(f"batch: {what}")
    for name, shape in shapes.items():
        value = getattr(batch, name)
        if not isinstance(value, Tensor) or value.dtype != dtype or not _fits(value, shape):
            found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name}: expected {dtype} {shape}, found {found}{_remedy(name, value, shape, dtype)}")
    first = next(iter(shapes))
    count = len(getattr(batch, first))
    for name in shapes:
        found = len(getattr(batch, name))
        if name == "static" and found and count % found == 0:
            continue
        if found != count:
            divisor = ", or a divisor of it" if name == "static" else ""
            raise ValueError(f"{name}: expected a batch of {count} as for {first}{divisor}, found {found}")
    if first == "frames" and batch.a.shape[1] != batch.frames.shape[1] - 1:
        steps, found = batch.frames.shape[1] - 1, list(batch.a.shape)
        raise ValueError(f"a: expected [B, {steps}, A] for frames {list(batch.frames.shape)}, found {found}")
    return batch


def _fits(value: Tensor, shape: str) -> bool:
    """Return whether a tensor has as many axes as a shape in words."""
    axes = shape.count(",") + 1
    return value.ndim >= axes - 1 if "…" in shape else value.ndim == axes


def _remedy(name: str, value: Any, shape: str, dtype: torch.dtype) -> str:
    """Return how to mend a field that does not fit, "" where that is for the user to know."""
    if value is None:
        empty = shape.replace("A", "0").replace("…", "0")
        return f"; where there is nothing to give, give {empty}" if name in ("a", "static") else ""
    if isinstance(value, Tensor) and value.dtype == dtype:
        return ""
    scaled = " / 255" if str(getattr(value, "dtype", "")).endswith("uint8") else ""
    return f"; convert it in your data set, for instance torch.as_tensor({name}).to({dtype}){scaled}"
