"""Variants use what tuning found best, and every method had the same number of trials."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from jepa.evaluate.subject import Row
from jepa.lab import paths, tune
from jepa.lab.tune import trials
from jepa.runs.config import configure, read_diff
from jepa.runs.variants import read

PLANS = sorted((ROOT / "experiments" / "tuning").glob("*.yaml"))
GRID = {"one": {"train.rate": [1e-3, 1e-2]}, "two": {"train.steps": [10, 20]}}
RATES = {name: {"train.rate": [0.5, 0.25, 1.0]} for name in GRID}
SET = {"world": {"name": "plane"}, "count": 64, "seed": 1}


def write(file, content):
    """Write a YAML file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.stem)
def test_variants_use_what_tuning_found(plan):
    record = pd.read_csv(ROOT / "results" / "tuning" / f"{plan.stem}.csv")
    asked = [(method, json.dumps(settings)) for method, settings in trials(read_diff(plan))]
    notebook = read_diff(plan).get("notebook", plan.stem)
    assert sorted(asked) == sorted(zip(record.method, record.settings, strict=True))  # the record is of this plan
    variants = read(ROOT / "experiments" / notebook)
    for method, rows in record.groupby("method"):
        used = variants[method].config
        least = read_diff(plan).get("least", False)
        best = rows[rows["mean"] == (rows["mean"].min() if least else rows["mean"].max())].settings.map(json.loads)
        assert any(configure(settings, base=used) == used for settings in best), method


def test_methods_get_the_same_number_of_trials():
    assert [method for method, _ in trials({"methods": GRID, "seeds": [100]})] == ["one", "one", "two", "two"]
    unequal = {**GRID, "two": {"train.steps": [10]}}
    with pytest.raises(ValueError, match=r"same number of trials.*'one': 2, 'two': 1"):
        trials({"methods": unequal, "seeds": [100]})


def test_tuning_seeds_are_apart_from_those_of_evaluation():
    with pytest.raises(ValueError, match="seeds from 100 on"):
        trials({"methods": GRID, "seeds": [9, 100]})


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ({"override": {"train.steps": 1}}, "key 'override': expected one of .*mean 'overrides'"),
        ({"data": {"onne": "plane/small"}}, "data: expected one of one, two, found 'onne'; did you mean 'one'"),
    ],
)
def test_what_a_plan_cannot_say_is_named(diff, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        trials({"methods": GRID, "seeds": [100], **diff})


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Work in a checkout of one notebook; return the tasks that are asked for, all measured as their rate and seed."""
    for name in ("dvc.yaml", "data.dvc"):
        shutil.copy(ROOT / name, tmp_path)
    write(tmp_path / "experiments" / "data.yaml", {name: SET for name in ("plane/small", "tuning/plane")})
    for name in GRID:
        config = {"train": {"rate": 0.5, "steps": 7, "batch": 8}}
        write(
            tmp_path / "experiments" / "09_tiny" / f"{name}.yaml",
            {"claim": "E1", "data": "plane/small", "config": config},
        )
    monkeypatch.chdir(tmp_path)
    found = []

    def execute_all(tasks, *others):
        """Return a run of every task, untrained."""
        found.extend(tasks)
        return [SimpleNamespace(rows=[Row("other", 7.0), Row("rate", t.config.train.rate + t.seed)]) for t in tasks]

    monkeypatch.setattr(tune, "execute_all", execute_all)
    return found


def planned(**diff):
    """Write a plan, and return the record of its trials."""
    plan = {"notebook": "09_tiny", "metric": "rate", "seeds": [100, 102], "methods": RATES, **diff}
    write(Path("experiments/tuning/09_plan.yaml"), plan)
    return tune.tune("09_plan", 1)


@pytest.mark.parametrize("least", [False, True])
def test_record_has_the_mean_over_seeds_the_best_of_a_method_first(asked, least):
    record = planned(**{"least": True} if least else {})
    means = sorted([101.25, 101.5, 102.0], reverse=not least)
    assert list(record.method) == ["one"] * 3 + ["two"] * 3 and list(record["mean"]) == means * 2
    assert [json.loads(text)["train.rate"] + 101 for text in record.settings] == means * 2
    assert set(record.metric) == {"rate"} and len(asked) == 12


def test_overrides_are_shared_by_all_trials_whose_own_settings_come_last(asked):
    record = planned(overrides={"train.steps": 3, "train.rate": 9.0})
    assert {task.config.train.steps for task in asked} == {3} and {task.config.train.batch for task in asked} == {8}
    assert {task.config.train.rate for task in asked} == {0.25, 0.5, 1.0}
    assert all(list(json.loads(text)) == ["train.rate"] for text in record.settings)  # what is shared is not tried


def test_data_of_a_method_are_those_of_the_plan_and_of_others_their_own(asked):
    planned(data={"two": "tuning/plane"})
    assert {(task.name, task.held_out) for task in asked} == {
        ("one", paths.data("plane/small")), ("two", paths.data("tuning/plane"))
    }  # fmt: skip
    assert [task.seed for task in asked[:2]] == [100, 102]


def test_metric_that_no_run_has_is_named(asked):
    with pytest.raises(ValueError, match="^metric: expected one of other, rate, found 'rat'; did you mean 'rate'"):
        planned(metric="rat")
