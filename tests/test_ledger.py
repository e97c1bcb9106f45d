"""The ledger: verdict rule, the committed claims, stable and strict output, bad input."""

import itertools
import json
import os
import random
import subprocess
import sys

import pytest
from conftest import ROOT

from jepa.lab.ledger import (
    STATES,
    as_table,
    checks_table,
    clause,
    count_findings,
    load,
    main,
    read_claims,
    read_measurements,
    state,
)
from jepa.lab.verdict import Check, Claim, Measurement, combine, judge_claim

CLAIMS = ROOT / "experiments" / "claims.yaml"
HEADER = "claim,variant,seed,metric,value,count"


def claim(*checks, kind="measured", seeds=3, **said):
    return Claim("E1", kind, "A statement.", "section 4.3", "01_energies", seeds, checks, **said)


def check(op=">=", threshold=0.5, kind="measured", metric="error", scale="linear"):
    return Check(metric, "plain", op, threshold, kind, scale)


def rows(*values, metric="error", count=None):
    return [Measurement("E1", "plain", seed, metric, value, count) for seed, value in enumerate(values)]


def verdict(op, threshold, *values, profile="cpu", **options):
    entry = judge_claim(claim(check(op, threshold), **options), rows(*values), profile)
    return entry["verdict"], entry["reason"]


# ------------------------------------------------------------------------------------------------ verdict rule
# 1, 2, 3: mean 2, limits 2 -+ 4.3027 / sqrt(3) = -0.484 and 4.484
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("threshold", "above"), [(-0.49, "holds"), (-0.48, "open"), (4.48, "open"), (4.49, "fails")])
def test_the_whole_interval_decides(threshold, above, strict):
    below = {"holds": "fails", "fails": "holds", "open": "open"}[above]
    reason = "interval straddles the threshold" if above == "open" else None
    for direction, expected in ((">", above), ("<", below)):
        assert verdict(direction if strict else f"{direction}=", threshold, 1.0, 2.0, 3.0) == (expected, reason)


@pytest.mark.parametrize(("op", "expected"), [("<=", "holds"), (">=", "holds"), ("<", "fails"), (">", "fails")])
def test_a_limit_on_the_threshold_meets_only_the_weak_inequality(op, expected):
    assert verdict(op, 0.1, 0.1, 0.1, 0.1) == (expected, None)
    identity = claim(check(op, 0.1, "identity"), kind="identity", seeds=None)
    assert judge_claim(identity, rows(0.1), "cpu")["verdict"] == expected


def test_too_few_seeds_leave_a_measured_check_open():
    assert verdict(">=", 0.5, 7.0, 7.0, 7.0, seeds=10) == ("open", "3 of 10 seeds")
    assert verdict(">=", 0.5, 7.0, 7.0, 7.0, seeds=3) == ("holds", None)
    assert verdict(">=", 0.5, 7.0, seeds=None) == ("open", "1 of 2 seeds")
    assert verdict(">=", 0.5, seeds=3) == ("open", "not measured yet")


def test_smoke_leaves_measured_checks_open_and_judges_identities():
    assert verdict(">=", 0.5, 7.0, 7.0, 7.0, profile="smoke") == ("open", "open (smoke)")
    assert verdict(">=", 0.5, 0.0, 0.0, 0.0, profile="smoke") == ("open", "open (smoke)")
    identity = claim(check("<=", 1e-5, "identity"), kind="identity", seeds=None)
    assert judge_claim(identity, rows(1e-6), "smoke")["verdict"] == "holds"


@pytest.mark.parametrize(
    ("op", "values", "worst", "expected"),
    [
        ("<=", (0.2, 0.5, 0.1), 0.5, "holds"),
        ("<=", (0.2, 0.51, 0.1), 0.51, "fails"),
        (">=", (0.9, 0.5, 0.8), 0.5, "holds"),
        (">=", (0.9, 0.49, 0.8), 0.49, "fails"),
    ],
)
def test_an_identity_is_as_good_as_its_worst_row(op, values, worst, expected):
    identity = claim(check(op, 0.5, "identity"), kind="identity", seeds=None)
    (found,) = judge_claim(identity, rows(*values), "cpu")["checks"]
    assert (found["estimate"], found["low"], found["high"], found["n"]) == (worst, worst, worst, 3)
    assert found["verdict"] == expected


