"""Runs: a function of configuration and seed, never done twice; one built on another begins where that ended."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path

import pytest
import torch
from conftest import Normed, changed, child_of, encoders, same, stamps, state, successor_of

from jepa.checkpoints import load as load_checkpoint
from jepa.monitor import CollapseWarning
from jepa.runs import build, frozen
from jepa.runs import run as runs
from jepa.runs.config import Part
from jepa.runs.data import generate
from jepa.runs.run import load_model, load_parts, run, train_run
from jepa.runs.tasks import task_key
from jepa.streams import generator_for
from jepa.train import fit


def test_finished_run_is_not_repeated(task, tmp_path, drawn):
    first = run(task, tmp_path)
    before = stamps(tmp_path)
    assert len(drawn) == 8
    again = run(task._replace(name="the same under another name"), tmp_path)
    assert again.rows == first.rows and again.task.name != first.task.name
    assert stamps(tmp_path) == before and len(drawn) == 8


OTHER_SET = {"held_out": "another"}
MEASURED = [{"measure": ["area"]}, {"measure.area.epsilon": 0.5}, {"at_measurement.steps": 4}, {"evaluation.pairs": 8}]


@pytest.mark.parametrize("diff", [OTHER_SET, *MEASURED], ids=str)
def test_new_measure_or_held_out_set_trains_nothing(task, tmp_path, drawn, diff):
    first, other = run(task, tmp_path / "store"), tmp_path / "data"
    generate(other, Part("plane"), 64, seed=2)
    again = run(task._replace(held_out=other) if diff is OTHER_SET else changed(task, **diff), tmp_path / "store")
    assert len(drawn) == 8 and again.folder == first.folder and again.rows != first.rows
    assert again.curve == first.curve
    assert run(task, tmp_path / "store").rows == first.rows  # both records are kept


@pytest.mark.parametrize(
    "diff",
    [
        {"train.rate": 0.1},
        {"train.steps": 9},
        {"loss.energy": 2.0},
        {"latent.alpha": 0.5},
        {"target_encoder.hidden": [9]},
        {"seed": 4},
    ],
    ids=str,
)
def test_new_setting_of_the_training_trains_afresh(task, tmp_path, drawn, diff):
    first = run(task, tmp_path)
    other = task._replace(**diff) if "seed" in diff else changed(task, **diff)
    again = run(other, tmp_path)
    assert len(drawn) == 8 + other.config.train.steps and again.folder != first.folder
    assert again.curve != first.curve


PLACES = [(frozen, "encoded"), (frozen, "save"), (runs, "fit"), (runs, "measured")]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[1])
@pytest.mark.parametrize("build_on", [lambda task: task, child_of, successor_of])
def test_run_that_is_cut_anywhere_goes_on_to_the_same(task, tmp_path, drawn, monkeypatch, build_on, place):
    one, parts = build_on(task), 1

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    whole = run(one, tmp_path / "whole")
    for parent in one.parents.values():
        train_run(parent, tmp_path / "cut")
        parts = 2
    with monkeypatch.context() as patch:
        patch.setattr(*place, stop)
        if place[0] is runs or "encoder" in one.parents:
            with pytest.raises(KeyboardInterrupt):
                run(one, tmp_path / "cut")
    again = run(one, tmp_path / "cut")
    assert again.rows == whole.rows and again.curve == whole.curve and same(state(again), state(whole))
    assert drawn.count(8) == 8 * 2 * (1 if build_on is child_of else parts)  # what was trained is not trained again


def test_training_alone_is_done_once_and_measures_nothing(task, tmp_path, drawn):
    folder = train_run(task, tmp_path / "trained")
    before = stamps(tmp_path)
    assert train_run(task, tmp_path / "trained") == folder and stamps(tmp_path) == before
    assert len(drawn) == 8 and not list(tmp_path.rglob("*.json"))
    one, two = (run(task, tmp_path / store) for store in ("trained", "whole"))
    assert len(drawn) == 16 and one.rows == two.rows and one.curve == two.curve and one.folder == folder


def test_run_builds_its_parts_once_and_those_of_each_parent(task, tmp_path, monkeypatch):
    built, parts = [], build.parts

    def counted(config, seed, encoded=False, below=0):
        built.append((config, seed, encoded))
        return parts(config, seed, encoded, below)

    monkeypatch.setattr(build, "parts", counted)
    asked = [task, child_of(task), successor_of(task), child_of(successor_of(task))]
    for one in asked:
        for parent in one.parents.values():
            train_run(parent, tmp_path)
        built.clear()
        run(one, tmp_path)
        own = (one.config, one.seed, "encoder" in one.parents)
        assert built == [own, *((parent.config, parent.seed, False) for parent in one.parents.values())]
        run(one, tmp_path)
        assert len(built) == 1 + len(one.parents)  # what is stored needs none


@pytest.mark.parametrize("step", [1, 114, 115, 230])
def test_training_that_is_stopped_after_any_step_goes_on_from_there(task, tmp_path, drawn, step):
    task = changed(task, **{"train.steps": 230, "latent": "none", "monitor.times": 2, "measure": ["area"]})

    def stop(finished):
        if finished == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(task, tmp_path / "cut", stop)
    assert drawn.count(8) == step
    cut, whole = run(task, tmp_path / "cut"), run(task, tmp_path / "whole")
    assert drawn.count(8) == 2 * 230 and same(state(cut), state(whole))
    assert (cut.rows, cut.curve, cut.diagnostics) == (whole.rows, whole.curve, whole.diagnostics)


def test_reference_of_a_run_leaves_its_model_as_it_is_drawn(task, tmp_path, monkeypatch):
    monkeypatch.setitem(build.ENCODERS, "normed", Normed)
    untrained = changed(task, target_encoder={"name": "normed"}, **{"train.steps": 0})
    fresh = build.parts(untrained.config, 3).model.state_dict()
    assert any("running" in name for name in fresh) and same(state(run(untrained, tmp_path)), fresh)


@pytest.mark.parametrize("missing", ["trained", "checkpoint.pt"])
def test_what_is_not_known_to_be_trained_is_trained(task, tmp_path, drawn, missing):
    folder = train_run(task, tmp_path)
    weights = load_checkpoint(folder / "checkpoint.pt")["model"]
    (folder / missing).unlink()
    train_run(task, tmp_path)
    assert len(drawn) == {"trained": 8, "checkpoint.pt": 16}[missing]
    assert same(load_checkpoint(folder / "checkpoint.pt")["model"], weights)


def test_full_disk_leaves_no_record_and_names_the_run(task, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="^tiny, seed 3: .*no space left"):
            run(task, tmp_path)
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ({"latent": {"name": "none", "size": 3}}, "latent: option of 'none'"),
        ({"measure": ["aera"]}, "measure: expected one of .*found 'aera'"),
        ({"measure": {"area": {"gird": 9}}}, "measure.area: option of 'area'"),
        ({"at_measurement": {"stesp": 5}}, "latent: option of 'low_dimensional'"),
    ],
    ids=str,
)
def test_what_does_not_exist_names_variant_and_seed_before_anything_is_trained(task, tmp_path, drawn, diff, message):
    with pytest.raises(ValueError, match=f"^tiny, seed 3: {message}"):
        run(changed(task, **diff), tmp_path)
    with pytest.raises(ValueError, match="^tiny, seed 3: data: expected lost/manifest.json"):
        run(task._replace(held_out=tmp_path / "lost"), tmp_path)
    assert not drawn


@pytest.mark.parametrize("text", ["", '{"rows": [', "\udcff"])
def test_damaged_record_is_named_with_the_remedy(task, tmp_path, text):
    run(task, tmp_path)
    (record,) = tmp_path.rglob("measured-*.json")
    record.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=f"^tiny, seed 3: {record}: expected a record.*delete it to measure again"):
        run(task, tmp_path)


def test_damaged_checkpoint_is_named(task, tmp_path):
    done = run(task, tmp_path)
    file = done.folder / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{file}: expected a checkpoint"):
        load_model(done)
    with pytest.raises(ValueError, match=f"^tiny, seed 3: {file}: expected a checkpoint"):
        run(changed(task, **{"measure.area.epsilon": 0.5}), tmp_path)


def test_trained_model_infers_as_it_was_measured_on_the_cpu(task, tmp_path):
    done = run(changed(task, **{"at_measurement": {"steps": 5}}), tmp_path)
    elsewhere = done._replace(task=changed(done.task, device="meta"))  # as if trained on an accelerator
    for model in (load_model(done), load_model(elsewhere)):
        assert model.latent.steps == 5 and not model.training
        tensors = [*model.parameters(), *model.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        stored = state(done)
        assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "diff, same_run",
    [({"train.rate": 0.05}, False), ({"train.steps": 9}, False), ({"seed": 4}, False), ({"measure": ["area"]}, True)],
    ids=str,
)
def test_child_is_another_one_if_its_parent_is(task, tmp_path, diff, same_run):
    child = child_of(task)
    parent = task._replace(**diff) if "seed" in diff else changed(task, **diff)
    one, two = (run(child._replace(parents={"encoder": older}), tmp_path) for older in (task, parent))
    assert (one.folder == two.folder) == same_run == same(state(one), state(two))
    assert run(child._replace(parents={}), tmp_path).folder not in (one.folder, two.folder)


@pytest.mark.parametrize("build_on", [child_of, successor_of])
def test_task_is_told_apart_by_all_that_it_asks_for(task, build_on):
    one = build_on(task)
    others = [task, child_of(task), successor_of(task), build_on(one), build_on(task._replace(seed=4))]
    others += [one._replace(seed=4), one._replace(name="other"), one._replace(held_out=Path("elsewhere"))]
    others += [changed(one, **{"measure.area.epsilon": 0.5}), one._replace(parents={})]
    keys = {task_key(other) for other in others}
    assert len(keys) == len(others) and task_key(one) in keys
    assert task_key(build_on(task)) == task_key(one)


NETWORK = {"inference": {"name": "amortized", "features": 3, "hidden": 8}, "at_measurement": {"network": False}}


@pytest.mark.parametrize("own", [{}, NETWORK], ids=["minimize", "a network in training only"])
def test_training_begins_with_the_weights_of_the_parent(task, tmp_path, drawn, own):
    task = changed(task, **own, **{"expander.name": "expander", "loss.variance": 1.0})
    untrained = run(successor_of(task, **{"train.steps": 0}), tmp_path)
    parent = run(task, tmp_path)
    assert load_model(untrained).latent.network is None and bool(own) == ("latent.network" in str(state(untrained)))
    assert drawn == [8] * 8 and same(state(untrained), state(parent)) and untrained.folder != parent.folder
    assert state(parent, "objective") and same(state(untrained, "objective"), state(parent, "objective"))
    assert untrained.rows == parent.rows and untrained.curve["step"] == []
    fresh = build.parts(task.config, 3).model.state_dict()
    assert not torch.equal(fresh["predictor.first.weight"], state(parent)["predictor.first.weight"])


def test_training_goes_on_from_the_parents_weights_with_draws_of_its_own(task, tmp_path):
    successor = run(successor_of(task, **{"train.rate": 0.02}), tmp_path)
    config, of = successor.task.config, load_parts(task, run(task, tmp_path).folder)
    curve = fit(of.model, of.objective, of.world.sample, generator_for("purpose", 3, "batches"), config.train)
    assert successor.curve == {"step": curve.steps, **curve.terms} and same(state(successor), of.model.state_dict())


def test_encoder_and_start_are_two_ways_of_being_built_on_a_run(task, tmp_path):
    frozen, start = (run(task._replace(parents={role: task}), tmp_path) for role in ("encoder", "start"))
    assert frozen.folder != start.folder and same(encoders(frozen), encoders(run(task, tmp_path)))
    assert not same(encoders(start), encoders(frozen))


def test_weights_that_do_not_fit_are_named(task, tmp_path):
    wide = successor_of(task, **{"predictor.hidden": [9]})
    with pytest.raises(ValueError, match="^successor, seed 3: start: expected the shape of the variant it is built on"):
        run(wide, tmp_path)
    other = child_of(task, target_encoder={"outputs": 4})
    with pytest.raises(
        ValueError, match="^child, seed 3: target_encoder: expected the shape of the variant it is built on"
    ):
        run(other, tmp_path)


def test_monitor_measures_in_units_of_the_untrained_model(task, tmp_path):
    monitored = changed(task, **{"monitor.times": 2})
    done, parent = run(successor_of(monitored), tmp_path), run(monitored, tmp_path)
    unit = build.monitor(done.task.config, build.parts(done.task.config, 3))
    assert done.diagnostics["step"] == parent.diagnostics["step"] == [0, 4, 8]
    assert parent.diagnostics["spread"][0] == 1 != done.diagnostics["spread"][0]
    first = unit.evaluate(load_model(parent))._asdict()
    assert done.diagnostics.keys() == {"step", *first}
    assert {name: values[0] for name, values in done.diagnostics.items() if name != "step"} == pytest.approx(first)
    assert done.diagnostics["spread"][0] == pytest.approx(parent.diagnostics["spread"][-1])


def test_monitor_changes_nothing_and_none_is_none(task, tmp_path):
    task = changed(task, latent={"name": "discrete", "size": 3})
    plain, monitored = run(task, tmp_path), run(changed(task, **{"monitor.times": 3}), tmp_path)
    assert plain.folder != monitored.folder and same(state(plain), state(monitored)) and plain.rows == monitored.rows
    assert plain.diagnostics == {"step": []} and plain.warnings == monitored.warnings == []


COLLAPSES = {
    "encoder": {"name": "mlp", "outputs": 3, "hidden": [8]},
    "latent": "none",
    "train": {"steps": 400, "batch": 64, "rate": 0.01},
    "monitor.times": 4,
    "measure": [],
}


def test_training_that_collapses_says_so_in_its_run(task, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)  # kept with the run, told to nobody else
        done = run(changed(task, **COLLAPSES), tmp_path)
    (sentence,) = done.warnings
    assert "criteria 1 and 2 are missing" in sentence and done.diagnostics["contrast"][-1] < 0.01
    assert run(done.task, tmp_path).warnings == done.warnings
    healthy = run(changed(done.task, **{"loss": {"variance": 5.0, "covariance": 1.0}}), tmp_path)
    assert healthy.warnings == [] and healthy.diagnostics["spread"][-1] > 0.1
    assert all(math.isfinite(value) for values in done.diagnostics.values() for value in values)
