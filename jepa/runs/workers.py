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
from jepa.runs.resumed import resumed
from jepa.runs.run import Run, is_trained, run, stored, train_run
from jepa.runs.tasks import Task, task_key

How = tuple[Path, Path | None, float | None]  # store, file of the progress, where trainings are cut
STEP, HEAD_STEP, MEASURING = 13, 3, 1500  # ms on one core for a step, one behind frozen encoders, a run's measuring


def execute_all(
    tasks: Sequence[Task],
    store: Path,
    workers: int = 1,
    progress: Path | None = None,
    cut: float | None = None,
) -> list[Run]:
    """Return all runs, in the order of the tasks, done by `workers` processes of one thread each.

    Runs in the store are read by this process, and where nothing else is asked for no other is started.

    Args: tasks: what to run; store: folder of finished runs; workers: processes; progress: file to which is appended
        what there is to do and how far it is (`jepa.runs.progress`), None for none; cut: fraction of the steps after
        which every training is cut and resumed, None for never.
    Raises: ValueError for workers < 1 or as the first run that fails; RuntimeError if a process is killed, or has other
        code than the caller. Finished runs stay in the store.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, found {workers}")
    asked = [task_key(task) for task in tasks]
    runs = {key: stored(task, store) for key, task in dict(zip(asked, tasks, strict=True)).items()}
    left = [task for task, key in zip(tasks, asked, strict=True) if runs[key] is None]
    work = _work(left, store)
    parts = {name: [getattr(one, name) for one in work.values()] for name in ("runs", "train", "measure")}
    tell(progress, stored=len(tasks) - len(left), **parts)
    if work:
        runs |= _pooled(work, (store, progress, cut), workers)
    return [runs[key] for key in asked]


class Work(NamedTuple):
    """A task that is not done yet, asked for or built on."""

    task: Task
    parents: tuple[str, ...]  # the keys of what has to be trained before
    runs: int  # how often it is asked for
    train: float  # about how long its training takes, in ms on one core
    measure: float


def _work(tasks: Sequence[Task], store: Path) -> dict[str, Work]:
    """Return what has to be done for tasks, by key; what others are built on and nobody asked for is trained only.

    How long it takes is for a bar only: training steps and a round number for the measuring, which are right for the
    profile cpu within a factor of two and compare runs of other sizes well enough.
    """
    asked, work = Counter(task_key(task) for task in tasks), {}
    waiting = list(tasks)
    while waiting:
        task = waiting.pop(0)
        if (key := task_key(task)) in work:
            continue
        step = 0 if is_trained(task, store) else HEAD_STEP if {"encoder", "below"} & {*task.parents} else STEP
        older = [parent for parent in task.parents.values() if not is_trained(parent, store)]
        costs = step * task.config.train.steps, MEASURING * (asked[key] > 0)
        work[key] = Work(task, tuple(task_key(parent) for parent in older), asked[key], *costs)
        waiting = older + waiting
    return work


def _pooled(work: dict[str, Work], how: How, workers: int) -> dict[str, Any]:
    """Return what comes of all work, by key."""
    # a server forked before any thread exists: safe beside BLAS and CUDA, and torch is imported once for all workers
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(_modules())  # all of them: none is read from a file that was edited meanwhile
    prepare, precision = _one_thread, (torch.get_default_dtype(),)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare, initargs=precision) as pool:
        try:
            futures = _submit(pool, work, how)
            return dict(zip(futures, _results(list(futures.values())), strict=True))
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process was killed, most often for lack of memory; finished runs are kept, run again to go on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure the rest is not begun


def _submit(pool: ProcessPoolExecutor, work: dict[str, Work], how: How) -> dict[str, Future[Any]]:
    """Return the futures of all work; what is built on others begins when these are trained, not yet measured.

    A run that others wait for is trained by itself, and measured when that is done.
    """
    numbers = {key: number for number, key in enumerate(work)}
    built_on = {parent for one in work.values() for parent in one.parents}
    trained: dict[str, Future[Any]] = {}
    futures: dict[str, Future[Any]] = {}

    def submit(key: str, act: Callable[..., Any], last: bool) -> Future[Any]:
        """Return the future of a piece of work, the last one of its key or not."""
        future = pool.submit(_do, act, work[key].task, how, numbers[key])
        if last:
            future.add_done_callback(partial(_ended, how[1], numbers[key]))
        return future

    while waiting := [key for key in work if key not in futures]:
        for key in waiting:
            if all(parent in trained and trained[parent].done() for parent in work[key].parents):
                if key in built_on and key not in trained:
                    trained[key] = submit(key, train_run, last=not work[key].runs)
                if not work[key].runs:
                    futures[key] = trained[key]
                elif key not in built_on or trained[key].done():
                    futures[key] = submit(key, run, last=True)
        running = {future for future in (*trained.values(), *futures.values()) if not future.done()}
        if len(futures) < len(work):
            wait(running, return_when=FIRST_COMPLETED)
        for future in (*trained.values(), *futures.values()):
            if future.done():
                future.result()  # raises at once what a training raised
    return futures


def _do(act: Callable[..., Any], task: Task, how: How, number: int) -> Any:
    """Do one piece of work in a worker, which tells how far it is.

    Raises: RuntimeError if the worker's code is not the one under which the result would be kept.
    """
    if loaded() != task.code.source:
        raise RuntimeError("jepa: expected workers with the code of the caller, found other code; start it again")
    store, progress, cut = how
    with of(progress, number):
        return act(task, store) if cut is None else resumed(act, task, store, cut)


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
