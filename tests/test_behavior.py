"""Stored results follow what the code does: they come back exactly as long as its short runs come to the same."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import yaml
from conftest import ROOT, changed, child_of

from jepa.lab import behavior as command
from jepa.lab.numbers import differences, rounded, summary
from jepa.runs import behavior
from jepa.runs.behavior import fingerprint
from jepa.runs.config import Part, configure, to_dict
from jepa.runs.data import generate
from jepa.runs.tasks import addresses, measuring_key, training_key

NOTEBOOK = [
    'profile, seeds, overrides, out = "cpu", None, {}, ""',
    """
    from matplotlib import pyplot
    from jepa.lab.study import Study
    study = Study("09_tiny", profile, seeds, overrides, out)
    table = study.run()
    """,
    """
    study.add("E1", "tiny", "half", study.values("auroc", "tiny") / 2)
    figure, axes = pyplot.subplots()
    axes.plot(study.long("contrast", "tiny").value)
    study.show(figure, "contrast")
    """,
]
RUN = textwrap.dedent("""
    from jepa.lab.study import Study
    study = Study("09_tiny", "cpu", None, {}, "build/out")
    table = study.run()
    print(dict(table.groupby("metric").value.mean())["contrast"])
""")
SETTINGS = {"device": "cpu", "workers": 1, "tiny": {"seeds": 1, "overrides": {}}}
SHORT = {
    "train": {"steps": 12, "batch": 8},
    "monitor": {"times": 2, "pairs": 32},
    "evaluation": {"samples": 64, "probe": 8, "pairs": 32},
}


@pytest.fixture
def checkout(computed, tmp_path):
    """Return a checkout with a copy of the package and one small notebook, whose behavior has been computed."""
    return shutil.copytree(computed, tmp_path / "checkout")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Return the checkout of which each test has a copy."""
    tmp_path = tmp_path_factory.mktemp("computed")
    shutil.copytree(ROOT / "jepa", tmp_path / "jepa", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "data.dvc", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    world = {"name": "fork", "frames": 2}
    variant = {
        "claim": "E1",
        "data": "fork/small",
        "config": {
            "encoder": {"name": "convolutional", "outputs": 4, "channels": [2], "hidden": 8},
            "target_encoder": {"name": "convolutional", "outputs": 4, "channels": [2], "hidden": 8},
            "predictor": {"hidden": [8]},
            "latent": {"name": "discrete", "size": 2},
            "train": {"steps": 14, "batch": 8},
            "monitor": {"times": 2, "pairs": 32},
            "evaluation": {"samples": 64},
            "measure": ["collapse"],
        },
    }
    write(tmp_path / "params.yaml", {"profile": "cpu", **SETTINGS})
    short = {"profile": "behavior", "cut": 0.5, **SETTINGS, "tiny": {"seeds": 1, "overrides": SHORT}}
    write(tmp_path / "experiments" / "behavior.yaml", short)
    write(tmp_path / "experiments" / "09_tiny" / "tiny.yaml", variant)
    write(tmp_path / "experiments" / "data.yaml", {"fork/small": {"world": world, "count": 48, "seed": 1}})
    shutil.copy(ROOT / "experiments" / "claims.yaml", tmp_path / "experiments")
    generate(tmp_path / "data" / "fork" / "small", Part.of(world), 48, seed=1)
    cells = [
        {
            "cell_type": "code",
            "source": textwrap.dedent(text).strip(),
            "metadata": {"tags": ["parameters"] * (not number)},
        }
        for number, text in enumerate(NOTEBOOK)
    ]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "09_tiny.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}}))
    assert "09_tiny: other in" in renewed(tmp_path)
    return tmp_path


def write(file, content):
    """Write a YAML file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))


def python(checkout, *command):
    """Return what a Python of the checkout prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, *command], cwd=checkout, env=environment, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def renewed(checkout):
    """Return what the behavior command says."""
    return python(checkout, "-m", "jepa.lab.behavior", "09_tiny")


def edit(checkout, name, old, new):
    """Replace a piece of a module's text, which is there."""
    file = checkout / "jepa" / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def folders(checkout):
    """Return the trainings and the records in the store."""
    store = checkout / "build" / "runs"
    return {path.name for path in store.iterdir()}, {path.name for path in store.glob("*/measured-*.json")}


