"""Copy the code of a notebook and the claims it is judged by to a Python file: what the pipeline's stages depend on.

    python -m jepa.lab.source NOTEBOOK OUTPUT

Saving a notebook changes its outputs, seldom its code, and the ledger of claims is one file for all notebooks; a stage
that depends on the copy runs again only if its own code or claims changed.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from jepa.lab import form, paths


def source(notebook: form.Notebook, name: str, claims: list[dict[str, Any]]) -> str:
    """Return a notebook's code cells and claims as text; of the tags only `parameters` matters to a run.

    Args: notebook, name: the notebook and its name; claims: the entries of the ledger of claims.
    """
    parts = [f"# The code of notebooks/{name}.ipynb. Edit the notebook; this copy is what the pipeline depends on.\n"]
    for cell in form.code(notebook):
        mark = " [parameters]" if "parameters" in form.tags(cell) else ""
        parts.append(f"# %%{mark}\n{form.text(cell['source']).rstrip()}\n")
    if own := [entry for entry in claims if entry["notebook"] == name]:
        parts.append(textwrap.indent(yaml.safe_dump(own, sort_keys=False, allow_unicode=True), "# "))
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Copy one notebook's code and claims."""
    parser = argparse.ArgumentParser(description="Copy the code and claims of a notebook, not its outputs.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        claims = yaml.safe_load((paths.root() / "experiments" / "claims.yaml").read_text(encoding="utf-8"))
        paths.write(options.output, source(form.read(options.notebook), options.notebook.stem, claims))
    except (OSError, ValueError, yaml.YAMLError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
