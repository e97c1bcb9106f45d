"""The laws of the world `drive`: what moves, and how. One formula, in floating point and on integers of 2⁻¹⁶.

    place_t = p0 + speed · t + jitter_t      along the ring; on each lap the road is drawn anew at the junction

Jitter, wobble and both coordinates of the other car are critically damped noise: x″ = −2/τ x′ − x/τ² + white noise, a
stationary process sampled exactly once a frame. On the state (x, τ x′) in units of the standard deviation it reads

    s_{t+1} = F s_t + L n_t,   F = exp(−1/τ) [[1 + 1/τ, 1/τ], [−1/τ, 1 − 1/τ]],   L Lᵀ = 1 − F Fᵀ,   s_0 ~ N(0, 1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from jepa.worlds.arithmetic import matrix_times, number, times
from jepa.worlds.drive.ring import LAP, positions

GROUPS = 8  # of trees, each with a brightness of its own
NOISES = 4  # jitter, wobble, and both coordinates of the other car
FASTEST = 7.5  # most that a car may move a frame, in px: less than a quarter of a lap


class Course(NamedTuple):
    """Where the cars are, in px, in floating point or on integers; the road is drawn from the place."""

    place: Tensor  # [B, T+1, 1]
    jitter: Tensor  # [B, T+1, 1]
    wobble: Tensor  # [B, T+1, 1]
    other: Tensor  # [B, T+1, 2]


@dataclass(frozen=True)
class Laws:
    """The constants of the laws; lengths are in px of the map, times in frames."""

    roads: int = 2  # M
    slow: float = 0.5  # least speed, in px a frame
    fast: float = 1.9  # largest
    jitter: float = 1.0  # standard deviation along the road
    jitter_time: float = 4.0
    wobble: float = 3.0  # standard deviation across the road
    wobble_time: float = 4.0
    other: float = 5.0  # standard deviation of each coordinate of the other car
    other_time: float = 4.0
    texture: float = 0.4  # half-width of the brightness of a group of trees
    held_out_frames: int = 641  # of a stored clip

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that describe no world."""
        for name, least, most in (("roads", 1, 64), ("held_out_frames", 2, 4096)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected from {least} to {most}, found {getattr(self, name)}")
        if not 0 <= self.slow < self.fast <= FASTEST:
            what = f"expected speeds 0 <= slow < fast <= {FASTEST:g}, found {self.slow} and {self.fast}"
            raise ValueError(f"slow, fast: {what}")
        for name in ("jitter", "wobble", "other"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a number from 0 on, found {getattr(self, name)}")
            if not 0.1 <= (time := getattr(self, f"{name}_time")) <= 1000:
                raise ValueError(f"{name}_time: expected from 0.1 to 1000 frames, found {time}")
        if not 0 <= self.texture <= 1:
            raise ValueError(f"texture: expected a half-width from 0 to 1, found {self.texture}")

    def factors(self, count: int, steps: int, generator: Generator) -> dict[str, Tensor]:
        """Return the factors of clips, drawn on the generator's device, without pictures.

        Args: count: B; steps: T.
        Returns: place, speed, road, wobble, jitter [B, T+1, 1], other, position [B, T+1, 2] and texture [B, T+1, 8], in
            px or px a frame; road is an index, int64.
        Raises: ValueError for count or steps < 1.
        """
        at_least_one(count=count, steps=steps)
        options = {"generator": generator, "device": generator.device}
        start, share = torch.rand(2, count, **options)
        speed = self.slow + (self.fast - self.slow) * share
        course = self.course(LAP * start, speed, torch.randn(steps + 1, NOISES, count, 2, **options))
        lap, laps = counted(course.place, LAP)
        road = torch.randint(self.roads, (count, laps), **options).gather(1, lap.squeeze(-1)).unsqueeze(-1)
        texture = self.texture * (2 * torch.rand(count, steps + 1, GROUPS, **options) - 1)
        return {
            **course._asdict(),
            "speed": speed.view(-1, 1, 1).repeat(1, steps + 1, 1),
            "road": road,
            "position": positions(course.place, road, course.wobble, self.roads),
            "texture": texture,
        }

    def course(self, start: Tensor, speed: Tensor, normals: Tensor) -> Course:
        """Return where the cars are, in the arithmetic of the arguments.

        Args: start, speed: [B] in px and px a frame; normals: [T+1, 4, B, 2] standard normal numbers.
        """
        time = [self.jitter_time, self.wobble_time, self.other_time, self.other_time]
        spread = torch.tensor([self.jitter, self.wobble, self.other, self.other], dtype=torch.float64)
        states = damped(normals, torch.tensor(time, dtype=torch.float64))
        noises = times(states[..., 0].permute(2, 0, 1), number(spread, normals))  # [B, T+1, 4]
        jitter, wobble, other = noises.split([1, 1, 2], -1)
        t = torch.arange(len(normals), device=speed.device)
        place = start.view(-1, 1, 1) + speed.view(-1, 1, 1) * t.view(-1, 1) + jitter
        return Course(place, jitter, wobble, other)


def damped(normals: Tensor, time: Tensor) -> Tensor:
    """Return stationary critically damped noise of standard deviation 1, states (x, τ x′) [T+1, C, B, 2].

    Args: normals: [T+1, C, B, 2] standard normal, in floating point or integers; time: [C] τ in frames, float64.
    """
    transition, spread = (number(matrix.mT, normals) for matrix in coefficients(time))
    states = [normals[0]]
    for shock in matrix_times(normals[1:], spread):
        states.append(matrix_times(states[-1], transition) + shock)
    return torch.stack(states)


def coefficients(time: Tensor) -> tuple[Tensor, Tensor]:
    """Return F and L [C, 2, 2] of critically damped noise. Args: time: [C] τ in frames, float64."""
    h = 1 / time
    rows = torch.stack([1 + h, h, -h, 1 - h], -1).unflatten(-1, (2, 2))
    transition = (-h).exp().view(-1, 1, 1) * rows
    rest = torch.eye(2, dtype=time.dtype) - transition @ transition.mT
    return transition, torch.linalg.cholesky(rest)


def counted(place: Tensor, lap: float | int) -> tuple[Tensor, int]:
    """Return the number of the lap of every place, int64, from 0 for the first that anything is on, and how many."""
    laps = torch.div(place, lap, rounding_mode="floor").long()
    laps = laps - laps.amin()
    return laps, int(laps.amax()) + 1


def at_least_one(**numbers: int) -> None:
    """Raises: ValueError for numbers < 1, by their names."""
    for name, found in numbers.items():
        if found < 1:
            raise ValueError(f"{name}: expected at least 1, found {found}")
