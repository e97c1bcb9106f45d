"""Latents with finitely many values: none at all, and K discrete codes (LeCun 2022, section 4.5)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from jepa.latents.interface import LatentVariable
from jepa.minimize import Cost, Minimum, exhaustive


class Finite(LatentVariable):
    """What all latents with K values [K, Z] have in common: R(z) = 0, and inference tries every value."""

    codes: Tensor

    @property
    def bits(self) -> float:
        """log₂ K."""
        return math.log2(len(self.codes))

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return values [*shape, Z], all equally probable."""
        return self.codes[torch.randint(len(self.codes), shape, generator=generator, device=self.codes.device)]

    def regularize(self, z: Tensor) -> Tensor:
        """Return zeros [...]."""
        return z.new_zeros(z.shape[:-1])

    def infer(self, cost: Cost) -> Minimum:
        """Return the best value by trying all K in one batch."""
        return exhaustive(cost, self.codes.unsqueeze(0))

    def project(self, proposal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest value [B, Z], straight-through, at no cost."""
        return straight_through(proposal, self.codes[self.nearest(proposal)]), proposal.new_zeros(len(proposal))

    def nearest(self, proposal: Tensor) -> Tensor:
        """Return the numbers [B] of the values nearest to proposals [B, Z]. Raises: ValueError if one is not finite."""
        if not proposal.isfinite().all():
            raise ValueError("proposal: expected finite numbers, found nan or infinity")
        return torch.cdist(proposal.detach(), self.codes).argmin(1)


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