def test_a_claim_of_both_kinds_needs_both():
    both = claim(check("<=", 1, "identity", "count"), check(">=", 0.5), kind="both")
    good, bad = rows(1.0, 1.0, 1.0, metric="count"), rows(1.0, 2.0, metric="count")
    assert judge_claim(both, good + rows(0.7, 0.7, 0.7), "cpu")["verdict"] == "holds"
    assert judge_claim(both, good, "cpu")["verdict"] == "open"
    assert judge_claim(both, bad + rows(0.7, 0.7, 0.7), "cpu")["verdict"] == "fails"
    smoke = judge_claim(both, good + rows(0.7, 0.7, 0.7), "smoke")
    assert (smoke["verdict"], smoke["reason"]) == ("open", "open (smoke)")
    assert [found["verdict"] for found in smoke["checks"]] == ["holds", "open"]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("holds open fails", "fails"),
        ("open fails", "fails"),
        ("holds open", "open"),
        ("holds holds", "holds"),
        ("", "open"),
    ],
)
def test_fails_beats_open_beats_holds_and_no_checks_prove_nothing(verdicts, expected):
    assert combine(verdicts.split()) == expected


def test_only_rows_of_the_checks_own_claim_variant_and_metric_count():
    others = [
        row._replace(**change)
        for row in rows(-9.0, -9.0, -9.0)
        for change in ({"claim": "E2"}, {"variant": "other"}, {"metric": "other"})
    ]
    (found,) = judge_claim(claim(check()), others + rows(0.7, 0.7, 0.7), "cpu")["checks"]
    assert (found["n"], found["estimate"], found["verdict"]) == (3, 0.7, "holds")


def test_perfect_rates_are_judged_by_their_trials():
    rate = claim(check(">=", 0.95, scale="logit"))
    assert judge_claim(rate, rows(1.0, 1.0, 1.0, count=10), "cpu")["verdict"] == "open"  # 0.025 ** (1 / 30) = 0.884
    assert judge_claim(rate, rows(1.0, 1.0, 1.0, count=40), "cpu")["verdict"] == "holds"  # 0.025 ** (1 / 120) = 0.970


def test_ratios_are_judged_on_the_log_scale():
    values = (0.01, 0.02, 0.04)  # linear limits reach below 0, those on the log scale do not
    (linear,) = judge_claim(claim(check("<=", 0.5)), rows(*values), "cpu")["checks"]
    (ratio,) = judge_claim(claim(check("<=", 0.5, scale="log")), rows(*values), "cpu")["checks"]
    assert linear["low"] < 0 < ratio["low"] and ratio["estimate"] == pytest.approx(0.02)


def test_a_threshold_may_differ_by_profile():
    planned = claim(check(">=", {"cpu": 0.95, "gpu": 0.98}))
    entries = {profile: judge_claim(planned, rows(0.96, 0.96, 0.96), profile) for profile in ("smoke", "cpu", "gpu")}
    assert [entry["checks"][0]["threshold"] for entry in entries.values()] == [0.95, 0.95, 0.98]
    assert [entry["verdict"] for entry in entries.values()] == ["open", "holds", "fails"]


def test_what_a_scale_does_not_admit_names_claim_metric_and_variant():
    with pytest.raises(ValueError, match="claim E1, metric error, variant plain: values: expected positive ratios"):
        judge_claim(claim(check(scale="log")), rows(0.1, 0.0, 0.2), "cpu")
    mixed = rows(1.0, 1.0, count=10) + [Measurement("E1", "plain", 2, "error", 0.5, None)]
    with pytest.raises(ValueError, match="count: expected for every seed or for none"):
        judge_claim(claim(check(scale="logit")), mixed, "cpu")
    with pytest.raises(ValueError, match="profile: expected one of smoke, cpu, gpu, found 'cpus'"):
        judge_claim(claim(check()), [], "cpus")


# ------------------------------------------------------------------------------- suspended claims, and caveats
WHY = "the rule measures scale,\n  not volume."
SAID = "the rule measures scale, not volume."


