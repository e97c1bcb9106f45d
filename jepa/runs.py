"""Runs: a configuration and a seed, trained, measured and kept.

A run lies in a folder named by the fingerprint of all that decides its training: configuration, seed and source. The
record of what was measured on it is named by the fingerprint of all that decides the measuring. So nothing is done
twice, a run that was cut goes on from its checkpoint, and a new measure trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from jepa import build, evaluate
from jepa.config import Config, Loss, Train, to_dict
from jepa.data import HeldOut, load, verify
from jepa.encoded import Encoded, encoded, packed, unpacked
from jepa.model import JEPA
from jepa.train import Curve, fit, restore, save
from jepa.train import load as load_checkpoint
from jepa.variants import Variant
from jepa.watch import CollapseWarning

BESIDE = ("lab", "__main__.py", "pool.py", "runs.py", "variants.py")  # source that decides no result
MEASURING = (*BESIDE, "measures", "evaluate")  # source that decides no training


class Task(NamedTuple):
    """A run that is asked for."""

    name: str  # of the variant
    config: Config
    seed: int
    held_out: Path  # folder of the held-out set
    frozen: Task | None = None  # the run whose trained encoders this one keeps as they are
    start: Task | None = None  # the run whose trained weights this one begins with

    @property
    def parent(self) -> Task | None:
        """The run that has to be done before this one."""
        return self.frozen or self.start


class Run(NamedTuple):
    """A finished run."""

    task: Task
    rows: list[evaluate.Row]
    curve: dict[str, list[float]]  # step and loss terms
    modules: list[str]  # of this package that the run imported
    folder: Path
    looks: dict[str, list[float]]  # step and signs of a collapse
    warnings: list[str]  # what the training said of itself


def tasks(
    variants: Mapping[str, Variant], chosen: Sequence[Variant], seeds: Iterable[int], data: Callable[[str], Path]
) -> list[Task]:
    """Return a task for every chosen variant and seed.

    Args: variants: all of the notebook by name, among them those that the chosen ones are built on; data: the folder
        of a held-out set by its name.
    """

    def task(variant: Variant, seed: int) -> Task:
        """Return the task of a variant, with that of the run it is built on."""
        links = {"frozen": variant.frozen, "start": variant.start}
        older = {link: task(variants[name], seed) for link, name in links.items() if name}
        return Task(variant.name, variant.config, seed, data(variant.data), **older)

    seeds = list(seeds)
    return [task(variant, seed) for variant in chosen for seed in seeds]


def execute(task: Task, store: Path) -> Run:
    """Return the run, from the store if it is there, else trained, measured and stored.

    Raises: ValueError as training, measuring or the data do, with the run's name and seed in front.
    """
    try:
        folder = _folder(task, store)
        record = folder / f"measured-{_measuring_key(task)}.json"
        if not record.is_file():
            _train_and_measure(task, record, None if task.parent is None else execute(task.parent, store))
        result = _read(record)
    except (ValueError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{task.name}, seed {task.seed}: {error}") from error
    rows = [evaluate.Row(*row) for row in result["rows"]]
    return Run(task, rows, result["curve"], result["modules"], folder, result["looks"], result["warnings"])


def identity(task: Task) -> str:
    """Return the fingerprint of all that a task asks for."""
    older = [identity(task.parent)] if task.parent else []
    return _fingerprint(task.name, to_dict(task.config), task.seed, str(task.held_out), task.frozen is None, *older)


def trained(run: Run) -> JEPA:
    """Return the run's model on the CPU, ready to infer as it was measured. Raises: ValueError for a bad checkpoint."""
    return evaluate.inferring(run.task.config, _restored(run)).eval()


def _restored(run: Run) -> JEPA:
    """Return the run's model on the CPU with all that was trained. Raises: ValueError for a bad checkpoint."""
    path = run.folder / "checkpoint.pt"
    model = build.model(evaluate.on_cpu(run.task.config), run.task.seed)
    restore(model, load_checkpoint(path), path)
    return model


