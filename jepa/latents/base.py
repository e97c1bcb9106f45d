"""What every latent variable has: z, its regularizer R(z), and all the ways in which it is inferred.

A latent restricts what z can say about y: by few values, by few dimensions, by a cost R(z). Its information content is
what keeps the energy from going flat (LeCun 2022, section 4.5, criterion 4). The model brings the distance D as a
function of z, the latent adds R, and

    ž = argmin over z of D(z) + R(z)            F = D(ž) + R(ž)            equations 11 and 12

is found by what the latent knows how to do (exhaustively, by gradient descent, by FISTA), or by a network that was
attached to it. A latent that can be used is final: none inherits from another.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from jepa.energy import free_energy
from jepa.minimize import Cost, Minimum, refined

Pair = tuple[Tensor, Tensor]  # s_x [B or 1, D_x] and s_y [B, D]


class Latent(nn.Module, ABC):
    """A latent z with its regularizer R(z), and how z is inferred."""

    width: int  # numbers that a predictor is given
    codes: Tensor | None  # [K, Z] all values, where they are finitely many; else None

    def __init__(self) -> None:
        """Without a network: z is found by minimizing."""
        super().__init__()
        self.register_buffer("codes", None, persistent=False)
        self.network: nn.Module | None = None  # (s_x, s_y) -> a proposal [B, Z]
        self.refine = 0  # steps of gradient descent that follow the proposal, not in training

    def amortize(self, network: nn.Module | None, refine: int = 0) -> Latent:
        """Have a network propose z from now on, None to minimize; return this latent (LeCun 2022, section 4.5.1).

        Args: network: (s_x [B, D_x], s_y [B, D]) -> [B, Z], trained with the model; refine: steps of gradient descent
            that follow its proposal, not in training.
        Raises: ValueError where finitely many values were to be refined by gradient descent, or refine < 0.
        """
        if refine < 0 or (refine and self.codes is not None):
            what = "at least 0 steps" if self.codes is None else "0 steps for a latent of finitely many values"
            raise ValueError(f"refine: expected {what}, found {refine}")
        self.network, self.refine = network, refine
        return self

    @property
    def inferred_width(self) -> int:
        """The numbers Z that are inferred; the width, where nothing else is said."""
        return self.width

    @property
    @abstractmethod
    def bits(self) -> float:
        """The most information z can carry, in bits; infinity where nothing bounds it."""

    def rate_bits(self, z: Tensor) -> float:
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
    def minimize(self, D: Cost) -> Minimum:
        """Return ž = argmin over z of D(z) + R(z), for every problem of the batch (LeCun 2022, equation 11).

        Args: D: candidates [B or 1, K, Z] -> [B, K].
        """

    def predictor_input(self, z: Tensor) -> Tensor:
        """Return what a predictor is given of z [..., Z], in J versions [..., J, width] over which D is averaged.

        Where nothing else is said it is z itself.
        """
        return z.unsqueeze(-2)

    def constrain(self, proposal: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a network proposes, [B, Z], as a value of this latent [B, Z], and what that costs beside R, [B].

        The gradient reaches the proposal. Where nothing else is said every proposal is a value, at no cost.
        """
        return proposal, proposal.new_zeros(len(proposal))

    def update(self, proposal: Tensor) -> None:  # noqa: B027 (most latents have nothing to update)
        """Let learned values follow a network's proposals [B, Z]; where nothing else is said there are none."""

    def energy(self, D: Cost) -> Cost:
        """Return E = D + R as a function of z (LeCun 2022, equation 10)."""
        return lambda z: D(z) + self.regularize(z)

    @torch.no_grad()
    def infer(self, D: Cost, s: Pair | None = None) -> Minimum:
        """Return ž, F and the trace of the inference, without gradient (LeCun 2022, equations 11 and 12).

        Where a network infers ž, its one proposal is taken, and refined as `refine` says.

        Args: D: candidates [B or 1, K, Z] -> [B, K]; s: what the network sees, if there is one.
        """
        if self.network is None:
            return self.minimize(D)
        return refined(self.energy(D), self.constrain(self.network(*s))[0], self.refine)

    def free_energy(self, D: Cost, s: Pair | None = None, beta: float = math.inf, learn: bool = False) -> Tensor:
        """Return F_β [B] with the gradient of the weights (LeCun 2022, equation 12).

        For β = ∞ that is the gradient of the energy at ž, held fixed (the envelope theorem); where a network infers
        ž, the gradient reaches that network too, and what its proposal costs is added.

        Args: D, s: as for `infer`; beta: inverse temperature, one over the energy's unit; learn: whether values that
            are learned follow the proposals (`update`), as in a step of a training.
        Raises: ValueError for a finite beta where z has no finite list of values, or a network proposes it.
        """
        E = self.energy(D)
        if not math.isinf(beta):
            if self.codes is None or self.network is not None:
                raise ValueError(f"beta: expected infinity, because this latent is not summed over, found {beta}")
            return free_energy(E(self.codes.unsqueeze(0)), beta)
        if self.network is None:
            return E(self.infer(D).argmin.unsqueeze(1)).squeeze(1)
        proposal = self.network(*s)
        z, commitment = self.constrain(proposal)
        if learn and self.training:
            self.update(proposal.detach())
        return E(z.unsqueeze(1)).squeeze(1) + commitment
