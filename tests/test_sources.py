"""Sources: the generator alone decides a batch, and stored data are read only where they are asked for."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import generator
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from jepa import data
from jepa.data import Pairs, Stored, Trajectories, dataset, load, write
from jepa.sources import as_pairs, from_dataset, pairs, seeded, trajectories

EPISODES, STEPS = 6, 9  # N, L


class Augmented(Dataset):
    """Items that are another view at every look, by all three global generators."""

    def __len__(self):
        return 40

    def __getitem__(self, row):
        noise = torch.rand(2), torch.tensor([np.random.rand(), random.random()]).float()
        return torch.full((2,), float(row)), torch.cat(noise)


class Views(Dataset):
    """The same items in another form."""

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return 7

    def __getitem__(self, row):
        return self.form(torch.full((3,), float(row)), torch.ones(2), torch.full((1,), -float(row)))


def same(one, two):
    """Return whether two batches are the same to the bit."""
    return all(torch.equal(a, b) for a, b in zip(one[:-1], two[:-1], strict=True)) and all(
        torch.equal(factor, two.factors[name]) for name, factor in one.factors.items()
    )


def disturbed():
    """Return nothing, after somebody else drew from the global generators."""
    torch.rand(3), np.random.rand(3), random.random()


def episodes(lengths=None):
    """Return integers in which each frame says its episode and time."""
    when = np.arange(STEPS + 1)
    which = np.arange(EPISODES)[:, None] * 100
    arrays = {
        "frames": (which + when)[:, :, None, None].repeat(2, 2).astype(np.int16),
        "a": (which + when)[:, :-1, None].astype(np.int16),
        "static": which.astype(np.int8).reshape(EPISODES, 1, 1).repeat(STEPS + 1, 1),  # as many rows as frames
        "goal": which.astype(np.int16),
        "place": (which + when)[:, :, None].astype(np.int32),
    }
    return arrays if lengths is None else arrays | {"length": np.array(lengths, np.int16)}


QUANTA = {"frames": 0.5, "a": 1, "static": 1, "goal": 1, "place": 0.25, "length": 1}


@pytest.fixture
def folder(tmp_path):
    """Return the folder of stored episodes."""
    write(tmp_path / "episodes", episodes(), QUANTA, {})
    return tmp_path / "episodes"


@pytest.mark.parametrize("steps", [1, 4, STEPS])
def test_parts_of_episodes_are_consecutive_and_in_their_unit(folder, steps):
    batch = trajectories(dataset(folder), steps)(500, generator())
    assert isinstance(batch, Trajectories) and data.checked(batch) is batch
    assert batch.frames.shape == (500, steps + 1, 2, 1) and batch.a.shape == (500, steps, 1)
    seen = (batch.frames[:, :, 0, 0] * 2).long()
    assert torch.equal(seen, seen[:, :1] + torch.arange(steps + 1))
    assert torch.equal(batch.a[:, :, 0].long(), seen[:, :-1]) and batch.a.dtype == torch.float32
    assert torch.equal(batch.factors["place"], seen.unsqueeze(2) / 4)
    goal = batch.factors["goal"]
    assert goal.dtype == torch.int64 and torch.equal(goal[:, 0], seen[:, 0] // 100 * 100)
    assert batch.static.shape == (500, STEPS + 1, 1)
    starts = {divmod(int(first), 100) for first in seen[:, 0]}
    assert starts == {(n, t) for n in range(EPISODES) for t in range(STEPS - steps + 1)}


def test_only_what_is_drawn_is_converted(folder, monkeypatch):
    converted, real = [], data._in_unit
    monkeypatch.setattr(data, "_in_unit", lambda part, *rest: converted.append(part.size) or real(part, *rest))
    trajectories(dataset(folder), 2)(4, generator())
    assert sorted(converted) == sorted([4 * 3 * 2, 4 * 2, 4 * (STEPS + 1), 4, 4 * 3])


def test_episodes_of_different_lengths_have_no_part_beyond_their_end():
    lengths = [9, 0, 3, 2, 5, 1]
    batch = trajectories(Stored(episodes(lengths), QUANTA), 3)(4000, generator())
    starts = (batch.frames[:, 0, 0, 0] * 2).long()
    expected = [100 * n + t for n, length in enumerate(lengths) for t in range(length - 2)]
    values, counts = starts.unique(return_counts=True)
    assert values.tolist() == expected and "length" not in batch.factors
    share = counts / 4000 - 1 / len(expected)
    assert share.abs().max() < 5 * (1 / len(expected) / 4000) ** 0.5  # equally likely, up to five standard deviations


def test_what_episodes_do_not_have_is_of_width_zero():
    batch = trajectories(Stored({"frames": episodes()["frames"]}, QUANTA), 2)(5, generator())
    assert batch.a.shape == (5, 2, 0) and batch.static.shape == (5, 0) and batch.factors == {}


@pytest.mark.parametrize(
    ("arrays", "steps", "message"),
    [
        ({"x": np.zeros((2, 3), int)}, 1, "data: expected an array frames with rows, found x"),
        (episodes(), 10, "steps: expected from 1 to 9, the longest episode, found 10"),
        (episodes(), 0, "steps: expected from 1 to 9, the longest episode, found 0"),
        (episodes([1, 1, 2, 1, 1, 1]), 3, "steps: expected from 1 to 2, the longest episode, found 3"),
        (episodes([1, 1, 10, 1, 1, 1]), 1, "length: expected 6 numbers from 0 to 9, found 6 from 1 to 10"),
        (episodes([1, 1]), 1, "length: expected 6 numbers from 0 to 9, found 2 from 1 to 1"),
        (episodes() | {"a": np.zeros((6, 10, 1), int)}, 1, r"a: expected \[6, 9, A\], found \[6, 10, 1\]"),
    ],
)
def test_episodes_that_cannot_be_drawn_from_are_named(arrays, steps, message):
    with pytest.raises(ValueError, match=message):
        trajectories(Stored(arrays, QUANTA), steps)


def test_stored_pairs_are_drawn_with_what_made_them(tmp_path):
    number = np.arange(20, dtype=np.int16)[:, None]
    write(tmp_path / "pairs", {"x": number, "y": -number, "kind": number}, {"x": 0.5, "y": 1, "kind": 1}, {})
    batch, whole = pairs(dataset(tmp_path / "pairs"))(300, generator()), load(tmp_path / "pairs")
    rows = batch.factors["kind"][:, 0]
    assert torch.equal(batch.x, whole.x[rows]) and torch.equal(batch.y, -rows.unsqueeze(1).float())
    assert set(rows.tolist()) == set(range(20)) and batch.a.shape == (300, 0)
    with pytest.raises(ValueError, match="data: expected an array y with rows, found x"):
        pairs(Stored({"x": number}, {"x": 1}))


@pytest.mark.parametrize(
    "source",
    [
        from_dataset(Augmented()),
        pairs(Stored({"x": np.arange(9)[:, None], "y": np.arange(9)[:, None]}, {"x": 1, "y": 1})),
        trajectories(Stored(episodes(), QUANTA), 2),
    ],
    ids=["data set", "pairs", "trajectories"],
)
def test_the_generator_alone_decides_and_nothing_else_moves(source):
    once, again, other = generator(3), generator(3), generator(4)
    first = [source(6, once) for _ in range(3)]
    disturbed()
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    second = [source(6, again) for _ in range(3)]
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert all(same(one, two) for one, two in zip(first, second, strict=True))
    assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    assert not same(source(6, other), first[0]) and not same(first[0], first[1])
    with pytest.raises(ValueError, match="count: expected at least 1, found 0"):
        source(0, once)


def test_a_source_that_leaves_the_global_generators_alone_differs():
    def naive(count, generator):
        rows = torch.randint(40, (count,), generator=generator).tolist()
        return as_pairs(torch.utils.data.default_collate([Augmented()[row] for row in rows]))

    first = naive(6, generator(3))
    disturbed()
    second = naive(6, generator(3))
    assert torch.equal(first.x, second.x) and not torch.equal(first.y, second.y)


@pytest.mark.parametrize(
    ("form", "width"),
    [
        (lambda x, a, y: (x, y), 0),
        (lambda x, a, y: [x, a, y], 2),
        (lambda x, a, y: {"x": x, "y": y}, 0),
        (lambda x, a, y: {"y": y, "a": a, "x": x, "file": "name"}, 2),
        (lambda x, a, y: {"y": y, "a": a, "x": x, "factors": {"kind": x}}, 2),
        (lambda x, a, y: Pairs(x, a, y, {"kind": x}), 2),
    ],
)
def test_items_of_every_form_become_pairs(form, width):
    batch = from_dataset(Views(form))(50, generator())
    assert isinstance(batch, Pairs) and batch.a.shape == (50, width) and (batch.a == 1).all()
    assert set(batch.x[:, 2].tolist()) == set(range(7)) and torch.equal(batch.y, -batch.x[:, :1])
    assert all(torch.equal(factor, batch.x) for factor in batch.factors.values())


def test_objects_are_put_side_by_side_by_the_users_function():
    def collate(items):
        return SimpleNamespace(x=torch.stack([item.x for item in items]), y=torch.stack([item.y for item in items]))

    batch = from_dataset(Views(lambda x, a, y: SimpleNamespace(x=x, y=y)), collate)(5, generator())
    assert torch.equal(batch.y, -batch.x[:, :1]) and batch.a.shape == (5, 0)


def test_items_are_taken_at_once_where_the_data_set_offers_it():
    class AtOnce(Augmented):
        def __getitems__(self, rows):
            asked.append(rows)
            return [self[row] for row in rows]

    asked = []
    assert (
        same(from_dataset(AtOnce())(6, generator()), from_dataset(Augmented())(6, generator())) and len(asked[0]) == 6
    )


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            (torch.zeros(4, 3, dtype=torch.uint8), torch.zeros(4, 1)),
            r"x: expected .*found torch.uint8 \[5, 3\]; convert",
        ),
        ((torch.zeros(4, 3),), "batch: expected .*x, y and perhaps a as keys or attributes, found list"),
        ((torch.zeros(4, 1),) * 4, "batch: expected .*x, y and perhaps a as keys or attributes, found list"),
    ],
)
def test_items_that_no_model_takes_are_named(items, message):
    with pytest.raises(ValueError, match=message):
        from_dataset(TensorDataset(*items))(5, generator())


class Stream(IterableDataset):
    """Items in an order, without an index."""

    def __iter__(self):
        return iter([(torch.zeros(1), torch.zeros(1))])

    def __len__(self):
        return 1


@pytest.mark.parametrize("items", [[], Stream(), (item for item in "ab")])
def test_data_without_items_by_index_are_refused(items):
    with pytest.raises(ValueError, match="dataset: expected items by their index .*from_loader"):
        from_dataset(items)


def test_seeding_puts_the_generators_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(7):
        disturbed()
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
