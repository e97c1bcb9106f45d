"""Runs on trajectories: built from settings, trained, cut, resumed and measured; runs on pairs know nothing of them."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import SMALL, changed, child_of, generator, same, state, successor_of

from jepa.keypoints import Keypoints
from jepa.maps import MapReader
from jepa.objectives.trajectories import InverseDynamics, TrajectoryObjective
from jepa.predictors import Recurrent
from jepa.runs import build, sequences
from jepa.runs.behavior import Code, loaded
from jepa.runs.config import Part, configure, to_dict
from jepa.runs.data import generate
from jepa.runs.run import load_model, run
from jepa.runs.tasks import Task, settings_of, training_key
from jepa.trajectory_monitor import Signs, TrajectoryMonitor

WORLD = {"name": "rooms", "size": 17, "group": 3}
TINY = {
    "world": WORLD,
    "encoder": {"name": "keypoints", "channels": 4},
    "target_encoder": "shared",
    "predictor": {"name": "map_reader", "channels": [4, 4], "hidden": [8]},
    "objective": {"name": "trajectories", "steps": 3, "inverse": 0.1},
    "loss": {"variance": 1.0, "covariance": 0.1},
    "train": {"steps": 3, "batch": 6},
    "monitor.times": 3,
    "evaluation": {"samples": 48, "probe": 16},
    "measure": [
        {"name": "code", "layouts": 64},
        "unrolling",
        {"name": "leaks", "walks": 12},
        {"name": "planning", "episodes": 2, "steps": 4, "headings": 4, "cell": 3.0},
        {"name": "known", "episodes": 2, "steps": 4},
    ],
}
WHOLE = {
    "world": WORLD | {"subtract": False},
    "encoder": {"name": "strided", "outputs": 8, "channels": [4, 4]},
    "predictor": "recurrent",
    "measure": [{"name": "code", "layouts": 64}, "unrolling", {"name": "leaks", "walks": 12}],
}


def tiny(*diffs):
    """Return the configuration of a small run on trajectories."""
    return configure(TINY, *diffs)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folder of a few tasks of a world."""

    def folder():
        path = tmp_path_factory.mktemp("rooms") / "tasks"
        generate(path, Part("rooms"), 6, seed=2)  # no task depends on how rooms look
        return path

    return dict.fromkeys((True, False), folder())


@pytest.fixture
def task(folders):
    """Return a small run that is asked for."""
    return Task("tiny", tiny(), 3, folders[True], Code(*[loaded()] * 4))


@pytest.fixture
def whole(folders):
    """Return one of a recurrent predictor on whole pictures, which is told of no map."""
    return Task("whole", tiny(WHOLE), 3, folders[False], Code(*[loaded()] * 4))


def test_parts_are_what_the_configuration_says():
    of = build.parts(tiny({"world.step_limit": 2.0}), 0)
    assert isinstance(of.objective, TrajectoryObjective) and isinstance(of.objective.head, InverseDynamics)
    assert isinstance(of.model.encoder, Keypoints) and of.model.encoder is of.model.target_encoder
    assert isinstance(of.model.predictor, MapReader) and of.model.binds
    assert of.model.predictor.static == of.world.static == (2, 17, 17)
    assert of.model.predictor.limit == of.objective.limit == 2.0
    batch = of.sample(6, generator())
    assert batch.frames.shape == (6, 4, 2, 17, 17) and len(batch.static) == 2
    plain = build.parts(tiny(WHOLE, {"objective": {"inverse": 0.0, "delta": 0.5}}), 0)
    assert isinstance(plain.model.predictor, Recurrent) and plain.model.predictor.limit == 2.45
    assert plain.objective.head is None and plain.objective.extra.delta == 0.5 and not plain.model.binds
    assert build.parts(configure({"objective": "trajectories"}, TINY, {"objective.steps": 5}), 0).sample(
        3, generator()
    ).a.shape == (3, 5, 2)
    default = configure(
        {key: value for key, value in TINY.items() if key != "objective"}, {"objective": "trajectories"}
    )
    assert build.parts(default, 0).sample(3, generator()).a.shape == (3, sequences.STEPS, 2)


def test_weights_are_drawn_from_the_seed_and_a_head_moves_no_other():
    one, again, other = (build.parts(tiny(), seed) for seed in (0, 0, 1))
    assert same(one.model.state_dict(), again.model.state_dict())
    assert same(one.objective.state_dict(), again.objective.state_dict())
    assert not same(one.model.state_dict(), other.model.state_dict())
    headless = build.parts(tiny({"objective.inverse": 0.0}), 0)
    assert same(one.model.state_dict(), headless.model.state_dict()) and not headless.objective.state_dict()


def finite(rows):
    """Return the numbers by name, once it is checked that all are finite."""
    assert all(math.isfinite(row.value) for row in rows)
    return {row.metric: row.value for row in rows}


def test_run_on_trajectories_is_trained_watched_and_measured(task, tmp_path):
    done = run(task, tmp_path)
    found = finite(done.rows)
    expected = {"reference_energy", "position_rmse", "wall_r2", "door_r2", "unroll_rmse_32", "leak_far", "door_passed"}
    expected |= {"success_eb_jepa", "plans", "evaluations", "oracle_success_pldm", "straight_steps", "random_plans"}
    assert expected <= found.keys()
    assert done.curve["step"] == [1, 2, 3] and {"energy", "inverse", "similarity"} <= done.curve.keys()
    assert done.diagnostics["step"] == [0, 1, 2, 3] and {*Signs._fields} <= done.diagnostics.keys()
    assert run(task, tmp_path).rows == done.rows
    again = run(task, tmp_path / "again")
    assert again.rows == done.rows and again.curve == done.curve and same(state(again), state(done))
    model = load_model(done)
    assert same(model.state_dict(), state(done)) and not model.training


