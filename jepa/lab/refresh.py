"""Run the committed notebooks in place, with their defaults, so that they carry outputs in the normal form.

python -m jepa.lab.refresh [NOTEBOOK...]            run and rewrite
python -m jepa.lab.refresh --check [NOTEBOOK...]    run nothing; say which are not as this command leaves them
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jepa.lab import form, paths, run


def complaints(path: Path) -> list[str]:
    """Return what shows that a notebook is not as this command leaves it."""
    notebook = form.read(path)
    found = unfinished(notebook)
    if form.dumps(form.normalize(notebook)) != path.read_text(encoding="utf-8"):
        found.append("it carries metadata that differ from run to run")
    return found


def unfinished(notebook: form.Notebook) -> list[str]:
    """Return what shows that a notebook was not run once from first to last."""
    found = []
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code" and cell.get("execution_count") is None:
            found.append(f"cell {number} was not run")
        if any(output["output_type"] == "error" for output in cell.get("outputs", [])):
            found.append(f"cell {number} failed")
    counts = [cell.get("execution_count") for cell in form.code(notebook)]
    if None not in counts and counts != list(range(1, len(counts) + 1)):
        found.append("its cells were not run once each from first to last")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Refresh or check; with --check the exit status is 1 if one is stale."""
    parser = argparse.ArgumentParser(description="Run committed notebooks in place with their defaults.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    parser.add_argument("--check", action="store_true", help="run nothing, say which are stale in form")
    options = parser.parse_args(arguments)
    stale = False
    try:
        for path in options.notebooks or sorted((paths.root() / "notebooks").glob("*.ipynb")):
            if options.check:
                found = complaints(path)
                stale |= bool(found)
                print(f"{path.name}: {'; '.join(found) or 'fresh'}")
            else:
                form.parameters(form.read(path), path.name)
                paths.write(path, form.dumps(run.execute(path, {})))
                print(f"{path.name}: refreshed")
    except (ValueError, run.StageError) as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
