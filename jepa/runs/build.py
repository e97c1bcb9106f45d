"""From a configuration to its parts, each built once. Kinds are found by name in the registries beside them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from jepa.batches import Source
from jepa.data import HeldOut
from jepa.encoded import Encoded
from jepa.encoders import ENCODERS, Identity
from jepa.evaluate import MEASURES
from jepa.evaluate.acting import Acting
from jepa.evaluate.subject import Measure, Subject, reference_of
from jepa.hierarchy import HJEPA
from jepa.latents import LATENTS, NETWORKS
from jepa.latents.base import Latent
from jepa.model import JEPA
from jepa.modes import undisturbed
from jepa.monitor import Monitor
from jepa.objectives.heads import EXPANDERS
from jepa.objectives.levels import LevelsObjective
from jepa.objectives.pairs import PairObjective
from jepa.objectives.trajectories import TrajectoryObjective
from jepa.predictors import PREDICTORS
from jepa.runs import levels, sequences
from jepa.runs.config import Config
from jepa.runs.kinds import Part, check_options, checked, make, unknown
from jepa.runs.objectives import own
from jepa.sampling import draw
from jepa.streams import generator_for, number
from jepa.trajectory_monitor import TrajectoryMonitor
from jepa.worlds import WORLDS
from jepa.worlds.base import Branching, World
from jepa.worlds.pairs import NEAR, Pairs, mismatched


class Parts(NamedTuple):
    """What a run is made of, on the CPU."""

    world: World
    model: JEPA | HJEPA
    objective: PairObjective | TrajectoryObjective | LevelsObjective
    sample: Source  # of training pairs or trajectories
    below: Mapping[str, Any] = {}  # what frozen levels make of the clips that are measured


def world(config: Config) -> World:
    """Return the configured world. Raises: ValueError for a world or an option that does not exist."""
    return make("world", config.world, WORLDS)


def parts(config: Config, seed: int, encoded: bool = False, below: int = 0) -> Parts:
    """Return the parts of a run, with weights drawn from `seed`.

    Args: encoded: whether the objective is given representations, as where encoders are frozen; below: how many levels
        of a hierarchy are frozen.
    Raises: ValueError for a part or an option that does not exist, or widths that do not fit.
    """
    made, module = world(config), own(config)
    if module is levels:
        return Parts(made, *levels.parts(config, seed, made, below, encoded))
    if module:
        sequences.check(config, made, encoded)
    elif not hasattr(made, "sample"):
        raise ValueError(f"objective: expected 'trajectories' for the world {config.world.name!r}, found 'pairs'")
    x, a, y = made.widths
    a += actions(config, made.sample(1, Generator()).factors).shape[1] if config.condition_on else 0
    with torch.random.fork_rng(devices=[]):
        # PyTorch's layers draw their weights from the global generator, here set and put back
        torch.manual_seed(number(config.streams, seed, "weights"))
        encoder = make("encoder", config.encoder, ENCODERS, inputs=y if config.context == "y" else x)
        target_encoder = encoder if _shared(config) else _target_encoder(config, y)
        latent = amortized(config, make("latent", config.latent, LATENTS), encoder, target_encoder)
        widths = {"inputs": encoder.outputs, "outputs": target_encoder.outputs, "action": a, "latent": latent.width}
        widths |= sequences.surroundings(made, config.predictor, PREDICTORS)
        predictor = make("predictor", config.predictor, PREDICTORS, **widths)
        expander_x = make("expander", config.expander, EXPANDERS, inputs=encoder.outputs)
        expander_y = expander_x
        if encoder is not target_encoder:
            expander_y = make("expander", config.expander, EXPANDERS, inputs=target_encoder.outputs)
        if module:
            limit = getattr(made, "step_limit", 1.0)
            objective, sample = sequences.objective(config, encoder.outputs, a, limit), sequences.source(config, made)
        else:
            objective = PairObjective(config.loss, (expander_x, expander_y), encoded)
            sample = source(config, made)
    return Parts(made, JEPA(encoder, target_encoder, predictor, latent), objective, sample)


def amortized(config: Config, latent: Latent, encoder: nn.Module, target_encoder: nn.Module) -> Latent:
    """Return the latent with the network that infers z, if there is one."""
    options = dict(config.inference.options)
    if config.inference.name == "minimize":
        if options:
            raise unknown("inference: option of 'minimize'", next(iter(options)), ())
        return latent
    refine = checked(0, options.pop("refine", 0), None, "inference.refine")
    target = target_encoder.inputs if isinstance(target_encoder, Identity) else target_encoder.outputs
    widths = {"context": encoder.outputs, "target": target, "outputs": latent.inferred_width}
    network = make("inference", Part(config.inference.name, options), NETWORKS | {"minimize": ""}, **widths)
    return latent.amortize(network, refine)


def as_measured(config: Config, model: JEPA) -> JEPA:
    """Return the model with its latent as it infers z where it is measured; the weights are shared."""
    if not config.at_measurement:
        return model
    own = model.latent
    latent = _measuring_latent(config)
    network = own.network if config.at_measurement.get("network", True) else None
    latent.load_state_dict(own.state_dict(), strict=False)  # it has no network yet
    latent.amortize(network, own.refine if network else 0)
    return JEPA(model.encoder, model.target_encoder, model.predictor, latent)


def measures(config: Config) -> list[Measure]:
    """Return what is measured, functions of a subject.

    Raises: ValueError for a measure, an option, or an option of the measuring latent that does not exist, or a number
        of a measure that is not above 0, as all of them are.
    """
    if config.at_measurement:
        _measuring_latent(config)
    found = []
    for part in config.measure:
        if part.name not in MEASURES:
            raise unknown("measure", part.name, MEASURES)
        module, name = MEASURES[part.name].split(":")
        function = getattr(importlib.import_module(module), name)
        check_options(f"measure.{part.name}", part, function, {"subject"})
        for option, value in part.options.items():
            if isinstance(value, int | float) and not value > 0:
                raise ValueError(f"measure.{part.name}.{option}: expected a number above 0, found {value!r}")
        found.append(partial(function, **part.options))
    return found


def subject(
    config: Config, seed: int, of: Parts, held_out: HeldOut, reference: float, encoded: Encoded | None = None
) -> Subject | Acting:
    """Return a trained model, on the CPU, with what it is measured on.

    Args: of: the parts, trained; reference: E0; encoded: by its encoders, where they are frozen.
    """
    if module := own(config):
        return module.subject(config, seed, of, held_out, reference, streams(config, seed))
    return Subject(
        model=as_measured(config, of.model).eval(),
        world=of.world,
        held_out=held_out,
        a=actions(config, held_out.factors),
        reference=reference,
        stream=streams(config, seed, {"probe pairs"} if encoded else ()),
        sample=of.sample,
        samples=config.evaluation.samples,
        probe=config.evaluation.probe,
        of_target=config.context == "y",
        recipe=(config.train, config.loss),
        encoded=encoded,
    )


def reference(config: Config, of: Parts, held_out: HeldOut) -> float:
    """Return E0, the mean distance between unrelated representations of a model that is not yet trained."""
    with undisturbed(of.model):
        module = own(config)
        return module.reference(of) if module else reference_of(of.model, held_out)


def streams(config: Config, seed: int, apart: Container[str] = ()) -> Callable[[str], Generator]:
    """Return the generators of a run's purposes; with `streams: seed` one that all measures share.

    Args: apart: purposes that share none, such as pairs that were drawn before, to be encoded, and are drawn again.
    """
    shared = Generator().manual_seed(seed) if config.streams == "seed" else None
    return lambda of: generator_for(config.streams, seed, of) if shared is None or of in apart else shared


def source(config: Config, world: World) -> Source:
    """Return the source of training pairs: the world's, with the predictor's action, or (y, y) for an auto-encoder.

    Raises: ValueError for a factor to condition on that the world does not have.
    """
    if config.context == "x" and not config.condition_on:
        return world.sample

    def sample(count: int, generator: Generator) -> Pairs:
        """Return pairs whose context is the target itself, or whose action names factors."""
        pairs = world.sample(count, generator)
        x = pairs.y if config.context == "y" else pairs.x
        return pairs._replace(x=x, a=torch.cat([pairs.a, actions(config, pairs.factors)], 1))

    return sample


def actions(config: Config, factors: Mapping[str, Tensor]) -> Tensor:
    """Return the factors that the predictor is conditioned on, [B, A], of width 0 where there are none.

    Raises: ValueError for a factor that does not exist.
    """
    for name in config.condition_on:
        if name not in factors:
            raise unknown("condition_on", name, factors)
    first = next(iter(factors.values()))
    empty = first.new_zeros(len(first), 0, dtype=torch.get_default_dtype())
    return torch.cat([empty, *(factors[name].to(empty) for name in config.condition_on)], 1)


def monitor(config: Config, of: Parts) -> Monitor | TrajectoryMonitor:
    """Return the monitor of an untrained model, on the configured device: on data of its kind, with their factors.

    They are the same for all seeds.
    """
    if module := own(config):
        return module.monitor(config, of)
    generator = generator_for(config.streams, 0, "watched pairs", config.device)
    pairs, world = draw(of.sample, config.monitor.pairs, generator), of.world
    names = [name for name, label in world.factor_labels.items() if label == "predictable"]
    targets = torch.cat([pairs.factors[name].to(pairs.y) for name in names], 1)
    plausible = mismatched(world, pairs.factors) <= NEAR**2 if isinstance(world, Branching) else None
    return Monitor(of.model, of.objective, pairs, config.train.steps, config.monitor.times, targets, plausible)


def _shared(config: Config) -> bool:
    """Return whether one encoder serves both. Raises: ValueError for an option that this does not have."""
    if config.target_encoder.name == "shared" and config.target_encoder.options:
        raise unknown("target_encoder: option of 'shared'", next(iter(config.target_encoder.options)), ())
    return config.target_encoder.name == "shared"


def _target_encoder(config: Config, inputs: Any) -> nn.Module:
    """Return the encoder of targets of its own."""
    return make("target_encoder", config.target_encoder, ENCODERS | {"shared": ""}, inputs=inputs)


def _measuring_latent(config: Config) -> Latent:
    """Return the latent with the options it has where it is measured."""
    differing = {name: value for name, value in config.at_measurement.items() if name != "network"}
    checked(True, config.at_measurement.get("network", True), None, "at_measurement.network")  # raises if it is neither
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced by what was trained
        return make("latent", Part(config.latent.name, {**config.latent.options, **differing}), LATENTS)
