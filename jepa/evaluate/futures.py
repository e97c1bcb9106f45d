"""What a model of the world `fork` knows: what its code keeps, which futures it predicts, what its energy sees.

Positions are in the world's units of length, energies in units of the reference energy E0. Probes learn on pairs of the
kind the model was trained on and are tested on the held-out set; they are for looking only.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from jepa.encoded import encode
from jepa.encoders import Coupling
from jepa.evaluate.subject import Row, Subject, paths, refused
from jepa.measures.collapse import auroc, contrast, diagnostics, effective_rank
from jepa.measures.probes import Probe
from jepa.model import JEPA, Representations
from jepa.worlds.base import Branching
from jepa.worlds.clips import Clips
from jepa.worlds.pairs import NEAR


def collapse(subject: Subject[Branching]) -> list[Row]:
    """Return contrast, AUROC and effective rank, and the AUROC of an oracle, the energy on true states.

    Mismatched are pairs of one clip's x with the next one's y, those left out that would be plausible;
    `relative_contrast`: contrast in units of the mean squared distance of s_y as trained, not of E0, for what stands
    behind the same frozen encoders, which cannot shrink and may have grown; `mismatched_energy_ratio`: the median F of
    mismatched pairs in the same units, 0 where flat;
    `normalized_error`: the mean F of true pairs in units of the variance of s_y, 1 where a constant predicts as well.
    """
    factors, true, mismatched = subject.held_out.factors, subject.inferred.value, subject.mismatched_energy
    oracle_true = subject.world.oracle(factors, factors)
    rank = effective_rank(code(subject.model, subject.s))
    found = diagnostics(true, mismatched, subject.s.s_y, subject.reference, rank)
    return [
        Row("contrast", found.contrast),
        Row("relative_contrast", contrast(true, mismatched, subject.mean_squared_distance)),
        Row("auroc", found.auroc),
        Row("oracle_auroc", auroc(oracle_true, subject.oracle[subject.oracle > NEAR**2])),
        Row("effective_rank", found.effective_rank),
        Row("true_energy", float(true.median()) / subject.reference),
        Row("mismatched_energy_ratio", found.mismatched_energy_ratio),
        Row("normalized_error", float(true.mean()) / (subject.mean_squared_distance / 2)),
        Row("parameters", sum(weights.numel() for weights in subject.model.parameters())),
    ]


def factors(subject: Subject[Clips]) -> list[Row]:
    """Return what a probe reads from the code of y: R² of every factor, of the car's path, of texture and branch."""
    world, held_out = subject.world, subject.held_out
    s, known = code(subject.model, subject.s), code(subject.model, subject.s_probe)
    targets, truth = _targets(world, subject.probe_factors), _targets(world, held_out.factors)
    probe = Probe(known, torch.cat(list(targets.values()), 1), subject.probe)
    widths = [part.shape[1] for part in targets.values()]
    scores = probe.r2(s, torch.cat(list(truth.values()), 1)).split(widths)
    r2 = {name: float(score.mean()) for name, score in zip(targets, scores, strict=True)}
    predictable = [name for name, label in world.factor_labels.items() if label == "predictable"]
    rows = [Row(f"{name}_r2", value) for name, value in r2.items()]
    rows.append(Row("probe_r2", sum(r2[name] for name in predictable) / len(predictable)))
    if not world.branches:
        return rows
    branch = probe(s).split(widths, 1)[list(targets).index("branch")].argmax(1)
    right = branch == world.branch(held_out.factors)
    return [*rows, Row("branch_probe_accuracy", float(right.double().mean()), len(right))]


def context(subject: Subject[Clips]) -> list[Row]:
    """Return what a probe reads from s_x: R² of the predictable factors, and of texture, which no y needs."""
    world, truth = subject.world, subject.held_out.factors
    names = [name for name, label in world.factor_labels.items() if label == "predictable"]
    targets, asked = (
        torch.cat([of[name] for name in (*names, "texture_x")], 1) for of in (subject.probe_factors, truth)
    )
    known, unneeded = (
        Probe(subject.s_probe.s_x, targets, subject.probe).r2(subject.s.s_x, asked).tensor_split([len(names)])
    )
    return [Row("context_probe_r2", float(known.mean())), Row("context_texture_r2", float(unneeded.mean()))]


def branches(subject: Subject[Branching]) -> list[Row]:
    """Return how often the code of least energy names the branch, each code standing for one branch at most.

    Raises: ValueError for a latent without codes, or a world with a single branch.
    """
    codes = _codes(subject)
    chosen = subject.inferred.argmin.argmax(1)
    branch = subject.world.branch(subject.held_out.factors)
    counts = torch.zeros(len(codes), int(branch.max()) + 1).index_put_((chosen, branch), torch.ones(1), accumulate=True)
    hits = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return [Row("branch_accuracy", float(hits) / len(branch), len(branch))]


