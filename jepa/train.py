"""The only optimizer loop: learning minimizes an objective over the weights.

A training is a function of what it is given. It writes checkpoints as it goes and, cut at any moment, resumes to the
same result to the bit (same machine, same number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn
from torch.optim import AdamW, Optimizer

from jepa.batches import Source
from jepa.checkpoints import fitting, load, restore, save
from jepa.modes import training_mode
from jepa.objectives.base import Loss, Objective
from jepa.streams import forked, global_generator, global_states, set_global_states

LOGGED = 100  # points of a training curve
Callback = Callable[[int, nn.Module], None]  # (finished steps, model)


@dataclass(frozen=True)
class Train:
    """How the weights are found: AdamW, warm-up over 5 % of the steps, then half a cosine to zero."""

    steps: int = 1000  # optimizer steps; 0 leaves the weights as they are drawn
    batch: int = 128  # samples per step
    rate: float = 3e-3  # peak learning rate of AdamW
    beta2: float = 0.999  # part of the past in AdamW's mean of squared gradients
    decay: float = 0.0  # weight decay of AdamW
    clip: float = 10.0  # largest norm of the gradient
    checkpoint: float = 30.0  # seconds between checkpoints

    def __post_init__(self) -> None:
        """Raises: ValueError for numbers that no training can have."""
        for name, least in (("steps", 0), ("batch", 1), ("decay", 0)):
            if not (value := getattr(self, name)) >= least:
                raise ValueError(f"train.{name}: expected at least {least}, found {value!r}")
        for name in ("rate", "clip"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"train.{name}: expected a number above 0, found {value!r}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"train.beta2: expected a number from 0 to below 1, found {self.beta2!r}")


@dataclass(frozen=True)
class Curve:
    """The training curve."""

    steps: list[int]
    terms: dict[str, list[float]]  # name of a term of the loss -> one value per entry of steps


def fit(
    model: nn.Module,
    objective: Objective,
    sample: Source,
    generator: Generator,
    train: Train,
    *,
    parts: Sequence[nn.Module] | None = None,
    checkpoint: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Curve:
    """Train in place by descending an objective, and leave every part in evaluation mode.

    A module that is in evaluation mode within a part in training mode stays so, and so does one in evaluation mode
    whose weights are all frozen, with what is in it. PyTorch's global generator, which layers such as dropout draw
    from, is seeded from `generator`, and is afterwards what it was before. On an accelerator no step waits for it.

    Args: model: on the generator's device; objective: (model, batch, progress 0 … 1) -> Loss; sample: (count,
        generator) -> batch; generator: the only source of randomness; train: steps, batch, optimizer; parts: whose
        weights are trained, None for the model and, if it is a module, the objective; checkpoint: file to resume from
        and to write to; callbacks: called with the number of finished steps and the model, before the first and after
        every step. What one raises ends the training after a whole step, of which the checkpoint is then written.
        A source or a callback that has `state_dict` and `load_state_dict` is resumed with the training.
    Returns: the training curve.
    Raises: ValueError if data or loss are not finite, nothing is to be trained, or the checkpoint is damaged, of
        another run, or of a training that ran to the end of another schedule.
    """
    training = _Training(model, objective, sample, generator, train, parts, callbacks)
    path = None if checkpoint is None else Path(checkpoint)
    with global_generator(generator), training_mode(training.parts):
        start = training.resume(path)
        return training.run(start, path)


class _Training:
    """All that a training has, so that it can be kept and brought back."""

    def __init__(self, model, objective, sample, generator, train, parts, callbacks) -> None:
        """Args: as for `fit`. Raises: ValueError if no weight is to be trained."""
        self.model, self.objective, self.sample = model, objective, sample
        self.generator, self.train, self.callbacks = generator, train, callbacks
        own = [objective] if isinstance(objective, nn.Module) else []
        self.parts = [model, *own] if parts is None else list(parts)
        weights = dict.fromkeys(weight for part in self.parts for weight in part.parameters() if weight.requires_grad)
        self.weights = list(weights)
        if train.steps and not weights:
            raise ValueError("parts: expected weights to train, found none that require a gradient")
        options = {"lr": train.rate, "betas": (0.9, train.beta2), "weight_decay": train.decay, "fused": True}
        self.optimizer: Optimizer | None = AdamW(self.weights, **options) if weights else None
        self.curve, self.called = Curve([], {name: [] for name in getattr(objective, "terms", ())}), 0

    def resume(self, path: Path | None) -> int:
        """Return the number of finished steps, after the training was put back to where a checkpoint was written."""
        start = 0 if path is None or not path.is_file() else self._restore(load(path), path)
        self._call(start)
        return start

    def run(self, start: int, path: Path | None) -> Curve:
        """Take all steps from `start` on."""
        steps, every, saved = self.train.steps, max(1, self.train.steps // LOGGED), time.monotonic()
        for step in range(start, steps):
            loss = self._step(step)
            if (step + 1) % every == 0 or step + 1 == steps:
                self._log(step + 1, loss)
            self.called = 0
            try:
                self._call(step + 1)
            except BaseException:
                self._save(step + 1, path)
                raise
            if time.monotonic() - saved > self.train.checkpoint:
                self._save(step + 1, path)
                saved = time.monotonic()
        self._save(steps, path)
        return self.curve

    def _step(self, step: int) -> Loss:
        """Take one step of the optimizer and return the loss before it."""
        train = self.train
        for group in self.optimizer.param_groups:
            group["lr"] = train.rate * _schedule(step, train.steps)
        batch = self.sample(train.batch, self.generator)
        try:
            loss = self.objective(self.model, batch, step / train.steps)
            if loss.total.device.type == "cpu":
                _check_finite(loss, step)
        except ValueError as error:
            raise _blamed(batch, step, error) from error
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        nn.utils.clip_grad_norm_(self.weights, train.clip)
        self.optimizer.step()
        return loss

    def _call(self, step: int) -> None:
        """Call the callbacks that were not yet called after a step; the numbers they draw move none of ours."""
        with forked(self.generator.device):
            while self.called < len(self.callbacks):
                self.called += 1
                self.callbacks[self.called - 1](step, self.model)

    def _log(self, step: int, loss: Loss) -> None:
        """Add a point to the curve; on an accelerator this is where numbers are read that are not finite."""
        _check_finite(loss, step - 1)
        self.curve.steps.append(step)
        for name, value in loss.terms.items():
            self.curve.terms.setdefault(name, []).append(float(value.detach()))

    def _save(self, step: int, path: Path | None) -> None:
        """Write a checkpoint, if one is asked for."""
        if path is not None:
            state = {  # all that the training needs to go on
                "settings": self._settings(),
                "step": step,
                "due": len(self.callbacks) - self.called,
                "curve": asdict(self.curve),
                "model": self.model.state_dict(),
                "objective": self.objective.state_dict() if isinstance(self.objective, nn.Module) else {},
                "optimizer": self.optimizer.state_dict() if self.optimizer else {},
                "generator": self.generator.get_state(),
                "global": global_states(self.generator.device),
                "states": [part.state_dict() for part in self._stateful()],
            }
            save(path, state)

    def _restore(self, state: dict[str, Any], path: Path) -> int:
        """Put everything back to where the checkpoint was written. Raises: ValueError if it is of another run."""
        with fitting(path, "training"):
            self._check(state)
            kept, done, steps = state["settings"], int(state["step"]), self.train.steps
        if kept["steps"] != steps:
            what = f"its training ran to the end of its schedule of {done} steps, where the learning rate is 0"
            raise ValueError(f"{path}: {what}; start {steps} steps from these weights, with another file")
        restore(self.model, state, path)
        if isinstance(self.objective, nn.Module):
            restore(self.objective, state, path, "objective")
        with fitting(path, "training"):
            if self.optimizer:
                self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            set_global_states(state["global"], self.generator.device)
            for part, kept in zip(self._stateful(), state["states"], strict=True):
                part.load_state_dict(kept)
            self.curve, self.called = Curve(**state["curve"]), len(self.callbacks) - state["due"]
            return int(state["step"])

    def _check(self, state: dict[str, Any]) -> None:
        """Raises: ValueError if a checkpoint was written under other settings, other steps of a finished one aside."""
        kept, own, states = state["settings"], self._settings(), len(state["states"])
        if states != (found := len(self._stateful())):
            raise ValueError(f"callbacks: expected {states} states of them and the source, found {found}")
        if kept == own or (kept | {"steps": own["steps"]} == own and int(state["step"]) == kept["steps"]):
            return
        changed = {name for name in {*kept, *own} if kept.get(name) != own.get(name)}
        found = ", ".join(f"{name} {kept.get(name)} where {own.get(name)} is asked for" for name in sorted(changed))
        raise ValueError(f"trained with {found}")

    def _settings(self) -> dict[str, Any]:
        """Return the settings that decide what is trained; how often a checkpoint is written does not."""
        settings = {name: value for name, value in asdict(self.train).items() if name != "checkpoint"}
        return settings | dict(getattr(self.objective, "settings", {}))

    def _stateful(self) -> list[Any]:
        """Return the source and the callbacks that have a state."""
        return [part for part in (self.sample, *self.callbacks) if hasattr(part, "load_state_dict")]


def _schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate: linear warm-up over 5 % of the steps, then half a cosine to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def _check_finite(loss: Loss, step: int) -> None:
    """Raises: ValueError if the loss is not finite, with its terms."""
    if not loss.total.isfinite():
        values = {name: float(value.detach()) for name, value in loss.terms.items()}
        raise ValueError(f"loss: expected finite terms, found {values} after {step} steps; lower train.rate")


def _blamed(batch: Any, step: int, error: ValueError) -> ValueError:
    """Return the error that names the part of a batch that is not finite, or the error itself if all are."""
    fields = batch._asdict() if hasattr(batch, "_asdict") else vars(batch) if hasattr(batch, "__dict__") else {}
    for name, value in fields.items():
        if isinstance(value, Tensor) and not value.isfinite().all():
            what = "expected finite numbers in the training data, found nan or infinity"
            return ValueError(f"{name}: {what} after {step} steps")
    return error
