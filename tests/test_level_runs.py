"""Runs of hierarchies: trained level by level or at once, above levels that stay as they are to the bit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SMALL, changed, generator, same, state, successor_of
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa.checkpoints import load
from jepa.data import load as load_held_out
from jepa.evaluate.costs import FEW
from jepa.hierarchy import HJEPA, Window
from jepa.lab.tune import trials
from jepa.objectives.levels import LevelsObjective
from jepa.runs import below, build
from jepa.runs.behavior import Code, loaded
from jepa.runs.config import Config, Part, configure, read_diff, to_dict
from jepa.runs.data import generate
from jepa.runs.levels import training_frames
from jepa.runs.run import load_model, run, train_run
from jepa.runs.tasks import MEASURED, Task, measuring_key, settings_of, tasks, training_key
from jepa.runs.variants import read
from jepa.streams import generator_for
from jepa.trajectory_monitor import Signs

ROOT = Path(__file__).resolve().parents[1]
WORLD = {"name": "drive", "size": 16, "held_out_frames": 161}
CRITERIA = {"variance": 1.0, "covariance": 0.1}
FIRST = {
    "world": WORLD,
    "objective": {"name": "levels", "steps": 2, "clip": 65},
    "levels": {
        1: {
            "width": 2,
            "encoder": {"name": "convolutional", "outputs": 4, "channels": [2, 4], "hidden": 8},
            "predictor": {"hidden": [6]},
            "expander": {"name": "random_features", "features": 5},
            "loss": CRITERIA,
        }
    },
    "train": {"steps": 3, "batch": 4, "rate": 0.01},
    "pool": 5,
    "monitor.times": 3,
    "evaluation": {"samples": 20, "probe": 6},
    "measure": ["contents", "training_cost"],
}
SECOND = {"width": 8, "stride": 8, "encoder": {"outputs": 3, "hidden": [6]}, "predictor": {"hidden": [6]}}
THIRD = {**SECOND, "width": 4, "stride": 4, "encoder": {"outputs": 2, "hidden": [5]}}
SECOND, THIRD = (level | {"loss": CRITERIA} for level in (SECOND, THIRD))
PLAIN = build.parts(configure({"world": "plane", "target_encoder": "shared"}), 0).model


def of(level: int, *diffs) -> Config:
    """Return the configuration of a hierarchy of so many levels."""
    upper = [{"levels": {2: SECOND}}, {"levels": {3: THIRD}, "objective.steps": 1}]
    return configure(FIRST, *upper[: level - 1], *diffs)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return the folder of a few held-out clips."""
    folder = tmp_path_factory.mktemp("drive") / "clips"
    generate(folder, Part("drive", {"held_out_frames": 161}), 20, seed=4)
    return folder


@pytest.fixture(scope="module")
def stack(clips):
    """Return tasks of three levels, each above the one before, which keep what is below."""
    found = []
    for level in (1, 2, 3):
        parents = {"below": found[-1]} if found else {}
        found.append(Task(f"level_{level}", of(level), 3, clips, Code(*[loaded()] * 4), parents))
    return found


@pytest.fixture(scope="module")
def store(stack, tmp_path_factory):
    """Return a store where all three are trained and measured."""
    folder = tmp_path_factory.mktemp("runs")
    run(stack[2], folder)
    return folder


def together(task: Task, level: int, *diffs) -> Task:
    """Return a task that trains all of so many levels at once."""
    return task._replace(name="global", config=of(level, *diffs), parents={})


def finite(rows) -> dict[str, float]:
    """Return the numbers by name, once it is checked that all are finite."""
    assert rows and all(math.isfinite(row.value) for row in rows)
    return {row.metric: row.value for row in rows}


def of_level(weights, number: int) -> dict[str, torch.Tensor]:
    """Return the weights of a level."""
    return {name: value for name, value in weights.items() if name.startswith(f"levels.{number - 1}.")}


# -- level by level ----------------------------------------------------------------------------------------------------


def test_levels_below_stay_as_they_are_to_the_bit_and_are_in_the_checkpoint_of_those_above(stack, store):
    runs = [run(task, store) for task in stack]
    weights = [state(one) for one in runs]
    for upper in (1, 2):
        fresh = build.parts(stack[upper].config, 3, below=upper).model.state_dict()
        for number in range(1, upper + 1):
            assert same(of_level(weights[upper], number), of_level(weights[number - 1], number))
            assert not same(of_level(weights[upper], number), of_level(fresh, number))
        assert not same(of_level(weights[upper], upper + 1), of_level(fresh, upper + 1))
        assert {*weights[upper]} == {*fresh}
    model = load_model(runs[2])
    assert isinstance(model, HJEPA) and len(model.levels) == 3 and not any(part.training for part in model.modules())
    assert same(model.state_dict(), weights[2])
    # what is below is not trained on, and nothing of its objective is kept above it
    assert not any(name.startswith("objectives.1.") for name in state(runs[1], "objective"))
    assert not state(runs[1], "objective") and state(runs[0], "objective")  # the random features of level 1


def test_levels_are_trained_watched_and_measured(stack, store):
    for number, task in enumerate(stack, 1):
        done = run(task, store)
        found = finite(done.rows)
        read = {f"held_{level}_{name}" for level in range(1, number + 1) for name in ("place", "road", "texture")}
        assert read | {"reference_energy", "cost_training", "cost_codes"} <= found.keys()
        assert done.curve["step"] == done.diagnostics["step"][1:] == [1, 2, 3]
        assert {*done.diagnostics} == {"step", *(f"{name}_{number}" for name in Signs._fields)}  # of what is trained
        assert {f"energy_{number}", "total"} <= done.curve.keys() and f"energy_{number - 1}" not in done.curve
        assert finite(run(changed(task, measure=["horizons"]), store).rows).keys() >= {f"map_px_{number}_64"}


