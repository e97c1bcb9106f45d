"""What a world model knows: of the position, of the walls, of what comes next, and whether walls let it through."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa.evaluate.acting import Acting, needed
from jepa.evaluate.subject import Row
from jepa.measures.probes import Probe
from jepa.predictors import rollout
from jepa.trajectory_monitor import signs
from jepa.worlds.rooms.layouts import FREE, HALF_DOOR, HALF_WALL, two_rooms

HORIZONS = (1, 8, 16, 32)  # steps
# kind -> units beyond the door's edge
WALKS = {"far": (4.0, 12.0), "near": (1.0, 4.0), "edge": (0.2, 1.0), "door": (-3.0, 0.0)}
STEPS = 12  # of a straight walk
PACE = 0.8  # of the longest step
CHUNK = 480  # layouts at a time
PENALTY = 3e-2  # of the probe of walls: there is next to nothing to read


@torch.no_grad()
def code(subject: Acting, layouts: int = 8192) -> list[Row]:
    """Return how exactly the position is read from s, what s holds of the layout, and what the monitor would see.

    `position_rmse` is per coordinate, in units. The R² of wall and door are of a probe that learns on one half of
    `layouts` and is tested on the other; where all walls are the same there are none.
    """
    needed("code", subject)
    s, half = subject.s, subject.half
    error = subject.read(s[half:]) - subject.trajectories.factors["position"][half:]
    found = signs(s, subject.trajectories.a)
    return [
        Row("position_rmse", float(error.square().mean().sqrt())),
        *_walls(subject, layouts),
        *(Row(f"code_{name}", getattr(found, name)) for name in ("spread", "within", "driven")),
    ]


def _walls(subject: Acting, count: int) -> list[Row]:
    """Return how well wall and door are read from s, of two dots in each layout that know nothing of its walls.

    They are uniform between the borders: in trajectories many dots start near a wall, and where they are says where
    the wall is.
    """
    generator = subject.stream("layouts of codes")
    layouts = subject.world.layouts(count, generator)
    targets = layouts.doors[:, 0]  # [N, 2], of a wall and of its door
    if not bool((targets != targets[:1]).any()):
        return []
    positions = FREE[0] + (FREE[1] - FREE[0]) * torch.rand(count, 2, 2, generator=generator)
    parts = []
    for index in torch.arange(count).split(CHUNK):
        frames, _ = subject.seen(layouts.rows(index), positions[index])
        parts.append(subject.model.representation(frames.flatten(0, 1)))
    s, targets, half = torch.cat(parts), targets.repeat_interleave(2, 0), count // 2 * 2
    r2 = Probe(s[:half], targets[:half], subject.probe, PENALTY).r2(s[half:], targets[half:])
    return [Row(f"{name}_r2", float(value)) for name, value in zip(("wall", "door"), r2, strict=True)]


@torch.no_grad()
def unrolling(subject: Acting) -> list[Row]:
    """Return the error of roll-outs from the first frame, read by the probe: RMSE per coordinate and median, in units.

    Beside it stands that of staying where one is.
    """
    needed("unrolling", subject)
    batch, start = subject.trajectories, subject.half
    step = subject.model.bound(batch.static[start // subject.world.group :])
    s, a = subject.s[start:, :1], batch.a[start:].unsqueeze(1)
    imagined = subject.read(rollout(step, s, a, s.new_zeros(1, 1, a.shape[2], 0))[:, 0])
    truth = batch.factors["position"][start:]
    error, still = imagined - truth[:, 1:], truth[:, :1] - truth[:, 1:]
    rows = []
    for step in HORIZONS:
        found, stay = error[:, step - 1], still[:, step - 1]
        rows.append(Row(f"unroll_rmse_{step}", float(found.square().mean().sqrt())))
        rows.append(Row(f"unroll_median_{step}", float(found.norm(dim=-1).median())))
        rows.append(Row(f"still_rmse_{step}", float(stay.square().mean().sqrt())))
    return rows


@torch.no_grad()
def leaks(subject: Acting, walks: int = 600) -> list[Row]:
    """Return how often an imagined straight walk gets through a closed wall, by distance from the door's edge.

    `leak_far` 4 to 12 units beyond it, `leak_near` 1 to 4, `leak_edge` 0.2 to 1; in the world itself it is never.
    `door_passed` is how often it gets through the open door, which in the world is always.
    Args: walks: of each kind, on layouts of their own.
    """
    needed("leaks", subject)
    rows = []
    for name, (low, high) in WALKS.items():
        generator = subject.stream(f"walks {name}")
        passed = _passed(subject, walks, low, high, generator)
        rows.append(Row("door_passed" if name == "door" else f"leak_{name}", float(passed.double().mean()), walks))
    return rows


def _passed(subject: Acting, count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return whether walks [N] at a wall, from `low` to `high` units beyond the door's edge, end behind it."""

    def uniform(first: Tensor | float, last: Tensor | float) -> Tensor:
        """Return numbers [N] between two."""
        return first + (last - first) * torch.rand(count, generator=generator)

    layouts = subject.world.layouts(count, generator)
    wall, door = layouts.doors[:, 0].unbind(-1)
    above, below = door - HALF_DOOR - FREE[0], FREE[1] - door - HALF_DOOR  # room on both sides of the door
    down = torch.where(torch.minimum(above, below) < high + 1, below > above, uniform(0, 1) < 0.5)
    beyond = uniform(low, torch.minimum(torch.where(down, below, above) - 0.5, torch.tensor(high)))
    y = door + torch.where(down, 1.0, -1.0) * (HALF_DOOR + beyond)
    side = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    x = wall + side * (HALF_WALL + uniform(2.0, 10.0))
    start = torch.stack([x, y], -1)
    far = torch.stack([wall - side * (wall - 12).abs().clamp(6, 12), uniform(8, 56)], -1)  # a second picture's dot
    frames, static = subject.seen(two_rooms(wall, door), torch.stack([start, far], 1))
    a = start.new_zeros(count, 1, STEPS, 2)
    a[..., 0] = -(side * PACE * subject.world.step_limit)[:, None, None]
    s = subject.model.representation(frames[:, 0]).unsqueeze(1)
    ends = subject.read(rollout(subject.model.bound(static), s, a, s.new_zeros(1, 1, STEPS, 0))[:, 0])
    return ((ends[..., 0] - wall.unsqueeze(1)) * side.unsqueeze(1) < -HALF_WALL).any(1)
