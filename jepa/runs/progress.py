"""What is to be done and how far it is: lines of JSON appended to a file that whoever shows a bar follows.

    {"stored": 5, "runs": [1, 0], "train": [5200, 400], "measure": [500, 0]}      what one call has to do
    {"run": 0, "trained": 0.25}                                                 how far a training is
    {"run": 0, "ended": true}

The first line has one entry per piece of work: how many of the runs asked for it is, 0 for a training that others are
built on, and how long its two parts take beside each other. A file takes lines from many processes without a lock that
a killed one could leave closed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_listening: tuple[Path, int] | None = None  # the file, and the number of the run that this process is at


def tell(file: Path | None, **line: Any) -> None:
    """Append one line to the file, in one piece; None is nobody."""
    if file is not None:
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, f"{json.dumps(line)}\n".encode())
        finally:
            os.close(handle)


@contextmanager
def of(file: Path | None, run: int) -> Iterator[None]:
    """Have what this process trains meanwhile told as that of one run."""
    global _listening
    _listening = None if file is None else (file, run)
    try:
        yield
    finally:
        _listening = None


def trained(share: float) -> None:
    """Tell which share of its training the run that this process is at has behind it."""
    if _listening is not None:
        file, run = _listening
        tell(file, run=run, trained=round(share, 4))
