"""Latents whose values are the entries of a codebook: learned ones, and those of a grid (LeCun 2022, section 4.5).

What a network proposes is taken to an entry, straight-through (van den Oord et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from jepa.latents.finite import Finite, finite, straight_through

MAX_GRID = 65_536  # entries of a grid, all of which are tried


class VectorQuantized(Finite):
    """K learned codes; a proposal u goes to the cheapest one (van den Oord et al. 2017).

        z = e_k,  k = argmin_k β ‖u − e_k‖² + R(e_k),    cost of the proposal: β ‖u − e_k‖²     their equations 1 and 3
        n_k ← γ n_k + (1 − γ) · (proposals at k),   s_k ← γ s_k + (1 − γ) · (their sum),   e_k = s_k / n_k

    The codes follow the proposals as a moving mean, in steps of a training only (`update`). A code that hardly any
    proposal goes to is moved to the proposal that is farthest from its own code.
    """

    def __init__(
        self,
        size: int,
        width: int,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.1,
        rate_weight: float = 0.0,
    ) -> None:
        """Args: size: K, the number of codes; width: of a code; commitment: β, in units of energy per squared unit of
        z; decay: γ; revive: the fraction of an even part of the proposals below which a code counts as dead;
        rate_weight: λ, in units of energy per nat.

        Raises: ValueError for size < 1, width < 1, commitment or rate_weight < 0, or a decay or fraction that is not
        from 0 to below 1.
        """
        super().__init__()
        if min(size, width) < 1:
            raise ValueError(f"size, width: expected at least 1, found {size}, {width}")
        if not (commitment >= 0 and rate_weight >= 0):
            found = f"found {commitment}, {rate_weight}"
            raise ValueError(f"commitment, rate_weight: expected numbers of at least 0, {found}")
        if not (0 <= decay < 1 and 0 <= revive < 1):
            raise ValueError(f"decay, revive: expected fractions from 0 to below 1, found {decay}, {revive}")
        self.width, self.commitment, self.decay, self.revive = width, commitment, decay, revive
        self.rate_weight = rate_weight
        self.register_buffer("codes", torch.randn(size, width))
        self.register_buffer("counts", torch.ones(size))  # n, for one proposal a code and step where they are even
        self.register_buffer("sums", self.codes.clone())  # s

    def constrain(self, proposal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest code [B, Z], straight-through, and β ‖u − e_k‖² [B].

        Raises: ValueError for proposals that are not finite.
        """
        code = self.codes[self._cheapest(proposal)]
        return straight_through(proposal, code), self.commitment * (proposal - code).square().sum(-1)

    @torch.no_grad()
    def _cheapest(self, proposal: Tensor) -> Tensor:
        """Return the indices [B] of the codes that serve proposals at the lowest cost."""
        if not (self.rate_weight and self.commitment):
            return self.nearest(proposal)
        return (self.commitment * torch.cdist(finite(proposal), self.codes).square() + self.code_lengths).argmin(1)

    @torch.no_grad()
    def update(self, proposal: Tensor) -> None:
        """Move the codes to the moving means of their proposals [B, Z], and dead ones to proposals far from any code.

        Raises: ValueError for fewer proposals than codes, or proposals that are not finite.
        """
        nearest, size = self._cheapest(proposal), len(self.codes)
        if len(proposal) < size:
            raise ValueError(f"size: expected at most {len(proposal)} codes, one a proposal, found {size}")
        even = len(proposal) / size  # counts are in units of an even part
        taken = torch.zeros_like(self.counts).index_add_(0, nearest, torch.full_like(proposal[:, 0], 1 / even))
        summed = torch.zeros_like(self.sums).index_add_(0, nearest, proposal / even)
        self.counts.lerp_(taken, 1 - self.decay)
        self.sums.lerp_(summed, 1 - self.decay)
        dead = self.counts < self.revive
        count = int(dead.sum()) if dead.device.type == "cpu" else size  # an accelerator would have to be waited for
        if count:
            far = (proposal - self.codes[nearest]).square().sum(-1).topk(count).indices
            moved = proposal[far[(dead.cumsum(0) - 1).clamp(min=0)]]  # the first dead code to the farthest one
            self.counts.masked_fill_(dead, 1.0)
            self.sums.copy_(torch.where(dead.unsqueeze(-1), moved, self.sums))
        used = (self.counts > 1e-6).unsqueeze(-1)  # a code that fades away stays where it is
        self.codes.copy_(torch.where(used, self.sums / self.counts.unsqueeze(-1), self.codes))


class FiniteScalar(Finite):
    """A grid of Π L_i values with R(z) = 0: every number of z has L_i levels (Mentzer et al. 2024).

    z_i = 2 round((L_i − 1) (tanh u_i + 1) / 2) / (L_i − 1) − 1,    from −1 to 1 in equal steps; 0 for one level
    """

    def __init__(self, levels: Sequence[int], rate_weight: float = 0.0, decay: float = 0.99) -> None:
        """Args: levels: L_i, of every number of z; rate_weight: λ, in units of energy per nat; decay: of the counts, γ
        above.

        Raises: ValueError for no level at all, more than 65,536 values, which are all tried, rate_weight < 0, or a
        decay that is not from 0 to below 1.
        """
        super().__init__()
        if not levels or min(levels) < 1 or math.prod(levels) > MAX_GRID:
            raise ValueError(f"levels: expected at least 1 each and a product up to {MAX_GRID}, found {list(levels)}")
        if not (rate_weight >= 0 and 0 <= decay < 1):
            what = "expected a number and a fraction of at least 0"
            raise ValueError(f"rate_weight, decay: {what}, found {rate_weight}, {decay}")
        self.width, self.rate_weight, self.decay = len(levels), rate_weight, decay
        axes = [torch.linspace(-1, 1, level) if level > 1 else torch.zeros(1) for level in levels]
        self.register_buffer("codes", torch.cartesian_prod(*axes).view(-1, self.width), persistent=False)
        self.register_buffer("counts", torch.ones(len(self.codes)), persistent=rate_weight > 0)
        self.register_buffer("steps", torch.tensor(levels, dtype=torch.get_default_dtype()) - 1, persistent=False)

    def constrain(self, proposal: Tensor) -> tuple[Tensor, Tensor]:
        """Return the level nearest to tanh of every number [B, Z], straight-through, at no cost."""
        bounded, steps = proposal.tanh(), self.steps.clamp(min=1)
        level = ((bounded + 1) / 2 * steps).round() * 2 / steps - 1
        level = torch.where(self.steps > 0, level, 0.0)
        if self.rate_weight:
            level = self.codes[self._cheapest(bounded)]
        return straight_through(bounded, level), proposal.new_zeros(len(proposal))

    @torch.no_grad()
    def update(self, proposal: Tensor) -> None:
        """Where the rate has a weight, count how often each value is taken, as a moving mean."""
        if not self.rate_weight:
            return
        index = self._cheapest(proposal.tanh())
        count = torch.zeros_like(self.counts).index_add_(0, index, torch.ones_like(index, dtype=self.counts.dtype))
        taken = count * (len(self.codes) / len(index))
        self.counts.lerp_(taken, 1 - self.decay)

    @torch.no_grad()
    def _cheapest(self, bounded: Tensor) -> Tensor:
        """Return the indices [B] of the cheapest grid values, argmin ‖tanh u − e_k‖² + R(e_k)."""
        return (torch.cdist(finite(bounded), self.codes).square() + self.code_lengths).argmin(1)
