"""How far a run is: shares that only grow, lines where they are due, and nothing shown inside a notebook."""

from __future__ import annotations

import json
import os
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa.lab import paths, progress
from jepa.runs.progress import of, tell, trained

WORK = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6), st.floats(1, 1e4)), min_size=1, max_size=8)


def begun(stored=0, runs=(1, 1), train=(10.0, 10.0), measure=(2.0, 2.0)) -> progress.State:
    """Return how far runs are that have just begun."""
    state = progress.State()
    state.read(json.dumps({"stored": stored, "runs": [*runs], "train": [*train], "measure": [*measure]}))
    return state


@given(WORK, st.integers(0, 5), st.data())
def test_share_grows_from_nothing_to_all_and_runs_are_counted(work, stored, data):
    runs, train, measure = zip(*work, strict=True)
    state = begun(stored, runs, train, measure)
    assert state.share == 0 and state.counts == f"{stored} of {stored + sum(runs)} runs"
    for number in data.draw(st.permutations(range(len(work)))):
        before = state.share
        state.read(json.dumps({"run": number, "trained": data.draw(st.floats(0, 1))}))
        between = state.share
        state.read(json.dumps({"run": number, "ended": True}))
        assert before <= between <= state.share * (1 + 1e-9)
        assert (state.share < 1 - 1e-9) or len(state.ended) == len(work) or state.share == pytest.approx(1)
    assert state.share == pytest.approx(1) and state.counts == f"{stored + sum(runs)} of {stored + sum(runs)} runs"


def test_share_weighs_a_run_by_its_parts():
    state = begun(runs=(1, 0), train=(30.0, 10.0), measure=(10.0, 0.0))
    state.read('{"run": 0, "trained": 0.5}')
    assert state.share == pytest.approx(15 / 50)
    state.read('{"run": 1, "ended": true}')
    assert state.share == pytest.approx(25 / 50) and state.counts == "0 of 1 runs"


def test_next_call_begins_anew():
    state = begun()
    state.read('{"run": 0, "ended": true}')
    state.read('{"stored": 7, "runs": [], "train": [], "measure": []}')
    assert state.share == 1 and state.counts == "7 of 7 runs" and state.calls == 2


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_with_the_first_run_then_now_and_then_and_at_the_end(clock, capsys):
    view, state = progress.Lines("04"), begun(stored=1)

    def at(seconds, show=view.show):
        clock[0] = 100 + seconds
        show(state)
        return capsys.readouterr().err

    view.show(progress.State())
    assert at(0) == at(50) == ""
    state.read('{"run": 0, "ended": true}')
    assert at(60) == "04: 2 of 3 runs, 01:00 so far, about 01:00 left\n"
    assert at(60 + progress.LINE_EVERY - 1) == ""
    state.read('{"run": 1, "trained": 0.5}')
    assert at(60 + progress.LINE_EVERY) == "04: 2 of 3 runs, 01:30 so far, about 00:37 left\n"
    state.read('{"run": 1, "ended": true}')
    assert at(100) == "" and at(110, view.close) == "04: 3 of 3 runs, 01:50 so far\n"


def test_runs_that_are_all_stored_are_one_line(clock, capsys):
    view, state = progress.Lines("04"), begun(stored=9, runs=(), train=(), measure=())
    view.show(state)
    view.close(state)
    assert capsys.readouterr().err == "04: 9 of 9 runs\n"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Work in an empty checkout that nobody watches."""
    for mark in paths.MARKS:
        (tmp_path / mark).touch()
    monkeypatch.chdir(tmp_path)
    for name in (progress.FILE, "TQDM_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_what_is_told_in_pieces_is_followed_to_its_end_and_nothing_is_left(checkout, monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.01)
    with progress.shown("tiny") as file:
        tell(file, stored=0, runs=[1], train=[1.0], measure=[1.0])
        with file.open("a") as half:
            half.write('{"run": 0, ')
            half.flush()
            time.sleep(0.05)
            half.write('"ended": true}\n')
    assert capsys.readouterr().err.splitlines()[-1].startswith("tiny: 1 of 1 runs")
    assert not list((checkout / "build/unfinished").iterdir()) and threading.active_count() == 1


def test_terminal_gets_a_bar(checkout, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_columns", lambda: 80)
    with progress.shown("tiny") as file:
        tell(file, stored=2, runs=[1], train=[1.0], measure=[1.0])
        tell(file, run=0, ended=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("tiny: 3 of 3 runs |█") and "| 100 % [" in last


@pytest.mark.parametrize(("name", "value"), [(progress.FILE, "told"), ("TQDM_DISABLE", "1")])
def test_kernel_under_the_runner_shows_nothing_itself(checkout, monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    with progress.shown("tiny") as file:
        assert file is None or str(file) == "told"
    assert capsys.readouterr() == ("", "") and not (checkout / "build").exists()


def test_training_is_told_of_the_run_that_the_process_is_at(tmp_path):
    file = tmp_path / "told"
    trained(0.1)
    with of(file, 3):
        trained(0.5)
    with of(None, 4):
        trained(0.5)
    trained(0.2)
    assert file.read_text() == '{"run": 3, "trained": 0.5}\n'


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_lines_of_many_processes_stay_whole(tmp_path):
    file, children = tmp_path / "told", []
    for number in range(4):
        if (child := os.fork()) == 0:
            for _ in range(200):
                tell(file, run=number, text="x" * 5000)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["run"] for line in lines) == sorted([*range(4)] * 200)
