"""The pipeline's text, its lock and what is derived from its results agree with the code as it stands."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import NOTEBOOKS

from jepa.lab import tables
from jepa.runs.config import configure

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("profile", ["smoke", "gpu"])
def test_profiles_have_the_same_pipeline(profile):
    copy = Path("experiments", profile, "dvc.yaml")
    assert copy.read_bytes() == Path("dvc.yaml").read_bytes(), f"run `cp dvc.yaml {copy}`"


def test_every_notebook_with_variants_depends_on_what_the_code_behind_it_does():
    names = {path.stem for path in NOTEBOOKS if Path("experiments", path.stem).is_dir()}
    shared = yaml.safe_load(Path("experiments/shared/dvc.yaml").read_text())["stages"]
    assert set(shared["behavior"]["matrix"]["notebook"]) == names
    assert set(shared["source"]["matrix"]["notebook"]) == {path.stem for path in NOTEBOOKS}
    text = Path("dvc.yaml").read_text()
    stages = yaml.safe_load(text)["stages"]
    assert set(stages["notebook"]["foreach"]) | {"00_tour"} == names
    for deps in (
        stages["00_tour"]["deps"],
        [dep.replace("${key}", "00_tour") for dep in stages["notebook"]["do"]["deps"]],
    ):
        assert "results/behavior/00_tour.json" in deps and not any(dep.startswith("jepa") for dep in deps)


def test_short_runs_reach_the_last_tenth_of_a_training_the_monitor_and_a_cut():
    settings = yaml.safe_load(Path("experiments/behavior.yaml").read_text())
    sections = {path.stem.partition("_")[2] for path in NOTEBOOKS if Path("experiments", path.stem).is_dir()}
    assert 0 < settings["cut"] < 1
    for section in sections:
        short = configure(settings[section]["overrides"])
        assert (short.train.steps - 1) / short.train.steps > 0.9 and short.monitor.times >= 2


def test_number_of_workers_and_recorded_minutes_are_no_dependencies():
    asked = [stage.get("params", []) for stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].values()]
    assert "workers" not in json.dumps(asked) and "minutes" not in json.dumps(asked)


@pytest.mark.parametrize("pipeline", ["dvc.yaml", "experiments/smoke/dvc.yaml"])
def test_lock_is_fresh(pipeline):
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing", pipeline]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip().endswith("Data and pipelines are up to date."), (
        f"run `dvc repro {pipeline}` and commit what it writes\n{done.stdout}{done.stderr}"
    )


def test_generator_makes_the_data_on_record(tmp_path):
    subprocess.run([sys.executable, "-m", "jepa.runs.data", "--out", str(tmp_path / "data")], check=True)
    assert folder_digest(tmp_path / "data") == yaml.safe_load(Path("data.dvc").read_text())["outs"][0]["md5"]


def test_tables_in_the_readme_are_fresh():
    tables.main(["--check"])  # exits with the command that mends them


def folder_digest(folder: Path) -> str:
    """Return DVC's hash of a folder: that of the list of its files' hashes and names."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    entries = [
        {"md5": hashlib.md5(file.read_bytes()).hexdigest(), "relpath": file.relative_to(folder).as_posix()}
        for file in sorted(files, key=lambda file: file.relative_to(folder).parts)
    ]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"
