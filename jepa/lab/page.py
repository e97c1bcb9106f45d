"""The ledger as a page: counts, an overview in squares, and tables of verdicts and checks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jepa.lab import style
from jepa.lab.ledger import checks_table, count_findings

COLORS = {"holds": "#0a9396", "fails": "#bb3e03", "open": "#d9d9d9"}
Ledger = Mapping[str, Mapping[str, Any]]


def counts(claims: Ledger) -> HTML:
    """Return how many findings hold, fail and are open, and how many identities are listed beside them."""
    found = count_findings(claims)
    identities = sum(entry["kind"] == "identity" for entry in claims.values())
    words = ", ".join(f"<b>{number}</b> {_word(verdict, number)}" for verdict, number in found.items())
    return HTML(
        f"<p>Of {sum(found.values())} claims that could come out either way: {words}. Identities: {identities}.</p>"
    )


def overview(claims: Ledger) -> Figure:
    """Return one square a claim, a row a notebook, colored by verdict; identities are hatched."""
    rows: dict[str, list[str]] = {}
    for name, entry in claims.items():
        rows.setdefault(entry["notebook"], []).append(name)
    figure, axes = style.panels(1, height=0.36 * len(rows) + 0.5)
    for row, (notebook, names) in enumerate(sorted(rows.items())):
        axes.text(-0.2, row + 0.45, notebook.replace("_", " "), ha="right", va="center", fontsize=8)
        for column, name in enumerate(names):
            hatch = "////" if claims[name]["kind"] == "identity" else None
            color = COLORS[claims[name]["verdict"]]
            axes.add_patch(Rectangle((column, row), 0.92, 0.85, facecolor=color, hatch=hatch, edgecolor="white", lw=0))
            ink = "black" if claims[name]["verdict"] == "open" else "white"
            axes.text(column + 0.46, row + 0.45, name, ha="center", va="center", color=ink, fontsize=7.5)
    for place, (verdict, color) in enumerate(COLORS.items()):
        axes.add_patch(Rectangle((3 * place, len(rows) + 0.5), 0.4, 0.4, facecolor=color))
        axes.text(3 * place + 0.55, len(rows) + 0.7, verdict, va="center", fontsize=8)
    axes.set(xlim=(-5.5, max(map(len, rows.values())) + 0.2), ylim=(len(rows) + 1.1, -0.2))
    axes.axis("off")
    return figure


def verdicts(claims: Ledger) -> HTML:
    """Return a table of all claims: verdict, statement, where it is argued and measured, and why it is open."""
    rows = []
    for name, entry in claims.items():
        color = "#777777" if entry["verdict"] == "open" else COLORS[entry["verdict"]]
        badge = f'<b style="color:{color}">{entry["verdict"]}</b>'
        seeds = "" if entry["seeds"] is None else entry["seeds"]
        cells = [
            name,
            badge,
            html.escape(entry["statement"]),
            entry["source"],
            entry["notebook"][:2],
            entry["kind"],
            seeds,
        ]
        rows.append([*cells, entry["reason"] or ""])
    columns = ["claim", "verdict", "statement", "source", "notebook", "kind", "seeds", "why open"]
    table = pd.DataFrame(rows, columns=columns).to_html(index=False, escape=False, border=0, justify="left")
    return HTML(table.replace("<td>", '<td style="text-align: left">'))


def checks(claims: Ledger) -> HTML:
    """Return a table of all checks with a measurement: rule, estimate, 95 % interval, number of seeds, verdict."""
    table = checks_table(claims)
    table = table if table.empty else table[table.n > 0]
    if table.empty:
        return HTML("<p>Nothing is measured yet.</p>")
    shown = table[["claim", "metric", "variant", "op", "threshold", "estimate", "low", "high", "n", "verdict"]]
    return HTML(shown.to_html(index=False, float_format="{:.3g}".format, border=0, justify="left"))


def _word(verdict: str, number: int) -> str:
    """Return the verdict as a verb for a number of claims."""
    if verdict == "open":
        return "is open" if number == 1 else "are open"
    return verdict if number == 1 else verdict.removesuffix("s")
