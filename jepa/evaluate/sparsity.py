"""What sparse latents do: how many numbers they use, which sets of them, and how fast they are found.

The predictor is linear in z, s̃ = f(s_x) + W z (`jepa.predictors.Additive`), so that energies are convex in z and what
FISTA finds is the minimum (LeCun 2022, section 4.5).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from jepa.evaluate.subject import Row, Subject, refused
from jepa.latents.sparse import Sparse
from jepa.minimize import fista, l1
from jepa.predictors import Additive

STEPS = 600  # of FISTA, after which it counts as the minimum
COVERED = 0.95  # share of the pairs that the counted active sets cover
GAP = 0.05  # of F above its minimum, relative to it


def sparsity(subject: Subject) -> list[Row]:
    """Return how many numbers of ž are active, the local dimension of the set of low energy, and the active sets.

    `local_dimension`: mean rank of the active columns of W, the dimension of the subspace around s̃ at ž;
    `column_norm`, `code_norm`: mean length of W's columns, mean Σ |z_i|; `active_sets`: number of distinct sets of
    active columns that cover 95 % of the pairs; `active_sets_over_chance`: the same over what it is where every column
    is as often active as here, but independently; `span_residual`: how far s̃ − f(s_x) lies from the span of the active
    columns, relative to its length, in double precision (an identity).

    Raises: ValueError for another predictor or latent.
    """
    w = _parts(subject)[0]
    z = subject.inferred.argmin
    active = z != 0  # FISTA's proximal map sets numbers to exactly 0
    generator = subject.stream("sparsity")
    shuffled = torch.stack([column[torch.randperm(len(z), generator=generator)] for column in active.T], 1)
    ranks = torch.linalg.matrix_rank(w * active.unsqueeze(1))  # of W with the other columns set to 0
    return [
        Row("active", float(active.double().sum(1).mean())),
        Row("local_dimension", float(ranks.double().mean())),
        Row("column_norm", float(w.norm(dim=0).mean())),
        Row("code_norm", float(z.abs().sum(1).mean())),
        Row("active_sets", covering(active)),
        Row("active_sets_over_chance", covering(active) / covering(shuffled)),
        Row("span_residual", _span_residual(subject, z)),
    ]


def unrolled(subject: Subject) -> list[Row]:
    """Return how close the network's proposal comes to the least energy, and how long FISTA takes to come as close.

    `gap`: (mean F of the proposals − mean F*) / mean F*, F* after 600 steps; `fista_steps`: steps after which FISTA's
    gap is at most that of the network; `fista_steps_to_5_percent`: after which it is 5 %.

    Raises: ValueError for another predictor or latent, or a model without a network.
    """
    model, latent = subject.model, _parts(subject)[1]
    if model.latent.network is None:
        raise refused("unrolled", "a network that infers z", None)
    E = model.E(subject.s.s_x, subject.a, subject.s.s_y)
    with torch.no_grad():
        proposed = float(E(latent.network(*subject.s).unsqueeze(1)).mean())
    start = latent.zero.expand(len(subject.s.s_y), -1, -1)
    # E less R is D with the rounding of `Sparse.minimize`
    found = fista(lambda z: E(z) - latent.regularize(z), l1(latent.alpha), start, STEPS, latent.lipschitz)
    trace = found.trace.double().mean(1)
    gaps, gap = trace / trace[-1] - 1, proposed / float(trace[-1]) - 1
    return [
        Row("gap", gap),
        Row("fista_steps", float((gaps > gap).sum())),
        Row("fista_steps_to_5_percent", float((gaps > GAP).sum())),
    ]


def covering(active: Tensor) -> int:
    """Return the number of distinct rows of booleans [N, Z], the most frequent first, that cover 95 % of all rows."""
    counts = torch.unique(active, dim=0, return_counts=True)[1].sort(descending=True).values
    return int((counts.cumsum(0) < COVERED * len(active)).sum()) + 1


def _span_residual(subject: Subject, z: Tensor) -> float:
    """Return the largest relative distance of W z from the span of its active columns."""
    predictor = copy.deepcopy(subject.model.predictor).double()
    few, w = z[:256].double(), predictor.dictionary.detach()
    s_x, a = subject.s.s_x[:256].double().unsqueeze(1), subject.a[:256].double().unsqueeze(1)
    with torch.no_grad():
        move = (predictor(s_x, a, few.unsqueeze(1)) - predictor(s_x, a, torch.zeros_like(few).unsqueeze(1))).squeeze(1)
    masked = w.unsqueeze(0) * (few != 0).unsqueeze(1)  # [N, D, Z]
    solved = torch.linalg.pinv(masked) @ move.unsqueeze(-1)
    rest = (masked @ solved).squeeze(-1) - move
    return float((rest.norm(dim=1) / move.norm(dim=1).clamp(min=1e-6)).max())


def _parts(subject: Subject) -> tuple[Tensor, Sparse]:
    """Return W [D, Z] and the latent. Raises: ValueError if they are of another kind."""
    predictor, latent = subject.model.predictor, subject.model.latent
    if not isinstance(predictor, Additive) or not isinstance(latent, Sparse):
        wrong = latent if isinstance(predictor, Additive) else predictor
        raise refused("sparsity and unrolled", "a predictor Additive and a latent Sparse", wrong)
    return predictor.dictionary.detach(), latent
