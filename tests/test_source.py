"""What stages depend on changes with a notebook's code and claims and with nothing else."""

from __future__ import annotations

import copy

from jepa.lab.source import source

NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": "# Title", "metadata": {}},
        {"cell_type": "code", "source": ["a = 1\n", "b = 2"], "metadata": {"tags": ["parameters"]}, "outputs": []},
        {"cell_type": "code", "source": "a + b", "metadata": {}, "outputs": [], "execution_count": None},
    ]
}
CLAIMS = [{"id": "E1", "notebook": "01_n", "threshold": 5}, {"id": "M1", "notebook": "02_m", "threshold": 5}]


def changed(number: int, **entries) -> str:
    """Return the source with entries of one cell replaced."""
    notebook = copy.deepcopy(NOTEBOOK)
    notebook["cells"][number].update(entries)
    return source(notebook, "01_n", CLAIMS)


def test_outputs_prose_and_marks_do_not_matter():
    before = source(NOTEBOOK, "01_n", CLAIMS)
    assert changed(2, outputs=[{"output_type": "stream"}], execution_count=7) == before
    assert changed(0, source="# Other") == before
    assert changed(2, metadata={"tags": ["nbval-check-output"]}) == before
    assert changed(1, source="a = 1\nb = 2") == before


def test_code_and_parameters_matter():
    before = source(NOTEBOOK, "01_n", CLAIMS)
    assert changed(2, source="a - b") != before
    assert changed(1, metadata={}) != before
    assert changed(2, metadata={"tags": ["parameters"]}) != before


def test_own_claims_matter_and_others_do_not():
    before = source(NOTEBOOK, "01_n", CLAIMS)
    assert source(NOTEBOOK, "01_n", [CLAIMS[0] | {"threshold": 6}, CLAIMS[1]]) != before
    assert source(NOTEBOOK, "01_n", [CLAIMS[0], CLAIMS[1] | {"threshold": 6}]) == before
