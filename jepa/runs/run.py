"""Runs: a configuration and a seed; key, parts, training, measurements, record.

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
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from jepa.batches import Source
from jepa.checkpoints import copy_weights, restore
from jepa.checkpoints import load as load_checkpoint
from jepa.data import load
from jepa.encoded import Encoded
from jepa.evaluate.subject import Row, measured
from jepa.hierarchy import HJEPA
from jepa.model import JEPA
from jepa.monitor import CollapseWarning, drawn
from jepa.objectives.levels import LevelsObjective
from jepa.runs import below, build, progress
from jepa.runs.build import Parts
from jepa.runs.config import to_dict
from jepa.runs.data import made_by
from jepa.runs.frozen import encoded_by
from jepa.runs.tasks import Task, measuring_key, training_key
from jepa.sampling import pool
from jepa.streams import generator_for
from jepa.train import Curve, fit

TRAINED = "trained"  # file in the folder of a run that is trained to its end
CHECKPOINT = "checkpoint.pt"


class Run(NamedTuple):
    """A finished run."""

    task: Task
    rows: list[Row]
    curve: dict[str, list[float]]  # step and loss terms
    folder: Path
    diagnostics: dict[str, list[float]]  # step and diagnostics of a collapse
    warnings: list[str]  # during training


Stop = Callable[[int], None]  # told of every finished step; what it raises ends the training, to go on from there


def run(task: Task, store: Path, stop: Stop | None = None) -> Run:
    """Return the run, from the store if it is there, else trained, measured and stored.

    Raises: ValueError as training, measuring or the data do, with the run's name and seed in front.
    """
    with _named(task):
        record = _record(task, store)
        if not record.is_file():
            _train_and_measure(task, store, record.parent, record, stop)
        return _read(task, record)


def stored(task: Task, store: Path) -> Run | None:
    """Return the run if its record is in the store, else None. Raises: as `run`."""
    with _named(task):
        record = _record(task, store)
        return _read(task, record) if record.is_file() else None


def train_run(task: Task, store: Path, stop: Stop | None = None) -> Path:
    """Train a task if it is not yet trained, which is all that its children ask; return where it is kept.

    Raises: as `run`.
    """
    folder = store / training_key(task)
    if not _is_trained(folder):
        with _named(task):
            _train_and_measure(task, store, folder, None, stop)
    return folder


def is_trained(task: Task, store: Path) -> bool:
    """Return whether the store has the weights of a run that is trained to its end."""
    return _is_trained(store / training_key(task))


def load_model(run: Run) -> JEPA | HJEPA:
    """Return the run's model on the CPU, ready to infer as it was measured. Raises: ValueError for a bad checkpoint."""
    return build.as_measured(run.task.config, load_parts(run.task, run.folder).model).eval()


def load_parts(task: Task, folder: Path) -> Parts:
    """Return a task's parts with all that was trained, on the CPU. Raises: ValueError for a bad checkpoint."""
    path, of = folder / CHECKPOINT, build.parts(task.config, task.seed, below=below.levels_below(task))
    state = load_checkpoint(path)
    restore(of.model, state, path)
    restore(of.objective, state, path, "objective")
    return of


def _is_trained(folder: Path) -> bool:
    """Return whether a folder has the weights of a run that is trained to its end."""
    return all((folder / name).is_file() for name in (TRAINED, CHECKPOINT))


