"""A diff changes what it names and nothing else; what does not exist or cannot be stops with its full name."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa.runs.config import Config, Part, configure, nested, read_diff, to_dict
from jepa.runs.level import Level

PARTS = {name for name, value in vars(Config()).items() if isinstance(value, Part)}


def flat(tree: dict, prefix: str = "") -> dict:
    """Return every leaf of nested dictionaries by its dotted name; an empty dictionary is a leaf."""
    leaves = {}
    for key, value in tree.items():
        inner = isinstance(value, dict) and value
        leaves |= flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return leaves


def another(value):
    """Return a value that a setting could also have."""
    if isinstance(value, str):
        return {"x": "y", "purpose": "seed"}.get(value, value + "_2")
    if isinstance(value, dict):
        return {"steps": 3}
    if isinstance(value, list):
        return ["branch"]
    return 2.0 if math.isinf(value) else value / 2 if 0 < value < 1 else type(value)(value + 1)


DEFAULTS = flat(to_dict(Config()))
CHANGES = {name: another(value) for name, value in DEFAULTS.items()} | {"measure": [{"name": "area", "grid": 8}]}
CHANGES["levels"] = {"1": to_dict(Level(width=3))}  # a level that is new has all of its settings
SETTINGS = {name: value for name, value in CHANGES.items() if name.split(".")[0] not in PARTS}
subsets = st.lists(st.sampled_from(sorted(CHANGES)), unique=True).map(lambda names: {n: CHANGES[n] for n in names})


def unfold(diff: dict) -> dict:
    """Return a diff of dotted keys as nested dictionaries."""
    tree: dict = {}
    for name, value in diff.items():
        *path, last = name.split(".")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    return tree


@pytest.mark.parametrize("name", CHANGES)
def test_diff_changes_only_what_it_names(name):
    rest = {key: value for key, value in DEFAULTS.items() if key != name}
    assert flat(to_dict(configure({name: CHANGES[name]}))) == rest | flat(unfold({name: CHANGES[name]}))


@given(subsets)
@settings(max_examples=60, deadline=None)
def test_dotted_nested_and_separate_diffs_are_the_same(diff):
    together = configure(diff)
    assert configure(unfold(diff)) == together
    assert configure(*({name: value} for name, value in reversed(diff.items()))) == together


@given(subsets)
@settings(max_examples=60, deadline=None)
def test_configuration_survives_the_way_through_json(diff):
    config = configure(diff, {"latent": {"name": "discrete", "size": 4}})
    assert configure(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name", SETTINGS)
def test_misspelt_setting_is_named_with_its_nearest_match(name):
    wrong, last = f"{name}z", name.split(".")[-1]
    for diff in ({wrong: SETTINGS[name]}, unfold({wrong: SETTINGS[name]})):
        with pytest.raises(ValueError, match=re.escape(f"setting '{wrong}'")) as caught:
            configure(diff)
        assert f"did you mean '{last}'?" in str(caught.value)


def test_options_stay_while_the_name_stays_and_go_when_it_changes():
    first = configure({"latent": {"name": "low_dimensional", "size": 2, "steps": 7}})
    assert configure({"latent.steps": 9}, base=first).latent == Part("low_dimensional", {"size": 2, "steps": 9})
    assert configure({"latent": "low_dimensional"}, base=first).latent == first.latent
    assert configure({"latent": {"name": "discrete", "size": 4}}, base=first).latent == Part("discrete", {"size": 4})
    assert configure({"latent": "none"}, base=first).latent == Part("none", {})
    assert first.latent == Part("low_dimensional", {"size": 2, "steps": 7})  # what was laid over it left it alone


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train.steps", "many", "expected int"),
        ("train.steps", 2.5, "expected int"),
        ("train.steps", True, "expected int"),
        ("train.rate", "1e-3", "expected float"),  # what YAML makes of 1e-3, which has no dot
        ("train.rate", True, "expected float"),
        ("train.rate", math.nan, "found nan"),
        ("train.rate", None, "expected float"),
        ("device", 0, "expected str"),
        ("condition_on", "branch", "expected tuple"),
        ("condition_on", [2], "expected str"),
        ("at_measurement", 3, "expected dict"),
        ("monitor.times", 2.0, "expected int"),
        ("measure", "area", "expected a list of measures"),
        ("measure", [3], "expected a name or a mapping"),
        ("measure", [{"grid": 8}], "expected a mapping with 'name'"),
        ("measure", {"aera": {"grid": 9}}, "expected one of .*, found 'aera'; did you mean 'area'"),
        ("measure", {"names": ["area"]}, "expected one of .*, found 'names'"),
        ("measure.area", 9, "expected a mapping of options, found 9"),
        ("train", 3, "expected a mapping"),
        ("latent", 4, "expected a name or a mapping"),
    ],
)
def test_value_of_another_type_or_options_of_no_measure_are_an_error(name, value, expected):
    with pytest.raises(ValueError, match=f"{re.escape(name)}: .*{expected}"):
        configure({name: value})


def test_an_integer_may_stand_for_a_float():
    one = configure({"train.rate": 1})
    assert one == configure({"train.rate": 1.0}) and type(one.train.rate) is float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("train.batch", value) for value in (1, 0, -4)],
        *[("train.steps", -1), ("monitor.times", -1), ("monitor.pairs", 3), ("evaluation.pairs", -1)],
        *[(f"loss.{name}", -0.5) for name in ("variance", "covariance", "information_x", "information_y")],
        *[(name, 0.0) for name in ("train.rate", "train.clip", "loss.beta", "loss.beta_start", "loss.anneal")],
        *[("train.rate", -1.0), ("context", "z"), ("streams", "both"), ("evaluation.probe", 0)],
        *[(name, value) for name in ("pool", "evaluation.samples") for value in (0, -1)],
        *[("train.beta2", value) for value in (1.0, 1.5, math.inf, -0.1)],
    ],
)
def test_number_no_run_can_have_is_an_error(name, value):
    with pytest.raises(ValueError, match=f"{re.escape(name)}: expected .*found {value!r}"):
        configure({name: value})


def test_numbers_at_their_bounds_are_no_error():
    least = {"train.steps": 0, "train.batch": 2, "train.beta2": 0, "monitor.times": 0, "monitor.pairs": 4, "pool": 1}
    least |= dict.fromkeys([f"loss.{name}" for name in ("variance", "covariance", "information_x", "information_y")], 0)
    least |= {"evaluation.samples": 1, "evaluation.probe": 1, "evaluation.pairs": 0}
    found = flat(to_dict(configure(least)))
    assert {name: found[name] for name in least} == least and configure({"train.beta2": 0.9999}).train.beta2 == 0.9999


LISTED = {"measure": ["collapse", {"name": "area", "grid": 8, "epsilon": 0.5}]}


def test_list_of_measures_replaces_what_was_listed_with_its_options():
    first = configure(LISTED)
    assert first.measure == (Part("collapse", {}), Part("area", {"grid": 8, "epsilon": 0.5}))
    assert configure({"measure": ["area", {"name": "codes"}]}, base=first).measure == (Part("area"), Part("codes"))
    assert configure({"measure": []}, base=first).measure == ()
    asked = ("area", "grid"), ("area", "contexts", 4), ("codes", "grid")
    assert [first.option(*one) for one in asked] == [8, 4, None]


@pytest.mark.parametrize(
    "diff", [{"measure": {"area": {"grid": 9}}}, {"measure.area.grid": 9}, {"measure.area": {"grid": 9}}]
)
def test_options_are_laid_over_those_of_a_listed_measure_and_over_nothing_else(diff):
    first = configure(LISTED)
    assert configure(diff, base=first).measure == (Part("collapse", {}), Part("area", {"grid": 9, "epsilon": 0.5}))
    assert first == configure(LISTED) and configure(diff).measure == ()  # what is not listed is not measured
    assert configure(diff, LISTED).measure == first.measure  # a list that comes later wins


@pytest.mark.parametrize("diff", [{"latent": "discrete", "latent.size": 4}, {"latent.size": 4, "latent": "discrete"}])
def test_a_key_with_a_value_and_settings_of_its_own_is_an_error(diff):
    with pytest.raises(ValueError, match="latent: expected once"):
        configure(diff)


def test_dotted_and_nested_keys_of_one_diff_join_at_every_depth():
    diff = {"measure.area.grid": 3, "measure": {"area": {"epsilon": 0.5}, "codes": {}}}
    assert nested(diff) == {"measure": {"area": {"grid": 3, "epsilon": 0.5}, "codes": {}}}


@pytest.mark.parametrize("diff", ["train", None, [1]])
def test_anything_but_a_mapping_is_no_diff(diff):
    with pytest.raises(ValueError, match="settings: expected a mapping"):
        configure(diff)


def test_plain_dictionaries_tell_every_setting_apart():
    configs = [Config(), *(configure({name: value}) for name, value in CHANGES.items())]
    assert len({json.dumps(to_dict(config), sort_keys=True) for config in configs}) == len(CHANGES) + 1


def test_files_that_are_no_variant_are_named(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("train: {steps: 1\n")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(ValueError, match="list.yaml: expected a mapping of settings, found list"):
        read_diff(tmp_path / "list.yaml")
    with pytest.raises(ValueError, match="broken.yaml: expected YAML"):
        read_diff(tmp_path / "broken.yaml")
    with pytest.raises(ValueError, match="variant 'lost': no file .*variants there: broken, empty, list"):
        read_diff(tmp_path / "lost.yaml")
    assert read_diff(tmp_path / "empty.yaml") == {}
