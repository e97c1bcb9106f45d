"""The loss: the energy of true pairs plus the criteria that keep it from collapsing (LeCun 2022, figures 13 and 14)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from jepa.model import JEPA
from jepa.objectives.vicreg import covariance, variance


class Terms(NamedTuple):
    """The loss with its terms, each a scalar; the total is their sum by weights energy, variance and covariance."""

    total: Tensor  # what the optimizer descends
    energy: Tensor  # mean F_β of the true pairs: criterion 3 (and 4, through the latent's regularizer)
    variance: Tensor  # criteria 1 and 2: hinge of the embeddings' standard deviations, (i_x V(v_x) + i_y V(v_y)) / 2
    covariance: Tensor  # criteria 1 and 2: squared covariances of the embeddings, i_x C(v_x) + i_y C(v_y)


class Weights(NamedTuple):
    """Weights of the terms, factors of the two encoders in them, and the inverse temperature of the free energy."""

    energy: float
    variance: float
    covariance: float
    information_x: float  # i_x, criterion 1
    information_y: float  # i_y, criterion 2
    beta: float


def loss(model: JEPA, x: Tensor, a: Tensor, y: Tensor, weights: Weights) -> Terms:
    """Return w_E mean F_β + w_V (i_x V(v_x) + i_y V(v_y)) / 2 + w_C (i_x C(v_x) + i_y C(v_y)).

    That is figure 14 of LeCun 2022, with factors i_x and i_y of 0 or 1 to drop criterion 1 or 2 by.

    Args: model: the JEPA; x, a, y: a batch of true pairs; weights: dimensionless.
    Returns: the terms; variance and covariance are not computed and read 0 where their weight is 0, and of an encoder
        whose factor is 0 they hold nothing.
    Raises: ValueError for a batch of one, where a variance has no meaning.
    """
    s = model.encode(x, y)
    fit = model.free_energy(s, a, weights.beta).mean()
    spread = decorrelation = fit.new_zeros(())
    if weights.variance or weights.covariance:
        sides = [(weights.information_x, model.expander_x, s.s_x), (weights.information_y, model.expander_y, s.s_y)]
        embeddings = [(factor, expander(code)) for factor, expander, code in sides if factor]
        if weights.variance:
            spread = sum((factor * variance(v) for factor, v in embeddings), spread) / 2
        if weights.covariance:
            decorrelation = sum((factor * covariance(v) for factor, v in embeddings), decorrelation)
    total = weights.energy * fit + weights.variance * spread + weights.covariance * decorrelation
    return Terms(total, fit, spread, decorrelation)
