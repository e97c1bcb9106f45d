"""The objective for trajectories: the energy of a roll-out and the criteria (LeCun 2022, sections 4.5 and 4.6).

    w_E mean_t D(s_t, s̃_t) + w_V V(v) + w_C C(v) + w_S mean |s_{t+1} − s_t|² + w_I mean |g(s_t, s_{t+1}) − a_t|²

with s̃_t the roll-out from s_0: one step is a pair, T steps are a trajectory; or roll-outs of fewer steps, one from
every frame that has so many after it. V and C are over batch and time, of v = Exp(s); the third criterion besides is
temporal similarity, the last one inverse dynamics (Sobal et al. 2025, who need it), a head g that only the loss sees.
Each is a term with a weight of its own, 0 where it is left out.

The gradient of the energy goes through the targets s_t, too: it makes an encoder drop what it cannot predict. Targets
without gradient, and targets of a copy of the encoder that follows it slowly, are variants.
"""

from __future__ import annotations

import copy
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

TARGETS = ("gradient", "stopped", "moving")
LATER = ("horizon", "targets", "momentum", "centered")  # terms that the first checkpoints of trajectories do not know


@dataclass(frozen=True)
class Terms:
    """Weights and constants of the terms that pairs do not have."""

    similarity: float = 0.0  # weight of |s_{t+1} − s_t|²
    inverse: float = 0.0  # weight of inverse dynamics: with it action labels are in the loss
    delta: float = math.inf  # per number of s: beyond it the distance goes on as a line (Huber 1964); infinity: squared
    horizon: int = 0  # steps of a roll-out, one from every frame that has so many after it; 0: one, of all the steps
    targets: str = "gradient"  # of the energy: with the gradient, "stopped": without, or "moving": of a slow copy
    momentum: float = 0.99  # of that copy: what is left of its weights after a step
    centered: bool = False  # whether variance and covariance are of s less its mean over the trajectory

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that are no weights, or a term that has no such value."""
        for name in ("similarity", "inverse"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name}: expected at least 0, found {getattr(self, name)!r}")
        if not self.delta > 0:
            raise ValueError(f"objective.delta: expected a number above 0, found {self.delta!r}")
        if self.horizon < 0:
            raise ValueError(f"objective.horizon: expected at least 0, found {self.horizon!r}")
        if self.targets not in TARGETS:
            raise ValueError(f"objective.targets: expected one of {', '.join(TARGETS)}, found {self.targets!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"objective.momentum: expected a number from 0 to below 1, found {self.momentum!r}")


class InverseDynamics(nn.Module):
    """The head that tells the action from two representations, a = g(s_t, s_{t+1})."""

    def __init__(self, inputs: int, action: int, hidden: int = 128) -> None:
        """Args: inputs, action: D and A; hidden: of both hidden layers. Raises: ValueError for a width below 1."""
        super().__init__()
        self.layers = perceptron([2 * inputs, hidden, hidden, action])

    def forward(self, s: Tensor, after: Tensor) -> Tensor:
        """Return a [..., A] of s and after [..., D]."""
        return self.layers(torch.cat([s, after], -1))


class MovingTarget(nn.Module):
    """A copy of an encoder that follows it, θ' ← m θ' + (1 − m) θ after every step (Grill et al. 2020)."""

    def __init__(self, encoder: nn.Module, momentum: float) -> None:
        """Args: encoder: as it is at first; momentum: m."""
        super().__init__()
        self.encoder, self.momentum = copy.deepcopy(encoder).requires_grad_(False), momentum

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """Return s [B, T+1, D] of frames [B, T+1, …], without gradient."""
        return self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    @torch.no_grad()
    def follow(self, encoder: nn.Module) -> None:
        """Take a step towards the encoder."""
        for own, other in zip(self.encoder.parameters(), encoder.parameters(), strict=True):
            own.lerp_(other, 1 - self.momentum)


class TrajectoryObjective(nn.Module):
    """The loss of trajectories (module docstring); of those of one step and no further terms it is that of pairs."""

    terms = ("total", "energy", "variance", "covariance", "similarity", "inverse")
    encoded = False  # batches hold frames, not representations

    def __init__(
        self,
        weights: Weights,
        extra: Terms,
        head: nn.Module | None = None,
        limit: float = 1.0,
        expander: nn.Module | None = None,
        moving: MovingTarget | None = None,
    ) -> None:
        """Args: weights: of energy, variance and covariance; extra: of the other terms; head: inverse dynamics,
        (s_t, s_{t+1}) -> a; limit: what actions are divided by before they are compared; expander: s -> v [B, E], of
        which variance and covariance are, None for s itself; moving: the copy of the encoder for moving targets.

        Raises: ValueError if inverse dynamics has a weight and no head, or targets move and there is no copy.
        """
        super().__init__()
        if extra.inverse and head is None:
            raise ValueError(f"head: expected one, as objective.inverse is {extra.inverse}, found none")
        if (extra.targets == "moving") != (moving is not None):
            found = "none" if moving is None else "one"
            raise ValueError(f"moving: expected a copy where objective.targets is 'moving', found {found}")
        self.weights, self.extra, self.head, self.limit = weights, extra, head, limit
        self.expander, self.moving = expander, moving

    @property
    def settings(self) -> dict[str, float]:
        """What decides a training, for its checkpoints; later terms where they are not as in all trainings before."""
        terms = asdict(self.extra)
        later = {name for name in LATER if terms[name] == getattr(Terms, name)}
        return asdict(self.weights) | {name: value for name, value in terms.items() if name not in later}

    def forward(self, model: JEPA, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch of trajectories; all frames are encoded in one call.

        Args: progress: of the training, from 0 to 1, for what is annealed.
        Returns: the total with all terms; one whose weight is 0 is not computed and reads 0.
        Raises: ValueError for a batch of other shapes or another precision, fewer steps than a roll-out has, or where
            roll-outs of more than one step have a latent beside a map, one that a network proposes, or a finite beta.
        """
        checked(batch, precision(model))
        return self.of(model, encoded(model, batch.frames), batch, progress)

    def of(self, model: JEPA, s: Tensor, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch whose codes s [B, T+1, D] are known. Args, raises: as for `forward`."""
        weights, extra = self.weights, self.extra
        energy_weight, beta = weights.annealed(progress)
        zero = s.new_zeros(())
        energy = self._energy(model, batch, s, beta)
        v = self._embedded(s) if weights.variance or weights.covariance else None
        spread = variance(v) if weights.variance else zero
        decorrelation = covariance(v) if weights.covariance else zero
        similarity = distance(s[:, 1:], s[:, :-1]).mean() if extra.similarity else zero
        inverse = distance(self.head(s[:, :-1], s[:, 1:]), batch.a / self.limit).mean() if extra.inverse else zero
        total = energy_weight * energy + weights.variance * spread + weights.covariance * decorrelation
        total = total + extra.similarity * similarity + extra.inverse * inverse
        values = (total, energy, spread, decorrelation, similarity, inverse)
        return Loss(total, dict(zip(self.terms, values, strict=True)))

    def _embedded(self, s: Tensor) -> Tensor:
        """Return v [B (T+1), E], of which variance and covariance are."""
        s = s - s.mean(1, keepdim=True) if self.extra.centered else s
        flat = s.flatten(0, 1)
        return flat if self.expander is None else self.expander(flat)

    def _targets(self, model: JEPA, s: Tensor, frames: Tensor) -> Tensor:
        """Return what the energy compares predictions with, [B, T+1, D]."""
        if self.moving is not None:
            if torch.is_grad_enabled():
                self.moving.follow(model.encoder)
            return self.moving(frames)
        return s.detach() if self.extra.targets == "stopped" else s

    def _energy(self, model: JEPA, batch: Trajectories, s: Tensor, beta: float) -> Tensor:
        """Return the mean energy of the roll-outs; of those of one step F, of longer ones with z inferred by steps."""
        target, a, static = self._targets(model, s, batch.frames), batch.a, batch.static
        s, target, a, static = rollouts(s, target, a, static, self.extra.horizon)
        if a.shape[1] == 1 and math.isinf(self.extra.delta) and not model.binds:
            return model.free_energy(s[:, 0], a[:, 0], target[:, 1], beta, learn=True).mean()
        step, z = model.bound(static), s.new_zeros(1, 1, a.shape[1], 0)
        if model.latent.inferred_width:
            z = self._inferred(model, s, a, target, beta)
        predicted = rollout(step, s[:, :1], a.unsqueeze(1), z)[:, 0]  # [B, T, D]
        return robust(predicted, target[:, 1:], self.extra.delta).mean()

    @torch.no_grad()
    def _inferred(self, model: JEPA, s: Tensor, a: Tensor, target: Tensor, beta: float) -> Tensor:
        """Return what the predictor is given of the best z of every step, [B, 1, T, Z]."""
        if model.latent.network is not None:
            raise ValueError(
                "inference: expected 'minimize', as no gradient of a roll-out reaches a network, found one"
            )
        if not math.isinf(beta):
            raise ValueError(f"loss.beta: expected infinity, as a roll-out has one z a step, found {beta}")
        if model.binds:
            raise ValueError("latent: expected none beside a map, found one; z is inferred by steps that read no map")
        pairs, y = transitions(s, a), target[:, 1:].flatten(0, 1)
        z = model.latent.predictor_input(model.minimum(pairs.x, pairs.a, y).argmin.unsqueeze(1))  # [BT, 1, J, Z]
        if z.shape[2] != 1:
            raise ValueError(f"latent: expected one that is told a step as it is, found {z.shape[2]} draws of it")
        return z[:, 0].unflatten(0, s[:, 1:].shape[:2]).transpose(1, 2)


def rollouts(s: Tensor, target: Tensor, a: Tensor, static: Tensor, horizon: int) -> tuple[Tensor, ...]:
    """Return codes, targets, actions and static parts of all roll-outs of `horizon` steps, trajectory by trajectory.

    Args: s, target: [B, T+1, D]; a: [B, T, A]; static: [G, …], G a divisor of B; horizon: H, 0 for T: what came.
    Returns: s and target [B (T−H+1), H+1, D], a [B (T−H+1), H, A], static [G, …].
    Raises: ValueError for less than H steps.
    """
    steps = a.shape[1]
    if horizon in (0, steps):
        return s, target, a, static
    if horizon > steps:
        raise ValueError(f"objective.horizon: expected at most {steps}, the steps of the trajectories, found {horizon}")
    parts = [(part, horizon + 1) for part in (s, target)] + [(a, horizon)]
    s, target, a = (part.unfold(1, width, 1).movedim(-1, 2).flatten(0, 1) for part, width in parts)
    return s, target, a, static


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
