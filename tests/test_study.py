"""A study: what does not exist stops it before anything runs; what it leaves is what the ledger reads."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT

from jepa.lab import ledger, paths, study, style
from jepa.lab.study import Study
from jepa.runs import build
from jepa.runs.config import Part
from jepa.runs.data import generate

NAME = "09_tiny"
VARIANT = {
    "claim": "E1",
    "data": "plane/small",
    "levels": {2: {"latent.size": 2}, 4: {"latent.size": 4}},
    "config": {
        "latent": {"name": "discrete"},
        "predictor": {"hidden": [8]},
        "train": {"steps": 10, "batch": 8},
        "measure": [{"name": "area", "contexts": 1, "grid": 8}, {"name": "codes", "contexts": 1, "grid": 8}],
    },
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return the root of a checkout with one notebook's variants and one small set."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("dvc.yaml", "data.dvc"):
        shutil.copy(ROOT / name, root)
    for file, profile in (("params.yaml", "cpu"), ("experiments/smoke/params.yaml", "smoke")):
        settings = {"profile": profile, "device": "cpu", "workers": 1, "tiny": {"seeds": 2, "overrides": {}}}
        write(root / file, settings)
    write(root / "experiments" / NAME / "tiny.yaml", VARIANT)
    world = {"name": "plane", "spread": 0.125}
    write(root / "experiments" / "data.yaml", {"plane/small": {"world": world, "count": 64, "seed": 1}})
    shutil.copy(ROOT / "experiments" / "claims.yaml", root / "experiments")
    generate(root / "data" / "plane" / "small", Part.of(world), 64, seed=1)
    return root


@pytest.fixture(autouse=True)
def here(checkout, monkeypatch):
    """Work in the checkout."""
    monkeypatch.chdir(checkout)


def write(file, content):
    """Write a YAML file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))


def tiny(out="build/out", profile="cpu", seeds=None, overrides=None):
    """Return a study of the small notebook."""
    return Study(NAME, profile, seeds, overrides or {}, out)


@pytest.fixture
def done(checkout):
    """Return a study whose runs are done; only the first one trains."""
    finished = tiny()
    finished.run()
    return finished


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "cppu"}, "profile: expected one of cpu, smoke, found 'cppu'"),
        *[
            ({"seeds": seeds}, f"seeds: expected a whole number of at least 1, found {seeds}")
            for seeds in (0, -1, 2.5, True)
        ],
        ({"overrides": {"train.stesp": 5}}, "setting 'train.stesp'.*did you mean 'steps'"),
        ({"overrides": {"tain": {"steps": 5}}}, "setting 'tain'.*did you mean 'train'"),
        ({"overrides": {"train.steps": "5"}}, "train.steps: expected int, found '5'"),
        ({"overrides": {"train.batch": 1}}, "train.batch: expected at least 2"),
    ],
    ids=str,
)
def test_what_does_not_exist_stops_the_study_before_it_begins(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_settings_are_laid_over_each_other_the_nearest_last(checkout):
    variants = tiny(overrides={"train.steps": 7}).variants
    assert list(variants) == ["tiny_2", "tiny_4"]
    for name, variant in variants.items():
        assert variant.config.latent == Part("discrete", {"size": int(name[-1])})
        assert variant.config.train.steps == 7 and variant.config.train.batch == 8
        assert variant.config.world == Part("plane", {"spread": 0.125}) and variant.claim == "E1"
    assert len(tiny(seeds=5).seeds) == 5 and len(tiny().seeds) == 2


def test_table_has_a_row_for_every_variant_seed_and_number(done):
    table = done.table
    assert list(table.columns) == ["claim", "variant", "seed", "metric", "value", "count"]
    keys = set(zip(table.variant, table.seed, table.metric, strict=True))
    metrics = {"reference_energy", "low_energy_share", "true_pairs_low", "minima_per_code", "mode_recall", "codes_used"}
    assert keys == {(name, seed, metric) for name in ("tiny_2", "tiny_4") for seed in (0, 1) for metric in metrics}
    assert len(keys) == len(table) and set(table.claim) == {"E1"}
    assert set(table[table.metric == "true_pairs_low"]["count"]) == {64}
    assert table[table.metric == "codes_used"]["count"].isna().all()


def test_named_variants_run_alone_and_with_more_seeds_and_no_row_is_there_twice():
    grown = tiny()
    assert set(grown.run("tiny_4").variant) == {"tiny_4"}
    assert set(grown.run().variant) == {"tiny_2", "tiny_4"}
    table = grown.run("tiny_4", times=2)
    assert not table.duplicated(["variant", "seed", "metric"]).any()
    assert table.groupby("variant").seed.unique().map(sorted).to_dict() == {"tiny_2": [0, 1], "tiny_4": [0, 1, 2, 3]}
    with pytest.raises(ValueError, match="times: expected at least 1, found 0"):
        grown.run(times=0)


@pytest.mark.parametrize(
    ("profile", "seeds", "count"), [("cpu", 1, 1), ("cpu", 2, 2), ("cpu", 3, 3), ("smoke", 1, 1), ("smoke", 3, 2)]
)
def test_variants_run_with_as_many_seeds_as_asked_and_a_short_profile_with_no_more_than_it_has(profile, seeds, count):
    table = tiny(profile=profile).run("tiny_4", seeds=seeds)
    assert sorted(table.seed.unique()) == list(range(count))
    assert not table.duplicated(["variant", "seed", "metric"]).any()


def test_what_is_shown_of_one_seed_is_then_measured_on_all():
    one = tiny()
    shown = one.run("tiny_4", seeds=1)
    grown = one.run("tiny_4")
    pd.testing.assert_frame_equal(grown[grown.seed == 0].reset_index(drop=True), shown)
    assert sorted(grown.seed.unique()) == [0, 1] and len(grown) == 2 * len(shown)
    assert len(one.run("tiny_4", seeds=1)) == len(grown)  # nothing that was measured is forgotten


@pytest.mark.parametrize("seeds", [0, -1])
def test_runs_of_no_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match=f"^seeds: expected at least 1, found {seeds}"):
        tiny().run("tiny_4", seeds=seeds)


