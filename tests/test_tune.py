"""Variants use what tuning found best, and every method had the same number of trials."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from conftest import ROOT

from jepa.lab.tune import trials
from jepa.runs.config import configure, read_diff
from jepa.runs.variants import read

PLANS = sorted((ROOT / "experiments" / "tuning").glob("*.yaml"))
GRID = {"one": {"train.rate": [1e-3, 1e-2]}, "two": {"train.steps": [10, 20]}}


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
