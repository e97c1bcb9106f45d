"""Configuration: frozen dataclasses, the only place where a default number of a run is written.

A variant or a profile is a *diff* against these defaults, a nested mapping that names only what differs. Parts with a
free choice of kind (world, encoders, predictor, latent, inference, expander) are given by `name` plus the options of
that kind; `jepa.runs.build` checks them against the kind's own signature. Keys that do not exist raise.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml


@dataclass(frozen=True)
class Part:
    """A part chosen by name, with the options of that kind."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Part:
        """Return the part of a flat mapping with `name` among its options. Raises: ValueError if there is no name."""
        if "name" not in settings:
            raise ValueError(f"part: expected a mapping with 'name', found {dict(settings)}")
        return cls(settings["name"], {key: value for key, value in settings.items() if key != "name"})

    def flat(self) -> dict[str, Any]:
        """Return the flat mapping that `of` reads."""
        return {"name": self.name, **self.options}


def later(default: Any, absent: Any) -> Any:
    """Return a setting that came later than the first runs, which went as at the value `absent`: no key has it then."""
    return field(default=default, metadata={"absent": absent})


@dataclass(frozen=True)
class Loss:
    """Weights of the training loss (dimensionless): energy + variance + covariance terms (LeCun 2022, figure 14)."""

    energy: float = 1.0  # criterion 3: s_y predictable from s_x
    energy_start: float = 1.0  # share of that weight with which the training begins
    variance: float = 0.0  # criteria 1 and 2, first half: no component constant
    covariance: float = 0.0  # criteria 1 and 2, second half: components decorrelated
    information_x: float = 1.0  # criterion 1: factor of both for s_x
    information_y: float = 1.0  # criterion 2: factor of both for s_y
    beta: float = math.inf  # inverse temperature of the free energy, per unit of energy; infinity is the minimum
    beta_start: float = math.inf  # where the annealing begins; infinity: no annealing
    anneal: float = 0.5  # share of the steps over which energy weight and temperature go linearly to their final values


@dataclass(frozen=True)
class Train:
    """The optimizer loop."""

    steps: int = 1000  # optimizer steps; 0 leaves the weights as they are drawn
    batch: int = 128  # pairs per step
    rate: float = 3e-3  # peak learning rate of AdamW
    beta2: float = 0.999  # share of the past in AdamW's mean of squared gradients
    decay: float = 0.0  # weight decay of AdamW
    clip: float = 10.0  # largest norm of the gradient
    pool: int = 16384  # pairs that frozen encoders encode once, to train a predictor on
    checkpoint: float = 30.0  # seconds between checkpoints
    watch: int = 4  # looks in the course of the training for signs of a collapse
    watched: int = later(1024, absent=1024)  # pairs that are looked at


@dataclass(frozen=True)
class Measure:
    """What is measured on a trained model, and with how many samples."""

    names: tuple[str, ...] = ()  # functions of jepa.evaluate
    contexts: int = 4  # contexts x whose energy landscape is looked at
    grid: int = 96  # points per axis of a two-dimensional landscape
    chains: int = 128  # walkers of a volume estimate
    moves: int = 12  # moves of each walker per level
    epsilon: float = 0.01  # the energy is low where F < epsilon x the reference energy E0
    epsilons: tuple[float, ...] = (1e-2, 1e-3)  # falling thresholds over which a dimension is read
    samples: int = 4096  # training pairs on which probes and decoders learn
    probe: int = 512  # random features of the probes of factors and paths
    decoder: int = 200  # optimizer steps of a decoder to pixels
    latent: Mapping[str, Any] = field(default_factory=dict)  # options of the latent that differ from those in training
    minimize: bool = False  # find z by minimizing, though a network proposed it in training
    pairs: int = later(0, absent=0)  # held-out pairs that are measured, the first ones; 0 for all


@dataclass(frozen=True)
class Config:
    """One run: a world, the parts of a JEPA, its loss, its training and what is measured."""

    world: Part = Part("plane")
    context: str = "x"  # what the context encoder sees: x, or y for an auto-encoder
    told: tuple[str, ...] = ()  # factors that the predictor is told, as its action: what no latent then has to find
    encoder_x: Part = Part("identity")
    encoder_y: Part = Part("identity")  # "shared" is the context encoder itself
    predictor: Part = Part("mlp")
    latent: Part = Part("none")
    inference: Part = Part("minimize")  # of z: by minimizing the energy, or amortized, by a network
    expander: Part = Part("identity")
    loss: Loss = Loss()
    train: Train = Train()
    measure: Measure = Measure()
    device: str = "cpu"
    streams: str = later(
        "purpose", absent="seed"
    )  # of random numbers: of (seed, purpose), or "seed": all the seed's own

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers no run can have."""
        positive = {"train": ("rate", "clip", "pool"), "loss": ("energy_start", "beta", "beta_start", "anneal")}
        positive |= {"measure": ("contexts", "grid", "chains", "moves", "epsilon", "samples", "probe", "decoder")}
        for section, name in ((section, name) for section, names in positive.items() for name in names):
            if not (value := getattr(getattr(self, section), name)) > 0:
                raise ValueError(f"{section}.{name}: expected a number above 0, found {value!r}")
        least = {"loss": dict.fromkeys(("variance", "covariance", "information_x", "information_y"), 0)}
        least |= {"train": {"steps": 0, "batch": 2, "watch": 0, "watched": 4}, "measure": {"pairs": 0}}
        for section, name in ((section, name) for section, names in least.items() for name in names):
            if not (value := getattr(getattr(self, section), name)) >= least[section][name]:
                raise ValueError(f"{section}.{name}: expected at least {least[section][name]}, found {value!r}")
        if not 0 <= self.train.beta2 < 1:
            raise ValueError(f"train.beta2: expected a share from 0 to below 1, found {self.train.beta2!r}")
        for name, known in (("context", ("x", "y")), ("streams", ("purpose", "seed"))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected {' or '.join(map(repr, known))}, found {value!r}")


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
        tree[item.name] = list(value) if isinstance(value, tuple) else value
    return tree


def unknown(what: str, found: str, known: Any) -> ValueError:
    """Return the error for a name that does not exist: what it is, the nearest match and 99 known names at most."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(str(found), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(f"{what}: expected one of {', '.join(known[:99]) or 'none'}, found {found!r}{hint}")


def _replace(config: Any, diff: Mapping[str, Any], prefix: str) -> Any:
    """Return a dataclass with the entries of `diff` replaced, recursively."""
    types, changes = get_type_hints(type(config)), {}
    for key, value in diff.items():
        if key not in types:
            raise unknown(f"setting {prefix + key!r}", key, types)
        old = getattr(config, key)
        if isinstance(old, Part):
            changes[key] = _part(old, value, prefix + key)
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
    kept = dict(old.options) if kind == old.name else {}
    return Part(kind, kept | {key: item for key, item in value.items() if key != "name"})


def checked(old: Any, value: Any, hint: Any, name: str) -> Any:
    """Return `value` as the type of the default it replaces; an integer may stand for a float, nothing else."""
    if isinstance(old, tuple) and isinstance(value, list | tuple):
        return tuple(checked(kind(), item, None, name) for item in value for kind in get_args(hint)[:1]) or tuple(value)
    if isinstance(old, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isnan(value):
            raise ValueError(f"{name}: expected a number, found nan")
        return float(value)
    if type(value) is not type(old):
        raise ValueError(f"{name}: expected {type(old).__name__}, found {value!r}")
    return value
