"""The simplest case of planning: a proportional servo on a linear plant (LeCun 2022, section 4.7)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.planning.actions import Box
from jepa.planning.level import Level
from jepa.planning.servo import servo

GAINS = (0.1, 0.3, 0.5, 0.9, 1.0)
STEPS = 20


class Gaps(NamedTuple):
    """How far the planner is from the two closed forms, in the unit of s; and what it did."""

    control: float  # largest |a − gain · (−∂C/∂a)|, C = ½ ‖s + a − g‖² at a = 0
    closed_loop: float  # largest |(s_t − g) − (1 − gain)^t (s_0 − g)|
    distances: Tensor  # [gains, STEPS + 1] of the first plant from its goal


def servo_gaps(seed: int = 0, plants: int = 8, width: int = 2) -> Gaps:
    """Return how far `jepa.planning.servo` is from proportional control on plants s' = s + a, in double precision."""
    generator = Generator().manual_seed(seed)
    start, goal = torch.randn(2, plants, width, generator=generator, dtype=torch.float64)
    control = loop = 0.0
    distances = []
    for gain in GAINS:
        s, path = start, [start]
        level = Level(lambda s, a, z: s + a, lambda states, a: _half_square(states, goal), 1, Box(width))
        for _ in range(STEPS):
            a = servo(level, s, gain, generator).actions[:, 0]
            control = max(control, float((a - gain * (goal - s)).abs().max()))
            s = s + a
            path.append(s)
        error = torch.stack(path, 1) - goal.unsqueeze(1)  # [B, T+1, D]
        shrunk = (1 - gain) ** torch.arange(STEPS + 1, dtype=torch.float64)
        loop = max(loop, float((error - shrunk[:, None] * error[:, :1]).abs().max()))
        distances.append(error[0].norm(dim=-1))
    return Gaps(control, loop, torch.stack(distances))


def _half_square(states: Tensor, goal: Tensor) -> Tensor:
    """Return ½ ‖s̃ − g‖² [B, K] of the last of states [B, K, T, D]."""
    return (states[:, :, -1] - goal.unsqueeze(1)).square().sum(-1) / 2
