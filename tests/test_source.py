"""What stages depend on changes with a notebook's code and with nothing else."""

from __future__ import annotations

import copy
import json

from conftest import ROOT

from jepa.lab.source import main, source

CLAIMS = ROOT / "experiments" / "claims.yaml"

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
    (tmp_path / "experiments").mkdir()
    (tmp_path / "01_n.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    copies = set()
    for text in (CLAIMS.read_text(encoding="utf-8"), ""):
        (tmp_path / "experiments" / "claims.yaml").write_text(text, encoding="utf-8")
        main(["01_n.ipynb", "build/source/01_n.py"])
        copies.add((tmp_path / "build/source/01_n.py").read_text())
    assert copies == {source(NOTEBOOK, "01_n")}