def _train_and_measure(task: Task, store: Path, folder: Path, record: Path | None, stop: Stop | None) -> None:
    """Build everything once, train from the last checkpoint, and say so; measure and write the record, if one is asked.

    The record is written last of all and whole.
    """
    config = task.config
    measures = build.measures(config)  # what does not exist stops here, before anything is trained
    held_out = load(task.held_out, made_by(config.world), config.evaluation.pairs)
    of = build.parts(config, task.seed, "encoder" in task.parents, below.levels_below(task))
    reference = build.reference(config, of, held_out)
    folders = {role: train_run(parent, store) for role, parent in task.parents.items()}
    parents = {role: load_parts(task.parents[role], kept) for role, kept in folders.items()}
    encoded, left = None, None
    if "encoder" in parents:
        encoded = encoded_by(task, parents["encoder"].model, held_out, folders["encoder"])
    if "below" in parents:
        of, left = below.on_codes(task, of, parents["below"].model, store)
    curve, found = _fit(task, of, parents, (encoded, left), folder / CHECKPOINT, stop)
    (folder / TRAINED).touch()
    if record is None:
        return
    of.model.to("cpu")
    rows = measured(build.subject(config, task.seed, of, held_out, reference, encoded), measures)
    result = {
        "name": task.name,
        "seed": task.seed,
        "config": to_dict(config),
        "rows": [list(row) for row in rows],
        "curve": {"step": curve.steps, **curve.terms},
        **found,
        "source": task.code.source,
    }
    temporary = record.with_name(f".{record.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result))
    os.replace(temporary, record)


def _fit(
    task: Task,
    of: Parts,
    parents: dict[str, Parts],
    kept: tuple[Encoded | None, list[nn.Module] | None],
    path: Path,
    stop: Stop | None,
) -> tuple[Curve, dict[str, Any]]:
    """Train the parts in place; return the curve, and what the monitor found.

    Frozen encoders are another source, of what they make of a pool of pairs, and a shorter list of parts to train.
    Args: kept: what frozen encoders make of pairs, and what is left to train above frozen levels, None for none.
    """
    (encoded, parts), config, sample = kept, task.config, of.sample
    generator = generator_for(config.streams, task.seed, "batches", config.device)
    of.model.to(config.device)
    of.objective.to(config.device)
    if encoded is not None:
        for name in ("encoder", "target_encoder"):
            copy_weights(getattr(of.model, name), getattr(parents["encoder"].model, name), name)
        sample = pool(*(part.to(config.device) for part in (encoded.pool.x, encoded.pool.y, encoded.pool.a)))
        parts = [of.model.predictor, of.model.latent, of.objective]
        if config.streams == "seed":  # the batches are drawn on from where the pool's pairs end
            generator.set_state(encoded.state)
    monitor = _monitor(task, of, sample)
    if "start" in parents:
        _begin(of, parents["start"])
    told = _told(config.train.steps, stop)
    callbacks = [told] if monitor is None else [monitor, told]
    with warnings.catch_warnings():  # what it warns of is kept with the run
        warnings.simplefilter("ignore", CollapseWarning)
        settings = {"parts": parts, "checkpoint": path, "callbacks": callbacks}
        curve = fit(of.model, of.objective, sample, generator, config.train, **settings)
    if monitor is None:
        return curve, {"diagnostics": {"step": []}, "warnings": []}
    return curve, {"diagnostics": {"step": monitor.steps, **monitor.diagnostics}, "warnings": monitor.warnings}


def _begin(of: Parts, start: Parts) -> None:
    """Give parts the weights of others to begin with. Raises: ValueError if names or shapes do not fit."""
    copy_weights(of.model, start.model, "start")
    if isinstance(of.objective, LevelsObjective):  # levels may have been trained with objectives of their own
        of.objective.begin(of.model)
    else:
        copy_weights(of.objective, start.objective, "start")


def _monitor(task: Task, of: Parts, sample: Source) -> Any:
    """Return the monitor of an untrained model, if one is asked for; behind frozen encoders it sees their pool."""
    config = task.config
    if not config.monitor.times:
        return None
    if of.objective.encoded:
        return drawn(of.model, of.objective, sample, config.train.steps, config.monitor.times)
    return build.monitor(config, of)


def _told(steps: int, stop: Stop | None) -> Callable[[int, nn.Module], None]:
    """Return the callback that tells of finished steps: whoever watches now and then, whoever may stop it always."""
    every = max(1, steps // 100)

    def told(step: int, model: nn.Module) -> None:
        """Tell of a step."""
        if step and (step % every == 0 or step == steps):
            progress.trained(step / steps)
        if step and stop is not None:
            stop(step)

    return told


@contextmanager
def _named(task: Task) -> Iterator[None]:
    """Put the name and seed of a task in front of what is raised."""
    try:
        yield
    except (ValueError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{task.name}, seed {task.seed}: {error}") from error


def _record(task: Task, store: Path) -> Path:
    """Return where what was measured on a run is kept, in the folder of the run."""
    return store / training_key(task) / f"measured-{measuring_key(task)}.json"


def _read(task: Task, record: Path) -> Run:
    """Return the run of a record. Raises: ValueError if it is damaged."""
    try:
        found = json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(f"{record}: expected a record of a run, found {error}; delete it to measure again") from error
    rows = [Row(*row) for row in found["rows"]]
    return Run(task, rows, found["curve"], record.parent, found["diagnostics"], found["warnings"])
