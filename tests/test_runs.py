"""Runs: the same whoever does them, in whatever order; never done twice; a failure keeps what is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ROOT

from jepa import build, data, runs
from jepa.config import Part, configure
from jepa.model import JEPA
from jepa.runs import Task, execute, execute_all, trained
from jepa.train import fit
from jepa.worlds.pairs import Pairs
from jepa.worlds.plane import Plane

SMALL = {
    "latent": {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 2},
    "encoder_y": {"name": "mlp", "outputs": 3, "hidden": [8]},
    "predictor": {"hidden": [8]},
    "train": {"steps": 8, "batch": 8},
    "measure": {"names": ["area", "volume"], "contexts": 1, "grid": 8, "chains": 64, "moves": 4},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep the tests' own process to one thread, like a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Return the folder of a small held-out set."""
    folder = tmp_path_factory.mktemp("data") / "places"
    data.write(folder, Part("plane"), 64, seed=1)
    return folder


@pytest.fixture
def task(held_out):
    """Return a small run that is asked for."""
    return Task("tiny", configure(SMALL), 3, held_out)


@pytest.fixture
def drawn(monkeypatch):
    """Return a list that grows with every batch that is drawn for training."""
    batches, sample = [], Plane.sample

    def watched(world, count, generator):
        batches.append(count)
        return sample(world, count, generator)

    monkeypatch.setattr(Plane, "sample", watched)
    return batches


def state(run) -> dict[str, torch.Tensor]:
    """Return the weights that a run stored."""
    return torch.load(run.folder / "checkpoint.pt", weights_only=True)["model"]


def stamps(store) -> dict:
    """Return when each file of a store was last written."""
    return {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}


def changed(task, **diff):
    """Return a task with settings changed."""
    return task._replace(config=configure(diff, base=task.config))


def child_of(task, **diff):
    """Return a task that keeps the encoders of another one."""
    diff = {"train": {"rate": 0.01, "pool": 48}, "latent": {"name": "discrete", "size": 3}, **diff}
    return changed(task, **diff)._replace(name="child", frozen=task)


def encoders(run):
    """Return the weights of the encoders that a run stored."""
    return {name: value for name, value in state(run).items() if name.startswith("encoder_")}


def same(one, two):
    """Return whether two states are the same to the bit."""
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.fixture
def threads(monkeypatch):
    """Let the pool be one of threads, which start at once and can be watched."""
    monkeypatch.setattr(runs, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(workers))


def test_results_do_not_depend_on_who_does_them_nor_on_the_order(task, tmp_path):
    other = changed(task, latent="none")._replace(name="other")
    tasks, ended = [t._replace(seed=seed) for t in (task, other) for seed in (0, 1)], []
    tasks.insert(1, child_of(tasks[0]))
    pooled = execute_all(tasks, tmp_path / "pooled", workers=2, progress=ended.append)
    alone = [execute(t, tmp_path / "alone") for t in reversed(tasks)][::-1]
    assert [run.task for run in pooled] == tasks and sum(ended) == len(tasks)
    for one, two in zip(pooled, alone, strict=True):
        assert one.rows == two.rows and one.curve == two.curve and one.folder.name == two.folder.name
        assert all(torch.equal(value, state(two)[name]) for name, value in state(one).items())
        assert "jepa.train" in one.modules and not any(name.startswith("jepa.lab") for name in one.modules)
    assert len({run.folder for run in pooled}) == len({str(run.rows) for run in pooled}) == len(tasks)


def test_finished_run_is_not_repeated(task, tmp_path, drawn):
    first = execute(task, tmp_path)
    before = stamps(tmp_path)
    assert len(drawn) == 8
    again = execute(task._replace(name="the same under another name"), tmp_path)
    assert again.rows == first.rows and again.task.name != first.task.name
    assert stamps(tmp_path) == before and len(drawn) == 8


@pytest.mark.parametrize(
    "diff", [{"measure.names": ["area"]}, {"measure.epsilon": 0.5}, {"measure.latent": {"steps": 4}}]
)
def test_new_measure_trains_nothing(task, tmp_path, drawn, diff):
    first = execute(task, tmp_path)
    again = execute(changed(task, **diff), tmp_path)
    assert len(drawn) == 8 and again.folder == first.folder and again.rows != first.rows
    assert again.curve == first.curve
    assert execute(task, tmp_path).rows == first.rows  # both records are kept


