"""Runs: a configuration and a seed, trained, measured and kept.

A run lies in a folder named by the fingerprint of all that decides its training: configuration, seed and what the code
does (`jepa.runs.behavior`). The record of what was measured on it is named by the fingerprint of all that decides the
measuring. So nothing is done twice, a run that was cut goes on from its checkpoint, and a new measure trains nothing.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from jepa import evaluate
from jepa.checkpoints import load as load_checkpoint
from jepa.checkpoints import restore, save
from jepa.data import HeldOut, load, verify
from jepa.model import JEPA
from jepa.monitor import CollapseWarning
from jepa.runs import build, progress
from jepa.runs.behavior import fingerprint
from jepa.runs.config import Config, Loss, Train, to_dict
from jepa.runs.encoded import Encoded, encoded, packed, unpacked
from jepa.runs.tasks import Task, measuring_key, training_key
from jepa.streams import generator_for
from jepa.train import Curve, fit

TRAINED = "trained"  # file in the folder of a run that is trained to its end


class Run(NamedTuple):
    """A finished run."""

    task: Task
    rows: list[evaluate.Row]
    curve: dict[str, list[float]]  # step and loss terms
    folder: Path
    looks: dict[str, list[float]]  # step and signs of a collapse
    warnings: list[str]  # what the training said of itself


Stop = Callable[[int], None]  # told of finished steps; what it raises ends the training, which goes on from there


def execute(task: Task, store: Path, stop: Stop | None = None) -> Run:
    """Return the run, from the store if it is there, else trained, measured and stored.

    Raises: ValueError as training, measuring or the data do, with the run's name and seed in front.
    """
    with _named(task):
        folder = _folder(task, store)
        record = folder / f"measured-{measuring_key(task)}.json"
        if not record.is_file():
            _measure(task, record, store, stop)
        result = _read(record)
    rows = [evaluate.Row(*row) for row in result["rows"]]
    return Run(task, rows, result["curve"], folder, result["looks"], result["warnings"])


def stored(task: Task, store: Path) -> Run | None:
    """Return the run if its record is in the store, else None. Raises: as `execute`."""
    with _named(task):
        recorded = (_folder(task, store) / f"measured-{measuring_key(task)}.json").is_file()
    return execute(task, store) if recorded else None


def learn(task: Task, store: Path) -> Path:
    """Train a task if it is not yet trained, which is all that runs built on it ask; return where it is kept.

    Raises: as `execute`.
    """
    if not is_trained(task, store):
        with _named(task):
            _train(task, store)
    return _folder(task, store)


def is_trained(task: Task, store: Path) -> bool:
    """Return whether the store has the weights of a run that is trained to its end."""
    return all((_folder(task, store) / name).is_file() for name in (TRAINED, "checkpoint.pt"))


def trained(run: Run) -> JEPA:
    """Return the run's model on the CPU, ready to infer as it was measured. Raises: ValueError for a bad checkpoint."""
    return _inferring(run.task, run.folder)


def _inferring(task: Task, folder: Path) -> JEPA:
    """Return a task's trained model as `trained` does."""
    return evaluate.inferring(task.config, _restored(task, folder)).eval()


def _restored(task: Task, folder: Path) -> JEPA:
    """Return a task's model on the CPU with all that was trained. Raises: ValueError for a bad checkpoint."""
    path = folder / "checkpoint.pt"
    model = build.model(evaluate.on_cpu(task.config), task.seed)
    restore(model, load_checkpoint(path), path)
    return model


def _train(task: Task, store: Path, stop: Stop | None = None) -> tuple[JEPA, HeldOut, Encoded | None, Curve]:
    """Train from the last checkpoint, and say so when it is done; return the model and what it is measured on."""
    config, path, pairs = task.config, _folder(task, store) / "checkpoint.pt", None
    evaluate.check(config)
    held_out = load(task.held_out, {"world": config.world.flat()}, config.measure.pairs)
    model = build.model(config, task.seed)
    generator = generator_for(config.streams, task.seed, "batches", config.device)
    parent = None if task.parent is None else learn(task.parent, store)
    with warnings.catch_warnings():  # what it warns of is kept with the run
        warnings.simplefilter("ignore", CollapseWarning)
        if task.frozen is None:
            start = None if parent is None else _restored(task.start, parent)
            curve = _fit(model, config, generator, path, start, stop)
        else:
            pairs = _encoded(task, parent, held_out)
            if config.streams == "seed":  # the batches are drawn on from where the pool's pairs end
                generator.set_state(pairs.state)
            frozen, settings = _inferring(task.frozen, parent), (config.train, config.loss)
            curve = _fit_head(model, frozen, pairs, settings, generator, path, stop)
    path.with_name(TRAINED).touch()
    return model, held_out, pairs, curve


