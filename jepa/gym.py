"""Two Rooms for Gymnasium, one at a time or many at once, and any Gymnasium environment as episodes to act in.

    gymnasium.make("jepa.gym:jepa/TwoRooms-v0"),  gymnasium.make_vec("jepa.gym:jepa/TwoRooms-v0", num_envs=64)

The reward is 1 for the step that solves the task, which ends the episode, and 0 for every other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa.worlds.base import shortened
from jepa.worlds.rooms.play import Play, chosen
from jepa.worlds.rooms.world import Rooms

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise ImportError("jepa.gym: expected Gymnasium, found none; install it with `pip install 'jepa[gym]'`") from error

NAME = "jepa/TwoRooms-v0"
STEPS = 200  # of an episode at most, as published


class TwoRooms(gymnasium.Env):
    """One dot in Two Rooms. Observed are pictures [C, S, S]; `info` has position, goal_position and goal, a picture.

    Actions [2] are steps in units, those longer than the limit are shortened to it.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self, collisions: str = "push", rule: str = "pldm", render_mode: str | None = None, **options: Any
    ) -> None:
        """Make an environment.

        Args: collisions: what happens to a dot that hits something; rule: of success, a name in
            `jepa.worlds.rooms.success.RULES`; render_mode: "rgb_array" or None; options: of `Rooms`.
        Raises: ValueError for a name or an option that does not exist.
        """
        self._play = Play(1, Rooms(**options), collisions, rule)
        self.observation_space, self.action_space = _spaces(self._play.world)
        self.render_mode = _known(render_mode)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the observation and the info of a new task, which a seed decides."""
        super().reset(seed=seed)
        self._play.restart(self.np_random, seed is not None)
        return self._play.seen()[0], self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Return observation, reward, whether the task is solved, False, and info.

        Raises: ValueError for an action of another shape, or that is not finite.
        """
        solved = bool(self._play.step(action))
        return self._play.seen()[0], float(solved), solved, False, self._info()

    def render(self) -> np.ndarray | None:
        """Return a picture [H, W, 3] of uint8, None without a mode."""
        return self._play.rendered()[0] if self.render_mode else None

    def _info(self) -> dict[str, Any]:
        """Return the info of the one dot."""
        return {name: value[0].copy() for name, value in self._play.info().items()}


class TwoRoomsVector(VectorEnv):
    """Many dots, each in Two Rooms of its own, moved at once; one that is done begins anew in the step after.

    One stream of random numbers serves them all: what a dot does depends on how many there are.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = STEPS,
        collisions: str = "push",
        rule: str = "pldm",
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Make N environments.

        Args: num_envs: N; max_episode_steps: after which an episode is cut off; the others: as for `TwoRooms`.
        Raises: ValueError for num_envs or max_episode_steps < 1, or a name or an option that does not exist.
        """
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")
        self._play = Play(num_envs, Rooms(**options), collisions, rule)
        self.num_envs, self._most = num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = _spaces(self._play.world)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = _known(render_mode)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return observations and infos of new tasks, which a seed decides, or several seeds together."""
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        elif seeded := seed is not None and any(one is not None for one in seed):
            self._np_random = np.random.default_rng([one or 0 for one in seed] if seeded else None)
        self._play.restart(self.np_random, seed is not None)
        self._done = torch.zeros(self.num_envs, dtype=torch.bool)
        self._time = torch.zeros(self.num_envs, dtype=torch.int64)
        return self._play.seen(), self._info()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Return observations, rewards, which tasks are solved, which episodes are cut off, and infos.

        Raises: ValueError for actions of another shape, or that are not finite.
        """
        begun = self._done
        solved = self._play.step(actions, begun) & ~begun
        if bool(begun.any()):
            self._play.renew(begun)
        self._time = torch.where(begun, 0, self._time + 1)
        cut = (self._time >= self._most) & ~solved
        self._done = solved | cut
        return self._play.seen(), solved.double().numpy(), solved.numpy(), cut.numpy(), self._info()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return N pictures [H, W, 3] of uint8, None without a mode."""
        return tuple(self._play.rendered()) if self.render_mode else None

    def _info(self) -> dict[str, Any]:
        """Return infos in Gymnasium's form: each with a mask of who has it."""
        info = {name: value.copy() for name, value in self._play.info().items()}
        return info | {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in info}


