"""Generated tables go between their markers and leave the prose alone."""

from __future__ import annotations

import json

import pytest

from jepa.lab.tables import fill, progress, verdicts

README = "before\n<!-- BEGIN generated: verdicts -->\nold\n<!-- END generated: verdicts -->\nafter\n"


def test_table_replaces_what_stood_between_the_markers():
    filled = fill(README, "verdicts", "| new |")
    assert filled == README.replace("old", "| new |")
    assert fill(filled, "verdicts", "| new |") == filled


HEADLESS = README.partition("\n<!-- BEGIN")[2]


@pytest.mark.parametrize("text", ["", README + README, HEADLESS, README.replace("verdicts", "x")])
def test_missing_or_double_markers_are_named(text):
    with pytest.raises(ValueError, match="BEGIN generated: verdicts"):
        fill(text, "verdicts", "| new |")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Work in a checkout with a ledger of four claims, three of them measured."""
    for name in ("dvc.yaml", "data.dvc", "params.yaml"):
        (tmp_path / name).touch()
    entries = {
        "E1": {"verdict": "holds", "caveat": "It is close."},
        "E2": {"verdict": "open", "suspended": "The unit is wrong."},
        "E3": {"verdict": "open"},
        "E4": {"verdict": "open"},
    }
    for name, entry in entries.items():
        checks = [{"n": 0 if name == "E4" else 5}]
        words = {"kind": "measured", "statement": f"{name}.", "notebook": "01_n", "checks": checks}
        entries[name] = {"suspended": None, "caveat": None} | words | entry
    path = tmp_path / "results" / "cpu" / "claims.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(entries))
    monkeypatch.chdir(tmp_path)


def test_verdicts_say_how_a_claim_is_open_and_give_reasons_and_caveats_below(checkout):
    rows = verdicts().splitlines()
    cells = {
        row.split(" | ")[0].strip("| "): row.split(" | ")[-1].rstrip("| ") for row in rows if row.startswith("| E")
    }
    assert cells == {
        "E1": "**holds**, with a caveat",
        "E2": "**open**: suspended",
        "E3": "**open**: inconclusive",
    }
    assert "1 holds, 0 fail, 1 is inconclusive, 1 is suspended, 1 is not measured yet." in verdicts()
    assert "- E2: The unit is wrong." in rows and "- E1: It is close." in rows
    assert progress() == "3 of 4 claims are measured so far."
