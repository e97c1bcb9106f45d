"""The interface that every latent variable implements.

A latent restricts what z can say about y: by few values, by few dimensions, by a cost R(z). Its information content is
what keeps the energy from going flat (LeCun 2022, section 4.5, criterion 4). A latent that can be used is final: none
inherits from another.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn

from jepa.minimize import Cost, Minimum


class LatentVariable(nn.Module, ABC):
    """A latent z with its regularizer R(z)."""

    width: int  # numbers that a predictor hears
    free: int | None = None  # numbers Z that inference chooses, where they are not the same
    codes: Tensor | None  # [K, Z] all values, where they are finitely many; else None

    @property
    @abstractmethod
    def bits(self) -> float:
        """The most information z can carry, in bits; infinity where nothing bounds it."""

    def spent(self, z: Tensor) -> float:
        """Return the bits that inferred values z [N, Z] carry at most; infinity where nothing bounds them."""
        return math.inf

    @abstractmethod
    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return samples [*shape, Z] of the density proportional to exp(−R(z)).

        Raises: ValueError where exp(−R) has no finite integral.
        """

    @abstractmethod
    def regularize(self, z: Tensor) -> Tensor:
        """Return R(z) [...] of z [..., Z], in units of the energy."""

    @abstractmethod
    def infer(self, cost: Cost) -> Minimum:
        """Return ž = argmin over z of the cost, for every problem of the batch (LeCun 2022, equation 11).

        Args: cost: candidates [B or 1, K, Z] -> [B, K], R(z) included.
        """

    def heard(self, z: Tensor) -> Tensor:
        """Return what a predictor hears of z [..., Z], in J versions [..., J, width] over which energies are averaged.

        Where nothing else is said it hears z itself.
        """
        return z.unsqueeze(-2)

    def project(self, proposal: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a network proposes, [B, Z], as a value of this latent [B, Z], and what that costs beside R, [B].

        The gradient reaches the proposal. Where nothing else is said every proposal is a value, at no cost.
        """
        return proposal, proposal.new_zeros(len(proposal))
