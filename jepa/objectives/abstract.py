"""The objective of an upper level that plans: what comes of its abstract actions, at a price (LeCun 2022, 4.5 and 4.7).

    w_E mean_t [ D(s_t, s̃_t) + R(z_t) ] + w_P P,     s̃_{t+1} = Pred(s̃_t, z_t'),   z_t inferred from what was done or came

D is robust: beyond δ it goes on as a line, so that where a step may be stopped or not the prediction is one of both and
not the mean between them. P is the mean cross-entropy of the heads that tell what has been from what was drawn at
random: places all over the picture and, for subgoals, ends of steps from elsewhere in the batch.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from jepa.abstract import Abstract
from jepa.batches import Trajectories, checked
from jepa.keypoints import UNIT
from jepa.model import JEPA
from jepa.objectives.base import Loss
from jepa.objectives.pairs import Weights, precision
from jepa.objectives.trajectories import Terms, encoded, robust, rollouts
from jepa.predictors import rollout


class AbstractObjective(nn.Module):
    """The loss of a level whose latent is an abstract action (module docstring)."""

    terms = ("total", "energy", "rate", "heads")
    encoded = False  # batches hold frames, not representations
    moving = None  # no copy of an encoder

    def __init__(self, weights: Weights, extra: Terms, heads: float = 1.0) -> None:
        """Args: weights: of which the energy's counts alone; extra: of which horizon and delta count; heads: w_P.

        Raises: ValueError for a negative weight of the heads, or criteria, which codes of frozen levels do not need.
        """
        super().__init__()
        if not heads >= 0:
            raise ValueError(f"heads: expected a weight of at least 0, found {heads}")
        if weights.variance or weights.covariance:
            found = f"{weights.variance}, {weights.covariance}"
            raise ValueError(f"loss.variance, loss.covariance: expected 0, as codes are frozen, found {found}")
        self.weights, self.extra, self.heads = weights, extra, heads

    @property
    def settings(self) -> dict[str, float]:
        """What decides a training, for its checkpoints."""
        return {"energy": self.weights.energy, "heads": self.heads, **asdict(self.extra)}

    def forward(self, model: JEPA, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch of trajectories. Raises: ValueError for a batch of other shapes or precision."""
        checked(batch, precision(model))
        return self.of(model, encoded(model, batch.frames), batch, progress)

    def of(self, model: JEPA, s: Tensor, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch whose codes s [B, T+1, D] are known. Args: progress: not asked.

        Raises: ValueError for another predictor than one of abstract actions, or fewer steps than a roll-out has.
        """
        predictor = model.predictor
        if not isinstance(predictor, Abstract):
            raise ValueError(f"predictor: expected one of abstract actions, found {type(predictor).__name__}")
        weight, _ = self.weights.annealed(progress)
        s, _, a, static = rollouts(s, s, batch.a, batch.static, self.extra.horizon)
        maps = predictor.map(static)
        z = predictor.on(maps, "inferred")(s[:, :-1], a, s[:, 1:])  # [B, T, 2 Z]
        rate = model.latent.regularize(z).mean() if predictor.network is not None else s.new_zeros(())
        told = model.latent.predictor_input(z).squeeze(-2) if predictor.network is not None else z.chunk(2, -1)[0]
        none = s.new_zeros(1, 1, a.shape[1], 0)
        predicted = rollout(predictor.on(maps, "step"), s[:, :1], none, told.unsqueeze(1))[:, 0]
        energy = robust(predicted, s[:, 1:], self.extra.delta).mean()
        heads = self._heads(model, (maps, predictor.fine(static)), s) if self.heads else s.new_zeros(())
        total = weight * (energy + rate) + self.heads * heads
        return Loss(total, dict(zip(self.terms, (total, energy, rate, heads), strict=True)))

    def _heads(self, model: JEPA, looks: tuple[Tensor, Tensor], s: Tensor) -> Tensor:
        """Return the mean cross-entropy of the heads, of as many places that have been as were drawn at random.

        Args: looks: what was made of the maps, coarsely and finely.
        """
        predictor, seen, generator = model.predictor, s.detach(), model.latent.draws.generator
        half = seen.new_tensor([side / 2 for side in predictor.map.static[:0:-1]]) / UNIT
        drawn = half * (2 * torch.rand(seen.shape, generator=generator).to(seen) - 1)
        found = [("place", seen, seen, 1.0), ("place", drawn, drawn, 0.0)]
        if predictor.reachable is not None:
            before, after = seen[:, :-1], seen[:, 1:]
            moved = (after - before).flatten(0, 1)
            other = moved[torch.randperm(len(moved), generator=generator).to(seen.device)].view_as(after)
            found += [("end", before, after, 1.0), ("end", before, before + other, 0.0)]
        losses = []
        for head, place, end, label in found:
            odds = predictor.on(looks[head == "place"], head)(place, end, place)
            losses.append(binary_cross_entropy_with_logits(odds, torch.full_like(odds, label)))
        return torch.stack(losses).mean()
