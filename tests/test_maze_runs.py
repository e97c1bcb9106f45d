"""Runs of upper levels of world models with maps: trained above a frozen level 1, and taken to mazes of other sizes."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from conftest import ROOT, changed, generator, same, state, successor_of
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa.checkpoints import load
from jepa.data import load as load_held_out
from jepa.evaluate.acting import tasks_of_seed
from jepa.evaluate.levels import CHUNK
from jepa.evaluate.mazes import Planning
from jepa.hierarchy import HJEPA, Window
from jepa.runs import below, build
from jepa.runs.behavior import Code, loaded
from jepa.runs.config import Part, configure, to_dict
from jepa.runs.data import generate
from jepa.runs.level import Level
from jepa.runs.run import load_model, run, train_run
from jepa.runs.tasks import Task, tasks, training_key
from jepa.runs.variants import read
from jepa.streams import generator_for
from jepa.trajectory_monitor import Signs

WORLD = {"name": "maze", "rooms": 2, "group": 2, "before": 0}
FIRST = {
    "objective": {"name": "levels", "steps": 3},
    "levels": {
        1: {
            "encoder": {"name": "keypoints", "outputs": 2, "channels": 2, "symmetric": True},
            "predictor": {"name": "map_reader", "channels": [3, 3], "hidden": [6]},
            "loss": {"energy": 128.0, "variance": 16.0, "covariance": 8.0},
            "terms": {"horizon": 0, "delta": 0.0625},
        }
    },
    "train": {"steps": 3, "batch": 12, "rate": 0.01, "clip": 2.0},
    "monitor.times": 2,
    "evaluation": {"samples": 8, "probe": 6},
    "measure": [],
}
SECOND = {
    "world": {"group": 3},
    "objective": {"steps": 2, "clip": 9},
    "levels": {
        2: {
            "stride": 3,
            "encoder": "identity",
            "predictor": {"name": "abstract", "of": "actions", "channels": [3, 3], "strides": [1, 2], "hidden": [6]},
            "latent": {"name": "gaussian", "size": 2, "temperature": 0.002},
            "loss": {"energy": 16.0},
            "terms": {"horizon": 2, "delta": 0.25},
        }
    },
    "pool": 18,
}
OF = ("actions", "outcome", "subgoal")
CODE = Code(*[loaded()] * 4)


@pytest.fixture(scope="module")
def mazes(tmp_path_factory):
    """Return the folder of a few held-out tasks."""
    folder = tmp_path_factory.mktemp("mazes") / "two"
    generate(folder, Part("maze", {"rooms": 2}), 12, seed=4)
    return folder


@pytest.fixture(scope="module")
def first(mazes):
    """Return the task of level 1."""
    return Task("level_1", configure({"world": WORLD}, FIRST), 3, mazes, CODE)


@pytest.fixture(scope="module")
def second(first):
    """Return the task of level 2 above it."""
    return changed(first, **SECOND)._replace(name="level_2", parents={"below": first})


@pytest.fixture(scope="module")
def store(second, tmp_path_factory):
    """Return a store where both are trained and measured."""
    folder = tmp_path_factory.mktemp("runs")
    run(second, folder)
    return folder


def variant(task: Task, of: str) -> Task:
    """Return a task whose abstract action stands for something else."""
    return changed(task, **{"levels.2.predictor.of": of})


def of_level(weights, number: int) -> dict[str, torch.Tensor]:
    """Return the weights of a level."""
    return {name: value for name, value in weights.items() if name.startswith(f"levels.{number - 1}.")}


# -- trained -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", OF)
def test_level_2_is_trained_above_a_level_1_that_stays_as_it_is(first, second, store, of):
    task = variant(second, of)
    done = run(task, store)
    fresh, weights = build.parts(task.config, 3, below=1).model.state_dict(), state(done)
    assert same(of_level(weights, 1), state(run(first, store)))
    assert {*weights} == {*fresh} and not same(of_level(weights, 2), of_level(fresh, 2))
    expected = {"total", "total_2", "energy_2", "rate_2", "heads_2"}
    assert {*done.curve} == {"step", *expected} and done.curve["step"] == [1, 2, 3]
    assert all(torch.tensor(done.curve[name]).isfinite().all() for name in expected)
    assert (done.curve["rate_2"][-1] > 0) == (of != "subgoal") and done.curve["heads_2"][-1] > 0
    assert {*done.diagnostics} == {"step", *(f"{name}_2" for name in Signs._fields)}
    assert [row.metric for row in done.rows] == ["reference_energy"] and done.rows[0].value > 0
    model = load_model(done)
    assert isinstance(model, HJEPA) and model.levels[1].predictor.of == of
    assert [(clock.span, clock.stride) for clock in model.clocks] == [(1, 1), (1, 3)]


def test_level_1_learns_roll_outs_with_its_map(first, store):
    done = run(first, store)
    assert not same(state(done), build.parts(first.config, 3).model.state_dict())
    assert {"energy_1", "variance_1", "covariance_1"} < {*done.curve}
    parts = build.parts(first.config, 3)
    batch = parts.sample(4, generator())
    assert batch.frames.shape[:2] == (4, 4) and batch.static.shape == (2, *parts.world.static)
    loss = parts.objective(parts.model, batch, 0.0)
    (objective,), (level,) = parts.objective.objectives, parts.model.levels
    torch.testing.assert_close(loss.total, objective(level, batch, 0.0).total, rtol=0, atol=0)
    other = parts.objective(parts.model, batch._replace(static=batch.static.flip(0)), 0.0)
    assert loss.terms["energy_1"] != other.terms["energy_1"]


def test_the_world_tells_predictors_of_its_map_and_of_its_actions(second):
    config = configure({"world": {"step_limit": 0.5}}, base=second.config)
    parts = build.parts(config, 3, below=1)
    lower, upper = (level.predictor for level in parts.model.levels)
    assert lower.map.static == upper.map.static == upper.fine.static == parts.world.static == (2, 23, 23)
    assert lower.limit == upper.limit == 0.5 and upper.network[0].in_features == 3 * 2


def test_the_same_again_is_the_same_to_the_bit(second, store, tmp_path):
    one, two = run(second, store), run(second, tmp_path)
    assert same(state(one), state(two)) and (one.rows, one.curve, one.diagnostics) == (
        two.rows, two.curve, two.diagnostics
    )  # fmt: skip


@pytest.mark.parametrize("of", OF)
def test_training_that_is_cut_goes_on_to_the_same_to_the_bit(second, store, tmp_path, of):
    task = variant(second, of)

    def stop(finished):
        if finished == 2:
            raise KeyboardInterrupt

    train_run(task.parents["below"], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(task, tmp_path, stop)
    cut, whole = run(task, tmp_path), run(task, store)
    assert same(state(cut), state(whole)) and (cut.curve, cut.diagnostics) == (whole.curve, whole.diagnostics)


@pytest.mark.parametrize("of", OF)
def test_watching_decides_no_training(second, store, of):
    done = [run(changed(variant(second, of), **{"monitor.times": times}), store) for times in (0, 2)]
    assert done[0].folder != done[1].folder and same(*(state(one) for one in done))


def test_both_levels_may_be_trained_at_once(second, store):
    task = changed(second._replace(name="global", parents={}), **{"levels.2.weight": 0.5})
    done = run(task, store)
    fresh = build.parts(task.config, 3).model.state_dict()
    assert {"energy_1", "inverse_1", "energy_2", "heads_2"} < {*done.curve}
    assert not any(same(of_level(state(done), number), of_level(fresh, number)) for number in (1, 2))
    expected = [*("total", "energy", "variance", "covariance", "similarity", "inverse")]
    expected = ["total", *(f"{name}_1" for name in expected), "total_2", "energy_2", "rate_2", "heads_2"]
    assert [name for name in done.curve if name != "step"] == expected == [*build.parts(task.config, 3).objective.terms]


# -- what is kept of level 1 -------------------------------------------------------------------------------------------


def test_what_is_kept_are_codes_actions_and_maps_of_whole_groups(first, second, store):
    (file,) = train_run(first, store).glob("codes-*.pt")
    kept = load(file)  # without executing code
    assert kept["codes"].shape == (18, 9, 2) and kept["actions"].shape == (18, 8, 2) and kept["below"] == {}
    world, draws, model = build.world(second.config), generator_for("purpose", 3, "pool"), load_model(run(first, store))
    assert CHUNK % 3 and kept["static"].shape == (6, *world.static)
    parts = [world.trajectories(count, 8, draws) for count in (15, 3)]  # chunks are whole groups
    assert torch.equal(kept["static"], torch.cat([part.static for part in parts]))
    assert torch.equal(kept["actions"], torch.cat([part.a for part in parts]))
    with torch.no_grad():
        assert torch.equal(kept["codes"], torch.cat([model.encode(part.frames)[0] for part in parts]))


def test_what_is_kept_serves_all_that_is_built_on_level_1(first, second, store, tmp_path):
    folder = train_run(first, store)
    before = {*folder.glob("codes-*.pt")}
    generate(tmp_path / "others", Part("maze", {"rooms": 2}), 7, seed=9)
    run(changed(second, **{"evaluation.samples": 10, "evaluation.pairs": 5, "train.rate": 0.02}), store)
    run(changed(second, **{"levels.2.stride": 2})._replace(held_out=tmp_path / "others"), store)
    assert {*folder.glob("codes-*.pt")} == before and len(before) == 1
    run(changed(second, **{"objective.clip": 10}), store)
    assert len({*folder.glob("codes-*.pt")} - before) == 1


def test_a_third_level_is_told_the_maps_too(second, store):
    third = {"stride": 2, "encoder": "identity", "latent": {"name": "gaussian", "size": 2}}
    third |= {"predictor": {**SECOND["levels"][2]["predictor"], "of": "outcome"}}
    task = changed(second, levels={3: third}, objective={"clip": 20, "steps": 1})
    done = run(task._replace(name="level_3", parents={"below": second}), store)
    files = [load(file) for file in train_run(second, store).glob("codes-*.pt")]
    (kept,) = (kept for kept in files if kept["codes"].shape == (18, 7, 2))
    assert kept["actions"].shape == (18, 6, 6) and kept["static"].shape == (6, 2, 23, 23)
    assert {"energy_3", "heads_3"} < {*done.curve} and same(
        of_level(state(done), 2), of_level(state(run(second, store)), 2)
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), st.integers(0, 9))
def test_source_above_draws_whole_groups_with_their_map(group, layouts, stride, more, seed):
    plain = build.parts(configure({"world": "plane", "target_encoder": "shared"}), 0).model
    levels = {1: {"encoder": "identity"}, 2: {"stride": stride, "encoder": "identity"}}
    config = configure({"world": WORLD, "objective": {"name": "levels", "steps": 2}, "levels": levels})
    model = HJEPA([plain] * 2, [Window(1, 1), Window(1, stride)])
    count, length = group * layouts, 2 * stride + 1 + more
    codes = torch.arange(count * length).view(count, length, 1).float()  # each its own
    kept = {"codes": codes, "actions": -codes[:, :-1], "static": torch.arange(layouts).view(layouts, 1, 1, 1).float()}
    sample = below.above(config, model, 1, kept)
    batch = sample(300 * group, generator(seed))
    assert batch.frames.shape == (300 * group, 2 * stride + 1, 1) and batch.static.shape == (300, 1, 1, 1)
    assert (batch.frames.diff(dim=1) == 1).all() and torch.equal(batch.a, -batch.frames[:, :-1])
    row, start = batch.frames[:, 0, 0].long() // length, batch.frames[:, 0, 0].long() % length
    assert torch.equal(row % group, torch.arange(group).repeat(300))  # all of a group, in their order
    assert torch.equal(row // group, batch.static.flatten().long().repeat_interleave(group))
    assert {*row.tolist()} == {*range(count)} and {*start.tolist()} == {*range(more + 1)}
    if group > 1 and more:
        assert (start.view(300, group) != start.view(300, group)[:, :1]).any()  # each begins where it likes
    if group > 1:
        with pytest.raises(ValueError, match=f"^count: expected a multiple of {group}, the clips of a group, found 1$"):
            sample(1, generator())


# -- measured ----------------------------------------------------------------------------------------------------------


def test_subject_is_a_hierarchy_that_plans_on_held_out_tasks(second, store):
    done, held_out = run(second, store), load_held_out(second.held_out)
    parts = build.parts(second.config, 3, below=1)._replace(model=load_model(done))
    subject = build.subject(second.config, 3, parts, held_out, 2.0)
    assert isinstance(subject, Planning) and (subject.reference, subject.seed) == (2.0, 3)
    assert (subject.samples, subject.probe) == (8, 6) and subject.world == parts.world
    assert torch.equal(subject.tasks.start, parts.world.tasks_of(held_out).start) and len(subject.tasks.start) == 12
    some, same_ones = subject.some_tasks(3), tasks_of_seed(subject.tasks, 3, 3)
    assert torch.equal(some.goal, subject.tasks.goal[[9, 10, 11]]) and torch.equal(some.start, same_ones.start)
    with pytest.raises(ValueError, match="^measure.planning.episodes: expected at most 12, .* found 13"):
        subject.some_tasks(13)


# -- mazes of another size ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, mazes):
    """Return a folder of variants, beside the list of two held-out sets of mazes that are made."""
    folder = tmp_path / "experiments" / "09_tiny"
    folder.mkdir(parents=True)
    sets = {f"maze/{rooms}": {"world": {"name": "maze", "rooms": rooms}, "count": 4, "seed": 1} for rooms in (2, 3)}
    for name, entry in sets.items():
        generate(tmp_path / "data" / name, Part.of(entry["world"]), entry["count"], entry["seed"])
    small = {"world": {"group": 2, "before": 0}}
    texts = {
        "level_1": {"data": "maze/2", "config": {**FIRST, **small}},
        "level_2": {"data": "maze/2", "config": SECOND, "parents": {"below": "level_1"}},
        "sizes": {
            "data": {"two": "maze/2", "three": "maze/3"},
            "config": {"train": {"steps": 0}, "monitor.times": 0},
            "parents": {"start": "level_2"},
        },
    }
    (folder.parent / "data.yaml").write_text(yaml.safe_dump(sets))
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"claim": "P2", **text}))
    return folder


def test_a_model_of_small_mazes_is_taken_to_larger_ones(folder, tmp_path):
    variants = read(folder)
    assert {*variants} == {"level_1", "level_2", "two_sizes", "three_sizes"}
    asked = [variants[f"{prefix}_sizes"] for prefix in ("two", "three")]
    assert all(one.parents == {"start": "level_2"} for one in asked)
    done = [run(task, tmp_path / "store") for task in tasks(variants, asked, [3], (tmp_path / "data").joinpath)]
    (parent,) = tasks(variants, [variants["level_2"]], [3], (tmp_path / "data").joinpath)
    assert [one.task.config.world.options["rooms"] for one in done] == [2, 3]
    assert all(one.task.parents["start"].parents["below"].name == "level_1" for one in done)
    assert all(one.task.config.world.options["group"] == 3 for one in done)  # as in its parent
    assert all(same(state(one), state(run(parent, tmp_path / "store"))) for one in done)
    large = load_model(done[1])
    assert large.levels[1].predictor.map.static == (2, 32, 32) and done[0].folder != done[1].folder
    world = build.world(done[1].task.config)
    batch = world.trajectories(3, 3, generator())
    with torch.no_grad():
        codes = large.encode(batch.frames)
        step = large.levels[1].bound(batch.static)
        predicted = step(codes[1][:, :1], batch.a.new_zeros(1, 1, 0), batch.a.new_zeros(1, 4, 2))
    assert predicted.shape == (3, 4, 2) and predicted.isfinite().all()


def test_larger_mazes_may_be_trained_on_from_there(second, store, tmp_path):
    generate(tmp_path / "three", Part("maze", {"rooms": 3}), 4, seed=1)
    task = successor_of(second, **{"world.rooms": 3, "train.steps": 1})._replace(held_out=tmp_path / "three")
    done = run(task, store)
    assert {"energy_1", "energy_2"} < {*done.curve}
    assert not same(of_level(state(done), 2), of_level(state(run(second, store)), 2))


# -- keys --------------------------------------------------------------------------------------------------------------


def test_keys_of_levels_without_heads_are_what_they_were(second):
    plain = to_dict(second.config, deciding=True)["levels"]
    assert (
        "heads" not in plain["1"] and "heads" not in plain["2"] and to_dict(second.config)["levels"]["2"]["heads"] == 1
    )
    named, other = (changed(second, **{"levels.2.heads": heads}) for heads in (1.0, 0.5))
    assert training_key(named) == training_key(second) != training_key(other)
    assert to_dict(other.config, deciding=True)["levels"]["2"]["heads"] == 0.5
    assert configure(json.loads(json.dumps(to_dict(other.config)))) == other.config
    assert "heads" not in to_dict(Level(), deciding=True)


# -- what cannot be ----------------------------------------------------------------------------------------------------


CANNOT = [
    ({"pool": 16}, "pool: expected a multiple of 3, the trajectories that share a static part, found 16"),
    ({"train.batch": 8}, "train.batch: expected a multiple of 3, the trajectories that share a static part, found 8"),
    ({"objective.clip": 6}, "objective.clip: expected at least 7 for 2 steps of the highest level, found 6 frames"),
    ({"levels.2.latent": "none"}, "levels.2: latent: expected a width of at least 1 for 'actions', found 0"),
    (
        {"levels.2.latent": {"name": "low_dimensional", "size": 2}},
        "levels.2: latent: expected 'gaussian' beside the predictor 'abstract', found 'low_dimensional'",
    ),
    (
        {"levels.2.expander": "random_features"},
        "levels.2: expander: expected 'identity' beside the predictor 'abstract'",
    ),
    ({"levels.2.loss.variance": 1.0}, "levels.2: loss.variance, loss.covariance: expected 0, .*, found 1.0, 0.0"),
    ({"levels.2.terms.targets": "stopped"}, "levels.2: objective.targets: expected 'gradient' for abstract actions"),
    ({"levels.2.predictor.of": "places"}, "levels.2: of: expected one of actions, outcome, subgoal, found 'places'"),
    ({"levels.2.predictor.static": [2, 9, 9]}, "levels.2: predictor: option of 'abstract': expected .*found 'static'"),
    (
        {"levels.2": {"predictor": "mlp", "heads": 0.5}},
        "levels.2: heads: expected 1.0, as only the predictor 'abstract' has heads, found 0.5 beside 'mlp'",
    ),
    ({"measure": ["contents"]}, "measure: expected a hierarchy on clips of the world drive, found Maze"),
]


@pytest.mark.parametrize(("diff", "message"), CANNOT, ids=str)
def test_what_cannot_be_is_named_before_anything_is_trained(second, tmp_path, diff, message):
    with pytest.raises(ValueError, match=f"^level_2, seed 3: {message}"):
        run(changed(second, **diff), tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_negative_weight_of_heads_is_named(second):
    with pytest.raises(ValueError, match=r"^levels.2: heads: expected at least 0, found -1.0"):
        configure({"levels.2.heads": -1.0}, base=second.config)


# -- notebook 09 -------------------------------------------------------------------------------------------------------


def test_variants_of_notebook_09_are_made_of_parts_that_fit():
    variants = read(ROOT / "experiments" / "09_hierarchical_planning")
    assert {"level_1", "level_2", "outcome", "subgoal"} <= {*variants}
    for name, of in (("level_2", "actions"), ("outcome", "outcome"), ("subgoal", "subgoal")):
        one = variants[name]
        parts = build.parts(one.config, 0, below=1)
        assert one.parents == {"below": "level_1"} and parts.model.levels[1].predictor.of == of
        assert parts.model.clocks[-1].stride == 8 and parts.model.levels[1].predictor.map.static == parts.world.static