@pytest.mark.parametrize("values", [(0.7, 0.7, 0.7), (0.1, 0.1, 0.1), (0.0, 1.0, 0.5), (0.7,), ()])
@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_a_suspended_claim_is_open_for_its_reason_and_a_caveat_changes_nothing_but_itself(values, profile):
    says = ({}, {"suspended": WHY}, {"caveat": WHY})
    plain, suspended, noted = (judge_claim(claim(check(), **said), rows(*values), profile) for said in says)
    assert suspended == plain | {"verdict": "open", "reason": f"suspended: {SAID}", "suspended": SAID}
    assert noted == plain | {"caveat": SAID} and plain["suspended"] is plain["caveat"] is None


STATED = [
    ((0.7, 0.7, 0.7), {}, "holds"),
    ((0.1, 0.1, 0.1), {}, "fails"),
    ((0.0, 1.0, 0.5), {}, "inconclusive"),
    ((0.7,), {}, "inconclusive"),
    ((), {}, "not measured yet"),
    ((0.7, 0.7, 0.7), {"suspended": WHY}, "suspended"),
    ((), {"suspended": WHY}, "suspended"),
]


def test_every_finding_is_in_one_state_and_identities_are_none():
    found = [judge_claim(claim(check(), **said), rows(*values), "cpu") for values, said, _ in STATED]
    states = [state(entry) for entry in found]
    assert states == [expected for *_, expected in STATED]
    identity = judge_claim(claim(check(kind="identity"), kind="identity", seeds=None), rows(0.7), "cpu")
    for chosen in itertools.product(range(len(found)), repeat=3):
        counts = count_findings(dict(enumerate([identity, *(found[number] for number in chosen)])))
        assert counts == {name: [states[number] for number in chosen].count(name) for name in STATES}
    empty = judge_claim(claim(), [], "cpu")
    assert (empty["verdict"], empty["reason"], state(empty)) == ("open", "no checks", "not measured yet")


def test_clauses_agree_in_number():
    assert [clause(name, 1) for name in STATES[:3]] == ["holds", "fails", "is inconclusive"]
    assert [clause(name, 2) for name in STATES[:4]] == ["hold", "fail", "are inconclusive", "are suspended"]


# -------------------------------------------------------------------------------------------- committed claims
def test_the_committed_ledger_is_that_of_the_committed_claims_and_measurements(tmp_path):
    results = ROOT / "results"
    main(["--profile", "cpu", "--results", str(results), "--claims", str(CLAIMS), "--out", str(tmp_path / "out.json")])
    assert (tmp_path / "out.json").read_bytes() == (results / "cpu" / "claims.json").read_bytes()


def test_rates_are_judged_as_rates_and_ratios_as_ratios():
    scales = {"rate": "logit", "recall": "logit", "accuracy": "logit", "coverage": "logit", "ratio": "log"}
    for entry in read_claims(CLAIMS):
        for rule in entry.checks:
            assert rule.scale == scales.get(rule.metric.split("_")[-1], rule.scale), (entry.id, rule.metric)


# --------------------------------------------------------------------------------------------------- the files
CLAIM = """
- id: E1
  kind: measured
  statement: A statement
    on two lines.
  source: section 4.3
  notebook: 01_energies
  seeds: 3
  checks:
    - {metric: error, variant: plain, op: "<=", threshold: 0.5}
- id: E5
  kind: identity
  statement: Another one.
  source: equations 10-12
  notebook: 01_energies
  seeds: null
  checks:
    - {metric: gap, variant: plain, op: "<=", threshold: 1.0e-5}
- id: M1
  kind: measured
  statement: A third one.
  source: section 4.4
  notebook: 02_fork
  seeds: 5
  checks:
    - {metric: error, variant: plain, op: "<=", threshold: 0.5}
"""
LINES = ["E1,plain,0,error,0.1,", "E1,plain,1,error,0.2,", "E1,plain,2,error,0.15,", "E5,plain,0,gap,1e-7,"]
MORE = ["M1,plain,0,error,0.3,", "M1,plain,1,other,3,"]


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "claims.yaml").write_text(CLAIM, encoding="utf-8")
    measure(tmp_path, LINES, "01_energies")
    measure(tmp_path, MORE, "02_fork")
    return tmp_path


