"""Signs of a collapse, looked for in the course of a training, and what the configuration lacks where they show.

An energy has collapsed where it tells true pairs from others no more (LeCun 2022, section 4.3). Four criteria keep a
training from it (section 4.5): s_x informative (1), s_y informative (2), s_y predictable from s_x (3), and little
information in z (4). Which one failed shows in what is left of s_y:

    y cannot be read from s_y, or s_y shrinks           criterion 2 failed, or 1
    it can, and no pair has an energy worth the name    criterion 4 failed: z says it all
    it can, and the energy has no weight                criterion 3 failed

A look changes nothing: no weight, no statistic of a layer, no generator of random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from jepa.encoders import Identity
from jepa.measures.collapse import auroc, contrast, effective_rank, reference_energy
from jepa.measures.probes import Probe
from jepa.model import JEPA, Representations
from jepa.runs.config import Loss
from jepa.worlds.pairs import Pairs

PAIRS = 512  # that are drawn where none are given
SEARCHED = 128  # of them, where every energy takes a search for z: a look then costs no more than a few steps
CHUNK = 256  # pairs that are drawn or encoded at a time
READ, ASKED = 64, 16  # most numbers of s_y that are read and of y that are asked for; of more, random projections
FEATURES, PENALTY = 64, 3e-2  # of the probe: few samples, so a narrower layer and a higher penalty than in measuring
CONTRAST = 0.01  # up to here an energy tells nothing
R2 = 0.1  # up to here nothing is read
AUROC = 0.6  # up to here pairs are told apart by chance, as any predictor does that was never trained
SHRUNK = 0.1  # up to this share of E0 s_y has shrunk; a probe, blind to scale, may read it still
FLAT = 0.05  # up to this mismatched_energy_ratio an energy is flat; it is ½ where all predictions are the mean of s_y
UNPREDICTABLE = "criterion 3 is missing, nothing asks s_y to be predictable from s_x (loss.energy = 0)"


class CollapseWarning(UserWarning):
    """A training's energy collapses."""


class Signs(NamedTuple):
    """What a look finds, dimensionless; nan where it cannot be measured."""

    contrast: float  # (median F of mismatched pairs − median F of true pairs) / E0
    probe_r2: float  # mean R² of what a probe reads from s_y
    effective_rank: float  # of s_y
    auroc: float  # probability that a mismatched pair has a higher F than a true one
    mismatched_energy_ratio: float  # median F of mismatched pairs / mean squared distance of s_y now
    spread: float  # mean squared distance of s_y now / E0, the same before training


class Batch(Protocol):
    """Pairs: contexts x [N, …], actions a [N, A], targets y [N, …]."""

    x: Tensor
    a: Tensor
    y: Tensor


