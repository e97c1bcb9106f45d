"""The objective for trajectories: the energy of a roll-out and the criteria (LeCun 2022, sections 4.5 and 4.6).

    w_E mean_t D(s_t, s̃_t) + w_V V(s) + w_C C(s) + w_S mean |s_{t+1} − s_t|² + w_I mean |g(s_t, s_{t+1}) − a_t|²

with s̃_t the roll-out from s_0: one step is a pair, T steps are a trajectory. V and C are over batch and time; the third
criterion besides is temporal similarity, the last one inverse dynamics (Sobal et al. 2025, who need it), a head g that
only the loss sees. Each is a term with a weight of its own, 0 where it is left out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from jepa.batches import Trajectories, checked, transitions
from jepa.encoders import perceptron
from jepa.energy import distance
from jepa.model import JEPA
from jepa.objectives.base import Loss
from jepa.objectives.pairs import Weights, precision
from jepa.objectives.vicreg import covariance, variance
from jepa.predictors import rollout


@dataclass(frozen=True)
class Terms:
    """Weights and constants of the terms that pairs do not have."""

    similarity: float = 0.0  # weight of |s_{t+1} − s_t|²
    inverse: float = 0.0  # weight of inverse dynamics: with it action labels are in the loss
    delta: float = math.inf  # per number of s: beyond it the distance goes on as a line (Huber 1964); infinity: squared

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that are no weights, or a delta ≤ 0."""
        for name in ("similarity", "inverse"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name}: expected at least 0, found {getattr(self, name)!r}")
        if not self.delta > 0:
            raise ValueError(f"objective.delta: expected a number above 0, found {self.delta!r}")


class InverseDynamics(nn.Module):
    """The head that tells the action from two representations, a = g(s_t, s_{t+1})."""

    def __init__(self, inputs: int, action: int, hidden: int = 128) -> None:
        """Args: inputs, action: D and A; hidden: of both hidden layers. Raises: ValueError for a width below 1."""
        super().__init__()
        self.layers = perceptron([2 * inputs, hidden, hidden, action])

    def forward(self, s: Tensor, after: Tensor) -> Tensor:
        """Return a [..., A] of s and after [..., D]."""
        return self.layers(torch.cat([s, after], -1))


class TrajectoryObjective(nn.Module):
    """The loss of trajectories (module docstring); of those of one step and no further terms it is that of pairs."""

    terms = ("total", "energy", "variance", "covariance", "similarity", "inverse")
    encoded = False  # batches hold frames, not representations

    def __init__(self, weights: Weights, extra: Terms, head: nn.Module | None = None, limit: float = 1.0) -> None:
        """Args: weights: of energy, variance and covariance, the latter two of s itself; extra: of the other terms;
        head: inverse dynamics, (s_t, s_{t+1}) -> a; limit: what actions are divided by before they are compared.

        Raises: ValueError if inverse dynamics has a weight and no head.
        """
        super().__init__()
        if extra.inverse and head is None:
            raise ValueError(f"head: expected one, as objective.inverse is {extra.inverse}, found none")
        self.weights, self.extra, self.head, self.limit = weights, extra, head, limit

    @property
    def settings(self) -> dict[str, float]:
        """What decides a training, for its checkpoints."""
        return asdict(self.weights) | asdict(self.extra)

    def forward(self, model: JEPA, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch of trajectories; all frames are encoded in one call.

        Args: progress: of the training, from 0 to 1, for what is annealed.
        Returns: the total with all terms; one whose weight is 0 is not computed and reads 0.
        Raises: ValueError for a batch of other shapes or another precision, or where roll-outs have a latent beside a
            map, one that a network proposes, or a finite beta.
        """
        checked(batch, precision(model))
        weights, extra = self.weights, self.extra
        energy_weight, beta = weights.annealed(progress)
        s = encoded(model, batch.frames)
        flat, zero = s.flatten(0, 1), s.new_zeros(())
        energy = self._energy(model, batch, s, beta)
        spread = variance(flat) if weights.variance else zero
        decorrelation = covariance(flat) if weights.covariance else zero
        similarity = distance(s[:, 1:], s[:, :-1]).mean() if extra.similarity else zero
        inverse = distance(self.head(s[:, :-1], s[:, 1:]), batch.a / self.limit).mean() if extra.inverse else zero
        total = energy_weight * energy + weights.variance * spread + weights.covariance * decorrelation
        total = total + extra.similarity * similarity + extra.inverse * inverse
        values = (total, energy, spread, decorrelation, similarity, inverse)
        return Loss(total, dict(zip(self.terms, values, strict=True)))

    def _energy(self, model: JEPA, batch: Trajectories, s: Tensor, beta: float) -> Tensor:
        """Return the mean energy of the roll-outs; with a latent, of z inferred step by step from the frames."""
        if batch.a.shape[1] == 1 and math.isinf(self.extra.delta) and not model.binds:
            return model.free_energy(s[:, 0], batch.a[:, 0], s[:, 1], beta, learn=True).mean()
        step, z = model.bound(batch.static), s.new_zeros(1, 1, batch.a.shape[1], 0)
        if model.latent.inferred_width:
            z = self._inferred(model, batch, s, beta)
        predicted = rollout(step, s[:, :1], batch.a.unsqueeze(1), z)[:, 0]  # [B, T, D]
        return robust(predicted, s[:, 1:], self.extra.delta).mean()

    @torch.no_grad()
    def _inferred(self, model: JEPA, batch: Trajectories, s: Tensor, beta: float) -> Tensor:
        """Return what the predictor is given of the best z of every step, [B, 1, T, Z]."""
        if model.latent.network is not None:
            raise ValueError(
                "inference: expected 'minimize', as no gradient of a roll-out reaches a network, found one"
            )
        if not math.isinf(beta):
            raise ValueError(f"loss.beta: expected infinity, as a roll-out has one z a step, found {beta}")
        if model.binds:
            raise ValueError("latent: expected none beside a map, found one; z is inferred by steps that read no map")
        pairs = transitions(s, batch.a)
        z = model.latent.predictor_input(model.minimum(pairs.x, pairs.a, pairs.y).argmin.unsqueeze(1))  # [BT, 1, J, Z]
        if z.shape[2] != 1:
            raise ValueError(f"latent: expected one that is told a step as it is, found {z.shape[2]} draws of it")
        return z[:, 0].unflatten(0, s[:, 1:].shape[:2]).transpose(1, 2)


def encoded(model: JEPA, frames: Tensor) -> Tensor:
    """Return s [B, T+1, D] of frames [B, T+1, …], encoded in one call, each as what is predicted.

    Raises: ValueError as `JEPA.encode`, or if context and target encoder are not one.
    """
    if model.encoder is not model.target_encoder:
        raise ValueError("target_encoder: expected the context's, as every frame is both, found one of its own")
    flat = frames.flatten(0, 1)
    return model.representation(flat).unflatten(0, frames.shape[:2])


def robust(a: Tensor, b: Tensor, delta: float = math.inf) -> Tensor:
    """Return Σ_d h(a_d − b_d), h(e) = e² up to |e| = δ and δ (2 |e| − δ) beyond (Huber 1964, times 2), [...].

    Args: a, b: [..., D]; delta: δ, in the unit of s; infinity: the squared distance, to the bit.
    Raises: ValueError if the feature axes differ.
    """
    if math.isinf(delta):
        return distance(a, b)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"b: expected {a.shape[-1]} features as in a, found {b.shape[-1]}")
    return 2 * nn.functional.huber_loss(a, b, reduction="none", delta=delta).sum(-1)
