"""Variants: the files of `experiments/`, each naming only what differs from the defaults.

claim: E1                        the claim it serves
data: plane/places               its held-out set; the set's world is the variant's world
data: {fork: fork/two, …}        or several: a variant for each, named fork_<variant> …, and built on fork_…
only: {fork: {…}}                optional: settings for one of the several
levels: {4: {latent.size: 4}}    optional: a variant for each level, named <variant>_<level>
base: <variant>                  optional: the variant that this one is, but for its own settings
parents: {encoder: <variant>}    optional: its settings are taken over, and its trained encoders are kept as they are;
                                 they may have been trained on another world whose pictures have the same shape
parents: {start: <variant>}      optional: its settings are taken over, and training begins with its trained weights
parents: {below: <variant>}      optional: its settings are taken over, and its levels kept below further ones
config: {…}                      settings of `jepa.runs.config.Config`

Of base and parents a variant names one at most. What a variant is built on may itself be built on another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jepa.runs.config import Config, configure, read_diff, unknown

ROLES = ("encoder", "start", "below")  # of a parent
KEYS = {"claim", "data", "only", "levels", "config", "base", "parents"}


class Variant(NamedTuple):
    """A named variant, at one of its levels."""

    name: str
    claim: str
    data: str  # folder under data/
    config: Config
    parents: Mapping[str, str] = MappingProxyType({})  # role -> the variant that has it


def read(folder: Path, *diffs: Mapping[str, Any]) -> dict[str, Variant]:
    """Return the variants of a folder `experiments/<notebook>` by name, with further diffs laid over each.

    Args: folder: of the variants' files, beside `data.yaml`; diffs: of a profile or of a user, the last one wins; a
        variant of 0 steps stays untrained.
    Raises: ValueError naming the file for a key, held-out set or setting that does not exist.
    """
    sets = read_diff(folder.parent / "data.yaml")
    texts: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.yaml")):
        texts |= _texts(file, sets)
    found: dict[str, Variant] = {}
    for stem, text in texts.items():
        inherited, parents = _inherited(stem, texts)
        base = {"world": sets[text["data"]]["world"]}
        for level, diff in text.get("levels", {"": {}}).items():
            name = f"{stem}_{level}" if level != "" else stem
            try:
                own = configure(base, *inherited, *text["diffs"], diff)
                untrained = [{"train.steps": 0}] if own.train.steps == 0 else []
                config = configure(*diffs, *untrained, base=own)
            except ValueError as error:
                raise ValueError(f"{text['file']}: {error}") from error
            found[name] = Variant(name, text["claim"], text["data"], config, parents)
    return found


def _inherited(
    stem: str, texts: Mapping[str, Mapping[str, Any]], below: tuple[str, ...] = ()
) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """Return the settings that a variant takes over, oldest first, and its parents, whose weights it needs, by role.

    Raises: ValueError for a variant it cannot take them from.
    """
    text, below = texts[stem], (*below, stem)
    links = _links(text)
    if not links:
        return [], {}
    known, named = [name for name, other in texts.items() if "levels" not in other and name not in below], {}
    for key, parent in links.items():
        named[key] = next((name for name in (f"{text['prefix']}_{parent}",) if name in texts), parent)
        if named[key] not in known:
            raise unknown(f"{text['file']}: {key}", named[key], known)
    first = next(iter(named.values()))
    settings, older = _inherited(first, texts, below)
    return [*settings, *texts[first]["diffs"]], older if "base" in named else named


def _links(text: Mapping[str, Any]) -> dict[str, str]:
    """Return the other variants that a variant names, by "base" or by role. Raises: ValueError for other roles."""
    if "base" in text and "parents" in text:
        raise ValueError(f"{text['file']}: base, parents: expected one of them, found 2")
    parents = text.get("parents", {})
    if not isinstance(parents, Mapping) or len(parents) > 1:
        raise ValueError(f"{text['file']}: parents: expected a role with its variant, found {parents!r}")
    for role in parents:
        if role not in ROLES:
            raise unknown(f"{text['file']}: parents", role, ROLES)
    return {"base": text["base"]} if "base" in text else dict(parents)


def _texts(file: Path, sets: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a variant's file says, by the variant's name: one, or one for each of its held-out sets.

    Raises: ValueError for a key or a held-out set that does not exist.
    """
    text = read_diff(file)
    for key in text:
        if key not in KEYS:
            raise unknown(f"{file.name}: key {key!r}", key, KEYS)
    for key in ("claim", "data"):
        if key not in text:
            raise ValueError(f"{file.name}: expected the keys claim and data, found {', '.join(text) or 'none'}")
    several = isinstance(text["data"], Mapping)
    found = {}
    for prefix, data in (text["data"] if several else {"": text["data"]}).items():
        if data not in sets:
            raise unknown(f"{file.name}: data", data, sets)
        diffs = [text.get("config", {}), text.get("only", {}).get(prefix, {})]
        name = f"{prefix}_{file.stem}" if several else file.stem
        found[name] = text | {"data": data, "diffs": diffs, "file": file.name, "prefix": prefix}
    for prefix in text.get("only", {}):
        if not several or prefix not in text["data"]:
            raise unknown(f"{file.name}: only", prefix, text["data"] if several else ())
    return found


def choose(variants: Mapping[str, Variant], names: tuple[str, ...]) -> list[Variant]:
    """Return the named variants, all if none is named. Raises: ValueError for one that does not exist."""
    for name in names:
        if name not in variants:
            raise unknown("variant", name, variants)
    return [variants[name] for name in names or variants]
