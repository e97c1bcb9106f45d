"""What an objective lacks where diagnostics show a collapse (LeCun 2022, sections 4.3 and 4.5).

An energy has collapsed where it tells true pairs from others no more. Four criteria keep a training from it: s_x
informative (1), s_y informative (2), s_y predictable from s_x (3), and little information in z (4). Which one failed
shows in what is left of s_y:

    y cannot be read from s_y, or s_y shrinks           criterion 2 failed, or 1
    it can, and no pair has an energy worth the name    criterion 4 failed: z says it all
    it can, and the energy has no weight                criterion 3 failed

The rule with its thresholds is that of `jepa.measures.collapse`.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, nn

from jepa.encoders import Identity
from jepa.measures.collapse import CHANCE_AUROC, Diagnostics
from jepa.model import JEPA
from jepa.modes import undisturbed
from jepa.objectives.pairs import PairObjective

UNPREDICTABLE = "criterion 3 is missing, nothing asks s_y to be predictable from s_x (loss.energy = 0)"


def diagnose(found: Diagnostics, objective: PairObjective, model: JEPA) -> str | None:
    """Return what diagnostics say and which criterion a training lacks, None if the energy has not collapsed.

    It has where it is silent, and besides s_y is uninformative, or the energy is flat; and where the energy has no
    weight and contrast or AUROC are those of chance. An energy that has a weight and has learned nothing yet shows none
    of these.

    Args: found: from the course of the training; objective: its weights; model: its encoders and its latent.
    """
    r2, spread, silent = found.probe_r2, found.spread, found.silent
    shown = f"contrast {found.contrast:z.3f}, probe R² {r2:z.2f}"
    if silent and not cannot_collapse(objective, model) and found.uninformative:
        return f"{shown}, s_y at {spread:z.3f} of its first spread; {_uninformative(objective, model)}"
    if silent and found.flat and model.latent.bits:
        ratio = found.mismatched_energy_ratio
        return f"{shown}, mismatched pairs at {ratio:z.3f} of the distances of s_y; {_unlimited(objective, model)}"
    chance = silent or found.auroc <= CHANCE_AUROC
    return f"{shown}, AUROC {found.auroc:.2f}; {UNPREDICTABLE}" if chance and objective.weights.energy == 0 else None


def cannot_collapse(objective: PairObjective, model: JEPA) -> bool:
    """Return whether s_y has nothing to learn."""
    return objective.encoded or _is_fixed(model.target_encoder)


def _is_fixed(encoder: nn.Module) -> bool:
    """Return whether an encoder has nothing to learn."""
    return isinstance(encoder, Identity | nn.Identity)


def _uninformative(objective: PairObjective, model: JEPA) -> str:
    """Return which of the criteria 1 and 2 is missing."""
    weights = objective.weights
    factors = {"x": weights.information_x, "y": weights.information_y}
    weighted = weights.variance > 0 or weights.covariance > 0
    if model.encoder is model.target_encoder:  # one representation, which either of the two keeps informative
        missing = [] if weighted and any(factors.values()) else ["x", "y"]
    else:
        fixed = {"x": _is_fixed(model.encoder), "y": _is_fixed(model.target_encoder)}
        missing = [side for side, factor in factors.items() if not fixed[side] and not (weighted and factor)]
    if not missing:
        return "no criterion is missing: try a larger loss.variance beside loss.energy, or a lower train.rate"
    which = {"x": "criterion 1 is", "y": "criterion 2 is", "xy": "criteria 1 and 2 are"}["".join(missing)]
    names = [f"information_{side}" for side in missing] if weighted else ["variance", "covariance"]
    settings, sides = ", ".join(f"loss.{name} = 0" for name in names), " and ".join(f"s_{side}" for side in missing)
    return f"{which} missing, nothing asks {sides} to be informative ({settings})"


def _unlimited(objective: PairObjective, model: JEPA) -> str:
    """Return what is missing where all energies are low: criterion 4, criterion 3, or none but the measure."""
    latent, fix, size = model.latent, "a smaller latent.size or a larger latent.alpha", model.latent.inferred_width
    device = next((tensor.device for tensor in (*latent.buffers(), *model.parameters())), torch.device("cpu"))
    z = torch.randn(16, size, generator=Generator().manual_seed(0), device="cpu").to(device)
    with undisturbed(model):
        unregularized = math.isinf(latent.bits) and not latent.regularize(z).any()
    wide = 0 if objective.encoded else getattr(model.target_encoder, "outputs", 0)
    if unregularized and size >= wide:
        return f"criterion 4 is missing, nothing limits what z can say ({fix} would)"
    if objective.weights.energy == 0:
        return UNPREDICTABLE
    return f"no criterion is missing, but z, {size} numbers wide, says all of s_y: try {fix}"
