"""Generated tables go between their markers and leave the prose alone."""

from __future__ import annotations

import pytest

from jepa.lab.tables import fill

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
