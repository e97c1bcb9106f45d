"""The comparison with the committed measurements sees what moved, and only that."""

from __future__ import annotations

import json
import subprocess

import pandas as pd
import pytest

from jepa.lab import compare


def measurements(*values: float, metric: str = "volume") -> pd.DataFrame:
    """Return one value a seed of one metric."""
    rows = [("E1", "discrete", seed, metric, value, None) for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["claim", "variant", "seed", "metric", "value", "count"])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, 1.0], [1.009, 1.009], 0),  # within one percent
        ([1.0, 1.0], [1.011, 1.011], 1),
        ([0.0, 2.0], [1.0, 2.9], 0),  # mean 1, standard error 1
        ([0.0, 2.0], [1.0, 3.1], 1),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([0.0, 0.0], [0.0, 1e-12], 1),
        ([float("inf")] * 2, [float("inf")] * 2, 0),
        ([1.0, 1.0], [float("inf")] * 2, 1),
    ],
)
def test_moved_beyond_tolerance_and_standard_error(before, after, expected):
    assert len(compare.moved(measurements(*before), measurements(*after))) == expected


def test_what_only_one_side_has_moved():
    moved = compare.moved(measurements(1.0, 1.0), measurements(1.0, 1.0, metric="recall"))
    assert sorted(moved["metric"]) == ["recall", "volume"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Work in a small checkout with results of one notebook."""
    for name in ("dvc.yaml", "data.dvc", "params.yaml"):
        (tmp_path / name).touch()
    folder = tmp_path / "results" / "cpu" / "01_energies"
    folder.mkdir(parents=True)
    measurements(1.0, 1.0).to_csv(folder / "measurements.csv", index=False)
    ledger(tmp_path, "holds")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ledger(root, verdict):
    """Write a ledger of one claim."""
    entry = {"E1": {"verdict": verdict, "kind": "measured"}}
    (root / "results" / "cpu" / "claims.json").write_text(json.dumps(entry))


def test_nothing_committed_is_said(checkout):
    assert "01_energies: nothing committed to compare with" in compare.report("cpu")


def test_report_names_what_moved_and_which_verdict_changed(checkout):
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "results"], check=True)
    assert "01_energies: 0 of 1 means moved" in compare.report("cpu")
    measurements(2.0, 2.0).to_csv(checkout / "results" / "cpu" / "01_energies" / "measurements.csv", index=False)
    ledger(checkout, "fails")
    report = compare.report("cpu")
    assert "01_energies: 1 of 1 means moved" in report and "volume" in report
    counts = "0 holds, 1 fails, 0 inconclusive, 0 suspended, 0 not measured yet"
    assert f"{counts}; changed against the last commit: E1: holds -> fails" in report


def test_unknown_profile_is_named(checkout):
    with pytest.raises(ValueError, match="profile: expected one of cpu, found 'cup'"):
        compare.report("cup")
