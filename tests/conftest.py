"""What the tests share: one thread per process, random numbers, small runs."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from jepa.runs.processes import ENVIRONMENT

os.environ.update(ENVIRONMENT)

import torch  # noqa: E402 (it reads the number of threads when it is imported)
from torch import Generator, nn  # noqa: E402

from jepa.data import HeldOut  # noqa: E402
from jepa.latents.finite import Discrete, NoLatent  # noqa: E402
from jepa.model import JEPA  # noqa: E402
from jepa.objectives.pairs import PairObjective  # noqa: E402
from jepa.runs import build  # noqa: E402
from jepa.runs.behavior import Code, loaded  # noqa: E402
from jepa.runs.build import Parts  # noqa: E402
from jepa.runs.config import Part, configure  # noqa: E402
from jepa.runs.data import generate  # noqa: E402
from jepa.runs.run import Run  # noqa: E402
from jepa.runs.tasks import Task  # noqa: E402
from jepa.worlds.fork import Fork  # noqa: E402
from jepa.worlds.pairs import Pairs  # noqa: E402
from jepa.worlds.plane import Plane  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
BEFORE = ("approach", "speed", "lane", "heading", "place", "angle")
REFERENCE = 50.0
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {
    "latent": {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 2},
    "target_encoder": {"name": "mlp", "outputs": 3, "hidden": [8]},
    "predictor": {"hidden": [8]},
    "train": {"steps": 8, "batch": 8},
    "monitor": {"times": 0},
    "evaluation": {"samples": 40},
    "measure": [
        {"name": "area", "contexts": 1, "grid": 8, "epsilon": 0.1},
        {"name": "volume", "contexts": 1, "chains": 64, "moves": 4, "epsilon": 0.5},
    ],
}


def normal(*shape, seed=0):
    """Return standard normal numbers in double precision, drawn from a seed of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def changed(task: Task, **diff) -> Task:
    """Return a task with settings changed."""
    return task._replace(config=configure(diff, base=task.config))


def child_of(task: Task, **diff) -> Task:
    """Return a task that keeps the encoders of another one."""
    diff = {"train": {"rate": 0.01}, "pool": 48, "latent": {"name": "discrete", "size": 3}, **diff}
    return changed(task, **diff)._replace(name="child", parents={"encoder": task})


def successor_of(task: Task, **diff) -> Task:
    """Return a task that begins with the weights of another one."""
    return changed(task, **diff)._replace(name="successor", parents={"start": task})


def state(run: Run, of: str = "model") -> dict[str, torch.Tensor]:
    """Return the weights that a run stored, of its model or of its objective."""
    return torch.load(run.folder / "checkpoint.pt", weights_only=True)[of]


def encoders(run: Run) -> dict[str, torch.Tensor]:
    """Return the weights of the encoders that a run stored."""
    return {name: value for name, value in state(run).items() if name.startswith(("encoder.", "target_encoder."))}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Return whether two states are the same to the bit."""
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def stamps(store: Path) -> dict[Path, int]:
    """Return when each file of a store was last written."""
    return {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}


@dataclass(frozen=True)
class Told(Fork):
    """The fork, where x says the predictable factors and y the car's path, the trees' brightness and the noise."""

    frames: int = 2

    def render(self, factors, noise=None, shift=None):
        """Return states in place of clips."""
        path = self.positions(factors)[:, self.frames :]
        path = path if shift is None else path + shift.unsqueeze(1)
        grain = path.new_zeros(len(path), 1) if noise is None else noise.flatten(1)[:, :1]
        y = torch.cat([path.flatten(1), factors["texture_y"], grain], 1)
        x = torch.cat([factors[name] for name in BEFORE], 1)
        return Pairs(x, x.new_zeros(len(x), 0), y, factors)


class Normed(nn.Module):
    """An encoder with statistics of its batches, which are no weights."""

    def __init__(self, inputs, outputs=3):
        super().__init__()
        self.outputs = outputs
        self.layers = nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))

    def forward(self, v):
        """Return s [B, D]."""
        return self.layers(v)


class Formula(nn.Module):
    """A part given by a formula; a predictor's formula takes s [B, D] and z."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, s, a=None, z=None):
        """Return what the formula makes of s, and of z where there is one."""
        return self.formula(s) if z is None else self.formula(s.squeeze(1), z)


def said(s):
    """Return the factors in s_x [B, 6]; the branch is any."""
    return dict(zip(BEFORE, s.split(1, 1), strict=True)) | {"branch": torch.zeros(len(s), 1, dtype=torch.long)}


def of_path(world):
    """Return an encoder of y that keeps the car's path."""
    return Formula(lambda y: y[:, : 2 * world.frames])


def of_trees(world):
    """Return an encoder of y that keeps the brightness of the trees."""
    return Formula(lambda y: y[:, 2 * world.frames : -1])


def every(world, s):
    """Return the futures [B, M, D] of s_x."""
    return world.futures(said(s)).flatten(2)


def codebook(world, *rows):
    """Return a formula whose code k predicts the mixture `rows[k]` of the futures, weights that sum to one."""
    weights = torch.tensor(rows, dtype=torch.float)
    return lambda s, z: torch.einsum("bkc,cm,bmd->bkd", z.expand(len(s), -1, -1), weights, every(world, s))


def told(formula, target_encoder, codes=2, world=None, count=300, **settings):
    """Return a subject: a model built by hand, and what it is measured on."""
    world = world or Told()
    latent = codes if isinstance(codes, nn.Module) else Discrete(codes) if codes else NoLatent()
    model = JEPA(Formula(lambda x: x), target_encoder, Formula(formula), latent)
    return asked(world, model, count=count, **settings)


def asked(world, model, held_out=None, count=300, **settings):
    """Return a subject of a model."""
    pairs = world.sample(count, Generator().manual_seed(1), unseen=True)
    held_out = held_out or HeldOut(pairs.x, pairs.y, pairs.factors)
    config = configure({"world": "fork", "evaluation.samples": 600, "target_encoder": "convolutional"}, settings)
    of = Parts(world, model, PairObjective(config.loss), build.source(config, world))
    return build.subject(config, 2, of, held_out, REFERENCE)


def values(rows):
    """Return the numbers by name."""
    assert all(math.isfinite(row.value) for row in rows)
    return {row.metric: row.value for row in rows}


def brute_mismatched(subject):
    """Return which clips' x the next clip's y could not follow, by loops over branches."""
    world, factors = subject.world, subject.held_out.factors
    count = len(factors["place"])
    ways, taken = world.futures(factors), world.positions(factors)[:, world.frames :]
    wrong = []
    for n in range(count):
        y = taken[(n + 1) % count]
        gaps = [float((way - y).square().sum(1).mean().sqrt()) for way in ways[n]]
        wrong.append(min(gaps) > 1)
    return torch.tensor(wrong)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small held-out set."""
    folder = tmp_path_factory.mktemp("data") / "places"
    generate(folder, Part("plane"), 64, seed=1)
    return folder


@pytest.fixture
def task(places: Path) -> Task:
    """Return a small run that is asked for; this process keeps to one thread, like a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Task("tiny", configure(SMALL), 3, places, Code(*[loaded()] * 4))
    torch.set_num_threads(threads)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every batch that is drawn for training."""
    batches, sample = [], Plane.sample

    def watched(world, count, generator):
        batches.append(count)
        return sample(world, count, generator)

    monkeypatch.setattr(Plane, "sample", watched)
    return batches


@pytest.fixture
def seeded():
    """Seed PyTorch's global generator, from which layers draw their weights, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
