"""Pairs behind frozen encoders: encoded once for all that is built on them, and a run is the same with and without."""

from __future__ import annotations

import shutil

import pytest
import torch
from conftest import SMALL, Normed, changed, child_of, encoders, generator, same, stamps, state

from jepa import encoded, train
from jepa.checkpoints import load as load_checkpoint
from jepa.checkpoints import save
from jepa.data import HeldOut, load
from jepa.evaluate.subject import measured, reference_of
from jepa.model import JEPA
from jepa.objectives.pairs import PairObjective
from jepa.runs import build, frozen
from jepa.runs.behavior import Code, loaded
from jepa.runs.config import Part, configure
from jepa.runs.data import generate
from jepa.runs.resumed import resumed
from jepa.runs.run import load_model, load_parts, run
from jepa.runs.tasks import Task
from jepa.sampling import pool
from jepa.streams import generator_for
from jepa.train import fit


class Noisy(torch.nn.Module):
    """An encoder that is another function while it is trained."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.training


def settings(**diff):
    """Return a configuration with few pairs, whose predictor is told something."""
    return configure(SMALL, {"condition_on": ["mode"], "pool": 300}, diff)


def made(config, count=600, seed=7):
    """Return what encoders make of pairs, the model and the held-out set."""
    of = build.parts(config, 0)
    of.model.encoder, pairs = Noisy(of.model.encoder), of.world.sample(count, generator(1))
    held_out = HeldOut(pairs.x, pairs.y, pairs.factors)
    counts, drawing = (config.pool, 40), [generator_for(config.streams, seed, name) for name in ("pool", "probe pairs")]
    futures = encoded.alternatives(of.model, of.world, held_out)
    return encoded.encoded(of.model, of.sample, counts, drawing, held_out, futures), of.model.eval(), held_out


@pytest.mark.parametrize("streams", ["purpose", "seed"])
def test_pairs_are_encoded_as_outside_of_training(streams):
    config = configure({"streams": streams}, base=settings())
    found, model, held_out = made(config)
    drawing, again = (generator_for(streams, 7, purpose) for purpose in ("pool", "probe pairs"))
    source = build.source(config, build.world(config))
    pool = [source(count, drawing) for count in (256, 44)]
    seen = source(40, again)
    for part, pairs in ((found.pool, pool), (found.probe_pairs, [seen])):
        x, a, y = (torch.cat([getattr(one, name) for one in pairs]) for name in "xay")
        torch.testing.assert_close(part.x, x, rtol=0, atol=0)  # the identity, without what training would add
        assert torch.equal(part.a, a) and part.a.shape[1] == 1 and not part.y.requires_grad
        with torch.no_grad():
            torch.testing.assert_close(part.y, model.target_encoder(y))
    assert found.pool.factors == {} and same(found.probe_pairs.factors, seen.factors)
    assert torch.equal(found.state, drawing.get_state()) and torch.equal(found.held_out.s_x, held_out.x)
    with torch.no_grad():
        torch.testing.assert_close(found.held_out.s_y, model.target_encoder(held_out.y))


def test_futures_that_cannot_be_counted_are_none():
    assert made(settings())[0].alternatives.shape == (512, 0, 0)
    assert made(settings(), count=60)[0].alternatives.shape == (60, 0, 0)


def test_futures_are_those_of_the_first_held_out_pairs():
    fork = build.world(configure({"world": {"name": "fork", "frames": 2, "turns": [-1, 0, 1], "odds": [1, 1, 1]}}))
    pairs = fork.sample(20, generator(1))
    keep = torch.nn.Flatten()
    found = encoded.alternatives(JEPA(keep, keep, None, None), fork, HeldOut(pairs.x, pairs.y, pairs.factors))
    for m in range(3):
        clear = fork.render(pairs.factors | {"branch": torch.full((20, 1), m)}).y.flatten(1)
        gap = (found[:, m] - clear).abs()
        others = (found[:, (m + 1) % 3] - clear).abs()
        assert (gap.mean(1) < others.mean(1)).all() and gap.amax(1).min() > 0.1  # with trees and noise of their own
    drawn = torch.get_rng_state()
    again = encoded.alternatives(JEPA(keep, keep, None, None), fork, HeldOut(pairs.x, pairs.y, pairs.factors))
    assert torch.equal(found, again) and torch.equal(torch.get_rng_state(), drawn)


def test_what_is_written_is_what_is_read(tmp_path):
    found = made(settings())[0]
    save(tmp_path / "file.pt", {"model": {}, **encoded.packed(found)})
    read = encoded.unpacked(load_checkpoint(tmp_path / "file.pt"))
    for one, two in ((found.pool, read.pool), (found.probe_pairs, read.probe_pairs)):
        assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in "xay")
        assert same(one.factors, two.factors)
    assert all(torch.equal(one, two) for one, two in zip(found.held_out, read.held_out, strict=True))
    assert torch.equal(found.alternatives, read.alternatives) and torch.equal(found.state, read.state)


def files(store):
    """Return the files of encoded pairs in a store."""
    return sorted(store.rglob("encoded-*.pt"))


NETWORK = {"name": "amortized", "features": 3, "hidden": 8}


@pytest.mark.parametrize("step", [0, 4])
@pytest.mark.parametrize("kind", ["mlp", "normed"])
def test_frozen_encoders_are_the_parents_to_the_bit_with_their_statistics(task, tmp_path, monkeypatch, kind, step):
    monkeypatch.setitem(build.ENCODERS, "normed", Normed)
    own = {"name": kind, "outputs": 3}
    parent = changed(task, encoder=own, target_encoder=own, **{"loss.variance": 1.0, "expander.name": "expander"})
    child = child_of(parent, inference=NETWORK, **{"monitor.times": 2})
    done = resumed(run, child, tmp_path, step / 8) if step else run(child, tmp_path)
    older, fresh = run(parent, tmp_path), build.parts(child.config, 3)
    assert same(encoders(done), encoders(older)) and older.folder != done.folder
    assert (kind == "normed") == any("running" in name for name in encoders(done))
    for part in ("model", "objective"):  # all else is the child's own, and trained
        found, first = state(done, part), getattr(fresh, part).state_dict()
        assert found.keys() == first.keys() and any("weight" in name for name in found)
        assert not any(torch.equal(value, first[name]) for name, value in found.items() if value.ndim > 1)
    assert sorted(file.name for file in done.folder.glob("*.pt")) == ["checkpoint.pt"]


@pytest.mark.parametrize("streams", ["purpose", "seed"])
@pytest.mark.parametrize("inference", ["minimize", NETWORK])
def test_child_that_is_cut_and_resumed_is_the_same_child(task, tmp_path, monkeypatch, streams, inference):
    parent = changed(task, streams=streams)
    child = child_of(parent, inference=inference, **{"monitor.times": 2, "expander.name": "expander"})
    child, loads = changed(child, **{"loss.variance": 1.0}), []
    run(parent, tmp_path / "cut")
    monkeypatch.setattr(train, "load", lambda path, load=train.load: loads.append(path) or load(path))
    cut, whole = resumed(run, child, tmp_path / "cut", 0.5), run(child, tmp_path / "whole")
    assert loads == [cut.folder / "checkpoint.pt"]
    assert (cut.rows, cut.curve, cut.diagnostics) == (whole.rows, whole.curve, whole.diagnostics)
    assert same(state(cut), state(whole)) and same(state(cut, "objective"), state(whole, "objective"))


@pytest.mark.parametrize("streams", ["purpose", "seed"])
def test_child_learns_on_a_pool_of_its_parents_representations(task, tmp_path, streams):
    task = changed(task, streams=streams)
    child = run(child_of(task, train={"rate": 0.02}, pool=700), tmp_path)
    parent, config = load_model(run(task, tmp_path)), child.task.config
    drawing, of = generator_for(streams, 3, "pool"), build.parts(config, 3)
    pairs = [of.world.sample(count, drawing) for count in (256, 256, 188)]  # 256 at a time
    with torch.no_grad():
        s = [parent.encode(one.x, one.y) for one in pairs]
    x, y = (torch.cat(side) for side in zip(*s, strict=True))
    batches = drawing if streams == "seed" else generator_for(streams, 3, "batches")
    behind = JEPA(torch.nn.Identity(), torch.nn.Identity(), of.model.predictor, of.model.latent)
    curve = fit(behind, PairObjective(config.loss), pool(x, y), batches, config.train)
    assert child.curve == {"step": curve.steps, **curve.terms}
    learned = {name: value for name, value in state(child).items() if name not in encoders(child)}
    assert same(learned, behind.state_dict())


def test_two_children_share_what_is_encoded(task, tmp_path, drawn):
    one = run(child_of(task), tmp_path)
    (file,) = files(tmp_path)
    assert file.parent == run(task, tmp_path).folder
    before, count = stamps(tmp_path), len(drawn)
    two = run(child_of(task, latent={"name": "discrete", "size": 2}), tmp_path)
    assert len(drawn) == count and files(tmp_path) == [file] and one.folder != two.folder
    assert stamps(tmp_path).items() > before.items()  # nothing that was there is written again


@pytest.mark.parametrize(
    "diff",
    [{"pool": 40}, {"evaluation.samples": 30}, {"condition_on": ["mode"]}, {"context": "y"}, {"seed": 4}],
    ids=str,
)
def test_other_pairs_are_another_file(task, tmp_path, diff):
    parent = run(task, tmp_path)
    held_out = load(task.held_out, {"world": task.config.world.flat()})
    child, other = child_of(task), child_of(task)
    other = other._replace(**diff) if "seed" in diff else changed(other, **diff)
    model = load_model(parent)
    one, two = (frozen.encoded_by(each, model, held_out, parent.folder) for each in (child, other))
    assert len(files(tmp_path)) == 2
    assert not all(
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(one.pool[:3] + one.probe_pairs[:3], two.pool[:3] + two.probe_pairs[:3], strict=True)
    )


def test_other_held_out_set_is_another_file(task, tmp_path):
    generate(tmp_path / "data", Part("plane"), 32, seed=2)
    run(child_of(task), tmp_path / "store")
    run(child_of(task)._replace(held_out=tmp_path / "data"), tmp_path / "store")
    assert len(files(tmp_path / "store")) == 2


FILTERS = {"name": "convolutional", "outputs": 6, "channels": [2], "patch": 8, "hidden": 8}
CLIPS = {
    "world": {"name": "fork", "frames": 2},
    "encoder": FILTERS,
    "target_encoder": FILTERS,
    "predictor": {"hidden": [8]},
    "train": {"steps": 2, "batch": 8},
    "monitor.times": 0,
    "evaluation": {"samples": 80, "probe": 16},
}


def test_run_with_the_encoded_pairs_is_one_without(tmp_path):
    generate(tmp_path / "clips", Part("fork", {"frames": 2}), 40, seed=1)
    task = Task("tiny", configure(CLIPS), 3, tmp_path / "clips", Code(*[loaded()] * 4))
    child = child_of(task, train={}, measure=["collapse", "context", "modes", "latents", "entries"])
    first, store = run(child, tmp_path / "store"), tmp_path / "store"
    (file,) = files(store)
    held_out = load(task.held_out, {"world": task.config.world.flat()})
    of, fresh = load_parts(child, first.folder), build.parts(child.config, 3)
    subject = build.subject(child.config, 3, of, held_out, reference_of(fresh.model, held_out))  # without the pairs
    assert measured(subject, build.measures(child.config)) == first.rows and len(first.rows) > 10
    file.unlink()
    shutil.rmtree(first.folder)
    again = run(child, store)
    assert again.rows == first.rows and again.curve == first.curve and files(store) == [file]
    assert same(state(again), state(first))
