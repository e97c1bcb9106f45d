"""The objective of a hierarchy: the sum of what each level's own objective says (LeCun 2022, section 4.6).

    Σ_l w_l L_l(s_{l−1}),   L_l the objective of trajectories, or of abstract actions, on the windows of s_{l−1}

Trained *level by level* it has one term, and the codes below are data. Trained *globally* it has all of them, and the
gradient of every level goes through all encoders below it. Both are the same objective with other weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from jepa.batches import Trajectories, checked
from jepa.hierarchy import HJEPA
from jepa.objectives.abstract import AbstractObjective
from jepa.objectives.base import Loss
from jepa.objectives.pairs import precision
from jepa.objectives.trajectories import TrajectoryObjective


class LevelsObjective(nn.Module):
    """The loss of a hierarchy (module docstring)."""

    encoded = False  # batches hold frames, or codes that a source has windows of

    def __init__(
        self,
        objectives: Sequence[TrajectoryObjective | AbstractObjective],
        weights: Sequence[float] = (),
        below: int = 0,
    ) -> None:
        """Args: objectives: of the levels above `below`, from the lowest; weights: w_l of each, 1 where none is given;
        below: so many levels are frozen, and batches hold codes of the uppermost of them.

        Raises: ValueError for no objective, another number of weights, one that is negative, or none above 0.
        """
        super().__init__()
        weights = tuple(weights) or (1.0,) * len(objectives)
        fitting = len(weights) == len(objectives) and all(weight >= 0 for weight in weights)
        if not fitting or not any(weights):
            what = f"expected {len(objectives) or 'at least 1'} of at least 0, one above 0"
            raise ValueError(f"weights: {what}, found {list(weights)}")
        self.objectives, self.weights, self.below = nn.ModuleList(objectives), weights, below

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms: the total, and those of each level's own objective with the level's number."""
        numbered = enumerate(self.objectives, self.below + 1)
        return ("total", *(f"{term}_{number}" for number, objective in numbered for term in objective.terms))

    @property
    def highest(self) -> int:
        """The number of the highest level that has a weight; those above it are neither trained nor encoded."""
        return self.below + max(number for number, weight in enumerate(self.weights, 1) if weight)

    @property
    def settings(self) -> dict[str, float]:
        """What decides a training, for its checkpoints."""
        found: dict[str, float] = {"below": self.below}
        for number, (objective, weight) in enumerate(zip(self.objectives, self.weights, strict=True), self.below + 1):
            found |= {f"weight_{number}": weight}
            found |= {f"{name}_{number}": value for name, value in objective.settings.items()}
        return found

    def begin(self, model: HJEPA) -> None:
        """Let the copies of encoders that moving targets are of begin anew, as the encoders of a model are now."""
        for objective, level in zip(self.objectives, list(model.levels)[self.below :], strict=True):
            if objective.moving is not None:
                objective.moving.encoder.load_state_dict(level.encoder.state_dict())

    def forward(self, model: HJEPA, batch: Trajectories, progress: float) -> Loss:
        """Return the loss of a batch of trajectories, each level encoded in one call.

        A level whose weight is 0 is encoded where one above needs its codes, and its terms read 0.

        Args: progress: of the training, from 0 to 1.
        Raises: ValueError for another number of levels, clips that are too short for one, and as each objective.
        """
        if len(model.levels) != self.below + len(self.weights):
            expected = self.below + len(self.weights)
            raise ValueError(f"model: expected {expected} levels as in the objective, found {len(model.levels)}")
        checked(batch, precision(model))
        found: dict[str, Mapping] = {}
        total, s, a = batch.frames.new_zeros(()), batch.frames, batch.a
        for number, (objective, weight) in enumerate(zip(self.objectives, self.weights, strict=True), self.below + 1):
            if number > self.highest:
                found |= {f"{term}_{number}": s.new_zeros(()) for term in objective.terms}
                continue
            seen, a = model.seen(s, number), model.actions(a, number)
            s = model.up(seen, number)
            level = Trajectories(seen, a, batch.static, {})
            loss = objective.of(model.levels[number - 1], s, level, progress) if weight else None
            total = total + weight * loss.total if loss else total
            found |= {f"{term}_{number}": loss.terms[term] if loss else s.new_zeros(()) for term in objective.terms}
        return Loss(total, {"total": total, **found})
