"""Variants: the files of `experiments/`, each naming only what differs from the defaults.

claim: E1                        the claim it serves
data: plane/places               its held-out set; the set's world is the variant's world
levels: {4: {latent.size: 4}}    optional: a variant for each level, named <variant>_<level>
base: <variant>                  optional: the variant whose settings this one's are laid over
frozen: <variant>                optional: the same, and its trained encoders are kept as they are
config: {…}                      settings of `jepa.config.Config`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jepa.config import Config, configure, read_diff, unknown

KEYS = {"claim", "data", "levels", "base", "frozen", "config"}


class Variant(NamedTuple):
    """A named variant, at one of its levels."""

    name: str
    claim: str
    data: str  # folder under data/
    config: Config
    frozen: str = ""  # the variant whose encoders it keeps


def read(folder: Path, *diffs: Mapping[str, Any]) -> dict[str, Variant]:
    """Return the variants of a folder `experiments/<notebook>` by name, with further diffs laid over each.

    Args: folder: of the variants' files, beside `data.yaml`; diffs: of a profile or of a user, the last one wins; a
        variant of 0 steps stays untrained.
    Raises: ValueError naming the file for a key, held-out set or setting that does not exist.
    """
    sets = read_diff(folder.parent / "data.yaml")
    texts = {file.stem: _text(file, sets) for file in sorted(folder.glob("*.yaml"))}
    found: dict[str, Variant] = {}
    for stem, text in texts.items():
        frozen = text.get("frozen", "")
        inherited = _inherited(stem, texts)
        base = {"world": sets[text["data"]]["world"]}
        for level, diff in text.get("levels", {"": {}}).items():
            name = f"{stem}_{level}" if level != "" else stem
            try:
                own = configure(base, inherited, text.get("config", {}), diff)
                untrained = [{"train.steps": 0}] if own.train.steps == 0 else []
                config = configure(*diffs, *untrained, base=own)
            except ValueError as error:
                raise ValueError(f"{stem}.yaml: {error}") from error
            found[name] = Variant(name, text["claim"], text["data"], config, frozen)
    return found


def _inherited(stem: str, texts: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the settings that a variant takes over. Raises: ValueError for a variant it cannot take them from."""
    text = texts[stem]
    if {"base", "frozen"} <= set(text):
        raise ValueError(f"{stem}.yaml: base, frozen: expected one of the two, found both")
    for key in {"base", "frozen"} & set(text):
        parent = text[key]
        plain = [name for name, other in texts.items() if not {"levels", "base", "frozen"} & set(other)]
        if parent not in plain:
            raise unknown(f"{stem}.yaml: {key}", parent, plain)
        if key == "frozen" and texts[parent]["data"] != text["data"]:
            raise ValueError(
                f"{stem}.yaml: data: expected {texts[parent]['data']} as in {parent}, found {text['data']}"
            )
        return texts[parent].get("config", {})
    return {}


def _text(file: Path, sets: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a variant's file says. Raises: ValueError for a key or a held-out set that does not exist."""
    text = read_diff(file)
    for key in text:
        if key not in KEYS:
            raise unknown(f"{file.name}: key {key!r}", key, KEYS)
    for key in ("claim", "data"):
        if key not in text:
            raise ValueError(f"{file.name}: expected the keys claim and data, found {', '.join(text) or 'none'}")
    if text["data"] not in sets:
        raise unknown(f"{file.name}: data", text["data"], sets)
    return text


def choose(variants: Mapping[str, Variant], names: tuple[str, ...]) -> list[Variant]:
    """Return the named variants, all if none is named. Raises: ValueError for one that does not exist."""
    for name in names:
        if name not in variants:
            raise unknown("variant", name, variants)
    return [variants[name] for name in names or variants]