def predictions(subject: Subject[Branching]) -> list[Row]:
    """Return how well the decoded predictions follow the futures: errors are root mean squares over frames.

    `decoded_error`: of the best of the predicted set against what happened; `future_error`: of the worst of the set,
    each against its nearest future; `future_separation`: between the two predictions farthest apart; `mode_recall`:
    share of futures that a prediction meets.
    """
    world, held_out = subject.world, subject.held_out
    found = decoded(subject, subject.s.s_x)  # [B, K, T, 2]
    truth = world.positions(held_out.factors)[:, None, world.frames :]
    gaps = path_gap(found.unsqueeze(2), world.futures(held_out.factors).unsqueeze(1))  # [B, K, M]
    met = gaps.amin(1) <= NEAR
    rows = [
        Row("decoded_error", float(path_gap(found, truth).amin(1).mean())),
        Row("future_error", float(gaps.amin(2).amax(1).mean())),
        Row("mode_recall", float(met.double().mean()), met.numel()),
    ]
    apart = path_gap(found.unsqueeze(2), found.unsqueeze(1)).flatten(1).amax(1)
    return [*rows, Row("future_separation", float(apart.mean()))]


def invariance(subject: Subject[Clips]) -> list[Row]:
    """Return how often new trees and new noise change F by less than moving the car by one unit raises it.

    The car is moved in a random direction in all frames of y; trees and noise stay.
    """
    world, (_, y, known) = subject.world, subject.held_out
    generator = subject.stream("invariance")
    angle = 2 * math.pi * torch.rand(len(y), generator=generator)
    clear = {name: factor for name, factor in known.items() if name in world.factor_labels}
    moved = y + world.render(clear, shift=torch.stack([angle.sin(), angle.cos()], 1)).y - world.render(clear).y
    redrawn = clear | world.draw_texture(len(y), generator)
    retextured = world.render(redrawn, world.draw_noise(len(y), generator)).y
    targets = (subject.s.s_y, *(encode(subject.model.target_encoder, clips) for clips in (moved, retextured)))
    before, after, detail = (subject.minimum(subject.s._replace(s_y=s_y)).value for s_y in targets)
    invariant = (detail - before).abs() < after - before
    return [
        Row("invariance_rate", float(invariant.double().mean()), len(invariant)),
        Row("moved_energy", float((after - before).median()) / subject.reference),
        Row("retextured_energy", float((detail - before).abs().median()) / subject.reference),
    ]


def code(model: JEPA, s: Representations) -> Tensor:
    """Return what a model keeps of y: s_y [B, D], or where that is y itself, what y is rebuilt from, s_x and ž.

    An invertible encoder's pictures are read at half their size.
    """
    if isinstance(model.target_encoder, Coupling):
        return halved(s.s_y.unflatten(1, model.target_encoder.inputs))
    if not model.generative:
        return s.s_y
    return torch.cat([s.s_x, model.minimum(s.s_x, s.s_x[:, :0], s.s_y).argmin], 1)


def halved(frames: Tensor) -> Tensor:
    """Return frames [B, T, S, S] at half their size, in one row."""
    return torch.nn.functional.avg_pool2d(frames, 2).flatten(1)


@torch.no_grad()
def decoded(subject: Subject[Branching], s_x: Tensor) -> Tensor:
    """Return the paths [B, K, T, 2] that a probe, trained on s_y, reads from the predictions of all K codes."""
    predicted = subject.model.step(s_x.unsqueeze(1), s_x.new_zeros(1, 1, 0), _codes(subject).unsqueeze(0))
    read = subject.path_probe(predicted)
    return read.unflatten(-1, (subject.world.frames, 2))


def _targets(world: Clips, known: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a probe is asked for: every predictable factor, texture and path of y, the branch one-hot."""
    asked = {name: known[name] for name, label in world.factor_labels.items() if label == "predictable"}
    asked |= {"texture": known["texture_y"], "position": paths(world, known)}
    if not world.branches:
        return asked
    return asked | {"branch": torch.nn.functional.one_hot(world.branch(known), world.branches).float()}


def _codes(subject: Subject) -> Tensor:
    """Return the codes [K, Z]. Raises: ValueError for a latent without them."""
    if subject.model.latent.codes is None:
        raise refused("branches and predictions", "a latent with codes", subject.model.latent)
    return subject.model.latent.codes


def path_gap(a: Tensor, b: Tensor) -> Tensor:
    """Return the distance of paths [..., T, 2], the root of its mean square over frames."""
    return (a - b).square().sum(-1).mean(-1).sqrt()
