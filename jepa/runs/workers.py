"""Many runs at a time: a pool of processes of one thread each."""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepa.runs.behavior import digests, loaded
from jepa.runs.processes import die_with_parent, keep_memory
from jepa.runs.progress import of, tell
from jepa.runs.run import Run, execute, is_trained, learn, stored
from jepa.runs.tasks import Task, identity

STEP, HEAD_STEP, MEASURING = 13, 3, 1500  # ms on one core for a step, one behind frozen encoders, a run's measuring


def execute_all(
    tasks: Sequence[Task],
    store: Path,
    workers: int = 1,
    progress: Path | None = None,
    do: Callable[[Task, Path], Run] | None = None,
) -> list[Run]:
    """Return all runs, in the order of the tasks, done by `workers` processes of one thread each.

    Runs in the store are read by this process, and where nothing else is asked for no other is started.

    Args: tasks: what to run; store: folder of finished runs; workers: processes; progress: file to which is appended
        what there is to do and how far it is (`jepa.runs.progress`), None for none; do: how what is asked for is done,
        None for `execute`.
    Raises: ValueError for workers < 1 or as the first run that fails; RuntimeError if a process is killed, or has other
        code than the caller. Finished runs stay in the store.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, found {workers}")
    asked = [identity(task) for task in tasks]
    runs = {key: stored(task, store) for key, task in dict(zip(asked, tasks, strict=True)).items()}
    left = [task for task, key in zip(tasks, asked, strict=True) if runs[key] is None]
    work = _work(left, store)
    parts = {name: [getattr(one, name) for one in work.values()] for name in ("runs", "train", "measure")}
    tell(progress, stored=len(tasks) - len(left), **parts)
    if work:
        runs |= _pooled(work, store, workers, progress, do or execute)
    return [runs[key] for key in asked]


class Work(NamedTuple):
    """A task that is not done yet, asked for or built on."""

    task: Task
    parent: str | None  # the identity of what has to be done before
    runs: int  # how often it is asked for
    train: float  # about how long its training takes, in ms on one core
    measure: float


def _work(tasks: Sequence[Task], store: Path) -> dict[str, Work]:
    """Return what has to be done for tasks, by identity; what others are built on and nobody asked for is trained only.

    How long it takes is for a bar only: training steps and a round number for the measuring, which are right for the
    profile cpu within a factor of two and compare runs of other sizes well enough.
    """
    asked, work = Counter(identity(task) for task in tasks), {}
    for task in tasks:
        while task is not None and (key := identity(task)) not in work:
            step = 0 if is_trained(task, store) else STEP if task.frozen is None else HEAD_STEP
            older = None if task.parent is None or is_trained(task.parent, store) else task.parent
            costs = step * task.config.train.steps, MEASURING * (asked[key] > 0)
            work[key] = Work(task, None if older is None else identity(older), asked[key], *costs)
            task = older
    return work


def _pooled(
    work: dict[str, Work], store: Path, workers: int, progress: Path | None, do: Callable[[Task, Path], Run]
) -> dict[str, Any]:
    """Return what comes of all work, by identity."""
    # a server forked before any thread exists: safe beside BLAS and CUDA, and torch is imported once for all workers
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(_modules())  # all of them: none is read from a file that was edited meanwhile
    prepare, precision = _one_thread, (torch.get_default_dtype(),)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare, initargs=precision) as pool:
        try:
            futures = _submit(pool, work, (store, progress), do)
            return dict(zip(futures, _results(list(futures.values())), strict=True))
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process was killed, most often for lack of memory; finished runs are kept, run again to go on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure the rest is not begun


def _submit(
    pool: ProcessPoolExecutor, work: dict[str, Work], where: tuple[Path, Path | None], do: Callable[[Task, Path], Run]
) -> dict[str, Future[Any]]:
    """Return the futures of all work; one that is built on another run begins when that run is done."""
    numbers = {key: number for number, key in enumerate(work)}
    futures: dict[str, Future[Any]] = {}
    while waiting := {key: one for key, one in work.items() if key not in futures}:
        for key, (task, parent, runs, *_) in waiting.items():
            if parent is None or (parent in futures and futures[parent].done()):
                futures[key] = pool.submit(_do, do if runs else learn, task, *where, numbers[key])
                futures[key].add_done_callback(partial(_ended, where[1], numbers[key]))
        if len(futures) < len(work):
            wait({future for future in futures.values() if not future.done()}, return_when=FIRST_COMPLETED)
        for future in futures.values():
            if future.done():
                future.result()  # raises at once what a training raised
    return futures


def _do(do: Callable[[Task, Path], Any], task: Task, store: Path, progress: Path | None, number: int) -> Any:
    """Do one piece of work in a worker, which tells how far it is.

    Raises: RuntimeError if the worker's code is not the one under which the result would be kept.
    """
    if loaded() != task.code.source:
        raise RuntimeError("jepa: expected workers with the code of the caller, found other code; start it again")
    with of(progress, number):
        return do(task, store)


def _ended(progress: Path | None, number: int, future: Future[Any]) -> None:
    """Tell that a piece of work has come to its end."""
    if not future.cancelled() and future.exception() is None:
        tell(progress, run=number, ended=True)


def _results(futures: list[Future[Any]]) -> list[Any]:
    """Return the results, or raise the first failure at once."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    return [future.result() for future in ([f for f in done if f.exception()] or futures)]


def _modules() -> list[str]:
    """Return the names of the package's modules, those aside that decide no run."""
    names = (Path(name).with_suffix("").parts for name in digests())
    return [".".join(("jepa", *parts)).removesuffix(".__init__") for parts in names]


def _one_thread(precision: torch.dtype) -> None:
    """Keep a worker to one thread, which on small models beats two threads in one process, and to its parent's life.

    Args: precision: of the caller.
    """
    torch.set_default_dtype(precision)
    die_with_parent()
    keep_memory()
    torch.set_num_threads(1)
