"""Pairs behind frozen encoders: encoded once for all that is built on them, and a run is the same with and without."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from conftest import SMALL, changed, child_of, encoders, generator, same, stamps, state

from jepa.checkpoints import load as load_checkpoint
from jepa.checkpoints import save
from jepa.data import HeldOut, load
from jepa.evaluate.subject import measure
from jepa.model import JEPA
from jepa.runs import build, encoded
from jepa.runs import run as runs
from jepa.runs.behavior import Code, loaded
from jepa.runs.config import Part, configure
from jepa.runs.data import generate
from jepa.runs.run import execute, trained
from jepa.runs.tasks import Task
from jepa.streams import generator_for
from jepa.train import fit
from jepa.worlds.pairs import Pairs


class Noisy(torch.nn.Module):
    """An encoder that is another function while it is trained."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.training


def settings(**diff):
    """Return a configuration with few pairs, whose predictor is told something."""
    return configure(SMALL, {"told": ["mode"], "train.pool": 300, "measure.samples": 40}, diff)


def made(config, count=600, seed=7):
    """Return what encoders make of pairs, the model and the held-out set."""
    model, pairs = build.model(config, 0), build.world(config).sample(count, generator(1))
    model.encoder = Noisy(model.encoder)
    held_out = HeldOut(pairs.x, pairs.y, pairs.factors)
    return encoded.encoded(config, model, held_out, seed), model.eval(), held_out


@pytest.mark.parametrize("streams", ["purpose", "seed"])
def test_pairs_are_encoded_as_outside_of_training(streams):
    config = configure({"streams": streams}, base=settings())
    found, model, held_out = made(config)
    drawing, again = (generator_for(streams, 7, purpose) for purpose in ("pool", "probe pairs"))
    source = build.source(config, build.world(config))
    pool = [source(count, drawing) for count in (256, 44)]
    seen = source(40, again)
    for part, pairs in ((found.pool, pool), (found.seen, [seen])):
        x, a, y = (torch.cat([getattr(one, name) for one in pairs]) for name in "xay")
        torch.testing.assert_close(part.x, x, rtol=0, atol=0)  # the identity, without what training would add
        assert torch.equal(part.a, a) and part.a.shape[1] == 1 and not part.y.requires_grad
        with torch.no_grad():
            torch.testing.assert_close(part.y, model.target_encoder(y))
    assert found.pool.factors == {} and same(found.seen.factors, seen.factors)
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
    for one, two in ((found.pool, read.pool), (found.seen, read.seen)):
        assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in "xay")
        assert same(one.factors, two.factors)
    assert all(torch.equal(one, two) for one, two in zip(found.held_out, read.held_out, strict=True))
    assert torch.equal(found.alternatives, read.alternatives) and torch.equal(found.state, read.state)


def files(store):
    """Return the files of encoded pairs in a store."""
    return sorted(store.rglob("encoded-*.pt"))


def test_child_keeps_the_encoders_of_its_parent_to_the_bit(task, tmp_path, drawn):
    child = execute(child_of(task), tmp_path)
    assert drawn == [8] * 8 + [48, 40]  # the parent's batches, the pool, and pairs for probes
    parent = execute(task, tmp_path)
    assert len(drawn) == 10 and parent.folder != child.folder
    fresh = build.model(child.task.config, 3)
    assert len(encoders(child)) == 4 and same(encoders(child), encoders(parent))
    assert not torch.equal(state(child)["target_encoder.layers.0.weight"], fresh.target_encoder.layers[0].weight)
    assert not torch.equal(state(child)["predictor.first.weight"], fresh.predictor.first.weight)
    assert trained(child).latent.width == 3 and child.curve["step"] == list(range(1, 9))
    kept = trained(child).eval().target_encoder(torch.ones(1, 2))
    assert torch.equal(kept, trained(parent).target_encoder(torch.ones(1, 2)))


@pytest.mark.parametrize("streams", ["purpose", "seed"])
def test_child_learns_on_a_pool_of_its_parents_representations(task, tmp_path, streams):
    task = changed(task, streams=streams)
    child = execute(child_of(task, train={"rate": 0.02, "pool": 700}), tmp_path)
    parent, config = trained(execute(task, tmp_path)), child.task.config
    drawing = generator_for(streams, 3, "pool")
    world, model = build.world(config), build.model(config, 3)
    pairs = [world.sample(count, drawing) for count in (256, 256, 188)]  # 256 at a time
    with torch.no_grad():
        pool = [torch.cat([encode(part) for part in side]) for encode, side in (
            (parent.encoder, [pair.x for pair in pairs]), (parent.target_encoder, [pair.y for pair in pairs])
        )]  # fmt: skip

    def sample(count, generator):
        rows = torch.randint(700, (count,), generator=generator)
        return Pairs(pool[0][rows], torch.zeros(count, 0), pool[1][rows], {})

    batches = drawing if streams == "seed" else generator_for(streams, 3, "batches")
    behind = JEPA(torch.nn.Identity(), torch.nn.Identity(), model.predictor, model.latent)
    curve = fit(behind, sample, (config.train, config.loss), batches)
    assert child.curve == {"step": curve.steps, **curve.terms}
    found = {name: value for name, value in state(child).items() if name.startswith("predictor.")}
    assert same(found, {f"predictor.{name}": value for name, value in model.predictor.state_dict().items()})


