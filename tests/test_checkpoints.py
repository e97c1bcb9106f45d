"""Checkpoints: a training that is cut anywhere goes on to the bit; a file is whole, or refused with what to do."""

from __future__ import annotations

import errno
import os
import pickle
import random
import re
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, generator
from test_train import KINDS, Cut, cut_after, draws, kinds, run, same, settings, source_of, with_dropout
from torch.utils.data import DataLoader, TensorDataset

from jepa import train
from jepa.batches import Pairs
from jepa.checkpoints import load, restore, save
from jepa.loaders import from_loader
from jepa.runs import build
from jepa.runs.config import configure
from jepa.sources import as_pairs
from jepa.train import fit

OFTEN = {"train.checkpoint": 0.0}  # after every step

# -- cut and resumed ---------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("steps", [1, 7, 11])
@pytest.mark.parametrize("interval", [0.0, 2.5])
def test_cut_run_resumes_to_the_bits_of_an_uninterrupted_one(kind, steps, interval, tmp_path, monkeypatch):
    clock = count()  # a second passes with every look at the clock
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    config, file = settings(kind, {"train.checkpoint": interval}), tmp_path / "checkpoint.pt"
    whole = run(config, seed=1)
    with pytest.raises(Cut):
        run(config, seed=1, checkpoint=file, sample=cut_after(config, steps))
    assert file.is_file() == (interval == 0.0 or steps > 1)
    # all that the checkpoint does not bring back would come from the wrong seed
    resumed = run(config, seed=1 if not file.is_file() else 2, checkpoint=file)
    assert same(resumed, whole)


@kinds
def test_finished_run_is_read_and_not_trained_again(kind, tmp_path):
    config, file = settings(kind), tmp_path / "checkpoint.pt"
    whole = run(config, seed=1, checkpoint=str(file))  # a path may be text
    assert same(run(config, seed=2, checkpoint=str(file), sample=cut_after(config, 0)), whole)


def test_dropout_goes_on_where_it_was(tmp_path):
    config, file = settings(KINDS["auto-encoder"], OFTEN), tmp_path / "checkpoint.pt"
    whole = run(config, seed=1, change=with_dropout)
    with pytest.raises(Cut):
        run(config, seed=1, checkpoint=file, sample=cut_after(config, 5), change=with_dropout)
    state = load(file)
    torch.rand(7)
    assert same(run(config, seed=1, checkpoint=file, change=with_dropout, callbacks=[draws]), whole)
    save(file, {**state, "global": [generator(3).get_state()]})
    assert not same(run(config, seed=1, checkpoint=file, change=with_dropout), whole)


class InOrder:
    """A source that goes through its pairs in their order, again and again."""

    def __init__(self, pairs):
        self.pairs, self.first = pairs, 0

    def __call__(self, batch, generator):
        rows = (self.first + torch.arange(batch)) % len(self.pairs.x)
        self.first += batch
        return Pairs(*(part[rows] for part in self.pairs[:3]), {})


class Resumable(InOrder):
    """The same, with a state."""

    def state_dict(self):
        return {"first": self.first}

    def load_state_dict(self, state):
        self.first = state["first"]


class Naive:
    """What one would write around a loader."""

    def __init__(self, loader):
        self.loader, self.batches = loader, iter(())

    def __call__(self, count, generator):
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        return as_pairs(batch)


def shuffled(pairs):
    """Return a loader of pairs in an order that the global generator decides."""
    return DataLoader(TensorDataset(*pairs[:3]), 8, shuffle=True)


@pytest.mark.parametrize(
    ("source", "resumes"),
    [
        (InOrder, False),
        (Resumable, True),
        (lambda pairs: Naive(shuffled(pairs)), False),
        (lambda pairs: from_loader(shuffled(pairs)), True),
    ],
    ids=["no state", "state", "loader", "from_loader"],
)
def test_source_with_a_state_goes_on_where_it_was(source, resumes, tmp_path):
    config, file = settings(OFTEN), tmp_path / "checkpoint.pt"
    pairs = source_of(config)(40, generator(3))
    whole = run(config, sample=source(pairs))
    assert same(run(config, sample=source(pairs)), whole)

    def cut(step, model):
        if step == 7:
            raise Cut

    with pytest.raises(Cut):
        run(config, checkpoint=file, sample=source(pairs), callbacks=[cut])
    assert same(run(config, checkpoint=file, sample=source(pairs)), whole) == resumes


