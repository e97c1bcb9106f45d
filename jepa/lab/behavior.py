"""Compute what the code behind a notebook does: the short runs of its variants, and what the notebook makes of them.

    python -m jepa.lab.behavior 04_latents

runs the notebook at the settings of `experiments/behavior.yaml`, in double precision, every training cut half-way and
resumed, and writes results/behavior/04_latents.json: for each variant what summarizes its trained weights, its training
curve, what the monitor saw and what was measured, and beside them the rows that the notebook derived, what it printed
and what its figures show. A stage that depends on that file runs again where the code does something else, not where
its text is another. Double precision comes out the same on every processor to about ten digits: a file whose numbers
all agree with those that are there stays as it is, byte for byte.

What escapes it: what only full size reaches, what only single precision shows, what only a GPU does.
"""

from __future__ import annotations

from jepa.runs.processes import ENVIRONMENT, die_with_parent

if __name__ == "__main__":  # before anything slow is imported, as in `jepa.lab.run`
    die_with_parent()

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib.figure import Figure

from jepa.checkpoints import load
from jepa.data import verify
from jepa.lab import form, paths
from jepa.lab.drawn import drawn
from jepa.lab.numbers import differences, rounded, summary
from jepa.runs import behavior
from jepa.runs.behavior import fingerprint
from jepa.runs.config import to_dict
from jepa.runs.run import Run
from jepa.runs.tasks import addresses
from jepa.runs.variants import read

RUN, DERIVED = 1e-6, 2e-5  # relative tolerances: of runs, which keep all digits, and of what is derived from six digits
DRAWN = 2e-3  # of figures: a search that breaks a tie the other way, as on another processor, moves a line of thousands
NOTHING = 1e-8  # of the order of rounding errors
SHOWN = 12  # places of a difference that are named


def compute(name: str, store: Path) -> dict[str, Any]:
    """Return the behavior of a notebook.

    Args: store: an empty folder for its runs.
    Raises: RuntimeError naming the cell that failed.
    """
    figures: list[dict[str, Any]] = []
    with _figures(figures), mock.patch.object(paths, "runs", lambda: store):
        study, printed = _executed(name, store)
    variants = read(paths.variants(name))  # at their own settings, so that another default is noticed
    runs = {}
    for run in (run for (_, seed), run in study.runs.items() if seed == 0):
        own = fingerprint(to_dict(variants[run.task.name].config, deciding=True))
        runs[run.task.name] = {"settings": own, **_run(run, study.settings)}
    rows = study.table.itertuples(index=False)
    derived = {
        f"{row.claim} {row.variant} {row.seed} {row.metric}": row.value
        for row in rows
        if row.metric not in runs.get(row.variant, {"measured": {}})["measured"]
    }
    sets = sorted({variant.data for variant in variants.values()})
    made = {"derived": derived, "printed": printed, "figures": figures}
    data = {name: fingerprint(verify(paths.data(name))) for name in sets}
    return rounded({"settings": study.settings, "data": data, "runs": runs, "notebook": made})


