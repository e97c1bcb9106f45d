"""A pool of processes: the same runs whoever does them, in whatever order; what is built on a run waits for it."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import changed, child_of, encoders, same, stamps, state, successor_of

from jepa import data
from jepa.runs import workers
from jepa.runs.run import is_trained, run
from jepa.runs.workers import execute_all


@pytest.fixture
def threads(monkeypatch):
    """Let the pool be one of threads, which start at once and can be watched."""
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))


@pytest.fixture
def done(monkeypatch, threads):
    """Return a list of the trainings and runs that the pool begins and ends, in order."""
    events = []

    def watched(name, do):
        def begin_and_end(task, store):
            events.append(("begin", name, task.name))
            result = do(task, store)
            events.append(("end", name, task.name))
            return result

        return begin_and_end

    for name in ("run", "train_run"):
        monkeypatch.setattr(workers, name, watched(name, getattr(workers, name)))
    return events


def chain_of(task):
    """Return a chain: a start, what begins with its weights, once more, and what keeps the encoders of the last."""
    second = successor_of(task, **{"train.rate": 0.01})._replace(name="second")
    third = successor_of(second, **{"train.rate": 0.02})._replace(name="third")
    return [task._replace(name="tiny"), second, third, child_of(third)]


def told(file):
    """Return what was to be done by each call, what ended, and how far each training was said to be, in order."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    trained = {}
    for line in lines:
        if "trained" in line:
            trained.setdefault(line["run"], []).append(line["trained"])
    return [one for one in lines if "runs" in one], [one["run"] for one in lines if "ended" in one], trained


def test_results_do_not_depend_on_who_does_them_nor_on_the_order(task, tmp_path):
    other = changed(task, latent="none")._replace(name="other")
    tasks = [t._replace(seed=seed) for t in (task, other) for seed in (0, 1)]
    tasks = [chain_of(tasks[0])[-1], *tasks, child_of(tasks[0]), child_of(tasks[1])]
    pooled = execute_all(tasks, tmp_path / "pooled", workers=2, progress=tmp_path / "told")
    alone = [run(t, tmp_path / "alone") for t in reversed(tasks)][::-1]
    assert [run.task for run in pooled] == tasks
    (todo,), ended, trained = told(tmp_path / "told")
    assert sum(todo["runs"]) == len(tasks) and 0 in todo["runs"] and todo["stored"] == 0
    assert sorted(ended) == list(range(len(todo["runs"]))) == sorted(trained)
    assert all(shares == sorted(shares) and shares[-1] == 1 and len(shares) == 8 for shares in trained.values())
    for one, two in zip(pooled, alone, strict=True):
        assert one.rows == two.rows and one.curve == two.curve and one.folder.name == two.folder.name
        assert all(torch.equal(value, state(two)[name]) for name, value in state(one).items())
    assert len({run.folder for run in pooled}) == len({str(run.rows) for run in pooled}) == len(tasks)


@pytest.mark.parametrize("count", [1, 2])
def test_chain_is_done_in_its_order_by_any_number_of_workers(task, tmp_path, done, count):
    chain = chain_of(task)
    order = [(event, "train_run", one.name) for one in chain[:-1] for event in ("begin", "end")]
    order += [(event, "run", "child") for event in ("begin", "end")]
    for number, asked in enumerate((chain[::-1], chain[-1:])):
        done.clear()
        found = execute_all(asked, tmp_path / str(number), workers=count)
        assert [event for event in done if event in order] == order and len(done) == len(order) + 2 * (len(asked) - 1)
        assert [one.task for one in found] == asked
        if count == 1:  # threads, unlike processes, share the generator that layers draw their weights from
            alone = [run(one, tmp_path / "alone") for one in asked]
            assert [one.rows for one in found] == [one.rows for one in alone]
            assert all(same(state(one), state(two)) for one, two in zip(found, alone, strict=True))
            assert same(encoders(found[0]), encoders(run(chain[2], tmp_path / "alone")))


