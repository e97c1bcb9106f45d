"""What a latent does behind given encoders: whether it follows every future, names the right one, and at what cost.

A mode m of a context x is one of its M futures. It is drawn once more as y_m, with trees and noise of its own, and
ž_m = argmin over z of E(x, y_m, z) is the latent's value for it. Energies are in units of the reference energy E0,
positions in the world's units of length.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from jepa.energy import distance
from jepa.evaluate.futures import path_gap
from jepa.evaluate.inference import operations, prediction_operations
from jepa.evaluate.subject import Row, Subject, refused
from jepa.measures.collapse import HEALTHY_CONTRAST, contrast, effective_rank
from jepa.model import JEPA, Representations
from jepa.worlds.base import Branching
from jepa.worlds.pairs import NEAR

LINES = 64  # contexts in which F is compared with parabolas


class Modes(NamedTuple):
    """The futures of the first held-out contexts, and what the latent makes of them."""

    s: Representations  # [N, D] of the true pairs
    z: Tensor  # [N, M, Z] ž_m
    predictions: Tensor  # [N, M, J, D] at ž_m
    branch: Tensor  # [N] which future came true


def modes(subject: Subject[Branching]) -> list[Row]:
    """Return mode recall, the share of cases in which the right mode's latent has the lowest energy, and the barrier.

    `mode_recall`: share of futures m that the predictions at ž_m meet, read by a probe; `right_mode_lowest`: of pairs
    whose E(x, y, ž_m) is least for the m that came true; `bits_of_future`: information about m that argmin carries;
    `energy_over_barrier`: mean F of true pairs over the mean of ‖s̃_m − s̃_n‖² / 4, the height of the ridge between the
    wells of two modes (LeCun 2022, section 4.5). `recall_uncollapsed`: recall, 0 where relative contrast is below ½.

    Raises: ValueError for a world without a finite number of futures.
    """
    model, found = subject.model, _modes(subject)
    count, size = found.z.shape[:2]
    read = subject.path_probe(found.predictions).unflatten(-1, (subject.world.frames, 2))  # [N, M, J, T, 2]
    truth = subject.world.futures(_first(subject.held_out.factors, count))  # [N, M, T, 2]
    met = path_gap(read, truth.unsqueeze(2)).square().mean(2).sqrt() <= NEAR
    with torch.no_grad():
        energies = model.E(found.s.s_x, subject.a[:count], found.s.s_y)(found.z)  # [N, M]
    named = energies.argmin(1)
    value = subject.inferred.value
    flat = contrast(value, subject.mismatched_energy, subject.mean_squared_distance) < HEALTHY_CONTRAST
    centers = found.predictions.mean(2)
    others = torch.triu_indices(size, size, 1)
    barrier = distance(centers[:, others[0]], centers[:, others[1]]).mean() / 4
    rows = [
        Row("mode_recall", float(met.double().mean()), met.numel()),
        Row("recall_uncollapsed", 0.0 if flat else float(met.double().mean())),
        Row("right_mode_lowest", float((named == found.branch).double().mean()), count),
        Row("bits_of_future", information(found.branch, named, size)),
    ]
    # without a latent all modes have one prediction, and there is no ridge
    return [*rows, Row("energy_over_barrier", float(value[:count].mean() / barrier))] if barrier > 0 else rows


def latents(subject: Subject) -> list[Row]:
    """Return how close the latent brings the prediction, the bits it spends, and what inferring it costs.

    `fit`: median D(s_y, s̃_y) at ž of true pairs, R(z) left out; `bits_spent` (left out where nothing bounds them):
    `jepa.latents.base.Latent.rate_bits`; `latent_rank`: effective rank of what the predictor is given of ž;
    `inference_cost`: floating-point operations of an inference, in units of one prediction's.
    """
    model, s, found = subject.model, subject.s, subject.inferred
    with torch.no_grad():
        penalty, given = model.latent.regularize(found.argmin), model.latent.predictor_input(found.argmin)
    rows = [
        Row("fit", float((found.value - penalty).median()) / subject.reference),
        Row("inference_cost", operations(model, s, subject.a) / prediction_operations(model, s, subject.a)),
    ]
    if model.latent.width:
        rows.append(Row("latent_rank", effective_rank(given.flatten(0, 1))))
    rate = model.latent.rate_bits(found.argmin)
    return rows if math.isinf(rate) else [*rows, Row("bits_spent", rate)]


def entries(subject: Subject[Branching]) -> list[Row]:
    """Return how many values of a finite latent each future takes: exp(entropy of their use) / M, all futures alike.

    Raises: ValueError for a latent without codes.
    """
    model, world = subject.model, subject.world
    if model.latent.codes is None:
        raise refused("entries", "a latent with codes", model.latent)
    branch, size = world.branch(subject.held_out.factors), world.branches
    index = model.latent.nearest(subject.inferred.argmin)
    use = torch.stack(
        [
            torch.bincount(index[branch == m], minlength=len(model.latent.codes)).double() / (branch == m).sum()
            for m in range(size)
        ]
    )
    perplexity = torch.special.entr(use.mean(0)).sum().exp()
    return [Row("perplexity_per_future", float(perplexity) / size)]


def wells(subject: Subject) -> list[Row]:
    """Return how far F is from the lowest of K parabolas, and for two codes how far its ridge is from its closed form.

    F(s_y) = min_k ‖s_y − s̃_k‖² + R_k on the lines between predictions, and for K = 2 at their middle
    ‖s̃_0 − s̃_1‖² / 4 + min R; both in double precision, relative to 1 + F (LeCun 2022, section 4.5; identities).

    Raises: ValueError for a latent without codes.
    """
    if subject.model.latent.codes is None:
        raise refused("wells", "a latent with codes", subject.model.latent)
    behind = copy.deepcopy((subject.model.predictor, subject.model.latent))
    model = JEPA(nn.Identity(), nn.Identity(), *behind).double().eval()
    s_x, a = subject.s.s_x[:LINES].double(), subject.a[:LINES].double()
    with torch.no_grad():
        centers = model.step(s_x.unsqueeze(1), a.unsqueeze(1), model.latent.codes.unsqueeze(0))  # [N, K, D]
    shares = torch.linspace(-0.5, 1.5, 41, dtype=torch.float64)
    line = torch.lerp(centers[:, :1], centers[:, :2][:, -1:], shares.view(1, -1, 1))  # [N, L, D]
    found = torch.stack([model.minimum(s_x, a, s_y).value for s_y in line.unbind(1)], 1)
    penalties = model.latent.regularize(model.latent.codes).numpy()
    each = ((line.numpy()[:, :, None] - centers.numpy()[:, None]) ** 2).sum(-1) + penalties
    rows = [Row("parabola_gap", float(np.max(np.abs(found.numpy() - each.min(-1)) / (1 + each.min(-1)))))]
    if centers.shape[1] == 2:
        ridge = ((centers[:, 0] - centers[:, 1]) ** 2).sum(-1) / 4 + float(penalties.min())
        rows.append(Row("midpoint_gap", float(((found[:, 20] - ridge).abs() / (1 + ridge)).max())))
    return rows


def information(a: Tensor, b: Tensor, size: int) -> float:
    """Return the mutual information in bits of two labels [N] of `size` values, by their joint frequencies."""
    joint = torch.zeros(size, size, dtype=torch.float64)
    joint.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    joint /= len(a)
    entropy = torch.special.entr
    return float(entropy(joint.sum(0)).sum() + entropy(joint.sum(1)).sum() - entropy(joint).sum()) / math.log(2)


@torch.no_grad()
def _modes(subject: Subject[Branching]) -> Modes:
    """Return what the latent makes of every future of the first held-out contexts."""
    model, alternatives = subject.model, subject.alternatives  # [N, M, D]
    count, size = alternatives.shape[:2]
    s, a = subject.s.first(count), subject.a[:count]
    each = s.s_x.repeat_interleave(size, 0), a.repeat_interleave(size, 0), alternatives.flatten(0, 1)
    z = model.minimum(*each).argmin.unflatten(0, (count, size))
    given = model.latent.predictor_input(z)  # [N, M, J, Z]
    predictions = model.step(s.s_x.unsqueeze(1), a.unsqueeze(1), given.flatten(1, 2)).unflatten(1, given.shape[1:3])
    branch = subject.world.branch(_first(subject.held_out.factors, count))
    return Modes(s, z, predictions, branch)


def _first(factors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the factors of the first pairs."""
    return {name: factor[:count] for name, factor in factors.items()}