def test_the_same_again_is_the_same_to_the_bit(stack, store, tmp_path):
    first, again = run(stack[1], store), run(stack[1], tmp_path)
    assert (first.rows, first.curve, first.diagnostics) == (again.rows, again.curve, again.diagnostics)
    assert same(state(first), state(again)) and same(state(first, "objective"), state(again, "objective"))


@pytest.fixture
def calls(monkeypatch):
    """Return a list that grows by a name with all that is encoded from pictures, or from what is kept of codes."""
    found = []
    for name in ("_made", "_raised"):
        monkeypatch.setattr(below, name, _watched(getattr(below, name), found))
    return found


def _watched(function, found):
    """Return a function whose calls are noted."""

    def watched(*given):
        found.append(function.__name__)
        return function(*given)

    return watched


def test_codes_are_made_once_for_all_that_is_built_on_them(stack, tmp_path, calls):
    first = run(stack[1], tmp_path)
    assert calls == ["_made"]
    run(stack[1], tmp_path)
    wide = {"levels.2.encoder.outputs": 5, "train.rate": 0.02, "objective.steps": 1, "measure": ["horizons"]}
    assert run(changed(stack[1], **wide), tmp_path).folder != first.folder
    run(changed(stack[1], **{"evaluation.probe": 9, "levels.2.terms.targets": "stopped"}), tmp_path)
    assert calls == ["_made"]  # by other settings of what is above, or of how it is measured
    run(stack[2], tmp_path)
    run(changed(stack[2], **{"levels.3.encoder.outputs": 5}), tmp_path)
    assert calls == ["_made", "_raised"]  # codes of level 2 from those of level 1, not from pictures
    for more in ({"pool": 6}, {"objective.clip": 66}, {"evaluation.samples": 21}, {"evaluation.pairs": 3}):
        del calls[:]
        run(changed(stack[1], **more, measure=[]), tmp_path)
        assert calls == ["_made"]
    run(changed(stack[1], **{"evaluation.frames": 130}, measure=[]), tmp_path)
    run(stack[1]._replace(seed=4), tmp_path)
    assert calls == ["_made"] * 3


def test_codes_that_are_kept_are_those_of_the_pictures(stack, store):
    folder = train_run(stack[1], store)
    (kept,) = (load(file) for file in folder.glob("codes-*.pt"))
    task, model = stack[2], load_model(run(stack[1], store))
    made = below._made(task, model, build.world(task.config))
    close = {"rtol": 1e-4, "atol": 1e-5}
    assert kept["codes"].shape == (5, 8, 3) and kept["actions"].shape == (5, 7, 0) == made["actions"].shape
    torch.testing.assert_close(kept["codes"], made["codes"], **close)
    assert kept["codes"].std(0).min() > 1e-3  # clips differ, by more than what is tolerated
    assert {*kept["below"]} == {*made["below"]} == {"probe clips", "held-out clips"}
    for name, codes in made["below"].items():
        assert [part.shape for part in codes] == [(20, 160, 4), (20, 20, 3)]
        for one, other in zip(kept["below"][name], codes, strict=True):
            torch.testing.assert_close(one, other, **close)


@pytest.mark.parametrize("level", [2, 3])
def test_measures_on_kept_codes_are_those_on_pictures(stack, store, level):
    done, held_out = run(stack[level - 1], store), load_held_out(stack[0].held_out)
    model = load_model(done)
    parts = build.parts(done.task.config, 3, below=level - 1)._replace(model=model)
    found = finite(done.rows)
    subject = build.subject(done.task.config, 3, parts, held_out, found["reference_energy"])
    again = finite(build.measures(configure({"measure": ["contents"]}))[0](subject))
    assert again == pytest.approx({name: found[name] for name in again}, rel=1e-2, abs=1e-3)


def test_pool_is_of_clips_from_a_stream_of_its_own(stack, store):
    (kept,) = (load(file) for file in train_run(stack[0], store).glob("codes-*.pt"))
    clips = build.world(stack[0].config).trajectories(5, 64, generator_for("purpose", 3, "pool"))
    with torch.no_grad():
        assert torch.equal(kept["codes"], load_model(run(stack[0], store)).encode(clips.frames)[0])


# -- sources -----------------------------------------------------------------------------------------------------------


stacks = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=3)


