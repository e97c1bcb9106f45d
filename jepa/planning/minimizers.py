"""The minimizers of latents as planning calls them; `cem` and `mppi` need only `functools.partial`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jepa.minimize import Cost, Minimum, exhaustive, gradient
from jepa.minimize.base import Project


@dataclass(frozen=True)
class Descent:
    """Projected gradient descent from the start and from restarts around it; no plan on the way leaves its limits.

    Raises: ValueError for `restarts` below 1 or a negative `spread`.
    """

    steps: int = 50
    rate: float = 0.1  # the first step size, in units of a² per unit of cost
    restarts: int = 1  # the first is the start itself
    spread: float = 1.0  # standard deviation of the others, in the unit of a

    def __post_init__(self) -> None:
        if self.restarts < 1:
            raise ValueError(f"restarts: expected at least 1, found {self.restarts}")
        if not self.spread >= 0:
            raise ValueError(f"spread: expected a number of at least 0, found {self.spread}")

    def __call__(self, cost: Cost, start: Tensor, generator: Generator, project: Project) -> Minimum:
        """Return the minimum after steps + 1 evaluations per restart."""
        first = start.unsqueeze(1)
        size = (len(start), self.restarts - 1, start.shape[1])
        apart = torch.randn(size, generator=generator, dtype=start.dtype, device=start.device)
        points = torch.cat([first, first + self.spread * apart], 1)
        return gradient(cost, points, self.steps, self.rate, project=project)


@dataclass(frozen=True)
class Tried:
    """The best of given plans [P, T, A], or [B, P, T, A] for plans of each episode's own; neither start nor chance."""

    candidates: Tensor

    def __call__(self, cost: Cost, start: Tensor, generator: Generator, project: Project) -> Minimum:
        """Return the minimum over the candidates, each moved to where it is allowed."""
        plans = self.candidates.flatten(-2).to(start)
        plans = plans if plans.dim() == 3 else plans.expand(len(start), *plans.shape)
        return exhaustive(cost, project(plans))