def test_results_come_back_as_long_as_the_code_does_the_same(checkout):
    before, told = python(checkout, "-c", RUN), folders(checkout)
    file = checkout / "results" / "behavior" / "09_tiny.json"
    text = file.read_bytes()
    # a refactor that moves no number: nothing is trained, the file stays as it is
    edit(checkout, "measures/collapse.py", "float(difference / reference)", "float(difference) * (1 / reference)")
    edit(checkout, "objectives/pairs.py", "left = max(0.0, 1 - progress", "remaining = left = max(0.0, 1 - progress")
    assert renewed(checkout).endswith("the same") and file.read_bytes() == text
    assert python(checkout, "-c", RUN) == before and folders(checkout) == told and float(before) < 42
    # without the command other code is not known to be the same, and nothing old comes back under its name
    edit(checkout, "measures/collapse.py", "return float(difference) * (1 / reference)", "return 42.0")
    assert float(python(checkout, "-c", RUN)) == 42 and len(folders(checkout)[0]) == 2
    # a measure that training uses changes what is trained and what is measured: what the monitor saw is part of both
    said = renewed(checkout)
    assert "measured, contrast" in said and "curve, monitored contrast" in said
    assert float(python(checkout, "-c", RUN)) == 42 and len(folders(checkout)[0]) == 3


def test_edit_between_two_runs_of_one_kernel_is_an_error(checkout):
    script = RUN + textwrap.dedent("""
        from pathlib import Path
        module = Path("jepa/measures/collapse.py")
        text = module.read_text()
        module.write_text("# a comment\\n" + text)
        study.run()
        print("a comment is none")
        module.write_text(text.replace("float(difference / reference)", "42.0"))
        study.run()
    """)
    said = python(checkout, "-c", script)
    assert "found changes in measures/collapse.py; restart the kernel" in said
    comment = script.replace('module.write_text(text.replace("float(difference / reference)", "42.0"))', "")
    assert python(checkout, "-c", comment).endswith("a comment is none")


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("train.py", "return (1 + math.cos", "return (1 + (1e-3 if step > 0.9 * steps else 0) + math.cos"),
        ("train.py", "clip: float = 10.0", "clip: float = 11.0"),
        ("train.py", 'generator.set_state(state["generator"])', "generator.manual_seed(1)"),
        ("measures/collapse.py", "spread=now / reference", "spread=2 * now / reference"),
        (
            "lab/study.py",
            "display(style.picture(figure))",
            "figure.axes[0].set_title('new')\n        display(style.picture(figure))",
        ),
        ("lab/study.py", "for seed, value in values.items()", "for seed, value in (2 * values).items()"),
    ],
    ids=["last tenth", "a default", "resume", "monitor", "figure", "derived number"],
)
def test_change_of_what_the_code_does_is_noticed(checkout, module, old, new):
    edit(checkout, module, old, new)
    assert "09_tiny: other in" in renewed(checkout)


def test_command_fails_and_keeps_the_file_where_the_code_is_broken(checkout):
    file = checkout / "results" / "behavior" / "09_tiny.json"
    before = file.read_bytes()
    edit(checkout, "measures/collapse.py", "return float(difference / reference)", "raise ValueError('planted')")
    assert "code cell 1 failed" in renewed(checkout) and file.read_bytes() == before


def test_keys_follow_what_short_runs_came_to(task):
    base = training_key(task), measuring_key(task)
    code = task.code._replace(training="other")
    assert training_key(task._replace(code=code)) != base[0]
    code = task.code._replace(measuring="other")
    assert training_key(task._replace(code=code)) == base[0] and measuring_key(task._replace(code=code)) != base[1]
    code = task.code._replace(source="other")
    assert (training_key(task._replace(code=code)), measuring_key(task._replace(code=code))) == base


def test_setting_that_came_later_is_in_no_key_where_runs_without_it_stood(task):
    assert "pairs" not in to_dict(configure(), deciding=True)["monitor"]
    assert training_key(changed(task, **{"monitor.pairs": 1024})) == training_key(task)
    assert training_key(changed(task, **{"monitor.pairs": 1025})) != training_key(task)
    assert "streams" not in to_dict(configure({"streams": "seed"}), deciding=True)
    assert to_dict(configure(), deciding=True)["streams"] == "purpose"


def test_short_runs_have_one_address_at_every_size_and_none_of_other_code(task):
    sizes = {"train.steps": 99, "monitor.times": 9, "evaluation.samples": 9}
    assert addresses(changed(task, **sizes), SHORT) == addresses(task, SHORT)
    assert addresses(changed(task, **{"latent.steps": 3}), SHORT)[0] != addresses(task, SHORT)[0]
    for diff in ({"measure": ["area"]}, {"measure.area.grid": 9}, {"at_measurement": {"steps": 3}}):
        other = addresses(changed(task, **diff), SHORT)
        assert other[0] == addresses(task, SHORT)[0] and other[1] != addresses(task, SHORT)[1]
    untrained = changed(task, **{"train.steps": 0})
    assert addresses(untrained, SHORT)[0] != addresses(task, SHORT)[0]
    assert addresses(child_of(task), SHORT)[0] != addresses(child_of(changed(task, **{"loss.energy": 0.5})), SHORT)[0]


