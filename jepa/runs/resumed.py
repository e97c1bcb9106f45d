"""A run whose training is cut on the way and resumed from its checkpoint, as a kill would have it."""

from __future__ import annotations

from pathlib import Path

from jepa.runs.run import Run, execute
from jepa.runs.tasks import Task


def resumed(task: Task, store: Path, cut: float) -> Run:
    """Return the run as `jepa.runs.run.execute` does, its training cut on the way and resumed.

    Args: cut: share of the steps after which it is cut.
    Raises: as `execute`.
    """
    last = max(1, round(cut * task.config.train.steps))

    def end(step: int) -> None:
        """End the training once."""
        if step == last:
            raise Cut

    try:
        return execute(task, store, end)
    except Cut:
        return execute(task, store)


class Cut(Exception):
    """A training that is to be resumed."""
