"""One-step control: the proportional servo, and the best of a few moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from jepa.planning.actions import Box
from jepa.planning.level import Level, Plan, plan
from jepa.planning.minimizers import Descent, Tried


def servo(level: Level, s: Tensor, gain: float, generator: Generator) -> Plan:
    """Return the control a = −gain · ∂C/∂a at a = 0 of a plan of one step: one step of descent (LeCun 2022, 4.7).

    On the plant s' = s + a with C = ½ ‖s' − g‖² this is proportional control, a = gain · (g − s), and the closed loop
    s_t − g = (1 − gain)^t (s_0 − g). A control that would raise the cost, there a gain above 2, is not taken: a = 0.

    Args: level: its horizon is taken to be 1; s: [B, D]; gain: a² per unit of cost; generator: not drawn from.
    Returns: the plan of one action, cut off at its limits.
    Raises: ValueError for a gain ≤ 0, and as `plan` does.
    """
    if not gain > 0:
        raise ValueError(f"gain: expected a number above 0, found {gain}")
    return plan(level._replace(horizon=1), s, Descent(steps=1, rate=gain), generator)


def nearest(level: Level, s: Tensor, candidates: Tensor) -> Plan:
    """Return the plan of one step that is the best of given actions, argmin_k C(Pred(s, a_k), a_k).

    Args: level: its horizon is taken to be 1; s: [B, D]; candidates: [P, A], or [B, P, A] for actions of each episode's
        own, such as `moves`; the first of a tie is taken.
    Raises: ValueError without a candidate, and as `plan` does.
    """
    tried = Tried(candidates.unsqueeze(-2))
    return plan(level._replace(horizon=1), s, tried, Generator(s.device))


def moves(actions: Box, headings: int, lengths: Sequence[float]) -> Tensor:
    """Return candidate actions [1 + headings · lengths, 2] in the plane, first the one to stay.

    Args: actions: limits, of width 2; headings: evenly spaced directions; lengths: shares of the longest action.
    Raises: ValueError for another width, or headings below 1.
    """
    if actions.width != 2:
        raise ValueError(f"actions: expected width 2, found {actions.width}")
    if headings < 1:
        raise ValueError(f"headings: expected at least 1, found {headings}")
    angle = 2 * math.pi / headings * torch.arange(headings)
    farthest = actions.farthest(torch.stack([angle.cos(), angle.sin()], -1))
    return torch.cat([farthest.new_zeros(1, 2), *(length * farthest for length in lengths)])
