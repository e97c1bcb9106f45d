"""A module imports only from floors below its own, and stays small enough to read in one go."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"batches", "config", "energy", "minimize", "encoders", "processes", "progress", "streams", "behavior"},
    {"kinds", "checkpoints", "data"},
    {"predictors", "measures", "worlds", "sources", "latents", "regularizers", "planning", "variants"},
    {"model", "loaders", "tasks"},
    {"hjepa", "losses", "watch"},
    {"train"},
    {"build"},
    {"encoded"},
    {"evaluate"},
    {"runs"},
    {"pool", "resumed"},
    {"lab"},
    {"__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((ROOT / "jepa").rglob("*.py"))
}


def imports(text: str) -> set[str]:
    """Return the names of the package that a module's text imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module or "" for name in names}
            assert node.level == 0, f"expected absolute imports, found {ast.unparse(node)}"
    return {name for name in found if name.partition(".")[0] == "jepa"}


def upward(module: str, text: str) -> list[str]:
    """Return the imports of a module that lead neither to a floor below nor to its own package."""
    own = module.split(".")[1]
    others = [name for name in imports(text) if name != "jepa" and name.split(".")[1] != own]
    return sorted(name for name in others if FLOOR[name.split(".")[1]] >= FLOOR[own])


def lengths(text: str) -> dict[str, int]:
    """Return the lines of each function."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in nodes}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "jepa"])
def test_imports_lead_down(module):
    assert module.split(".")[1] in FLOOR, f"give {module} a floor"
    assert upward(module, MODULES[module].read_text()) == []


def test_an_import_that_leads_up_is_probe():
    assert upward("jepa.energy", "def f():\n    from jepa.model import JEPA") == ["jepa.model"]
    assert upward("jepa.train", "import jepa.lab.paths") == ["jepa.lab.paths"]
    assert upward("jepa.energy", "from jepa.minimize import fista") == ["jepa.minimize"]


def test_no_cycle():
    graph = {name: imports(file.read_text()) for name, file in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("module", MODULES)
def test_module_can_be_read_in_one_go(module):
    text = MODULES[module].read_text()
    assert text.count("\n") <= 250
    assert {name: lines for name, lines in lengths(text).items() if lines > 60} == {}


def test_package_itself_imports_nothing():
    assert imports((ROOT / "jepa" / "__init__.py").read_text()) == set()