class ActingEnv:
    """Any Gymnasium vector environment as episodes to act in (`jepa.worlds.base.Acting`).

    An episode that is over is seen as it was at its end, whatever the environment begins in its place.
    """

    def __init__(
        self, env: VectorEnv, goal: str | Tensor = "goal", limit: float = 0.0, seed: int | None = None
    ) -> None:
        """Start the episodes of an environment.

        Args: env: N environments with an action space Box of [A] and observations [N, C, S, S]; goal: pictures
            [N, C, S, S], or by which name `info` has them after a reset; limit: the largest norm of an action, 0 for
            the least bound of the space; seed: of the reset.
        Raises: ValueError for another action space or other pictures, a goal that `info` lacks, or a limit below 0.
        """
        space = env.single_action_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"env: expected an action space Box of [A], found {space}")
        least = float(np.minimum(-space.low, space.high).min())
        if not 0 < (limit or least) < float("inf"):
            raise ValueError(f"limit: expected a finite number above 0, found {limit or least}")
        seen, info = env.reset(seed=seed)
        if isinstance(goal, str) and goal not in info:
            raise ValueError(f"goal: expected a name in info, one of {', '.join(info) or 'none'}, found {goal!r}")
        self.limit, self.goal = limit or least, _tensor(info[goal] if isinstance(goal, str) else goal)
        self.done = torch.zeros(env.num_envs, dtype=torch.bool)  # [N] whose episode is over
        self.solved = torch.zeros(env.num_envs, dtype=torch.bool)  # [N] whose episode has terminated
        self._env, self._seen, self._shape = env, _tensor(seen), (env.num_envs, *space.shape)
        if self._seen.ndim != 4 or self.goal.shape != self._seen.shape:
            found = f"{list(self._seen.shape)} and {list(self.goal.shape)}"
            raise ValueError(f"env, goal: expected pictures [N, C, S, S] of one shape, found {found}")

    def observe(self) -> Tensor:
        """Return what is seen now, [N, C, S, S]."""
        return self._seen

    def act(self, a: Tensor) -> Tensor:
        """Return what is seen after actions a [N, A], [N, C, S, S]; longer ones are shortened to the limit.

        Raises: ValueError for actions of another shape, or that are not finite.
        """
        a = shortened(a, self.limit, self._shape)
        seen, _, terminated, truncated, info = self._env.step(a.detach().cpu().numpy())
        over, ended = _tensor(terminated).bool(), _tensor(terminated).bool() | _tensor(truncated).bool()
        seen = _tensor(seen)
        for row in (ended & ~self.done).nonzero()[:, 0].tolist() if "final_obs" in info else ():
            seen[row] = _tensor(info["final_obs"][row])  # where a new episode has begun in the same step
        self.solved = self.solved | (over & ~self.done)
        self._seen = chosen(self.done, self._seen, seen)
        self.done = self.done | ended
        return self._seen


def _spaces(world: Rooms) -> tuple[spaces.Box, spaces.Box]:
    """Return the spaces of a picture and of a step."""
    seen = spaces.Box(0.0, max(1.0, world.brightness), world.static, np.float32)
    return seen, spaces.Box(-world.step_limit, world.step_limit, (2,), np.float32)


def _tensor(value: Any) -> Tensor:
    """Return an array's numbers in single precision, in memory of their own."""
    return torch.tensor(np.asarray(value), dtype=torch.float32)


def _known(mode: str | None) -> str | None:
    """Return a mode of rendering as it came. Raises: ValueError for one that does not exist."""
    if mode not in (None, "rgb_array"):
        raise ValueError(f"render_mode: expected rgb_array or None, found {mode!r}")
    return mode


if NAME not in gymnasium.registry:
    gymnasium.register(NAME, "jepa.gym:TwoRooms", max_episode_steps=STEPS, vector_entry_point="jepa.gym:TwoRoomsVector")
