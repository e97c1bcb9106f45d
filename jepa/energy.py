"""The energy, and its minimum over the latent (LeCun 2022, equations 10 to 12).

    E(x, y, z) = D(s_y, Pred(s_x, z)) + R(z)                      equation 10, with the latent's regularizer
    ž          = argmin over z of E(x, y, z)                      equation 11
    F(x, y)    = min over z of E(x, y, z)                         equation 12
    F_β(x, y)  = −1/β log mean over z of exp(−β E(x, y, z))       its soft version; β → ∞ is equation 12

Energies are sums over features, dimensionless where representations are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared Euclidean distance D(a, b) = Σ_d (a_d − b_d)² (LeCun 2022, section 4.5).

    Args: a, b: [..., D], broadcast against each other.
    Returns: [...], the square of the features' unit.
    Raises: ValueError if the feature axes differ.
    """
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"b: expected {a.shape[-1]} features as in a, found {b.shape[-1]}")
    return (a - b).square().sum(-1)


def energy(s_y: Tensor, prediction: Tensor, regularization: Tensor | float = 0.0) -> Tensor:
    """Return E = D(s_y, s̃_y) + R(z) for every candidate (LeCun 2022, equation 10).

    Args: s_y: [B, D] targets; prediction: [B, K, D], one per candidate; regularization: [B, K] or a number, R(z).
    Returns: [B, K] energies.
    Raises: ValueError if the feature axes differ.
    """
    return distance(prediction, s_y.unsqueeze(-2)) + regularization


def free_energy(energies: Tensor, beta: float = math.inf) -> Tensor:
    """Return F_β = −1/β log mean_k exp(−β E_k), for β = ∞ the minimum (LeCun 2022, equation 12).

    The mean (not the sum) over candidates makes min E ≤ F_β ≤ mean E, and F_β falls as β grows.

    Args: energies: [..., K], one per candidate; beta: inverse temperature, one over the energies' unit.
    Returns: [...].
    Raises: ValueError for beta ≤ 0 or no candidate.
    """
    if not beta > 0:
        raise ValueError(f"beta: expected a number above 0, found {beta}")
    if energies.shape[-1] == 0:
        raise ValueError("energies: expected at least one candidate on the last axis, found none")
    if math.isinf(beta):
        return energies.amin(-1)
    return (math.log(energies.shape[-1]) - torch.logsumexp(-beta * energies, -1)) / beta
