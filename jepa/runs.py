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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepa import build, evaluate
from jepa.config import Config, Loss, Train, fingerprint, to_dict
from jepa.data import load, verify
from jepa.model import JEPA
from jepa.processes import die_with_parent, keep_memory
from jepa.train import Curve, fit, restore, save
from jepa.train import load as load_checkpoint
from jepa.variants import Variant

BESIDE = ("lab", "__main__.py", "runs.py", "variants.py")  # source that decides no result
MEASURING = (*BESIDE, "measures", "evaluate")  # source that decides no training


class Task(NamedTuple):
    """A run that is asked for."""

    name: str  # of the variant
    config: Config
    seed: int
    held_out: Path  # folder of the held-out set
    frozen: Task | None = None  # the run whose trained encoders this one keeps as they are


class Run(NamedTuple):
    """A finished run."""

    task: Task
    rows: list[evaluate.Row]
    curve: dict[str, list[float]]  # step and loss terms
    modules: list[str]  # of this package that the run imported
    folder: Path


def tasks(
    variants: Mapping[str, Variant], chosen: Sequence[Variant], seeds: Iterable[int], data: Callable[[str], Path]
) -> list[Task]:
    """Return a task for every chosen variant and seed.

    Args: variants: all of the notebook by name, among them those whose encoders the chosen ones keep; data: the folder
        of a held-out set by its name.
    """

    def task(variant: Variant, seed: int) -> Task:
        """Return the task of a variant, with that of the encoders it keeps."""
        frozen = task(variants[variant.frozen], seed) if variant.frozen else None
        return Task(variant.name, variant.config, seed, data(variant.data), frozen)

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
            frozen = None if task.frozen is None else trained(execute(task.frozen, store))
            _train_and_measure(task, record, frozen)
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
        try:
            return _results(_submit(pool, tasks, store, progress or (lambda _: None)))
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process was killed, most often for lack of memory; finished runs are kept, run again to go on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure the rest is not begun


def _submit(
    pool: ProcessPoolExecutor, tasks: Sequence[Task], store: Path, progress: Callable[[int], None]
) -> list[Future]:
    """Return the futures of all tasks; one that keeps the encoders of another begins when that one is done."""
    parents = {_identity(task.frozen): task.frozen for task in tasks if task.frozen is not None}
    plain = {_identity(task): task for task in tasks if task.frozen is None}
    begun = {key: pool.submit(execute, task, store) for key, task in {**parents, **plain}.items()}
    waiting = {begun[key] for key in parents}
    futures: dict[int, Future] = {n: begun[_identity(task)] for n, task in enumerate(tasks) if task.frozen is None}
    for future in futures.values():
        future.add_done_callback(lambda _: progress(1))
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()  # raises what the encoders' own training raised
        for number, task in enumerate(tasks):
            if number not in futures and begun[_identity(task.frozen)] in done:
                futures[number] = pool.submit(execute, task, store)
                futures[number].add_done_callback(lambda _: progress(1))
    return [futures[number] for number in range(len(tasks))]


def _results(futures: list[Future]) -> list[Run]:
    """Return the results, or raise the first failure at once."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    return [future.result() for future in ([f for f in done if f.exception()] or futures)]


def _train_and_measure(task: Task, record: Path, frozen: JEPA | None) -> None:
    """Train from the last checkpoint, measure, and write the record, last of all and whole."""
    config = task.config
    evaluate.check(config)
    held_out = load(task.held_out, config.world)
    model = build.model(config, task.seed)
    generator = torch.Generator(device=config.device).manual_seed(task.seed)
    source, path = build.source(config, build.world(config)), record.with_name("checkpoint.pt")
    if frozen is None:
        curve = fit(model, source, (config.train, config.loss), generator, path)
    else:
        curve = _fit_head(model, frozen.to(config.device), source, (config.train, config.loss), generator, path)
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


def _fit_head(
    model: JEPA, frozen: JEPA, source: Callable, settings: tuple[Train, Loss], generator: torch.Generator, path: Path
) -> Curve:
    """Train all but the encoders, which become those of `frozen` and encode their pool of pairs once."""
    for name in ("encoder_x", "encoder_y"):
        try:
            getattr(model, name).load_state_dict(getattr(frozen, name).state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{name}: expected the shape of the frozen variant's, found another ({reason})") from error
    pool = build.encoded(frozen, source, settings[0].pool, generator)
    curve = fit(build.head(model), pool, settings, generator, path.with_name("head.pt"))
    save(path, {"model": model.state_dict()})
    return curve


def _read(record: Path) -> dict[str, Any]:
    """Return a record. Raises: ValueError if it is damaged."""
    try:
        return json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(f"{record}: expected a record of a run, found {error}; delete it to measure again") from error


def _identity(task: Task) -> str:
    """Return the fingerprint of all that a task without frozen encoders asks for."""
    return fingerprint(task.name, to_dict(task.config), task.seed, str(task.held_out))


def _folder(task: Task, store: Path) -> Path:
    """Return where a run is kept."""
    return store / _training_key(task)


def _training_key(task: Task) -> str:
    """Return the fingerprint of all that decides the weights."""
    settings = {key: value for key, value in to_dict(task.config).items() if key != "measure"}
    frozen = [] if task.frozen is None else [_training_key(task.frozen)]
    return fingerprint(settings, task.seed, _source(*MEASURING), torch.__version__, *frozen)


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
    keep_memory()
    torch.set_num_threads(1)