class Watch:
    """The pairs that are looked at, what is asked about them, and the unit of their energies, E0 before training."""

    def __init__(
        self, model: JEPA, pairs: Batch, targets: Tensor | None = None, plausible: Tensor | None = None
    ) -> None:
        """Args: model: untrained; pairs: N as it is trained on, half of which teach the probe, on the model's device;
        targets: [N, F] what is asked of s_y, such as the predictable factors, in any unit, None for y itself;
        plausible: [N] true where x of a pair might have led to y of the next one (of the first, for the last), pairs
        that are left out then; None for nowhere.

        Raises: ValueError for less than 4 pairs, shapes that do not fit, or no mismatched pair.
        """
        count = len(pairs.y)
        if count < 4:
            raise ValueError(f"pairs: expected at least 4, found {count}")
        if targets is not None and (targets.ndim != 2 or len(targets) != count):
            raise ValueError(f"targets: expected [{count}, F], found {list(targets.shape)}")
        wrong = torch.arange(count, device=pairs.y.device)
        if plausible is not None:
            if plausible.shape != (count,) or plausible.all():
                what = f"expected [{count}], not true everywhere"
                raise ValueError(f"plausible: {what}, found {list(plausible.shape)}, {int(plausible.sum())} true")
            wrong = wrong[~plausible.to(wrong.device)]
        self._pairs, self._wrong = (pairs.x, pairs.a, pairs.y), wrong
        asked = _narrow(pairs.y.reshape(count, -1).float(), ASKED) if targets is None else targets
        self._targets = _varying(asked.detach().cpu().double())
        with _undisturbed(model):
            s_y = _encode(model.encoder_y, pairs.y)
        self.reference = _distance(s_y)
        self._known = self._read(s_y) if _fixed(model.encoder_y) else None  # what need not be read again

    def look(self, model: JEPA) -> Signs:
        """Return the signs of the model as it is outside of training; it is left as it was."""
        x, a, y = self._pairs
        with _undisturbed(model):
            s = Representations(_encode(model.encoder_x, x), _encode(model.encoder_y, y))
            wrong = self._wrong
            others = Representations(s.s_x[wrong], s.s_y.roll(-1, 0)[wrong])
            true, mismatched = _energies(model, s, a), _energies(model, others, a.roll(-1, 0)[wrong])
        now, (r2, rank) = _distance(s.s_y), self._known or self._read(s.s_y)
        return Signs(
            contrast=_or_nan(contrast, true, mismatched, self.reference),
            probe_r2=r2,
            effective_rank=rank,
            auroc=_or_nan(auroc, true, mismatched),
            mismatched_energy_ratio=float(mismatched.median()) / now if now else math.nan,
            spread=now / self.reference if self.reference else math.nan,
        )

    def _read(self, s: Tensor) -> tuple[float, float]:
        """Return what a probe reads from representations [N, D], a mean R², and their effective rank."""
        s = _narrow(s, READ).cpu()
        with torch.device("cpu"):  # where the probe is, whatever device the caller prefers
            return _or_nan(self._r2, s), _or_nan(effective_rank, s)

    def _r2(self, s: Tensor) -> float:
        """Return the mean R² of the targets on the second half of s [N, D]; the first half teaches the probe."""
        half, t = len(s) // 2, self._targets
        return float(Probe(s[:half], t[:half], FEATURES, PENALTY).r2(s[half:], t[half:]).mean())


def drawn(model: JEPA, sample: Callable[[int, Generator], Batch], device: torch.device) -> Watch:
    """Return who watches an untrained model with pairs from its own source, drawn by a generator of their own.

    Raises: ValueError as `Watch` does, if the source has less than 4 pairs.
    """
    generator = Generator(device).manual_seed(0)
    parts = [sample(CHUNK, generator) for _ in range(PAIRS // CHUNK)]
    x, a, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "a", "y"))
    return Watch(model, Pairs(x, a, y, {}))


def lacking(signs: Signs, loss: Loss, model: JEPA) -> str | None:
    """Return what the signs of a trained model say and which criterion it lacks, None if the energy has not collapsed.

    It has where contrast ≤ 0.01, in units of E0 or of the distances of s_y now, and besides R² ≤ 0.1, s_y has shrunk
    to a tenth, or the energy is flat; and where the energy has no weight and contrast or AUROC are those of chance. An
    energy that has a weight and has learned nothing yet shows none of these.

    Args: signs: from the course of the training; loss: its weights; model: its encoders and its latent.
    """
    r2, ratio, spread = signs.probe_r2, signs.mismatched_energy_ratio, signs.spread
    silent, found = signs.contrast <= CONTRAST * max(1.0, spread), f"contrast {signs.contrast:z.3f}, probe R² {r2:z.2f}"
    if silent and not _fixed(model.encoder_y) and (r2 <= R2 or spread <= SHRUNK):
        return f"{found}, s_y at {spread:z.3f} of its first spread; {_uninformative(loss, model)}"
    if silent and ratio <= FLAT and model.latent.bits:
        return f"{found}, mismatched pairs at {ratio:z.3f} of the distances of s_y; {_unlimited(loss, model)}"
    chance = silent or signs.auroc <= AUROC
    return f"{found}, AUROC {signs.auroc:.2f}; {UNPREDICTABLE}" if chance and loss.energy == 0 else None


