"""The loss: the energy of true pairs plus the criteria that keep it from collapsing (LeCun 2022, figures 13 and 14)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from jepa.model import JEPA
from jepa.regularizers.vicreg import covariance, variance


class Terms(NamedTuple):
    """The loss with its terms, each a scalar, unweighted but for the total."""

    total: Tensor  # what the optimizer descends
    energy: Tensor  # mean F_β of the true pairs: criterion 3 (and 4, through the latent's regularizer)
    variance: Tensor  # criteria 1 and 2: mean hinge of both embeddings' standard deviations
    covariance: Tensor  # criteria 1 and 2: squared covariances of both embeddings


class Weights(NamedTuple):
    """Weights of the terms, and the inverse temperature of the free energy."""

    energy: float
    variance: float
    covariance: float
    beta: float


def loss(model: JEPA, x: Tensor, a: Tensor, y: Tensor, weights: Weights) -> Terms:
    """Return w_E mean F_β + w_V (V(v_x) + V(v_y)) / 2 + w_C (C(v_x) + C(v_y)) (LeCun 2022, figure 14).

    Args: model: the JEPA; x, a, y: a batch of true pairs; weights: dimensionless.
    Returns: the terms; variance and covariance are not computed and read 0 where their weight is 0.
    Raises: ValueError for a batch of one, where a variance has no meaning.
    """
    s = model.encode(x, y)
    fit = model.free_energy(s, a, weights.beta).mean()
    spread = decorrelation = fit.new_zeros(())
    if weights.variance or weights.covariance:
        embeddings = [model.expander_x(s.s_x), model.expander_y(s.s_y)]
        if weights.variance:
            spread = sum(variance(v) for v in embeddings) / 2
        if weights.covariance:
            decorrelation = sum(covariance(v) for v in embeddings)
    total = weights.energy * fit + weights.variance * spread + weights.covariance * decorrelation
    return Terms(total, fit, spread, decorrelation)