def measure(tree, lines, notebook="01_energies", profile="cpu", header=HEADER):
    folder = tree / "results" / profile / notebook
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measurements.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def run(tree, *options, profile="cpu"):
    main(["--profile", profile, "--results", f"{tree}/results", "--claims", f"{tree}/claims.yaml", *options])
    return tree / "results" / profile / "claims.json"


def refuse(constant):
    raise AssertionError(f"claims.json holds {constant}")


def test_the_command_writes_the_verdict_of_every_claim(tree, capsys):
    ledger = json.loads(run(tree).read_text(encoding="utf-8"), parse_constant=refuse)
    assert {name: (entry["verdict"], entry["reason"]) for name, entry in ledger.items()} == {
        "E1": ("holds", None),
        "E5": ("holds", None),
        "M1": ("open", "1 of 5 seeds"),
    }
    counts = "{'holds': 1, 'fails': 0, 'inconclusive': 1, 'suspended': 0, 'not measured yet': 0}"
    assert f"{counts}, identities not counted" in capsys.readouterr().out
    (found,) = ledger["E1"]["checks"]
    limits = {"low": 0.0257931, "high": 0.274207}  # 0.15 -+ 4.3027 x 0.05 / sqrt(3)
    assert found == found | limits | {"estimate": 0.15, "n": 3, "threshold": 0.5, "op": "<="}
    (found,) = ledger["M1"]["checks"]  # of one seed, which has no interval
    assert (found["estimate"], found["low"], found["high"], found["n"]) == (0.3, None, None, 1)


def test_the_same_measurements_give_the_same_bytes_in_any_order(tree):
    lines = [f"M1,plain,{seed},error,{0.1 / (seed + 3)!r}," for seed in range(5)]
    measure(tree, lines, "02_fork")
    first = run(tree).read_bytes()
    for shuffle in range(10):
        measure(tree, random.Random(shuffle).sample(lines, 3), "02_fork")
        rest = set(lines) - set((tree / "results/cpu/02_fork/measurements.csv").read_text().split("\n"))
        measure(tree, LINES[::-1] + sorted(rest, reverse=True), "01_energies")
        assert run(tree).read_bytes() == first


def test_a_profile_sees_its_own_measurements_only(tree):
    measure(tree, ["E1,plain,0,error,9,"], profile="smoke")
    ledger = json.loads(run(tree, profile="smoke").read_text(encoding="utf-8"))
    assert [entry["reason"] for entry in ledger.values()] == ["open (smoke)", "not measured yet", "not measured yet"]
    before_any_run = json.loads(run(tree, profile="gpu").read_text(encoding="utf-8"))
    assert {entry["verdict"] for entry in before_any_run.values()} == {"open"}


def test_the_module_is_the_command(tree):
    command = [sys.executable, "-m", "jepa.lab.ledger", "--profile", "cpu", "--claims", "claims.yaml"]
    subprocess.run(command, cwd=tree, check=True, env=os.environ | {"PYTHONPATH": str(CLAIMS.parents[1])})
    assert set(load(tree / "results/cpu/claims.json")) == {"E1", "E5", "M1"}


def test_out_goes_where_it_is_told_and_leaves_nothing_beside_it(tree):
    out = tree / "elsewhere" / "ledger.json"
    run(tree, "--out", str(out))
    assert set(load(out)) == {"E1", "E5", "M1"}
    assert [path.name for path in out.parent.iterdir()] == ["ledger.json"]


def test_a_failed_run_leaves_the_last_ledger_whole(tree):
    before = run(tree).read_bytes()
    measure(tree, ["E1,plain,0,error,nan,"])
    with pytest.raises(SystemExit, match="error: .*line 2, column value: expected a finite number, found 'nan'"):
        run(tree)
    assert (tree / "results/cpu/claims.json").read_bytes() == before


def test_findings_leave_identities_out_and_tables_keep_them(tree):
    ledger = load(run(tree))
    assert count_findings(ledger) == dict.fromkeys(STATES, 0) | {"holds": 1, "inconclusive": 1}
    table = as_table(ledger)
    assert table["claim"].tolist() == ["E1", "E5", "M1"]
    assert table["checks"].tolist() == ["1 of 1 hold", "1 of 1 hold", "0 of 1 hold"]
    assert table["reason"].tolist() == ["", "", "1 of 5 seeds"]
    assert table["seeds"].isna().tolist() == [False, True, False]
    assert checks_table(ledger)[["claim", "metric", "n", "verdict"]].values.tolist() == [
        ["E1", "error", 3, "holds"],
        ["E5", "gap", 1, "holds"],
        ["M1", "error", 1, "open"],
    ]


