"""What can be foreseen in the world `drive`, and how well: R² of the best predictions, in closed form.

Wobble and the other car are foreseen from their exact state, the road from place and speed, place and speed from a
window of frames in each of which the place is seen exactly, round the ring. The texture cannot be foreseen at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from jepa.worlds.drive.laws import Laws, at_least_one
from jepa.worlds.drive.ring import LAP


def predictability(world: Laws, horizons: Sequence[int], window: int = 2) -> dict[str, list[float]]:
    """Return R² of every factor by horizon.

    Args: horizons: in frames; window: frames from which place and speed are foreseen.
    Raises: ValueError for a horizon or window < 1.
    """
    return {
        "place": [place_r2(window, horizon, world) for horizon in horizons],
        "speed": [speed_r2(window, world)] * len(horizons),
        "road": [road_r2(horizon, world.slow, world.fast) for horizon in horizons],
        "wobble": [damped_r2(horizon, world.wobble_time) for horizon in horizons],
        "other": [damped_r2(horizon, world.other_time) for horizon in horizons],
        "texture": [0.0] * len(horizons),
    }


def damped_r2(horizon: int, time: float) -> float:
    """Return R² of critically damped noise from its exact state.

    Args: horizon: h in frames; time: τ in frames.
    Raises: ValueError for a horizon < 1.
    """
    at_least_one(horizon=horizon)
    share = horizon / time
    return math.exp(-2 * share) * ((1 + share) ** 2 + share**2)


def road_r2(horizon: int, slow: float, fast: float) -> float:
    """Return the probability that a car crosses no junction, E[max(0, 1 − v h / LAP)]; of the jitter nothing is said.

    Args: horizon: h in frames; slow, fast: v is uniform between them, in px a frame.
    Raises: ValueError for a horizon < 1 or a range that is empty.
    """
    at_least_one(horizon=horizon)
    if not 0 <= slow < fast:
        raise ValueError(f"slow, fast: expected speeds 0 <= slow < fast, found {slow} and {fast}")
    end = min(max(LAP / horizon, slow), fast)  # faster cars cross one for certain
    return ((end - slow) - horizon * (end**2 - slow**2) / (2 * LAP)) / (fast - slow)


def place_r2(window: int, horizon: int, world: Laws) -> float:
    """Return R² of the place on the ring, (cos, sin), for errors with a normal law: exp(−(2π error / LAP)²).

    Args, Raises: as for `place_error`.
    """
    return math.exp(-((2 * math.pi / LAP * place_error(window, horizon, world)) ** 2))


def place_error(window: int, horizon: int, world: Laws) -> float:
    """Return the RMS error in px of the best linear prediction of the place.

    Args: window: frames in which the place is seen exactly; horizon: frames from the last of these to the predicted.
    Raises: ValueError for a window or horizon < 1.
    """
    at_least_one(window=window, horizon=horizon)
    return math.sqrt(_unexplained(window, world, horizon))


def speed_r2(window: int, world: Laws) -> float:
    """Return R² of the best linear prediction of the speed from a window of frames in which the place is seen exactly.

    Raises: ValueError for a window < 1.
    """
    at_least_one(window=window)
    return 1 - _unexplained(window, world, None) / _speed_variance(world)


def _unexplained(window: int, world: Laws, horizon: int | None) -> float:
    """Return the variance that a window of places leaves of the way ahead, or for no horizon of the speed.

    As the first place is uniform on the ring, only differences of places tell anything: of v t + jitter.
    """
    t = torch.arange(window + (horizon or 0), dtype=torch.float64)
    to_last = torch.eye(len(t), dtype=torch.float64)
    to_last[:, window - 1] -= 1
    covariance = to_last @ _covariance(t, world) @ to_last.mT
    seen = covariance[: window - 1, : window - 1]
    if horizon is None:
        along, variance = _speed_variance(world) * (t[:-1] - t[-1]), _speed_variance(world)
    else:
        along, variance = covariance[-1, : window - 1], float(covariance[-1, -1])
    explained = along @ torch.linalg.pinv(seen, hermitian=True, rtol=1e-13) @ along
    return max(variance - float(explained), 0.0)


def _covariance(t: Tensor, world: Laws) -> Tensor:
    """Return the covariance of v t + jitter at times t [n] in frames, [n, n] in px²."""
    apart = (t.unsqueeze(1) - t).abs() / world.jitter_time
    return _speed_variance(world) * t.unsqueeze(1) * t + world.jitter**2 * (1 + apart) * (-apart).exp()


def _speed_variance(world: Laws) -> float:
    """Return the variance of the speed in (px a frame)²."""
    return (world.fast - world.slow) ** 2 / 12
