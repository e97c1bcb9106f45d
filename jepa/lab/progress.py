"""A run one can watch: a bar in a terminal or a notebook, plain lines in a log.

The processes of a run append to a file what there is to do and how far it is (`jepa.runs.progress`); whoever shows it
follows that file. Under `jepa.lab.run` it is this runner, since what a kernel prints would be kept in the notebook.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from jepa.lab import paths

FILE = "JEPA_PROGRESS"  # names the file in the environment of a kernel whose runner shows how far it is
EVERY = 0.5  # seconds between two looks at the file
LINE_EVERY = 30.0  # seconds between two lines of a log
BAR = "{desc} |{bar}| {percentage:.0f} % [{elapsed} so far, about {remaining} left]"


@dataclass
class State:
    """How far the runs are that were asked for last."""

    stored: int = 0  # runs that were done before
    runs: list[int] = field(default_factory=list)  # for each piece of work: how many runs it is
    train: list[float] = field(default_factory=list)  # and how long its parts take beside each other
    measure: list[float] = field(default_factory=list)
    trained: dict[int, float] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    calls: int = 0  # how often runs were asked for

    def read(self, line: str) -> None:
        """Take in one line of the file."""
        told: dict[str, Any] = json.loads(line)
        if "runs" in told:
            self.__init__(**told, calls=self.calls + 1)  # type: ignore[misc]
        elif "ended" in told:
            self.ended.add(told["run"])
        else:
            self.trained[told["run"]] = told["trained"]

    @property
    def counts(self) -> str:
        """Runs done and runs asked for, in words."""
        done = self.stored + sum(self.runs[number] for number in self.ended)
        return f"{done} of {self.stored + sum(self.runs)} runs"

    @property
    def share(self) -> float:
        """The share of the work that is done, of what was not done before; 1 where nothing had to be done."""
        whole = sum(self.train) + sum(self.measure)
        running = sum(self.train[number] * share for number, share in self.trained.items() if number not in self.ended)
        return (running + sum(self.train[n] + self.measure[n] for n in self.ended)) / whole if whole else 1.0


class Bar:
    """One bar, in a terminal or a notebook. The time left is the time so far times work to go over work done."""

    def __init__(self, name: str) -> None:
        """Args: name: of what runs."""
        from tqdm.auto import tqdm

        self._name, self._calls = name, 0
        self._bar = tqdm(total=1.0, desc=name, bar_format=BAR, smoothing=0, disable=False, dynamic_ncols=True)

    def show(self, state: State) -> None:
        """Draw the bar again."""
        if state.calls != self._calls:
            self._calls = state.calls
            self._bar.reset()
        if state.calls:
            self._bar.set_description_str(f"{self._name}: {state.counts}", refresh=False)
            self._bar.n = state.share
        self._bar.refresh()

    def close(self, state: State) -> None:
        """Leave the bar as it is at the end."""
        self.show(state)
        self._bar.close()


class Lines:
    """Lines for a log: when the first run is done, at most every `LINE_EVERY` seconds from then on, and at the end."""

    def __init__(self, name: str) -> None:
        """Args: name: of what runs."""
        self._name, self._calls, self._start = name, 0, time.monotonic()
        self._said, self._last = 0.0, ""

    def show(self, state: State) -> None:
        """Print a line where one is due."""
        now = time.monotonic()
        if state.calls != self._calls:
            self._calls, self._start, self._last = state.calls, now, ""
        first = not self._last and (state.ended or not state.runs)
        if state.calls and (first or (self._last and now - self._said >= LINE_EVERY)):
            self._say(state)

    def close(self, state: State) -> None:
        """Print how far it came, unless that was said."""
        if state.calls and not self._last.startswith(state.counts):
            self._say(state)

    def _say(self, state: State) -> None:
        """Print a line."""
        from tqdm import tqdm

        self._said = time.monotonic()
        spent = self._said - self._start
        self._last = state.counts
        if state.runs:
            self._last += f", {tqdm.format_interval(spent)} so far"
        if 0 < state.share < 1:
            self._last += f", about {tqdm.format_interval(spent * (1 / state.share - 1))} left"
        print(f"{self._name}: {self._last}", file=sys.stderr, flush=True)


@contextmanager
def shown(name: str) -> Iterator[Path | None]:
    """Show how far runs are, and return the file for `execute_all` to tell it in, None where nobody is to see it.

    In a kernel under the runner this is the runner's file. Elsewhere TQDM_DISABLE in the environment switches it off.
    """
    if FILE in os.environ:
        yield Path(os.environ[FILE])
    elif "TQDM_DISABLE" in os.environ:
        yield None
    else:
        with followed(name) as file:
            yield file


@contextmanager
def followed(name: str) -> Iterator[Path]:
    """Show what is told in a file that this makes, in a thread: a bar in a terminal or a notebook, else lines."""
    file = paths.root() / "build" / "unfinished" / f"{name}.{os.getpid()}.progress"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    view = Bar(name) if hasattr(builtins, "__IPYTHON__") or _columns() else Lines(name)
    stop = Event()
    thread = Thread(target=_follow, args=(file, view, stop), daemon=True)
    thread.start()
    try:
        yield file
    finally:
        stop.set()
        thread.join()
        file.unlink(missing_ok=True)


def _columns() -> int:
    """Return how wide the terminal is, 0 where there is none or it has no width, as that of some services."""
    return os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0


def _follow(file: Path, view: Bar | Lines, stop: Event) -> None:
    """Show what is in the file until it is to stop, and once more then."""
    state, rest = State(), ""
    with file.open(encoding="utf-8") as told:
        while True:
            last = stop.wait(EVERY)
            *lines, rest = (rest + told.read()).split("\n")  # the last one may not be whole yet
            for line in lines:
                state.read(line)
            if last:
                return view.close(state)
            view.show(state)
