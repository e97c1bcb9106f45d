"""Sources that go through a loader: cut at any batch and resumed they go on to the bit, whoever draws meanwhile."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from conftest import generator
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from jepa.loaders import from_loader

SIZE, COUNT = 22, 4  # items, and of them in a batch: five batches an epoch and two items left


class Augmented(Dataset):
    """Items that are another view at every look, by all three global generators."""

    def __len__(self):
        return SIZE

    def __getitem__(self, row):
        looks.append(row)
        noise = torch.rand(1), torch.tensor([np.random.rand(), random.random()]).float()
        return torch.full((2,), float(row)), torch.cat(noise)


class Stream(IterableDataset):
    """The same without an index, in an order that a global generator decides."""

    def __iter__(self):
        return (Augmented()[row] for row in torch.randperm(SIZE).tolist())


class Own(Sampler):
    """A sampler of a user, with or without a generator by which its order can be decided."""

    def __init__(self, draw):
        self.draw = draw

    def __iter__(self):
        return iter(self.draw())

    def __len__(self):
        return SIZE


class Subclass(DataLoader):
    """A loader of which nothing is known but that it is one."""


class Epoch:
    """Anything that has batches."""

    def __iter__(self):
        return iter(DataLoader(Augmented(), COUNT, shuffle=True))


looks: list[int] = []


def noisy(items):
    """Return items side by side, mixed at random."""
    x, y = torch.utils.data.default_collate(items)
    return {"y": y + torch.rand(1), "x": x}


def weighted():
    """Return a sampler that draws with replacement."""
    return WeightedRandomSampler(torch.ones(SIZE), SIZE)


def batches_of_rows():
    """Return a sampler of batches."""
    return BatchSampler(RandomSampler(range(SIZE)), COUNT, drop_last=True)


def whole():
    """Return five batches."""
    return [(torch.full((COUNT, 2), float(number)), torch.zeros(COUNT, 1)) for number in range(5)]


LOADERS = {
    "in order": lambda: DataLoader(Augmented(), COUNT),
    "shuffled": lambda: DataLoader(Augmented(), COUNT, shuffle=True),
    "without the last": lambda: DataLoader(Augmented(), COUNT, shuffle=True, drop_last=True),
    "own generator": lambda: DataLoader(Augmented(), COUNT, shuffle=True, generator=generator(9)),
    "random collate": lambda: DataLoader(Augmented(), COUNT, shuffle=True, collate_fn=noisy),
    "weighted": lambda: DataLoader(Augmented(), COUNT, sampler=weighted()),
    "batch sampler": lambda: DataLoader(Augmented(), batch_sampler=batches_of_rows()),
    "distributed": lambda: DataLoader(Augmented(), COUNT, sampler=DistributedSampler(Augmented(), 1, 0)),
    "global NumPy": lambda: DataLoader(Augmented(), COUNT, sampler=Own(lambda: np.random.permutation(SIZE))),
    "of whole batches": lambda: DataLoader(whole(), None, shuffle=True),
    "stream": lambda: DataLoader(Stream(), COUNT),
    "subclass": lambda: Subclass(Augmented(), COUNT, shuffle=True),
    "own loader": Epoch,
    "list": whole,
}
RANDOM = [name for name in LOADERS if name not in ("in order", "list")]
WORKERS = {
    "workers": lambda: DataLoader(Augmented(), COUNT, shuffle=True, num_workers=1),
    "kept workers": lambda: DataLoader(Augmented(), COUNT, shuffle=True, num_workers=1, persistent_workers=True),
    "stream by workers": lambda: DataLoader(Stream(), COUNT, num_workers=1),
}
forking = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def disturb():
    """Let somebody else draw from the global generators."""
    torch.rand(3), np.random.rand(3), random.random()


def draw(source, drawing, count):
    """Return batches, while somebody else draws from the global generators."""
    batches = []
    for _ in range(count):
        batches.append(source(COUNT, drawing))
        disturb()
    return batches


def same(one, two):
    """Return whether two lists of batches are the same to the bit."""
    return all(torch.equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x[:3], y[:3], strict=True))


def cut(source, resumed, at, total=13):
    """Return the batches of a source after the first `at`, and those of another one that goes on from there."""
    drawing, going_on = generator(5), generator(6)
    draw(source, drawing, at)
    state, random_state = source.state_dict(), drawing.get_state()
    after = draw(source, drawing, total - at)
    disturb()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    going_on.set_state(random_state)
    return after, draw(resumed, going_on, total - at)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("at", [0, 1, 4, 5, 7, 10])
def test_cut_and_resumed_is_uncut_to_the_bit(kind, at):
    after, again = cut(from_loader(LOADERS[kind]()), from_loader(LOADERS[kind]()), at)
    assert same(after, again)


@forking
@pytest.mark.parametrize("kind", WORKERS)
def test_cut_and_resumed_is_uncut_with_workers(kind):
    after, again = cut(from_loader(WORKERS[kind]()), from_loader(WORKERS[kind]()), 7)
    assert same(after, again)


@forking
def test_workers_change_nothing():
    one, two = (from_loader(make()) for make in (LOADERS["shuffled"], WORKERS["workers"]))
    assert same(draw(one, generator(), 7), draw(two, generator(), 7))


@pytest.mark.parametrize("kind", RANDOM)
def test_a_source_that_is_not_put_to_its_state_differs_after_a_cut(kind):
    source, drawing = from_loader(LOADERS[kind]()), generator(5)
    draw(source, drawing, 7)
    state = drawing.get_state()
    after = draw(source, drawing, 6)
    drawing.set_state(state)
    assert not same(after, draw(from_loader(LOADERS[kind]()), drawing, 6))


@pytest.mark.parametrize("kind", ["in order", "shuffled", "own generator", "distributed", "stream", "own loader"])
def test_an_epoch_has_every_item_once_but_those_of_a_shorter_batch(kind):
    source, drawing, orders = from_loader(LOADERS[kind]()), generator(), []
    for _ in range(3):
        rows = torch.cat([batch.x[:, 0] for batch in draw(source, drawing, 5)]).tolist()
        assert len(set(rows)) == 20 and source.state_dict()["drawn"] == 5
        orders.append(rows)
    assert (orders[0] == orders[1]) == (kind == "in order")


def test_the_seed_of_an_epoch_is_all_that_is_drawn_from_our_generator():
    source, drawing, other = from_loader(LOADERS["shuffled"]()), generator(), generator()
    draw(source, drawing, 5)
    torch.randint(2**62, (), generator=other)
    assert torch.equal(drawing.get_state(), other.get_state())
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    source(COUNT, drawing)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]


def test_a_generator_of_the_user_stays_as_it_is():
    mine = generator(1)
    before = mine.get_state()
    source = from_loader(DataLoader(Augmented(), COUNT, shuffle=True, generator=mine))
    assert torch.equal(mine.get_state(), before)
    first = draw(source, mine, 7)  # the training's own, as one may well write
    source = from_loader(DataLoader(Augmented(), COUNT, shuffle=True))
    assert same(first, draw(source, generator(1), 7))


@pytest.mark.parametrize(("kind", "read"), [("shuffled", 2 * COUNT), ("subclass", 4 * COUNT)])
def test_what_was_drawn_is_not_read_again_where_the_order_is_known(kind, read):
    source, drawing = from_loader(LOADERS[kind]()), generator()
    draw(source, drawing, 3)
    resumed = from_loader(LOADERS[kind]())
    resumed.load_state_dict(source.state_dict())
    looks.clear()
    resumed(COUNT, drawing)
    assert len(looks) == read  # the last batch before the cut, to compare, and the next one


def test_a_state_that_is_put_back_takes_back_what_was_drawn():
    source, drawing = from_loader(LOADERS["shuffled"]()), generator()
    draw(source, drawing, 3)
    state, random_state = source.state_dict(), drawing.get_state()
    after = draw(source, drawing, 4)
    source.load_state_dict(state)
    drawing.set_state(random_state)
    assert same(after, draw(source, drawing, 4))


@pytest.mark.parametrize("kind", ["shuffled", "list", "stream"])
def test_other_data_after_a_cut_are_an_error(kind, monkeypatch):
    source, drawing = from_loader(LOADERS[kind]()), generator()
    draw(source, drawing, 3)
    shorter = {"shuffled": range(SIZE - 5), "list": [(torch.zeros(COUNT, 2), torch.zeros(COUNT, 1))] * 2}
    other = shorter.get(kind, Stream())
    monkeypatch.setattr(Augmented, "__getitem__", lambda self, row: (torch.zeros(2), torch.zeros(1)))
    resumed = from_loader(other if kind == "list" else DataLoader(other if kind == "stream" else Augmented(), COUNT))
    resumed.load_state_dict(source.state_dict())
    found = "none" if kind == "list" else "another one"
    with pytest.raises(ValueError, match=f"batch 3 of the epoch as it was before the cut, found {found}"):
        resumed(COUNT, drawing)


def test_a_stream_with_a_generator_of_its_own_cannot_go_on_unnoticed():
    class Hidden(Epoch):
        hidden = generator(3)

        def __iter__(self):
            rows = torch.randperm(SIZE, generator=self.hidden)
            return iter([(part[:, None].float(), torch.zeros(COUNT, 1)) for part in rows[:20].split(COUNT)])

    source = from_loader(Hidden())
    with pytest.raises(ValueError, match="batch 2 of the epoch as it was before the cut, found another"):
        cut(source, from_loader(Hidden()), 2)


def of_numpy(random_state):
    """Return a sampler that draws from a generator of its own."""
    return Own(lambda: random_state.permutation(SIZE))


def of_torch(hidden):
    """Return a sampler that draws from a generator nobody sees."""
    return Own(lambda: torch.randperm(SIZE, generator=hidden).tolist())


def once(rows):
    """Return a sampler that has one epoch."""
    return Own(lambda: list(rows))


@pytest.mark.parametrize(
    "sampler", [of_numpy(np.random.RandomState(0)), of_torch(generator()), once(iter(range(SIZE)))]
)
def test_a_sampler_whose_order_cannot_be_decided_is_refused(sampler):
    with pytest.raises(ValueError, match="loader: expected a sampler that draws from .* by Own"):
        from_loader(DataLoader(Augmented(), COUNT, sampler=sampler))


@pytest.mark.parametrize("loader", [iter([]), (batch for batch in ()), 3])
def test_what_ends_after_an_epoch_is_refused(loader):
    with pytest.raises(ValueError, match="loader: expected batches to go through again and again"):
        from_loader(loader)


@pytest.mark.parametrize("kind", ["shuffled", "stream", "list"])
@pytest.mark.parametrize("count", [COUNT - 1, COUNT + 1])
def test_another_number_of_pairs_than_the_loaders_is_an_error(kind, count):
    source = from_loader(LOADERS[kind]())
    with pytest.raises(ValueError, match=f"count: expected {COUNT}, the pairs in a batch of the loader, found {count}"):
        source(count, generator())


def test_a_shorter_batch_that_is_not_the_last_is_an_error():
    batches = [(torch.zeros(size, 1), torch.zeros(size, 1)) for size in (4, 3, 4)]
    source = from_loader(batches)
    source(4, generator())
    with pytest.raises(ValueError, match="count: expected 3, the pairs in a batch of the loader, found 4"):
        source(4, generator())


NONE = DataLoader(TensorDataset(torch.zeros(0, 1)), 2), DataLoader(Augmented(), SIZE + 1, drop_last=True)


@pytest.mark.parametrize("loader", [[], *NONE])
def test_a_loader_without_batches_is_an_error(loader):
    with pytest.raises(ValueError, match="loader: expected at least one batch in an epoch, found none"):
        from_loader(loader)(2, generator())


@pytest.mark.parametrize("state", [{}, None, {"seed": "a", "drawn": 1, "mark": ""}])
def test_what_is_no_state_is_an_error(state):
    with pytest.raises(ValueError, match="state: expected seed, drawn and mark"):
        from_loader(LOADERS["list"]()).load_state_dict(state)