def test_new_held_out_set_trains_nothing_and_is_measured(task, tmp_path, drawn):
    first = execute(task, tmp_path / "store")
    data.write(tmp_path / "data", Part("plane"), 64, seed=2)
    again = execute(task._replace(held_out=tmp_path / "data"), tmp_path / "store")
    assert len(drawn) == 8 and again.folder == first.folder and again.rows != first.rows


@pytest.mark.parametrize(
    "diff",
    [
        {"train.rate": 0.1},
        {"train.steps": 9},
        {"loss.energy": 2.0},
        {"latent.alpha": 0.5},
        {"encoder_y.hidden": [9]},
        {"seed": 4},
    ],
    ids=str,
)
def test_new_setting_of_the_training_trains_afresh(task, tmp_path, drawn, diff):
    first = execute(task, tmp_path)
    other = task._replace(**diff) if "seed" in diff else changed(task, **diff)
    again = execute(other, tmp_path)
    assert len(drawn) == 8 + other.config.train.steps and again.folder != first.folder
    assert again.curve != first.curve


def test_run_cut_between_training_and_measuring_is_measured_only(task, tmp_path, drawn, monkeypatch):
    def cut(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.evaluate, "measure", cut)
        with pytest.raises(KeyboardInterrupt):
            execute(task, tmp_path / "cut")
    assert len(drawn) == 8
    assert execute(task, tmp_path / "cut").rows == execute(task, tmp_path / "whole").rows
    assert len(drawn) == 16


def test_full_disk_leaves_no_record_and_names_the_run(task, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="^tiny, seed 3: .*no space left"):
            execute(task, tmp_path)
    assert not list(tmp_path.rglob("*.json")) and not list(tmp_path.rglob("*.pt"))


def test_failure_names_variant_and_seed(task, tmp_path):
    with pytest.raises(ValueError, match="^tiny, seed 3: data: expected lost/manifest.json"):
        execute(task._replace(held_out=tmp_path / "lost"), tmp_path)
    with pytest.raises(ValueError, match="^tiny, seed 3: latent: option of 'none'"):
        execute(changed(task, latent={"name": "none", "size": 3}), tmp_path)


@pytest.mark.parametrize("text", ["", '{"rows": [', "\udcff"])
def test_damaged_record_is_named_with_the_remedy(task, tmp_path, text):
    execute(task, tmp_path)
    (record,) = tmp_path.rglob("measured-*.json")
    record.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=f"^tiny, seed 3: {record}: expected a record.*delete it to measure again"):
        execute(task, tmp_path)


def test_damaged_checkpoint_is_named(task, tmp_path):
    run = execute(task, tmp_path)
    file = run.folder / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{file}: expected a checkpoint"):
        trained(run)
    with pytest.raises(ValueError, match=f"^tiny, seed 3: {file}: expected a checkpoint"):
        execute(changed(task, **{"measure.epsilon": 0.5}), tmp_path)