def test_comments_and_docstrings_are_no_code_and_all_else_is():
    text = b'"""Doc."""\nx = 1  # one\n\n\ndef f():\n    """Doc."""\n    return "text"\n'
    same = b'x = 1\ndef f():\n    """Other."""\n    # why\n    return "text"\n'
    assert behavior._digest(text) == behavior._digest(same)
    for old, new in ((b"x = 1", b"x = 2"), (b'"text"', b'"texts"'), (b"def f", b"def g")):
        assert behavior._digest(text.replace(old, new)) != behavior._digest(text)


def test_damaged_behavior_is_named(tmp_path):
    (tmp_path / "01_a.json").write_text('{"runs": {"a": {}}}')
    (tmp_path / "01_a.source").write_text(f"{behavior.source()} x\n")
    with pytest.raises(ValueError, match="01_a.json: expected what the short runs of a notebook came to"):
        behavior.read(tmp_path)
    (tmp_path / "01_a.source").write_text("of other code\n")
    assert behavior.read(tmp_path) == []


@pytest.mark.parametrize("file", sorted((ROOT / "results" / "behavior").glob("*.json")), ids=lambda file: file.stem)
def test_committed_behavior_is_in_its_form(file):
    text = json.loads(file.read_text())
    assert command.written(text) == file.read_text() and command.changes(text, copy.deepcopy(text)) == []
    read = behavior.behavior(file)
    assert len(read.measurings) >= len(read.trainings) and read.whole == behavior.behavior(file).whole


def test_numbers_differ_by_more_than_rounding_errors():
    old = {"runs": {"a": {"auroc": [0.5, None], "weights": [1.0, 2.0]}}, "notebook": {"printed": ["mean 0.5 of 3"]}}

    def moved(change):
        new = copy.deepcopy(old)
        change(new)
        return command.changes(old, new)

    assert moved(lambda new: new["runs"]["a"].update(weights=[1.0 + 1e-8, 2.0])) == []
    assert moved(lambda new: new["runs"]["a"].update(weights=[1.0 + 1e-5, 2.0])) == ["runs, a, weights"]
    assert moved(lambda new: new["runs"]["a"].update(weights=[1.0])) == ["runs, a, weights"]
    assert moved(lambda new: new["runs"]["a"].update(auroc=[0.5005, None])) == []
    assert moved(lambda new: new["runs"]["a"].update(auroc=[0.51, None])) == ["runs, a, auroc"]
    assert moved(lambda new: new["runs"].update(b={})) == ["runs, b"]
    assert moved(lambda new: new["notebook"].update(printed=["mean 0.5000001 of 3"])) == []
    assert moved(lambda new: new["notebook"].update(printed=["mean 0.51 of 3"])) == ["printed"]
    assert moved(lambda new: new["notebook"].update(printed=["median 0.5 of 3"])) == ["printed"]
    assert list(differences(None, 1.0, 1e-6, 1e-8, "here")) == ["here"]


@pytest.mark.parametrize("place", [0, 7, 499])
def test_no_number_changes_without_its_summary(place):
    values = [float(number % 17 - 8) for number in range(500)]
    other = [*values]
    other[place] += 1e-2
    assert not list(differences(summary(values), summary(values), 1e-6, 1e-8))
    assert list(differences(summary(values), summary(other), 1e-6, 1e-8, "here")) == ["here"]
    assert list(differences(summary(values), summary(values[::-1]), 1e-6, 1e-8, "here")) == ["here"]


def test_what_is_not_finite_is_written_and_told_apart():
    found = json.loads(json.dumps(rounded({"a": [float("nan"), 1 / 3], "b": float("inf")})))
    assert found == {"a": ["nan", 0.333333333], "b": "inf"} and fingerprint(found) == fingerprint(dict(found))
    assert summary([1.0, float("nan")])[:2] == [2, 1]


@pytest.mark.parametrize(("name", "moved", "other"), [("figures", 1e-3, 0), ("figures", 1e-2, 1), ("derived", 1e-3, 1)])
def test_a_line_of_a_figure_may_move_by_more_than_a_number(name, moved, other):
    old, new = ({"runs": {}, "notebook": {name: {"Line2D": [10, 1.0 + by]}}} for by in (0.0, moved))
    assert len(command.changes(old, new)) == other
