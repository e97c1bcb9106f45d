"""Say how long `make reproduce` will take on this machine before it begins.

    python -m jepa.lab.plan [PROFILE]

A profile's parameters file has the minutes of each stage as they were measured once on two cores, trainings included.
Of these a fixed part is imports and figures; the rest are runs, which more cores do side by side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from jepa.lab import paths
from jepa.runs.config import read_diff
from jepa.runs.processes import cores

MEASURED_ON = 2  # cores
FIXED = 10 / 60  # minutes of a stage that more cores do not shorten


def minutes(measured: float, available: int) -> float:
    """Return the minutes of a stage on so many cores, given those it was measured to take."""
    fixed = min(measured, FIXED)
    return fixed + (measured - fixed) * MEASURED_ON / available


def due(status: Mapping[str, list[Any]], above: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the stages that `dvc repro` will run at most.

    A stage runs if its inputs changed or its outputs are missing. What depends on one whose inputs changed may run as
    well. An input that is only missing is made again as it was by the stage it comes from, and changes nothing.

    Args: status: what `dvc status` says of each stage that is not up to date; above: all that depends on each stage.
    """
    changed = {stage for stage, reasons in status.items() if any(_is_of_inputs(reason) for reason in reasons)}
    incomplete = {stage for stage, reasons in status.items() if any("changed outs" in reason for reason in reasons)}
    return changed | incomplete | {later for stage in changed for later in above[stage]}


def stages(profile: str) -> list[str]:
    """Return the names of the stages that `dvc repro` will run at most at a profile, in the order of their names."""
    import networkx
    from dvc.repo import Repo

    file = paths.profile(profile).with_name("dvc.yaml")
    pipeline = file.relative_to(paths.root()).as_posix()
    with Repo(str(paths.root())) as repo:
        graph = repo.index.graph  # from a stage to those it depends on
        above = {stage.addressing: {one.addressing for one in networkx.ancestors(graph, stage)} for stage in graph}
        found = due(repo.status(targets=[pipeline], with_deps=True), above)
    return sorted(stage.name for stage in graph if stage.addressing in found and stage.path_in_repo == pipeline)


def report(profile: str, names: list[str]) -> str:
    """Return how long stages will take. Raises: ValueError for an unknown profile."""
    settings = read_diff(paths.profile(profile))
    available = settings["workers"] or cores()
    if not names:
        return f"Profile {profile}: all stages are up to date."
    known = {name: minutes(value, available) for name, value in settings.get("minutes", {}).items()}
    rows = {name: known.get(name.removeprefix("notebook@")) for name in names}
    lines = [f"Profile {profile}, {available} runs at a time, at most (finished runs are not repeated):"]
    lines += [f"  {name:<36}{_written(value)}" for name, value in rows.items()]
    lines += [f"  {'all':<36}{_written(None if None in rows.values() else sum(rows.values()))}"]
    if profile != "smoke":
        quick = sum(minutes(value, cores()) for value in read_diff(paths.profile("smoke"))["minutes"].values())
        lines.append(f"`make reproduce PROFILE=smoke` runs everything once in little, in {_written(quick).strip()}.")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Print how long a profile will take; what DVC cannot tell is no error here, `dvc repro` says it better."""
    parser = argparse.ArgumentParser(description="Say how long `make reproduce` will take on this machine.")
    parser.add_argument("profile", nargs="?", default="cpu")
    options = parser.parse_args(arguments)
    try:
        paths.profile(options.profile)
    except ValueError as error:
        sys.exit(f"error: {error}")
    from dvc.exceptions import DvcException

    try:
        names = stages(options.profile)
    except (DvcException, OSError) as error:
        print(f"How long it will take is not known: {error}")
    else:
        print(report(options.profile, names), flush=True)


def _is_of_inputs(reason: Any) -> bool:
    """Return whether a reason not to be up to date is an input other than before: `changed deps` or a command."""
    if isinstance(reason, str):
        return True
    return any(state != "deleted" for state in reason.get("changed deps", {}).values())


def _written(value: float | None) -> str:
    """Return minutes in words."""
    if value is None:
        return "  not measured"
    return f"{value:5.1f} min" if value < 10 else f"{value:5.0f} min"


if __name__ == "__main__":
    main()
