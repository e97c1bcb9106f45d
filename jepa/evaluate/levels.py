"""A trained hierarchy with what it is measured on: clips of its world, their codes at every level, and probes.

All levels are read at the same frames, the *presents*: every 32nd one, where each level has a code that ends there.
Factors are used here alone, to read what a code holds and to score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from jepa.batches import Source
from jepa.data import HeldOut
from jepa.evaluate.subject import refused
from jepa.hierarchy import HJEPA
from jepa.measures.probes import Probe
from jepa.train import Train
from jepa.worlds.drive import Drive
from jepa.worlds.drive.ring import LAP

PERIOD = 32  # frames from a present to the next
STARTS = 3  # presents from which predictions are made
CHUNK = 16  # clips that are drawn and encoded at a time
PENALTY = 3e-3  # of the probes


class Clips(NamedTuple):
    """Clips with what a hierarchy makes of them."""

    codes: list[Tensor]  # of every level, [N, T_l, D_l]
    factors: dict[str, Tensor]  # name -> [N, T, F]


class Training(NamedTuple):
    """How a hierarchy was trained, for what it cost."""

    objective: Any
    sample: Source
    train: Train
    pool: int  # frames that frozen levels encode once
    device: str = "cpu"  # where its samples are


@dataclass(frozen=True)
class Stacked:
    """A trained hierarchy with what it is measured on."""

    model: HJEPA
    world: Drive
    held_out: HeldOut
    reference: float  # E0 of the highest level, in units of the energy
    stream: Callable[[str], Generator]  # the generator of a purpose
    training: Training | None = None
    samples: int = 768  # clips that teach the probes
    frames: int = 161  # of all clips
    probe: int = 512  # random features of the probes
    below: dict[str, list[Tensor]] = field(default_factory=dict)  # codes of frozen levels, where they are known

    @cached_property
    def learned(self) -> Clips:
        """Clips from which probes learn."""
        generator = self.stream("probe clips")
        return self._clips("probe clips", probe_factors(self.world, (self.samples, self.frames), generator))

    @cached_property
    def tested(self) -> Clips:
        """Held-out clips."""
        return self._clips("held-out clips", held_out_factors(self.world, self.held_out, self.frames))

    @cached_property
    def presents(self) -> Tensor:
        """Frames at which every level has a code that ends there. Raises: ValueError as `presents_of`."""
        return presents_of(self.model, self.world, self.frames)

    @property
    def starts(self) -> Tensor:
        """The first presents, from which predictions are made."""
        return self.presents[:STARTS]

    @property
    def ahead(self) -> int:
        """How many frames a prediction reaches at most. Raises: ValueError for clips that are too short for one."""
        return ahead_of(self.frames)

    def at(self, clips: Clips, level: int, frames: Tensor) -> Tensor:
        """Return the codes [N, P, D_l] of a level that end at frames [P]."""
        clock = self.model.clocks[level - 1]
        return clips.codes[level - 1][:, (frames - clock.span + 1) // clock.stride]

    def _clips(self, name: str, factors: dict[str, Tensor]) -> Clips:
        """Return clips with their codes; where those of frozen levels are known only the others are made."""
        below = self.below.get(name, [])
        if below:
            with torch.no_grad():
                return Clips([*below, *self.model.encode(below[-1], len(below))], factors)
        return Clips(pictured(self.model, self.world, factors, name), factors)


def presents_of(model: HJEPA, world: Drive, frames: int) -> Tensor:
    """Return the frames at which every level of a hierarchy has a code that ends there, of clips of so many frames.

    Raises: ValueError for another world, clips without such a frame or longer than stored, or a level without codes
        that end there.
    """
    if not hasattr(world, "clips_of"):
        raise ValueError(f"measure: expected a hierarchy on clips of the world drive, found {type(world).__name__}")
    if not PERIOD < frames <= world.held_out_frames:
        what = f"expected from {PERIOD + 1} to {world.held_out_frames}, as stored"
        raise ValueError(f"evaluation.frames: {what}, found {frames}")
    for number, clock in enumerate(model.clocks, 1):
        if clock.span - 1 > PERIOD or PERIOD % clock.stride or (PERIOD - clock.span + 1) % clock.stride:
            what = f"expected codes that end at every {PERIOD}th frame"
            raise ValueError(f"measure: {what}, found {clock} at level {number}")
    return torch.arange(PERIOD, frames, PERIOD)


def ahead_of(frames: int) -> int:
    """Return how many frames a prediction reaches in clips of so many. Raises: ValueError for clips too short."""
    if frames < (least := (STARTS + 1) * PERIOD + 1):
        raise ValueError(f"evaluation.frames: expected at least {least} for horizons, found {frames}")
    return frames - 1 - STARTS * PERIOD


def probe_factors(world: Drive, counts: tuple[int, int], generator: Generator) -> dict[str, Tensor]:
    """Return the factors of clips from which probes learn. Args: counts: of clips, and of frames of each."""
    return world.factors(counts[0], counts[1] - 1, generator)


def held_out_factors(world: Drive, held_out: HeldOut, frames: int) -> dict[str, Tensor]:
    """Return the factors of the first frames of held-out clips. Raises: ValueError if they are shorter."""
    if frames > world.held_out_frames:
        raise ValueError(f"evaluation.frames: expected at most {world.held_out_frames}, as stored, found {frames}")
    return {name: factor[:, :frames] for name, factor in world.clips_of(held_out).items()}


@torch.no_grad()
def pictured(model: HJEPA, world: Drive, factors: dict[str, Tensor], name: str) -> list[Tensor]:
    """Return the codes of every level of clips with given factors; pixel noise is the same for all models.

    Args: name: of the clips, which decides their noise.
    """
    noise = Generator().manual_seed(len(name))
    parts = []
    for rows in torch.arange(len(factors["place"])).split(CHUNK):
        frames = world.draw({key: value[rows] for key, value in factors.items()}, noise)
        parts.append(model.encode(frames))
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def targets(world: Drive, factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what probes read, [..., F]: the place as (cos, sin) on the ring, the road as which one, the rest as is."""
    angle = 2 * math.pi / LAP * factors["place"]
    road = one_hot(factors["road"].squeeze(-1).long(), world.roads)[..., : max(1, world.roads - 1)]
    found = {"place": torch.cat([angle.cos(), angle.sin()], -1), "across": factors["position"][..., 1:]}
    found |= {"road": road.to(angle)}
    return found | {name: factors[name] for name in ("speed", "wobble", "other", "texture")}


