"""Run a notebook with parameters and keep the executed copy, the same bytes for the same run.

    python -m jepa.lab.run NOTEBOOK OUTPUT [-p NAME VALUE]...

Papermill runs the cells. This command adds what a pipeline needs: a parameter that the notebook does not have, or of
another type than its default, stops the run before it starts; the output appears whole and only after success; a
failure names its cell and the way back; nothing outlives the command; and a module edited while the notebook ran is
an error, since DVC records a stage's dependencies only after its command.
"""

from __future__ import annotations

from jepa.runs.processes import ENVIRONMENT, die_with_parent

if __name__ == "__main__":  # before anything slow is imported: a dvc killed meanwhile would leave this command alone
    die_with_parent()

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from jepa.lab import form, paths, progress
from jepa.runs.behavior import digests
from jepa.runs.config import unknown

COLORS = re.compile(r"\x1b\[[0-9;]*m")
EXPONENT = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+$")


class Values(yaml.SafeLoader):
    """YAML as its version 1.2 reads numbers: 1e-4 is one."""


Values.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


class StageError(Exception):
    """A notebook that did not run to its end."""


def parse(pairs: list[tuple[str, str]], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return parameters given as text, read as YAML and checked against the notebook's defaults.

    Raises: ValueError for a name the notebook does not have, a name given twice, or a value of another type than the
    default (a default of None takes anything, an integer may stand for a float).
    """
    values: dict[str, Any] = {}
    for name, given in pairs:
        if name not in defaults:
            raise unknown(f"parameter {name!r}", name, defaults)
        if name in values:
            raise ValueError(f"parameter {name!r}: expected once, found twice")
        try:
            value = yaml.load(given, Values)  # noqa: S506 (a safe loader)
        except yaml.YAMLError as error:
            raise ValueError(f"parameter {name!r}: expected YAML, found {given!r}") from error
        default = defaults[name]
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise ValueError(f"parameter {name!r}: expected {type(default).__name__} like {default!r}, found {value!r}")
        values[name] = value
    return values


def execute(notebook: Path, parameters: dict[str, Any]) -> form.Notebook:
    """Return the executed notebook in its normal form; its kernel works in the root of the checkout.

    Raises: StageError if a cell fails or the kernel dies; what had run by then lies in build/unfinished.
    """
    os.environ.update(ENVIRONMENT)
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from nbclient.output_widget import OutputWidget
    from papermill.exceptions import PapermillExecutionError

    # Writing to the kernel while it waits for the kernel's reply, nbclient sometimes misses the reply and waits forever
    # (nbclient issue 312). It does so only to keep an output widget up to date, which nobody sees in such a run.
    OutputWidget.send = lambda *_, **__: None
    root = paths.root()
    unfinished = root / "build" / "unfinished" / notebook.name
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        executed = papermill.execute_notebook(
            nbformat.read(notebook, as_version=4),
            str(unfinished),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(root),
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except PapermillExecutionError as error:
        trace = COLORS.sub("", "\n".join(error.traceback))
        reason = f"stopped in cell {error.cell_index}: {error.ename}: {error.evalue}"
        raise StageError(f"{trace}\n\n{notebook.name} {reason}\n{_remains(unfinished)}") from error
    except DeadKernelError as error:
        reason = "lost its kernel: out of memory, or ended from outside"
        raise StageError(f"{notebook.name} {reason}\n{_remains(unfinished)}") from error
    unfinished.unlink(missing_ok=True)
    return form.normalize(executed)


def run(notebook: Path, output: Path, pairs: list[tuple[str, str]]) -> None:
    """Execute a notebook and write its executed copy.

    Raises: ValueError for bad arguments, StageError if it fails or its code changed meanwhile.
    """
    if output.resolve() == notebook.resolve():
        raise ValueError("output: expected another file than the notebook; `python -m jepa.lab.refresh` runs in place")
    parameters = parse(pairs, form.parameters(form.read(notebook), notebook.name))
    before = digests(left_out=())
    with progress.followed(output.stem) as file:
        os.environ[progress.FILE] = str(file)  # for the kernel
        executed = execute(notebook, parameters)
    after = digests(left_out=())
    if changed := sorted(name for name in {*before, *after} if before.get(name) != after.get(name)):
        raise StageError(
            f"{notebook.name} ran while {', '.join(changed)} changed: its results belong to the text before.\n"
            f"Run the command again; finished trainings that the change does not touch are not repeated."
        )
    paths.write(output, form.dumps(executed))


def main(arguments: list[str] | None = None) -> None:
    """Run one notebook; exit status 2 for bad arguments, 1 for a failed run."""
    parser = argparse.ArgumentParser(description="Run a notebook with parameters and keep the executed copy.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="pairs")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start = time.monotonic()
    try:
        run(options.notebook, options.output, options.pairs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (StageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"error: {options.notebook.name} was interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    print(f"{options.notebook.name}: {time.monotonic() - start:.0f} s")


def _remains(unfinished: Path) -> str:
    """Return what is left after a failure and how to get back what DVC removed before the run."""
    return (
        f"As far as it ran: {unfinished.relative_to(paths.root())}. Under `dvc repro` the stage's former results were\n"
        "removed before the run; `git checkout -- results` and `dvc checkout` bring them back."
    )


if __name__ == "__main__":
    main()
