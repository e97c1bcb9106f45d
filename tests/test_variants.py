"""Variants: a variant that keeps another one's encoders takes over its settings, and mistakes are named by file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jepa.config import configure
from jepa.runs import tasks
from jepa.variants import choose, read

SETS = {
    "plane/one": {"world": {"name": "plane", "spread": 0.25}, "count": 8, "seed": 1},
    "plane/two": {"world": {"name": "plane", "spread": 0.5}, "count": 8, "seed": 1},
}
PARENT = {
    "claim": "E1",
    "data": "plane/one",
    "config": {"encoder_y": {"name": "mlp", "outputs": 3}, "train": {"rate": 0.5, "steps": 7}, "latent": "none"},
}
CHILD = {
    "claim": "E2",
    "data": "plane/one",
    "frozen": "parent",
    "config": {"train.rate": 0.25, "latent": {"name": "discrete", "size": 2}},
}


@pytest.fixture
def folder(tmp_path):
    """Return a folder of variants: a parent and a child that keeps its encoders."""
    folder = tmp_path / "experiments" / "09_tiny"
    folder.mkdir(parents=True)
    write(folder.parent / "data.yaml", SETS)
    write(folder / "parent.yaml", PARENT)
    write(folder / "child.yaml", CHILD)
    return folder


def write(file, content):
    """Write a YAML file."""
    file.write_text(yaml.safe_dump(content))


def test_child_has_the_settings_of_its_parent_and_its_own_on_top(folder):
    variants = read(folder)
    parent, child = variants["parent"], variants["child"]
    assert list(variants) == ["child", "parent"] and (parent.frozen, child.frozen) == ("", "parent")
    assert (child.claim, child.data, child.name) == ("E2", "plane/one", "child")
    assert parent.config == configure({"world": SETS["plane/one"]["world"]}, PARENT["config"])
    assert child.config == configure(CHILD["config"], base=parent.config) != parent.config
    assert child.config.train.steps == 7 and child.config.train.rate == 0.25 and parent.config.train.rate == 0.5


def test_diffs_are_laid_over_parent_and_child_alike(folder):
    variants = read(folder, {"train.rate": 0.1, "train.steps": 3}, {"train.steps": 4})
    assert {(v.config.train.rate, v.config.train.steps) for v in variants.values()} == {(0.1, 4)}


def test_untrained_variant_stays_untrained(folder):
    write(folder / "child.yaml", {**CHILD, "config": {"train.steps": 0}})
    variants = read(folder, {"train": {"steps": 3, "rate": 0.1}})
    assert [(v.config.train.steps, v.config.train.rate) for v in variants.values()] == [(0, 0.1), (3, 0.1)]


def test_either_may_say_nothing_of_its_own(folder):
    write(folder / "child.yaml", {key: CHILD[key] for key in ("claim", "data", "frozen")})
    variants = read(folder)
    assert variants["child"].config == variants["parent"].config
    write(folder / "parent.yaml", {key: PARENT[key] for key in ("claim", "data")})
    assert read(folder)["child"].config == configure({"world": SETS["plane/one"]["world"]})


def test_settings_are_taken_over_without_the_encoders_from_a_variant_on_other_data(folder):
    kept = {key: CHILD[key] for key in ("claim", "config")}
    write(folder / "child.yaml", {**kept, "data": "plane/two", "base": "parent"})
    child = read(folder)["child"]
    (task,) = tasks(read(folder), [child], [0], Path)
    assert child.frozen == "" and task.frozen is None
    world = {"world": SETS["plane/two"]["world"]}
    assert child.config == configure(world, PARENT["config"], CHILD["config"])


def test_child_may_have_levels(folder):
    write(folder / "child.yaml", {**CHILD, "levels": {1: {"latent.size": 1}, 3: {"latent.size": 3, "train.rate": 0.5}}})
    variants = read(folder)
    assert list(variants) == ["child_1", "child_3", "parent"]
    for level, rate in ((1, 0.25), (3, 0.5)):
        child = variants[f"child_{level}"]
        assert child.frozen == "parent" and child.config.latent.options == {"size": level}
        assert (child.config.train.rate, child.config.train.steps) == (rate, 7)
    assert {v.config.train.rate for v in read(folder, {"train.rate": 0.1}).values()} == {0.1}  # over those of a level


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"child": {"frozen": "parnt"}}, "child.yaml: frozen: expected one of parent, found 'parnt'; did you mean"),
        ({"child": {"frozen": "child"}}, "child.yaml: frozen: expected one of parent, found 'child'"),
        (
            {"other": {**CHILD, "frozen": "child"}},
            "other.yaml: frozen: expected one of parent, found 'child'",
        ),
        (
            {"parent": {"levels": {1: {"latent": "none"}}}, "other": PARENT},
            "child.yaml: frozen: expected one of other, found 'parent'",
        ),
        ({"child": {"base": "parent"}}, "child.yaml: base, frozen: expected one of the two, found both"),
        ({"other": {**PARENT, "base": "parnt"}}, "other.yaml: base: expected one of parent, found 'parnt'"),
        ({"other": {**PARENT, "base": "child"}}, "other.yaml: base: expected one of parent, found 'child'"),
        ({"child": {"data": "plane/two"}}, "child.yaml: data: expected plane/one as in parent, found plane/two"),
        ({"child": {"config": {"train.stesp": 1}}}, "child.yaml: setting 'train.stesp'.*did you mean 'steps'"),
        ({"child": {"forzen": "parent"}}, "child.yaml: key 'forzen': .*did you mean 'frozen'"),
        ({"parent": {"data": "plane/thre"}}, "parent.yaml: data: expected one of plane/one, plane/two, found"),
    ],
    ids=str,
)
def test_mistakes_are_named_with_the_file(folder, files, message):
    for name, change in files.items():
        write(folder / f"{name}.yaml", {**{"parent": PARENT, "child": CHILD}.get(name, {}), **change})
    with pytest.raises(ValueError, match=f"^{message}"):
        read(folder)


def test_file_says_its_claim_and_its_data(folder):
    for lacking, found in (("claim", "config, data"), ("data", "claim, config")):
        write(folder / "parent.yaml", {key: value for key, value in PARENT.items() if key != lacking})
        with pytest.raises(ValueError, match=f"^parent.yaml: expected the keys claim and data, found {found}$"):
            read(folder)


def test_chosen_variants_are_in_the_order_they_are_named_in(folder):
    variants = read(folder)
    assert [v.name for v in choose(variants, ("parent", "child"))] == ["parent", "child"]
    assert [v.name for v in choose(variants, ())] == ["child", "parent"]
    with pytest.raises(ValueError, match="^variant: expected one of child, parent, found 'chidl'; did you mean"):
        choose(variants, ("parent", "chidl"))


def test_every_variant_and_seed_is_a_task_with_the_encoders_of_the_same_seed(folder):
    variants = read(folder)
    asked = tasks(variants, choose(variants, ("parent", "child")), iter((3, 5)), lambda name: Path("data") / name)
    assert [(task.name, task.seed) for task in asked] == [("parent", 3), ("parent", 5), ("child", 3), ("child", 5)]
    assert all(task.held_out == Path("data/plane/one") and task.config == variants[task.name].config for task in asked)
    assert [task.frozen for task in asked] == [None, None, *asked[:2]]
    (alone,) = tasks(variants, [variants["child"]], [3], Path)
    assert alone.frozen == asked[0]._replace(held_out=Path("plane/one"))
