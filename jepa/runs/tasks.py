"""What is asked for: a configuration and a seed, and the fingerprints by which a run is found again.

A run is kept under the fingerprint of all that decides its training: configuration, seed and what the code does. What
was measured on it is kept under that of all that decides the measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jepa.data import verify
from jepa.runs.behavior import Behavior, Code, fingerprint, source
from jepa.runs.config import Config, configure, to_dict
from jepa.runs.variants import Variant

MEASURED = ("measure", "evaluation", "at_measurement")  # settings that decide what is measured, and no training


class Task(NamedTuple):
    """A run that is asked for."""

    name: str  # of the variant
    config: Config
    seed: int
    held_out: Path  # folder of the held-out set
    code: Code
    # role -> the run that has to be trained before this one: "encoder", whose encoders it keeps as they are; "start",
    # with whose weights it begins; "below", whose levels it keeps as they are
    parents: Mapping[str, Task] = {}  # of nobody; a read-only mapping could not be sent to a worker


def tasks(
    variants: Mapping[str, Variant],
    chosen: Sequence[Variant],
    seeds: Iterable[int],
    data: Callable[[str], Path],
    behaviors: Sequence[Behavior] = (),
) -> list[Task]:
    """Return a task for every chosen variant and seed.

    Args: variants: all of the notebook by name, among them those that the chosen ones are built on; data: the folder
        of a held-out set by its name; behaviors: of short runs, by which the code behind each run is known.
    Raises: ValueError if the code changed since this process imported it.
    """
    text = source()
    known = behaviors if torch.get_default_dtype() == torch.float32 else ()  # short runs stand for those of full length

    def task(variant: Variant, seed: int) -> Task:
        """Return the task of a variant, with those of its parents."""
        parents = {role: task(variants[name], seed) for role, name in variant.parents.items()}
        made = Task(variant.name, variant.config, seed, data(variant.data), Code(*[text] * 4), parents)
        return made._replace(code=_code(made, known))

    seeds = list(seeds)
    return [task(variant, seed) for variant in chosen for seed in seeds]


def addresses(task: Task, settings: Mapping[str, Any]) -> tuple[str, str]:
    """Return the addresses of a task's short training and of what is measured on it: what they ask for, in the main.

    Args: settings: that make a run short.
    """
    untrained = {"train.steps": 0} if task.config.train.steps == 0 else {}
    short = to_dict(configure(settings, untrained, base=task.config), deciding=True)
    measured = {name: short.pop(name) for name in MEASURED}
    training = fingerprint(short, {role: addresses(parent, settings)[0] for role, parent in task.parents.items()})
    return training, fingerprint(training, measured)


def task_key(task: Task) -> str:
    """Return the fingerprint of all that a task asks for."""
    older = {role: task_key(parent) for role, parent in task.parents.items()}
    return fingerprint(task.name, to_dict(task.config), task.seed, str(task.held_out), older)


def training_key(task: Task) -> str:
    """Return the fingerprint of all that decides the weights."""
    older = {role: training_key(parent) for role, parent in task.parents.items()}
    dtype = torch.get_default_dtype()
    precision = [] if dtype == torch.float32 else [str(dtype)]
    return fingerprint(settings_of(task), task.seed, task.code.training, torch.__version__, older, *precision)


def measuring_key(task: Task) -> str:
    """Return the fingerprint of all that decides the measurements on given weights."""
    settings = to_dict(task.config, deciding=True)
    return fingerprint({name: settings[name] for name in MEASURED}, verify(task.held_out)["files"], task.code.measuring)


def settings_of(task: Task) -> dict[str, Any]:
    """Return the settings that decide a training."""
    return {key: value for key, value in to_dict(task.config, deciding=True).items() if key not in MEASURED}


def _code(task: Task, behaviors: Sequence[Behavior]) -> Code:
    """Return the fingerprints of the code behind a task: of what its short run came to, else of the code's text."""
    for behavior in behaviors:
        training, measuring = addresses(task, behavior.settings)
        if training in behavior.trainings:
            measured = behavior.measurings.get(measuring, task.code.source)
            return Code(task.code.source, behavior.trainings[training], measured, behavior.whole)
    return task.code
