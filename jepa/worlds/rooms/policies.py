"""Where dots of Two Rooms start and how they would step: the behavior that training data are made of."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Generator, Tensor

from jepa.worlds.rooms.layouts import FREE, HALF_DOOR, HALF_WALL, Layouts

POLICIES = ("mixed", "published")
MARGIN = 0.1  # of starts to walls and border, in units
NEAR = 6.0  # how far from the door, per axis, or from the wall's middle a start near it is at most, in units
TURN = 0.45  # standard deviation of the mixed policy's turns, in radians
EPISODE = 90  # steps of a published episode
CONCENTRATION = 5.0  # of the published turns
MEAN, DEVIATION, SPREAD = 1.0, 0.4, 0.8  # of a published step: mean, sd, and how far from the mean at most, in units
CROSSING = 0.35  # share of published episodes laid through the door
ANGLES = 4096  # points of the table that von Mises numbers are read from


def mixed(layouts: Layouts, steps: int, limit: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return starts [B, 2] and actions [B, T, 2] that get about: many starts near the door and the wall, long steps.

    30 % of the starts are at most 6 units from the door's center in x and in y, 30 % at most 6 units from the wall's
    middle, the others anywhere, each uniform. The heading is a random walk, uniform at first, with turns
    N(0, 0.45²) rad; a step's length is U(0, limit), in 30 % of the trajectories U(0.8, 1) · limit.
    """
    count, like = len(layouts.bounds), {"generator": generator, "device": generator.device}
    kind, quick = torch.rand(2, count, 1, **like)
    door, other = torch.rand(2, count, 2, **like) * 2 - 1
    at_door = layouts.doors[:, 0] + NEAR * door
    # within the wall's thickness only the opening is free
    thick = (NEAR * door[:, :1]).abs() < HALF_WALL + MARGIN
    opening = layouts.doors[:, 0, 1:] + (HALF_DOOR - MARGIN) * door[:, 1:]
    at_door = torch.where(thick, torch.cat([at_door[:, :1], opening], 1), at_door)
    anywhere = uniform(layouts, generator)
    reach = HALF_WALL + MARGIN + (NEAR - HALF_WALL - MARGIN) * other[:, :1].abs()
    at_wall = torch.cat([layouts.doors[:, 0, :1] + other[:, :1].sign() * reach, anywhere[:, 1:]], 1)
    start = torch.where(kind < 0.3, at_door, torch.where(kind < 0.6, at_wall, anywhere))
    start = start.clamp(FREE[0] + MARGIN, FREE[1] - MARGIN)
    turns = TURN * torch.randn(count, steps, **like)
    turns[:, 0] = 2 * math.pi * torch.rand(count, **like)
    length = torch.rand(count, steps, **like)
    length = limit * torch.where(quick < 0.3, 0.8 + 0.2 * length, length)
    return start, length.unsqueeze(-1) * directions(turns.cumsum(1))


