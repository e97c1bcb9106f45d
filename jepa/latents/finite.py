"""Latents with finitely many values: none at all, and K discrete codes (LeCun 2022, section 4.5)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from jepa.latents.interface import LatentVariable
from jepa.minimize import Cost, Minimum, exhaustive


class NoLatent(LatentVariable):
    """No latent: its only value is the empty vector, 0 bits, and inference has nothing to choose."""

    def __init__(self) -> None:
        """A single code of zero width."""
        super().__init__()
        self.width = 0
        self.register_buffer("codes", torch.zeros(1, 0), persistent=False)

    @property
    def bits(self) -> float:
        """0."""
        return 0.0

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return empty vectors [*shape, 0]."""
        return self.codes.new_zeros(*shape, 0)

    def regularize(self, z: Tensor) -> Tensor:
        """Return zeros [...]."""
        return z.new_zeros(z.shape[:-1])

    def infer(self, cost: Cost) -> Minimum:
        """Return the empty vector with its cost."""
        return exhaustive(cost, self.codes.unsqueeze(0))


class Discrete(LatentVariable):
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

    @property
    def bits(self) -> float:
        """log₂ K."""
        return math.log2(self.width)

    def sample(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Return codes [*shape, K], all equally probable."""
        return self.codes[torch.randint(self.width, shape, generator=generator, device=self.codes.device)]

    def regularize(self, z: Tensor) -> Tensor:
        """Return zeros [...]."""
        return z.new_zeros(z.shape[:-1])

    def infer(self, cost: Cost) -> Minimum:
        """Return the best code by trying all K in one batch."""
        return exhaustive(cost, self.codes.unsqueeze(0))
