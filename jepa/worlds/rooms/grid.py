"""Grids of rooms: walls with a door each between neighbors, some of them shut, as another layout of the same world.

Rooms are 8 units wide and high, walls 1 thick, doors 3 wide; a wall blocks where it is drawn. The open doors are those
of a spanning tree, so that a way leads from every room to every other, and each other door with a given probability. Of
these others some may be shut *gates*: they block like a wall and are drawn like one, but a map shows them open.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from jepa.worlds.rooms.layouts import Layouts, at_least_one

ROOM = 8.0  # units from wall to wall
WALL = 1.0  # thickness of a wall, in units
DOOR = 3.0  # width of a door, in units
OFFSET = 1.5  # how far a door is from the middle of its wall at most, in units
LOOPS = 0.8  # probability of a door that the tree does not need


def grid(count: int, rows: int, columns: int, generator: Generator, loops: float = LOOPS, shut: float = 0.0) -> Layouts:
    """Return layouts of rows × columns rooms, drawn on the generator's device.

    The bounds go from (0, 0) to the far walls; a picture shows a square with the outer walls and, in a grid that is no
    square, empty space beyond. Doors come in the order of `neighbors`, shut ones too: a shut door is a box like a wall,
    an open one a box without area outside the bounds.

    Args: count: B; loops: probability of a door that no way needs; shut: probability that such a door is a shut gate.
    Raises: ValueError for count, rows or columns < 1, or loops or shut outside of [0, 1].
    """
    at_least_one(count)
    if rows < 1 or columns < 1 or not (0 <= loops <= 1 and 0 <= shut <= 1):
        found = f"{rows}, {columns}, {loops} and {shut}"
        raise ValueError(f"rows, columns, loops, shut: expected at least 1, 1 and two probabilities, found {found}")
    pairs = neighbors(rows, columns, generator.device)
    offset, luck = torch.rand(2, count, len(pairs), generator=generator, device=generator.device)
    tree = spanning_tree(count, rows * columns, pairs, generator)
    opened, gates = tree | (luck < loops * (1 - shut)), ~tree & (luck >= loops * (1 - shut)) & (luck < loops)
    return built(rows, columns, offset, opened, gates)


def built(rows: int, columns: int, offset: Tensor, opened: Tensor, gates: Tensor) -> Layouts:
    """Return the layouts of given doors.

    Args: offset: [B, E] where the doors are in their walls, from 0 to 1, in the order of `neighbors`; opened: [B, E]
        which are open, bool; gates: [B, E] which of the others are shut gates, bool.
    """
    count, pairs = len(offset), neighbors(rows, columns, offset.device)
    center, beside = _centers(pairs, columns), pairs[:, 0] // columns == pairs[:, 1] // columns
    along = torch.where(beside.unsqueeze(1), center.new_tensor([0.0, 1.0]), center.new_tensor([1.0, 0.0]))
    doors = center + (OFFSET * (2 * offset - 1)).unsqueeze(-1) * along
    size = torch.tensor([columns, rows], device=offset.device) * (ROOM + WALL) - WALL
    solids = _solids(center, along, doors, opened)
    frame = torch.cat([torch.zeros_like(size), size]).expand(count, 4)
    side = float(size.max()) + WALL
    extent = size.new_tensor([-WALL, -WALL, side, side]).expand(count, 4)
    drawn = torch.cat([solids, _outline(size).expand(count, 4, 4)], 1)
    return Layouts(frame, solids, drawn, doors, opened, gates, extent)


def mapped(layouts: Layouts, hidden: Tensor | None = None) -> Layouts:
    """Return grids of rooms as a map shows them: shut gates look open. Args: hidden: [B, E] bool, of which gates."""
    hidden = layouts.gates if hidden is None else layouts.gates & hidden
    doors = layouts.doors.shape[1]

    def removed(boxes: Tensor) -> Tensor:
        """Return boxes [B, W, 4] without those of the hidden gates, which come after the 2 E walls beside doors."""
        shown = boxes[:, 2 * doors : 3 * doors]
        shown = torch.where(hidden.unsqueeze(-1), torch.full_like(shown, -WALL / 2), shown)
        return torch.cat([boxes[:, : 2 * doors], shown, boxes[:, 3 * doors :]], 1)

    return layouts._replace(
        solids=removed(layouts.solids),
        drawn=removed(layouts.drawn),
        open=layouts.open | hidden,
        gates=layouts.gates & ~hidden,
    )


def neighbors(rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Return which rooms share a wall, [E, 2], numbered row by row: first those side by side."""
    rooms = torch.arange(rows * columns, device=device).view(rows, columns)
    beside = torch.stack([rooms[:, :-1].flatten(), rooms[:, 1:].flatten()], 1)
    below = torch.stack([rooms[:-1].flatten(), rooms[1:].flatten()], 1)
    return torch.cat([beside, below])