def published(layouts: Layouts, steps: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return starts [B, 2] and actions [B, T, 2] of episodes by the rule of PLDM and EB-JEPA, where T is 90.

    Starts are uniform in free space, the first heading is uniform, turns are von Mises with concentration 5, step
    lengths normal, mean 1.0 and sd 0.4, cut off at 0.2 and 1.8. 35 % of the episodes are laid through the door: from a
    point of the opening, x uniform in the wall's thickness, y normal around the door with sd 1.4, cut off at the
    opening, such a walk leads into the left room, its first heading within 45° of the wall's normal, and another one,
    with the opposite heading, into the right one; the first backwards and then the second make k and T − k steps, k
    uniform from 1 to T. Half of these are walked the other way. A start that this puts beyond the border is moved to
    0.1 within it, after which the walk misses the door, as in theirs.

    It differs from their code: layouts are continuous; walks the other way also meet the point exactly, where theirs
    miss it by a step; the second walk keeps its first step, which theirs drops; a start that would be within the wall
    is moved into the nearer room, where theirs stays.
    """
    count, like = len(layouts.bounds), {"generator": generator, "device": generator.device}
    across, half, first = torch.rand(3, count, **like)
    door = layouts.doors[:, 0]
    x = door[:, 0] + HALF_WALL * (2 * torch.rand(count, **like) - 1)
    y = door[:, 1] + truncated_normal(1.4, HALF_DOOR, (count,), generator)
    left = math.pi + (torch.rand(count, **like) - 0.5) * math.pi / 2
    through = across < CROSSING
    to_left = _walk(torch.where(through, left, 2 * math.pi * first), steps, generator)
    to_right = _walk(left + math.pi, steps, generator)
    k, time = torch.randint(1, steps + 1, (count, 1), **like), torch.arange(steps, device=generator.device)
    before, after = (k - 1 - time).clamp(min=0), (time - k).clamp(min=0)
    laid = torch.where((time < k).unsqueeze(-1), -_picked(to_left, before), _picked(to_right, after))
    other_way = half < 0.5
    laid = torch.where(other_way[:, None, None], -laid.flip(1), laid)
    passed = torch.where(other_way.unsqueeze(1), steps - k, k)
    come = (laid * (time < passed).unsqueeze(-1)).sum(1)
    start = torch.where(through.unsqueeze(1), torch.stack([x, y], -1) - come, uniform(layouts, generator))
    actions = torch.where(through[:, None, None], laid, to_left)
    return _out_of_the_wall(layouts, start.clamp(FREE[0] + MARGIN, FREE[1] - MARGIN)), actions


def uniform(layouts: Layouts, generator: Generator) -> Tensor:
    """Return points [B, 2] of Two Rooms, uniform between the borders; those that fall into the wall are redrawn in x,
    in the left room or the right with the same probability, as published."""
    like = {"generator": generator, "device": generator.device}
    low, high = FREE[0] + MARGIN, FREE[1] - MARGIN
    points = low + (high - low) * torch.rand(len(layouts.bounds), 2, **like)
    share, side = torch.rand(2, len(layouts.bounds), **like)
    wall = layouts.doors[:, 0, 0]
    left = low + (wall - HALF_WALL - MARGIN - low) * share
    right = high - (high - wall - HALF_WALL - MARGIN) * share
    x = torch.where(_in_the_wall(layouts, points), torch.where(side < 0.5, left, right), points[:, 0])
    return torch.stack([x, points[:, 1]], -1)


def von_mises(concentration: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Return von Mises numbers around 0, in radians, of density ∝ exp(κ cos θ).

    The inverse of the distribution function is read from a table by linear interpolation, which is exact for the
    density that is constant between the points of the table.
    """
    below = _distribution(concentration).to(generator.device, torch.get_default_dtype())
    share = torch.rand(shape, generator=generator, device=generator.device)
    place = torch.searchsorted(below, share, right=True).clamp(1, ANGLES)
    part = (share - below[place - 1]) / (below[place] - below[place - 1]).clamp(min=1e-12)
    return -math.pi + (place - 1 + part.clamp(0, 1)) * (2 * math.pi / ANGLES)


@cache
def _distribution(concentration: float) -> Tensor:
    """Return the von Mises distribution function at ANGLES + 1 evenly spaced angles from −π to π."""
    theta = torch.linspace(-math.pi, math.pi, ANGLES + 1, dtype=torch.float64)
    middle = (theta[1:] + theta[:-1]) / 2
    mass = (concentration * (middle.cos() - 1)).exp().cumsum(0)
    return torch.cat([mass.new_zeros(1), mass / mass[-1]])


def truncated_normal(deviation: float, most: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Return normal numbers of mean 0 cut off at ± most, by the inverse of their distribution function."""
    tail = 0.5 * math.erfc(most / deviation / math.sqrt(2))
    share = torch.rand(shape, generator=generator, device=generator.device)
    return (deviation * torch.special.ndtri(tail + (1 - 2 * tail) * share)).clamp(-most, most)


def directions(angle: Tensor) -> Tensor:
    """Return unit vectors (cos, sin) [..., 2] of angles in radians."""
    return torch.stack([angle.cos(), angle.sin()], -1)


def _walk(heading: Tensor, steps: int, generator: Generator) -> Tensor:
    """Return the actions [B, T, 2] of a published walk with given first headings [B]."""
    turns = von_mises(CONCENTRATION, (len(heading), steps), generator)
    turns[:, 0] = heading
    length = MEAN + truncated_normal(DEVIATION, SPREAD, (len(heading), steps), generator)
    return length.unsqueeze(-1) * directions(turns.cumsum(1))


def _picked(actions: Tensor, time: Tensor) -> Tensor:
    """Return the actions [B, T, 2] at given times [B, T]."""
    return actions.gather(1, time.unsqueeze(-1).expand(-1, -1, 2))


def _in_the_wall(layouts: Layouts, points: Tensor) -> Tensor:
    """Return whether points [B, 2] are in the wall or less than a margin from it, [B]."""
    x, y = (points - layouts.doors[:, 0]).abs().unbind(-1)
    return (x < HALF_WALL + MARGIN) & (y > HALF_DOOR - MARGIN)


def _out_of_the_wall(layouts: Layouts, points: Tensor) -> Tensor:
    """Return points [B, 2], those in the wall moved into the nearer room."""
    wall = layouts.doors[:, 0, 0]
    side = torch.where(points[:, 0] < wall, -1.0, 1.0) * (HALF_WALL + MARGIN)
    x = torch.where(_in_the_wall(layouts, points), wall + side, points[:, 0])
    return torch.stack([x, points[:, 1]], -1)
