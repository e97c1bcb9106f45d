"""H-JEPA: JEPAs stacked in time (LeCun 2022, section 4.6, figure 15).

    s_l(t) = Enc_l(s_{l−1}(t S_l), …, s_{l−1}(t S_l + W_l − 1)),   s_0 the frames          a code of level l
    s̃_l(t+1) = Pred_l(s_l(t), a_l(t), z_l(t))                                             one step of level l

A level is a JEPA whose frames are windows of the codes below: W_l of them side by side, a new window every S_l. With
one level and windows of one frame it is the plain JEPA, to the bit. Levels are counted from 1.

| level of   | window | stride | its code t speaks of the frames      | its step spans |
|------------|--------|--------|--------------------------------------|----------------|
| any        | W, S   |        | t σ … t σ + ω − 1                    | σ frames       |
| 1          | 2      | 1      | t, t + 1                             | 1              |
| 2 above it | 8      | 8      | 8 t … 8 t + 8                        | 8              |
| 3 above it | 4      | 4      | 32 t … 32 t + 32                     | 32             |

with σ_l = σ_{l−1} S_l and ω_l = (W_l − 1) σ_{l−1} + ω_{l−1}: its `Clock`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jepa.batches import Trajectories, windows
from jepa.model import JEPA
from jepa.predictors import rollout


class Window(NamedTuple):
    """What a level sees of the level below."""

    width: int = 1  # W, frames or codes side by side
    stride: int = 1  # S, from the start of a window to that of the next


class Clock(NamedTuple):
    """Which frames the codes of a level speak of, and how far its step reaches, in frames."""

    span: int  # ω, frames that a code speaks of
    stride: int  # σ, frames from a code to the next

    def first(self, code: int) -> int:
        """Return the first frame that a code speaks of, both counted from 0."""
        return code * self.stride

    def last(self, code: int) -> int:
        """Return the last frame that a code speaks of: the present, for whoever plans or predicts from it."""
        return code * self.stride + self.span - 1

    def codes(self, frames: int) -> int:
        """Return how many codes that many frames give, 0 for too few."""
        return max(0, (frames - self.span) // self.stride + 1)


class HJEPA(nn.Module):
    """L levels, each a JEPA on windows of the codes below it."""

    def __init__(self, levels: Sequence[JEPA], windows: Sequence[Window]) -> None:
        """Args: levels: from the lowest, each with one encoder for contexts and targets, whose input is a window of the
        codes below, side by side; windows: of each level.

        Raises: ValueError for no level, another number of windows, one that is no window, or a level whose targets
            have an encoder of their own, of which the level above would not know which one to see.
        """
        super().__init__()
        if not levels or len(levels) != len(windows):
            raise ValueError(f"windows: expected one for each of at least 1 level, found {len(windows)}, {len(levels)}")
        for number, (level, window) in enumerate(zip(levels, windows, strict=True), 1):
            if min(window) < 1:
                raise ValueError(
                    f"windows: expected a width and a stride of at least 1 at level {number}, found {window}"
                )
            if level.encoder is not level.target_encoder:
                what = "expected the context's, as every code is both and the next level sees it, found one of its own"
                raise ValueError(f"target_encoder: {what} at level {number}")
        self.levels = nn.ModuleList(levels)
        self.windows = tuple(Window(*window) for window in windows)

    @property
    def clocks(self) -> tuple[Clock, ...]:
        """The clock of every level, from the lowest."""
        clocks, below = [], Clock(1, 1)
        for window in self.windows:
            below = Clock((window.width - 1) * below.stride + below.span, below.stride * window.stride)
            clocks.append(below)
        return tuple(clocks)

    def bottom(self, count: int) -> HJEPA:
        """Return the `count` lowest levels, with the same weights. Raises: ValueError for another count."""
        if not 1 <= count <= len(self.levels):
            raise ValueError(f"count: expected from 1 to {len(self.levels)}, found {count}")
        lowest = HJEPA(list(self.levels)[:count], self.windows[:count])
        lowest.training = self.training  # of itself alone: its levels are in the mode they are in
        return lowest

    def encode(self, frames: Tensor, below: int = 0) -> list[Tensor]:
        """Return the codes s_l [B, T_l, D_l] of every level of frames [B, T, …], each level encoded in one call.

        Args: below: so many levels are encoded already, and `frames` are codes of the uppermost of them, [B, T, D].
        Returns: of the levels above `below`, from the lowest.
        Raises: ValueError for less or more levels than there are, and as `seen` and `up`.
        """
        if not 0 <= below <= len(self.levels):
            raise ValueError(f"below: expected from 0 to {len(self.levels)}, found {below}")
        codes = []
        for level in range(below + 1, len(self.levels) + 1):
            frames = self.up(self.seen(frames, level), level)
            codes.append(frames)
        return codes

    def seen(self, s: Tensor, level: int) -> Tensor:
        """Return what a level sees, [B, n, W · D, …], of codes s [B, T, D, …] of the level below, or of frames.

        Raises: ValueError for a level that does not exist, or fewer codes than its window.
        """
        window = self.windows[self._index(level)]
        if s.ndim < 3 or s.shape[1] < window.width:
            frames = self.clocks[level - 1].span
            what = f"expected at least {window.width} of what level {level} sees ({frames} frames)"
            raise ValueError(f"frames: {what}, found {list(s.shape)}")
        return windows(s, *window)

    def up(self, seen: Tensor, level: int) -> Tensor:
        """Return the codes s_l [B, n, D_l] of what a level sees, as `seen` returns it, in one call of its encoder.

        Raises: ValueError for a level that does not exist, and as its encoder, with the level in front.
        """
        index, flat = self._index(level), seen.flatten(0, 1)
        try:
            return self.levels[index].representation(flat).unflatten(0, seen.shape[:2])
        except ValueError as error:
            raise ValueError(f"level {level}: {error}") from error

    def actions(self, a: Tensor, level: int) -> Tensor:
        """Return what is done in the steps of a level [B, n, S · A] of actions a [B, T, A] of the level below.

        The step from code t to t+1 is taken by the S actions after the last code that t speaks of, side by side.
        Raises: ValueError for a level that does not exist, or too few actions for one step.
        """
        window = self.windows[self._index(level)]
        least = window.width - 1 + window.stride
        if a.shape[1] < least:
            raise ValueError(f"a: expected at least {least} steps for one of level {level}, found {a.shape[1]}")
        return windows(a[:, window.width - 1 :], window.stride)

    def trajectories(self, batch: Trajectories, level: int, done: int = 0) -> Trajectories:
        """Return what a level learns from, its windows and their actions, of trajectories of frames.

        Args: done: so many levels are encoded already, as `below` of `encode`.
        Raises: ValueError for a level that does not exist or is encoded already, and as `seen`, `up` and `actions`.
        """
        if not 0 <= done <= self._index(level):
            raise ValueError(f"done: expected from 0 to {level - 1}, the levels below level {level}, found {done}")
        frames, a = batch.frames, batch.a
        for number in range(done + 1, level):
            frames, a = self.up(self.seen(frames, number), number), self.actions(a, number)
        return Trajectories(self.seen(frames, level), self.actions(a, level), batch.static, {})

    def rollout(self, level: int, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """Return what a level predicts of its next codes, [B, K, T, D_l] (`jepa.predictors.rollout`).

        Args: level: from 1; s: [B, K or 1, D_l]; a: [B or 1, K or 1, T, A]; z: [B or 1, K or 1, T, Z].
        Raises: ValueError for a level that does not exist, and as `rollout`.
        """
        return rollout(self.levels[self._index(level)].step, s, a, z)

    def _index(self, level: int) -> int:
        """Return where a level is. Raises: ValueError for one that does not exist."""
        if not 1 <= level <= len(self.levels):
            raise ValueError(f"level: expected from 1 to {len(self.levels)}, found {level}")
        return level - 1


@torch.no_grad()
def codes(hierarchy: HJEPA, frames: Tensor, chunk: int = 32) -> list[Tensor]:
    """Return the codes of every level of frames [B, T, …], some clips at a time, without gradient."""
    parts = [hierarchy.encode(part) for part in frames.split(chunk)]
    return [torch.cat(level) for level in zip(*parts, strict=True)]