def test_values_wide_and_long_are_the_table_looked_at_differently(done):
    table = done.table
    rows = table[(table.metric == "low_energy_share") & (table.variant == "tiny_4")]
    values = done.values("low_energy_share", "tiny_4")
    assert values.to_dict() == dict(zip(rows.seed, rows.value, strict=True)) and len(values) == 2
    wide = done.wide("low_energy_share", "tiny_4", "tiny_2")
    assert list(wide.columns) == ["tiny_4", "tiny_2"] and wide.tiny_4.to_dict() == values.to_dict()
    long = done.long("low_energy_share", "tiny_4", "tiny_2")
    assert list(long.variant) == ["tiny_4", "tiny_4", "tiny_2", "tiny_2"]
    assert long.value.tolist() == [*wide.tiny_4, *wide.tiny_2]


@pytest.mark.parametrize(("metric", "variant"), [("low_energy_shar", "tiny_4"), ("low_energy_share", "tiny_5")])
@pytest.mark.parametrize("look", ["values", "wide", "long"])
def test_metric_that_was_not_measured_is_an_error(done, look, metric, variant):
    with pytest.raises(ValueError, match=f"found '{metric}, {variant}'; did you mean 'low_energy_share, tiny_[24]'"):
        getattr(done, look)(metric, variant)


@pytest.mark.parametrize("look", ["run", "world", "held_out", "volumes", "model", "subject", "diagnostics", "warnings"])
def test_variant_that_is_looked_at_has_to_exist_and_to_be_done(done, look):
    with pytest.raises(ValueError, match=": expected one of .*tiny_2.*, found '.*tiny_3.*did you mean '.*tiny_[24]"):
        getattr(done, look)("tiny_3")
    if look in ("model", "diagnostics", "warnings"):
        with pytest.raises(ValueError, match="variant, seed: expected one of none, found 'tiny_2, 0'"):
            getattr(tiny(), look)("tiny_2")


def test_notebook_needs_its_section_in_the_profile():
    with pytest.raises(ValueError, match="params.yaml: section of notebook '09_tny'.*did you mean 'tiny'"):
        Study("09_tny", "cpu", None, {}, "build/out")


def test_added_numbers_stand_beside_the_measured_ones(done):
    before = done.table
    ratio = done.values("low_energy_share", "tiny_4") / done.values("low_energy_share", "tiny_2")
    done.add("E1", "tiny_4", "volume_ratio", ratio)
    done.add("E2", "tiny", "slope", {1: 0.25, 0: 1 / 3})
    pd.testing.assert_frame_equal(done.table.head(len(before)), before)
    assert done.values("volume_ratio", "tiny_4").tolist() == [float(f"{value:.6g}") for value in ratio]
    assert done.values("slope", "tiny").to_dict() == {0: 0.333333, 1: 0.25}