def test_failure_in_a_chain_names_itself_and_begins_nothing_that_is_built_on_it(task, tmp_path, done):
    first, second, third, child = chain_of(task)
    bad = successor_of(first, latent={"name": "none", "size": 3})._replace(name="bad")
    asked = [child._replace(parents={"encoder": third._replace(parents={"start": bad})}), successor_of(bad)]
    with pytest.raises(ValueError, match="^bad, seed 3: latent: option of 'none'"):
        execute_all(asked, tmp_path, workers=2)
    trainings = [("begin", "tiny"), ("end", "tiny"), ("begin", "bad")]
    assert done == [(event, "train_run", name) for event, name in trainings]


@pytest.mark.parametrize("fails", [False, True])
def test_children_wait_for_the_training_of_their_parent_and_not_for_its_measuring(task, tmp_path, monkeypatch, fails):
    children = [child_of(task), successor_of(task)]
    left, measured = [one.name for one in children], threading.Event()

    def slow(one, store):
        if one.name == task.name:
            assert is_trained(one, store) and measured.wait(60), "its children wait for its measuring"
            if fails:
                raise ValueError("it cannot be measured")
        found = run(one, store)
        if one.name != task.name:
            assert is_trained(task, store)
            left.remove(one.name)
        if not left:
            measured.set()
        return found

    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))
    monkeypatch.setattr(workers, "run", slow)
    if fails:
        with pytest.raises(ValueError, match="^it cannot be measured$"):
            execute_all([task, *children], tmp_path, workers=2)
    else:
        assert [one.task for one in execute_all([task, *children], tmp_path, workers=2)] == [task, *children]
    assert len(list(tmp_path.rglob("measured-*.json"))) == 2 + (not fails)  # the children's records are kept


def test_parent_that_cannot_be_measured_has_children_all_the_same(task, tmp_path, threads):
    parent = changed(task, measure=["codes"])  # of a latent without codes
    child = child_of(parent, measure=["area"])
    assert execute_all([child], tmp_path)[0].task == child
    with pytest.raises(ValueError, match="^tiny, seed 3: measure: expected a latent with codes for 'codes'"):
        execute_all([parent, child], tmp_path)
    assert is_trained(parent, tmp_path)


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
    assert run(task, tmp_path).task == task and stamps(tmp_path) == before


def test_first_failure_stops_the_rest_and_keeps_what_is_finished(task, tmp_path):
    bad = changed(task, latent={"name": "none", "size": 3})._replace(name="bad", seed=7)
    rest = [changed(task, **{"train.steps": 200})._replace(seed=seed) for seed in range(12)]
    with pytest.raises(ValueError, match="^bad, seed 7: latent: option of 'none'"):
        execute_all([task, bad, *rest], tmp_path / "store", workers=1)
    seeds = [json.loads(file.read_text())["seed"] for file in (tmp_path / "store").rglob("*.json")]
    assert 3 in seeds and len(seeds) < 6


def test_missing_data_are_named_before_anything_runs(task, tmp_path, drawn, threads):
    bad = task._replace(name="bad", held_out=tmp_path / "lost")
    with pytest.raises(ValueError, match="^bad, seed 3: data: expected lost/manifest.json"):
        execute_all([task, bad], tmp_path / "store")
    assert not drawn


def test_what_is_stored_is_read_without_a_pool(task, tmp_path, monkeypatch):
    other, child = task._replace(name="other", seed=4), child_of(task)
    asked = [child, task, other, task]
    alone = [run(one, tmp_path / "store") for one in asked]
    before = stamps(tmp_path / "store")

    def refused(*_, **__):
        raise AssertionError("a pool was started")

    monkeypatch.setattr(workers, "ProcessPoolExecutor", refused)
    monkeypatch.setattr(workers.multiprocessing, "get_context", refused)
    found = execute_all(asked, tmp_path / "store", workers=2, progress=tmp_path / "told")
    assert found == alone and stamps(tmp_path / "store") == before
    assert told(tmp_path / "told") == ([{"stored": 4, "runs": [], "train": [], "measure": []}], [], {})
    with pytest.raises(AssertionError, match="a pool was started"):
        execute_all([*asked, task._replace(seed=5)], tmp_path / "store")


