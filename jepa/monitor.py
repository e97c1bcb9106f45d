"""Diagnostics of a collapse in the course of a training (LeCun 2022, section 4.3).

An evaluation changes nothing: no weight, no statistic of a layer, no generator of random numbers.
"""

from __future__ import annotations

import math
import sys
import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from jepa.batches import Pairs, Source, checked
from jepa.diagnosis import cannot_collapse, diagnose
from jepa.measures.collapse import Diagnostics, diagnostics, effective_rank, or_nan, reference_energy
from jepa.measures.probes import Probe
from jepa.model import JEPA, Representations
from jepa.modes import undisturbed
from jepa.objectives.pairs import PairObjective, precision
from jepa.sampling import CHUNK

PAIRS = 512  # that are drawn where none are given
SEARCHED = 128  # of them, where every energy takes a search for z: an evaluation then costs no more than a few steps
READ, ASKED = 64, 16  # most numbers of s_y that are read and of y that are asked for; of more, random projections
FEATURES, PENALTY = 64, 3e-2  # of the probe: few samples, so a narrower layer and a higher penalty than in measuring


class CollapseWarning(UserWarning):
    """A training's energy collapses."""


class Evaluations(ABC):
    """A callback of `jepa.train.fit` that evaluates a model a few times, keeps what it finds, and warns once."""

    message: str  # how a warning begins

    def __init__(self, steps: int, times: int) -> None:
        """Args: steps: of the training; times: evaluations after the one before the first step."""
        self._steps = steps
        self._due = {steps * number // times for number in range(times + 1)} if times else set()
        self.steps: list[int] = []  # after which the model was evaluated
        self.diagnostics: dict[str, list[float]] = {}  # name -> one value per entry of steps
        self.warnings: list[str] = []  # what was warned of, once at most

    def __call__(self, step: int, model: JEPA) -> None:
        """Where an evaluation is due after a step, keep it, and warn if it is the first to show what it looks for.

        Warns: CollapseWarning, from a third of the training on, with the reason.
        """
        if step not in self._due:
            return
        found = self.evaluate(model)
        self.steps.append(step)
        for name, value in found._asdict().items():
            self.diagnostics.setdefault(name, []).append(value)
        early = step == 0 or 3 * step < self._steps  # before the energy had the time to tell anything
        reason = None if early or self.warnings else self.reason(found, model)
        if reason is not None:
            self.warnings.append(f"{self.message} after {step} of {self._steps} steps: {reason}")
            warnings.warn(self.warnings[-1], CollapseWarning, stacklevel=_outside())

    @abstractmethod
    def evaluate(self, model: JEPA) -> Any:
        """Return the named diagnostics of a model as it is outside of training; it is left as it was."""

    @abstractmethod
    def reason(self, found: Any, model: JEPA) -> str | None:
        """Return what diagnostics show that is to be warned of, None for nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was found so far."""
        return {"steps": list(self.steps), "diagnostics": dict(self.diagnostics), "warnings": list(self.warnings)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what was found before."""
        self.steps, self.diagnostics, self.warnings = (state[name] for name in ("steps", "diagnostics", "warnings"))


class Monitor(Evaluations):
    """A callback of `jepa.train.fit` that evaluates a model a few times and warns, once, where its energy collapses."""

    message = "the energy is collapsing"

    def __init__(
        self,
        model: JEPA,
        objective: PairObjective,
        pairs: Any,
        steps: int,
        times: int = 4,
        targets: Tensor | None = None,
        plausible: Tensor | None = None,
    ) -> None:
        """Args: model: untrained; objective: its weights decide which criterion is missing; pairs: N as it is trained
        on, half of which teach the probe, on the model's device; steps: of the training; times: evaluations after the
        one before the first step; targets: [N, F] what is asked of s_y, such as the predictable factors, in any unit,
        None for y itself; plausible: [N] true where x of a pair might have led to y of the next one (of the first, for
        the last), pairs that are left out then; None for nowhere.

        Raises: ValueError for what are no pairs, less than 4 of them, shapes that do not fit, or no mismatched pair.
        """
        count = len(checked(pairs, precision(model)).y)
        if count < 4:
            raise ValueError(f"pairs: expected at least 4, found {count}")
        if targets is not None and (targets.ndim != 2 or len(targets) != count):
            raise ValueError(f"targets: expected [{count}, F], found {list(targets.shape)}")
        super().__init__(steps, times)
        self._wrong = _mismatched(count, plausible, pairs.y.device)
        self._objective, self._pairs = objective, (pairs.x, pairs.a, pairs.y)
        asked = _narrow(pairs.y.reshape(count, -1).float(), ASKED) if targets is None else targets
        self._targets = _varying(asked.detach().cpu().double())
        with undisturbed(model):
            s_y = self._encode(model).s_y
        self.reference = or_nan(reference_energy, s_y)
        self._read_once = self._read(s_y) if cannot_collapse(objective, model) else None  # what need not be read again

    def evaluate(self, model: JEPA) -> Diagnostics:
        """Return the diagnostics of the model as it is outside of training; it is left as it was."""
        a, wrong = self._pairs[1], self._wrong
        with undisturbed(model):
            s = self._encode(model)
            others = Representations(s.s_x[wrong], s.s_y.roll(-1, 0)[wrong])
            true, mismatched = _energies(model, s, a), _energies(model, others, a.roll(-1, 0)[wrong])
        r2, rank = self._read_once or self._read(s.s_y)
        return diagnostics(true, mismatched, s.s_y, self.reference, rank, r2)

    def reason(self, found: Diagnostics, model: JEPA) -> str | None:
        """Return what the diagnostics say and which criterion is missing, None if the energy has not collapsed."""
        return diagnose(found, self._objective, model)

    def _encode(self, model: JEPA) -> Representations:
        """Return s_x and s_y of the pairs, a part at a time."""
        x, _, y = self._pairs
        if self._objective.encoded:
            return Representations(x, y)
        parts = [model.encode(*part) for part in zip(x.split(CHUNK), y.split(CHUNK), strict=True)]
        return Representations(*(torch.cat(side) for side in zip(*parts, strict=True)))

    def _read(self, s: Tensor) -> tuple[float, float]:
        """Return what a probe reads from representations [N, D], a mean R², and their effective rank."""
        s = _narrow(s, READ).cpu()
        with torch.device("cpu"):  # where the probe is, whatever device the caller prefers
            return or_nan(self._r2, s), or_nan(effective_rank, s)

    def _r2(self, s: Tensor) -> float:
        """Return the mean R² of the targets on the second half of s [N, D]; the first half teaches the probe."""
        half, t = len(s) // 2, self._targets
        return float(Probe(s[:half], t[:half], FEATURES, PENALTY).r2(s[half:], t[half:]).mean())


def drawn(
    model: JEPA,
    objective: PairObjective,
    sample: Source,
    steps: int,
    times: int = 4,
    portion: int = CHUNK,
) -> Monitor:
    """Return the monitor of an untrained model with pairs from its own source, drawn by a generator of their own.

    A source with a state is left in the one it was in.

    Args: as for `Monitor`; sample: the source; portion: pairs that are drawn at a time, as `train.batch` where the
        source gives no other number.
    Raises: ValueError as `Monitor` does, if it has less than 4 pairs.
    """
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    generator = Generator(device).manual_seed(0)
    state = sample.state_dict() if hasattr(sample, "load_state_dict") else None
    parts = [checked(sample(portion, generator), precision(model)) for _ in range(math.ceil(PAIRS / portion))]
    if state is not None:
        sample.load_state_dict(state)
    x, a, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "a", "y"))
    return Monitor(model, objective, Pairs(x, a, y, {}), steps, times)


def _outside() -> int:
    """Return how many calls lie between whoever called into this package and the caller of this."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("jepa."):
        frame, level = frame.f_back, level + 1
    return level


def _energies(model: JEPA, s: Representations, a: Tensor) -> Tensor:
    """Return F [N] of pairs, of the first 128 where each takes a search; nan where it finds none."""
    searches = model.latent.codes is None and (model.latent.network is None or model.latent.refine)
    count = SEARCHED if searches else len(a)
    parts = zip(*(tensor[:count].split(CHUNK) for tensor in (s.s_x, a, s.s_y)), strict=True)
    try:
        return torch.cat([model.minimum(*part).value for part in parts])
    except ValueError:  # energies that are not finite
        return s.s_y.new_full((1,), math.nan)


def _mismatched(count: int, plausible: Tensor | None, device: torch.device) -> Tensor:
    """Return the indices of the pairs whose x might not have led to the next one's y. Raises: ValueError for none."""
    wrong = torch.arange(count, device=device)
    if plausible is None:
        return wrong
    if plausible.shape != (count,) or plausible.all():
        what = f"expected [{count}], not true everywhere"
        raise ValueError(f"plausible: {what}, found {list(plausible.shape)}, {int(plausible.sum())} true")
    return wrong[~plausible.to(device)]


def _narrow(values: Tensor, width: int) -> Tensor:
    """Return values [N, D], of more than `width` numbers that many fixed random projections."""
    if values.shape[1] <= width:
        return values
    draws = torch.randn(values.shape[1], width, generator=Generator().manual_seed(0), device="cpu")
    return values @ draws.to(values) / math.sqrt(width)


def _varying(targets: Tensor) -> Tensor:
    """Return the columns of targets [N, F] that vary in both halves."""
    first, second = ((part != part[:1]).any(0) for part in targets.tensor_split([len(targets) // 2]))
    return targets[:, first & second]
