"""Conditions that a lower level pursues one after the other, in the world or in imagination: which are met.

A condition c_i is the state that an upper level asks for. It is met where ‖s − c_i‖ ≤ near; given up, where the
distance has not fallen for `stall` steps or `patience` steps are over, and then met all the same where it is ≤ missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PROGRESS = 1e-3  # share of `near` by which a distance has to fall to count as nearer


@dataclass(frozen=True)
class Rules:
    """When a condition is met and when it is given up, in the unit of s and in steps of the level that pursues it.

    Raises: ValueError for a number outside its range.
    """

    near: float = 1.0  # distance at which it is met
    missed: float = 2.0  # distance up to which one that is given up counts as met
    patience: int = 16  # steps after which it is given up
    stall: int = 3  # steps without getting nearer after which it is given up

    def __post_init__(self) -> None:
        if not 0 <= self.near <= self.missed:
            raise ValueError(f"near, missed: expected 0 ≤ near ≤ missed, found {self.near} and {self.missed}")
        for name in ("patience", "stall"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")


class Course:
    """The conditions of B episodes, and where in them each is."""

    def __init__(
        self, start: Tensor, states: Tensor, length: Tensor, rules: Rules, waits: Tensor | None = None
    ) -> None:
        """Args: start: [B, D] where it begins; states: [B, T, D] what is asked for; length: [B] how much of it; waits:
        [B, T] steps that each condition takes at least, None for none: one that is met sooner is waited out."""
        self.rules, self.start, self.states, self.length = rules, start.clone(), states.clone(), length.clone()
        self.waits = torch.zeros_like(states[..., 0], dtype=torch.long) if waits is None else waits.clone()
        zero, far = torch.zeros_like(length), torch.full_like(start[:, 0], torch.inf)
        self.at, self._wait, self._stalled, self._nearest = zero, zero.clone(), zero.clone(), far
        self.unmet = torch.zeros_like(length, dtype=torch.bool)
        self.mismatch = states.new_zeros(states.shape[:2])  # [B, T] distance at which a condition was left

    @property
    def active(self) -> Tensor:
        """Which episodes [B] have a condition to pursue."""
        return (self.at < self.length) & ~self.unmet

    def target(self, rows: Tensor) -> Tensor:
        """Return the present conditions [n, D] of active episodes."""
        return self.states[rows, self.at[rows]]

    def asked(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transitions of episodes [n], two of [n, D]: the condition before the present one, and that one."""
        at = self.at[rows]
        before = torch.where((at > 0).unsqueeze(-1), self.states[rows, (at - 1).clamp(min=0)], self.start[rows])
        return before, self.states[rows, at]

    def seen(self, rows: Tensor, s: Tensor) -> None:
        """Take note of where active episodes are after a step. Args: rows: [n]; s: [n, D]."""
        rules, distance = self.rules, (s - self.target(rows)).norm(dim=-1)
        nearer = distance < self._nearest[rows] - PROGRESS * rules.near
        self._wait[rows] += 1
        self._stalled[rows] = torch.where(nearer, 0, self._stalled[rows] + 1)
        self._nearest[rows] = distance.minimum(self._nearest[rows])
        over = (self._stalled[rows] >= rules.stall) | (self._wait[rows] >= rules.patience)
        met = (distance <= rules.near) | (over & (distance <= rules.missed))
        ready = self._wait[rows] >= self.waits[rows, self.at[rows]]
        done, failed = rows[met & ready], rows[over & ~met]
        self.mismatch[rows, self.at[rows]] = distance
        self.unmet[failed] = True
        self._next(done)

    def arrive(self, rows: Tensor, s: Tensor) -> None:
        """Take note of where active episodes end that had one plan for their present condition: it is met or not."""
        distance = (s - self.target(rows)).norm(dim=-1)
        self.mismatch[rows, self.at[rows]] = distance
        met = distance <= self.rules.missed
        self.unmet[rows[~met]] = True
        self._next(rows[met])

    def skip(self, rows: Tensor) -> None:
        """Go on to the next condition, though the present one is not met."""
        self.unmet[rows] = False
        self._next(rows)

    def drop(self, rows: Tensor) -> None:
        """Leave what is asked for in some episodes [n]."""
        self.length[rows], self.unmet[rows] = 0, False

    def replace(self, rows: Tensor, start: Tensor, states: Tensor, length: Tensor, waits: Tensor | None = None) -> None:
        """Begin anew in some episodes [n]. Args: as when it is made."""
        steps = max(self.states.shape[1], states.shape[1])
        self.states, new = (_longer(part, steps) for part in (self.states, states))
        waits = torch.zeros_like(new[..., 0], dtype=torch.long) if waits is None else waits
        self.mismatch, self.waits, waits = (
            torch.nn.functional.pad(part, (0, steps - part.shape[1])) for part in (self.mismatch, self.waits, waits)
        )
        self.waits[rows] = waits
        self.states[rows], self.start[rows], self.length[rows] = new, start, length
        self.unmet[rows], self.mismatch[rows], self.at[rows] = False, 0, 0
        self._restart(rows)

    def _next(self, rows: Tensor) -> None:
        self.at[rows] += 1
        self._restart(rows)

    def _restart(self, rows: Tensor) -> None:
        self._wait[rows], self._stalled[rows], self._nearest[rows] = 0, 0, torch.inf


def _longer(states: Tensor, steps: int) -> Tensor:
    """Return states [B, T, D] with as many steps more as are missing."""
    return torch.nn.functional.pad(states, (0, 0, 0, steps - states.shape[1]))