def _uninformative(loss: Loss, model: JEPA) -> str:
    """Return which of the criteria 1 and 2 is missing."""
    factors = {"x": loss.information_x, "y": loss.information_y}
    weighted = loss.variance > 0 or loss.covariance > 0
    if model.encoder_x is model.encoder_y:  # one representation, which either of the two keeps informative
        missing = [] if weighted and any(factors.values()) else ["x", "y"]
    else:
        fixed = {"x": _fixed(model.encoder_x), "y": _fixed(model.encoder_y)}
        missing = [side for side, factor in factors.items() if not fixed[side] and not (weighted and factor)]
    if not missing:
        return "no criterion is missing: try a larger loss.variance beside loss.energy, or a lower train.rate"
    which = {"x": "criterion 1 is", "y": "criterion 2 is", "xy": "criteria 1 and 2 are"}["".join(missing)]
    names = [f"information_{side}" for side in missing] if weighted else ["variance", "covariance"]
    settings, sides = ", ".join(f"loss.{name} = 0" for name in names), " and ".join(f"s_{side}" for side in missing)
    return f"{which} missing, nothing asks {sides} to be informative ({settings})"


def _unlimited(loss: Loss, model: JEPA) -> str:
    """Return what is missing where all energies are low: criterion 4, criterion 3, or none but the measure."""
    latent, remedy = model.latent, "a smaller latent.size or a larger latent.alpha"
    size = latent.free or latent.width
    device = next((tensor.device for tensor in (*latent.buffers(), *model.parameters())), torch.device("cpu"))
    z = torch.randn(16, size, generator=Generator().manual_seed(0), device="cpu").to(device)
    with _undisturbed(model):
        free = math.isinf(latent.bits) and not latent.regularize(z).any()
    if free and size >= getattr(model.encoder_y, "outputs", 0):
        return f"criterion 4 is missing, nothing limits what z can say ({remedy} would)"
    if loss.energy == 0:
        return UNPREDICTABLE
    return f"no criterion is missing, but z, {size} numbers wide, says all of s_y: try {remedy}"


def _energies(model: JEPA, s: Representations, a: Tensor) -> Tensor:
    """Return F [N] of pairs, of the first 128 where each takes a search; nan where it finds none."""
    searches = model.latent.codes is None and (model.inference is None or getattr(model.inference, "refine", 0))
    count = SEARCHED if searches else len(a)
    parts = zip(*(tensor[:count].split(CHUNK) for tensor in (*s, a)), strict=True)
    try:
        return torch.cat([model.minimum(Representations(s_x, s_y), part).value for s_x, s_y, part in parts])
    except ValueError:  # energies that are not finite
        return s.s_y.new_full((1,), math.nan)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Let a model be used as outside of training and without gradients; every part of it is put back afterwards."""
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training


def _encode(encoder: nn.Module, values: Tensor) -> Tensor:
    """Return representations [N, D], a part at a time."""
    return torch.cat([encoder(part) for part in values.split(CHUNK)])


def _distance(s: Tensor) -> float:
    """Return the mean squared distance of s [N, D], nan if s is not finite."""
    return _or_nan(reference_energy, s)


def _or_nan(measure: Callable[..., float], *args: Any) -> float:
    """Return a measure, nan where it is refused: what is not finite ends a training by the loss's own check."""
    try:
        return measure(*args)
    except ValueError:
        return math.nan


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


def _fixed(encoder: nn.Module) -> bool:
    """Return whether an encoder has nothing to learn, so that it cannot collapse."""
    return isinstance(encoder, Identity | nn.Identity)
