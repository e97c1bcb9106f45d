"""Many runs at a time: a pool of processes of one thread each."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from jepa.processes import die_with_parent, keep_memory
from jepa.runs import Run, execute, learn
from jepa.tasks import Task, identity


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
    """Return the futures of all tasks; one that is built on another run begins when that run is done.

    Runs that others are built on and nobody asked for are trained only.
    """
    asked = [identity(task) for task in tasks]
    waiting: dict[str, tuple[Task, str | None]] = {}  # with the run that has to be done before
    for task, key in zip(tasks, asked, strict=True):
        while task is not None and key not in waiting:
            parent = None if task.parent is None else identity(task.parent)
            waiting[key] = task, parent
            task, key = task.parent, parent
    futures: dict[str, Future] = {}
    while waiting:
        for key, (task, parent) in list(waiting.items()):
            if parent is None or (parent in futures and futures[parent].done()):
                del waiting[key]
                futures[key] = pool.submit(execute if key in asked else learn, task, store)
                for _ in range(asked.count(key)):
                    futures[key].add_done_callback(lambda _: progress(1))
        if waiting:
            wait({future for future in futures.values() if not future.done()}, return_when=FIRST_COMPLETED)
        for future in futures.values():
            if future.done():
                future.result()  # raises at once what a training raised
    return [futures[key] for key in asked]


def _results(futures: list[Future]) -> list[Run]:
    """Return the results, or raise the first failure at once."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    return [future.result() for future in ([f for f in done if f.exception()] or futures)]


def _one_thread() -> None:
    """Keep a worker to one thread, which on small models beats two threads in one process, and to its parent's life."""
    die_with_parent()
    keep_memory()
    torch.set_num_threads(1)
