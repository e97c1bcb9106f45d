"""The energy over a space small enough to look at all of it: areas, minima, volumes, dimensions (LeCun 2022, 4.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from jepa.energy import distance
from jepa.evaluate.subject import Row, Subject, refused
from jepa.measures import landscape
from jepa.measures.collapse import effective_rank
from jepa.measures.probes import ridge_probe
from jepa.model import JEPA
from jepa.worlds.plane import Plane


def free_energy(model: JEPA, x: Tensor | None) -> landscape.FreeEnergy:
    """Return F as a function of y alone: F(x, y) of one context x [1, D], or F(y, y) of an auto-encoder for None."""
    if x is None:
        return lambda y: model.infer(y, y).value
    with torch.no_grad():
        s_x = model.encoder(x)

    def at(y: Tensor) -> Tensor:
        """Return F(x, y) [N] of targets y [N, D]; the one context is broadcast against them."""
        with torch.no_grad():
            return model.minimum(s_x, s_x.new_zeros(1, 0), model.target_encoder(y)).value

    return at


def area(subject: Subject[Plane], contexts: int = 4, grid: int = 96, epsilon: float = 0.01) -> list[Row]:
    """Return the fraction of a two-dimensional box where F is low, and the fraction of true pairs whose F is low.

    Args: contexts: x whose energy landscape is looked at; grid: points per axis; epsilon: F is low below this fraction
        of the reference energy E0.
    """
    level = epsilon * subject.reference
    points = landscape.grid(landscape.Box(*subject.world.box()), grid)
    each = (free_energy(subject.model, x)(points) for x in _contexts(subject, contexts))
    shares = [float((energies < level).double().mean()) for energies in each]
    true = subject.model.infer(subject.held_out.x, subject.held_out.y).value < level
    return [
        Row("low_energy_share", sum(shares) / len(shares)),
        Row("true_pairs_low", float(true.double().mean()), len(true)),
    ]


def codes(subject: Subject[Plane], contexts: int = 4, grid: int = 96) -> list[Row]:
    """Return minima of F per code, the fraction of modes that some prediction meets, and that of codes in use.

    A mode is met if a prediction lies within the half-width of the unpredictable part of its center; a code is in use
    if it is the best for more than 1 in 8 K targets, an eighth of an even part.

    Args: as for `area`.
    Raises: ValueError for a latent without codes.
    """
    codes = subject.model.latent.codes
    if codes is None:
        raise refused("codes", "a latent with codes", subject.model.latent)
    points = landscape.grid(landscape.Box(*subject.world.box()), grid)
    each = (free_energy(subject.model, x)(points) for x in _contexts(subject, contexts))
    counts = [landscape.minima(energies.view(grid, grid)).sum() for energies in each]
    x, y = subject.held_out.x, subject.held_out.y
    with torch.no_grad():
        predictions = subject.model.predictions(x[:256], codes.unsqueeze(0))  # [B, K, D]
        gaps = distance(subject.world.targets(x[:256]).unsqueeze(2), predictions.unsqueeze(1)).amin(-1).sqrt()  # [B, M]
        used = subject.model.infer(x, y).argmin.mean(0) > 1 / (8 * len(codes))
    met = gaps < subject.world.spread
    return [
        Row("minima_per_code", int(max(counts)) / len(codes)),
        Row("mode_recall", float(met.double().mean()), met.numel()),
        Row("codes_used", float(used.double().mean())),
    ]


def volume(
    subject: Subject[Plane], contexts: int = 4, chains: int = 128, moves: int = 12, epsilon: float = 0.01
) -> list[Row]:
    """Return the logarithm of the fraction of the box where F is low, averaged over contexts.

    Args: contexts, epsilon: as for `area`; chains: walkers; moves: of each walker per level.
    """
    logs = _log_volumes(subject, [epsilon], contexts, landscape.Walk(chains, moves))[:, 0]
    return [Row("log_volume", float(logs.logsumexp(0) - math.log(len(logs))))]


def codimension(
    subject: Subject[Plane],
    contexts: int = 4,
    chains: int = 128,
    moves: int = 12,
    epsilons: Sequence[float] = (1e-2, 1e-3),
) -> list[Row]:
    """Return twice the slope of log volume against log ε, averaged over contexts, and the volumes it is read from.

    Args: contexts, chains, moves: as for `volume`; epsilons: falling thresholds, fractions of E0.
    """
    volumes = _log_volumes(subject, epsilons, contexts, landscape.Walk(chains, moves))
    slopes = [landscape.codimension(epsilons, of_context) for of_context in volumes]
    curve = [Row(f"log_volume_{epsilon:.1e}", float(v)) for epsilon, v in zip(epsilons, volumes.mean(0), strict=True)]
    return [Row("codimension", sum(slopes) / len(slopes)), *curve]


def information(subject: Subject) -> list[Row]:
    """Return what s_y tells of the predictable factors (R², linear, held out), and its effective rank."""
    with torch.no_grad():
        s = subject.model.target_encoder(subject.held_out.y)
    labels = subject.world.factor_labels
    factors = torch.cat([subject.held_out.factors[name] for name in labels if labels[name] == "predictable"], -1)
    half = len(s) // 2
    scores = ridge_probe(s[:half], factors[:half], s[half:], factors[half:])
    return [Row("probe_r2", float(scores.mean())), Row("effective_rank", effective_rank(s))]


def _contexts(subject: Subject[Plane], count: int) -> list[Tensor | None]:
    """Return the contexts whose landscapes are looked at, [1, D] each; an auto-encoder has one landscape and none."""
    return [None] if subject.of_target else list(subject.held_out.x[:count].unsqueeze(1))


def _log_volumes(subject: Subject[Plane], epsilons: Sequence[float], contexts: int, walk: landscape.Walk) -> Tensor:
    """Return log volumes [contexts, thresholds] in the box that holds every target."""
    box = landscape.Box(*subject.world.box())
    thresholds, generator = [epsilon * subject.reference for epsilon in epsilons], subject.stream("volume")
    volumes = [
        landscape.log_volumes(free_energy(subject.model, x), box, thresholds, generator, walk)
        for x in _contexts(subject, contexts)
    ]
    return torch.stack(volumes)
