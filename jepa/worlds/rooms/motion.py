"""How a dot moves among boxes: whole segments against whole boxes, so that nothing tunnels at any speed.

The segment p + t · (e − p), t ∈ [0, 1], meets a box where it is between both pairs of the box's faces at once (the slab
test of Kay and Kajiya 1986): max_i t_in,i ≤ min_i t_out,i over the axes i. Whether a segment reaches a face is decided
by comparing its ends with the face, which is exact in floating point; only which of two faces comes first is rounded.
The border is four more boxes without end.

Touching counts as hitting, except for a dot on a surface that moves away from it.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from jepa.worlds.rooms.layouts import Layouts

COLLISIONS = ("stay", "push", "slide")
NOISE = 0.5  # standard deviation of the published push, per axis, in units
CLEARANCE = 0.3  # how far from border and walls a push ends at least, in units
GAP = 2.0**-10  # how far from a wall a dot stops that slides along it, in units


def move(
    layouts: Layouts, position: Tensor, action: Tensor, collisions: str, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return where dots get by one step, and whether something was in their way.

    stay: a step that touches a wall or the border leaves the dot where it is (the published rule of training data).
    push: the dot goes to the first point of contact p_c and is pushed off (the published rule of evaluation):
        p_c + ε, ε ~ N(0, 0.5²) per axis, the component normal to what was hit turned away from it. It ends at least 0.3
        from border and walls and on the same side of every wall. In the published code only a push that would end on or
        behind a wall or border ends 0.3 before it, others may end nearer; here the normal component is at least 0.3,
        and a push goes along whatever it meets. Random steps of up to 2.45 units are blocked in the same cases.
    slide: the dot stops 2⁻¹⁰ before the point of contact, and the rest of its step goes along the wall.

    A dot on a surface, or less than 2⁻¹⁰ from one, is moved 2⁻¹⁰ away before it is pushed or slides.

    Args: position, action: [B, 2] in units; collisions: one of these names; generator: of a push, on its device.
    Returns: position [B, 2] in units; blocked [B], bool.
    Raises: ValueError for shapes that do not fit, numbers that are not finite, a dot within a wall or beyond the
        border, an unknown name or a push without a generator.
    """
    positions, blocked = walk(layouts, position, action.unsqueeze(1), collisions, generator)
    return positions[:, 1], blocked[:, 0]


