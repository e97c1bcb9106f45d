"""A module imports only from floors below its own, science knows no settings, and each is small enough to read."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT

FLOORS = [  # of packages and modules, in runs/ of each module
    {"batches", "bound", "checkpoints", "encoders", "energy", "minimize", "modes", "static", "streams"},
    {"data", "keypoints", "latents", "measures", "pooling", "predictors", "strided"},
    {"maps", "model", "planning", "sources", "worlds"},
    {"abstract", "hierarchy"},
    {"gym", "loaders", "objectives", "sampling"},
    {"diagnosis", "encoded", "train"},
    {"monitor"},
    {"trajectory_monitor"},
    {"evaluate"},
    {"runs", "runs.behavior", "runs.kinds", "runs.processes", "runs.progress"},
    {"runs.level"},
    {"runs.config"},
    {"runs.sequences", "runs.variants"},
    {"runs.levels"},
    {"runs.data", "runs.objectives", "runs.tasks"},
    {"runs.below", "runs.build"},
    {"runs.frozen", "runs.resumed"},
    {"runs.run"},
    {"runs.workers"},
    {"lab"},
    {"__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((ROOT / "jepa").rglob("*.py"))
}
SETTLED = re.compile(r"jepa\.(runs|lab)\b|jepa\.__main__")  # what settings, runs and pictures are made by
LONG = {"jepa.measures.intervals": {"interval"}, "jepa.minimize.proximal": {"fista"}}  # functions of 40 lines or more


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


def place(module: str) -> str:
    """Return the name under which a module has a floor."""
    _, name, *rest = module.split(".")
    return ".".join([name, *rest]) if name == "runs" else name


def upward(module: str, text: str) -> list[str]:
    """Return the imports of a module that lead neither to a floor below nor to its own package."""
    others = [name for name in imports(text) if name != "jepa" and place(name) != place(module)]
    return sorted(name for name in others if FLOOR[place(name)] >= FLOOR[place(module)])


def settings_in(text: str) -> set[str]:
    """Return what a module's text imports of settings, runs and the laboratory, also by the name of a module."""
    strings = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    named = {text for text in strings if isinstance(text, str) and re.fullmatch(r"[\w.:]+", text)}
    return {name for name in imports(text) | named if SETTLED.match(name)}


def lengths(text: str) -> dict[str, int]:
    """Return the lines of each function."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in nodes}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "jepa"])
def test_imports_lead_down(module):
    assert place(module) in FLOOR, f"give {module} a floor"
    assert upward(module, MODULES[module].read_text()) == []


def test_every_floor_has_somebody_on_it():
    assert FLOOR.keys() == {place(module) for module in MODULES if module != "jepa"}


def test_an_import_that_leads_up_is_found():
    assert upward("jepa.energy", "def f():\n    from jepa.model import JEPA") == ["jepa.model"]
    assert upward("jepa.train", "import jepa.lab.paths") == ["jepa.lab.paths"]
    assert upward("jepa.energy", "from jepa.minimize import fista") == ["jepa.minimize"]
    assert upward("jepa.runs.config", "from jepa.runs import build") == ["jepa.runs.build"]
    assert upward("jepa.runs.workers", "from jepa.runs import build\nfrom jepa.latents.base import Latent") == []


@pytest.mark.parametrize("module", [name for name in MODULES if not SETTLED.match(name)])
def test_science_knows_no_settings_and_no_laboratory(module):
    assert settings_in(MODULES[module].read_text()) == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f():\n    from jepa.runs.config import Part", "jepa.runs.config"),
        ("import jepa.lab.paths as p", "jepa.lab.paths"),
        ("from jepa import runs", "jepa.runs"),
        ("import importlib\nimportlib.import_module('jepa.runs.build')", "jepa.runs.build"),
        ("KINDS = {'area': 'jepa.lab.study:Study'}", "jepa.lab.study:Study"),
        ('"""As in `jepa.runs.config`."""\nfrom jepa.model import JEPA', None),
    ],
)
def test_settings_that_science_imports_are_found(text, found):
    assert settings_in(text) == ({found} if found else set())


def test_no_cycle():
    graph = {name: imports(file.read_text()) for name, file in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("module", MODULES)
def test_module_can_be_read_in_one_go(module):
    text = MODULES[module].read_text()
    assert text.count("\n") <= 250
    found = lengths(text)
    assert {name for name, lines in found.items() if lines >= 40} == LONG.get(module, set())
    assert all(lines <= 60 for lines in found.values())


def test_package_itself_imports_nothing_slow_and_science_little():
    assert imports(MODULES["jepa"].read_text()) == set() == packages(MODULES["jepa"].read_text())
    texts = [file.read_text() for name, file in MODULES.items() if not name.startswith("jepa.lab")]
    assert set().union(*map(packages, texts)) <= {"jepa", "numpy", "pandas", "scipy", "torch", "yaml"}


def packages(text: str) -> set[str]:
    """Return what a module imports beside the standard library when it is imported itself."""
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


def test_pictures_that_science_draws_are_found():
    assert packages("import os\nfrom matplotlib import pyplot\nimport torch.nn\n") == {"matplotlib", "torch"}
