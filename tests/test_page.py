"""The page of claims counts, colors and tells what the ledger says and nothing else."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from jepa.lab import page
from jepa.lab.ledger import STATES, state


def check(metric, verdict, n=10, low=0.25):
    """Return a check's entry in a ledger."""
    shown = {"estimate": 0.5, "low": low, "high": 0.123456789} if n else {"estimate": None, "low": None, "high": None}
    rule = {"metric": metric, "variant": "wide_8", "op": "<=", "threshold": 0.625, "kind": "measured"}
    return {**rule, **shown, "n": n, "verdict": verdict, "reason": None}


def claim(verdict, kind, notebook, *checks, reason=None, seeds=10, statement="It shrinks.", caveat=None):
    """Return a claim's entry in a ledger."""
    words = {"kind": kind, "statement": statement, "source": "section 4.3", "notebook": notebook, "seeds": seeds}
    suspended = reason.removeprefix("suspended: ") if reason and reason.startswith("suspended: ") else None
    said = {"verdict": verdict, "reason": reason, "suspended": suspended, "caveat": caveat}
    return {**said, **words, "checks": list(checks)}


LEDGER = {
    "E1": claim("holds", "measured", "02_second", check("volume", "holds"), check("recall", "holds", low=-3e-7)),
    "E2": claim("fails", "both", "01_first", check("slope", "fails"), statement="If a < b & c, F_β falls."),
    "E3": claim("open", "measured", "02_second", check("rank", "open", n=0), reason="not measured yet", seeds=None),
    "E4": claim("holds", "identity", "02_second", check("gap", "holds")),
    "E5": claim("holds", "measured", "02_second", check("gain", "holds"), caveat="Only where a < b."),
    "E6": claim("fails", "identity", "01_first", check("sum", "fails")),
    "E7": claim("open", "measured", "01_first", check("norm", "open"), reason="interval straddles the threshold"),
    "E8": claim("open", "both", "01_first", check("cost", "holds"), reason="suspended: the unit is E0 < 1."),
}


def table(html) -> pd.DataFrame:
    """Return the table of a page, all cells as text."""
    head, *rows = [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(html.data).iter("tr")]
    return pd.DataFrame(rows, columns=head)


def test_counts_leave_identities_aside():
    words = page.counts(LEDGER).data
    assert "Of 6 claims that could come out either way: " in words and "Identities: 2." in words
    one_each = "<b>1</b> is inconclusive, <b>1</b> is suspended, <b>1</b> is not measured yet"
    assert f"<b>2</b> hold, <b>1</b> fails, {one_each}" in words
    several = {
        name: {**LEDGER["E3"], "verdict": verdict} for name, verdict in {"A": "open", "B": "open", "C": "holds"}.items()
    }
    none = "<b>0</b> fail, <b>0</b> are inconclusive, <b>0</b> are suspended"
    assert f"<b>1</b> holds, {none}, <b>2</b> are not measured yet" in page.counts(several).data


def test_every_state_has_a_color_that_is_told_from_all_others():
    assert tuple(page.COLORS) == STATES
    colors = [to_rgb(color) for color in page.COLORS.values()]
    for first, second in itertools.combinations(colors, 2):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 0.5


def test_overview_has_one_square_a_claim_colored_by_state_in_the_row_of_its_notebook():
    figure = page.overview(LEDGER)
    (axes,) = figure.axes
    squares = {
        tuple(map(round, s.get_xy())): s for s in axes.patches if isinstance(s, Rectangle) and s.get_width() > 0.5
    }
    names = {text.get_text(): text for text in axes.texts}
    rows = {"01_first": ["E2", "E6", "E7", "E8"], "02_second": ["E1", "E3", "E4", "E5"]}
    assert len(squares) == len(LEDGER)
    for row, (notebook, claims) in enumerate(rows.items()):
        assert row < names[notebook.replace("_", " ")].get_position()[1] < row + 1
        for column, name in enumerate(claims):
            square = squares[column, row]
            assert to_hex(square.get_facecolor()) == page.COLORS[state(LEDGER[name])]
            assert bool(square.get_hatch()) == (LEDGER[name]["kind"] == "identity")
            x, y = names[name].get_position()
            assert square.contains_point(axes.transData.transform((x, y)))
    assert set(STATES) <= set(names)
    pyplot.close(figure)


def test_verdicts_list_every_claim_in_the_order_of_the_ledger():
    shown = table(page.verdicts(LEDGER))
    assert shown.claim.tolist() == list(LEDGER)
    for name, row in shown.set_index("claim").iterrows():
        entry = LEDGER[name]
        assert (row.verdict, row.statement, row.kind) == (state(entry), entry["statement"], entry["kind"])
        assert row.notebook == entry["notebook"][:2] and row.source == entry["source"]
        assert row["seeds"] == ("" if entry["seeds"] is None else "10")
        remark = f"caveat: {entry['caveat']}" if entry["caveat"] else entry["reason"] or ""
        assert row["why open, or caveat"] == remark


def test_a_paragraph_tells_verdict_reason_and_caveat():
    words = page.paragraph("E8", LEDGER["E8"])
    assert "E8 open</b> (1 of 1 checks hold). It shrinks." in words and "suspended: the unit is E0 &lt; 1." in words
    assert "caveat: Only where a &lt; b." in page.paragraph("E5", LEDGER["E5"])
    assert page.paragraph("E1", LEDGER["E1"]) == "<p><b>E1 holds</b> (2 of 2 checks hold). It shrinks.</p>"


def test_statement_is_text_and_no_markup():
    for text in ("If a &lt; b &amp; c, F_β falls.", "the unit is E0 &lt; 1.", "Only where a &lt; b."):
        assert text in page.verdicts(LEDGER).data


def test_checks_list_what_was_measured():
    shown = table(page.checks(LEDGER))
    measured = ["volume", "recall", "slope", "gap", "gain", "sum", "norm", "cost"]  # not rank, which has no seeds
    assert shown.metric.tolist() == measured
    assert shown.claim.tolist() == ["E1", "E1", "E2", "E4", "E5", "E6", "E7", "E8"]
    assert shown.verdict.tolist() == ["holds", "holds", "fails", "holds", "holds", "fails", "open", "holds"]
    first = shown.iloc[1]
    numbers = [first[name] for name in ("variant", "op", "threshold", "estimate", "low", "high", "n")]
    assert numbers == ["wide_8", "<=", "0.625", "0.5", "-3e-07", "0.123", "10"]


@pytest.mark.parametrize("claims", [{}, {"E3": LEDGER["E3"]}, {"E7": claim("open", "measured", "03_third")}])
def test_page_without_measurements_says_so(claims):
    assert page.checks(claims).data == "<p>Nothing is measured yet.</p>"