def test_a_claim_of_the_file_is_suspended_until_the_key_is_taken_out(tree):
    measured = load(run(tree))["E1"]
    note = "  seeds: 3\n  suspended: the unit is\n    another one.\n  caveat: one more.\n"
    (tree / "claims.yaml").write_text(CLAIM.replace("  seeds: 3\n", note), encoding="utf-8")
    said = {"suspended": "the unit is another one.", "caveat": "one more."}
    reason = "suspended: the unit is another one."
    assert load(run(tree))["E1"] == measured | said | {"verdict": "open", "reason": reason}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["E1,plain,0,error,0.1"], "line 2: expected 6 columns, found 5"),
        (["E1,plain,0,error,0.1,", ""], "line 3: expected 6 columns, found 0"),
        (["E9,plain,0,error,0.1,"], "line 2, column claim: expected a claim of the ledger, found 'E9'"),
        (["E1,,0,error,0.1,"], "line 2, column variant: expected a name without spaces, found ''"),
        (["E1,plain,0, error,0.1,"], "line 2, column metric: expected a name without spaces, found ' error'"),
        (["E1,plain,0.0,error,0.1,"], "line 2, column seed: expected a whole number of at least 0, found '0.0'"),
        (["E1,plain,-1,error,0.1,"], "line 2, column seed: expected a whole number of at least 0, found '-1'"),
        (["E1,plain,0,error,,"], "line 2, column value: expected a finite number, found ''"),
        (["E1,plain,0,error,inf,"], "line 2, column value: expected a finite number, found 'inf'"),
        (["E1,plain,0,error,1e999,"], "line 2, column value: expected a finite number, found '1e999'"),
        (["E1,plain,0,error,1_0,"], "line 2, column value: expected a finite number, found '1_0'"),
        (["E1,plain,0,error,0.1,0"], "line 2, column count: expected empty or a whole number above 0, found '0'"),
        (["E1,plain,0,error,0.1,2.5"], "line 2, column count: expected empty or a whole number above 0, found '2.5'"),
        (LINES + LINES[1:2], r"line 6: expected each measurement once, found the one of .*line 3 again"),
        (['E1,"plain,0,error,0.1,'], "expected a readable CSV file"),
    ],
)
def test_a_malformed_row_names_file_line_and_column(tree, lines, message):
    measure(tree, lines)
    with pytest.raises(ValueError, match=f"01_energies/measurements.csv.*{message}"):
        read_measurements([tree / "results/cpu/01_energies/measurements.csv"], read_claims(tree / "claims.yaml"))


def test_a_measurement_in_two_notebooks_is_an_error(tree):
    measure(tree, LINES[:1], "02_fork")
    with pytest.raises(SystemExit, match="02_fork/measurements.csv, line 2: .*01_energies/measurements.csv, line 2"):
        run(tree)


