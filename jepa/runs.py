"""Runs: a configuration and a seed, trained, measured and kept; many of them in a pool of one-thread processes.

A run lies in a folder named by the fingerprint of all that decides its training: configuration, seed and source. The
record of what was measured on it is named by the fingerprint of all that decides the measuring. So nothing is done
twice, a run that was cut goes on from its checkpoint, and a new measure trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepa import build, evaluate
from jepa.config import Config, fingerprint, to_dict
from jepa.data import load, verify
from jepa.model import JEPA
from jepa.processes import die_with_parent
from jepa.train import fit, restore
from jepa.train import load as load_checkpoint

BESIDE = ("lab", "__main__.py", "runs.py", "variants.py")  # source that decides no result
MEASURING = (*BESIDE, "measures", "evaluate.py")  # source that decides no training


class Task(NamedTuple):
    """A run that is asked for."""

    name: str  # of the variant
    config: Config
    seed: int
    held_out: Path  # folder of the held-out set


class Run(NamedTuple):
    """A finished run."""

    task: Task
    rows: list[evaluate.Row]
    curve: dict[str, list[float]]  # step and loss terms
    modules: list[str]  # of this package that the run imported
    folder: Path


def execute(task: Task, store: Path) -> Run:
    """Return the run, from the store if it is there, else trained, measured and stored.

    Raises: ValueError as training, measuring or the data do, with the run's name and seed in front.
    """
    try:
        folder = store / _training_key(task)
        record = folder / f"measured-{_measuring_key(task)}.json"
        if not record.is_file():
            _train_and_measure(task, record)
        result = _read(record)
    except (ValueError, OSError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{task.name}, seed {task.seed}: {error}") from error
    rows = [evaluate.Row(*row) for row in result["rows"]]
    return Run(task, rows, result["curve"], result["modules"], folder)


def trained(run: Run) -> JEPA:
    """Return the run's model on the CPU, ready to infer as it was measured. Raises: ValueError for a bad checkpoint."""
    path = run.folder / "checkpoint.pt"
    model = build.model(evaluate.on_cpu(run.task.config), run.task.seed)
    restore(model, load_checkpoint(path), path)
    return evaluate.inferring(run.task.config, model).eval()


def execute_all(
    tasks: Sequence[Task], store: Path, workers: int = 1, progress: Callable[[int], None] | None = None
) -> list[Run]:
    """Return all runs, in the order of the tasks, done by `workers` processes of one thread each.

    Args: tasks: what to run; store: folder of finished runs; workers: processes; progress: called with the number of
        runs that have just ended.
    Raises: ValueError for workers < 1 or as the first run that fails; RuntimeError if a process is killed. Finished
        runs stay in the store.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, found {workers}")
    # a server forked before any thread exists: safe beside BLAS and CUDA, and torch is imported once for all workers
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(["jepa.runs"])
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        futures = [pool.submit(execute, task, store) for task in tasks]
        if progress is not None:
            for future in futures:
                future.add_done_callback(lambda _: progress(1))
        try:
            return _results(futures)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process was killed, most often for lack of memory; finished runs are kept, run again to go on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure the rest is not begun


def _results(futures: list[Future]) -> list[Run]:
    """Return the results, or raise the first failure at once."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    return [future.result() for future in ([f for f in done if f.exception()] or futures)]


def _train_and_measure(task: Task, record: Path) -> None:
    """Train from the last checkpoint, measure, and write the record, last of all and whole."""
    config = task.config
    evaluate.check(config)
    held_out = load(task.held_out, config.world)
    model = build.model(config, task.seed)
    generator = torch.Generator(device=config.device).manual_seed(task.seed)
    source = build.source(config, build.world(config))
    curve = fit(model, source, (config.train, config.loss), generator, record.with_name("checkpoint.pt"))
    rows = evaluate.measure(config, model.to("cpu"), held_out, task.seed)
    result = {
        "name": task.name,
        "seed": task.seed,
        "config": to_dict(config),
        "rows": [list(row) for row in rows],
        "curve": {"step": curve.steps, **curve.terms},
        "modules": sorted(name for name in sys.modules if name.split(".")[0] == "jepa"),
    }
    temporary = record.with_name(f".{record.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result))
    os.replace(temporary, record)


def _read(record: Path) -> dict[str, Any]:
    """Return a record. Raises: ValueError if it is damaged."""
    try:
        return json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(f"{record}: expected a record of a run, found {error}; delete it to measure again") from error


def _training_key(task: Task) -> str:
    """Return the fingerprint of all that decides the weights."""
    settings = {key: value for key, value in to_dict(task.config).items() if key != "measure"}
    return fingerprint(settings, task.seed, _source(*MEASURING), torch.__version__)


def _measuring_key(task: Task) -> str:
    """Return the fingerprint of all that decides the measurements on given weights."""
    return fingerprint(to_dict(task.config)["measure"], verify(task.held_out)["files"], _source(*BESIDE))


@cache
def _source(*left_out: str) -> str:
    """Return the hash of the package's source without the modules and folders left out."""
    root, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if name.parts[0] not in left_out:
            total.update(name.as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


def _one_thread() -> None:
    """Keep a worker to one thread, which on small models beats two threads in one process, and to its parent's life."""
    die_with_parent()
    torch.set_num_threads(1)