class Steps:
    """A callback with a state: the steps it was told of."""

    def __init__(self):
        self.seen = []

    def __call__(self, step, model):
        self.seen.append(step)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_callbacks_miss_no_step_and_see_none_twice_wherever_one_of_them_ends_the_training(tmp_path):
    config, file = settings(), tmp_path / "checkpoint.pt"
    for number in (1, 5, 12):

        def stop(step, model, number=number):
            if step == number:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(config, checkpoint=file, callbacks=[Steps(), stop, Steps()])
        assert load(file)["step"] == number
    first, last = Steps(), Steps()
    assert same(run(config, checkpoint=file, callbacks=[first, draws, last]), run(config))
    assert first.seen == last.seen == list(range(13))
    with pytest.raises(ValueError, match="callbacks: expected 2 states of them and the source, found 1.; name another"):
        run(config, checkpoint=file, callbacks=[first])


KILLED = """
import os, signal, sys
import torch
sys.path.insert(0, "tests")
from test_train import KINDS, run, settings

def half(state, file, real=torch.save):
    real(state, file)
    if state["step"] == 7:
        os.truncate(file, os.path.getsize(file) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
torch.save = half
run(settings(KINDS["joint embedding"], {"train.checkpoint": 0.0}), seed=1, checkpoint=sys.argv[1])
"""


