"""From episodes that one sees to what a plan is made of: how they are encoded, and how far the goal is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jepa.planning.actions import Box
from jepa.planning.costs import Distance
from jepa.planning.level import Level, episodic
from jepa.static import OVERLAP, moving, separate


def toward(
    model: Any, acting: Any, horizon: int = 64, actions: int = 2, overlap: float = OVERLAP
) -> tuple[Callable[[Tensor], Tensor], Level]:
    """Return how a model sees episodes, and the level whose cost is the distance in s to their goals, for `control`.

    What stays the same in the present picture and in that of the goal is the map, which the predictor is bound to; the
    encoder is given what moves. Both are looked at once.

    Args: model: as `jepa.JEPA`, trained on frames without their static part and with maps; acting: B episodes
        (`jepa.worlds.base.Acting`); horizon: steps of a plan, of which a tree has its own number; actions: A; overlap:
        by how much a later picture may be darker than the map.
    Returns: encode, pictures [B, C, S, S] -> s [B, D]; and the level, with `rows`.
    Raises: ValueError as the model does; when called, `encode` where the map has moved.
    """
    static, _ = separate(torch.stack([acting.observe(), acting.goal], 1))

    @torch.no_grad()
    def encode(pictures: Tensor) -> Tensor:
        """Return s [B, D]."""
        return model.representation(moving(pictures.unsqueeze(1), static, overlap)[:, 0])

    with torch.no_grad():
        step, goal = model.bound(static), encode(acting.goal)
    return encode, episodic(Level(step, Distance(goal), horizon, Box(actions, norm=acting.limit)))