def test_recurrent_predictor_on_whole_pictures_runs_without_a_map(whole, tmp_path):
    found = finite(run(whole, tmp_path).rows)
    assert {"position_rmse", "unroll_rmse_1", "leak_near"} <= found.keys()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_training_that_is_cut_goes_on_to_the_same_to_the_bit(task, tmp_path, step):
    task = changed(task, measure=[])

    def stop(finished):
        if finished == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(task, tmp_path / "cut", stop)
    cut, uncut = run(task, tmp_path / "cut"), run(task, tmp_path / "whole")
    assert same(state(cut), state(uncut)) and same(state(cut, "objective"), state(uncut, "objective"))
    assert (cut.curve, cut.diagnostics, cut.warnings) == (uncut.curve, uncut.diagnostics, uncut.warnings)


def test_watching_decides_no_training(task, tmp_path):
    one, two = (run(changed(task, **{"monitor.times": n, "measure": []}), tmp_path) for n in (0, 2))
    assert same(state(one), state(two)) and one.diagnostics == {"step": []}


def test_run_may_begin_with_the_weights_of_another_one(task, tmp_path):
    task = changed(task, measure=[])
    first, then = run(task, tmp_path), run(successor_of(task, **{"train.steps": 0}), tmp_path)
    assert same(state(first), state(then)) and same(state(first, "objective"), state(then, "objective"))


@pytest.mark.parametrize("group", [1, 5, 7, 100])
def test_groups_of_any_size_are_watched_and_measured_in_whole(group):
    config = tiny({"world": {"group": group}, "monitor.times": 1})
    of = build.parts(config, 0)
    assert build.reference(config, of, None) > 0
    watching = build.monitor(config, of)
    assert isinstance(watching, TrajectoryMonitor) and len(watching._batch.a) >= 96 > len(watching._batch.a) - group


def test_reference_is_that_of_frames_under_the_untrained_encoder():
    config = tiny()
    of = build.parts(config, 0)
    s = of.model.encoder(of.sample(96, generator(0)).frames.flatten(0, 1)).detach().double()
    apart = torch.cdist(s, s).square()
    expected = float(apart.sum() / (len(s) * (len(s) - 1)))
    assert build.reference(config, of, None) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ({"objective": "trajectory"}, "objective: expected one of levels, pairs, .*mean 'trajectories'"),
        ({"objective.step": 3}, "objective: option of 'trajectories': expected one of .*mean 'steps'"),
        ({"objective.steps": 2.5}, "objective.steps: expected int, found 2.5"),
        ({"objective.steps": 0}, "objective.steps: expected at least 1, found 0"),
        ({"objective.inverse": -1.0}, "objective.inverse: expected at least 0, found -1.0"),
        ({"objective.delta": 0.0}, "objective.delta: expected a number above 0, found 0.0"),
        ({"objective": {"name": "pairs", "steps": 3}}, "objective: option of 'pairs': expected .*found 'steps'"),
        ({"objective": "pairs"}, "objective: expected 'trajectories' for the world 'rooms', found 'pairs'"),
        (
            {"world": "plane", "encoder": "mlp", "predictor": "mlp"},
            "objective: expected a world of trajectories, found",
        ),
        ({"context": "y"}, "context: expected 'x' with trajectories, found 'y'"),
        ({"condition_on": ["wall"]}, r"condition_on: expected \(\) with trajectories, found \('wall',\)"),
        ({"expander": "expander"}, "expander: expected .* with trajectories, found "),
        ({"predictor": "map_raeder"}, "predictor: expected one of .*mean 'map_reader'"),
        ({"predictor.static": [1, 9, 9]}, "predictor: option of 'map_reader': expected one of .*found 'static'"),
        ({"predictor.reach": 0.0}, "channels, hidden, code, limit, reach: expected numbers above 0"),
        ({"encoder.outputs": 3}, "outputs: expected two numbers a keypoint, found 3"),
    ],
)
def test_settings_that_trajectories_have_not_are_named(diff, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build.parts(tiny(diff), 0)


def test_encoders_of_their_own_and_frozen_ones_are_refused(task, tmp_path):
    own = changed(task, target_encoder={"name": "keypoints", "channels": 4})
    with pytest.raises(ValueError, match="^tiny, seed 3: target_encoder: expected the context's"):
        run(own, tmp_path)
    frozen = child_of(task, latent="none")
    with pytest.raises(ValueError, match="^child, seed 3: parents.encoder: expected none with trajectories"):
        run(frozen, tmp_path)


def test_measures_of_world_models_are_refused_elsewhere(places, tmp_path):
    for name in ("code", "unrolling", "leaks", "planning", "known"):
        wrong = Task("wrong", configure(SMALL, {"measure": [name]}), 0, places, Code(*[loaded()] * 4))
        with pytest.raises(ValueError, match=f"expected a world model with tasks for '{name}', found Subject"):
            run(wrong, tmp_path)


def test_keys_of_runs_on_pairs_do_not_know_of_trajectories(places):
    old = Task("old", configure(SMALL), 0, places, Code(*["code"] * 4))
    named = changed(old, objective="pairs")
    assert "objective" not in to_dict(old.config, deciding=True) == to_dict(named.config, deciding=True)
    assert "objective" in to_dict(old.config) and training_key(old) == training_key(named)
    other = changed(old, objective={"name": "trajectories", "steps": 4})
    assert settings_of(other)["objective"] == {"name": "trajectories", "steps": 4}
    assert training_key(other) != training_key(old) != training_key(changed(other, **{"objective.steps": 5}))
