"""A continuous latent of few dimensions: the set of predictions is a manifold no wider (LeCun 2022, section 4.5).

The dimensions are given, or found by training a chain of linear layers (Jing et al. 2020).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from jepa.latents.base import Latent
from jepa.minimize import Cost, Minimum, multistart


class Descended(Latent):
    """What latents found by gradient descent have in common: fixed points, the best of which begin it."""

    def __init__(self, size: int, starts: int, restarts: int, steps: int, rate: float) -> None:
        """Args: size: d, numbers that a predictor is given; starts: fixed points [P, d] among which the best `restarts`
        begin; steps, rate: of the descent (`jepa.minimize.gradient`).

        Raises: ValueError for size < 1, or more restarts than starts.
        """
        super().__init__()
        if size < 1:
            raise ValueError(f"size: expected at least 1 dimension, found {size} (for no latent use 'none')")
        if not 1 <= restarts <= starts:
            raise ValueError(f"restarts: expected 1 to starts = {starts}, found {restarts}")
        self.width, self.restarts, self.steps, self.rate = size, restarts, steps, rate
        self.register_buffer("points", sobol_normal(starts, size), persistent=False)

    @property
    def bits(self) -> float:
        """Infinity: a real number holds any amount."""
        return math.inf

    def minimize(self, D: Cost) -> Minimum:
        """Return the end of gradient descent from the best of the fixed points."""
        return multistart(self.energy(D), self.points, self.restarts, self.steps, self.rate)


class Quadratic(Descended):
    """What latents z ∈ R^d with R(z) = α ‖z‖² have in common: their density."""

    def __init__(self, size: int, alpha: float, starts: int, restarts: int, steps: int, rate: float) -> None:
        """Args: alpha: weight of ‖z‖² in units of energy; the others as for `Descended`.

        Raises: ValueError as there, and for alpha < 0.
        """
        super().__init__(size, starts, restarts, steps, rate)
        if not alpha >= 0:
            raise ValueError(f"alpha: expected a number of at least 0, found {alpha}")
        self.alpha = alpha

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


class LowDimensional(Quadratic):
    """z ∈ R^d with R(z) = α ‖z‖², of which a predictor is given W_n … W_1 z: what limits it is d, α only bounds it.

    Without layers the predictor is given z itself. A chain of linear layers can express no more than one matrix, but
    gradient descent on it prefers products of low rank, so that no more dimensions arrive than are needed (Jing et al.
    2020).
    """

    def __init__(
        self,
        size: int,
        alpha: float = 0.0,
        layers: int = 0,
        starts: int = 64,
        restarts: int = 1,
        steps: int = 10,
        rate: float = 0.1,
    ) -> None:
        """Args: layers: n; the others as for `Quadratic`. Raises: ValueError as there, and for layers < 0."""
        super().__init__(size, alpha, starts, restarts, steps, rate)
        if layers < 0:
            raise ValueError(f"layers: expected at least 0, found {layers}")
        self.deep_linear = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(layers)))
        for layer in self.deep_linear:
            nn.init.normal_(layer.weight, std=1 / math.sqrt(size))  # the scale of z survives

    def predictor_input(self, z: Tensor) -> Tensor:
        """Return W_n … W_1 z [..., 1, d]."""
        return self.deep_linear(z).unsqueeze(-2)


def sobol_normal(count: int, size: int) -> Tensor:
    """Return `count` fixed points [count, size] distributed like a standard normal: Sobol's, through its quantiles."""
    uniform = torch.quasirandom.SobolEngine(size, scramble=True, seed=0).draw(count)
    return torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))