@settings(deadline=None, max_examples=30)
@given(stacks, st.integers(1, 2), st.integers(1, 3), st.integers(0, 5), st.integers(0, 9))
def test_source_above_draws_windows_of_the_pool_alone_and_every_one(windows, frozen, steps, more, seed):
    frozen = min(frozen, len(windows) - 1)
    levels = {n: {"width": w, "stride": s, "encoder": "identity"} for n, (w, s) in enumerate(windows, 1)}
    config = configure({"world": WORLD, "objective": {"name": "levels", "steps": steps}, "levels": levels})
    model = HJEPA([PLAIN] * len(windows), [Window(*window) for window in windows])
    clocks, own, count = model.clocks, model.clocks[frozen - 1], 4
    least = own.codes(training_frames(config, model))
    length = least + more
    codes = torch.arange(count * length).view(count, length, 1).float()  # each its own
    a = -codes[:, :-1]
    batch = below.above(config, model, frozen, {"codes": codes, "actions": a})(400, generator(seed))
    assert batch.frames.shape == (400, least, 1) and batch.a.shape == (400, least - 1, 1)
    assert (batch.frames.diff(dim=1) == 1).all() and torch.equal(batch.a, -batch.frames[:, :-1])
    row, first = batch.frames[:, 0, 0].long() // length, batch.frames[:, 0, 0].long() % length
    assert first.max() <= length - least  # none runs over into the next clip
    assert {*row.tolist()} == {*range(count)} and {*first.tolist()} == {*range(length - least + 1)}
    seen = (least - 1) * own.stride + own.span  # frames: as many as the highest level needs for its steps, and no more
    assert clocks[-1].codes(seen) == steps + 1 > clocks[-1].codes(seen - own.stride)


def test_two_levels_are_trained_at_once_above_a_frozen_one(stack, store):
    both = stack[2]._replace(parents={"below": stack[0]})
    done = run(changed(both, measure=["contents", "horizons", "training_cost"]), store)
    finite(done.rows)
    assert {"energy_2", "energy_3"} <= done.curve.keys() and "energy_1" not in done.curve
    assert same(of_level(state(done), 1), of_level(state(run(stack[0], store)), 1))
    fresh = build.parts(both.config, 3, below=1).model.state_dict()
    assert not any(same(of_level(state(done), number), of_level(fresh, number)) for number in (2, 3))


# -- at once -----------------------------------------------------------------------------------------------------------


def test_levels_draw_their_weights_each_by_itself(stack):
    whole = build.parts(of(3), 3)
    for number in (1, 2):
        lower = build.parts(of(number), 3)
        for level in range(1, number + 1):
            states = [of_level(parts.model.state_dict(), level) for parts in (whole, lower)]
            assert states[0] and same(*states)
    assert not same(of_level(build.parts(of(3), 4).model.state_dict(), 3), of_level(whole.model.state_dict(), 3))
    assert same(build.parts(of(1), 3).objective.state_dict(), build.parts(of(2), 3).objective.state_dict())


def test_levels_alike_do_not_begin_alike():
    alike = {"width": 8, "encoder": {"outputs": 4, "hidden": [6]}}
    model = build.parts(of(3, {"levels": {2: alike, 3: alike}, "measure": []}), 3).model
    two, three = (list(level.parameters()) for level in list(model.levels)[1:])
    for one, other in zip(two, three, strict=True):
        assert one.shape == other.shape and (one.ndim == 1 or not torch.equal(one, other))


def test_levels_are_what_the_configuration_says():
    parts = build.parts(of(2, {"levels": {2: {**MOVING, "expander": "expander", "weight": 0.5}}}), 0, below=1)
    (objective,) = parts.objective.objectives
    assert objective.moving.momentum == objective.extra.momentum == 0.7 and objective.expander.inputs == 3
    assert parts.objective.weights == (0.5,) and parts.objective.below == 1 and parts.model.windows[1] == (8, 8)
    upper = parts.model.levels[1]
    assert upper.encoder is upper.target_encoder and upper.encoder.frames == 8 and upper.encoder.inputs == 8 * 4
    with torch.no_grad():
        upper.encoder.layers[0].weight.fill_(2.0)
    parts.objective.begin(parts.model)
    assert same(objective.moving.encoder.state_dict(), upper.encoder.state_dict())


def test_all_levels_are_trained_at_once(stack, tmp_path):
    done = run(together(stack[0], 3), tmp_path)
    finite(done.rows)
    fresh = build.parts(of(3), 3).model.state_dict()
    assert all(not same(of_level(state(done), number), of_level(fresh, number)) for number in (1, 2, 3))
    assert {*done.diagnostics} == {"step", *(f"{name}_{number}" for name in Signs._fields for number in (1, 2, 3))}


def test_the_gradient_of_a_level_goes_through_those_below_it_and_none_comes_from_above(stack, tmp_path):
    upper = {"levels.1.weight": 0.0, "measure": []}
    lower = {"levels.2.weight": 0.0, "measure": []}
    fresh = build.parts(of(2), 3).model.state_dict()
    through, alone = (state(run(together(stack[0], 2, diff), tmp_path)) for diff in (upper, lower))
    assert not same(of_level(through, 1), of_level(fresh, 1)) and not same(of_level(through, 2), of_level(fresh, 2))
    assert not same(of_level(alone, 1), of_level(fresh, 1)) and same(of_level(alone, 2), of_level(fresh, 2))


