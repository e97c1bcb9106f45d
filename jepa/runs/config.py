"""Configuration: frozen dataclasses; the defaults of parts, weights and trainings stand beside their kinds.

A variant or a profile is a *diff* against these defaults, a nested mapping that names only what differs. Parts with a
free choice of kind (world, encoders, predictor, latent, inference, expander, measures) are given by `name` plus the
options of that kind; `jepa.runs.build` checks them against the kind's own signature. Keys that do not exist raise.

    measure: [collapse, {name: area, epsilon: 0.0025}]       a list says what is measured
    measure: {area: {grid: 48}}                              a mapping, with which options, of what is already listed
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from jepa.evaluate import MEASURES
from jepa.objectives.pairs import Weights
from jepa.runs.kinds import Part, checked, unknown
from jepa.runs.level import Level, at_least, later
from jepa.train import Train


@dataclass(frozen=True)
class Monitoring:
    """How a training is watched for a collapse (`jepa.monitor`)."""

    times: int = 4  # evaluations in the course of the training, after the one before it; 0 for none at all
    pairs: int = later(1024, absent=1024)  # that are evaluated

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that no monitor can have."""
        at_least("monitor", self, times=0, pairs=4)


@dataclass(frozen=True)
class Evaluation:
    """On what a trained model is measured."""

    samples: int = 4096  # training pairs on which probes and decoders learn
    probe: int = 512  # random features of the probes of factors and paths
    pairs: int = later(0, absent=0)  # held-out pairs that are measured, the first ones; 0 for all
    frames: int = later(161, absent=161)  # of the clips on which a hierarchy is measured, the first ones

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that no measurement can have."""
        at_least("evaluation", self, samples=1, probe=1, pairs=0, frames=1)


@dataclass(frozen=True)
class Config:
    """One run: a world, the parts of a JEPA, its objective, its training and what is measured."""

    world: Part = Part("plane")
    context: str = "x"  # what the context encoder sees: x, or y for an auto-encoder
    condition_on: tuple[str, ...] = ()  # factors that are the predictor's action: what no latent then has to find
    encoder: Part = Part("identity")
    target_encoder: Part = Part("identity")  # "shared" is the context encoder itself
    predictor: Part = Part("mlp")
    latent: Part = Part("none")
    inference: Part = Part("minimize")  # of z: by minimizing the energy, or by a network
    at_measurement: Mapping[str, Any] = field(default_factory=dict)  # options of the latent that differ when the model
    # is measured; `network: false` has z found by minimizing then, though a network proposed it in training
    expander: Part = Part("identity")
    loss: Weights = Weights()
    # "trajectories" and "levels" with their options are the others
    objective: Part = later(Part("pairs"), absent=Part("pairs"))
    # of a hierarchy, "1" the lowest
    levels: Mapping[str, Level] = field(default_factory=dict, metadata={"absent": {}})
    train: Train = Train()
    pool: int = 16384  # pairs that frozen encoders encode once, to train on
    monitor: Monitoring = Monitoring()
    measure: tuple[Part, ...] = ()  # functions of `jepa.evaluate`, with their options
    evaluation: Evaluation = Evaluation()
    device: str = "cpu"
    # of random numbers: "purpose": of (seed, purpose), or "seed": all the seed's own
    streams: str = later("purpose", absent="seed")

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers no run can have."""
        at_least("", self, pool=1)
        at_least("train", self.train, batch=2)
        for name, known in (("context", ("x", "y")), ("streams", ("purpose", "seed"))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected {' or '.join(map(repr, known))}, found {value!r}")

    def option(self, measure: str, name: str, default: Any = None) -> Any:
        """Return an option of a measure, the default where the configuration does not name it."""
        return next((part.options.get(name, default) for part in self.measure if part.name == measure), default)


def configure(*diffs: Mapping[str, Any], base: Config | None = None) -> Config:
    """Return the defaults (or `base`) with the diffs laid over them, the last one winning.

    Args: diffs: nested mappings; dotted keys such as `{"train.steps": 50}` are allowed.
    Returns: the frozen configuration.
    Raises: ValueError for a key that does not exist or a value of the wrong type, with its full name.
    """
    config = base or Config()
    for diff in diffs:
        if not isinstance(diff, Mapping):
            raise ValueError(f"settings: expected a mapping, found {diff!r}")
        config = _replace(config, nested(diff), "")
    return config


def nested(diff: Mapping[str, Any], tree: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return `diff`, dotted keys unfolded, {"a.b": 1} as {"a": {"b": 1}}. Raises: ValueError for a key given twice."""
    tree = {} if tree is None else tree
    for key, value in diff.items():
        first, _, rest = str(key).partition(".")
        value = {rest: value} if rest else value
        if isinstance(value, Mapping) and isinstance(tree.get(first, {}), dict):
            tree[first] = nested(value, tree.get(first))
        elif first in tree:
            raise ValueError(f"{first}: expected once, found {tree[first]!r} and {value!r}")
        else:
            tree[first] = value
    return tree


def read_diff(path: Path) -> dict[str, Any]:
    """Return the diff in a YAML file. Raises: ValueError if it is missing, unreadable or not a mapping."""
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise ValueError(f"variant {path.stem!r}: no file {path.name} in {path.parent.name}; variants there: {known}")
    try:
        diff = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: expected YAML, found {error}") from error
    if not isinstance(diff, dict):
        raise ValueError(f"{path.name}: expected a mapping of settings, found {type(diff).__name__}")
    return diff


def to_dict(config: Any, deciding: bool = False) -> dict[str, Any]:
    """Return the configuration as plain nested dictionaries, parts flattened to name and options.

    Args: deciding: leave out settings that came later and stand where runs without them stood, for keys of runs.
    """
    tree: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if deciding and "absent" in item.metadata and item.metadata["absent"] == value:
            continue
        if dataclasses.is_dataclass(value):
            value = value.flat() if isinstance(value, Part) else to_dict(value, deciding)
        if item.name == "levels":
            value = {number: to_dict(level, deciding) for number, level in value.items()}
        if isinstance(value, tuple):
            value = [part.flat() if isinstance(part, Part) else part for part in value]
        tree[item.name] = value
    return tree


def _replace(config: Any, diff: Mapping[str, Any], prefix: str) -> Any:
    """Return a dataclass with the entries of `diff` replaced, recursively."""
    types, changes = get_type_hints(type(config)), {}
    for key, value in diff.items():
        if key not in types:
            raise unknown(f"setting {prefix + key!r}", key, types)
        old = getattr(config, key)
        if isinstance(old, Part):
            changes[key] = _part(old, value, prefix + key)
        elif key == "measure":
            changes[key] = _measures(old, value)
        elif key == "levels":
            changes[key] = _levels(old, value)
        elif dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{key}: expected a mapping of settings, found {value!r}")
            changes[key] = _replace(old, value, f"{prefix}{key}.")
        else:
            changes[key] = checked(old, value, types[key], prefix + key)
    return dataclasses.replace(config, **changes)


def _part(old: Part, value: Any, name: str) -> Part:
    """Return a part; options stay while the name stays, a new name starts with its own defaults."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: expected a name or a mapping with options, found {value!r}")
    kind = value.get("name", old.name)
    if not kind:
        raise ValueError(f"{name}: expected a mapping with 'name', found {dict(value)}")
    kept = dict(old.options) if kind == old.name else {}
    return Part(kind, kept | {key: item for key, item in value.items() if key != "name"})


def _levels(old: Mapping[str, Level], value: Any) -> dict[str, Level]:
    """Return the levels of a hierarchy, settings of some laid over what they were.

    Raises: ValueError for a gap in their numbers, or a setting that does not exist or cannot be, with its level.
    """
    if not isinstance(value, Mapping) or not all(isinstance(item, Mapping) for item in value.values()):
        raise ValueError(f"levels: expected a mapping of settings for each number of a level, found {value!r}")
    found = dict(old)
    for number, diff in value.items():
        try:
            found[str(number)] = _replace(found.get(str(number), Level()), diff, "")
        except ValueError as error:
            raise ValueError(f"levels.{number}: {error}") from error
    expected = [str(number) for number in range(1, len(found) + 1)]
    if sorted(found) != sorted(expected):
        raise ValueError(f"levels: expected the numbers {', '.join(expected)}, found {', '.join(sorted(found))}")
    return {number: found[number] for number in expected}


def _measures(old: tuple[Part, ...], value: Any) -> tuple[Part, ...]:
    """Return what is measured: a list of names or of mappings with options; a mapping of options changes the old."""
    if isinstance(value, list | tuple):
        return tuple(_part(Part(""), item, "measure") for item in value)
    if not isinstance(value, Mapping):
        raise ValueError(f"measure: expected a list of measures, or options by measure, found {value!r}")
    for name, options in value.items():
        if name not in MEASURES:
            raise unknown("measure", name, MEASURES)
        if not isinstance(options, Mapping):
            raise ValueError(f"measure.{name}: expected a mapping of options, found {options!r}")
    return tuple(Part(part.name, {**part.options, **value.get(part.name, {})}) for part in old)
