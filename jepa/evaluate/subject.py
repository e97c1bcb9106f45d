"""A trained model with what it is measured on, and the rows that measures return.

The reference energy E0 is the mean distance between unrelated targets under the untrained encoder; thresholds are
stated as fractions of it, so that a representation that shrinks is seen to shrink.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor

from jepa.batches import Source
from jepa.data import HeldOut
from jepa.encoded import Encoded, alternatives, representations
from jepa.measures.collapse import EPSILON, reference_energy
from jepa.measures.probes import Probe
from jepa.minimize import Minimum
from jepa.model import JEPA, Representations
from jepa.objectives.pairs import Weights
from jepa.sampling import draw
from jepa.train import Train
from jepa.worlds.base import Branching, World
from jepa.worlds.pairs import NEAR, Pairs, mismatched

AWorld = TypeVar("AWorld", bound=World)


class Row(NamedTuple):
    """One number measured."""

    metric: str
    value: float
    count: int | None = None  # trials behind a rate


Measure = Callable[["Subject"], list[Row]]


@dataclass(frozen=True)
class Subject(Generic[AWorld]):
    """A trained model with what it is measured on; a measure says which kind of world it needs."""

    model: JEPA
    world: AWorld
    held_out: HeldOut
    a: Tensor  # [N, A] actions of the held-out pairs
    reference: float  # E0, in units of the energy
    stream: Callable[[str], Generator]  # the generator of a purpose
    sample: Source  # pairs of the kind the model was trained on
    samples: int = 4096  # of them, for probes and decoders to learn from
    probe: int = 512  # random features of the probe of paths and factors
    of_target: bool = False  # whether the context is the target itself, as for an auto-encoder
    recipe: tuple[Train, Weights] = (Train(), Weights())  # by which decoders are trained
    encoded: Encoded | None = None  # by frozen encoders, once for all that is built on them

    @cached_property
    def probe_pairs(self) -> Pairs:
        """Pairs of the kind the model was trained on, for probes and decoders to learn from."""
        return draw(self.sample, self.samples, self.stream("probe pairs"))

    @property
    def probe_factors(self) -> dict[str, Tensor]:
        """Factors of the pairs for probes; of those encoded, if any."""
        return (self.encoded or self).probe_pairs.factors

    @cached_property
    def s(self) -> Representations:
        """Representations of the held-out pairs."""
        return self.encoded.held_out if self.encoded else representations(self.model, self.held_out)

    @cached_property
    def s_probe(self) -> Representations:
        """Representations of the pairs for probes."""
        if self.encoded:
            return Representations(self.encoded.probe_pairs.x, self.encoded.probe_pairs.y)
        return representations(self.model, self.probe_pairs)

    @cached_property
    def alternatives(self) -> Tensor:
        """Representations s_y [N, M, D] of all futures of the first held-out pairs."""
        return self.encoded.alternatives if self.encoded else alternatives(self.model, self.world, self.held_out)

    @cached_property
    def inferred(self) -> Minimum:
        """ž and F of the held-out pairs."""
        return self.minimum(self.s)

    @cached_property
    def oracle(self) -> Tensor:
        """Energy on true states of every held-out pair's x with the next one's y, [N]."""
        return mismatched(self.world, self.held_out.factors)

    @cached_property
    def mismatched_energy(self) -> Tensor:
        """F of every held-out pair's x with the next one's y, those left out that would be plausible."""
        wrong = self.oracle > NEAR**2
        return self.model.minimum(self.s.s_x[wrong], self.a.roll(-1, 0)[wrong], self.s.s_y.roll(-1, 0)[wrong]).value

    @cached_property
    def mean_squared_distance(self) -> float:
        """Mean squared distance of s_y as trained, in units of the energy; of a constant, next to nothing."""
        return max(reference_energy(self.s.s_y), EPSILON)

    @cached_property
    def path_probe(self) -> Probe:
        """What reads the car's path in the frames of y, [N, T · 2], from s_y; for encoded pairs it learns but once."""
        kept = self.encoded.probes if self.encoded else {}
        if self.probe not in kept:
            kept[self.probe] = Probe(self.s_probe.s_y, paths(self.world, self.probe_factors), self.probe)
        return kept[self.probe]

    def minimum(self, s: Representations) -> Minimum:
        """Return ž and F of representations of the held-out pairs, with their actions."""
        return self.model.minimum(s.s_x, self.a, s.s_y)


def paths(world: Branching, factors: dict[str, Tensor]) -> Tensor:
    """Return where the car is in the frames of y, [B, T · 2]."""
    return world.positions(factors)[:, world.frames :].flatten(1)


def measured(subject: Subject, measures: Sequence[Measure]) -> list[Row]:
    """Return the rows of all measures, the reference energy first.

    Raises: ValueError as a measure does that does not fit the model, or for a number that is not finite.
    """
    rows = [Row("reference_energy", subject.reference)]
    for measure in measures:
        rows += measure(subject)
    for row in rows:
        if not math.isfinite(row.value):
            raise ValueError(f"{row.metric}: expected a finite number, found {row.value}")
    return rows


@torch.no_grad()
def reference_of(model: JEPA, held_out: HeldOut) -> float:
    """Return E0, the mean distance between unrelated targets under a target encoder that is not yet trained."""
    return reference_energy(model.target_encoder(held_out.y))


def refused(measure: str, expected: str, found: Any) -> ValueError:
    """Return the error of a measure that does not fit a model."""
    kind = "none" if found is None else type(found).__name__
    return ValueError(f"measure: expected {expected} for {measure!r}, found {kind}")
