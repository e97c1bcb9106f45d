"""Windows of Two Rooms made one sample at a time, written anew in the structure of the published generator.

What is taken over are facts of EB-JEPA (2026), `eb_jepa/datasets/two_rooms` at 966e61e, and no code: in every episode

- each turn of a walk of 90 steps is a draw of its own from a von Mises distribution; step lengths come from SciPy's
  truncated normal, which is set up anew; 35 % of the episodes make two further walks, which meet in the door;
- each step is compared with the border's four sides, the wall's two faces and the door's two edges, on tensors of one
  sample, all of these whether one of them has decided or not;
- all 91 frames are rendered from the distance of every pixel, in whole numbers up to 255, the walls are repeated for
  each of them, all are brought to [0, 1] and then to mean 0 and deviation 1, and 17 of the 91 are kept.
"""

from __future__ import annotations

import math

import torch
from scipy.stats import truncnorm
from torch import Tensor
from torch.distributions import VonMises

EPISODE, KEPT = 90, 17  # steps of an episode, frames of a window
FREE = (4.0, 60.0)  # the border's sides, in units
HALF_WALL, HALF_DOOR = 1.0, 4.0
MEAN, DEVIATION = torch.tensor([0.0026, 0.0989]), torch.tensor([0.0369, 0.2986])  # of a pixel, per channel


def window(size: int) -> tuple[Tensor, Tensor]:
    """Return frames [17, 2, S, S] and actions [16, 2] of one window, drawn by the global generator."""
    wall = torch.randint(20, 45, ()).float()
    door = torch.randint(10, 55, ()).float()
    position, actions = drawn(wall, door)
    positions = [position]
    for action in actions:
        end = positions[-1] + action
        positions.append(positions[-1] if blocked(positions[-1], end, wall, door) else end)
    dots = dot_pictures(torch.stack(positions), size)
    walls = wall_picture(wall, door, size).unsqueeze(0).repeat(len(dots), 1, 1)
    frames = normalized(torch.stack([dots, walls], 1).float())
    first = int(torch.randint(EPISODE + 1 - KEPT, ()))
    return frames[first : first + KEPT].clone(), actions[first : first + KEPT - 1]


def drawn(wall: Tensor, door: Tensor) -> tuple[Tensor, Tensor]:
    """Return the start [2] and the actions [90, 2] of an episode."""
    low, high = FREE
    start = low + (high - low) * torch.rand(2)
    if (start[0] - wall).abs() <= HALF_WALL and (start[1] - door).abs() > HALF_DOOR:
        left = torch.rand(()) < 0.5
        a, b = (low, wall - HALF_WALL) if left else (wall + HALF_WALL, high)
        start[0] = a + (b - a) * torch.rand(())
    actions = walk(2 * math.pi * torch.rand(()))
    if torch.rand(()) >= 0.35:
        return start, actions
    spread = HALF_DOOR / 1.4
    at = torch.stack([wall + 2 * torch.rand(()) - 1, door + 1.4 * float(truncnorm.rvs(-spread, spread))])
    heading, step = math.pi + (torch.rand(()) - 0.5) * math.pi / 2, int(torch.randint(1, EPISODE, ()))
    before, behind = walk(heading), walk(heading + math.pi)
    actions = torch.cat([-before[:step].flip(0), behind[: EPISODE - step]])
    if torch.rand(()) < 0.5:
        actions, step = -actions.flip(0), EPISODE - step
    return (at - actions[:step].sum(0)).clamp(low + 0.01, high - 0.01), actions


def walk(first: Tensor) -> Tensor:
    """Return actions [90, 2] whose headings begin with the first."""
    turns, headings = VonMises(torch.tensor(0.0), torch.tensor(5.0)), [first]
    for _ in range(EPISODE - 1):
        headings.append((headings[-1] + turns.sample()) % (2 * math.pi))
    angle = torch.stack(headings)
    length = truncnorm(-2.0, 2.0, loc=1.0, scale=0.4).rvs(EPISODE)
    return torch.stack([angle.cos(), angle.sin()], -1) * torch.tensor(length, dtype=torch.float32).unsqueeze(-1)


def blocked(start: Tensor, end: Tensor, wall: Tensor, door: Tensor) -> bool:
    """Return whether a step from start to end [2] meets the border, a face of the wall or an edge of the door."""
    border, faces, edges = [], [], []
    for axis in range(2):
        for side in FREE:
            border.append(torch.sign(start[axis] - side) * torch.sign(end[axis] - side) <= 0)
    step = end - start
    for face in (wall - HALF_WALL, wall + HALF_WALL):
        passes = torch.sign(start[0] - face) * torch.sign(end[0] - face) <= 0
        y = start[1] + (face - start[0]) / step[0] * step[1]
        faces.append(passes & ((y - door).abs() > HALF_DOOR))
    for edge in (door - HALF_DOOR, door + HALF_DOOR):
        left, right = torch.stack([wall - HALF_WALL, edge]), torch.stack([wall + HALF_WALL, edge])
        apart = turn(step, left - start) * turn(step, right - start) < 0
        edges.append(apart & (turn(right - left, start - left) * turn(right - left, end - left) < 0))
    return bool(torch.stack([*border, *faces, *edges]).any())


def turn(one: Tensor, other: Tensor) -> Tensor:
    """Return on which side of a vector [2] another one is, as the sign of a number."""
    return one[0] * other[1] - one[1] * other[0]


def pixels(size: int) -> Tensor:
    """Return the centers of pixels [S, S, 2], in units."""
    line = (torch.arange(size) + 0.5) * (65 / size) - 0.5
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)


def dot_pictures(positions: Tensor, size: int) -> Tensor:
    """Return pictures [T, S, S] of dots at positions [T, 2], whole numbers up to 255."""
    centers = pixels(size).unsqueeze(0).repeat(len(positions), 1, 1, 1)
    distance = (centers - positions[:, None, None]).norm(dim=-1)
    return (255 * torch.exp(-distance.pow(2) / (2 * 1.3 * 1.3))).clamp(0, 255).to(torch.uint8)


def wall_picture(wall: Tensor, door: Tensor, size: int) -> Tensor:
    """Return a picture [S, S] of the walls, 255 where they are."""
    x, y = pixels(size).unbind(-1)
    half = 32.5 / size  # so that a wall of whole units is seen at any size
    inner = ((x - wall).abs() <= HALF_WALL + half) & ((y - door).abs() > HALF_DOOR)
    rim = torch.stack([(line - side).abs() <= half for line in (x, y) for side in FREE]).any(0)
    return (255 * (inner | rim)).to(torch.uint8)


def normalized(frames: Tensor) -> Tensor:
    """Return frames [T, 2, S, S] from 0 to 1, each channel of each, and then by mean and deviation of its channel."""
    frames = frames - frames.amin((-2, -1), keepdim=True)
    frames = frames / (frames.amax((-2, -1), keepdim=True) + 1e-6)
    return (frames - MEAN.view(-1, 1, 1)) / (DEVIATION.view(-1, 1, 1) + 1e-6)