def renew(name: str) -> str:
    """Compute a notebook's behavior if what decides it changed, write it if it came out otherwise, and say so in words.

    Raises: RuntimeError if the code changed meanwhile; as `compute`.
    """
    file, code = paths.behaviors() / f"{name}.json", behavior.digests(left_out=())
    beside, inputs = file.with_suffix(".source"), _inputs(name, code)
    stamp = f"{behavior.source()} {inputs}\n"
    if file.is_file() and beside.is_file() and beside.read_text(encoding="utf-8") == stamp:
        return "nothing that decides it changed"
    scratch = paths.root() / "build"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="behavior-") as store:
        new = compute(name, Path(store))
    if behavior.digests(left_out=()) != code or _inputs(name, code) != inputs:
        raise RuntimeError(f"{name}: expected code that stays as it is, found it changed meanwhile; run this again")
    old = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    places = changes(old, new)
    if places:
        paths.write(file, written(new))
    paths.write(beside, stamp)
    rest = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return f"other in {len(places)} places: {'; '.join(places[:SHOWN])}{rest}" if places else "the same"


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the places where two behaviors differ by more than rounding errors."""
    names = sorted({*old, *new} - {"notebook"})
    runs, others = ({name: of.get(name, {}) for name in names} for of in (old, new))
    found = list(differences(runs, others, RUN, NOTHING))
    for pictures, tolerance in ((False, DERIVED), (True, DRAWN)):
        before, after = (
            {name: made for name, made in of.get("notebook", {}).items() if (name == "figures") is pictures}
            for of in (old, new)
        )
        found += differences(before, after, tolerance, NOTHING)
    return found


def written(of: dict[str, Any]) -> str:
    """Return a behavior as the text of its file: a line a run, so that a difference reads well."""
    runs = ",\n".join(f"  {json.dumps(name)}: {json.dumps(run)}" for name, run in sorted(of["runs"].items()))
    rest = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in of.items() if name != "runs")
    return "{\n" + ",\n".join([*rest, f' "runs": {{\n{runs}\n }}']) + "\n}\n"


def main(arguments: list[str] | None = None) -> None:
    """Renew one notebook's behavior."""
    parser = argparse.ArgumentParser(description="Compute what the code behind a notebook does.")
    parser.add_argument("notebook", help="its name")
    options = parser.parse_args(arguments)
    os.environ.update(ENVIRONMENT | {"MPLBACKEND": "agg"})
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    try:
        print(f"{options.notebook}: {renew(options.notebook)}")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def _executed(name: str, store: Path) -> tuple[Any, list[str]]:
    """Return the study of a notebook whose cells were run in this process, and what they printed."""
    shell, printed = InteractiveShell.instance(colors="NoColor"), []
    for number, cell in enumerate(form.code(form.read(paths.notebook(name)))):
        with capture_output() as captured:
            result = shell.run_cell(form.text(cell["source"]))
        if error := result.error_before_exec or result.error_in_exec:
            raise RuntimeError(f"{name}: code cell {number} failed with {error!r}\n{captured.stdout}") from error
        printed.append(captured.stdout)
        if "parameters" in form.tags(cell):
            shell.user_ns.update(profile="behavior", out=str(store.relative_to(paths.root()) / "out"))
    return shell.user_ns["study"], printed


def _run(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a short run asked for and what it came to."""
    training, measuring = addresses(run.task, settings)
    courses = run.curve | {f"monitored {name}": values for name, values in run.diagnostics.items()}
    curve = {name: summary(values) for name, values in courses.items()}
    trained = {"weights": _weights(run.folder / "checkpoint.pt"), "curve": curve, "warnings": run.warnings}
    measured = {row.metric: [row.value, row.count] for row in run.rows}
    return {"training": training, "measuring": measuring, "trained": trained, "measured": measured}


def _weights(checkpoint: Path) -> list[Any]:
    """Return the summaries of a model's tensors, added up whatever their names, and a hash of the other ones."""
    state = load(checkpoint)
    entries = [entry for part in ("model", "objective") for entry in state[part].values()]
    tensors = [entry for entry in entries if isinstance(entry, torch.Tensor)]
    real = [summary(tensor.numpy()) for tensor in tensors if tensor.is_floating_point()]
    others = sorted(fingerprint(tensor.tolist()) for tensor in tensors if not tensor.is_floating_point())
    return [len(real), *(sum(column) for column in zip(*real, strict=True)), fingerprint(others)]


@contextmanager
def _figures(found: list[dict[str, Any]]) -> Iterator[None]:
    """Note what every figure shows that is drawn to a file or into a notebook, once."""
    draw = Figure.savefig

    @wraps(draw)  # pyplot looks at its name
    def note(figure: Figure, *args: Any, **options: Any) -> None:
        """Draw a figure and note what it shows."""
        draw(figure, *args, **options)
        shown = rounded(drawn(figure))
        if shown not in found[-1:]:
            found.append(shown)

    with mock.patch.object(Figure, "savefig", note):
        yield


def _inputs(name: str, code: dict[str, str]) -> str:
    """Return the fingerprint of all that decides a notebook's behavior."""
    root = paths.root()
    cells = [form.text(cell["source"]) for cell in form.code(form.read(paths.notebook(name)))]
    files = [root / "experiments" / "behavior.yaml", root / "experiments" / "data.yaml", root / "requirements.lock"]
    files += sorted(paths.variants(name).glob("*.yaml"))
    texts = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files if file.is_file()}
    manifests = sorted((root / "data").glob("*/*/manifest.json"))
    return fingerprint(code, cells, texts, [file.read_text() for file in manifests], torch.__version__)


if __name__ == "__main__":
    main()
