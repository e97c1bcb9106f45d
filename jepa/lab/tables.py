"""The tables in the README that are derived from the results, between markers, so that nobody types a verdict.

python -m jepa.lab.tables            rewrite them
python -m jepa.lab.tables --check    exit status 1 if they are stale
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa.lab import paths
from jepa.lab.ledger import clause, count_findings, load, state

PROFILE = "cpu"  # whose results the README shows


def verdicts() -> str:
    """Return the verdicts at the default profile: a row for each measured claim, counts, suspensions and caveats."""
    ledger = load(paths.root() / "results" / PROFILE / "claims.json")
    measured = _measured(ledger)
    rows = [
        f"| {name} | {claim['statement']} | {claim['kind']} | {_notebook(claim['notebook'])} | {_verdict(claim)} |"
        for name, claim in measured.items()
    ]
    found = count_findings(ledger)
    counts = ", ".join(f"{number} {clause(name, number)}" for name, number in found.items())
    rest = f"{progress()} Of {sum(found.values())} that could come out either way {counts}."
    lines = ["| claim | statement | kind | notebook | verdict |", "|---|---|---|---|---|", *rows, "", rest]
    for title, key in (
        ("Suspended, until measured again", "suspended"),
        ("Caveats to verdicts that are kept", "caveat"),
    ):
        if noted := [f"- {name}: {claim[key]}" for name, claim in ledger.items() if claim[key]]:
            lines += ["", f"{title}:", "", *noted]
    return "\n".join(lines)


def progress() -> str:
    """Return how many claims are measured at the default profile, in a sentence."""
    ledger = load(paths.root() / "results" / PROFILE / "claims.json")
    return f"{len(_measured(ledger))} of {len(ledger)} claims are measured so far."


def figures() -> str:
    """Return a row for each figure: the notebook that draws it, the command that repeats it."""
    from dvc.repo import Repo

    rows = []
    with Repo(str(paths.root())) as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"]
        for stage in sorted(stages, key=lambda stage: stage.name):
            for out in stage.outs:
                for file in sorted((paths.root() / out.def_path).glob("*.png")):
                    link = f"[{file.stem}]({file.relative_to(paths.root()).as_posix()})"
                    command = f"`dvc repro {stage.addressing}`"
                    rows.append(f"| {link} | {_notebook(Path(out.def_path).parent.name)} | {command} |")
    return "\n".join(["| figure | notebook | command |", "|---|---|---|", *rows])


def fill(text: str, name: str, table: str) -> str:
    """Return `text` with what stands between the markers of `name` replaced. Raises: ValueError without markers."""
    begin, end = f"<!-- BEGIN generated: {name} -->", f"<!-- END generated: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"README.md: expected one {begin} before one {end}")
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n{table}\n{end}{rest.partition(end)[2]}"


def main(arguments: list[str] | None = None) -> None:
    """Rewrite or check the README's tables."""
    parser = argparse.ArgumentParser(description="Rewrite the README's generated tables.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if they are stale")
    options = parser.parse_args(arguments)
    try:
        readme = paths.root() / "README.md"
        old = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        new = old
        for name, table in (("progress", progress), ("verdicts", verdicts), ("figures", figures)):
            new = fill(new, name, table())
    except ValueError as error:
        sys.exit(f"error: {error}")
    if new != old and options.check:
        sys.exit("README.md: its generated tables are not what the results say; run `make readme`")
    if new != old:
        paths.write(readme, new)


def _measured(ledger: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the claims of a ledger of which anything is measured."""
    return {name: claim for name, claim in ledger.items() if any(check["n"] for check in claim["checks"])}


def _verdict(claim: Mapping[str, Any]) -> str:
    """Return a cell: the verdict, which state of being open it is, and whether there is a caveat below the table."""
    shown = f"**{claim['verdict']}**" + (f": {state(claim)}" if claim["verdict"] == "open" else "")
    return shown + (", with a caveat" if claim["caveat"] else "")


def _notebook(name: str) -> str:
    """Return a link to a notebook, or its name while it is not there."""
    file = paths.notebook(name)
    return f"[{name}]({file.relative_to(paths.root()).as_posix()})" if file.is_file() else name


if __name__ == "__main__":
    main()
