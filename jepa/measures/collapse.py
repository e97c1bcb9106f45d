"""Measures that show a collapse: the energy's scale and contrast, the effective rank, the AUROC of the energy.

An energy surface has collapsed when it is as low for wrong pairs as for true ones (LeCun 2022, section 4.3). Rank and
AUROC do not see this: a representation that shrinks towards a constant keeps both. So energies are measured in a unit
that training cannot change, the energy E0 between unrelated samples at initialization:

    contrast = (median F of mismatched pairs − median F of true pairs) / E0

Everything is computed in float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

COLLAPSED_CONTRAST, HEALTHY_CONTRAST = 0.01, 0.5  # up to the first an energy tells nothing, from the second on enough
COLLAPSED_R2, HEALTHY_R2 = 0.1, 0.9  # up to the first nothing is read, from the second on all that is asked for
CHANCE_AUROC = 0.6  # up to here pairs are told apart by chance, as any predictor does that was never trained
SHRUNK = 0.1  # up to this fraction of E0 s_y has shrunk; a probe, blind to scale, may read it still
FLAT = 0.05  # up to this mismatched_energy_ratio an energy is flat; it is ½ where all predictions are the mean of s_y
EPSILON = 1e-30  # in the place of the mean squared distance of a constant


class Diagnostics(NamedTuple):
    """What shows a collapse, dimensionless; nan where it cannot be measured."""

    contrast: float  # (median F of mismatched pairs − median F of true pairs) / E0
    probe_r2: float  # mean R² of what a probe reads from s_y
    effective_rank: float  # of s_y
    auroc: float  # probability that a mismatched pair has a higher F than a true one
    mismatched_energy_ratio: float  # median F of mismatched pairs / mean squared distance of s_y now
    spread: float  # mean squared distance of s_y now / E0, the same before training

    @property
    def silent(self) -> bool:
        """Whether the energy tells nothing, in units of E0 or of the distances of s_y now."""
        return self.contrast <= COLLAPSED_CONTRAST * max(1.0, self.spread)

    @property
    def uninformative(self) -> bool:
        """Whether nothing is read from s_y, or s_y has shrunk."""
        return self.probe_r2 <= COLLAPSED_R2 or self.spread <= SHRUNK

    @property
    def flat(self) -> bool:
        """Whether no pair has an energy worth the name."""
        return self.mismatched_energy_ratio <= FLAT


def diagnostics(
    true: Tensor, mismatched: Tensor, s: Tensor, reference: float, rank: float = math.nan, r2: float = math.nan
) -> Diagnostics:
    """Return the diagnostics of a collapse, in training and after it.

    Args: true: [N] energies F of pairs that belong together; mismatched: [M] of pairs that do not; s: [N, D] the
        representations of the targets; reference: E0; rank, r2: effective rank of what is kept of y, and what a probe
        reads from it, if they are known.
    """
    now = or_nan(reference_energy, s)
    return Diagnostics(
        contrast=or_nan(contrast, true, mismatched, reference),
        probe_r2=r2,
        effective_rank=rank,
        auroc=or_nan(auroc, true, mismatched),
        mismatched_energy_ratio=float(mismatched.median()) / max(now, EPSILON),
        spread=now / reference if reference else math.nan,
    )


def or_nan(measure: Callable[..., float], *args: Any) -> float:
    """Return a measure, nan where it is refused, as for numbers that are not finite."""
    try:
        return measure(*args)
    except ValueError:
        return math.nan


def reference_energy(s: Tensor) -> float:
    """Return E0, the mean squared distance between two different samples, over all pairs and thus without drawing any.

    E0 = mean over i ≠ j of Σ_d (s_id − s_jd)² = 2 Σ_d Var s_d, where Var divides by N − 1.

    Args: s: [N, D] representations of unrelated samples.
    Returns: a number in the square of the representation's unit; 0 for a constant.
    Raises: ValueError if s is not a finite [N, D] with N ≥ 2.
    """
    centered = _centered(_array("s", s, axes="ND"))
    return float(2 * (centered**2).sum() / (len(centered) - 1))


def contrast(true: Tensor, mismatched: Tensor, reference: float) -> float:
    """Return (median F mismatched − median F true) / E0: 0 where the energy tells nothing, about 1 where it tells all.

    Args: true: [N] energies F(x, y) of pairs that belong together; mismatched: [M] energies of pairs that do not,
        plausible ones left out by the caller; reference: E0 in the same unit, of the untrained encoder.
    Returns: a dimensionless number, negative if wrong pairs have the lower energy.
    Raises: ValueError if energies are missing or not finite, or the reference is not a finite number above 0.
    """
    if not 0 < reference < float("inf"):
        raise ValueError(f"reference: expected a finite energy above 0, found {reference}")
    difference = np.median(_array("mismatched", mismatched, axes="N")) - np.median(_array("true", true, axes="N"))
    return float(difference / reference)


def auroc(true: Tensor, mismatched: Tensor) -> float:
    """Return P(F mismatched > F true) + ½ P(F mismatched = F true), the area under the ROC (Hanley & McNeil 1982).

    Args: true: [N] energies of pairs that belong together; mismatched: [M] energies of pairs that do not.
    Returns: a probability, 0.5 for an energy that tells nothing.
    Raises: ValueError if energies are missing or not finite.
    """
    ordered = np.sort(_array("true", true, axes="N"))
    mismatched = _array("mismatched", mismatched, axes="N")
    below = np.searchsorted(ordered, mismatched, side="left")  # [M] true energies below each mismatched one
    not_above = np.searchsorted(ordered, mismatched, side="right")
    return float((below + not_above).mean() / (2 * len(ordered)))


def effective_rank(s: Tensor, floor: float = 0.0) -> float:
    """Return exp(−Σ_k p_k log p_k), p_k = σ_k / Σ σ, of the centered s with singular values σ (Roy & Vetterli 2007).

    It counts directions, not a share of D: k directions of equal deviation give k, and a constant, which has no
    direction, gives 0. Being blind to scale it would count rounding errors too; therefore what the number format of s
    cannot tell from a constant, σ ≤ ϵ rms(s) (√N + √D), counts as none, and so does a deviation up to the floor.

    Args: s: [N, D] representations; floor: standard deviation in the unit of s, what a reader could not resolve.
    Returns: a number between 1 and min(N − 1, D), or 0 if no direction is left.
    Raises: ValueError if s is not a finite [N, D] with N ≥ 2, or the floor is negative.
    """
    if not floor >= 0:
        raise ValueError(f"floor: expected a standard deviation of at least 0, found {floor}")
    values = _array("s", s, axes="ND")
    size, features = values.shape
    resolution = torch.finfo(s.dtype if s.is_floating_point() else torch.float64).eps
    rounding = resolution * np.sqrt((values**2).mean()) * (np.sqrt(size) + np.sqrt(features))
    sigma = np.linalg.svd(_centered(values), compute_uv=False)
    sigma = sigma[sigma > max(rounding, floor * np.sqrt(size - 1))]
    if sigma.size == 0:
        return 0.0
    share = sigma / sigma.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _centered(values: np.ndarray) -> np.ndarray:
    """The values less their mean; a constant becomes exactly 0, where the mean alone would leave its rounding error."""
    difference = values - values[0]
    return difference - difference.mean(axis=0)


def _array(name: str, values: Tensor, axes: str) -> np.ndarray:
    """The values in float64 on the CPU, once shape and finiteness are checked; a matrix needs two rows."""
    array = values.detach().cpu().double().numpy()
    least = {"N": 1, "ND": 2}[axes]
    if array.ndim != len(axes) or len(array) < least or array.size == 0:
        shape = ", ".join(axes)
        raise ValueError(f"{name}: expected [{shape}] with N of at least {least}, found {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, found {array[~np.isfinite(array)][0]}")
    return array
