"""Two Rooms for Gymnasium: its checker, seeds, rewards and ends, and environments as episodes to act in."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from jepa.gym import NAME, ActingEnv, TwoRooms, TwoRoomsVector
from jepa.worlds.base import Acting

SMALL = {"size": 9, "collisions": "stay"}


def led(info):
    """Return steps to the goal by way of the door's middle, as if the walls were fixed at 32 and the door at 18."""
    p, goal = np.atleast_2d(info["position"]), np.atleast_2d(info["goal_position"])
    far = np.sign(goal[:, :1] - 32)
    behind = (p[:, :1] - 32) * far > 1.5
    lined = np.abs(p[:, 1:] - 18) < 1
    mouth, through = (np.concatenate([32 + side * far, np.full_like(far, 18)], 1) for side in (-2.5, 2.5))
    return (np.where(behind, goal, np.where(lined, through, mouth)) - p).astype(np.float32)


@pytest.mark.parametrize("view", ["channels", "gray"])
def test_environment_passes_the_checker(view):
    env = gymnasium.make(NAME, size=17, view=view, step_limit=1.0)
    check_env(env.unwrapped)


def test_checker_finds_nothing_but_steps_of_more_than_one():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        check_env(gymnasium.make(NAME, size=17).unwrapped)
    assert len(found) == 1 and "symmetric and normalized space" in str(found[0].message)  # here a unit is a unit


def test_observations_rewards_and_end():
    env = gymnasium.make(NAME, walls="fixed", **SMALL)
    seen, info = env.reset(seed=0)
    assert seen.shape == (2, 9, 9) and seen.dtype == np.float32 and seen in env.observation_space
    assert info["goal"].shape == seen.shape and info["position"].shape == info["goal_position"].shape == (2,)
    rewards = []
    for _ in range(199):
        seen, reward, terminated, truncated, info = env.step(led(info)[0])
        rewards.append(reward)
        gap = np.square(info["position"] - info["goal_position"]).mean()
        assert terminated == (gap < 1) and not truncated
        if terminated:
            break
    assert terminated and rewards == [0.0] * (len(rewards) - 1) + [1.0]
    np.testing.assert_allclose(seen, info["goal"], atol=0.5)
    env.reset(seed=0)
    assert [env.step(np.zeros(2, np.float32))[3] for _ in range(200)] == [False] * 199 + [True]