def rows(factors: dict[str, Tensor], frames: Tensor) -> dict[str, Tensor]:
    """Return factors [N P, F] at frames [P] of factors [N, T, F]."""
    return {name: value[:, frames].flatten(0, 1) for name, value in factors.items()}


def within_roads(
    learned: tuple[Tensor, Tensor], tested: tuple[Tensor, Tensor], roads: tuple[Tensor, Tensor], options: dict
) -> float:
    """Return the R² of a factor, read by a probe for each road: of what is on it no probe has to know the road.

    Args: learned, tested: codes [N, D] and the factor [N, F]; roads: of both, [N, 1]; options: of the probes.
    """
    found = []
    for road in roads[0].unique():
        own, other = (of.squeeze(-1) == road for of in roads)
        probe = Probe(*(part[own] for part in learned), **options)
        found.append(probe.r2(*(part[other] for part in tested)).mean())
    return float(torch.stack(found).mean())


def known(subject: Any, measure: str, levels: Sequence[int] = ()) -> list[int]:
    """Return the levels that are asked for, all for none. Raises: ValueError for another subject or level."""
    if not isinstance(subject, Stacked):
        raise refused(measure, "a hierarchy with clips", subject)
    return chosen(measure, levels, len(subject.model.levels))


def chosen(measure: str, levels: Sequence[int], count: int) -> list[int]:
    """Return the levels of `count` that are asked for, all for none. Raises: ValueError for one that does not exist."""
    for level in levels:
        if type(level) is not int or not 1 <= level <= count:
            raise ValueError(f"measure.{measure}.levels: expected from 1 to {count}, found {level!r}")
    return list(levels) or list(range(1, count + 1))
