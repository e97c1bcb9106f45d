"""The objective of an upper level that plans: what comes of its abstract actions, at a price (LeCun 2022, 4.5, 4.7).

    w_E mean_t [ D(s_t, s̃_t) + R(z_t) ] + w_P P,    s̃_{t+1} = Pred(s̃_t, z_t'),  z_t inferred from what was done or came

D is robust: beyond δ it goes on as a line, so that where a step may be stopped or not the prediction is one of both and
not the mean between them. P is the mean cross-entropy of the heads that tell what has been from what was drawn at
random: places all over the picture, and ends of steps from elsewhere in the batch.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from jepa.abstract import Abstract
from jepa.batches import Trajectories, checked
from jepa.keypoints import UNIT
from jepa.latents.stochastic import Draws, Gaussian
from jepa.model import JEPA
from jepa.objectives.base import Loss
from jepa.objectives.pairs import Weights, precision
from jepa.objectives.trajectories import Terms, encoded, robust, rollouts
from jepa.predictors import rollout

OWN = ("horizon", "delta")  # terms of trajectories that count here


class AbstractObjective(nn.Module):
    """The loss of a level whose latent is an abstract action (module docstring)."""

    terms = ("total", "energy", "rate", "heads")
    encoded = False  # batches hold frames, not representations
    moving = None  # no copy of an encoder

    def __init__(self, weights: Weights, extra: Terms, heads: float = 1.0) -> None:
        """Args: weights: of which the energy's counts alone; extra: of which horizon and delta count; heads: w_P.

        Raises: ValueError for a negative weight of the heads, criteria, which codes of frozen levels do not need, or
            another weight or term that does not count here.
        """
        super().__init__()
        if not heads >= 0:
            raise ValueError(f"heads: expected a weight of at least 0, found {heads}")
        if weights.variance or weights.covariance:
            found = f"{weights.variance}, {weights.covariance}"
            raise ValueError(f"loss.variance, loss.covariance: expected 0, as codes are frozen, found {found}")
        if not math.isinf(weights.beta):
            raise ValueError(f"loss.beta: expected infinity, as z is inferred by a network, found {weights.beta}")
        for name, value in asdict(extra).items():
            if name not in OWN and value != (default := getattr(Terms, name)):
                raise ValueError(f"objective.{name}: expected {default!r} for abstract actions, found {value!r}")
        self.weights, self.extra, self.heads = weights, extra, heads

    @property
    def settings(self) -> dict[str, float]:
        """What decides a training, for its checkpoints."""
        return {**asdict(self.weights), "heads": self.heads, **{name: getattr(self.extra, name) for name in OWN}}

    def forward(self, model: JEPA, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch of trajectories. Raises: ValueError for a batch of other shapes or precision."""
        checked(batch, precision(model))
        return self.of(model, encoded(model, batch.frames), batch, progress)

    def of(self, model: JEPA, s: Tensor, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch whose codes s [B, T+1, D] are known. Args: progress: not asked.

        Raises: ValueError for another predictor than one of abstract actions, another latent than one with a price, or
            fewer steps than a roll-out has.
        """
        predictor = model.predictor
        if not isinstance(predictor, Abstract):
            raise ValueError(f"predictor: expected one of abstract actions, found {type(predictor).__name__}")
        if not isinstance(model.latent, Gaussian):
            raise ValueError(f"latent: expected a Gaussian beside it, found {type(model.latent).__name__}")
        weight, _ = self.weights.annealed(progress)
        s, _, a, static = rollouts(s, s, batch.a, batch.static, self.extra.horizon)
        maps = predictor.map(static)
        z = predictor.on(maps, "inferred")(s[:, :-1], a, s[:, 1:])  # [B, T, 2 Z]
        rate = model.latent.regularize(z).mean() if predictor.network is not None else s.new_zeros(())
        exact = z.chunk(2, -1)[0].unsqueeze(-2)
        told = model.latent.predictor_input(z) if predictor.network is not None else exact  # [B, T, J, Z]
        none = s.new_zeros(1, 1, a.shape[1], 0)
        predicted = rollout(predictor.on(maps, "step"), s[:, :1], none, told.transpose(1, 2))  # [B, J, T, D]
        energy = robust(predicted, s[:, 1:].unsqueeze(1).expand_as(predicted), self.extra.delta).mean()
        heads = self._heads(model, (maps, predictor.fine(static)), s) if self.heads else s.new_zeros(())
        total = weight * (energy + rate) + self.heads * heads
        return Loss(total, dict(zip(self.terms, (total, energy, rate, heads), strict=True)))

    def _heads(self, model: JEPA, looks: tuple[Tensor, Tensor], s: Tensor) -> Tensor:
        """Return the mean cross-entropy of the heads, of as many places that have been as were drawn at random.

        Args: looks: what was made of the maps, coarsely and finely.
        """
        predictor, seen, generator = model.predictor, s.detach(), _generator(model.latent.draws)
        half = seen.new_tensor([side / 2 for side in predictor.map.static[:0:-1]] * (seen.shape[-1] // 2)) / UNIT
        drawn = half * (2 * torch.rand(seen.shape, generator=generator).to(seen) - 1)
        found = [("place", seen, seen, 1.0), ("place", drawn, drawn, 0.0)]
        before, after = seen[:, :-1], seen[:, 1:]
        moved = (after - before).flatten(0, 1)
        other = moved[torch.randperm(len(moved), generator=generator).to(seen.device)].view_as(after)
        found += [("end", before, after, 1.0), ("end", before, before + other, 0.0)]
        losses = []
        for head, place, end, label in found:
            odds = predictor.on(looks[head == "place"], head)(place, end, place)
            losses.append(binary_cross_entropy_with_logits(odds, torch.full_like(odds, label)))
        return torch.stack(losses).mean()


def _generator(draws: Draws) -> Generator:
    """Return what heads draw from: in training the latent's generator, whose state is kept, else always the same."""
    return draws.generator if draws.training else Generator().manual_seed(0)
