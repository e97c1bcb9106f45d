"""The energy over a space small enough to look at all of it: areas, minima, volumes, dimensions (LeCun 2022, 4.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jepa.energy import distance
from jepa.evaluate import Row, Subject
from jepa.measures import landscape
from jepa.measures.collapse import effective_rank
from jepa.measures.probes import ridge_probe
from jepa.model import JEPA, Representations


def free_energy(model: JEPA, x: Tensor | None) -> landscape.FreeEnergy:
    """Return F as a function of y alone: F(x, y) of one context x [1, D], or F(y, y) of an auto-encoder for None."""
    if x is None:
        return lambda y: model.infer(y, y).value
    with torch.no_grad():
        s_x = model.encoder_x(x)

    def at(y: Tensor) -> Tensor:
        """Return F(x, y) [N] of targets y [N, D]; the one context is broadcast against them."""
        with torch.no_grad():
            return model.minimum(Representations(s_x, model.encoder_y(y))).value

    return at


def area(subject: Subject) -> list[Row]:
    """Return the share of a two-dimensional box where F is low, and the share of true pairs whose F is low."""
    settings, level = subject.config.measure, subject.config.measure.epsilon * subject.reference
    points = landscape.grid(landscape.Box(*subject.world.box()), settings.grid)
    shares = [float((free_energy(subject.model, x)(points) < level).double().mean()) for x in _contexts(subject)]
    true = subject.model.infer(subject.held_out.x, subject.held_out.y).value < level
    return [
        Row("low_energy_share", sum(shares) / len(shares)),
        Row("true_pairs_low", float(true.double().mean()), len(true)),
    ]


def codes(subject: Subject) -> list[Row]:
    """Return minima of F per code, the share of modes that some prediction meets, and the share of codes in use.

    A mode is met if a prediction lies within the half-width of the unpredictable part of its center; a code is in use
    if it is the best for more than 1 in 8 K targets, an eighth of its fair share.

    Raises: ValueError for a latent without codes.
    """
    codes, side = subject.model.latent.codes, subject.config.measure.grid
    if codes is None:
        raise ValueError(
            f"measure.names: expected a latent with codes for 'codes', found {subject.config.latent.name!r}"
        )
    points = landscape.grid(landscape.Box(*subject.world.box()), side)
    counts = [
        landscape.minima(free_energy(subject.model, x)(points).view(side, side)).sum() for x in _contexts(subject)
    ]
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


def volume(subject: Subject) -> list[Row]:
    """Return the logarithm of the share of the box where F is low, averaged over contexts."""
    logs = _log_volumes(subject, [subject.config.measure.epsilon])[:, 0]
    return [Row("log_volume", float(logs.logsumexp(0) - math.log(len(logs))))]


def codimension(subject: Subject) -> list[Row]:
    """Return twice the slope of log volume against log ε, averaged over contexts, and the volumes it is read from."""
    epsilons = subject.config.measure.epsilons
    volumes = _log_volumes(subject, epsilons)
    slopes = [landscape.codimension(epsilons, of_context) for of_context in volumes]
    curve = [Row(f"log_volume_{epsilon:.1e}", float(v)) for epsilon, v in zip(epsilons, volumes.mean(0), strict=True)]
    return [Row("codimension", sum(slopes) / len(slopes)), *curve]


def information(subject: Subject) -> list[Row]:
    """Return what s_y tells of the predictable factors (R², linear, held out), and its effective rank."""
    with torch.no_grad():
        s = subject.model.encoder_y(subject.held_out.y)
    labels = subject.world.factor_labels
    factors = torch.cat([subject.held_out.factors[name] for name in labels if labels[name] == "predictable"], -1)
    half = len(s) // 2
    scores = ridge_probe(s[:half], factors[:half], s[half:], factors[half:])
    return [Row("probe_r2", float(scores.mean())), Row("effective_rank", effective_rank(s))]


def _contexts(subject: Subject) -> list[Tensor | None]:
    """Return the contexts whose landscapes are looked at, [1, D] each; an auto-encoder has one landscape and none."""
    if subject.config.context == "y":
        return [None]
    return list(subject.held_out.x[: subject.config.measure.contexts].unsqueeze(1))


def _log_volumes(subject: Subject, epsilons: tuple[float, ...] | list[float]) -> Tensor:
    """Return log volumes [contexts, thresholds] in the box that holds every target."""
    settings, box = subject.config.measure, landscape.Box(*subject.world.box())
    walk = landscape.Walk(settings.chains, settings.moves)
    thresholds, generator = [epsilon * subject.reference for epsilon in epsilons], subject.stream("volume")
    volumes = [
        landscape.log_volumes(free_energy(subject.model, x), box, thresholds, generator, walk)
        for x in _contexts(subject)
    ]
    return torch.stack(volumes)