PLAIN_RUN = {
    "world": WORLD,
    "encoder": {"name": "convolutional", "outputs": 4, "channels": [2, 4], "hidden": 8},
    "target_encoder": "shared",
    "predictor": {"hidden": [6]},
    "loss": {**CRITERIA, "energy": 2.0, "energy_start": 0.5},
    "train": {"steps": 4, "batch": 4, "rate": 0.01},
    "streams": "seed",  # of which one is like another, whatever its name
}


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("terms", [{}, {"similarity": 0.5, "delta": 0.7}], ids=str)
def test_one_level_of_single_frames_is_a_run_on_trajectories_to_the_bit(clips, tmp_path, steps, terms):
    level = {name: PLAIN_RUN[name] for name in ("encoder", "predictor", "loss")}
    level |= {"terms": {"horizon": 0, **terms}}
    rest = {name: PLAIN_RUN[name] for name in ("world", "train", "streams")}
    stacked = configure(rest, {"objective": {"name": "levels", "steps": steps}, "levels": {1: level}})
    plain = configure(PLAIN_RUN, {"objective": {"name": "trajectories", "steps": steps, **terms}})
    one, two = (train_run(Task("any", config, 5, clips, Code(*["c"] * 4)), tmp_path) for config in (stacked, plain))
    ours, theirs = (load(folder / "checkpoint.pt") for folder in (one, two))
    assert one != two and same({f"levels.0.{name}": value for name, value in theirs["model"].items()}, ours["model"])
    assert ours["curve"]["terms"]["total"] == theirs["curve"]["terms"]["total"]
    assert ours["curve"]["terms"]["energy_1"] == theirs["curve"]["terms"]["energy"]
    fresh = build.parts(plain, 5).model.state_dict()
    assert not same(fresh, theirs["model"]) and torch.equal(ours["generator"], theirs["generator"])


# -- cut, resumed, begun elsewhere -------------------------------------------------------------------------------------


MOVING = {"terms": {"targets": "moving", "momentum": 0.7, "horizon": 1}}
KINDS = {
    "above a frozen level": lambda stack: stack[1],
    "above two": lambda stack: stack[2],
    "at once": lambda stack: together(stack[0], 2),
    "moving targets": lambda stack: together(stack[0], 2, {"levels": {1: MOVING, 2: MOVING}}),
    "moving targets above": lambda stack: changed(stack[1], levels={2: MOVING}),
    "expander with statistics": lambda stack: changed(stack[1], levels={2: {"expander": "expander"}}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 3])
