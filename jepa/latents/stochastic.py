"""Stochastic latents: a predictor is given z through noise, so that little of it arrives (LeCun 2022, section 4.5).

The energy is the mean over what it is given, E(x, y, z) = E_z' D(s_y, Pred(s_x, z')) + R(z). In training z' is drawn
anew at every call, from a generator of the latent's own whose state is part of its state; else from fixed draws, the
same for all candidates, so that energies can be compared and minimized.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from jepa.latents.continuous import Descended, Quadratic, sobol_normal


class Draws(nn.Module):
    """Standard normal numbers [..., J, d]: fixed ones, or in training new ones from a generator with a state."""

    def __init__(self, count: int, size: int) -> None:
        """Args: count: J; size: d. Raises: ValueError for count < 1."""
        super().__init__()
        if count < 1:
            raise ValueError(f"draws: expected at least 1, found {count}")
        self.register_buffer("fixed", sobol_normal(count, size), persistent=False)
        self.generator = Generator()  # on the CPU, wherever the numbers go
        self.generator.manual_seed(int(torch.randint(2**31, (), device="cpu")))  # by the generator of the weights

    def forward(self, shape: torch.Size) -> Tensor:
        """Return draws for z of `shape` [..., d]: [..., J, d], in training one, [..., 1, d]."""
        if not self.training:
            return self.fixed.expand(*shape[:-1], *self.fixed.shape)
        drawn = torch.randn(*shape[:-1], 1, shape[-1], generator=self.generator, device="cpu")
        return drawn.to(self.fixed, non_blocking=True)  # an accelerator is not waited for

    def get_extra_state(self) -> Tensor:
        """Return the generator's state."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Put the generator back to a state."""
        self.generator.set_state(state.cpu())


class Noisy(Quadratic):
    """z' = z + σ ε, ε ~ N(0, 1), with R(z) = α ‖z‖²: a channel of bounded power and given noise (Doi et al. 2007)."""

    def __init__(
        self,
        size: int,
        alpha: float,
        sigma: float = 1.0,
        draws: int = 8,
        starts: int = 64,
        restarts: int = 1,
        steps: int = 10,
        rate: float = 0.1,
    ) -> None:
        """Args: sigma: σ, in units of z; draws: J, for measuring; the others as for `Quadratic`.

        Raises: ValueError as there, for alpha = 0 beside noise, which a large z would make negligible, sigma < 0, or
        draws < 1.
        """
        super().__init__(size, alpha, starts, restarts, steps, rate)
        if not sigma >= 0:
            raise ValueError(f"sigma: expected a number of at least 0, found {sigma}")
        if sigma and not alpha > 0:
            raise ValueError(f"alpha: expected a number above 0, found {alpha}")
        self.sigma, self.draws = sigma, Draws(draws, size)

    @property
    def bits(self) -> float:
        """d/2 log₂(1 + 1 / (2 α σ²)), the channel's capacity at the power that z has under exp(−R)."""
        power = 1 / (2 * self.alpha) if self.alpha else math.inf
        return self.width / 2 * math.log2(1 + power / self.sigma**2) if self.sigma else math.inf

    def rate_bits(self, z: Tensor) -> float:
        """Return ½ log₂ det(1 + Cov z / σ²), the channel's capacity for the covariance of z [N, d]."""
        if not self.sigma:
            return math.inf
        ratio = torch.cov(z.double().T).view(self.width, self.width) / self.sigma**2
        return float(torch.logdet(ratio + torch.eye(self.width).to(ratio))) / math.log(4)

    def predictor_input(self, z: Tensor) -> Tensor:
        """Return z + σ ε [..., J, d]."""
        return z.unsqueeze(-2) + self.sigma * self.draws(z.shape)


class Dropped(Quadratic):
    """z' = z, but in training with probability p a sample of exp(−R), R(z) = α ‖z‖²: now and then z does not arrive.

    A variant used in control (Henaff et al. 2019). As with other dropout, nothing is dropped outside of training.
    """

    def __init__(
        self,
        size: int,
        alpha: float,
        probability: float = 0.5,
        starts: int = 64,
        restarts: int = 1,
        steps: int = 10,
        rate: float = 0.1,
    ) -> None:
        """Args: probability: p; the others as for `Quadratic`.

        Raises: ValueError as there, for alpha = 0, or a probability outside 0 … 1.
        """
        super().__init__(size, alpha, starts, restarts, steps, rate)
        if not alpha > 0:
            raise ValueError(f"alpha: expected a number above 0, found {alpha}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: expected a number from 0 to 1, found {probability}")
        self.probability, self.draws = probability, Draws(1, size)

    def predictor_input(self, z: Tensor) -> Tensor:
        """Return z, or in training now and then a sample of the density in its place, [..., 1, d]."""
        if not self.training:
            return z.unsqueeze(-2)
        prior = self.draws(z.shape) / math.sqrt(2 * self.alpha)
        drawn = torch.rand(*z.shape[:-1], 1, 1, generator=self.draws.generator, device="cpu")
        return torch.where(drawn.to(z, non_blocking=True) >= self.probability, z.unsqueeze(-2), prior)


class Gaussian(Descended):
    """z' ~ N(μ, σ²), inferred as z = (μ, log σ), with R = T · KL(N(μ, σ²) ‖ N(0, 1)) (Kingma & Welling 2014, B).

    R(μ, log σ) = T/2 Σ_i (μ_i² + σ_i² − 1 − 2 log σ_i)
    """

    def __init__(
        self,
        size: int,
        temperature: float = 1.0,
        draws: int = 8,
        starts: int = 64,
        restarts: int = 1,
        steps: int = 10,
        rate: float = 0.1,
    ) -> None:
        """Args: size: d, of z'; temperature: T, in units of energy; draws: J, for measuring; starts, restarts, steps,
        rate: of the descent over μ and log σ.

        Raises: ValueError for size < 1, temperature ≤ 0, draws < 1, or more restarts than starts.
        """
        super().__init__(size, starts, restarts, steps, rate)
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, found {temperature}")
        self.temperature, self.draws = temperature, Draws(draws, size)
        self.points = torch.cat([self.points, torch.full_like(self.points, -1.0)], 1)  # μ and log σ

    @property
    def inferred_width(self) -> int:
        """2 d: μ and log σ."""
        return 2 * self.width

    def rate_bits(self, z: Tensor) -> float:
        """Return the mean KL divergence of (μ, log σ) [N, 2 d] in bits, never less than the information in z'."""
        return float(self.regularize(z).double().mean()) / self.temperature / math.log(2)

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return samples z' [*shape, d] of N(0, 1)."""
        return torch.randn(*shape, self.width, generator=generator, device=self.points.device)

    def regularize(self, z: Tensor) -> Tensor:
        """Return T · KL [...] of (μ, log σ) [..., 2 d]."""
        mean, log_deviation = z.chunk(2, -1)
        divergence = mean.square() + (2 * log_deviation).exp() - 1 - 2 * log_deviation
        return self.temperature / 2 * divergence.sum(-1)

    def predictor_input(self, z: Tensor) -> Tensor:
        """Return μ + σ ε [..., J, d]."""
        mean, log_deviation = z.unsqueeze(-2).chunk(2, -1)
        return mean + log_deviation.exp() * self.draws(mean.squeeze(-2).shape)
