"""One environment: pyproject.toml, requirements.lock, environment.yml and what is installed agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")]
LOCK = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}


def test_lock_names_each_package_once_and_exactly():
    assert [line for line in LINES if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(LOCK) == len(LINES)


def test_lock_runs_on_machines_without_a_gpu():
    assert [name for name in LOCK if name.startswith(("nvidia", "cuda", "triton"))] == []


def test_lock_keeps_jupyter_quick():
    assert LOCK["jsonschema"] == "4.24.0" and "rfc3987-syntax" not in LOCK


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])])
def test_lock_satisfies_the_project(text):
    requirement = Requirement(text)
    assert LOCK[canonicalize_name(requirement.name)] in requirement.specifier


def test_conda_environment_is_the_lock():
    python, *rest = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert rest == ["pip", {"pip": ["-r requirements.lock", "-e ."]}]
    assert f"{python.removeprefix('python=')}.0" in SpecifierSet(PROJECT["requires-python"])


def test_installed_versions_are_the_lock():
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in LOCK}
    assert installed == LOCK