def test_run_killed_in_the_middle_of_a_checkpoint_resumes_to_the_same_bits(tmp_path):
    file, config = tmp_path / "checkpoint.pt", settings(KINDS["joint embedding"], OFTEN)
    command = [sys.executable, "-W", "error", "-c", KILLED, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert load(file)["step"] == 6
    assert same(run(config, seed=2, checkpoint=file), run(config, seed=1))


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """Return the configuration and the checkpoint of a finished small run."""
    config = settings(KINDS["joint embedding"], {"train.steps": 2})
    run(config, checkpoint=tmp_path / "checkpoint.pt")
    return config, tmp_path / "checkpoint.pt"


def refused(config, file) -> str:
    """Return the message with which a checkpoint is refused, once it names the file and the remedy and kept it."""
    before = file.read_bytes()
    with pytest.raises(ValueError) as caught:
        run(config, checkpoint=file)
    assert str(file) in str(caught.value) and re.search("delete it|with another file", str(caught.value))
    assert file.read_bytes() == before
    return str(caught.value)


def test_truncated_checkpoint_is_refused(checkpoint):
    config, file = checkpoint
    text = file.read_bytes()
    for length in (0, 1, 4, 100, len(text) // 2, len(text) - 100, len(text) - 1):
        file.write_bytes(text[:length])
        assert "damaged or foreign" in refused(config, file)


def leaves(state) -> list:
    """Return all that a checkpoint holds, tensors as lists."""
    if isinstance(state, dict | list):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return [(key, leaves(value)) for key, value in items]
    return state.tolist() if isinstance(state, torch.Tensor) else state


def test_checkpoint_with_a_changed_byte_is_refused_unless_nothing_hangs_on_that_byte(checkpoint):
    _, file = checkpoint
    text, good, noticed = file.read_bytes(), leaves(load(file)), 0
    places = random.Random(0).sample(range(len(text)), 150)
    for place in places:
        changed = bytearray(text)
        changed[place] ^= 1
        file.write_bytes(changed)
        try:
            assert leaves(load(file)) == good
        except ValueError as error:
            noticed += "damaged or foreign" in str(error) and str(file) in str(error)
    assert noticed > len(places) / 2


class Bomb:
    """An object that makes a file when it is unpickled without care."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("write", [torch.save, lambda state, file: file.write_bytes(pickle.dumps(state))])
def test_checkpoint_that_would_execute_code_is_refused_and_executes_none(checkpoint, write, tmp_path):
    config, file = checkpoint
    state = load(file)
    write({**state, "step": Bomb(tmp_path / "executed")}, file)
    assert "damaged or foreign" in refused(config, file)
    assert not (tmp_path / "executed").exists()
    torch.load(file, weights_only=False) if write is torch.save else pickle.loads(file.read_bytes())
    assert (tmp_path / "executed").exists()  # the trap was armed


@pytest.mark.parametrize(
    "diff, named",
    [
        ({"encoder.hidden": [9]}, "model (.*encoder"),
        ({"encoder": {"hidden": [8, 8]}, "target_encoder": {"hidden": [8, 8]}}, "model"),
        ({"latent": {"name": "discrete", "size": 2}, "predictor": {"name": "mlp", "hidden": [8]}}, "model"),
        ({"expander": "identity"}, "objective (.*expander_x"),
        ({"train.rate": 0.5}, "training (trained with rate 0.01 where 0.5 is asked for)"),
        ({"train.batch": 9}, "training (trained with batch 8 where 9 is asked for)"),
        ({"train": {"beta2": 0.9, "clip": 1.0}}, "training (trained with beta2 0.999 where 0.9 .*, clip 10.0"),
        ({"loss.covariance": 0.25}, "training (trained with covariance 0.5 where 0.25 is asked for)"),
        ({"loss.information_y": 0.0}, "training (trained with information_y 1.0 where 0.0 is asked for)"),
    ],
    ids=str,
)  # fmt: skip
def test_checkpoint_of_another_model_or_training_is_refused_with_what_differs(checkpoint, diff, named):
    config, file = checkpoint
    message = refused(configure(diff, base=config), file)
    what = f"the checkpoint is of another {named}"
    assert all(part in message for part in what.split(".*")) and "name another file, or delete it" in message


@pytest.mark.parametrize("steps", [1, 4])
def test_training_longer_than_a_schedule_that_ran_to_its_end_is_an_error_that_says_what_to_do(checkpoint, steps):
    config, file = checkpoint
    message = refused(configure({"train.steps": steps}, base=config), file)
    assert "its training ran to the end of its schedule of 2 steps, where the learning rate is 0" in message
    assert f"start {steps} steps from these weights, with another file" in message and "delete" not in message


def test_refused_checkpoint_leaves_the_model_as_it_was(checkpoint):
    config, file = checkpoint
    of, other = (build.parts(config, 5) for _ in range(2))
    asked = configure({"train.rate": 0.5}, base=config).train
    with pytest.raises(ValueError, match="rate 0.01 where 0.5"):
        fit(of.model, of.objective, of.sample, generator(), asked, checkpoint=file)
    assert all(map(torch.equal, of.model.state_dict().values(), other.model.state_dict().values()))


def test_how_often_a_checkpoint_is_written_may_change_between_cut_and_resumption(checkpoint):
    config, file = checkpoint
    assert same(run(configure({"train.checkpoint": 1.0}, base=config), checkpoint=file), run(config))


ENTRIES = ("model", "objective", "settings", "step", "due", "curve", "optimizer", "generator", "global", "states")


@pytest.mark.parametrize(
    "change",
    [
        {"generator": torch.zeros(3, dtype=torch.uint8)},
        {"global": [torch.zeros(3, dtype=torch.uint8)]},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"optimizer": 3},
        {"curve": {"steps": []}},
        {"step": "two"},
        {"model": 3},
        {"settings": 3},
        *({name: None} for name in ENTRIES),  # left out
    ],
    ids=str,
)
def test_checkpoint_of_foreign_make_is_refused(checkpoint, change):
    config, file = checkpoint
    state = load(file)
    assert {*state} == {*ENTRIES}
    save(file, {name: value for name, value in {**state, **change}.items() if value is not None})
    assert "the checkpoint is of another" in refused(config, file) or "model" in change


def test_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none.pt: expected a checkpoint, found no file"):
        load(str(tmp_path / "none.pt"))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("save", OSError(errno.ENOSPC, "no space left")),
        ("save", RuntimeError("failed writing")),
        ("replace", OSError()),
    ],
)
def test_full_disk_keeps_the_old_checkpoint_and_leaves_nothing_beside_it(checkpoint, monkeypatch, name, error):
    _, file = checkpoint
    before = file.read_bytes()

    def failing(first, second):
        if name == "save":
            second.write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch if name == "save" else os, name, failing)
        with pytest.raises(OSError, match=f"{file}: could not be written .*the previous file.*untouched"):
            save(str(file), {"model": {}})
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


# -- compiled ----------------------------------------------------------------------------------------------------------


def compiled_part(model):
    """Return a model of which a part is compiled."""
    model.predictor = torch.compile(model.predictor, backend="eager")
    return model


COMPILED = {
    "plain": lambda model: model,
    "whole": lambda model: torch.compile(model, backend="eager"),
    "part": compiled_part,
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # from the compiler
@pytest.mark.parametrize("before", COMPILED)
@pytest.mark.parametrize("after", COMPILED)
def test_checkpoint_of_a_compiled_model_goes_on_in_a_plain_one_and_back(before, after, tmp_path):
    config, file = settings(KINDS["learned codes"], OFTEN), tmp_path / "checkpoint.pt"

    def trained(made, seed, sample=None, checkpoint=None):
        of = build.parts(config, seed)
        model = COMPILED[made](of.model)
        fit(model, of.objective, sample or of.sample, generator(seed), config.train, checkpoint=checkpoint)
        return model

    plain = trained("plain", 1).state_dict()
    with pytest.raises(Cut):
        trained(before, 1, cut_after(config, 5), file)
    names = {*load(file)["model"]}
    assert (names == {*plain}) == (before == "plain")
    left = trained(after, 2, checkpoint=file).state_dict()
    assert all(map(torch.equal, left.values(), plain.values())) and len(left) == len(plain)
    other = build.parts(configure({"predictor.hidden": [9]}, base=config), 0).model
    with pytest.raises(ValueError, match="the checkpoint is of another model"):
        restore(COMPILED[after](other), load(file), file)
