"""The claims ledger: experiments/claims.yaml + results/<profile>/*/measurements.csv -> results/<profile>/claims.json.

    python -m jepa.lab.ledger --profile cpu

Claims and thresholds are read, verdicts computed (jepa.lab.verdict), and the same measurements give the same bytes:
claims in the order of claims.yaml, numbers to six digits. `load` and the tables serve the notebooks and the README.
"""

import argparse
import csv
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from jepa.lab import paths
from jepa.lab.verdict import PROFILES, VERDICTS, Check, Claim, Measurement, judge_claim

COLUMNS = {  # of a measurements.csv: the pattern of a cell, and the same in words
    "claim": (r"\S+", "a name without spaces"),
    "variant": (r"\S+", "a name without spaces"),
    "seed": (r"[0-9]+", "a whole number of at least 0"),
    "metric": (r"\S+", "a name without spaces"),
    "value": (r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", "a finite number"),
    "count": (r"([1-9][0-9]*)?", "empty or a whole number above 0"),
}
CLAIM_KEYS = {"id", "kind", "statement", "source", "notebook", "seeds", "checks"}
CHECK_KEYS = {"metric", "variant", "op", "threshold", "kind"}
STATES = ("holds", "fails", "inconclusive", "suspended", "not measured yet")  # a verdict, and why it is open


def read_claims(path: str | Path) -> list[Claim]:
    """Return the claims of a claims.yaml, in its order.

    Raises: ValueError naming file, claim and key if the file is missing or not YAML, a key is unknown, missing or given
    twice, an id is not of the form E1 or is taken, or a field is malformed.
    """
    try:
        entries = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected a readable YAML file, found: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of claims, found {type(entries).__name__}")
    claims = {}
    for number, entry in enumerate(entries, start=1):
        name = str(entry.get("id")) if isinstance(entry, dict) else repr(entry)
        if not re.fullmatch(r"[A-Z]\d+", name):
            raise ValueError(f"{path}: entry {number}: expected an id such as E1, found {name}")
        if name in claims:
            raise ValueError(f"{path}: claim {name}: expected once, found twice")
        try:
            claims[name] = _claim(entry)
        except ValueError as error:
            raise ValueError(f"{path}: claim {name}: {error}") from error
    return list(claims.values())


def read_measurements(files: Sequence[str | Path], claims: Sequence[Claim]) -> list[Measurement]:
    """Return all rows of the measurements.csv files (columns claim, variant, seed, metric, value, count).

    Raises: ValueError naming file, line and column if a row is malformed, names a claim that is not in `claims`, or
    repeats claim, variant, seed and metric of another row in any of the files.
    """
    rows, places, known = [], {}, {claim.id for claim in claims}
    for place, row in itertools.chain.from_iterable(_rows(Path(file)) for file in files):
        if row.claim not in known:
            raise ValueError(f"{place}, column claim: expected a claim of the ledger, found {row.claim!r}")
        first = places.setdefault((row.claim, row.variant, row.seed, row.metric), place)
        if first != place:
            raise ValueError(f"{place}: expected each measurement once, found the one of {first} again")
        rows.append(row)
    return rows


def load(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the ledger in a claims.json. Raises: ValueError naming the file if it is missing or no ledger."""
    try:
        ledger = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a readable claims.json, found: {error}") from error
    entries = ledger.values() if isinstance(ledger, dict) else [None]
    if any(not isinstance(entry, dict) or entry.get("verdict") not in VERDICTS for entry in entries):
        raise ValueError(f"{path}: expected an object of claims, each with a verdict ({', '.join(VERDICTS)})")
    return ledger


def as_table(ledger: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per claim: its id and own fields, checks as in "2 of 3 hold", and the reason if it is open."""
    fields = ["verdict", "kind", "statement", "source", "notebook", "seeds"]
    rows = []
    for name, entry in ledger.items():
        verdicts = [check["verdict"] for check in entry["checks"]]
        counted = f"{verdicts.count('holds')} of {len(verdicts)} hold"
        rows.append([name, *(entry[field] for field in fields), counted, entry["reason"] or ""])
    return pd.DataFrame(rows, columns=["claim", *fields, "checks", "reason"]).astype({"seeds": "Int64"})


def checks_table(ledger: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per check: the claim's id, then the fields of the check's entry in claims.json."""
    return pd.DataFrame([{"claim": name, **check} for name, entry in ledger.items() for check in entry["checks"]])


def state(entry: Mapping[str, Any]) -> str:
    """Return the verdict of a claim's entry, or why it is open: suspended, inconclusive though measured, or neither."""
    if entry["verdict"] != "open":
        return entry["verdict"]
    if entry["suspended"]:
        return "suspended"
    return "inconclusive" if any(check["n"] for check in entry["checks"]) else "not measured yet"


def count_findings(ledger: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return how many claims are in each state; identities, true by algebra, are no findings and not counted."""
    states = [state(entry) for entry in ledger.values() if entry["kind"] != "identity"]
    return {name: states.count(name) for name in STATES}


def clause(name: str, number: int) -> str:
    """Return what is said of so many claims in a state: holds, hold, is suspended, are suspended."""
    if name in VERDICTS:
        return name if number == 1 else name.removesuffix("s")
    return f"{'is' if number == 1 else 'are'} {name}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute and write claims.json from the command line; a one-line error and exit status 1 for malformed input."""
    parser = argparse.ArgumentParser(prog="python -m jepa.lab.ledger", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=PROFILES, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--claims", type=Path, default=Path("experiments/claims.yaml"))
    parser.add_argument("--out", type=Path, help="default: <results>/<profile>/claims.json")
    options = parser.parse_args(arguments)
    out = options.out or options.results / options.profile / "claims.json"
    try:
        claims = read_claims(options.claims)
        files = sorted((options.results / options.profile).glob("*/measurements.csv"))
        rows = read_measurements(files, claims)
        ledger = {claim.id: judge_claim(claim, rows, options.profile) for claim in claims}
        paths.write(out, json.dumps(ledger, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{out}: {count_findings(ledger)}, identities not counted")


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error instead of a silent replacement."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is given twice in the mapping", node.start_mark)
        return mapping


def _claim(entry: dict[str, Any]) -> Claim:
    """One claim from its YAML entry."""
    _expect_keys(entry, CLAIM_KEYS, {"history", "suspended", "caveat"})
    for name in ("suspended", "caveat"):
        if name in entry and entry[name] is None:
            raise ValueError(f"{name}: expected a sentence or no such key, found none")
    if not isinstance(entry["checks"], list) or not isinstance(entry.get("history", []), list):
        raise ValueError("checks, history: expected lists")
    for change in entry.get("history", []):
        _expect_keys(change, {"rule", "replaced_because"}, set())
    checks = (_check(check, number, entry["kind"]) for number, check in enumerate(entry["checks"], start=1))
    return Claim(**(entry | {"checks": tuple(checks)}))


def _check(entry: dict[str, Any], number: int, kind: str) -> Check:
    """One check from its YAML entry; its kind is the claim's unless that is "both"."""
    try:
        entry = {"kind": kind} | entry if isinstance(entry, dict) and kind != "both" else entry
        _expect_keys(entry, CHECK_KEYS, {"scale"})
        return Check(**entry)
    except ValueError as error:
        raise ValueError(f"check {number}: {error}") from error


def _expect_keys(entry: Any, required: set[str], optional: set[str]) -> None:
    """Raise unless the entry is a mapping with all required and no unknown keys."""
    if not isinstance(entry, dict):
        raise ValueError(f"expected a mapping, found {entry!r}")
    if wrong := sorted(map(str, (set(entry) ^ required) - optional)):
        raise ValueError(f"expected keys {', '.join(sorted(required))}, found unknown or missing: {', '.join(wrong)}")


def _rows(path: Path) -> Iterator[tuple[str, Measurement]]:
    """The rows of one measurements.csv, each with its place in words."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            if (header := next(reader, [])) != list(COLUMNS):
                raise ValueError(f"{path}, line 1: expected columns {','.join(COLUMNS)}, found {','.join(header)!r}")
            for cells in reader:
                place = f"{path}, line {reader.line_num}"
                yield place, _measurement(cells, place)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a readable CSV file, found: {error}") from error


def _measurement(cells: list[str], place: str) -> Measurement:
    """One row with its types; the first cell that does not fit is named."""
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{place}: expected {len(COLUMNS)} columns, found {len(cells)}")
    for cell, (column, (pattern, expected)) in zip(cells, COLUMNS.items(), strict=True):
        if not re.fullmatch(pattern, cell) or (column == "value" and not math.isfinite(float(cell))):
            raise ValueError(f"{place}, column {column}: expected {expected}, found {cell!r}")
    claim, variant, seed, metric, value, count = cells
    return Measurement(claim, variant, int(seed), metric, float(value), int(count) if count else None)


if __name__ == "__main__":
    main()
