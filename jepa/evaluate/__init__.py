"""What is measured on a trained model: one function a measure, found by name, each returning rows.

The functions are in the modules of this package and are imported when they are asked for.

The reference energy E0 is the mean distance between unrelated targets under the untrained encoder; thresholds are
stated as shares of it, so that a representation that shrinks is seen to shrink.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from jepa.data import HeldOut
from jepa.latents.interface import LatentVariable
from jepa.measures.collapse import reference_energy
from jepa.measures.probes import Probe
from jepa.minimize import Minimum
from jepa.model import JEPA, Representations
from jepa.runs import build
from jepa.runs.config import Config, Part, unknown
from jepa.runs.encoded import Encoded, alternatives, representations
from jepa.runs.kinds import make
from jepa.streams import generator_for
from jepa.worlds.pairs import NEAR, Pairs, joined, mismatched

MEASURES = {
    **{name: f"jepa.evaluate.landscapes:{name}" for name in ("area", "codes", "volume", "codimension")},
    "information": "jepa.evaluate.landscapes:information",
    **{name: f"jepa.evaluate.futures:{name}" for name in ("collapse", "factors", "branches", "predictions")},
    **{name: f"jepa.evaluate.futures:{name}" for name in ("context", "invariance")},
    "pixels": "jepa.evaluate.pixels:pixels",
    **{name: f"jepa.evaluate.latents:{name}" for name in ("modes", "latents", "entries", "wells")},
    "amortization": "jepa.evaluate.inference:amortization",
    **{name: f"jepa.evaluate.sparsity:{name}" for name in ("sparsity", "unrolled")},
}
TINY = 1e-30  # in the place of the spread of a constant


class Row(NamedTuple):
    """One number measured."""

    metric: str
    value: float
    count: int | None = None  # trials behind a rate


@dataclass(frozen=True)
class Subject:
    """A trained model with what it is measured on."""

    config: Config
    model: JEPA
    world: Any
    held_out: HeldOut
    reference: float  # E0, in units of the energy
    generator: Generator  # of the run's seed
    encoded: Encoded | None = None  # by frozen encoders, once for all that is built on them

    def stream(self, purpose: str) -> Generator:
        """Return the generator of one purpose; with `streams: seed` the one that all measures of the run share."""
        if self.config.streams == "seed":
            return self.generator
        return generator_for(self.config.streams, self.generator.initial_seed(), purpose)

    @cached_property
    def seen(self) -> Pairs:
        """Pairs of the kind the model was trained on, for probes and decoders to learn from; those encoded, if any."""
        sample = build.source(self.config, self.world)
        shared = self.config.streams == "seed" and not self.encoded
        seed = self.generator.initial_seed()
        generator = self.generator if shared else generator_for(self.config.streams, seed, "probe pairs")
        return joined(list(build.portions(sample, self.config.measure.samples, generator)))

    @property
    def known(self) -> dict[str, Tensor]:
        """Factors of the seen pairs."""
        return (self.encoded or self).seen.factors

    @cached_property
    def s(self) -> Representations:
        """Representations of the held-out pairs."""
        return self.encoded.held_out if self.encoded else representations(self.model, self.held_out)

    @cached_property
    def s_seen(self) -> Representations:
        """Representations of the seen pairs."""
        return (
            Representations(self.encoded.seen.x, self.encoded.seen.y)
            if self.encoded
            else representations(self.model, self.seen)
        )

    @cached_property
    def alternatives(self) -> Tensor:
        """Representations s_y [N, M, D] of all futures of the first held-out pairs."""
        return self.encoded.alternatives if self.encoded else alternatives(self.model, self.world, self.held_out)

    @cached_property
    def a(self) -> Tensor:
        """Actions of the held-out pairs, [N, A]."""
        return build.told(self.config, self.held_out.factors)

    @cached_property
    def true(self) -> Minimum:
        """ž and F of the held-out pairs."""
        return self.model.minimum(self.s, self.a)

    @cached_property
    def oracle(self) -> Tensor:
        """Energy on true states of every held-out pair's x with the next one's y, [N]."""
        return mismatched(self.world, self.held_out.factors)

    @cached_property
    def mismatched(self) -> Tensor:
        """F of every held-out pair's x with the next one's y, those left out that would be plausible."""
        wrong = self.oracle > NEAR**2
        others = Representations(self.s.s_x[wrong], self.s.s_y.roll(-1, 0)[wrong])
        return self.model.minimum(others, self.a.roll(-1, 0)[wrong]).value

    @cached_property
    def spread(self) -> float:
        """Mean squared distance of s_y as trained, in units of the energy; of a constant, next to nothing."""
        return max(reference_energy(self.s.s_y), TINY)

    @cached_property
    def path_probe(self) -> Probe:
        """What reads the car's path in the frames of y, [N, T · 2], from s_y; for encoded pairs it learns but once."""
        features, kept = self.config.measure.probe, self.encoded.probes if self.encoded else {}
        if features not in kept:
            kept[features] = Probe(self.s_seen.s_y, paths(self.world, self.known), features)
        return kept[features]


def paths(world: Any, factors: dict[str, Tensor]) -> Tensor:
    """Return where the car is in the frames of y, [B, T · 2]."""
    return world.positions(factors)[:, world.frames :].flatten(1)


def check(config: Config) -> None:
    """Raise now, before anything is trained, what measuring would raise for names that do not exist.

    Raises: ValueError for a measure or an option of the measuring latent that does not exist.
    """
    for name in config.measure.names:
        if name not in MEASURES:
            raise unknown("measure.names", name, MEASURES)
    _measuring_latent(config)


def measure(config: Config, model: JEPA, held_out: HeldOut, seed: int, encoded: Encoded | None = None) -> list[Row]:
    """Return the rows of all configured measures.

    Args: config: of the run; model: trained, on the CPU; held_out: pairs of its world;
        seed: of the run, for what is drawn; encoded: by its encoders, where they are frozen.
    Raises: ValueError for a measure that does not exist, or that does not fit the model.
    """
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        reference = reference_energy(build.model(on_cpu(config), seed).encoder_y(held_out.y))
    check(config)
    subject = Subject(config, inferring(config, model), build.world(config), held_out, reference, generator, encoded)
    rows = [Row("reference_energy", subject.reference)]
    for name in config.measure.names:
        rows += _function(name)(subject)
    return rows


def on_cpu(config: Config) -> Config:
    """Return the configuration for the CPU, where all is measured: in one place, with one set of random streams."""
    return dataclasses.replace(config, device="cpu")


def inferring(config: Config, model: JEPA) -> JEPA:
    """Return the model with the latent's inference set as for measuring; the weights are shared."""
    if not config.measure.latent and not config.measure.minimize:
        return model
    latent = model.latent
    if config.measure.latent:
        latent = _measuring_latent(config)
        latent.load_state_dict(model.latent.state_dict(), strict=False)
    inference = None if config.measure.minimize else model.inference
    expanders = (model.expander_x, model.expander_y)
    return JEPA(model.encoder_x, model.encoder_y, model.predictor, latent, expanders, inference)


def _measuring_latent(config: Config) -> LatentVariable:
    """Return the latent with the options it has in measuring."""
    part = Part(config.latent.name, {**config.latent.options, **config.measure.latent})
    return make("latent", part, build.LATENTS)


def _function(name: str) -> Callable[[Subject], list[Row]]:
    """Return the measure of that name."""
    module, function = MEASURES[name].split(":")
    return getattr(importlib.import_module(module), function)
