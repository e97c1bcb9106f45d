"""The normal form of a notebook: what of it is kept, so that the same run leaves the same bytes.

A notebook is handled as the plain dictionary its JSON holds (nbformat 4.5); sources and texts may be one string or a
list of lines.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

Notebook = dict[str, Any]
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs a kernel; what stays has to be seen without one
STYLED = re.compile(r"\bT_[0-9a-f]{5}(?![0-9a-z])")  # a styled pandas table
ADDRESS = re.compile(r"(?<= at )0x[0-9a-f]{6,}(?=>)")  # in memory


def read(path: Path) -> Notebook:
    """Return the notebook in a file. Raises: ValueError if it is missing or no notebook."""
    if not path.is_file():
        known = ", ".join(sorted(file.name for file in path.parent.glob("*.ipynb"))) or "none"
        raise ValueError(f"notebook: expected one of {known} in {path.parent.name}/, found {path.name!r}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: expected a notebook (JSON), found {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        raise ValueError(f"{path.name}: expected a notebook with cells, found other JSON")
    return found


def text(source: str | list[str]) -> str:
    """Return a source or an output as one string."""
    return source if isinstance(source, str) else "".join(source)


def tags(cell: dict[str, Any]) -> list[str]:
    """Return the tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def code(notebook: Notebook) -> list[dict[str, Any]]:
    """Return the code cells."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def parameters(notebook: Notebook, name: str) -> dict[str, Any]:
    """Return the names and defaults in the cell tagged `parameters`.

    Raises: ValueError unless there is one such cell and it holds only assignments of plain literals.
    """
    cells = [text(cell["source"]) for cell in code(notebook) if "parameters" in tags(cell)]
    if len(cells) != 1:
        raise ValueError(f"{name}: expected one code cell tagged `parameters`, found {len(cells)}")
    defaults = {}
    for node in ast.parse(cells[0]).body:
        try:
            (target,) = node.targets  # type: ignore[attr-defined]
            defaults[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
        except (AttributeError, ValueError) as error:
            found = ast.unparse(node).splitlines()[0]
            raise ValueError(f"{name}: expected `name = literal` in the parameters cell, found `{found}`") from error
    return defaults


def normalize(notebook: Notebook) -> Notebook:
    """Strip what differs between equal runs, in place: times, paths, versions, widgets, random names. Returns it."""
    metadata = notebook["metadata"]
    notebook["metadata"] = {key: metadata[key] for key in ("kernelspec", "language_info") if key in metadata}
    notebook["metadata"].get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook["cells"]):
        if "injected-parameters" in tags(cell) or "id" not in cell:
            cell["id"] = "injected-parameters" if tags(cell) else f"cell-{number}"
        cell["metadata"] = {"tags": tags(cell)} if tags(cell) else {}
    cells = code(notebook)
    outputs = _without_chance([_merge_streams(cell["outputs"]) for cell in cells])
    for cell, shown in zip(cells, outputs, strict=True):
        cell["outputs"] = [output for output in shown if WIDGET not in output.get("data", {})]
    return notebook


def dumps(notebook: Notebook) -> str:
    """Return a notebook as the text of its file."""
    import nbformat

    return nbformat.writes(nbformat.from_dict(notebook)).rstrip("\n") + "\n"


def _without_chance(outputs: Any) -> Any:
    """Return outputs with the random names of styled tables numbered in order, and without addresses in memory."""
    written = json.dumps(outputs, ensure_ascii=False)
    names = {name: f"T_{number:05x}" for number, name in enumerate(dict.fromkeys(STYLED.findall(written)))}
    written = STYLED.sub(lambda found: names[found[0]], written)
    return json.loads(ADDRESS.sub("0x0", written))


def _merge_streams(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join neighboring pieces of one stream: how a stream is cut into messages depends on the moment."""
    merged: list[dict[str, Any]] = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] = text(last["text"]) + text(output["text"])
        else:
            merged.append(output)
    return merged
