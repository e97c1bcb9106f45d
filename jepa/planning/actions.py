"""What an action may be: within limits per dimension, within a length, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

Limit = float | Sequence[float] | None


@dataclass(frozen=True)
class Box:
    """The actions a [A] with low ≤ a ≤ high in every dimension and a Euclidean length of at most `norm`.

    Raises: ValueError for a width below 1, limits of another width, low > high, norm ≤ 0, or limits beside a norm that
    leave out the action 0.
    """

    width: int  # A
    low: Limit = None  # per dimension, a number for all; None without
    high: Limit = None
    norm: float | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width: expected at least 1, found {self.width}")
        for name in ("low", "high"):
            limit = getattr(self, name)
            if isinstance(limit, Sequence) and len(limit) != self.width:
                raise ValueError(f"{name}: expected {self.width} numbers, found {len(limit)}")
        low, high = self._limits(torch.empty(0, dtype=torch.float64))
        if not (low <= high).all():
            raise ValueError(f"low: expected at most high {self.high}, found {self.low}")
        if self.norm is None:
            return
        if not self.norm > 0:
            raise ValueError(f"norm: expected a number above 0, found {self.norm}")
        if not ((low <= 0) & (high >= 0)).all():
            raise ValueError(f"low: expected limits around 0 beside a norm, found {self.low} to {self.high}")

    def project(self, a: Tensor) -> Tensor:
        """Return the actions [..., A] moved to where they are allowed: clipped, then shortened; those that are stay.

        The length is never exceeded, not even by rounding. With both kinds of limits this is not the nearest action.

        Raises: ValueError for another width.
        """
        if a.shape[-1] != self.width:
            raise ValueError(f"a: expected {self.width} numbers on the last axis, found {a.shape[-1]}")
        if self.low is not None or self.high is not None:
            a = a.clamp(*self._limits(a))
        if self.norm is None:
            return a
        length = a.norm(dim=-1, keepdim=True)
        shrunk = self.norm * (1 - (self.width + 2) * torch.finfo(a.dtype).eps)
        return torch.where(length > self.norm, a * (shrunk / length.clamp(min=self.norm)), a)

    def farthest(self, direction: Tensor) -> Tensor:
        """Return the longest allowed multiple [..., A] of each direction [..., A], starting from the action 0.

        Raises: ValueError where nothing limits a direction (on an accelerator the result is not finite instead).
        """
        low, high = self._limits(direction)
        per = torch.where(direction > 0, high, low) / direction
        scale = torch.where(direction == 0, torch.inf, per).amin(-1, keepdim=True).clamp(min=0)
        if self.norm is not None:
            scale = torch.minimum(scale, self.norm / direction.norm(dim=-1, keepdim=True))
        if direction.device.type == "cpu" and not scale.isfinite().all():
            raise ValueError("actions: expected limits in every direction, found none in some")
        return self.project(scale * direction)

    def sample(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Return uniformly drawn actions [*shape, A]; with both kinds of limits, drawn per dimension and shortened.

        Raises: ValueError where no limit is there to be uniform within.
        """
        like = torch.empty(0, device=generator.device)
        low, high = self._limits(like)
        uniform = torch.rand(*shape, self.width, generator=generator, device=generator.device)
        if (high - low).isfinite().all():
            return self.project(low + (high - low) * uniform)
        if self.norm is None or low.isfinite().any() or high.isfinite().any():
            raise ValueError("actions: expected limits on both sides or a norm alone, found neither")
        direction = torch.randn(*shape, self.width, generator=generator, device=generator.device)
        radius = self.norm * uniform[..., :1] ** (1 / self.width)
        return self.project(radius * torch.nn.functional.normalize(direction, dim=-1))

    def _limits(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return low and high [A], infinite where there is none, in the type of a tensor."""
        limits = (-torch.inf if self.low is None else self.low, torch.inf if self.high is None else self.high)
        low, high = (torch.as_tensor(limit, dtype=like.dtype, device=like.device) for limit in limits)
        return low.expand(self.width), high.expand(self.width)
