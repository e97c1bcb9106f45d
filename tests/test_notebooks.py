"""Committed notebooks keep one form and carry the outputs of a run, so that nbval has something to compare."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import NOTEBOOKS

from jepa.lab import form
from jepa.lab.refresh import complaints, unfinished

DEFAULTS = {"profile": "smoke", "seeds": None, "overrides": {}, "out": ""}
MACHINE = re.compile(r"/(?:home|root|tmp|Users|opt|work|mnt|var)/|\bat 0x[0-9a-f]{6,}")
CHECKED = "nbval-check-output"


def faults(notebook: form.Notebook) -> list[str]:
    """Return where a notebook departs from the form."""
    cells = form.code(notebook)
    found = unfinished(notebook)
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown" or not form.text(first["source"]).startswith("# "):
        found.append("its first cell is no title")
    try:
        if list(form.parameters(notebook, "it").items()) != list(DEFAULTS.items()):
            found.append(f"its parameters are not {DEFAULTS}")
    except ValueError as error:
        found.append(str(error))
    if len(cells) > 12:
        found.append(f"it has {len(cells)} code cells, more than a dozen")
    if not any(CHECKED in form.tags(cell) for cell in cells):
        found.append("no cell's output is compared")
    for number, cell in enumerate(cells):
        found += [f"code cell {number} {fault}" for fault in _cell_faults(cell)]
    return found


def _cell_faults(cell: dict) -> list[str]:
    """Return what is wrong with one code cell."""
    found = []
    source = form.text(cell["source"])
    if source.count("\n") >= 30:
        found.append("is longer than 30 lines")
    plain = "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
    functions = [node for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.FunctionDef)]
    found += [f"defines {node.name} in more than 6 lines" for node in functions if node.end_lineno - node.lineno >= 6]
    if CHECKED in form.tags(cell) and not cell["outputs"]:
        found.append("is compared, but has no output")
    if any(output.get("name") == "stderr" for output in cell["outputs"]):
        found.append("printed a warning or a progress bar")
    texts = [form.text(output.get("text", "")) for output in cell["outputs"]]
    kinds = [output.get("data", {}) for output in cell["outputs"]]
    texts += [form.text(item) for data in kinds for kind, item in data.items() if kind.startswith("text/")]
    if MACHINE.search("\n".join([source, *texts])):
        found.append("shows a path or an address of one machine")
    return found


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return form.read(request.param)


def test_form(notebook):
    assert faults(notebook) == []


def test_file_is_as_refresh_leaves_it():
    stale = {path.name: complaints(path) for path in NOTEBOOKS}
    assert {name: found for name, found in stale.items() if found} == {}


def test_a_notebook_without_outputs_cannot_pass(notebook):
    for cell in form.code(notebook):
        cell["outputs"] = []
    assert any("compared, but has no output" in fault for fault in faults(notebook))
    for cell in form.code(notebook):
        cell["execution_count"] = None
    assert sum("was not run" in fault for fault in faults(notebook)) == len(form.code(notebook))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda cells: cells[1]["metadata"].update(tags=[]), "tagged `parameters`"),
        (lambda cells: cells[1].update(source="profile = list()"), "name = literal"),
        (lambda cells: cells[1].update(outputs=[{"output_type": "error", "traceback": []}]), "failed"),
        (lambda cells: cells[1].update(execution_count=99), "from first to last"),
    ],
)
def test_each_departure_is_seen(change, fault):
    notebook = form.read(NOTEBOOKS[0])
    tagged = next(cell for cell in form.code(notebook) if "parameters" in form.tags(cell))
    notebook["cells"].remove(tagged)
    notebook["cells"].insert(1, tagged)
    change(notebook["cells"])
    assert [found for found in faults(notebook) if fault in found]