def walk(
    layouts: Layouts, start: Tensor, actions: Tensor, collisions: str, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return the ways of dots that take T steps, each as in `move`.

    Args: start: [B, 2] in units; actions: [B, T, 2] in units; collisions, generator: as for `move`.
    Returns: positions [B, T+1, 2] in units, the start first; blocked [B, T], bool.
    Raises: ValueError as `move`.
    """
    _check(layouts, start, actions, collisions, generator)
    boxes, positions, blocked = _columns(obstacles(layouts)), [_columns(start)], []
    reach = (layouts.bounds[:, 2:] - layouts.bounds[:, :2]).sum(-1, keepdim=True)
    # a longer step meets the border first anyway; short of it no intermediate number is too large
    actions = actions / (actions.abs().amax(-1, keepdim=True) / reach.unsqueeze(1)).clamp(min=1)
    for action in _columns(actions).unbind(1):
        if collisions == "stay":
            end = positions[-1] + action
            hit = touches(boxes, positions[-1], end).any(1)
            position = torch.where(hit.unsqueeze(-1), positions[-1], end)
        elif collisions == "slide":
            position, hit = _slide(boxes, positions[-1], action)
        else:
            position, hit = _push(boxes, positions[-1], action, generator)
        positions.append(position)
        blocked.append(hit)
    return torch.stack(positions, 1), torch.stack(blocked, 1)


def obstacles(layouts: Layouts) -> Tensor:
    """Return all that blocks a dot, boxes [B, W + 4, 4]: the walls, and what is beyond each side of the border."""
    x0, y0, x1, y1 = layouts.bounds.unbind(-1)
    end = torch.full_like(x0, torch.inf)
    sides = ((-end, -end, x0, end), (x1, -end, end, end), (-end, -end, end, y0), (-end, y1, end, end))
    return torch.cat([layouts.solids, torch.stack([torch.stack(side, -1) for side in sides], 1)], 1)


def within(boxes: Tensor, points: Tensor, margin: float = 0.0) -> Tensor:
    """Return whether points [B, 2] are in the interiors of boxes [B, W, 4] made `margin` larger each way, [B, W]."""
    points = points.unsqueeze(1)
    return ((points > boxes[..., :2] - margin) & (points < boxes[..., 2:] + margin)).all(-1)


def touches(boxes: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return whether segments from start to end [B, 2] touch boxes [B, W, 4], other than to leave them, [B, W]."""
    return _contacts(boxes, start, end)[0]


def _contacts(boxes: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether segments hit boxes [B, W], and the fractions of the segments at which they get between the faces
    of each axis [B, W, 2], −∞ where they always are."""
    p, e, low, high = start.unsqueeze(1), end.unsqueeze(1), boxes[..., :2], boxes[..., 2:]
    d = e - p
    ahead, back, still = d > 0, d < 0, d == 0
    misses = (torch.minimum(p, e) > high) | (torch.maximum(p, e) < low)
    apart = misses | ((p >= high) & ahead) | ((p <= low) & back)  # or it leaves
    near, far = torch.where(ahead, low, high), torch.where(ahead, high, low)
    step = torch.where(still, 1.0, d)
    enter = torch.where(still, -torch.inf, (near - p) / step)
    leave = torch.where(still, torch.inf, (far - p) / step)
    inside = (e >= low) & (e <= high)  # exact, where the comparison of fractions is rounded
    meets = torch.maximum(*enter.unbind(-1)) <= torch.minimum(*leave.unbind(-1))
    return (meets | (inside[..., 0] & inside[..., 1])) & ~(apart[..., 0] | apart[..., 1]), enter


def _columns(numbers: Tensor) -> Tensor:
    """Return the same numbers, those of the first axis side by side in memory: operations on few boxes are faster."""
    axes = tuple(range(numbers.ndim))[::-1]
    return numbers.permute(axes).contiguous().permute(axes)


def _first(boxes: Tensor, start: Tensor, end: Tensor, gap: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return hit [B], the axis [B] of the face that is hit first, and the point [B, 2] `gap` off it."""
    hits, enter = _contacts(boxes, start, end)
    time, axis = enter.max(-1)
    time, box = torch.where(hits, time, torch.inf).min(1)
    hit, rows = hits.any(1), torch.arange(len(boxes), device=boxes.device)
    axis, ahead = axis[rows, box], end > start
    point = start + torch.where(hit, time, 0.0).clamp(0, 1).unsqueeze(-1) * (end - start)
    face = torch.where(ahead, boxes[rows, box, :2] - gap, boxes[rows, box, 2:] + gap)
    normal = torch.nn.functional.one_hot(axis, 2).bool() & hit.unsqueeze(-1)
    return hit, axis, torch.where(normal, face, point)  # the face itself: never a rounding error behind it


def cleared(boxes: Tensor, points: Tensor, gap: float) -> Tensor:
    """Return points [B, 2] outside boxes, moved out to `gap` from those that are nearer, each the shortest way."""
    near = within(boxes, points, gap)
    rows = near.any(1).nonzero()[:, 0]
    if not len(rows):  # most points are clear of all boxes
        return points
    some, moved = boxes[rows], points[rows]
    at, low, high = torch.arange(len(rows), device=boxes.device), some[..., :2] - gap, some[..., 2:] + gap
    faces, near = torch.cat([low, high], -1), near[rows]  # [n, W, 4] one of which a point goes to
    for again in range(3):  # out of one box may be near another: a corner has two walls
        near = within(some, moved, gap) if again else near
        ways = (faces - moved.repeat(1, 2).unsqueeze(1)).abs()
        way, face = torch.where(near.unsqueeze(-1), ways, torch.inf).flatten(1).min(1)
        goal = faces.flatten(1)[at, face].unsqueeze(-1)
        out = torch.nn.functional.one_hot(face % 2, 2).bool() & way.isfinite().unsqueeze(-1)
        moved = torch.where(out, goal, moved)
    return points.index_copy(0, rows, moved)


def _slide(boxes: Tensor, position: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return where dots get that slide along what they hit, and whether they hit anything."""
    position = cleared(boxes, position, GAP)
    end, blocked = position + step, torch.zeros_like(position[:, 0], dtype=torch.bool)
    rows = torch.arange(len(boxes), device=boxes.device)  # of dots that hit something each time so far
    for last in (False, False, True):  # two walls stop a dot in the plane
        some, to = boxes[rows], end[rows]
        hit, axis, point = _first(some, position[rows], to, GAP)
        rows, some, axis, point, to = (part[hit] for part in (rows, some, axis, point, to))
        if not len(rows):
            break
        blocked[rows] = True
        if not last:
            point = cleared(some, point, GAP)  # in a corner, rounding may have put it behind the other wall
            position = position.index_copy(0, rows, point)
            point = torch.where(torch.nn.functional.one_hot(axis, 2).bool(), point, to)
        end = end.index_copy(0, rows, point)
    return end, blocked


def _push(boxes: Tensor, position: Tensor, step: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return where dots get that are pushed off what they hit, and whether they hit anything."""
    noise = NOISE * torch.randn(step.shape, generator=generator, device=generator.device, dtype=step.dtype)
    position = cleared(boxes, position, GAP)
    end = position + step
    hit, axis, contact = _first(boxes, position, end, 0.0)
    normal, away = torch.nn.functional.one_hot(axis, 2).bool(), torch.where(end > position, -1.0, 1.0)
    rest = torch.where(normal, away * (noise.abs() - CLEARANCE).clamp(min=0), noise)
    # among boxes that are 0.3 larger, from 0.3 off the face
    larger = boxes + CLEARANCE * torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=boxes.dtype, device=boxes.device)
    pushed, _ = _slide(larger, contact, rest)
    return torch.where(hit.unsqueeze(-1), pushed, end), hit


def _check(layouts: Layouts, start: Tensor, actions: Tensor, collisions: str, generator: Generator | None) -> None:
    """Raises: ValueError for what `walk` refuses."""
    count = len(layouts.bounds)
    if collisions not in COLLISIONS:
        raise ValueError(f"collisions: expected one of {', '.join(COLLISIONS)}, found {collisions!r}")
    if collisions == "push" and generator is None:
        raise ValueError("generator: expected one, for a push is random, found None")
    if start.shape != (count, 2):
        raise ValueError(f"position: expected [{count}, 2], found {list(start.shape)}")
    if actions.ndim != 3 or actions.shape[::2] != (count, 2) or actions.shape[1] < 1:
        raise ValueError(f"action: expected [{count}, T, 2], found {list(actions.shape)}")
    for name, value in (("position", start), ("action", actions)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, found {value[~value.isfinite()][0].item()}")
    check_free(layouts, start, "position")


def check_free(layouts: Layouts, points: Tensor, name: str) -> None:
    """Raises: ValueError for points [B, 2] within a wall or beyond the border."""
    inside = within(obstacles(layouts), points).any(1)
    if bool(inside.any()):
        what = ", ".join(f"{value:g}" for value in points[inside][0].tolist())
        raise ValueError(f"{name}: expected points outside of walls and between the borders, found ({what})")
