"""What stages depend on changes with a notebook's code and with nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from jepa.lab.source import main, source

CLAIMS = Path(__file__).parents[1] / "experiments" / "claims.yaml"

NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": "# Title", "metadata": {}},
        {"cell_type": "code", "source": ["a = 1\n", "b = 2"], "metadata": {"tags": ["parameters"]}, "outputs": []},
        {"cell_type": "code", "source": "a + b", "metadata": {}, "outputs": [], "execution_count": None},
    ]
}


def changed(number: int, **entries) -> str:
    """Return the source with entries of one cell replaced."""
    notebook = copy.deepcopy(NOTEBOOK)
    notebook["cells"][number].update(entries)
    return source(notebook, "01_n")


def test_outputs_prose_and_marks_do_not_matter():
    before = source(NOTEBOOK, "01_n")
    assert changed(2, outputs=[{"output_type": "stream"}], execution_count=7) == before
    assert changed(0, source="# Other") == before
    assert changed(2, metadata={"tags": ["nbval-check-output"]}) == before
    assert changed(1, source="a = 1\nb = 2") == before


def test_code_and_parameters_matter():
    before = source(NOTEBOOK, "01_n")
    assert changed(2, source="a - b") != before
    assert changed(1, metadata={}) != before
    assert changed(2, metadata={"tags": ["parameters"]}) != before


def test_a_changed_word_of_a_claim_changes_no_copy(tmp_path, monkeypatch):
    for name in ("dvc.yaml", "data.dvc", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    claims = tmp_path / "experiments" / "claims.yaml"
    claims.parent.mkdir()
    notebooks = ("01_energies_and_capacity", "03_collapse")
    for name in notebooks:
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    copies = []
    for text in (
        CLAIMS.read_text(encoding="utf-8"),
        CLAIMS.read_text(encoding="utf-8").replace("statement: A", "statement: One"),
        "",
    ):
        claims.write_text(text, encoding="utf-8")
        for name in notebooks:
            main([f"{name}.ipynb", f"build/source/{name}.py"])
        copies.append([(tmp_path / "build" / "source" / f"{name}.py").read_bytes() for name in notebooks])
    assert copies[0] == copies[1] == copies[2]
