"""A continuous latent of few dimensions: the set of predictions is a manifold no wider (LeCun 2022, section 4.5)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from jepa.latents.interface import LatentVariable
from jepa.minimize import Cost, Minimum, exhaustive, gradient


class LowDimensional(LatentVariable):
    """z ∈ R^d with R(z) = α ‖z‖²: its dimension is what limits it, α only keeps it bounded."""

    def __init__(
        self, size: int, alpha: float = 0.0, starts: int = 64, restarts: int = 1, steps: int = 10, rate: float = 0.1
    ) -> None:
        """Args: size: d; alpha: weight of ‖z‖² in units of energy; starts: fixed points among which the best
        `restarts` begin gradient descent; steps, rate: of the descent (`jepa.minimize.gradient`).

        Raises: ValueError for size < 1, alpha < 0, or more restarts than starts.
        """
        super().__init__()
        if size < 1:
            raise ValueError(f"size: expected at least 1 dimension, found {size} (for no latent use 'none')")
        if not alpha >= 0:
            raise ValueError(f"alpha: expected a number of at least 0, found {alpha}")
        if not 1 <= restarts <= starts:
            raise ValueError(f"restarts: expected 1 to starts = {starts}, found {restarts}")
        self.width, self.alpha, self.codes = size, alpha, None
        self.restarts, self.steps, self.rate = restarts, steps, rate
        self.register_buffer("points", _spread(starts, size), persistent=False)

    @property
    def bits(self) -> float:
        """Infinity: a real number holds any amount."""
        return math.inf

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return samples [*shape, d] of the normal density exp(−α ‖z‖²), variance 1 / (2 α).

        Raises: ValueError for alpha = 0, where the density has no finite integral.
        """
        if self.alpha == 0:
            raise ValueError("alpha: expected a number above 0 to sample from exp(−R), found 0")
        noise = torch.randn(*shape, self.width, generator=generator, device=self.points.device)
        return noise / math.sqrt(2 * self.alpha)

    def regularize(self, z: Tensor) -> Tensor:
        """Return α ‖z‖² [...]."""
        return self.alpha * z.square().sum(-1)

    def infer(self, cost: Cost) -> Minimum:
        """Return the end of gradient descent from the best of the fixed starts."""
        first = exhaustive(cost, self.points.unsqueeze(0)) if self.restarts == 1 else None
        start = first.argmin.unsqueeze(1) if first else self._best_starts(cost)
        last = gradient(cost, start, self.steps, self.rate)
        return last._replace(trace=torch.cat([first.trace, last.trace])) if first else last

    @torch.no_grad()
    def _best_starts(self, cost: Cost) -> Tensor:
        """Return the `restarts` cheapest fixed starts of every problem, [B, R, Z]."""
        return self.points[cost(self.points.unsqueeze(0)).topk(self.restarts, dim=1, largest=False).indices]


def _spread(count: int, size: int) -> Tensor:
    """Return `count` fixed points [count, size] spread like a standard normal: Sobol's, through its quantiles."""
    uniform = torch.quasirandom.SobolEngine(size, scramble=True, seed=0).draw(count)
    return torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))