def _train_and_measure(task: Task, record: Path, parent: Run | None) -> None:
    """Train from the last checkpoint, measure, and write the record, last of all and whole."""
    config = task.config
    evaluate.check(config)
    held_out = load(task.held_out, config.world)
    model, path = build.model(config, task.seed), record.with_name("checkpoint.pt")
    generator = torch.Generator(device=config.device).manual_seed(task.seed)
    pairs = None
    with warnings.catch_warnings():  # what it warns of is kept with the run
        warnings.simplefilter("ignore", CollapseWarning)
        if task.frozen is None:
            curve = _fit(model, config, generator, path, None if parent is None else _restored(parent))
        else:
            pairs = _encoded(parent, config, held_out, task)
            curve = _fit_head(model, trained(parent), pairs, (config.train, config.loss), generator, path)
    rows = evaluate.measure(config, model.to("cpu"), held_out, task.seed, pairs)
    result = {
        "name": task.name,
        "seed": task.seed,
        "config": to_dict(config),
        "rows": [list(row) for row in rows],
        "curve": {"step": curve.steps, **curve.terms},
        "looks": {"step": curve.looks, **curve.signs},
        "warnings": curve.warnings,
        "modules": sorted(name for name in sys.modules if name.split(".")[0] == "jepa"),
    }
    temporary = record.with_name(f".{record.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result))
    os.replace(temporary, record)


def _fit(model: JEPA, config: Config, generator: torch.Generator, path: Path, start: JEPA | None) -> Curve:
    """Train a model from its own weights, or from those of `start`; it is watched in units of its untrained self."""
    world = build.world(config)
    watch = build.watch(config, world, model) if config.train.watch else None
    if start is not None:
        _take(model, start)
    return fit(model, build.source(config, world), (config.train, config.loss), generator, path, watch=watch)


def _fit_head(
    model: JEPA,
    frozen: JEPA,
    pairs: Encoded,
    settings: tuple[Train, Loss],
    generator: torch.Generator,
    path: Path,
) -> Curve:
    """Train all but the encoders, which become those of `frozen`, on the pairs that these have encoded."""
    for name in ("encoder_x", "encoder_y"):
        _take(getattr(model, name), getattr(frozen, name), name)
    pool = build.pool(*(part.to(generator.device) for part in (pairs.pool.x, pairs.pool.y, pairs.pool.a)))
    generator.set_state(pairs.state)
    curve = fit(build.head(model), pool, settings, generator, path.with_name("head.pt"))
    save(path, {"model": model.state_dict()})
    return curve


def _encoded(parent: Run, config: Config, held_out: HeldOut, task: Task) -> Encoded:
    """Return what the encoders of a run make of the pairs that all runs built on it learn from and are measured on."""
    counts = [config.train.pool, config.measure.samples]
    drawn = [config.world.flat(), config.context, config.told, config.device, task.seed]
    deciding = [*drawn, *counts, _source(*MEASURING)]
    path = parent.folder / f"encoded-{_fingerprint(deciding, verify(task.held_out)['files'])}.pt"
    if not path.is_file():
        made = encoded(config, trained(parent), held_out, task.seed)
        save(path, {"model": {}, **packed(made)})
    return _unpacked(path)


@lru_cache(maxsize=16)  # two worlds of a few seeds; what is learned from the pairs once serves all runs on them
def _unpacked(path: Path) -> Encoded:
    """Return pairs that were encoded. Raises: ValueError for a damaged file."""
    return unpacked(load_checkpoint(path))


def _take(model: nn.Module, other: nn.Module, name: str = "start") -> None:
    """Give a module the weights of another one. Raises: ValueError if names or shapes do not fit."""
    try:
        model.load_state_dict(other.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        what = "expected the shape of the variant it is built on, found another"
        raise ValueError(f"{name}: {what} ({reason})") from error


def _read(record: Path) -> dict[str, Any]:
    """Return a record. Raises: ValueError if it is damaged."""
    try:
        return json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(f"{record}: expected a record of a run, found {error}; delete it to measure again") from error


def _folder(task: Task, store: Path) -> Path:
    """Return where a run is kept."""
    return store / _training_key(task)


def _training_key(task: Task) -> str:
    """Return the fingerprint of all that decides the weights."""
    settings = {key: value for key, value in to_dict(task.config).items() if key != "measure"}
    older = [] if task.parent is None else [task.frozen is None, _training_key(task.parent)]
    return _fingerprint(settings, task.seed, _source(*MEASURING), torch.__version__, *older)


def _measuring_key(task: Task) -> str:
    """Return the fingerprint of all that decides the measurements on given weights."""
    return _fingerprint(to_dict(task.config)["measure"], verify(task.held_out)["files"], _source(*BESIDE))


def _fingerprint(*parts: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the parts written as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@cache
def _source(*left_out: str) -> str:
    """Return the hash of the package's source without the modules and folders left out."""
    root, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if name.parts[0] not in left_out:
            total.update(name.as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()
