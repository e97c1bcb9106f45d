"""Variants: what is built on another variant takes over its settings, one file may serve several worlds, and mistakes
are named by file.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from jepa.runs.config import configure
from jepa.runs.tasks import tasks
from jepa.runs.variants import choose, read

SETS = {
    "plane/one": {"world": {"name": "plane", "spread": 0.25}, "count": 8, "seed": 1},
    "plane/two": {"world": {"name": "plane", "spread": 0.5}, "count": 8, "seed": 1},
}
PARENT = {
    "claim": "E1",
    "data": "plane/one",
    "config": {"target_encoder": {"name": "mlp", "outputs": 3}, "train": {"rate": 0.5, "steps": 7}, "latent": "none"},
}
CHILD = {
    "claim": "E2",
    "data": "plane/one",
    "parents": {"encoder": "parent"},
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
    assert list(variants) == ["child", "parent"] and (parent.parents, child.parents) == ({}, {"encoder": "parent"})
    assert (child.claim, child.data, child.name) == ("E2", "plane/one", "child")
    assert parent.config == configure({"world": SETS["plane/one"]["world"]}, PARENT["config"])
    assert child.config == configure(CHILD["config"], base=parent.config) != parent.config
    assert child.config.train.steps == 7 and child.config.train.rate == 0.25 and parent.config.train.rate == 0.5


def test_untrained_variant_stays_untrained(folder):
    write(folder / "child.yaml", {**CHILD, "config": {"train.steps": 0}})
    variants = read(folder, {"train": {"steps": 3, "rate": 0.1}})
    assert [(v.config.train.steps, v.config.train.rate) for v in variants.values()] == [(0, 0.1), (3, 0.1)]


def test_either_may_say_nothing_of_its_own(folder):
    write(folder / "child.yaml", {key: CHILD[key] for key in ("claim", "data", "parents")})
    variants = read(folder)
    assert variants["child"].config == variants["parent"].config
    write(folder / "parent.yaml", {key: PARENT[key] for key in ("claim", "data")})
    assert read(folder)["child"].config == configure({"world": SETS["plane/one"]["world"]})


LINKS = [{"base": "parent"}, {"parents": {"encoder": "parent"}}, {"parents": {"start": "parent"}}]


@pytest.mark.parametrize("link", LINKS, ids=str)
def test_variant_may_be_built_on_one_of_other_data(folder, link):
    write(folder / "child.yaml", {"claim": "E2", "config": CHILD["config"], "data": "plane/two", **link})
    variants = read(folder)
    child = variants["child"]
    assert child.parents == link.get("parents", {})
    task, parent = tasks(variants, [child, variants["parent"]], [3], Path)
    assert task.held_out == Path("plane/two") and parent.held_out == Path("plane/one")
    assert task.parents == dict.fromkeys(child.parents, parent) and not parent.parents
    assert child.config == configure({"world": SETS["plane/two"]["world"]}, PARENT["config"], CHILD["config"])


def chain(folder):
    """Write a chain of four: each takes over the settings of the one before it, and says one of its own."""
    for name, link, change in (
        ("second", {"parents": {"start": "parent"}}, {"train.rate": 0.25}),
        ("third", {"parents": {"encoder": "second"}}, {"train.decay": 0.125}),
        ("fourth", {"base": "third"}, {"train.clip": 3.0}),
    ):
        write(folder / f"{name}.yaml", {"claim": "E1", "data": "plane/one", "config": change, **link})


def test_chain_of_links_takes_over_all_settings_and_the_nearest_weights(folder):
    chain(folder)
    variants = read(folder)
    first, second, third, fourth = (variants[name] for name in ("parent", "second", "third", "fourth"))
    expected = first.config
    for diff, variant in (({"rate": 0.25}, second), ({"decay": 0.125}, third), ({"clip": 3.0}, fourth)):
        expected = configure({"train": diff}, base=expected)
        assert variant.config == expected
    assert [one.parents for one in (first, second, third)] == [{}, {"start": "parent"}, {"encoder": "second"}]
    assert fourth.parents == third.parents  # what it is built on is what its base is built on
    (task,) = tasks(variants, [fourth], [5], Path)
    older, oldest = task.parents["encoder"], task.parents["encoder"].parents["start"]
    assert [one.name for one in (task, older, oldest)] == ["fourth", "second", "parent"]
    assert not oldest.parents and {one.seed for one in (task, older, oldest)} == {5}


SEVERAL = {"one": "plane/one", "two": "plane/two"}


def test_one_file_makes_a_variant_for_each_of_several_held_out_sets(folder):
    only = {"two": {"train.rate": 0.125, "train.batch": 16}}
    write(folder / "parent.yaml", {**PARENT, "data": SEVERAL, "only": only})
    write(folder / "child.yaml", {**CHILD, "data": SEVERAL})
    variants = read(folder)
    assert set(variants) == {f"{prefix}_{stem}" for prefix in SEVERAL for stem in ("parent", "child")}
    for prefix, data in SEVERAL.items():
        parent, child = variants[f"{prefix}_parent"], variants[f"{prefix}_child"]
        assert {parent.data, child.data} == {data} and (parent.parents, child.parents) == (
            {},
            {"encoder": f"{prefix}_parent"},
        )
        world = {"world": SETS[data]["world"]}
        assert parent.config == configure(world, PARENT["config"], only.get(prefix, {}))
        assert child.config == configure(CHILD["config"], base=parent.config)


def test_levels_and_links_hold_for_each_of_several_sets(folder):
    write(folder / "parent.yaml", {**PARENT, "data": SEVERAL})
    latent, levels = {"name": "discrete", "size": 2}, {1: {"latent.size": 1}, 3: {"latent.size": 3, "train.rate": 0.25}}
    for link in LINKS:
        text = {"claim": "E1", "data": SEVERAL, "config": {"latent": latent}, "levels": levels}
        write(folder / "child.yaml", {**text, **link})
        variants = read(folder)
        assert len(variants) == 6
        for prefix, level in itertools.product(SEVERAL, levels):
            child = variants[f"{prefix}_child_{level}"]
            assert child.config.latent.options == {"size": level}
            assert (child.config.train.rate, child.config.train.steps) == (0.5 if level == 1 else 0.25, 7)
            assert child.parents == dict.fromkeys(link.get("parents", ()), f"{prefix}_parent")
        over = read(folder, {"train.rate": 0.3}, {"train.rate": 0.1})  # the last of them over that of a level
        assert {variant.config.train.rate for variant in over.values()} == {0.1}


def test_variants_for_several_sets_may_all_be_built_on_one(folder):
    write(folder / "child.yaml", {**CHILD, "data": SEVERAL})
    variants = read(folder)
    assert set(variants) == {"parent", "one_child", "two_child"}
    assert all(variants[f"{prefix}_child"].parents == {"encoder": "parent"} for prefix in SEVERAL)
    write(folder / "two_parent.yaml", {**PARENT, "data": "plane/two"})  # of its own prefix where there is one
    found = [read(folder)[f"{prefix}_child"].parents["encoder"] for prefix in SEVERAL]
    assert found == ["parent", "two_parent"]


IN_CHILD = [  # the child's file with this change, and what is said
    ({"parents": {"encoder": "parnt"}}, "encoder: expected one of parent, found 'parnt'; did you mean"),
    ({"parents": {"start": "child"}}, "start: expected one of parent, found 'child'"),
    ({"parents": {"encodr": "parent"}}, "parents: expected one of below, encoder, start, found 'encodr'; did you mean"),
    (
        {"parents": {"encoder": "parent", "start": "parent"}},
        "parents: expected a role with its variant, found {",
    ),
    ({"parents": "parent"}, "parents: expected a role with its variant, found 'parent'"),
    ({"base": "parent"}, "base, parents: expected one of them, found 2"),
    ({"config": {"train.stesp": 1}}, "setting 'train.stesp'.*did you mean 'steps'"),
    ({"config": [1]}, "settings: expected a mapping"),
    ({"levels": {1: {}, 2: {"tren.steps": 1}}}, "setting 'tren'.*'train'"),
    ({"parent": {}}, "key 'parent': .*did you mean 'parents'"),
    ({"data": "plane/thre"}, "data: expected one of plane/one, plane/two, found"),
    ({"only": {"one": {}}}, "only: expected one of none, found 'one'"),
    ({"data": SEVERAL, "only": {"tow": {}}}, "only: expected one of one, two, found 'tow'; did you mean 'two'"),
    ({"data": SEVERAL, "only": {"two": {"train.stesp": 1}}}, "setting 'train.stesp'.*did you mean 'steps'"),
    ({"data": {"one": "plane/oen"}}, "data: expected one of plane/one, plane/two, found 'plane/oen'"),
]
TO_OTHER = {**PARENT, "parents": {"start": "child"}}
IN_OTHERS = [
    (
        {"parent": TO_OTHER},
        "(child.yaml: encoder: expected one of none|parent.yaml: start: expected one of none)",
    ),
    ({"parent": {**PARENT, "base": "other"}, "other": TO_OTHER}, "[a-z]+.yaml: (base|start|encoder): expected one of "),
    ({"parent": {**PARENT, "levels": {1: {}}}}, "child.yaml: encoder: expected one of none, found 'parent'"),
    ({"other": {**PARENT, "base": "parnt"}}, "other.yaml: base: expected one of child, parent, found 'parnt'; did"),
    (
        {"parent": {**PARENT, "data": {"two": "plane/two"}}},
        "child.yaml: encoder: .*two_parent, found 'parent'; did",
    ),
]


@pytest.mark.parametrize(
    ("files", "message"),
    [*(({"child": {**CHILD, **change}}, f"child.yaml: {message}") for change, message in IN_CHILD), *IN_OTHERS],
    ids=str,
)
def test_mistakes_are_named_with_the_file(folder, files, message):
    for name, text in files.items():
        write(folder / f"{name}.yaml", text)
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
    assert [task.parents for task in asked] == [{}, {}, {"encoder": asked[0]}, {"encoder": asked[1]}]
    (alone,) = tasks(variants, [variants["child"]], [3], Path)
    assert alone.parents == {"encoder": asked[0]._replace(held_out=Path("plane/one"))}
