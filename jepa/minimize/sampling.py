"""Minimizers that need no gradient: the cross-entropy method and model predictive path integral control."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jepa.minimize.base import Cost, Minimum, Project, anywhere, checked


@dataclass(frozen=True)
class Sampling:
    """How candidates are drawn around a mean.

    Raises: ValueError for `samples`, `rounds` or `width` below 1, or `color` below 0.
    """

    samples: int = 256  # candidates per problem and round
    rounds: int = 5
    color: float = 0.0  # β of the power spectrum 1/f^β along time: 0 is white noise, 2 a random walk
    width: int = 1  # numbers per time step; N = T · width
    shared: bool = False  # the same noise in every problem, which makes problems independent of their batch

    def __post_init__(self) -> None:
        for name in ("samples", "rounds", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not self.color >= 0:
            raise ValueError(f"color: expected a number of at least 0, found {self.color}")


@dataclass(frozen=True)
class Elites(Sampling):
    """What `cem` is told. Raises: ValueError also for `elites` not in 1 … samples, `keep` > elites or `floor` < 0."""

    elites: int = 32  # the best of a round, to which mean and spread are fitted
    keep: int = 0  # of them, how many take part in the next round with the cost they have (Pinneri et al. 2020)
    floor: float = 0.01  # the least standard deviation, as a share of the first

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.elites <= self.samples:
            raise ValueError(f"elites: expected 1 to {self.samples} samples, found {self.elites}")
        if not 0 <= self.keep <= self.elites:
            raise ValueError(f"keep: expected 0 to {self.elites} elites, found {self.keep}")
        if not self.floor >= 0:
            raise ValueError(f"floor: expected a number of at least 0, found {self.floor}")


@dataclass(frozen=True)
class Softmin(Sampling):
    """What `mppi` is told. Raises: ValueError also for a temperature ≤ 0."""

    temperature: float = 0.1
    relative: bool = True  # temperature in standard deviations of the costs of a round; else in units of the cost

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, found {self.temperature}")


@torch.no_grad()
def cem(
    cost: Cost, start: Tensor, generator: Generator, project: Project = anywhere, *,
    spread: float | Tensor, sampling: Elites,
) -> Minimum:  # fmt: skip
    """Return the best candidate of the cross-entropy method (Rubinstein 1999), with the additions of iCEM.

    Every round draws z_k = P(m + σ ε_k), and m and σ become the mean and the standard deviation of the elites, σ not
    below its floor. The first candidate of all is P(start), so that no result is worse than its start. A candidate of
    infinite cost is never an elite; a round without a finite cost leaves m and σ as they are.

    Args: cost: [B, K, N] -> [B, K]; start: [B, N], the first m; generator: of the noise, on the device of `start`;
        project: P, onto a convex set that no candidate leaves; spread: the first σ, a number or [B or 1, N], in the
        unit of z; sampling: sizes.
    Returns: the minimum over all candidates ever evaluated, samples · rounds of them per problem; a row of its trace
        per round.
    Raises: ValueError for a start that is not [B, N] with N a multiple of `width`, a negative spread, or a cost that
        is not a number (on an accelerator its value is nan instead).
    """
    first, mean = _spread(start, spread, sampling), start
    std, best = first, (start, torch.full_like(start[:, 0], torch.inf))
    kept, trace = (start[:, None][:, :0], start[:, :0]), []
    for number in range(sampling.rounds):
        epsilon = noise(start, sampling, generator)
        if number == 0:
            epsilon[:, 0] = 0
        candidates = project(mean.unsqueeze(1) + std.unsqueeze(1) * epsilon)
        values = checked(cost(candidates))
        best = _better(best, candidates, values)
        trace.append(best[1])
        elite, order = torch.cat([kept[1], values], 1).topk(sampling.elites, 1, largest=False)
        z = torch.cat([kept[0], candidates], 1).gather(1, order.unsqueeze(-1).expand(-1, -1, start.shape[1]))
        kept = z[:, : sampling.keep], elite[:, : sampling.keep]
        mean, std = _fitted(z, elite, mean, std)
        std = torch.maximum(std, sampling.floor * first)
    return Minimum(*best, torch.stack(trace))


@torch.no_grad()
def mppi(
    cost: Cost, start: Tensor, generator: Generator, project: Project = anywhere, *,
    spread: float | Tensor, sampling: Softmin,
) -> Minimum:  # fmt: skip
    """Return the end of model predictive path integral control (Williams et al. 2017, algorithm 2).

    Every round draws z_k = P(m + σ ε_k), and m becomes the mean weighted by softmax_k(−(c_k − min c) / λ), the cost
    *divided* by the temperature λ; σ stays. What the paper adds to a cost for pulling m away from 0 is for the cost to
    say. A round without a finite cost leaves m as it is.

    Args: cost, start, generator, project, spread: as for `cem`; sampling: sizes and temperature.
    Returns: the best of all samples and the last mean, samples · rounds + 1 evaluations per problem; rows of its trace
        are the rounds, and one more for the mean.
    Raises: ValueError as `cem` does.
    """
    std, mean = _spread(start, spread, sampling), start
    best, trace = (start, torch.full_like(start[:, 0], torch.inf)), []
    for _ in range(sampling.rounds):
        candidates = project(mean.unsqueeze(1) + std.unsqueeze(1) * noise(start, sampling, generator))
        values = checked(cost(candidates))
        best = _better(best, candidates, values)
        trace.append(best[1])
        weight = weights(values, sampling.temperature, sampling.relative)
        known = (values < torch.inf).any(1, keepdim=True)
        mean = torch.where(known, (weight.unsqueeze(-1) * candidates).sum(1), mean)
    last = project(mean.unsqueeze(1))
    best = _better(best, last, checked(cost(last)))
    return Minimum(*best, torch.stack([*trace, best[1]]))


def weights(values: Tensor, temperature: float, relative: bool = False) -> Tensor:
    """Return the weights softmax_k(−(c_k − min c) / λ) of candidates by their costs (Williams et al. 2017).

    Args: values: [B, K] costs above −∞, of weight 0 where infinite; temperature: λ in the unit of the cost or, if
        `relative`, in standard deviations of the finite costs of the problem: then neither a factor nor a summand of
        all costs changes a weight.
    Returns: [B, K], their sum 1; equal where all are infinite.
    Raises: ValueError for a temperature ≤ 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, found {temperature}")
    finite = values < torch.inf
    above = torch.where(finite, values - values.amin(1, keepdim=True), torch.inf)
    scale = torch.ones_like(above[:, :1])
    if relative:
        count = finite.sum(1, keepdim=True).clamp(min=1)
        mean = torch.where(finite, above, 0).sum(1, keepdim=True) / count
        scale = (torch.where(finite, above - mean, 0).square().sum(1, keepdim=True) / count).sqrt()
        scale = scale.clamp(min=torch.finfo(values.dtype).tiny)  # costs that are all the same
    weight = torch.softmax(-above / (temperature * scale), 1)
    return torch.where(finite.any(1, keepdim=True), weight, 1 / values.shape[1])


