"""What `make reproduce` says before it begins: which stages will run, and how long they take on so many cores."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from jepa.lab import paths, plan

ABOVE = {  # what depends on each stage
    "data": {"01", "02", "ledger"},
    "source@01": {"01", "ledger"},
    "source@02": {"02", "ledger"},
    "01": {"ledger"},
    "02": {"ledger"},
    "ledger": set(),
}
NO_OUTPUT = {"changed outs": {"it": "not in cache"}}
NO_INPUT = {"changed deps": {"it": "deleted"}}
OTHER_INPUT = {"changed deps": {"it": "modified", "other": "deleted"}}
OTHER_PARAMETER = {"changed deps": {"params.yaml": {"seeds": "modified"}}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, set()),
        ({"01": [NO_INPUT, NO_OUTPUT], "source@01": [NO_OUTPUT]}, {"01", "source@01"}),  # a fresh clone
        ({"01": [NO_INPUT], "source@01": [NO_OUTPUT], "data": [NO_OUTPUT]}, {"source@01", "data"}),  # after make clean
        ({"source@02": [OTHER_INPUT]}, {"source@02", "02", "ledger"}),  # a notebook was edited
        ({"02": [OTHER_PARAMETER]}, {"02", "ledger"}),
        ({"ledger": ["changed command"]}, {"ledger"}),
        ({"01": [OTHER_INPUT], "02": [NO_INPUT]}, {"01", "ledger"}),
    ],
    ids=str,
)
def test_stages_that_run(status, expected):
    assert plan.due(status, ABOVE) == expected


@given(st.floats(0, 600), st.integers(1, 512))
def test_more_cores_are_never_slower_and_two_are_as_measured(measured, cores):
    assert plan.minutes(measured, plan.MEASURED_ON) == pytest.approx(measured)
    assert plan.minutes(measured, cores + 1) <= plan.minutes(measured, cores)
    assert plan.minutes(measured, cores) >= min(measured, plan.FIXED)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Return the root of a checkout with two profiles."""
    for name, workers, minutes in (("params.yaml", 4, 21), ("experiments/smoke/params.yaml", 0, 1)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        times = {"01_a": minutes, "99_b": plan.FIXED}
        (tmp_path / name).write_text(yaml.safe_dump({"workers": workers, "minutes": times}))
    for mark in paths.MARKS:
        (tmp_path / mark).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "cores", lambda: 2)
    return tmp_path


def test_report_names_each_stage_the_sum_the_cores_and_the_quick_way(two):
    text = plan.report("cpu", ["99_b", "notebook@01_a"])
    assert text.splitlines()[0].startswith("Profile cpu, 4 runs at a time")
    assert [line.split() for line in text.splitlines()[1:4]] == [
        ["99_b", "0.2", "min"],
        ["notebook@01_a", "11", "min"],
        ["all", "11", "min"],
    ]
    assert text.endswith("`make reproduce PROFILE=smoke` runs everything once in little, in 1.2 min.")
    assert plan.report("smoke", ["01_a"]).splitlines()[-1].split() == ["all", "1.0", "min"]
    assert plan.report("smoke", []) == "Profile smoke: all stages are up to date."


def test_stage_that_was_not_measured_leaves_the_sum_open(two):
    lines = plan.report("cpu", ["01_a", "02_new"]).splitlines()
    assert [line.split(None, 1)[1] for line in lines[2:4]] == ["not measured", "not measured"]


@pytest.mark.parametrize("profile", ["cpu", "smoke"])
def test_every_notebook_of_a_measured_profile_has_its_minutes(profile, monkeypatch):
    monkeypatch.chdir(ROOT)
    known = yaml.safe_load(paths.profile(profile).read_text())["minutes"]
    assert {notebook.stem for notebook in (ROOT / "notebooks").glob("*.ipynb")} <= set(known)


def test_a_checkout_without_data_and_outputs_runs_all(tmp_path):
    copied = ("data.dvc", "dvc.yaml", "dvc.lock", "params.yaml", "experiments", "jepa", "notebooks", "results")
    for name in copied:
        subprocess.run(["cp", "-r", ROOT / name, tmp_path], check=True)
    subprocess.run(["rm", "-rf", *(str(file) for file in (tmp_path / "results").glob("*/*/*.ipynb"))], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    command = [sys.executable, "-m", "jepa.lab.plan", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    shown = [line.split()[0].removeprefix("notebook@") for line in done.stdout.splitlines()[1:-1]]
    assert {notebook.stem for notebook in (ROOT / "notebooks").glob("*.ipynb")} <= set(shown)
    assert shown[-1] == "all" and "data.dvc" not in shown


def test_unknown_profile_is_an_error_and_what_dvc_cannot_tell_is_none(two, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="profile: expected one of cpu, smoke, found 'cppu'"):
        plan.main(["cppu"])

    def busy(_):
        raise OSError("busy")

    monkeypatch.setattr(plan, "stages", busy)
    plan.main(["cpu"])
    assert capsys.readouterr().out == "How long it will take is not known: busy\n"