@pytest.mark.parametrize("content", [b"", b"claim,variant,seed,metric,value\n", b"\xff\xfe"])
def test_a_file_that_is_no_measurements_csv_is_named(tree, content):
    path = tree / "results/cpu/02_fork/measurements.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="02_fork/measurements.csv.*expected"):
        read_measurements([path], read_claims(tree / "claims.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold: 0.5}", "treshold: 0.5}", "claim E1: check 1: expected keys .*unknown or missing: .*treshold"),
        ("threshold: 0.5}", "threshold: 0.5, note: x}", "claim E1: check 1: .*unknown or missing: note"),
        ("  source: section 4.3\n", "", "claim E1: expected keys .*unknown or missing: source"),
        ("  seeds: 3\n", "  seeds: 3\n  verdict: holds\n", "claim E1: .*unknown or missing: verdict"),
        ("  seeds: 3\n", "  seeds: 3\n  seeds: 2\n", "a key is given twice"),
        ("id: E5", "id: E1", "claim E1: expected once, found twice"),
        ("id: E5", "id: energy", "entry 2: expected an id such as E1, found energy"),
        ('op: "<="', 'op: "=="', "claim E1: check 1: op: expected one of <=, <, >=, >, found '=='"),
        ("threshold: 0.5}", "threshold: 1e-5}", "check 1: threshold: expected a finite number, found '1e-5'"),
        ("threshold: 0.5}", "threshold: .nan}", "check 1: threshold: expected a finite number, found nan"),
        ("threshold: 0.5}", "threshold: {cpu: 1}}", "check 1: threshold: .* or one each for cpu and gpu"),
        ("threshold: 0.5}", "threshold: 0.5, scale: root}", "check 1: scale: expected one of linear, log, logit"),
        ("threshold: 0.5}", "threshold: 0.5, kind: guess}", "check 1: kind: expected one of identity, measured"),
        ("threshold: 0.5}", "threshold: 0.5, kind: identity}", "claim E1: checks: expected of kind measured"),
        ("threshold: 1.0e-5}", "threshold: 1, scale: log}", "claim E5: check 1: scale: expected none for an identity"),
        ("metric: error,", "metric: Error rate,", "check 1: metric: expected a name in lower_case, found 'Error rate'"),
        ("kind: measured", "kind: proven", "claim E1: check 1: kind: expected one of identity, measured"),
        ("kind: measured", "kind: both", "claim E1: check 1: expected keys .*unknown or missing: kind"),
        ("seeds: 3", "seeds: 1", "claim E1: seeds: expected a whole number of at least 2, or null, found 1"),
        ("seeds: 3", "seeds: '3'", "claim E1: seeds: expected a whole number of at least 2"),
        ("notebook: 01_energies", "notebook: energies", "claim E1: notebook: expected a name such as 01_"),
        ("notebook: 01_energies", "notebook: 01_energies.ipynb", "claim E1: notebook: expected a name such as 01_"),
        ("source: section 4.3", "source: ''", "claim E1: source: expected a sentence"),
        ("seeds: 3", "seeds: 3\n  suspended:", "claim E1: suspended: expected a sentence or no such key, found none"),
        ("seeds: 3", "seeds: 3\n  suspended: ''", "claim E1: suspended: expected a sentence, found ''"),
        ("seeds: 3", "seeds: 3\n  suspended: yes", "claim E1: suspended: expected a sentence, found True"),
        ("seeds: 3", "seeds: 3\n  caveat: [a, b]", "claim E1: caveat: expected a sentence, found"),
        ("seeds: 3", "seeds: 3\n  caveats: one", "claim E1: expected keys .*unknown or missing: caveats"),
        ("seeds: 3", "seeds: 3\n  history: [0.4]", "claim E1: expected a mapping, found 0.4"),
        ("seeds: 3", "seeds: 3\n  history: no", "claim E1: checks, history: expected lists"),
        ("- id: E1", "id: E1\n- ", "expected a readable YAML file"),
    ],
)
def test_a_malformed_claim_is_named(tree, old, new, message):
    path = tree / "claims.yaml"
    assert old in CLAIM
    path.write_text(CLAIM.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"claims\.yaml: (?s:.*){message}"):
        read_claims(path)


def test_a_check_given_twice_is_named(tree):
    line = '    - {metric: error, variant: plain, op: "<=", threshold: 0.5}\n'
    (tree / "claims.yaml").write_text(CLAIM.replace(line, 2 * line, 1), encoding="utf-8")
    with pytest.raises(ValueError, match="claim E1: checks: expected each once, found error plain <= twice"):
        read_claims(tree / "claims.yaml")


def test_a_replaced_rule_stays_in_the_history(tree):
    history = "  history:\n    - {rule: error <= 0.4, replaced_because: the noise alone is 0.45}\n"
    (tree / "claims.yaml").write_text(CLAIM.replace("  seeds: 3\n", "  seeds: 3\n" + history), encoding="utf-8")
    assert read_claims(tree / "claims.yaml")[0].history[0]["rule"] == "error <= 0.4"


@pytest.mark.parametrize("text", [None, "[]", '{"E1": {}}', '{"E1": {"verdict": "proven"}}', "{"])
def test_what_is_no_ledger_is_named(tmp_path, text):
    path = tmp_path / "claims.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"claims\.json: expected"):
        load(path)