def noise(like: Tensor, sampling: Sampling, generator: Generator) -> Tensor:
    """Return noise [B, samples, N] of unit variance, its power spectrum along time 1/f^β (Timmer & König 1995).

    The frequency 0 has the power of the lowest one above it, 1/T. Dimensions of the action are independent.

    Args: like: [B, N], for shape, type and device; sampling: samples, color and width; generator: on that device.
    """
    problems, numbers = like.shape
    size = (1 if sampling.shared else problems, sampling.samples, numbers // sampling.width, sampling.width)
    white = torch.randn(size, generator=generator, dtype=like.dtype, device=like.device)
    steps = size[2]
    if sampling.color and steps > 1 and white.numel():  # of nothing some libraries have no transform
        frequency = torch.fft.fftfreq(steps, dtype=like.dtype, device=like.device).abs().clamp(min=1 / steps)
        scale = frequency ** (-sampling.color / 2)
        scale = scale / scale.square().mean().sqrt()
        white = torch.fft.ifft(torch.fft.fft(white, dim=2) * scale.unsqueeze(-1), dim=2).real
    return white.flatten(2).expand(problems, -1, -1).clone()


def shifted(plan: Tensor, by: int = 1) -> Tensor:
    """Return what is left of a plan [B, T, A] after `by` steps, with zeros at its end: the start of the next plan.

    Raises: ValueError for `by` below 0.
    """
    if by < 0:
        raise ValueError(f"by: expected at least 0, found {by}")
    by = min(by, plan.shape[1])
    return torch.cat([plan[:, by:], torch.zeros_like(plan[:, :by])], 1)


def _spread(start: Tensor, spread: float | Tensor, sampling: Sampling) -> Tensor:
    """Return the standard deviations [B, N]. Raises: ValueError for a start or a spread that does not fit."""
    if start.dim() != 2 or start.shape[1] % sampling.width or start.shape[1] == 0:
        expected = f"[B, N] with N a multiple of the width {sampling.width}"
        raise ValueError(f"start: expected {expected}, found {list(start.shape)}")
    spread = torch.as_tensor(spread, dtype=start.dtype, device=start.device)
    if spread.device.type == "cpu" and not (spread >= 0).all():
        raise ValueError(f"spread: expected numbers of at least 0, found {float(spread.min())}")
    return spread.expand_as(start)


def _better(best: tuple[Tensor, Tensor], candidates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the better of the best so far ([B, N], [B]) and of new candidates."""
    value, index = values.min(1)
    new = candidates[torch.arange(len(values), device=values.device), index]
    better = ~(value >= best[1])  # true for nan, which has to show
    return torch.where(better.unsqueeze(-1), new, best[0]), torch.where(better, value, best[1])


def _fitted(z: Tensor, values: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the candidates of finite cost; as they were where there is none."""
    finite = (values < torch.inf).unsqueeze(-1)
    count = finite.sum(1)
    fitted = torch.where(finite, z, 0).sum(1) / count.clamp(min=1)
    width = (torch.where(finite, z - fitted.unsqueeze(1), 0).square().sum(1) / count.clamp(min=1)).sqrt()
    return torch.where(count > 0, fitted, mean), torch.where(count > 0, width, std)
