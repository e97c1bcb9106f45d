"""Costs of plans that add up: (s̃ [B, K, T, D], a [B, K, T, A]) -> [B, K], each with `rows` to select episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

Over = Literal["sum", "last"]  # of the T imagined states: all, or the last one


class Module(Protocol):
    """A cost module (LeCun 2022, section 3.2)."""

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return costs [B, K] of states [B, K, T, D] and actions [B, K, T, A]."""

    def rows(self, index: Tensor) -> Module:
        """Return the module of the episodes index [n], which may repeat and leave out."""


@dataclass(frozen=True)
class Distance:
    """Σ_d (s̃_d − g_d)² to a goal, of the last state or summed over all: LeCun 2022, section 4.5, as for energies.

    Raises: ValueError for a goal that is not [B, D], or an unknown `over`; when called, for other states.
    """

    goal: Tensor  # [B, D], or [1, D] for one goal of all episodes
    over: Over = "last"

    def __post_init__(self) -> None:
        _check(self.over)
        if self.goal.dim() != 2:
            raise ValueError(f"goal: expected [B, D], found {list(self.goal.shape)}")

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return costs [B, K], in the squared unit of s."""
        if len(self.goal) not in (1, len(states)) or self.goal.shape[1] != states.shape[-1]:
            expected = f"[{len(states)} or 1, {states.shape[-1]}] for states {list(states.shape)}"
            raise ValueError(f"goal: expected {expected}, found {list(self.goal.shape)}")
        if self.over == "last":
            return (states[:, :, -1] - self.goal.unsqueeze(1)).square().sum(-1)
        return (states - self.goal[:, None, None]).square().sum((-1, -2))

    def rows(self, index: Tensor) -> Distance:
        """Return the distance of the episodes index [n]."""
        return self if len(self.goal) == 1 else Distance(self.goal[index], self.over)


@dataclass(frozen=True)
class Value:
    """What a trained critic, or the cost to go of `cost_to_go`, says of the last state, or summed over all.

    Raises: ValueError for an unknown `over`.
    """

    critic: Callable[[Tensor], Tensor]  # s [B, ..., D] -> [B, ...]; with `rows` where it differs between episodes
    over: Over = "last"

    def __post_init__(self) -> None:
        _check(self.over)

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return costs [B, K], in the critic's unit."""
        return self.critic(states[:, :, -1]) if self.over == "last" else self.critic(states).sum(-1)

    def rows(self, index: Tensor) -> Value:
        """Return the value of the episodes index [n]."""
        of: Any = getattr(self.critic, "rows", None)
        return self if of is None else Value(of(index), self.over)


@dataclass(frozen=True)
class Effort:
    """weight · Σ_t ‖a_t‖². Raises: ValueError for a negative weight."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight: expected a number of at least 0, found {self.weight}")

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return costs [B or 1, K], in the squared unit of a times that of the weight."""
        return self.weight * actions.square().sum((-1, -2))

    def rows(self, index: Tensor) -> Effort:
        """Return the same: effort is effort in every episode."""
        return self


@dataclass(frozen=True)
class Sum:
    """Σ_i w_i C_i, the intrinsic and the trained cost in one (LeCun 2022, equation 2)."""

    parts: tuple[tuple[float, Module], ...]

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return costs [B, K]."""
        total = states.new_zeros(states.shape[:2])
        for weight, module in self.parts:
            total = total + weight * module(states, actions)
        return total

    def rows(self, index: Tensor) -> Sum:
        """Return the sum of the episodes index [n]."""
        return Sum(tuple((weight, module.rows(index)) for weight, module in self.parts))


def weighted(*parts: tuple[float, Module]) -> Sum:
    """Return the sum of cost modules, each with its weight. Raises: ValueError without a module."""
    if not parts:
        raise ValueError("parts: expected at least one (weight, module), found none")
    return Sum(parts)


def to_go(value: Callable[[Tensor], Tensor]) -> Value:
    """Return the cost to go at the last state of a plan, as a module."""
    return Value(value, "last")


def _check(over: str) -> None:
    """Raises: ValueError for an unknown way to sum over time."""
    if over not in ("sum", "last"):
        raise ValueError(f"over: expected 'sum' or 'last', found {over!r}")
