"""The objective for pairs: the energy of true pairs plus the criteria against a collapse (LeCun 2022, section 4.5)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jepa.batches import checked
from jepa.model import JEPA, Representations
from jepa.objectives.base import Loss
from jepa.objectives.vicreg import covariance, variance


@dataclass(frozen=True)
class Weights:
    """Weights of the training loss (dimensionless): energy + variance + covariance terms (LeCun 2022, figure 14)."""

    energy: float = 1.0  # criterion 3: s_y predictable from s_x
    energy_start: float = 1.0  # fraction of that weight with which the training begins
    variance: float = 0.0  # criteria 1 and 2, first half: no component constant
    covariance: float = 0.0  # criteria 1 and 2, second half: components decorrelated
    information_x: float = 1.0  # criterion 1: factor of both for s_x
    information_y: float = 1.0  # criterion 2: factor of both for s_y
    beta: float = math.inf  # inverse temperature of the free energy, per unit of energy; infinity is the minimum
    beta_start: float = math.inf  # where the annealing begins; infinity: no annealing
    anneal: float = 0.5  # fraction of the steps over which energy weight and temperature go to their final values

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that are no weights."""
        for name in ("energy_start", "beta", "beta_start", "anneal"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"loss.{name}: expected a number above 0, found {value!r}")
        for name in ("variance", "covariance", "information_x", "information_y"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"loss.{name}: expected at least 0, found {value!r}")

    def annealed(self, progress: float) -> tuple[float, float]:
        """Return the energy's weight and β at a progress of the training from 0 to 1.

        While annealing, the weight and the temperature 1/β go linearly to their final values.
        """
        left = max(0.0, 1 - progress / self.anneal)
        final, first = 1 / self.beta, 1 / self.beta_start
        temperature = final + max(0.0, first - final) * left
        beta = 1 / temperature if temperature > 0 else math.inf
        return self.energy * (1 + (self.energy_start - 1) * left), beta


class PairObjective(nn.Module):
    """w_E mean F_β + w_V (i_x V(v_x) + i_y V(v_y)) / 2 + w_C (i_x C(v_x) + i_y C(v_y)) (LeCun 2022, figure 14).

    The embeddings v_x = Exp_x(s_x) and v_y = Exp_y(s_y) are made by expanders, which belong to the loss and not to the
    model; with factors i_x and i_y of 0 or 1 criterion 1 or 2 is dropped.
    """

    terms = ("total", "energy", "variance", "covariance")

    def __init__(
        self, weights: Weights, expanders: tuple[nn.Module, nn.Module] | None = None, encoded: bool = False
    ) -> None:
        """Args: weights: dimensionless; expanders: s_x -> v_x [B, E_x] and s_y -> v_y [B, E], None for identities;
        encoded: whether batches hold s_x and s_y in the place of x and y, as where encoders are frozen.
        """
        super().__init__()
        self.weights, self.encoded = weights, encoded
        self.expander_x, self.expander_y = expanders or (nn.Identity(), nn.Identity())

    @property
    def settings(self) -> dict[str, float]:
        """What decides a training, for its checkpoints."""
        return asdict(self.weights)

    def forward(self, model: JEPA, batch: Any, progress: float) -> Loss:
        """Return the loss of a batch of true pairs x, a, y.

        Args: progress: of the training, from 0 to 1, for what is annealed.
        Returns: the total with the terms `total`, `energy`, `variance` and `covariance`; variance and covariance are
            not computed and read 0 where their weight is 0, and of an encoder whose factor is 0 they hold nothing.
        Raises: ValueError for a batch without pairs in the model's precision, or of one, where a variance has no
            meaning.
        """
        weights = self.weights
        energy_weight, beta = weights.annealed(progress)
        checked(batch, precision(model))
        s = Representations(batch.x, batch.y) if self.encoded else model.encode(batch.x, batch.y)
        energy = model.free_energy(s.s_x, batch.a, s.s_y, beta, learn=True).mean()
        spread, decorrelation = self._criteria(s, energy)
        total = energy_weight * energy + weights.variance * spread + weights.covariance * decorrelation
        return Loss(total, dict(zip(self.terms, (total, energy, spread, decorrelation), strict=True)))

    def _criteria(self, s: Representations, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the terms of variance and covariance."""
        weights, spread = self.weights, energy.new_zeros(())
        decorrelation = spread
        if weights.variance or weights.covariance:
            sides = ((weights.information_x, self.expander_x, s.s_x), (weights.information_y, self.expander_y, s.s_y))
            embeddings = [(factor, expander(code)) for factor, expander, code in sides if factor]
            if weights.variance:
                spread = sum((factor * variance(v) for factor, v in embeddings), spread) / 2
            if weights.covariance:
                decorrelation = sum((factor * covariance(v) for factor, v in embeddings), decorrelation)
        return spread, decorrelation


def precision(model: nn.Module) -> torch.dtype:
    """Return the type of a model's weights; the default where it has none."""
    return next((weight.dtype for weight in model.parameters()), torch.get_default_dtype())