def _measure(task: Task, record: Path, store: Path, stop: Stop | None) -> None:
    """Train what is left to train, measure, and write the record, last of all and whole."""
    model, held_out, pairs, curve = _train(task, store, stop)
    rows = evaluate.measure(task.config, model.to("cpu"), held_out, task.seed, pairs)
    result = {
        "name": task.name,
        "seed": task.seed,
        "config": to_dict(task.config),
        "rows": [list(row) for row in rows],
        "curve": {"step": curve.steps, **curve.terms},
        "looks": {"step": curve.looks, **curve.signs},
        "warnings": curve.warnings,
        "source": task.code.source,
    }
    temporary = record.with_name(f".{record.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result))
    os.replace(temporary, record)


def _fit(
    model: JEPA,
    config: Config,
    generator: torch.Generator,
    path: Path,
    start: JEPA | None,
    stop: Stop | None,
) -> Curve:
    """Train a model from its own weights, or from those of `start`; it is watched in units of its untrained self."""
    world = build.world(config)
    watch = build.watch(config, world, model) if config.train.watch else None
    if start is not None:
        _take(model, start)
    settings, told = (config.train, config.loss), _told(config.train, stop)
    return fit(model, build.source(config, world), settings, generator, path, told, watch)


def _fit_head(
    model: JEPA,
    frozen: JEPA,
    pairs: Encoded,
    settings: tuple[Train, Loss],
    generator: torch.Generator,
    path: Path,
    stop: Stop | None,
) -> Curve:
    """Train all but the encoders, which become those of `frozen`, on the pairs that these have encoded."""
    for name in ("encoder_x", "encoder_y"):
        _take(getattr(model, name), getattr(frozen, name), name)
    pool = build.pool(*(part.to(generator.device) for part in (pairs.pool.x, pairs.pool.y, pairs.pool.a)))
    told = _told(settings[0], stop)
    curve = fit(build.head(model), pool, settings, generator, path.with_name("head.pt"), told)
    save(path, {"model": model.state_dict()})
    return curve


def _told(train: Train, stop: Stop | None) -> Stop:
    """Return what tells of finished steps whoever watches, then the caller."""

    def told(step: int) -> None:
        """Tell of a step."""
        progress.trained(step / train.steps)
        if stop is not None:
            stop(step)

    return told


def _encoded(task: Task, parent: Path, held_out: HeldOut) -> Encoded:
    """Return what frozen encoders make of the pairs that all runs built on them learn from and are measured on."""
    config = task.config
    counts = [config.train.pool, config.measure.samples]
    drawn = [config.world.flat(), config.context, config.told, config.device, config.streams, task.seed]
    deciding = [*drawn, *counts, config.measure.pairs, task.code.encoding]
    path = parent / f"encoded-{fingerprint(deciding, verify(task.held_out)['files'])}.pt"
    if not path.is_file():
        made = encoded(config, _inferring(task.frozen, parent), held_out, task.seed)
        save(path, {"model": {}, **packed(made)})
    return _unpacked(path)


@lru_cache(maxsize=16)  # two worlds of a few seeds; what is learned from the pairs once serves all runs on them
def _unpacked(path: Path) -> Encoded:
    """Return pairs that were encoded. Raises: ValueError for a damaged file."""
    return unpacked(load_checkpoint(path))


@contextmanager
def _named(task: Task) -> Iterator[None]:
    """Put the name and seed of a task in front of what is raised."""
    try:
        yield
    except (ValueError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{task.name}, seed {task.seed}: {error}") from error


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
    return store / training_key(task)
