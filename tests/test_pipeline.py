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

from jepa.lab import stages, tables

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", stages.texts(), ids=lambda file: file.parent.name)
def test_text_is_as_stages_writes_it(file):
    assert file.read_text() == stages.texts()[file], "run `python -m jepa.lab.stages --write`"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_recorded_modules_are_what_a_run_imports(notebook, smoke):
    record = Path(stages.RECORD.format(stage=notebook.stem)).read_text()
    assert (smoke / notebook.stem / "modules.txt").read_text() == record, f"run `dvc repro {notebook.stem}`"


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
    subprocess.run([sys.executable, "-m", "jepa.data", "--out", str(tmp_path / "data")], check=True)
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
