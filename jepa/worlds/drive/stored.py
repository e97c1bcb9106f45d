"""Stored clips of the world `drive`: what happens in them, without pictures, from integer arithmetic alone.

They are made by the formula of `jepa.worlds.drive.laws` on integers of 2⁻¹⁶: the same bytes on every machine. A normal
number is the sum of twelve uniform ones, whose variance is 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa.batches import HeldOut
from jepa.worlds.arithmetic import BITS
from jepa.worlds.drive.laws import GROUPS, NOISES, Laws, at_least_one, counted
from jepa.worlds.drive.ring import LAP, positions

STATE = ("place", "wobble", "other 1", "other 2")  # what x has of every frame
QUANTA = {"x": 2.0**-8, "y": 1, "speed": 2.0**-12, "texture": 2.0**-7}  # in px, px a frame, and of brightness


def integer_clips(laws: Laws, count: int, random: np.random.RandomState) -> dict[str, np.ndarray]:
    """Return `count` clips of `held_out_frames` T in integer arithmetic, in QUANTA: the same numbers on every machine.

    Returns: x [count, T, 4] int32, place, wobble and other of every frame; y [count, T, 1] int8, the road; speed
        [count, 1] int16; texture [count, T, 8] int8.
    Raises: ValueError for count < 1.
    """
    at_least_one(count=count)
    frames, one = laws.held_out_frames, 2**BITS
    start = random.randint(0, int(LAP) * one, count, dtype=np.int64)
    low, high = (round(speed / QUANTA["speed"]) for speed in (laws.slow, laws.fast))
    speed = random.randint(low, high + 1, count, dtype=np.int64)
    normals = normal_integers((frames, NOISES, count, 2), random)
    exact = torch.from_numpy(speed) * round(QUANTA["speed"] * one)
    course = laws.course(torch.from_numpy(start), exact, torch.from_numpy(normals))
    grain = round(QUANTA["x"] * one)
    state = torch.cat([course.place, course.wobble, course.other], -1)
    state = torch.div(state + grain // 2, grain, rounding_mode="floor")
    lap, laps = counted(state[..., :1], round(LAP / QUANTA["x"]))  # of the stored place, so that both agree
    lots = torch.from_numpy(random.randint(laws.roads, size=(count, laps), dtype=np.int64))
    road = lots.gather(1, lap.squeeze(-1)).unsqueeze(-1)
    loud = min(round(laws.texture / QUANTA["texture"]), 127)
    texture = random.randint(-loud, loud + 1, (count, frames, GROUPS), dtype=np.int8)
    return {
        "x": state.numpy().astype(np.int32),
        "y": road.numpy().astype(np.int8),
        "speed": speed[:, None].astype(np.int16),
        "texture": texture,
    }


def normal_integers(shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
    """Return standard normal numbers in units of 2⁻¹⁶, int64: sums of twelve uniform ones, none beyond ±6."""
    one = 2**BITS
    total = np.full(shape, -6 * one, np.int64)
    for _ in range(12):
        total += random.randint(0, one + 1, shape, dtype=np.int64)
    return total


def stored_factors(held_out: HeldOut, roads: int) -> dict[str, Tensor]:
    """Return the factors of stored clips: those of `Laws.factors` but for the jitter, which the place has in it.

    Args: held_out: N clips of T frames, as `integer_clips` made them; roads: M.
    Returns: place, speed, road, wobble [N, T, 1], other, position [N, T, 2], texture [N, T, 8].
    Raises: ValueError for a missing array, shapes that do not fit, or a road that is not one of the M.
    """
    arrays = {"x": held_out.x, "y": held_out.y, **held_out.factors}
    if missing := [name for name in QUANTA if name not in arrays]:
        raise ValueError(f"held_out: expected {', '.join(QUANTA)}, found {', '.join(arrays)} without {missing[0]}")
    x, road, speed, texture = (arrays[name] for name in QUANTA)
    count, frames = len(x), x.shape[1] if x.ndim > 1 else 1
    shapes = {"x": (count, frames, len(STATE)), "y": (count, frames, 1)}
    shapes |= {"speed": (count, 1), "texture": (count, frames, GROUPS)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name}: expected {list(shape)}, found {list(arrays[name].shape)}")
    if road.is_floating_point() or not bool(((road >= 0) & (road < roads)).all()):
        found = f"{road.dtype} from {road.amin().item():g} to {road.amax().item():g}"
        raise ValueError(f"y: expected whole numbers from 0 to {roads - 1}, the roads, found {found}")
    place, wobble, other = x.split([1, 1, 2], -1)
    return {
        "place": place,
        "wobble": wobble,
        "other": other,
        "speed": speed.unsqueeze(1).repeat(1, frames, 1),
        "road": road,
        "position": positions(place, road, wobble, roads),
        "texture": texture,
    }
