"""The only optimizer loop: learning minimizes the energy over the weights.

A run is a function of its configuration and its seed. It writes checkpoints as it goes and, cut at any moment, resumes
to the same result to the bit (same machine, same number of threads).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator
from torch.optim import AdamW, Optimizer

from jepa.checkpoints import load, restore, save
from jepa.model import JEPA
from jepa.monitor import Batch, CollapseWarning, Watch, drawn, lacking
from jepa.objectives.pairs import Terms, Weights, loss
from jepa.runs.config import Loss, Train

LOGGED = 100  # points of a training curve


@dataclass(frozen=True)
class Curve:
    """The training curve, and what was seen of a collapse on the way."""

    steps: list[int]
    terms: dict[str, list[float]]  # name of a loss term -> one value per entry of steps
    looks: list[int] = field(default_factory=list)  # steps after which the watch looked
    signs: dict[str, list[float]] = field(default_factory=dict)  # name of a sign -> one value per entry of looks
    warnings: list[str] = field(default_factory=list)  # what was warned of, once at most


def fit(
    model: JEPA,
    sample: Callable[[int, Generator], Batch],
    settings: tuple[Train, Loss],
    generator: Generator,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> Curve:
    """Train `model` in place with AdamW, warm-up over 5 % of the steps, then a cosine to zero.

    Args: model: on the generator's device; sample: (count, generator) -> pairs; settings: optimizer and loss;
        generator: the only source of randomness; checkpoint: file to resume from and to write to, None for none;
        progress: called with the number of finished steps, often enough for a bar; what it raises ends the training
        after a whole step, of which the checkpoint is then written; watch: who looks for a collapse
        before the first step and train.watch times on the way, None for one that draws its own pairs from `sample`.
    Returns: the training curve.
    Warns: CollapseWarning, once, from a third of the training on, naming the criterion that is missing.
    Raises: ValueError if data or loss are not finite, or if the checkpoint is damaged or of another run.
    """
    train, _ = settings
    if train.watch and watch is None:
        watch = drawn(model, sample, generator.device)
    betas = (0.9, train.beta2)
    optimizer = AdamW(model.parameters(), train.rate, betas, weight_decay=train.decay, fused=True)
    curve, start = Curve([], {name: [] for name in Terms._fields}), 0
    if checkpoint is not None and checkpoint.is_file():
        state = load(checkpoint)
        start, curve = _restore(state, checkpoint, settings, model, optimizer, generator)

    def keep(step: int) -> None:
        """Write the checkpoint."""
        if checkpoint is not None:
            save(checkpoint, _state(step, curve, settings, model, optimizer, generator))

    saved, every = time.monotonic(), max(1, train.steps // LOGGED)
    model.train()
    if not curve.looks:
        _look(curve, 0, model, settings, watch)
    for step in range(start, train.steps):
        terms = _step(model, optimizer, sample(train.batch, generator), settings, step)
        if (step + 1) % every == 0 or step + 1 == train.steps:
            _log(curve, step + 1, terms)
        _look(curve, step + 1, model, settings, watch)
        if progress is not None and curve.steps[-1:] == [step + 1]:
            try:
                progress(step + 1)
            except BaseException:
                keep(step + 1)
                raise
        if time.monotonic() - saved > train.checkpoint:
            keep(step + 1)
            saved = time.monotonic()
    keep(train.steps)
    model.eval()
    return curve


def _state(
    step: int, curve: Curve, settings: tuple[Train, Loss], model: JEPA, optimizer: Optimizer, generator: Generator
) -> dict[str, Any]:
    """Return all that a run needs to go on."""
    return {
        "settings": _deciding(settings),
        "step": step,
        "curve": asdict(curve),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
    }


def _deciding(settings: tuple[Train, Loss]) -> dict[str, float]:
    """Return the settings that decide what is trained; how often a checkpoint is written does not."""
    train, weights = settings
    return {name: value for name, value in {**asdict(train), **asdict(weights)}.items() if name != "checkpoint"}


def _restore(
    state: dict[str, Any],
    path: Path,
    settings: tuple[Train, Loss],
    model: JEPA,
    optimizer: Optimizer,
    generator: Generator,
) -> tuple[int, Curve]:
    """Put the run back to where the checkpoint was written."""
    restore(model, state, path)
    try:
        if state["settings"] != _deciding(settings):
            raise ValueError(f"trained with {state['settings']}, expected {_deciding(settings)}")
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        return int(state["step"]), Curve(**state["curve"])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: the checkpoint is of another run ({error}); delete it to train afresh") from error


def _step(model: JEPA, optimizer: Optimizer, batch: Batch, settings: tuple[Train, Loss], step: int) -> Terms:
    """Take one step of the optimizer and return the loss before it."""
    train, weights = settings
    for group in optimizer.param_groups:
        group["lr"] = train.rate * _schedule(step, train.steps)
    terms = _finite_loss(model, batch, _weights(weights, step / train.steps), step)
    optimizer.zero_grad(set_to_none=True)
    terms.total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
    optimizer.step()
    return terms


def _look(curve: Curve, step: int, model: JEPA, settings: tuple[Train, Loss], watch: Watch | None) -> None:
    """Where a look is due after a step, add it to the curve, and warn if it is the first to show a collapse."""
    train, weights = settings
    if not train.watch or step not in {train.steps * look // train.watch for look in range(train.watch + 1)}:
        return
    signs = watch.look(model)
    curve.looks.append(step)
    for name, value in signs._asdict().items():
        curve.signs.setdefault(name, []).append(value)
    early = step == 0 or 3 * step < train.steps  # before the energy had the time to tell anything
    found = None if early or curve.warnings else lacking(signs, weights, model)
    if found is not None:
        curve.warnings.append(f"the energy is collapsing after {step} of {train.steps} steps: {found}")
        warnings.warn(curve.warnings[-1], CollapseWarning, stacklevel=3)


def _schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate: linear warm-up over 5 % of the steps, then half a cosine to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def _weights(weights: Loss, share: float) -> Weights:
    """Return the loss weights at a share of the training.

    While annealing, the energy's weight and the temperature 1/β go linearly to their final values.
    """
    left = max(0.0, 1 - share / weights.anneal)
    final, first = 1 / weights.beta, 1 / weights.beta_start
    temperature = final + max(0.0, first - final) * left
    beta = 1 / temperature if temperature > 0 else math.inf
    energy = weights.energy * (1 + (weights.energy_start - 1) * left)
    factors = weights.information_x, weights.information_y
    return Weights(energy, weights.variance, weights.covariance, *factors, beta)


def _finite_loss(model: JEPA, batch: Batch, weights: Weights, step: int) -> Terms:
    """Return the loss; raise on what is not finite, naming where it came from."""
    try:
        terms = loss(model, batch.x, batch.a, batch.y, weights)
        if not terms.total.isfinite():
            values = {name: float(value.detach()) for name, value in terms._asdict().items()}
            raise ValueError(f"loss: expected finite terms, found {values} after {step} steps; lower train.rate")
        return terms
    except ValueError as error:
        for name in ("x", "a", "y"):
            if not getattr(batch, name).isfinite().all():
                what = "expected finite numbers in the training data, found nan or infinity"
                raise ValueError(f"{name}: {what} after {step} steps") from error
        raise


def _log(curve: Curve, step: int, terms: Terms) -> None:
    """Add a point to the curve."""
    curve.steps.append(step)
    for name, value in terms._asdict().items():
        curve.terms[name].append(float(value.detach()))