def test_subject_is_what_the_run_was_measured_on(done):
    subject = done.subject("tiny_4", 1)
    assert done.world("tiny_4").spread == subject.world.spread == 0.125
    measures = build.measures(done.variants["tiny_4"].config)
    rows = {row.metric: row.value for measure in measures for row in measure(subject)}
    assert subject.reference == done.values("reference_energy", "tiny_4")[1]
    for metric, value in rows.items():  # the reference is kept at six digits
        assert value == pytest.approx(done.values(metric, "tiny_4")[1], abs=1 / 64 + 1e-6)
    done._rows = [row._replace(value=row.value + row.seed) for row in done._rows]  # so that the seeds differ
    other = done.subject("tiny_4")
    assert other.reference == subject.reference == done.subject("tiny_4", 1).reference - 1
    weights = zip(subject.model.parameters(), done.model("tiny_4", 1).parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in weights)
    drawn = [torch.rand(3, generator=of.stream("volume")) for of in (done.subject("tiny_4", 1), subject, other)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])


def test_what_was_measured_for_one_claim_serves_others(done):
    before, wide = done.table, done.wide("true_pairs_low", "tiny_4", "tiny_2")
    done.share("tiny_4", {"E2": ("true_pairs_low", "reference_energy"), "E3": ("true_pairs_low",)})
    pd.testing.assert_frame_equal(done.table.head(len(before)), before)
    added = done.table[len(before) :]
    assert set(added.variant) == {"tiny_4"} and not added.duplicated(["claim", "metric", "seed"]).any()
    shared = {("E2", "true_pairs_low"), ("E2", "reference_energy"), ("E3", "true_pairs_low")}
    assert set(zip(added.claim, added.metric, strict=True)) == shared
    columns = ["variant", "seed", "metric", "value", "count"]
    for claim, metric in shared:
        pair = [t[(t.metric == metric) & (t.variant == "tiny_4")] for t in (before, added[added.claim == claim])]
        pd.testing.assert_frame_equal(*(rows[columns].reset_index(drop=True) for rows in pair))
    assert set(added[added.metric == "true_pairs_low"]["count"]) == {64}
    assert added[added.metric == "reference_energy"]["count"].isna().all()
    pd.testing.assert_frame_equal(done.wide("true_pairs_low", "tiny_4", "tiny_2"), wide)  # each is looked at once
    with pytest.raises(ValueError, match="found 'true_pairs_lo, tiny_4'; did you mean 'true_pairs_low, tiny_[24]'"):
        done.share("tiny_4", {"E2": ("true_pairs_lo",)})


def leave(out):
    """Let a study of finished runs draw, add and finish; return the bytes it leaves."""
    finished = tiny(out)
    finished.run()
    finished.add("E1", "tiny_4", "volume_ratio", {1: 2 / 3, 0: 1e-9})
    figure, axes = style.panels(1)
    axes.plot(finished.values("low_energy_share", "tiny_4"))
    finished.show(figure, "shares")
    finished.finish()
    return {file.name: file.read_bytes() for file in (paths.root() / out).rglob("*") if file.is_file()}


def test_two_studies_leave_the_same_bytes_and_the_ledger_reads_them(done, checkout, monkeypatch):
    monkeypatch.setattr(study, "display", lambda *shown: None)
    first = leave("build/one")
    assert set(first) == {"measurements.csv", "metrics.json", "shares.png"}
    assert leave("build/two") == first == leave("build/one")

    claims = ledger.read_claims("experiments/claims.yaml")
    rows = ledger.read_measurements([checkout / "build/one/measurements.csv"], claims)
    table = pd.DataFrame(rows)
    assert first["measurements.csv"].startswith(b"claim,variant,seed,metric,value,count\n")
    assert list(table.columns) == list(done.table.columns) and len(table) == len(done.table) + 2
    for (variant, metric), group in table.groupby(["variant", "metric"]):
        values = [1e-9, 0.666667] if metric == "volume_ratio" else done.values(metric, variant).tolist()
        assert group.value.tolist() == values and group.seed.tolist() == [0, 1]

    metrics = json.loads(first["metrics.json"])
    assert metrics["volume_ratio"] == {"tiny_4": 0.3333}
    assert metrics["codes_used"]["tiny_2"] == pytest.approx(done.values("codes_used", "tiny_2").mean(), rel=1e-3)


