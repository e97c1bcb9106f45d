"""Hold the pipeline's text consistent: the modules each stage depends on, and the copies for the other profiles.

    python -m jepa.lab.stages            exit status 1 if something differs, with the lines as they should be
    python -m jepa.lab.stages --write    rewrite

A command imports what its `python -m` reaches by import statements and by names in registries ("jepa.module:Class"); a
notebook, besides, what its last run recorded in modules.txt.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import sys
from pathlib import Path

import yaml

from jepa.lab import paths

REGISTERED = re.compile(r"^(jepa(?:\.\w+)+):\w+$")
RECORD = "results/cpu/{stage}/modules.txt"


def closure(name: str) -> set[str]:
    """Return the modules of the package that importing `name` reaches, itself and the packages around them included."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in reached or not paths.module(module).is_file():
            continue
        reached.add(module)
        waiting.append(module.rpartition(".")[0] or module)
        for node in ast.walk(ast.parse(paths.module(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jepa"):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names if alias.name.startswith("jepa")]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                waiting += REGISTERED.findall(node.value)
    return reached


def expected(stage: str, command: str) -> list[str]:
    """Return the module files a stage has to depend on, sorted."""
    modules = {name for module in re.findall(r"python -m (jepa[\w.]*)", command) for name in closure(module)}
    record = paths.root() / RECORD.format(stage=stage)
    modules |= set(record.read_text().split()) if record.is_file() else set()
    return sorted(paths.module(name).relative_to(paths.root()).as_posix() for name in modules)


def rewrite(text: str, stage: str, files: list[str]) -> str:
    """Return the text of a dvc.yaml with the module lines of one stage replaced."""
    head, start, rest = re.split(rf"(?m)^(  {re.escape(stage)}:\n)", text, maxsplit=1)
    body, following = re.match(r"(?s)(.*?)(^  \w.*|\Z)", rest, re.MULTILINE).groups()  # type: ignore[union-attr]
    line = re.compile(r"(?m)^( +)- jepa/.*\n")
    first = line.search(body)
    if first is None:
        raise ValueError(f"stage {stage}: expected at least one `- jepa/...` line among its deps, found none")
    lines = "".join(f"{first[1]}- {file}\n" for file in files)
    return head + start + body[: first.start()] + lines + line.sub("", body[first.start() :]) + following


def pipeline(text: str) -> str:
    """Return the text of a dvc.yaml with every list of modules as it should be."""
    for stage, entry in yaml.safe_load(text)["stages"].items():
        text = rewrite(text, stage, expected(stage, entry["cmd"]))
    return text


def texts() -> dict[Path, str]:
    """Return what each dvc.yaml should hold; those of the other profiles are copies of the one in the root."""
    root = paths.root()
    main, shared = root / "dvc.yaml", root / "experiments" / "shared" / "dvc.yaml"
    found = {file: pipeline(file.read_text(encoding="utf-8")) for file in (main, shared)}
    copies = {file.with_name("dvc.yaml"): found[main] for file in paths.profiles().values()}
    return found | copies


def main(arguments: list[str] | None = None) -> None:
    """Check or rewrite."""
    parser = argparse.ArgumentParser(description="Hold the pipeline's lists of modules and its copies consistent.")
    parser.add_argument("--write", action="store_true", help="rewrite them")
    options = parser.parse_args(arguments)
    difference: list[str] = []
    try:
        wanted = texts()
    except ValueError as error:
        sys.exit(f"error: {error}")
    for file, new in wanted.items():
        old = file.read_text(encoding="utf-8") if file.is_file() else ""
        name = str(file.relative_to(paths.root()))
        difference += difflib.unified_diff(old.splitlines(), new.splitlines(), name, f"{name}, expected", lineterm="")
        if options.write and new != old:
            paths.write(file, new)
    if difference and not options.write:
        sys.exit("\n".join([*difference, "the pipeline's text is stale; `python -m jepa.lab.stages --write` mends it"]))


if __name__ == "__main__":
    main()
