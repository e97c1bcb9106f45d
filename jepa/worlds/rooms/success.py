"""When an episode counts as solved: the published rules of two rooms, each by name, all in the 65 units, and a maze's.

They differ in distance and in when they look: a success rate says little without the rule's name.
"""

from __future__ import annotations

import torch
from torch import Tensor

WITHIN = 4.5  # units, EB-JEPA's
PIXELS = 16.0 / 224.0 * 65.0  # units, 16 of 224 pixels a side
RADIUS = 1.5  # units, a maze's: half a door's width


def last_within(positions: Tensor, goal: Tensor) -> Tensor:
    """EB-JEPA's rule, from the wall world of DINO-WM: nearer than 4.5 units to the goal after the last step.

    Args: positions: [B, T+1, 2] in units, the start first; goal: [B, 2] in units. Returns: solved [B], bool.
    Raises: ValueError for shapes that do not fit.
    """
    return _offsets(positions, goal)[:, -1].norm(dim=-1) < WITHIN


def any_mean_square(positions: Tensor, goal: Tensor) -> Tensor:
    """PLDM's rule: at any step, the first moment included, the mean of the squared errors of x and y is below 1.

    Args: positions: [B, T+1, 2] in units, the start first; goal: [B, 2] in units. Returns: solved [B], bool.
    Raises: ValueError for shapes that do not fit.
    """
    return (_offsets(positions, goal).square().mean(-1) < 1).any(1)


def any_within_pixels(positions: Tensor, goal: Tensor) -> Tensor:
    """The rule of LeWM and stable-worldmodel: at any step nearer than 16 of 224 pixels, 4.64 units.

    Args: positions: [B, T+1, 2] in units, the start first; goal: [B, 2] in units. Returns: solved [B], bool.
    Raises: ValueError for shapes that do not fit.
    """
    return (_offsets(positions, goal).norm(dim=-1) < PIXELS).any(1)


def any_within_radius(positions: Tensor, goal: Tensor) -> Tensor:
    """A maze's rule: at any step, the first moment included, nearer than 1.5 units.

    Args: positions: [B, T+1, 2] in units, the start first; goal: [B, 2] in units. Returns: solved [B], bool.
    Raises: ValueError for shapes that do not fit.
    """
    return (_offsets(positions, goal).norm(dim=-1) < RADIUS).any(1)


RULES = {"eb_jepa": last_within, "pldm": any_mean_square, "lewm": any_within_pixels}  # of two rooms


def first_within(positions: Tensor, goal: Tensor, radius: float) -> Tensor:
    """Return the steps [B] until a dot is nearer than a radius to its goal, all of them if it never is.

    Args: positions: [B, T+1, 2] in units, the start first; goal: [B, 2] in units; radius: in units.
    Raises: ValueError for shapes that do not fit.
    """
    near = _offsets(positions, goal).norm(dim=-1) < radius
    return torch.where(near.any(1), near.double().argmax(1), positions.shape[1] - 1)


def solved_at_start(start: Tensor, goal: Tensor) -> Tensor:
    """Return whether any of the rules calls an episode solved before its first step, [B].

    Args: start, goal: [B, 2] in units.
    """
    solved = [rule(start.unsqueeze(1), goal) for rule in RULES.values()]
    return solved[0] | solved[1] | solved[2]


def _offsets(positions: Tensor, goal: Tensor) -> Tensor:
    """Return positions − goal [B, T+1, 2]. Raises: ValueError for shapes that do not fit."""
    if positions.ndim != 3 or positions.shape[2] != 2 or goal.shape != (len(positions), 2):
        found = f"{list(positions.shape)} and {list(goal.shape)}"
        raise ValueError(f"positions, goal: expected [B, T+1, 2] and [B, 2], found {found}")
    return positions - goal.unsqueeze(1)
