"""Lists of modules follow imports and registries, and are rewritten without touching anything else."""

from __future__ import annotations

import pytest

from jepa.lab import stages

PIPELINE = """\
stages:
  one:
    deps:
      - data
      - jepa/old.py
      - jepa/older.py
      - notebooks/one.ipynb
    outs:
      - out
  one_more:
    deps:
      - jepa/old.py
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Work in a checkout whose package has modules that reach each other in every way."""
    texts = {
        "__init__": "",
        "a": "from jepa import b\n\ndef f():\n    import jepa.c",
        "b": 'KINDS = {"d": "jepa.d:D"}\n"""See jepa.unused:Thing in passing."""',
        "c": "from jepa.inner.e import E",
        "d": "from jepa.b import KINDS",
        "unused": "",
        "inner/__init__": "",
        "inner/e": "",
    }
    (tmp_path / "jepa" / "inner").mkdir(parents=True)
    for name, text in texts.items():
        (tmp_path / "jepa" / f"{name}.py").write_text(text)
    for name in ("dvc.yaml", "data.dvc"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_closure_follows_imports_packages_and_registries(package):
    assert stages.closure("jepa.a") == {"jepa", *(f"jepa.{name}" for name in ("a", "b", "c", "d", "inner", "inner.e"))}


def test_recorded_modules_are_added(package):
    (package / "results/cpu/one").mkdir(parents=True)
    (package / "results/cpu/one/modules.txt").write_text("jepa\njepa.inner\njepa.unused\n")
    found = stages.expected("one", "python -m jepa.d x")
    assert found == [f"jepa/{name}.py" for name in ("__init__", "b", "d", "inner/__init__", "unused")]


def test_rewrite_replaces_the_list_of_one_stage():
    text = stages.rewrite(PIPELINE, "one", ["jepa/new.py"])
    assert text == PIPELINE.replace("      - jepa/old.py\n      - jepa/older.py\n", "      - jepa/new.py\n")
    assert stages.rewrite(text, "one", ["jepa/old.py", "jepa/older.py"]) == PIPELINE
    assert stages.rewrite(PIPELINE, "one_more", ["jepa/new.py"]).endswith(
        "  one_more:\n    deps:\n      - jepa/new.py\n"
    )