def test_data_are_read_once_for_all_stored_runs_and_again_when_written(task, places, tmp_path):
    held_out = tmp_path / "places"
    shutil.copytree(places, held_out)
    asked = [task._replace(seed=seed, held_out=held_out) for seed in range(3)]
    for one in asked:
        run(one, tmp_path / "store")
    before = data._hashed.cache_info().misses
    execute_all(asked, tmp_path / "store")
    assert data._hashed.cache_info().misses == before
    (held_out / "x.npy").write_bytes((held_out / "x.npy").read_bytes() + b"0")
    with pytest.raises(ValueError, match="^tiny, seed 0: data: expected places/x.npy with SHA-256"):
        execute_all(asked, tmp_path / "store")


def test_only_what_is_not_stored_is_done(task, tmp_path, done):
    first, second, third, child = chain_of(task)
    kept = run(second, tmp_path / "store")
    asked = [child, second, task._replace(name="new", seed=9), child]
    found = execute_all(asked, tmp_path / "store", progress=tmp_path / "told")
    assert [run.task for run in found] == asked and found[1] == kept and found[0] == found[3]
    assert sorted(done) == [
        (e, *w) for e in ("begin", "end") for w in (("run", "child"), ("run", "new"), ("train_run", "third"))
    ]
    ((todo,), ended, _) = told(tmp_path / "told")
    assert todo["stored"] == 1 and todo["runs"] == [2, 0, 1] and sorted(ended) == [0, 1, 2]


def test_pool_needs_a_worker(task, tmp_path):
    with pytest.raises(ValueError, match="workers: expected at least 1, found 0"):
        execute_all([task], tmp_path, workers=0)


def test_parent_is_trained_once_whoever_asks(task, tmp_path, drawn, threads):
    other = child_of(task, latent={"name": "discrete", "size": 2})._replace(name="other")
    for number, asked in enumerate(([child_of(task), other], [child_of(task), task, other], [other, task])):
        store = tmp_path / str(number)
        drawn.clear()
        found = execute_all(asked, store)
        assert [run.task for run in found] == asked
        records = sorted(record.parent for record in store.rglob("measured-*.json"))
        assert records == sorted(run.folder for run in found)  # what nobody asked for is not measured
        assert sorted(drawn) == [8] * 8 + [40, 48]  # the parent's batches, then pairs that are encoded for all children
        before = stamps(store)
        again = execute_all(asked, store)
        assert [run.rows for run in again] == [run.rows for run in found]
        assert stamps(store) == before and len(drawn) == 8 + 2
        assert len(list(store.iterdir())) == 1 + sum(len(one.parents) for one in asked)


def test_runs_that_differ_in_the_measuring_only_are_told_apart(task, tmp_path, threads):
    finer = changed(task, **{"measure.area.epsilon": 0.5})._replace(name="finer")
    asked = [task, finer, child_of(finer), task._replace(name="the same under another name")]
    found = execute_all(asked, tmp_path)
    assert [run.task for run in found] == asked
    assert found[0].rows == found[3].rows != found[1].rows and found[0].folder == found[1].folder


def test_failing_parent_is_named_and_its_children_are_not_begun(task, tmp_path, drawn, threads):
    bad = task._replace(name="parent", held_out=tmp_path / "lost")
    child = child_of(bad)._replace(held_out=task.held_out)
    with pytest.raises(ValueError, match="^child, seed 3: parent, seed 3: data: expected lost/manifest.json"):
        run(child, tmp_path / "one")
    with pytest.raises(ValueError, match="^parent, seed 3: data: expected lost/manifest.json"):
        execute_all([child, child._replace(name="other")], tmp_path / "all")
    assert not drawn and not list(tmp_path.rglob("*.json"))
