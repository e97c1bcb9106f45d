"""What the tests share: one thread per process, random numbers, one run of every notebook at the smoke profile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepa.processes import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import torch  # noqa: E402 (it reads the number of threads when it is imported)

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def normal(*shape, seed=0):
    """Return standard normal numbers in double precision, drawn from a seed of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def seeded():
    """Seed PyTorch's global generator, from which layers draw their weights, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run each notebook once at the smoke profile, in a tree of links with a build folder of its own.

    Returns the folder with one subfolder of outputs a notebook. Nothing is resumed from trainings of the real tree.
    """
    tree = tmp_path_factory.mktemp("tree")
    for name in ("data", "data.dvc", "dvc.yaml", "experiments", "jepa", "notebooks", "params.yaml", "results"):
        (tree / name).symlink_to(ROOT / name)
    for notebook in NOTEBOOKS:
        out = f"build/smoke/{notebook.stem}"
        arguments = [f"notebooks/{notebook.name}", f"{out}/{notebook.name}", "-p", "out", out]
        command = [sys.executable, "-m", "jepa.lab.run", *arguments]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return tree / "build" / "smoke"
