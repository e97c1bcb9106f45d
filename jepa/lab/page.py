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
from jepa.lab.ledger import checks_table, clause, count_findings, state

COLORS = {
    "holds": "#0a9396",
    "fails": "#bb3e03",
    "inconclusive": "#e9a800",
    "suspended": "#6a4c93",
    "not measured yet": "#d9d9d9",
}
Ledger = Mapping[str, Mapping[str, Any]]


def counts(claims: Ledger) -> HTML:
    """Return how many findings are in each state, and how many identities are listed beside them."""
    found = count_findings(claims)
    identities = sum(entry["kind"] == "identity" for entry in claims.values())
    words = ", ".join(f"<b>{number}</b> {clause(name, number)}" for name, number in found.items())
    return HTML(
        f"<p>Of {sum(found.values())} claims that could come out either way: {words}. Identities: {identities}.</p>"
    )


def overview(claims: Ledger) -> Figure:
    """Return one square a claim, a row a notebook, colored by its state; identities are hatched."""
    rows: dict[str, list[str]] = {}
    for name, entry in claims.items():
        rows.setdefault(entry["notebook"], []).append(name)
    figure, axes = style.panels(1, height=0.36 * len(rows) + 0.5)
    for row, (notebook, names) in enumerate(sorted(rows.items())):
        axes.text(-0.2, row + 0.45, notebook.replace("_", " "), ha="right", va="center", fontsize=8)
        for column, name in enumerate(names):
            hatch = "////" if claims[name]["kind"] == "identity" else None
            found = state(claims[name])
            color = COLORS[found]
            axes.add_patch(Rectangle((column, row), 0.92, 0.85, facecolor=color, hatch=hatch, edgecolor="white", lw=0))
            ink = "black" if found in ("inconclusive", "not measured yet") else "white"
            axes.text(column + 0.46, row + 0.45, name, ha="center", va="center", color=ink, fontsize=7.5)
    for place, (name, color) in enumerate(COLORS.items()):
        left = 2.9 * place - 3
        axes.add_patch(Rectangle((left, len(rows) + 0.5), 0.4, 0.4, facecolor=color))
        axes.text(left + 0.55, len(rows) + 0.7, name, va="center", fontsize=8)
    axes.set(xlim=(-5.5, max(map(len, rows.values())) + 0.2), ylim=(len(rows) + 1.1, -0.2))
    axes.axis("off")
    return figure


def verdicts(claims: Ledger) -> HTML:
    """Return a table of all claims: state, statement, where it is argued and measured, why it is open, its caveat."""
    rows = []
    for name, entry in claims.items():
        found = state(entry)
        color = "#777777" if found == "not measured yet" else COLORS[found]
        badge = f'<b style="color:{color}">{found}</b>'
        seeds = "" if entry["seeds"] is None else entry["seeds"]
        where = [entry["source"], entry["notebook"][:2], entry["kind"], seeds]
        rows.append([name, badge, html.escape(entry["statement"]), *where, html.escape("; ".join(remarks(entry)))])
    columns = ["claim", "verdict", "statement", "source", "notebook", "kind", "seeds", "why open, or caveat"]
    table = pd.DataFrame(rows, columns=columns).to_html(index=False, escape=False, border=0, justify="left")
    return HTML(table.replace("<td>", '<td style="text-align: left">'))


def paragraph(name: str, entry: Mapping[str, Any]) -> str:
    """Return a claim in a paragraph: verdict, how many checks hold, statement, why it is open, its caveat."""
    held = [check["verdict"] for check in entry["checks"]]
    count = f"{held.count('holds')} of {len(held)} checks hold"
    below = "".join(f"<br><i>{html.escape(remark)}</i>" for remark in remarks(entry))
    return f"<p><b>{name} {entry['verdict']}</b> ({count}). {html.escape(entry['statement'])}{below}</p>"


def remarks(entry: Mapping[str, Any]) -> list[str]:
    """Return what is to be read beside a verdict: why it is open, and what a second look found against it."""
    caveat = entry["caveat"] and f"caveat: {entry['caveat']}"
    return [remark for remark in (entry["reason"], caveat) if remark]


def checks(claims: Ledger) -> HTML:
    """Return a table of all checks with a measurement: rule, estimate, 95 % interval, number of seeds, verdict."""
    table = checks_table(claims)
    table = table if table.empty else table[table.n > 0]
    if table.empty:
        return HTML("<p>Nothing is measured yet.</p>")
    shown = table[["claim", "metric", "variant", "op", "threshold", "estimate", "low", "high", "n", "verdict"]]
    return HTML(shown.to_html(index=False, float_format="{:.3g}".format, border=0, justify="left"))
