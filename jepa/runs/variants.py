"""Variants: the files of `experiments/`, each naming only what differs from the defaults.

claim: E1                        the claim it serves
data: plane/places               its held-out set; the set's world is the variant's world
data: {fork: fork/two, …}        or several: a variant for each, named fork_<variant> …, and built on fork_…
only: {fork: {…}}                optional: settings for one of the several
levels: {4: {latent.size: 4}}    optional: a variant for each level, named <variant>_<level>
base: <variant>                  optional: the variant that this one is, but for its own settings
frozen: <variant>                optional: its settings are taken over, and its trained encoders are kept as they are;
                                 they may have been trained on another world whose pictures have the same shape
start: <variant>                 optional: its settings are taken over, and training begins with its trained weights
config: {…}                      settings of `jepa.runs.config.Config`

Of base, frozen and start a variant names one at most. What a variant is built on may itself be built on another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jepa.runs.config import Config, configure, read_diff, unknown

LINKS = ("base", "frozen", "start")  # to another variant
KEYS = {"claim", "data", "only", "levels", "config", *LINKS}


class Variant(NamedTuple):
    """A named variant, at one of its levels."""

    name: str
    claim: str
    data: str  # folder under data/
    config: Config
    frozen: str = ""  # the variant whose encoders it keeps
    start: str = ""  # the variant whose weights it begins with


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
        inherited, links = _inherited(stem, texts)
        base = {"world": sets[text["data"]]["world"]}
        for level, diff in text.get("levels", {"": {}}).items():
            name = f"{stem}_{level}" if level != "" else stem
            try:
                own = configure(base, *inherited, *text["diffs"], diff)
                untrained = [{"train.steps": 0}] if own.train.steps == 0 else []
                config = configure(*diffs, *untrained, base=own)
            except ValueError as error:
                raise ValueError(f"{text['file']}: {error}") from error
            found[name] = Variant(name, text["claim"], text["data"], config, **links)
    return found


def _inherited(
    stem: str, texts: Mapping[str, Mapping[str, Any]], below: tuple[str, ...] = ()
) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """Return the settings that a variant takes over, oldest first, and which other one's weights it needs.

    Raises: ValueError for a variant it cannot take them from.
    """
    text, below = texts[stem], (*below, stem)
    links = [key for key in LINKS if key in text]
    if not links:
        return [], {}
    if len(links) > 1:
        raise ValueError(f"{text['file']}: {', '.join(links)}: expected one of them, found {len(links)}")
    (key,), parent = links, text[links[0]]
    parent = next((name for name in (f"{text['prefix']}_{parent}",) if name in texts), parent)
    known = [name for name, other in texts.items() if "levels" not in other and name not in below]
    if parent not in known:
        raise unknown(f"{text['file']}: {key}", parent, known)
    settings, older = _inherited(parent, texts, below)
    found = older if key == "base" else {key: parent}
    return [*settings, *texts[parent]["diffs"]], found


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