def test_diagnostics_are_those_of_the_runs_in_one_table(done):
    table = done.diagnostics("tiny_4", "tiny_2")
    assert list(table.columns) == ["variant", "seed", "step", "name", "value"]
    for (name, seed), run in done.runs.items():
        for diagnostic, values in run.diagnostics.items():
            rows = table[(table.variant == name) & (table.seed == seed) & (table.name == diagnostic)]
            if diagnostic != "step":
                assert rows.step.tolist() == run.diagnostics["step"]
                assert rows.value.tolist() == pytest.approx(values, nan_ok=True)
    assert {"contrast", "probe_r2", "effective_rank", "auroc"} <= set(table.name) and 0 in set(table.step)
    assert set(done.diagnostics("tiny_4").variant) == {"tiny_4"} and 2 * len(done.diagnostics("tiny_4")) == len(table)


def test_warnings_during_trainings_are_told_by_variant(done):
    key = ("tiny_4", 1)
    done.runs[key] = done.runs[key]._replace(warnings=["it collapses"])
    assert done.warnings("tiny_4", "tiny_2", seed=1) == {"tiny_4": ["it collapses"], "tiny_2": []}
    assert done.warnings("tiny_4") == {"tiny_4": []}


def test_study_without_numbers_leaves_nothing(checkout):
    tiny("build/none").finish()
    assert [file for file in (checkout / "build/none").rglob("*") if file.is_file()] == []


def test_full_disk_leaves_the_old_files_whole(done, monkeypatch):
    done.finish()
    before = {file.name: file.read_bytes() for file in done.out.rglob("*") if file.is_file()}
    done.add("E1", "tiny_4", "volume_ratio", {0: 1.0, 1: 1.0})

    replace = os.replace

    def full(source, target):
        if target.name == "measurements.csv":
            raise OSError("no space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space left"):
            done.finish()
    assert {file.name: file.read_bytes() for file in done.out.rglob("*") if file.is_file()} == before


def test_smoke_run_shows_the_committed_evidence_and_others_their_own(checkout, monkeypatch):
    committed = paths.results("cpu", NAME) / "figures" / "wells.png"
    committed.parent.mkdir(parents=True)
    committed.write_bytes(b"the committed figure")
    entry = {"verdict": "holds", "statement": "It is so.", "checks": [{"verdict": "holds"}]}
    entry |= {"reason": None, "caveat": "It was so once."}
    (checkout / "results" / "cpu" / "claims.json").write_text(json.dumps({"E1": entry}))
    shown = []
    monkeypatch.setattr(study, "display", shown.append)
    monkeypatch.setattr(study, "Image", lambda content, **options: SimpleNamespace(data=content))
    try:
        for profile, names, evidence in (("smoke", ["tiny_4"], 1), ("smoke", [], 0), ("cpu", ["tiny_4"], 0)):
            shown.clear()
            one = tiny("build/show", profile=profile)
            if names:  # what trains nothing is the same at every profile
                one.run(*names)
            one.show(style.panels(1)[0], "wells")
            pictures = [item.data for item in shown if hasattr(item, "data") and isinstance(item.data, bytes)]
            assert [picture == b"the committed figure" for picture in pictures] == [True] * evidence + [False]
            words = one.verdicts("E1").data
            assert ("E1 holds" in words and "cpu, committed" in words) == (profile == "smoke")
            assert "caveat: It was so once." in words or profile != "smoke"
            assert "E1 open" in words or profile == "smoke"  # too few seeds are measured here
    finally:
        shutil.rmtree(checkout / "results")


def test_verdicts_without_committed_ones_are_those_of_the_run(done):
    done.add("E1", "discrete_1", "minima_per_code", {0: 2.0, 1: 1.0})
    words = done.verdicts("E1", "E2").data
    assert "E1 fails</b> (0 of 9 checks hold)" in words and "E2 open" in words and "Profile cpu." in words
    assert "<i>not measured yet</i>" in words  # why E2 is open
    table = done.checks("E1").data
    assert "Profile cpu." in table and "minima_per_code" in table and "fails" in table
