"""Latents with finitely many values: none at all, and K discrete codes (LeCun 2022, section 4.5)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from jepa.latents.base import Latent
from jepa.minimize import Cost, Minimum, exhaustive


class Finite(Latent):
    """What all latents with K values [K, Z] have in common: inference tries every one.

    R(z) = 0, or where their rate is weighted the length of an ideal code for them, R(e_k) = −λ log p_k with p_k how
    often e_k is used: what is rarely used costs more, and of two values that serve alike one dies out (Chou et al.
    1989).
    """

    codes: Tensor
    rate_weight = 0.0  # λ, in units of energy per nat
    counts: Tensor  # [K] how often each value is used, in units of an even part; where the rate has a weight

    @property
    def bits(self) -> float:
        """log₂ K."""
        return math.log2(len(self.codes))

    def rate_bits(self, z: Tensor) -> float:
        """Return the entropy Σ_k −p_k log₂ p_k of how often each value is used in z [N, Z]."""
        fraction = torch.bincount(self.nearest(z), minlength=len(self.codes)).double() / len(z)
        return float(torch.special.entr(fraction).sum()) / math.log(2)

    @property
    def code_lengths(self) -> Tensor:
        """R of every value, [K]."""
        if not self.rate_weight:
            return self.codes.new_zeros(len(self.codes))
        return -self.rate_weight * (self.counts / self.counts.sum()).clamp(min=1e-6).log()

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return values [*shape, Z], all alike probable, or where their rate is weighted as probable as exp(−R / λ)."""
        if not self.rate_weight:
            return self.codes[torch.randint(len(self.codes), shape, generator=generator, device=self.codes.device)]
        drawn = torch.multinomial(self.counts, math.prod(shape), replacement=True, generator=generator)
        return self.codes[drawn.view(shape)]

    def regularize(self, z: Tensor) -> Tensor:
        """Return R(z) [...] of values z [..., Z]."""
        if not self.rate_weight:
            return z.new_zeros(z.shape[:-1])
        return self.code_lengths[self.nearest(z.reshape(-1, self.width))].view(z.shape[:-1])

    def minimize(self, D: Cost) -> Minimum:
        """Return the best value by trying all K in one batch."""
        return exhaustive(self.energy(D), self.codes.unsqueeze(0))

    def constrain(self, proposal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest value [B, Z], straight-through, at no cost."""
        return straight_through(proposal, self.codes[self.nearest(proposal)]), proposal.new_zeros(len(proposal))

    def nearest(self, proposal: Tensor) -> Tensor:
        """Return the indices [B] of the values nearest to proposals [B, Z]. Raises: ValueError if one is not finite."""
        return torch.cdist(finite(proposal).detach(), self.codes).argmin(1)


def finite(proposal: Tensor) -> Tensor:
    """Return the proposal. Raises: ValueError if a number of it is not finite (CPU only, an accelerator would wait)."""
    if proposal.device.type == "cpu" and not proposal.isfinite().all():
        raise ValueError("proposal: expected finite numbers, found nan or infinity")
    return proposal


def straight_through(proposal: Tensor, value: Tensor) -> Tensor:
    """Return the value with the gradient of the proposal, as if the step between were the identity."""
    return proposal + (value - proposal).detach()


class NoLatent(Finite):
    """No latent: its only value is the empty vector, 0 bits, and inference has nothing to choose."""

    def __init__(self) -> None:
        """A single code of zero width."""
        super().__init__()
        self.width = 0
        self.register_buffer("codes", torch.zeros(1, 0), persistent=False)


class Discrete(Finite):
    """K codes, the corners of a simplex, with R(z) = 0: the energy is the least of K wells."""

    def __init__(self, size: int, scale: float = 1.0) -> None:
        """Args: size: K, the number of codes; scale: length of a code, for one-hot vectors 1. The longer they are
        beside s_x, the more a code's effect is the same for every x at the start of training, and stays so.

        Raises: ValueError for K < 1 or scale ≤ 0.
        """
        super().__init__()
        if size < 1:
            raise ValueError(f"size: expected at least 1 code, found {size}")
        if not scale > 0:
            raise ValueError(f"scale: expected a number above 0, found {scale}")
        self.width = size
        self.register_buffer("codes", scale * torch.eye(size), persistent=False)
