"""The interface that every latent variable implements.

A latent restricts what z can say about y: by few values, by few dimensions, by a cost R(z). Its information content is
what keeps the energy from going flat (LeCun 2022, section 4.5, criterion 4). A class of latents is final: none inherits
from another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn

from jepa.minimize import Cost, Minimum


class LatentVariable(nn.Module, ABC):
    """A latent z of `width` numbers with its regularizer R(z)."""

    width: int
    codes: Tensor | None  # [K, Z] all values, where they are finitely many; else None

    @property
    @abstractmethod
    def bits(self) -> float:
        """The most information z can carry, in bits; infinity where nothing bounds it."""

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
