"""What frozen encoders make of a task's pairs, kept beside the run that has trained them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jepa.checkpoints import load, save
from jepa.data import HeldOut, verify
from jepa.encoded import Encoded, alternatives, encoded, packed, unpacked
from jepa.model import JEPA
from jepa.runs import build
from jepa.runs.behavior import fingerprint
from jepa.runs.tasks import Task
from jepa.streams import generator_for


def encoded_by(task: Task, model: JEPA, held_out: HeldOut, folder: Path) -> Encoded:
    """Return what frozen encoders make of the pairs that all runs built on them learn from and are measured on.

    Args: task: what is built on them; model: their own, trained, on the CPU; folder: where that run is kept.
    """
    config, seed = task.config, task.seed
    counts = (config.pool, config.evaluation.samples)
    drawn_from = [config.world.flat(), config.context, config.condition_on, config.device, config.streams, seed]
    deciding = [*drawn_from, *counts, config.evaluation.pairs, task.code.encoding]
    path = folder / f"encoded-{fingerprint(deciding, verify(task.held_out)['files'])}.pt"
    if not path.is_file():
        model, world = model.eval(), build.world(config)
        pool_generator = generator_for(config.streams, seed, "pool", config.device)
        generators = pool_generator, generator_for(config.streams, seed, "probe pairs")
        futures = alternatives(model, world, held_out)
        made = encoded(model, build.source(config, world), counts, generators, held_out, futures)
        save(path, {"model": {}, **packed(made)})
    return _unpacked(path)


@lru_cache(maxsize=16)  # two worlds of a few seeds; what is learned from the pairs once serves all runs on them
def _unpacked(path: Path) -> Encoded:
    """Return pairs that were encoded. Raises: ValueError for a damaged file."""
    return unpacked(load(path))
