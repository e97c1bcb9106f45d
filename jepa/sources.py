"""Sources of training data: functions `(count, generator)` that return a batch, of which the generator decides all.

A source that goes through its data in order has `state_dict()` and `load_state_dict(state)` besides (`jepa.loaders`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import IterableDataset, default_collate

from jepa.batches import Batch, Source
from jepa.data import Pairs, Stored, Trajectories, checked


def pairs(stored: Stored) -> Source:
    """Return a source of stored pairs, drawn with replacement.

    Args: stored: with `x` and `y` [N, …] and, where there are actions, `a` [N, A]; all else it has are factors.
    Raises: ValueError for data without x or y.
    """
    total, _ = len(_array(stored, "x")), _array(stored, "y")

    def draw(count: int, generator: Generator) -> Pairs:
        """Return pairs."""
        rows = _draw(total, count, generator)
        read = {name: stored.read(name, rows, real=name in ("x", "a", "y")) for name in stored.arrays}
        x, a, y = read.pop("x"), read.pop("a", torch.zeros(count, 0)), read.pop("y")
        return on(checked(Pairs(x, a, y, read)), generator.device)

    return draw


def trajectories(stored: Stored, steps: int) -> Source:
    """Return a source of parts of stored episodes, drawn with replacement; all parts are equally likely.

    Args: stored: with `frames` [N, L+1, …] and, where there are any, `a` [N, L, A], `static` [N, …] and `length` [N],
        the number of actions of each episode, up to L, where these differ; all else it has are factors, [N, F] of an
        episode or [N, L+1, F] of its frames; steps: T, the number of actions of a part.
    Raises: ValueError for data without frames, shapes that do not fit, or episodes that are all shorter than `steps`.
    """
    lengths, most = _lengths(stored)
    starts = (lengths - steps + 1).clip(0)  # the number of parts of each episode
    if steps < 1 or not starts.any():
        raise ValueError(f"steps: expected from 1 to {lengths.max()}, the longest episode, found {steps}")
    ends = starts.cumsum()
    timed = {name for name, array in stored.arrays.items() if array.ndim > 2 and array.shape[1] == most + 1}
    timed = timed - {"static"} | {"frames", "a"}

    def draw(count: int, generator: Generator) -> Trajectories:
        """Return parts of episodes."""
        part = _draw(int(ends[-1]), count, generator)
        episode = np.searchsorted(ends, part, side="right")
        time = (part - ends[episode] + starts[episode])[:, None] + np.arange(steps + 1)  # [B, T+1]
        read = {}
        for name in stored.arrays:
            index = (episode[:, None], time[:, :-1] if name == "a" else time) if name in timed else episode
            read[name] = stored.read(name, index, real=name in ("frames", "a", "static"))
        read.pop("length", None)
        frames, a = read.pop("frames"), read.pop("a", torch.zeros(count, steps, 0))
        batch = Trajectories(frames, a, read.pop("static", torch.zeros(count, 0)), read)
        return on(checked(batch), generator.device)

    return draw


def from_dataset(dataset: Any, collate: Callable[[list], Any] = default_collate) -> Source:
    """Return a source of the items of a map-style data set (torch.utils.data.Dataset), drawn with replacement.

    A batch follows from the generator alone, also where items are augmented at random: the global generators are seeded
    for it and put back. So a training that was cut goes on with the batches of one that was not.

    Args: dataset: of items (x, y) or (x, a, y), dictionaries with these names or objects with these attributes, in the
        default precision; collate: a list of items -> the same of batches [B, …].
    Raises: ValueError for a data set without a length or items; a batch raises it as `jepa.data.checked` does.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__") or not len(dataset):
        what = "expected items by their index and a length of at least 1"
        raise ValueError(f"dataset: {what}, found {type(dataset).__name__}; from_loader takes what comes in an order")

    def draw(count: int, generator: Generator) -> Pairs:
        """Return items side by side."""
        rows = _draw(len(dataset), count, generator).tolist()
        with seeded(seed_from(generator)):
            return on(as_pairs(collate(items(dataset, rows))), generator.device)

    return draw


def items(dataset: Any, rows: Sequence[Any]) -> list:
    """Return items of a map-style data set, at once where it offers that, as PyTorch's own loader does."""
    at_once = getattr(dataset, "__getitems__", None)
    return at_once(rows) if at_once else [dataset[row] for row in rows]


def as_pairs(batch: Any) -> Pairs:
    """Return as pairs a batch (x, y) or (x, a, y), or with these as keys or attributes; a missing action is [B, 0].

    Raises: ValueError for a batch that is none of these, or as `jepa.data.checked`.
    """
    names = ("x", "a", "y", "factors")
    if isinstance(batch, Mapping):
        fields = {name: batch[name] for name in names if name in batch}
    elif isinstance(batch, list | tuple) and not hasattr(batch, "x") and len(batch) in (2, 3):
        fields = dict(zip("xy" if len(batch) == 2 else "xay", batch, strict=True))
    else:
        fields = {name: getattr(batch, name) for name in names if hasattr(batch, name)}
    if not {"x", "y"} <= fields.keys():
        what = "expected (x, y), (x, a, y), or x, y and perhaps a as keys or attributes"
        raise ValueError(f"batch: {what}, found {type(batch).__name__}")
    x = fields["x"]
    empty = torch.zeros(len(x) if isinstance(x, Tensor) and x.ndim else 0, 0)
    return checked(Pairs(x, fields.get("a", empty), fields["y"], fields.get("factors", {})))


def on(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""
    *tensors, factors = batch
    factors = {name: factor.to(device) for name, factor in factors.items()}
    return type(batch)(*(tensor.to(device) for tensor in tensors), factors)


def seed_from(generator: Generator) -> int:
    """Return a seed from 0 to 2⁶² drawn from a generator."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of PyTorch on the CPU, NumPy and Python for a while, then put them back."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _draw(total: int, count: int, generator: Generator) -> np.ndarray:
    """Return `count` numbers below `total`, drawn with replacement. Raises: ValueError for count < 1."""
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")
    return torch.randint(total, (count,), generator=generator, device=generator.device).cpu().numpy()


def _lengths(stored: Stored) -> tuple[np.ndarray, int]:
    """Return the number of actions [N] of stored episodes, and L, the most there could be.

    Raises: ValueError for data without frames, or shapes or lengths that do not fit.
    """
    count, most = len(_array(stored, "frames")), _array(stored, "frames").shape[1] - 1
    if "a" in stored.arrays and stored.arrays["a"].shape[:2] != (count, most):
        raise ValueError(f"a: expected [{count}, {most}, A], found {list(stored.arrays['a'].shape)}")
    lengths = np.array(stored.arrays.get("length", np.full(count, most)), dtype=np.int64).reshape(-1)
    if len(lengths) != count or lengths.min() < 0 or lengths.max() > most:
        found = f"{len(lengths)} from {lengths.min()} to {lengths.max()}"
        raise ValueError(f"length: expected {count} numbers from 0 to {most}, found {found}")
    return lengths, most


def _array(stored: Stored, name: str) -> np.ndarray:
    """Return a stored array of one row at least. Raises: ValueError if there is none."""
    if name not in stored.arrays or not len(stored.arrays[name]):
        raise ValueError(f"data: expected an array {name} with rows, found {', '.join(stored.arrays)}")
    return stored.arrays[name]
