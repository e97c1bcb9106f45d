"""A run whose training is cut on the way and resumed from its checkpoint, as a kill would have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jepa.runs.tasks import Task


def resumed(act: Callable[..., Any], task: Task, store: Path, cut: float) -> Any:
    """Return what `run` or `train_run` returns, the training cut on the way and resumed.

    Args: act: which of the two; cut: fraction of the steps after which the training is cut.
    Raises: as `act`.
    """
    last = max(1, round(cut * task.config.train.steps))

    def end(step: int) -> None:
        """End the training once."""
        if step == last:
            raise Cut

    try:
        return act(task, store, end)
    except Cut:
        return act(task, store)


class Cut(Exception):
    """A training that is to be resumed."""
