"""A sparse latent: the set of predictions is close to a union of manifolds of few dimensions (LeCun 2022, 4.5)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from jepa.latents.base import Latent
from jepa.minimize import Cost, Minimum, fista, l1


class Sparse(Latent):
    """z ∈ R^d with R(z) = α Σ_i |z_i|, found by FISTA.

    A predictor can cheat R: with atoms c times as long, z is c times as short and costs next to nothing. In training
    a weight w above 0 forbids that by asking of every z_i to vary over the batch (Evtimova & LeCun 2022),

        1/B Σ_b E_b + w/B Σ_i max(0, T − √(Var_b z_i + ε))²
    """

    def __init__(
        self,
        size: int,
        alpha: float,
        steps: int = 50,
        lipschitz: float = 1.0,
        variance: float = 0.0,
        target: float = 1.0,
    ) -> None:
        """Args: size: d; alpha: α, in units of energy per unit of z; steps: of FISTA; lipschitz: its first guess of
        the slope's Lipschitz constant, doubled where it is too small; variance: w, in units of energy per squared unit
        of z; target: T, in units of z.

        Raises: ValueError for size < 1, alpha < 0, steps < 0, lipschitz ≤ 0, variance < 0 or target ≤ 0.
        """
        super().__init__()
        if size < 1:
            raise ValueError(f"size: expected at least 1 dimension, found {size} (for no latent use 'none')")
        if steps < 0:
            raise ValueError(f"steps: expected at least 0, found {steps}")
        if not (lipschitz > 0 and target > 0):
            raise ValueError(f"lipschitz, target: expected numbers above 0, found {lipschitz}, {target}")
        if not variance >= 0:
            raise ValueError(f"variance: expected a number of at least 0, found {variance}")
        self.width, self.alpha, self._penalty = size, alpha, l1(alpha)
        self.steps, self.lipschitz, self.variance, self.target = steps, lipschitz, variance, target
        self.register_buffer("zero", torch.zeros(1, 1, size), persistent=False)

    @property
    def bits(self) -> float:
        """Infinity: a real number holds any amount."""
        return math.inf

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return samples [*shape, d] of the Laplace density exp(−α Σ |z_i|), variance 2 / α².

        Raises: ValueError for alpha = 0, where the density has no finite integral.
        """
        if self.alpha == 0:
            raise ValueError("alpha: expected a number above 0 to sample from exp(−R), found 0")
        size = torch.empty(*shape, self.width, device=self.zero.device).exponential_(self.alpha, generator=generator)
        sign = torch.randint(2, size.shape, generator=generator, device=size.device) * 2 - 1
        return size * sign

    def regularize(self, z: Tensor) -> Tensor:
        """Return α Σ_i |z_i| [...]."""
        return self._penalty.value(z)

    def minimize(self, D: Cost) -> Minimum:
        """Return where FISTA ends that begins at z = 0; in training the variance over the batch counts as well."""

        E = self.energy(D)

        def smooth(z: Tensor) -> Tensor:
            """Return D, in training with the hinge of the variance, [B, 1]."""
            value = E(z) - self.regularize(z)  # D with the rounding under which all that is published was measured
            return value + self._hinge(z) if self.variance and self.training and len(z) > 1 else value

        with torch.no_grad():
            count = len(D(self.zero))
        start = self.zero.expand(count, -1, -1)
        found = fista(smooth, self._penalty, start, self.steps, self.lipschitz)
        with torch.no_grad():
            return found._replace(value=E(found.argmin.unsqueeze(1)).squeeze(1))

    def constrain(self, proposal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the proposal [B, Z], and in training what a low variance over the batch costs, [B]."""
        cost = proposal.new_zeros(len(proposal))
        if self.variance and self.training and len(proposal) > 1:
            cost = cost + self._hinge(proposal.unsqueeze(1))
        return proposal, cost

    def _hinge(self, z: Tensor) -> Tensor:
        """Return every sample's part of w Σ_i max(0, T − √(Var z_i + ε))², a scalar."""
        deviation = (z[:, 0].var(dim=0) + 1e-4).sqrt()
        return self.variance * (self.target - deviation).relu().square().sum() / len(z)
