"""Sources that go through a data loader, epoch after epoch, and after a cut go on as if there had been none.

Each epoch begins with a seed drawn from the training's generator. The seed decides the epoch's order; with the number
of a batch it decides what is random in that batch, in whatever process it is made. So the seed and a number say where a
source is.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator
from itertools import count as numbers
from itertools import islice
from typing import Any

import torch
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from jepa.data import Pairs
from jepa.sources import as_pairs, items, on, seed_from, seeded

Epoch = Callable[[int, int], Iterator[Any]]  # (seed, skip) -> the batches of an epoch after the first `skip`
END = object()  # in the place of a batch, after the last one


class Epochs:
    """A source that goes through the batches of an epoch, then of the next; a shorter last one is left out."""

    def __init__(self, epoch: Epoch) -> None:
        """Args: epoch: (seed, skip) -> the batches of an epoch after the first `skip`, equal for equal seeds."""
        self._epoch = epoch
        self._seed, self._drawn, self._mark = 0, 0, ""  # of the epoch: its seed, batches drawn, digest of the last one
        self._batches: Iterator[Any] = iter(())
        self._last: Pairs | None = None  # None also where the source was put to a state and drew nothing yet

    def __call__(self, count: int, generator: Generator) -> Pairs:
        """Return the next batch, on the generator's device, from which an epoch's seed is drawn.

        Raises: ValueError if a batch has not `count` pairs or fails `jepa.data.checked`; after a cut, if the loader
            does not give again what it gave before.
        """
        if self._last is None and self._drawn:
            self._resume()
        batch = self._next(count)
        if batch is None:
            self._seed, self._drawn = seed_from(generator), 0
            self._batches = self._epoch(self._seed, 0)
            batch = self._next(count)
        if batch is None:
            raise ValueError("loader: expected at least one batch in an epoch, found none")
        self._drawn, self._last = self._drawn + 1, batch
        return on(batch, generator.device)

    def state_dict(self) -> dict[str, int | str]:
        """Return where the source is: the epoch's seed, how many of its batches are drawn, a digest of the last one."""
        mark = self._mark if self._last is None else _digest(self._last)
        return {"seed": self._seed, "drawn": self._drawn, "mark": mark}

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go to where a source on the same data was. Raises: ValueError for what is no such state."""
        try:
            self._seed, self._drawn, self._mark = int(state["seed"]), int(state["drawn"]), str(state["mark"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state: expected seed, drawn and mark as state_dict has them, found {state!r}") from error
        self._batches, self._last = iter(()), None

    def _resume(self) -> None:
        """Go to the last batch drawn. Raises: ValueError if it is not what it was."""
        self._batches = self._epoch(self._seed, self._drawn - 1)
        found = next(self._batches, END)
        if found is END or _digest(as_pairs(found)) != self._mark:
            what = f"batch {self._drawn} of the epoch as it was before the cut"
            raise ValueError(f"loader: expected {what}, found {'none' if found is END else 'another one'}")

    def _next(self, count: int) -> Pairs | None:
        """Return the next batch of the epoch, None at its end. Raises: ValueError for another size than `count`."""
        found = next(self._batches, END)
        if found is END:
            return None
        batch = as_pairs(found)
        if len(batch.x) == count:
            return batch
        if self._drawn and len(batch.x) < count and next(self._batches, END) is END:
            return None
        raise ValueError(f"count: expected {len(batch.x)}, the pairs in a batch of the loader, found {count}")


class Indexed(Dataset):
    """The batches of a map-style data set by seed and rows, the same in any process."""

    def __init__(self, dataset: Any, collate: Callable[[list], Any]) -> None:
        """Args: dataset: of items; collate: a list of items -> a batch."""
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, drawn: tuple[int, list]) -> Any:
        """Return the batch of (seed, rows)."""
        seed, rows = drawn
        with seeded(seed):
            return self.collate(items(self.dataset, rows))


def from_loader(loader: Iterable[Any]) -> Epochs:
    """Return a source that goes through a DataLoader, or anything else that has batches, epoch after epoch.

    The generators of a DataLoader and of its samplers are replaced by others, seeded at the beginning of an epoch. If
    its data set has indices, a cut epoch goes on where it was; else its first batches are read again and dropped.

    Args: loader: of batches (x, y) or (x, a, y), dictionaries with these names or objects with these attributes, in the
        default precision, all of one size but for the last one; of what is random in it, the global generators decide.
    Raises: ValueError for what can be gone through only once, or a sampler whose order no generator decides.
    """
    if not hasattr(loader, "__iter__") or isinstance(loader, Iterator):
        what = "expected batches to go through again and again, such as a DataLoader"
        raise ValueError(f"loader: {what}, found {type(loader).__name__}")
    if type(loader) is DataLoader and operator.length_hint(loader.batch_sampler, -1) >= 0:
        return Epochs(_indexed(loader))
    return Epochs(lambda seed, skip: islice(_read(loader, seed), skip, None))


def _indexed(loader: DataLoader) -> Epoch:
    """Return the epochs of a loader whose order is known before anything is read. Raises: as `from_loader`."""
    if _order(loader, 0) != _order(loader, 0):
        what = "expected a sampler that draws from its attribute `generator` or from the global generators"
        raise ValueError(f"loader: {what}, found another order for the same seed by {type(loader.sampler).__name__}")
    order: list[tuple[int, Any]] = []
    names = ("num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "prefetch_factor")
    options = {name: getattr(loader, name) for name in (*names, "persistent_workers")}
    batches = Indexed(loader.dataset, loader.collate_fn)
    reader = DataLoader(batches, None, sampler=order, collate_fn=_same, generator=Generator(), **options)

    def epoch(seed: int, skip: int) -> Iterator[Any]:
        """Return the batches after the first `skip`."""
        order[:] = list(zip(numbers(seed + 1), _order(loader, seed), strict=False))[skip:]
        return iter(reader)

    return epoch


def _order(loader: DataLoader, seed: int) -> list:
    """Return the rows of each batch of an epoch."""
    with seeded(seed):
        _seed_samplers(loader, seed)
        return [list(rows) for rows in loader.batch_sampler]


def _read(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """Yield the batches of an epoch, the global generators seeded for each."""
    with seeded(seed):
        _seed_samplers(loader, seed)
        batches = iter(loader)
    for number in numbers(seed + 1):
        with seeded(number):
            batch = next(batches, END)
        if batch is END:
            return
        yield batch


def _seed_samplers(loader: Any, seed: int) -> None:
    """Have a seed decide what a loader and its samplers draw, and what epoch a distributed one goes by."""
    parts = [loader]
    for name in ("sampler", "batch_sampler"):
        part = getattr(loader, name, None)
        while part is not None:
            parts.append(part)
            part = getattr(part, "sampler", None)
    for part in parts:
        generator = getattr(part, "generator", ...)
        if generator is None or isinstance(generator, Generator):
            part.generator = Generator(generator.device if generator else "cpu").manual_seed(seed)
        if hasattr(part, "set_epoch"):
            part.set_epoch(seed % 2**31)


def _digest(batch: Pairs) -> str:
    """Return the SHA-256 of the numbers of a batch, in hexadecimal."""
    digest = hashlib.sha256()
    for part in (batch.x, batch.a, batch.y):
        digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _same(batch: Any) -> Any:
    """Return a batch as it is."""
    return batch
