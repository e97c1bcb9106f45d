"""What a run takes from its parents: their weights, and what their frozen encoders make of pairs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from torch import nn

from jepa.checkpoints import load, restore, save
from jepa.data import HeldOut, verify
from jepa.encoded import Encoded, alternatives, encoded, packed, unpacked
from jepa.model import JEPA
from jepa.runs import build
from jepa.runs.behavior import fingerprint
from jepa.runs.build import Parts
from jepa.runs.tasks import Task
from jepa.streams import generator_for

CHECKPOINT = "checkpoint.pt"  # file in the folder of a run


def load_parts(task: Task, folder: Path) -> Parts:
    """Return a task's parts with all that was trained, on the CPU. Raises: ValueError for a bad checkpoint."""
    path, of = folder / CHECKPOINT, build.parts(task.config, task.seed)
    state = load(path)
    restore(of.model, state, path)
    restore(of.objective, state, path, "objective")
    return of


def encoded_by(task: Task, parent: Path, held_out: HeldOut) -> Encoded:
    """Return what frozen encoders make of the pairs that all runs built on them learn from and are measured on."""
    config, seed, older = task.config, task.seed, task.parents["encoder"]
    counts = (config.pool, config.evaluation.samples)
    drawn_from = [config.world.flat(), config.context, config.condition_on, config.device, config.streams, seed]
    deciding = [*drawn_from, *counts, config.evaluation.pairs, task.code.encoding]
    path = parent / f"encoded-{fingerprint(deciding, verify(task.held_out)['files'])}.pt"
    if not path.is_file():
        model = build.as_measured(older.config, load_parts(older, parent).model).eval()
        world = build.world(config)
        pool_generator = generator_for(config.streams, seed, "pool", config.device)
        generators = pool_generator, generator_for(config.streams, seed, "probe pairs")
        made = encoded(
            model, build.source(config, world), counts, generators, held_out, alternatives(model, world, held_out)
        )
        save(path, {"model": {}, **packed(made)})
    return _unpacked(path)


@lru_cache(maxsize=16)  # two worlds of a few seeds; what is learned from the pairs once serves all runs on them
def _unpacked(path: Path) -> Encoded:
    """Return pairs that were encoded. Raises: ValueError for a damaged file."""
    return unpacked(load(path))


def copy_encoders(model: JEPA, other: JEPA) -> None:
    """Give a model the encoders of another one, to be kept as they are."""
    for name in ("encoder", "target_encoder"):
        copy_weights(getattr(model, name), getattr(other, name), name)


def copy_weights(module: nn.Module, other: nn.Module, name: str) -> None:
    """Give a module the weights of another one. Raises: ValueError if names or shapes do not fit."""
    try:
        module.load_state_dict(other.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        what = "expected the shape of the variant it is built on, found another"
        raise ValueError(f"{name}: {what} ({reason})") from error