def spanning_tree(count: int, rooms: int, pairs: Tensor, generator: Generator) -> Tensor:
    """Return the edges [count, E] of trees that span all rooms, bool: of least weight for uniform weights.

    Args: pairs: [E, 2] of int64, which rooms are neighbors.
    """
    weight = torch.rand(count, len(pairs), generator=generator, device=generator.device)
    return least_tree(weight, rooms, pairs)


def least_tree(weight: Tensor, rooms: int, pairs: Tensor) -> Tensor:
    """Return the edges [B, E] of the trees of least weight that span all rooms, bool (Prim 1957).

    Args: weight: [B, E], below the largest number of its type; pairs: [E, 2] of int64, which rooms are neighbors.
    """
    count, device = len(weight), weight.device
    largest = torch.inf if weight.is_floating_point() else torch.iinfo(weight.dtype).max
    reached = torch.zeros(count, rooms, dtype=torch.bool, device=device)
    reached[:, 0] = True
    tree, rows = torch.zeros_like(weight, dtype=torch.bool), torch.arange(count, device=device)
    for _ in range(rooms - 1):
        leads_out = reached[:, pairs[:, 0]] ^ reached[:, pairs[:, 1]]
        edge = weight.masked_fill(~leads_out, largest).argmin(1)
        tree[rows, edge] = True
        reached[rows.unsqueeze(1), pairs[edge]] = True
    return tree


def _centers(pairs: Tensor, columns: int) -> Tensor:
    """Return the middles of the walls between rooms [E, 2], in units."""
    places = torch.stack([pairs % columns, pairs // columns], -1) * (ROOM + WALL) + ROOM / 2
    return places.mean(1)


def _solids(center: Tensor, along: Tensor, doors: Tensor, opened: Tensor) -> Tensor:
    """Return the boxes of all inner walls [B, 3 E, 4]: before the door, behind it, and the door if it is shut."""
    thick = (1 - along) * WALL / 2
    end = along * (ROOM / 2 + WALL)  # with the posts at both ends
    low, high = (center - end).expand_as(doors), (center + end).expand_as(doors)
    left, right = doors - along * DOOR / 2, doors + along * DOOR / 2
    before, behind = torch.cat([low - thick, left + thick], -1), torch.cat([right - thick, high + thick], -1)
    gate = torch.cat([left - thick, right + thick], -1)
    nowhere = torch.full_like(gate, -WALL / 2)
    return torch.cat([before, behind, torch.where(opened.unsqueeze(-1), nowhere, gate)], 1)


def _outline(size: Tensor) -> Tensor:
    """Return the four outer walls as they are drawn, [4, 4]."""
    x, y = size.tolist()
    boxes = [
        (-WALL, -WALL, 0, y + WALL),
        (x, -WALL, x + WALL, y + WALL),
        (-WALL, -WALL, x + WALL, 0),
        (-WALL, y, x + WALL, y + WALL),
    ]
    return size.new_tensor(boxes)