def test_two_children_share_what_is_encoded(task, tmp_path, drawn):
    one = execute(child_of(task), tmp_path)
    (file,) = files(tmp_path)
    assert file.parent == execute(task, tmp_path).folder
    before, count = stamps(tmp_path), len(drawn)
    two = execute(child_of(task, latent={"name": "discrete", "size": 2}), tmp_path)
    assert len(drawn) == count and files(tmp_path) == [file] and one.folder != two.folder
    assert stamps(tmp_path).items() > before.items()  # nothing that was there is written again


@pytest.mark.parametrize(
    "diff", [{"train.pool": 40}, {"measure.samples": 30}, {"told": ["mode"]}, {"context": "y"}, {"seed": 4}], ids=str
)
def test_other_pairs_are_another_file(task, tmp_path, diff):
    parent = execute(task, tmp_path)
    held_out = load(task.held_out, {"world": task.config.world.flat()})
    child, other = child_of(task), child_of(task)
    other = other._replace(**diff) if "seed" in diff else changed(other, **diff)
    one, two = (runs._encoded(each, parent.folder, held_out) for each in (child, other))
    assert len(files(tmp_path)) == 2
    fresh = encoded.encoded(other.config, trained(parent), held_out, other.seed)
    assert torch.equal(two.pool.x, fresh.pool.x) and torch.equal(two.seen.a, fresh.seen.a)
    assert not all(
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(one.pool[:3] + one.seen[:3], two.pool[:3] + two.seen[:3], strict=True)
    )


def test_other_held_out_set_is_another_file(task, tmp_path):
    generate(tmp_path / "data", Part("plane"), 32, seed=2)
    execute(child_of(task), tmp_path / "store")
    execute(child_of(task)._replace(held_out=tmp_path / "data"), tmp_path / "store")
    assert len(files(tmp_path / "store")) == 2


FILTERS = {"name": "convolutional", "outputs": 6, "channels": [2], "patch": 8, "hidden": 8}
CLIPS = {
    "world": {"name": "fork", "frames": 2},
    "encoder": FILTERS,
    "target_encoder": FILTERS,
    "predictor": {"hidden": [8]},
    "train": {"steps": 2, "batch": 8, "pool": 48, "watch": 0},
    "measure": {"names": ["collapse", "context", "modes", "latents", "entries"], "samples": 80, "probe": 16},
}


def test_run_with_the_encoded_pairs_is_one_without(tmp_path):
    generate(tmp_path / "clips", Part("fork", {"frames": 2}), 40, seed=1)
    task = Task("tiny", configure(CLIPS, {"measure.names": []}), 3, tmp_path / "clips", Code(*[loaded()] * 4))
    child = child_of(task, train={}, measure={"names": CLIPS["measure"]["names"]})
    first, store = execute(child, tmp_path / "store"), tmp_path / "store"
    (file,) = files(store)
    held_out = load(task.held_out, {"world": task.config.world.flat()})
    found = {row.metric: row.value for row in measure(child.config, trained(first), held_out, 3)}  # from the clips
    assert found == {row.metric: row.value for row in first.rows} and all(map(math.isfinite, found.values()))
    file.unlink()
    shutil.rmtree(first.folder)
    again = execute(child, store)
    assert again.rows == first.rows and again.curve == first.curve and files(store) == [file]
    assert same(state(again), state(first))


def test_child_cut_behind_its_training_is_the_same_child(task, tmp_path, drawn, monkeypatch):
    whole = execute(child_of(task), tmp_path / "whole")

    def cut(*arguments, **options):
        raise KeyboardInterrupt

    for place in ((runs, "encoded"), (runs, "save"), (runs, "fit"), (runs.evaluate, "measure")):
        store = tmp_path / place[1]
        execute(task, store)
        with monkeypatch.context() as patch:
            patch.setattr(*place, cut)
            with pytest.raises(KeyboardInterrupt):
                execute(child_of(task), store)
        again = execute(child_of(task), store)
        assert again.rows == whole.rows and again.curve == whole.curve and same(state(again), state(whole))