def test_steps_are_shortened_and_nonsense_is_refused():
    env = TwoRooms(**SMALL)
    _, info = env.reset(seed=3)
    _, _, _, _, after = env.step(np.array([0.0, 100.0 if info["position"][1] < 32 else -100.0], np.float32))
    assert np.abs(after["position"] - info["position"]).max() == pytest.approx(2.45, abs=1e-4)
    for wrong in ([np.nan, 0.0], [1.0, 2.0, 3.0, 4.0]):
        with pytest.raises(ValueError, match="^a: expected"):
            env.step(np.array(wrong, np.float32))
    for options, message in (
        ({"rule": "near"}, "rule: expected one of eb_jepa, pldm, lewm, found 'near'"),
        ({"collisions": "bounce"}, "collisions: expected one of"),
        ({"render_mode": "human"}, "render_mode: expected rgb_array or None"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            TwoRooms(**options)
    for name in ("num_envs", "max_episode_steps"):
        with pytest.raises(ValueError, match=f"^{name}: expected at least 1, found 0"):
            TwoRoomsVector(**{name: 0})


def test_rendered_picture_shows_walls_dot_and_goal():
    env = gymnasium.make(NAME, render_mode="rgb_array", size=65)
    _, info = env.reset(seed=0)
    picture, scale = env.render(), 4
    assert picture.dtype == np.uint8 and picture.shape == (260, 260, 3)
    for point, color in ((info["position"], 0), (info["goal_position"], 1)):
        x, y = (int((c + 0.5) * scale) for c in point)
        assert picture[y, x, color] > 180 and picture[y, x, 1 - color] < 30
    assert picture[130, 4 * scale].tolist() == [128, 128, 128]
    assert TwoRooms().render() is None


def played(env, seed, steps=12):
    """Return all observations and rewards of some steps."""
    seen, _ = env.reset(seed=seed)
    random, found = np.random.default_rng(0), [seen]
    for _ in range(steps):
        seen, reward, *_ = env.step(random.uniform(-2, 2, env.action_space.shape).astype(np.float32))
        found += [seen, np.asarray(reward)]
    return found


@pytest.mark.parametrize("make", [lambda: TwoRooms(size=9), lambda: TwoRoomsVector(5, size=9)], ids=["one", "many"])
def test_seeds_decide_everything(make):
    one, two, other = (played(make(), seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0], other[0])
    env = make()
    played(env, 0)
    assert not np.array_equal(env.reset()[0], one[0])  # goes on in its stream
    assert all(np.array_equal(a, b) for a, b in zip(played(env, 0), one, strict=True))


def test_several_seeds_decide_together():
    one, two, other = (TwoRoomsVector(3, size=9).reset(seed=seeds)[0] for seeds in ([1, 2, 3], [1, 2, 3], [1, 2, 4]))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_many_at_once_begin_anew_after_they_are_done():
    env = gymnasium.make_vec(NAME, num_envs=16, walls="fixed", max_episode_steps=25, **SMALL)
    assert isinstance(env, TwoRoomsVector) and env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    seen, info = env.reset(seed=0)
    assert seen in env.observation_space and seen.shape == (16, 2, 9, 9)
    before, done, time, ends = info["goal_position"], np.zeros(16, bool), np.zeros(16, int), [0, 0]
    for _ in range(90):
        seen, reward, terminated, truncated, info = env.step(led(info).clip(-2.45, 2.45))
        changed = (info["goal_position"] != before).any(1)
        assert np.array_equal(changed, done)  # new tasks for those that were done, and no others
        time = np.where(done, 0, time + 1)
        gap = np.square(info["position"] - info["goal_position"]).mean(1)
        assert np.array_equal(terminated, (gap < 1)) and np.array_equal(reward, terminated.astype(float))
        assert np.array_equal(truncated, (time >= 25) & ~terminated) and info["_position"].all()
        before, done = info["goal_position"], terminated | truncated
        ends = [ends[0] + terminated.sum(), ends[1] + truncated.sum()]
    assert min(ends) > 0
    assert env.render() is None and seen in env.observation_space


def test_vector_of_ours_and_of_gymnasium_are_acted_in():
    for env in (
        TwoRoomsVector(4, walls="fixed", **SMALL),
        SyncVectorEnv([lambda: TwoRooms(walls="fixed", **SMALL)] * 4),
        SyncVectorEnv([lambda: TwoRooms(walls="fixed", **SMALL)] * 4, autoreset_mode=AutoresetMode.SAME_STEP),
    ):
        acting = ActingEnv(env, seed=0)
        assert isinstance(acting, Acting) and acting.limit == pytest.approx(2.45)
        assert acting.observe().shape == acting.goal.shape == (4, 2, 9, 9) and acting.goal.dtype == torch.float32
        first, ends = acting.observe().clone(), {}
        for _ in range(120):
            unwrapped = env._play.info() if isinstance(env, TwoRoomsVector) else None
            if unwrapped is None:
                infos = [one.unwrapped._info() for one in env.envs]
                unwrapped = {name: np.stack([one[name] for one in infos]) for name in infos[0]}
            over = acting.done
            seen = acting.act(torch.from_numpy(led(unwrapped)))
            for row in (acting.done & ~over).nonzero()[:, 0].tolist():
                ends[row] = seen[row].clone()
        assert acting.done.all() and torch.equal(acting.solved, acting.done)
        assert not torch.equal(seen, first)
        for row, end in ends.items():
            assert torch.equal(seen[row], end)  # as it was at the end
            assert float((end[0] - acting.goal[row, 0]).abs().max()) < 0.6  # which is near the goal
        with pytest.raises(ValueError, match="^a: expected finite numbers"):
            acting.act(torch.full((4, 2), torch.nan))


class Discrete(VectorEnv):
    """An environment with choices for actions."""

    num_envs, single_action_space = 2, spaces.Discrete(3)


def test_environments_that_cannot_be_acted_in_are_refused():
    with pytest.raises(ValueError, match="^env: expected an action space Box"):
        ActingEnv(Discrete())
    env = TwoRoomsVector(2, size=9)
    with pytest.raises(ValueError, match="^goal: expected a name in info, one of position, .*, found 'target'"):
        ActingEnv(env, "target")
    with pytest.raises(ValueError, match="^env, goal: expected pictures"):
        ActingEnv(env, torch.zeros(2, 2, 8, 8))
    with pytest.raises(ValueError, match="^limit: expected a finite number above 0"):
        ActingEnv(env, limit=-1.0)
    assert ActingEnv(env, limit=0.5).limit == 0.5


def test_without_gymnasium_the_error_says_what_to_do():
    code = "import sys; sys.modules['gymnasium'] = None; import jepa.gym"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        "ImportError: jepa.gym: expected Gymnasium, found none; install it with `pip install 'jepa[gym]'`"
        in found.stderr
    )
