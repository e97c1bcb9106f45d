"""Diagnostics of a collapse in the course of a training on trajectories; none of them needs a label.

Variance and covariance over a batch see a code that is constant. They do not see one that holds what stays the same in
a trajectory and differs between them, such as where the walls are: its spread over the batch is that of a healthy one.
So the spread *within* trajectories is looked at too, and how much of the code's change its actions account for.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jepa.batches import Trajectories, checked
from jepa.hierarchy import HJEPA
from jepa.measures.probes import Probe
from jepa.model import JEPA
from jepa.modes import undisturbed
from jepa.monitor import Evaluations
from jepa.objectives.levels import LevelsObjective
from jepa.objectives.pairs import precision
from jepa.objectives.trajectories import TrajectoryObjective, encoded

SPREAD = 0.5  # of the target standard deviation of 1; below it the code has settled on nearly a constant
DRIVEN = 0.1  # R² of the code's change given the action; below it what moves is not what the actions move


class Signs(NamedTuple):
    """What is read from the codes of trajectories, dimensionless."""

    spread: float  # root of the mean variance of a number of s, over batch and time
    within: float  # the part of that variance that is within trajectories, from 0 to 1
    driven: float  # R² of s_{t+1} − s_t from a_t, by ridge regression; 0 where there are no actions
    energy: float  # mean energy of the roll-outs


class TrajectoryMonitor(Evaluations):
    """A callback of `jepa.train.fit` that evaluates a model a few times and warns, once, of a code that is stuck."""

    message = "the code is stuck"

    def __init__(self, model: JEPA, objective: TrajectoryObjective, batch: Trajectories, steps: int, times: int = 4):
        """Args: model: untrained; objective: of its training; batch: trajectories as it is trained on, on the model's
        device; steps: of the training; times: evaluations after the one before the first step.

        Raises: ValueError for what are no trajectories, or less than 4 of them.
        """
        if not hasattr(batch, "frames"):
            raise ValueError(f"batch: expected trajectories, found {type(batch).__name__}")
        if len(checked(batch, precision(model)).frames) < 4:
            raise ValueError(f"batch: expected at least 4 trajectories, found {len(batch.frames)}")
        super().__init__(steps, times)
        self._objective, self._batch = objective, batch

    def evaluate(self, model: JEPA) -> Signs:
        """Return what the model's codes show as it is outside of training; it is left as it was.

        Of codes that are not finite it is nan; the training itself says why.
        """
        with undisturbed(model), undisturbed(self._objective):
            s = encoded(model, self._batch.frames)
            if not bool(s.isfinite().all()):
                return Signs(*[math.nan] * 4)
            loss = self._objective(model, self._batch, 1.0)
        return signs(s, self._batch.a, float(loss.terms["energy"]))

    def reason(self, found: Signs, model: JEPA) -> str | None:
        """Return what the code is stuck on, None if it is not."""
        return stuck(found, self._batch.a.shape[-1] > 0)


class LevelsMonitor(Evaluations):
    """A callback of `jepa.train.fit` that evaluates every level that is trained, and warns, once, of a stuck one."""

    message = "the codes of a level are stuck"

    def __init__(self, objective: LevelsObjective, batch: Trajectories, steps: int, times: int = 4) -> None:
        """Args: objective: of the training; batch: clips as it is trained on, on the model's device; steps: of the
        training; times: evaluations after the one before the first step.

        Raises: ValueError for less than 4 clips.
        """
        super().__init__(steps, times)
        if len(batch.frames) < 4:
            raise ValueError(f"batch: expected at least 4 clips, found {len(batch.frames)}")
        self._objective, self._batch = objective, batch

    def evaluate(self, model: HJEPA) -> LevelSigns:
        """Return what the codes of each level show as it is outside of training; it is left as it was."""
        below, batch, found = self._objective.below, self._batch, {}
        with undisturbed(model), undisturbed(self._objective):
            codes = model.bottom(self._objective.highest).encode(batch.frames, below)
            finite = all(bool(s.isfinite().all()) for s in codes)
            loss = self._objective(model, batch, 1.0) if finite else None
            a = batch.a
            for number, s in enumerate(codes, below + 1):
                a = model.actions(a, number)[:, : s.shape[1] - 1]
                found[number] = signs(s, a, float(loss.terms[f"energy_{number}"])) if loss else Signs(*[math.nan] * 4)
        return LevelSigns(found)

    def reason(self, found: LevelSigns, model: HJEPA) -> str | None:
        """Return which level is stuck and on what, None if none is."""
        for number, of in found.items():
            if (what := stuck(of, acting=False)) is not None:
                return f"level {number}: {what}"
        return None


class LevelSigns(dict[int, Signs]):
    """What is read from the codes of each level, by its number."""

    def _asdict(self) -> dict[str, float]:
        """Return all numbers by name, such as spread_2."""
        return {f"{name}_{level}": value for level, of in self.items() for name, value in of._asdict().items()}


def signs(s: Tensor, a: Tensor, energy: float = 0.0) -> Signs:
    """Return what codes s [B, T+1, D] with actions a [B, T, A] show. Raises: ValueError for shapes that do not fit."""
    if s.ndim != 3 or a.shape[:2] != (len(s), s.shape[1] - 1):
        raise ValueError(f"a: expected [{len(s)}, {s.shape[1] - 1}, A] for s {list(s.shape)}, found {list(a.shape)}")
    s, a = s.detach().cpu().double(), a.detach().cpu().double()
    total = s.flatten(0, 1).var(0, correction=0).mean()
    within = s.var(1, correction=0).mean()
    return Signs(float(total.sqrt()), float(within / total.clamp_min(1e-12)), _driven(s.diff(dim=1), a), energy)


def stuck(found: Signs, acting: bool) -> str | None:
    """Return what a code is stuck on, None if it is not. Args: acting: whether there are actions."""
    if found.spread < SPREAD:
        return (
            f"its standard deviation is {found.spread:.2f}, below {SPREAD}; start the encoder again, from positive "
            "weights or another seed, or give loss.variance more weight"
        )
    if acting and found.driven < DRIVEN:
        return (
            f"its standard deviation is {found.spread:.2f}, but only {found.within:.1%} of the variance is within "
            f"trajectories, and actions account for {max(0.0, found.driven):.0%} of its change: it holds what does "
            "not move; subtract the static part from the frames (`jepa.static`)"
        )
    return None


def _driven(change: Tensor, a: Tensor) -> float:
    """Return the R² [the mean weighted by variance] of changes [B, T, D] from a [B, T, A] on held-out trajectories."""
    if not a.shape[-1]:
        return 0.0
    half = len(a) // 2
    with torch.device("cpu"):
        (known, asked), (told, truth) = ((part[:half].flatten(0, 1), part[half:].flatten(0, 1)) for part in (a, change))
        predicted = Probe(known, told, features=0)(asked)
    total = (truth - truth.mean(0)).square().sum()
    return float(1 - (truth - predicted).square().sum() / total) if total > 1e-12 else 0.0  # nothing moves


def drawn(model: JEPA, objective: nn.Module, sample: Any, steps: int, times: int, count: int = 96) -> TrajectoryMonitor:
    """Return the monitor of an untrained model on trajectories of its own source, by a generator of their own."""
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    batch = sample(count, torch.Generator(device).manual_seed(0))
    return TrajectoryMonitor(model, objective, batch, steps, times)