def test_trained_model_infers_as_it_was_measured_on_the_cpu(task, tmp_path):
    run = execute(changed(task, **{"measure.latent": {"steps": 5}}), tmp_path)
    elsewhere = run._replace(task=changed(run.task, device="meta"))  # as if trained on an accelerator
    for model in (trained(run), trained(elsewhere)):
        assert model.latent.steps == 5 and not model.training
        tensors = [*model.parameters(), *model.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        stored = state(run)
        assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


class Fatal(str):
    """A name that kills the process which unpickles it, as the system does when memory runs out."""

    def __reduce__(self):
        return os._exit, (9,)


def test_killed_worker_is_an_error_and_finished_runs_are_kept(task, tmp_path):
    fatal = task._replace(name=Fatal("fatal"), seed=4)
    with pytest.raises(RuntimeError, match="a worker process was killed.*finished runs are kept, run again to go on"):
        execute_all([task, fatal], tmp_path, workers=1)
    (record,) = tmp_path.rglob("measured-*.json")
    assert json.loads(record.read_text())["seed"] == 3
    before = stamps(tmp_path)
    assert execute(task, tmp_path).task == task and stamps(tmp_path) == before


def test_first_failure_stops_the_rest_and_keeps_what_is_finished(task, tmp_path):
    bad = task._replace(name="bad", seed=7, held_out=tmp_path / "lost")
    rest = [changed(task, **{"train.steps": 200})._replace(seed=seed) for seed in range(12)]
    with pytest.raises(ValueError, match="^bad, seed 7: data: expected lost/manifest.json"):
        execute_all([task, bad, *rest], tmp_path / "store", workers=1)
    seeds = [json.loads(file.read_text())["seed"] for file in (tmp_path / "store").rglob("*.json")]
    assert 3 in seeds and len(seeds) < 6


def test_pool_needs_a_worker(task, tmp_path):
    with pytest.raises(ValueError, match="workers: expected at least 1, found 0"):
        execute_all([task], tmp_path, workers=0)


def test_child_keeps_the_encoders_of_its_parent_to_the_bit(task, tmp_path, drawn):
    child = execute(child_of(task), tmp_path)
    assert drawn == [8] * 8 + [48]  # the parent's batches, then the pool
    parent = execute(task, tmp_path)
    assert len(drawn) == 9 and parent.folder != child.folder
    fresh = build.model(child.task.config, 3)
    assert len(encoders(child)) == 4 and same(encoders(child), encoders(parent))
    assert not torch.equal(state(child)["encoder_y.layers.0.weight"], fresh.encoder_y.layers[0].weight)
    assert not torch.equal(state(child)["predictor.first.weight"], fresh.predictor.first.weight)
    assert trained(child).latent.width == 3 and child.curve["step"] == list(range(1, 9))
    kept = trained(child).eval().encoder_y(torch.ones(1, 2))
    assert torch.equal(kept, trained(parent).encoder_y(torch.ones(1, 2)))


def test_child_learns_on_a_pool_of_its_parents_representations(task, tmp_path):
    child = execute(child_of(task, train={"rate": 0.02, "pool": 700}), tmp_path)
    parent, config, generator = trained(execute(task, tmp_path)), child.task.config, torch.Generator().manual_seed(3)
    world, model = build.world(config), build.model(config, 3)
    pairs = [world.sample(count, generator) for count in (256, 256, 188)]  # 256 at a time
    with torch.no_grad():
        pool = [torch.cat([encode(part) for part in side]) for encode, side in (
            (parent.encoder_x, [pair.x for pair in pairs]), (parent.encoder_y, [pair.y for pair in pairs])
        )]  # fmt: skip

    def sample(count, generator):
        rows = torch.randint(700, (count,), generator=generator)
        return Pairs(pool[0][rows], torch.zeros(count, 0), pool[1][rows], {})

    behind = JEPA(torch.nn.Identity(), torch.nn.Identity(), model.predictor, model.latent)
    curve = fit(behind, sample, (config.train, config.loss), generator)
    assert child.curve == {"step": curve.steps, **curve.terms}
    found = {name: value for name, value in state(child).items() if name.startswith("predictor.")}
    assert same(found, {f"predictor.{name}": value for name, value in model.predictor.state_dict().items()})


def test_parent_is_trained_once_whoever_asks(task, tmp_path, drawn, threads):
    other = child_of(task, latent={"name": "discrete", "size": 2})._replace(name="other")
    for number, asked in enumerate(([child_of(task), other], [child_of(task), task, other], [other, task])):
        ended, store = [], tmp_path / str(number)
        drawn.clear()
        found = execute_all(asked, store, progress=ended.append)
        assert [run.task for run in found] == asked and ended == [1] * len(asked)
        children = sum(one.frozen is not None for one in asked)
        assert sorted(drawn) == [8] * 8 + [48] * children
        before = stamps(store)
        again = execute_all(asked, store, progress=ended.append)
        assert [run.rows for run in again] == [run.rows for run in found] and sum(ended) == 2 * len(asked)
        assert stamps(store) == before and len(drawn) == 8 + children
        assert len(list(store.iterdir())) == 1 + children


def test_child_waits_for_its_own_parent(task, tmp_path, drawn, threads):
    slow = changed(task, **{"train.steps": 60})
    asked = [child_of(slow), task._replace(seed=9), child_of(task)]
    found = execute_all(asked, tmp_path, workers=2)
    assert [run.task for run in found] == asked and sorted(drawn) == [8] * (60 + 8 + 8) + [48, 48]


def test_runs_that_differ_in_the_measuring_only_are_told_apart(task, tmp_path, threads):
    finer = changed(task, **{"measure.epsilon": 0.5})._replace(name="finer")
    asked = [task, finer, child_of(finer), task._replace(name="the same under another name")]
    found = execute_all(asked, tmp_path)
    assert [run.task for run in found] == asked
    assert found[0].rows == found[3].rows != found[1].rows and found[0].folder == found[1].folder


def test_every_seed_keeps_the_encoders_of_its_own(task, tmp_path, threads):
    asked = [child_of(task._replace(seed=seed)) for seed in (1, 2)]
    found = execute_all(asked, tmp_path, workers=1)
    parents = [execute(child.frozen, tmp_path) for child in asked]
    assert all(same(encoders(run), encoders(parent)) for run, parent in zip(found, parents, strict=True))
    assert not same(encoders(found[0]), encoders(found[1]))


@pytest.mark.parametrize("diff, same_run", [
    ({"train.rate": 0.05}, False), ({"train.steps": 9}, False), ({"seed": 4}, False), ({"measure.epsilon": 0.5}, True),
], ids=str)  # fmt: skip
def test_child_is_another_one_if_its_parent_is(task, tmp_path, diff, same_run):
    child = child_of(task)
    parent = task._replace(**diff) if "seed" in diff else changed(task, **diff)
    one, two = (execute(child._replace(frozen=frozen), tmp_path) for frozen in (task, parent))
    assert (one.folder == two.folder) == same_run == same(state(one), state(two))
    assert execute(child._replace(frozen=None), tmp_path).folder not in (one.folder, two.folder)


def test_child_cut_behind_its_training_is_the_same_child(task, tmp_path, drawn, monkeypatch):
    whole = execute(child_of(task), tmp_path / "whole")

    def cut(*arguments):
        raise KeyboardInterrupt

    for place in ((runs, "save"), (runs.evaluate, "measure")):
        store = tmp_path / place[1]
        execute(task, store)
        with monkeypatch.context() as patch:
            patch.setattr(*place, cut)
            with pytest.raises(KeyboardInterrupt):
                execute(child_of(task), store)
        again = execute(child_of(task), store)
        assert again.rows == whole.rows and again.curve == whole.curve and same(state(again), state(whole))


def test_failing_parent_is_named_and_its_children_are_not_begun(task, tmp_path, drawn, threads):
    bad = task._replace(name="parent", held_out=tmp_path / "lost")
    child = child_of(bad)._replace(held_out=task.held_out)
    with pytest.raises(ValueError, match="^child, seed 3: parent, seed 3: data: expected lost/manifest.json"):
        execute(child, tmp_path / "one")
    with pytest.raises(ValueError, match="^parent, seed 3: data: expected lost/manifest.json"):
        execute_all([child, child._replace(name="other")], tmp_path / "all")
    assert not drawn and not list(tmp_path.rglob("*.json"))


def test_failing_child_is_named(task, tmp_path, threads):
    child = child_of(task, latent={"name": "none", "size": 3})
    with pytest.raises(ValueError, match="^child, seed 3: latent: option of 'none'"):
        execute_all([child], tmp_path)
    other = child_of(task, encoder_y={"outputs": 4})
    with pytest.raises(ValueError, match="^child, seed 3: "):  # its encoders are none that it could keep
        execute(other, tmp_path)


IMPORTS = """
import importlib, json, pathlib, sys
steps = {"": {name.partition(".")[0] for name in sys.modules}}
def step(name, *modules):
    before = {name.partition(".")[0] for name in sys.modules}
    for module in modules:
        importlib.import_module(module)
    after = {name.partition(".")[0] for name in sys.modules}
    steps[name] = sorted(name for name in after - before - sys.stdlib_module_names if name[0] != "_")
import jepa
step("jepa")
steps["jepa"] += sorted({"numpy", "torch", "pandas", "yaml"} & set(sys.modules))
step("needed", "torch", "numpy", "scipy.special", "yaml", "tqdm")
root = pathlib.Path(jepa.__path__[0])
files = [file.relative_to(root.parent).with_suffix("") for file in root.rglob("*.py") if file.stem[:2] != "__"]
step("science", *[".".join(file.parts) for file in files if file.parts[1] != "lab"])
steps["lab"] = sorted(name for name in sys.modules if name.startswith("jepa.lab"))
del steps[""]
print(json.dumps(steps))
"""


def test_package_imports_nothing_and_the_science_no_laboratory():
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    steps = json.loads(done.stdout)
    assert steps["jepa"] == [] and steps["lab"] == []
    assert set(steps["science"]) <= {"pandas"}  # besides torch, numpy, scipy, yaml and tqdm
