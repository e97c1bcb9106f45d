"""Copy the code of a notebook to a Python file: what the pipeline's stages depend on.

    python -m jepa.lab.source NOTEBOOK OUTPUT

Saving a notebook changes its outputs, seldom its code; a stage that depends on the copy runs again only if its own code
changed. Claims are no part of it: they judge what was measured and change nothing that is run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jepa.lab import form, paths


def source(notebook: form.Notebook, name: str) -> str:
    """Return the code cells of the notebook of that name as text; of the tags only `parameters` matters to a run."""
    parts = [f"# The code of notebooks/{name}.ipynb. Edit the notebook; this copy is what the pipeline depends on.\n"]
    for cell in form.code(notebook):
        mark = " [parameters]" if "parameters" in form.tags(cell) else ""
        parts.append(f"# %%{mark}\n{form.text(cell['source']).rstrip()}\n")
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Copy one notebook's code."""
    parser = argparse.ArgumentParser(description="Copy the code of a notebook, not its outputs.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        paths.write(options.output, source(form.read(options.notebook), options.notebook.stem))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