def test_training_that_is_cut_goes_on_to_the_same_to_the_bit(stack, store, tmp_path, kind, step):
    task = changed(KINDS[kind](stack), measure=[{"name": "contents", "levels": [2]}])

    def stop(finished):
        if finished == step:
            raise KeyboardInterrupt

    for parent in task.parents.values():
        train_run(parent, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(task, tmp_path, stop)
    cut, whole = run(task, tmp_path), run(task, store)
    assert same(state(cut), state(whole)) and same(state(cut, "objective"), state(whole, "objective"))
    assert (cut.curve, cut.diagnostics, cut.warnings, cut.rows) == (
        whole.curve, whole.diagnostics, whole.warnings, whole.rows
    )  # fmt: skip


def test_watching_decides_no_training(stack, store):
    for task in (stack[1], together(stack[0], 2)):
        done = [run(changed(task, **{"monitor.times": times, "measure": []}), store) for times in (0, 2)]
        assert same(*(state(one) for one in done)) and done[0].diagnostics == {"step": []}
        assert same(*(state(one, "objective") for one in done))


def test_all_at_once_may_begin_with_the_weights_of_levels_trained_one_by_one(stack, store):
    parent = run(stack[2], store)
    untrained = run(successor_of(stack[2], **{"train.steps": 0, "monitor.times": 0}), store)
    assert same(state(untrained), state(parent)) and untrained.folder != parent.folder
    names = {row.metric for row in parent.rows if row.metric.startswith("held_1")}
    ours, theirs = (finite(one.rows) for one in (untrained, parent))
    assert len(names) == 6 and {name: ours[name] for name in names} == pytest.approx(
        {name: theirs[name] for name in names}, rel=1e-2, abs=1e-3
    )
    done = run(successor_of(stack[2]), store)
    assert all(not same(of_level(state(done), number), of_level(state(parent), number)) for number in (1, 2, 3))
    assert done.diagnostics["energy_3"][0] == pytest.approx(energy(done.task, parent, 3), rel=1e-3)


def energy(task: Task, parent, number: int) -> float:
    """Return the energy of a level that a run begins with, by the weights of its parent."""
    parts = build.parts(task.config, task.seed)
    parts.model.load_state_dict(state(parent))
    return build.monitor(task.config, parts).evaluate(parts.model)[number].energy


def test_moving_targets_begin_where_the_encoder_does(stack, store):
    diff = {"levels": {level: MOVING for level in (1, 2, 3)}, "measure": [], "monitor.times": 0}
    for steps in (0, 1):
        done = run(successor_of(stack[2], **diff, **{"train.steps": steps, "train.rate": 1e-9}), store)
        copies, weights = state(done, "objective"), state(done)
        for level in range(3):
            prefix = f"objectives.{level}.moving.encoder."
            own = {name.removeprefix(prefix): value for name, value in copies.items() if name.startswith(prefix)}
            assert own
            for name, value in own.items():
                torch.testing.assert_close(value, weights[f"levels.{level}.encoder.{name}"], rtol=0, atol=1e-6)


# -- with actions ------------------------------------------------------------------------------------------------------


def test_levels_of_a_world_where_somebody_acts_are_trained_and_measured_by_nothing_of_drive(tmp_path):
    folder = tmp_path / "tasks"
    generate(folder, Part("rooms"), 6, seed=2)
    diff = {
        "world": {"name": "rooms", "size": 17, "group": 2},
        "levels": {1: {"encoder": {"name": "strided", "outputs": 4, "channels": [4, 4]}, "terms": {"inverse": 0.1}}},
        "measure": [],
    }
    config = configure(
        {name: value for name, value in FIRST.items() if name != "levels"}, diff, {"levels": {2: SECOND}}
    )
    task = Task("acting", changed_levels(config), 3, folder, Code(*[loaded()] * 4))
    done = run(task, tmp_path / "store")
    assert load_model(done).levels[1].predictor.action == 2 * 8 and done.curve["inverse_1"][-1] > 0
    with pytest.raises(ValueError, match="^acting, seed 3: measure: expected a hierarchy on clips of .*found Rooms"):
        run(changed(task, measure=["contents"]), tmp_path / "store")


def changed_levels(config):
    """Return a configuration whose first level sees two frames and has a small predictor."""
    return configure({"levels": {1: {"width": 2, "predictor": {"hidden": [6]}}}}, base=config)


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pairs", "trajectories"])
def test_keys_of_other_runs_do_not_know_of_hierarchies(places, kind):
    config = configure(SMALL, {"objective": kind})
    old = Task("old", config, 0, places, Code(*["code"] * 4))
    settled = to_dict(config, deciding=True)
    assert "levels" not in settled and "frames" not in settled["evaluation"] and "levels" not in settings_of(old)
    assert to_dict(config)["levels"] == {} and to_dict(config)["evaluation"]["frames"] == 161
    named = changed(old, **{"levels": {}, "evaluation.frames": 161})
    assert training_key(named) == training_key(old) and measuring_key(named) == measuring_key(old)
    longer = changed(old, **{"evaluation.frames": 200})
    assert training_key(longer) == training_key(old) and measuring_key(longer) != measuring_key(old)


def test_keys_of_hierarchies_know_of_every_level_and_of_all_that_is_below(stack):
    one = stack[2]
    changes = [{"levels": {n: {"loss": {"energy": 2.0}}}} for n in (1, 2, 3)] + [{"levels": {3: {"weight": 0.5}}}]
    changes += [{"objective.steps": 2}, {"objective.clip": 66}, {"levels": {3: {"terms": {"horizon": 0}}}}, {"pool": 6}]
    keys = [training_key(one), *(training_key(changed(one, **diff)) for diff in changes)]
    older = [changed(stack[1], **{"train.rate": 0.5}), stack[0], stack[1]._replace(seed=4)]
    keys += [training_key(one._replace(parents={"below": parent})) for parent in older]
    keys += [training_key(one._replace(parents={"start": stack[1]})), training_key(one._replace(parents={}))]
    assert len({*keys}) == len(keys)
    assert {training_key(changed(one, **{f"evaluation.{name}": 40})) for name in ("samples", "frames")} == {keys[0]}
    assert {*MEASURED} & {*settings_of(one)} == set()


def test_settings_of_levels_survive_the_way_through_json():
    config = of(3, {"levels": {2: {**MOVING, "weight": 0.5}}})
    assert configure(json.loads(json.dumps(to_dict(config)))) == config
    assert configure(json.loads(json.dumps(to_dict(config, deciding=True)))) == config
    dotted = configure({"levels.2.terms.targets": "stopped", "levels": {"3": {"weight": 2}}}, base=config)
    assert dotted.levels["2"] == replace(config.levels["2"], terms=replace(config.levels["2"].terms, targets="stopped"))
    assert dotted.levels["3"].weight == 2.0 and dotted.levels["1"] == config.levels["1"]
    assert [*dotted.levels] == ["1", "2", "3"] == [*configure({"levels": {3: {}, 1: {}, 2: {}}}).levels]


# -- costs -------------------------------------------------------------------------------------------------------------


def costs(parts, config, clips) -> dict[str, float]:
    """Return what a training costs, in multiply-adds."""
    subject = build.subject(config, 3, parts, load_held_out(clips), 1.0)
    found = build.measures(configure({"measure": ["training_cost"]}))[0](subject)
    return {row.metric: 1e9 * row.value for row in found}


LINEAR = {"levels.1.encoder": "identity", "levels.1.expander": "identity", "levels.1.loss.covariance": 0.0}
BATCH, STEPS, WIDE = 4, 3, 2 * 3 * 16 * 16  # clips, steps of training, and what level 1 sees, two frames
# products of a layer in the unit of one forward pass: forwards, and in a roll-out of one step once more to infer a z
# that there is not; the slopes of the weights; and of what the layer is given, unless that is data
ONE_STEP, LONGER, ENCODER = 4, 3, 3


def test_cost_of_a_level_whose_codes_are_pictures_is_that_of_its_predictor_counted_by_hand(clips):
    config = of(2, LINEAR, {"levels.2.weight": 0.0})
    steps = 9 + 2 * 8 - 1 - 1  # codes of two frames in a clip for two steps of level 2, less the last
    first, last = WIDE * 6, 6 * WIDE  # products of the predictor's layers
    found = costs(build.parts(config, 3), config, clips)
    by_hand = STEPS * BATCH * steps * ((ONE_STEP - 1) * first + ONE_STEP * last)
    assert found["cost_training"] == pytest.approx(by_hand, rel=1e-9)
    both = costs(build.parts(of(2, LINEAR), 3), of(2, LINEAR), clips)
    assert both["cost_training"] > found["cost_training"] and both["cost_codes"] == found["cost_codes"]


@pytest.mark.parametrize("horizon", [1, 2])
def test_cost_above_a_frozen_level_is_that_of_the_level_counted_by_hand(clips, horizon):
    config = of(2, {"levels.2.loss.covariance": 0.0, "levels.2.terms.horizon": horizon})
    parts = build.parts(config, 3, below=1)
    parts.model.levels[0].requires_grad_(False)
    kept = {"codes": torch.randn(5, 64, 4, generator=generator()), "actions": torch.zeros(5, 63, 0)}
    parts = parts._replace(sample=below.above(config, parts.model, 1, kept))
    windows, steps, seen = 3, 2, 8 * 4
    encoding = windows * ((ENCODER - 1) * seen * 6 + ENCODER * 6 * 3)
    predicting = steps * (ONE_STEP if horizon == 1 else LONGER) * (3 * 6 + 6 * 3)
    found = costs(parts, config, clips)["cost_training"]
    assert found == pytest.approx(STEPS * BATCH * (encoding + predicting), rel=1e-9)


def test_codes_are_paid_for_once_by_the_frame(clips):
    config = of(2, LINEAR)
    found = costs(build.parts(config, 3), config, clips)
    frames = 9 + FEW * 8
    by_hand = (FEW + 1) * (8 * WIDE * 6 + 6 * 3) / frames * 5 * 65  # of a pool of five clips of 65 frames
    assert found["cost_codes"] == pytest.approx(by_hand, rel=1e-9)


def test_a_head_that_is_trained_is_paid_for(clips):
    diff = {"levels.1.expander": "identity", "levels.1.loss.covariance": 0.0}
    config = of(1, diff)
    plain = costs(build.parts(config, 3), config, clips)["cost_training"]
    headed = of(1, diff, {"levels.1.expander": {"name": "expander", "hidden": [], "outputs": 7}})
    found = costs(build.parts(headed, 3), headed, clips)["cost_training"]
    assert found - plain == pytest.approx(STEPS * BATCH * 3 * (3 * 4 * 7), rel=1e-9)  # of three codes a clip


# -- what cannot be ----------------------------------------------------------------------------------------------------


SETTINGS = [
    ({"levels": {4: {}}}, "levels: expected the numbers 1, 2, 3, found 1, 2, 4"),
    ({"levels": {"first": {}}}, "levels: expected the numbers 1, 2, 3, found 1, 2, first"),
    ({"levels": {0: {}}}, "levels: expected the numbers 1, 2, 3, found 0, 1, 2"),
    ({"levels": 3}, "levels: expected a mapping of settings for each number of a level, found 3"),
    ({"levels": {2: "pooled"}}, "levels: expected a mapping of settings for each number of a level, found .*'pooled'"),
    ({"levels.2.widht": 3}, "levels.2: setting 'widht': expected one of .*found 'widht'; did you mean 'width'"),
    ({"levels.2.loss.enrgy": 3}, "levels.2: setting 'loss.enrgy': expected .*did you mean 'energy'"),
    ({"levels.2.width": 2.5}, "levels.2: width: expected int, found 2.5"),
    ({"levels.2.width": 0}, "levels.2: width: expected at least 1, found 0"),
    ({"levels.2.stride": 0}, "levels.2: stride: expected at least 1, found 0"),
    ({"levels.2.weight": -1.0}, "levels.2: weight: expected at least 0, found -1.0"),
    ({"levels.2.loss.beta": 0.0}, "levels.2: loss.beta: expected a number above 0, found 0.0"),
    ({"levels.2.terms.targets": "frozen"}, "levels.2: objective.targets: expected one of gradient, .*found 'frozen'"),
    ({"evaluation.frames": 0}, "evaluation.frames: expected at least 1, found 0"),
]


@pytest.mark.parametrize(("diff", "message"), SETTINGS, ids=str)
def test_settings_that_no_level_has_are_named(diff, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        configure(diff, base=of(2))


PARTS = [
    (
        {"objective": "pairs"},
        "levels: expected levels with the objective 'levels', and only there, found 2 with 'pairs'",
    ),
    ({"objective": "trajectories"}, "levels: expected levels with the .* found 2 with 'trajectories'"),
    ({"objective.step": 3}, "objective: option of 'levels': expected one of clip, steps, found 'step'; did you mean"),
    ({"objective.steps": 0}, "objective.steps: expected at least 1, found 0"),
    ({"objective.steps": 2.0}, "objective.steps: expected int, found 2.0"),
    ({"objective.clip": 0}, "objective.clip: expected at least 1, found 0"),
    ({"encoder": {"name": "mlp", "outputs": 3}}, "encoder: expected .*identity.* beside levels, .* found .*mlp"),
    ({"target_encoder": "shared"}, "target_encoder: expected .* beside levels, .* found .*shared"),
    ({"predictor.hidden": [3]}, "predictor: expected .*mlp.* beside levels, which have settings of their own, found"),
    ({"latent": {"name": "discrete", "size": 2}}, "latent: expected .* beside levels, .*discrete"),
    ({"inference": "amortized"}, "inference: expected .* beside levels"),
    ({"at_measurement": {"network": False}}, "at_measurement: expected {} beside levels"),
    ({"expander": "random_features"}, "expander: expected .* beside levels"),
    ({"loss.variance": 1.0}, "loss: expected .* beside levels"),
    ({"context": "y"}, "context: expected 'x' beside levels, .* found 'y'"),
    ({"condition_on": ["place"]}, r"condition_on: expected \(\) beside levels, .* found \('place',\)"),
    ({"levels.2.encoder": "poold"}, "levels.2: encoder: expected one of .*found 'poold'; did you mean 'pooled'"),
    ({"levels.2.encoder.poolin": "last"}, "levels.2: encoder: option of 'pooled': expected .*did you mean 'pooling'"),
    ({"levels.2.encoder.frames": 8}, "levels.2: encoder: option of 'pooled': expected one of .*found 'frames'"),
    ({"levels.2.encoder": "convolutional"}, "levels.2: encoder: 'convolutional' cannot be built from {} .*'outputs'"),
    ({"levels.1.encoder": "pooled"}, "levels.1: inputs: expected a multiple of the 2 codes of a window, found"),
    ({"levels.2.predictor.hiden": [3]}, "levels.2: predictor: option of 'mlp': expected .*did you mean 'hidden'"),
    ({"levels.2.latent": "discrete"}, "levels.2: latent: 'discrete' cannot be built from {} .*'size'"),
    ({"levels.2.expander": "random_feature"}, "levels.2: expander: expected one of .*did you mean 'random_features'"),
    ({"levels.2.terms.inverse": 1.0}, "levels.2: widths: expected at least 1 everywhere, found .*0"),  # nothing acts
    ({"levels.1.weight": 0.0, "levels.2.weight": 0.0}, "weights: expected 2 of at least 0, one above 0, found"),
    ({"levels.2.width": 1}, "measure: expected codes that end at every 32th frame, found .*stride=8.* at level 2"),
    ({"levels.2.stride": 5}, "measure: expected codes that end at every 32th frame, found .*stride=5.* at level 2"),
    ({"levels.1.stride": 2}, "measure: expected codes that end at every 32th frame, found .*stride=2.* at level 1"),
    ({"levels.2": {"width": 40, "stride": 1}}, "measure: expected codes that end at every 32th frame"),
    ({"evaluation.frames": 162}, "evaluation.frames: expected from 33 to 161, as stored, found 162"),
    ({"evaluation.frames": 32}, "evaluation.frames: expected from 33 to 161, as stored, found 32"),
    ({"evaluation.frames": 128, "measure": ["horizons"]}, "evaluation.frames: expected at least 129 for horizons, "),
    ({"measure": [{"name": "contents", "levels": [3]}]}, "measure.contents.levels: expected from 1 to 2, found 3"),
    ({"measure": [{"name": "horizons", "levels": [0]}]}, "measure.horizons.levels: expected from 1 to 2, found 0"),
    ({"measure": [{"name": "horizons", "levels": ["a"]}]}, "measure.horizons.levels: expected .*found 'a'"),
    ({"measure": [{"name": "routes", "level": 3}]}, "measure.routes.levels: expected from 1 to 2, found 3"),
    ({"measure": [{"name": "contents", "level": 2}]}, "measure.contents: option of 'contents': .*mean 'levels'"),
]


@pytest.mark.parametrize(("diff", "message"), PARTS, ids=str)
def test_what_a_hierarchy_cannot_be_is_named_before_anything_is_trained(stack, tmp_path, diff, message):
    task = changed(together(stack[0], 2), **diff)
    with pytest.raises(ValueError, match=f"^global, seed 3: {message}"):
        run(task, tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


def test_worlds_without_trajectories_are_named():
    with pytest.raises(ValueError, match="^objective: expected a world of trajectories, found 'plane'"):
        build.parts(configure({"world": {"name": "plane"}}, base=of(2)), 0)


def test_a_hierarchy_without_levels_is_named(clips, tmp_path):
    task = Task("none", configure({"world": WORLD, "objective": "levels"}), 0, clips, Code(*["code"] * 4))
    with pytest.raises(ValueError, match="^none, seed 0: levels: expected levels with .* found 0 with 'levels'"):
        run(task, tmp_path)


ABOVE = [
    (
        {"objective.clip": 24},
        "objective.clip: expected at least 25 for 2 steps of the highest level, found 24 frames; mak",
    ),
    ({"objective.steps": 8}, "objective.clip: expected at least 73 for 8 steps of the highest level, found 65 frames"),
    ({"levels.1.stride": 2}, "levels.1.stride: expected 1 as in 'level_1', whose levels are kept as they are, found 2"),
    ({"levels.1.encoder.hidden": 9}, "levels.1.encoder: expected .* as in 'level_1', .* found .*9"),
    ({"levels.1.loss.energy": 2.0}, "levels.1.loss: expected .* as in 'level_1', .* found"),
    ({"levels.2.weight": 0.0}, "weights: expected 1 of at least 0, one above 0"),
]


@pytest.mark.parametrize(("diff", "message"), ABOVE, ids=str)
def test_what_cannot_be_above_frozen_levels_is_named_before_they_are_trained(stack, tmp_path, diff, message):
    with pytest.raises(ValueError, match=f"^level_2, seed 3: {message}"):
        run(changed(stack[1], **diff), tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


def test_clips_just_long_enough_are_long_enough(stack, tmp_path):
    assert run(changed(stack[1], **{"objective.clip": 25, "measure": []}), tmp_path).curve["step"] == [1, 2, 3]


def test_parents_of_no_use_are_named_before_anything_is_trained(stack, task, tmp_path):
    upper, plain = stack[1], task._replace(name="plain")
    wrong = [
        (upper._replace(parents={"below": upper}), "levels: expected more than the 2 below, found 2"),
        (upper._replace(parents={"below": stack[2]}), "levels: expected more than the 3 below, found 2"),
        (upper._replace(parents={"encoder": stack[0]}), "parents.encoder: expected none with levels, .*parents.below"),
        (upper._replace(parents={"below": plain}), "parents.below: expected hierarchies, found 'plain' with .*'pairs'"),
        (
            plain._replace(parents={"below": stack[0]}),
            "parents.below: expected hierarchies, found 'plain' with .*'pairs'",
        ),
    ]
    for one, message in wrong:
        with pytest.raises(ValueError, match=f"^{one.name}, seed 3: {message}"):
            run(one, tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


def test_levels_of_other_shapes_cannot_be_below_or_begun_with(stack, store):
    large = stack[1]._replace(config=configure({"world.size": 32}, base=stack[1].config))
    with pytest.raises(ValueError, match="^level_2, seed 3: below: expected levels of the same shapes, found others"):
        run(large, store)
    with pytest.raises(ValueError, match="^successor, seed 3: start: expected the shape of the variant it is built on"):
        run(successor_of(stack[2], **{"levels.3.encoder.outputs": 3}), store)


def test_levels_of_another_world_may_be_below(stack, tmp_path):
    other = changed(stack[1], **{"world.colors": "other", "measure": []})
    run(other, tmp_path)
    run(changed(stack[1], measure=[]), tmp_path)
    assert len(list(train_run(stack[0], tmp_path).glob("codes-*.pt"))) == 2


@pytest.mark.parametrize("name", ["contents", "horizons", "routes", "training_cost"])
def test_measures_of_hierarchies_are_refused_elsewhere(task, tmp_path, name):
    with pytest.raises(ValueError, match=f"measure: expected a hierarchy with clips for '{name}', found Subject"):
        run(changed(task, measure=[name]), tmp_path)


# -- the files of notebook 08 ------------------------------------------------------------------------------------------


VARIANTS = read(ROOT / "experiments" / "08_hierarchy")
PLANS = {path.stem: read_diff(path) for path in sorted((ROOT / "experiments" / "tuning").glob("08_level_*.yaml"))}


def asked(variants, names=()):
    """Return the tasks of variants."""
    return tasks(variants, [variants[name] for name in names or variants], [0], Path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_other_world_is_learned_with_the_same_settings(number):
    one, other = VARIANTS[f"level_{number}"], VARIANTS[f"other_{number}"]
    assert one.config == replace(other.config, world=one.config.world) and one.claim == other.claim
    assert dict(other.config.world.options) == {"roads": 3, "colors": "other"} and one.config.world == Part("drive")
    renamed = {role: name.replace("level", "other") for role, name in one.parents.items()}
    assert renamed == other.parents and (one.data, other.data) == ("drive/two", "drive/three")


def test_levels_have_the_same_settings_one_by_one_at_once_warm_and_untrained():
    of_two, of_three = (VARIANTS[f"level_{number}"].config.levels for number in (2, 3))
    assert [*of_three] == ["1", "2", "3"] and [*of_two] == ["1", "2"]
    assert {number: of_three[number] for number in of_two} == of_two
    assert VARIANTS["level_1"].config.levels == {"1": of_two["1"]}
    assert VARIANTS["global_2"].config.levels == of_two
    assert {VARIANTS[name].config.levels == of_three for name in ("global_3", "untrained", "warm_3")} == {True}
    measured = {(v.config.evaluation, v.config.pool) for v in VARIANTS.values()}
    assert len(measured) == 1  # by the same probes on as many clips
    assert VARIANTS["untrained"].config.train.steps == 0


def test_every_variant_can_be_built_and_measured():
    for task in asked(VARIANTS):
        parts = build.parts(task.config, 0, below=below.levels_below(task))
        assert isinstance(parts.model, HJEPA) and isinstance(parts.objective, LevelsObjective)
        build.measures(task.config)


@pytest.mark.parametrize("profile", ["smoke", "gpu"])
def test_profiles_fit_hierarchies(profile):
    path = ROOT / "experiments" / profile / "params.yaml"
    variants = read(ROOT / "experiments" / "08_hierarchy", read_diff(path)["hierarchy"]["overrides"])
    for task in asked(variants, ("level_3", "global_3", "context_2", "long_3", "choice")):
        build.parts(task.config, 0, below=below.levels_below(task))


@pytest.mark.parametrize("name", PLANS)
def test_controls_are_tuned_by_as_many_trials_as_the_level_of_its_context_steps_and_data(name):
    plan, number = PLANS[name], name[-1]
    controls = [] if number == "1" else [f"context_{number}", f"long_{number}"]
    found = trials(plan)
    counts = {method: sum(method == one for one, _ in found) for method, _ in found}
    assert set(counts) == {f"level_{number}", *controls} and len({*counts.values()}) == 1 and min(counts.values()) > 1
    assert set(plan["data"]) == set(counts) and set(plan["data"].values()) == {"tuning/drive"}
    sets = read_diff(ROOT / "experiments" / "data.yaml")
    assert all(sets["tuning/drive"]["seed"] != entry["seed"] for key, entry in sets.items() if key != "tuning/drive")
    for method, diff in found:
        config = configure(plan["overrides"], diff, base=VARIANTS[method].config)
        (task,) = asked(VARIANTS, (method,))
        parts = build.parts(config, 0, below=below.levels_below(task._replace(config=config)))
        horizon = config.levels[number].terms.horizon
        assert horizon <= config.objective.options["steps"] and config.monitor.times == 0
        assert parts.model.clocks[-1].span == {"1": 2, "2": 9, "3": 33}[number]  # as much context for all of them
    assert all(any(_said(VARIANTS[method], diff) for one, diff in found if one == method) for method in counts)


def _said(variant, diff) -> bool:
    """Return whether a variant has the settings of a trial."""
    return configure(diff, base=variant.config) == variant.config
