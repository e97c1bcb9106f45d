"""Convex problems whose minimum has a closed form: the yardstick of every minimizer (LeCun 2022, equations 10 to 12).

wells    E(k) = ‖y − c_k‖²                          F* = the least of K parabolas
ridge    E(z) = ‖y − W z‖² + α ‖z‖²                 z* = (WᵀW + α I)⁻¹ Wᵀ y
lasso    E(z) = ‖y − Q z‖² + α ‖z‖₁, QᵀQ = I        z* = soft(Qᵀ y, α / 2)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from jepa.energy import energy
from jepa.minimize import Minimum, exhaustive, fista, gradient, l1

TARGETS, LATENTS, CODES = 8, 2, 16  # widths of y and z, and the number of codes
SIDE = torch.linspace(-4, 4, 161, dtype=torch.float64)  # of the grid that bounds the minimum from above
ALPHA = 0.5


class Solved(NamedTuple):
    """What a minimizer found on a batch of problems, beside the truth."""

    found: Minimum
    exact: Tensor  # [B] F* in closed form
    on_grid: Tensor  # [B] the least cost over a grid, a bound from above


class Gap(NamedTuple):
    """How far a minimizer ends from the truth, the worst of all problems."""

    relative_gap: float  # |F − F*| / (1 + F*)
    above_grid: float  # F − min over a grid of E; above 0 only by rounding


def gaps(seed: int, problems: int = 64) -> dict[str, Gap]:
    """Return the worst gap of each minimizer on random problems in float64, by name. Args and errors: as `solve`."""
    return {name: _gap(*solved) for name, solved in solve(seed, problems).items()}


def solve(seed: int, problems: int = 64) -> dict[str, Solved]:
    """Return what each minimizer finds on random problems in float64, by name.

    Args: seed: of the problems; problems: B, how many.
    Raises: ValueError for problems < 1.
    """
    if problems < 1:
        raise ValueError(f"problems: expected at least 1, found {problems}")
    random = Generator().manual_seed(seed)
    y = torch.randn(problems, TARGETS, generator=random, dtype=torch.float64)
    return {"exhaustive": _wells(y, random), "gradient": _ridge(y, random), "fista": _lasso(y, random)}


def _wells(y: Tensor, random: Generator) -> Solved:
    """K codes: the closed form is a loop over them in NumPy."""
    codes = torch.randn(1, CODES, TARGETS, generator=random, dtype=torch.float64)
    found = exhaustive(lambda z: energy(y, z), codes)
    wells = np.array([[np.sum((target - code) ** 2) for code in codes[0].numpy()] for target in y.numpy()])
    exact = torch.from_numpy(wells.min(1))
    return Solved(found, exact, exact)


def _ridge(y: Tensor, random: Generator) -> Solved:
    """A quadratic of the latent."""
    decoder = torch.randn(TARGETS, LATENTS, generator=random, dtype=torch.float64)

    def cost(z: Tensor) -> Tensor:
        return energy(y, z @ decoder.T, ALPHA * z.square().sum(-1))

    start = torch.randn(len(y), 2, LATENTS, generator=random, dtype=torch.float64)
    normal = decoder.T @ decoder + ALPHA * torch.eye(LATENTS, dtype=torch.float64)
    exact = torch.linalg.solve(normal, decoder.T @ y.T).T
    return Solved(gradient(cost, start, steps=100), cost(exact.unsqueeze(1)).squeeze(1), _on_grid(cost))


def _lasso(y: Tensor, random: Generator) -> Solved:
    """A quadratic with the L1 norm, decoupled by an orthonormal decoder."""
    decoder, _ = torch.linalg.qr(torch.randn(TARGETS, LATENTS, generator=random, dtype=torch.float64))
    penalty = l1(ALPHA)

    def smooth(z: Tensor) -> Tensor:
        return energy(y, z @ decoder.T)

    def cost(z: Tensor) -> Tensor:
        return smooth(z) + penalty.value(z)

    start = torch.randn(len(y), 1, LATENTS, generator=random, dtype=torch.float64)
    code = y @ decoder
    exact = code.sign() * (code.abs() - ALPHA / 2).clamp(min=0)
    found = fista(smooth, penalty, start, steps=200)
    return Solved(found, cost(exact.unsqueeze(1)).squeeze(1), _on_grid(cost))


def _on_grid(cost) -> Tensor:
    """Return the least cost over the grid, [B]."""
    return cost(torch.cartesian_prod(*[SIDE] * LATENTS).unsqueeze(0)).amin(1)


def _gap(found: Minimum, exact: Tensor, on_grid: Tensor) -> Gap:
    """Return the worst gap over the problems."""
    relative = (found.value - exact).abs() / (1 + exact)
    return Gap(float(relative.max()), float((found.value - on_grid).max()))
