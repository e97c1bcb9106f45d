"""From a configuration to the parts of a hierarchy's training, `objective: {name: levels, …}` and `levels: {1: …, …}`.

Levels that are frozen run once (`jepa.runs.below`): their codes of a pool of clips are another source, and what is
trained above them is a shorter list of parts, not another function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, nn

from jepa.batches import Source, Trajectories
from jepa.data import HeldOut
from jepa.encoders import ENCODERS
from jepa.evaluate.levels import Stacked, Training, ahead_of, chosen, presents_of
from jepa.evaluate.mazes import Planning
from jepa.hierarchy import HJEPA, Window
from jepa.latents import LATENTS
from jepa.measures.collapse import reference_energy
from jepa.model import JEPA
from jepa.objectives.abstract import AbstractObjective
from jepa.objectives.heads import EXPANDERS
from jepa.objectives.levels import LevelsObjective
from jepa.objectives.pairs import Weights
from jepa.objectives.trajectories import InverseDynamics, MovingTarget, TrajectoryObjective
from jepa.predictors import PREDICTORS
from jepa.runs.config import Config, Level
from jepa.runs.kinds import Part, make, parameters
from jepa.runs.sequences import group_of, surroundings, whole_groups
from jepa.streams import number
from jepa.trajectory_monitor import LevelsMonitor

WATCHED = 64  # clips for E0, and for the monitor
STEPS, CLIP = 8, 257  # of the highest level in a training clip; frames of a clip of the pool
ABSTRACT = "abstract"  # the predictor whose latent is an abstract action
READ = ("contents", "horizons", "routes")  # measures that read codes at the presents
ELSEWHERE = {  # settings that a hierarchy has level by level, or not at all
    **{name: Part("identity") for name in ("encoder", "target_encoder", "expander")},
    "predictor": Part("mlp"),
    "latent": Part("none"),
    "inference": Part("minimize"),
    "at_measurement": {},
    "loss": Weights(),
    "context": "x",
    "condition_on": (),
}


def parts(
    config: Config, seed: int, world: Any, below: int, encoded: bool = False
) -> tuple[HJEPA, LevelsObjective, Source]:
    """Return model, objective and source, with weights drawn from `seed`, level by level.

    Args: below: how many levels are frozen; encoded: whether encoders are, which a hierarchy refuses.
    Raises: ValueError for settings that a hierarchy has not, a world without trajectories, widths that do not fit,
        trajectories that are no whole groups, clips of the pool that are too short, or a measure that cannot be taken.
    """
    _check(config, world, below, encoded)
    _check_groups(config, world, below)
    (depth, *size), action, _ = world.widths
    levels, objectives, inputs = [], [], (depth, *size)
    for name, settings in config.levels.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number(config.streams, seed, f"weights of level {name}"))
            action *= settings.stride
            try:
                level, objective = _level(settings, inputs, action, world)
            except ValueError as error:
                raise ValueError(f"levels.{name}: {error}") from error
        levels.append(level)
        objectives.append(objective)
        inputs = level.encoder.outputs
    windows = [Window(settings.width, settings.stride) for settings in config.levels.values()]
    weights = [settings.weight for settings in config.levels.values()]
    objective = LevelsObjective(objectives[below:], weights[below:], below)
    model = HJEPA(levels, windows)
    if below:
        _check_clips(config, model)
    _check_measures(config, world, model)
    return model, objective, source(config, world, model)


def _level(
    settings: Level, below: int | tuple[int, int, int], action: int, world: Any
) -> tuple[JEPA, TrajectoryObjective | AbstractObjective]:
    """Return a level and its objective.

    Args: below: the shape of what it sees windows of; action: A of its steps; world: what predictors are told of.
    """
    width = settings.width
    inputs = below * width if isinstance(below, int) else (below[0] * width, *below[1:])
    known = {"frames": width}
    told = {name: known[name] for name in known if name in parameters("encoder", settings.encoder, ENCODERS)}
    encoder = make("encoder", settings.encoder, ENCODERS, inputs=inputs, **told)
    latent = make("latent", settings.latent, LATENTS)
    widths = {"inputs": encoder.outputs, "outputs": encoder.outputs, "action": action, "latent": latent.width}
    told = {name: known[name] for name in known if name in parameters("predictor", settings.predictor, PREDICTORS)}
    told |= surroundings(world, settings.predictor, PREDICTORS)
    predictor = make("predictor", settings.predictor, PREDICTORS, **widths, **told)
    return JEPA(encoder, encoder, predictor, latent), _objective(settings, encoder, action)


def _objective(settings: Level, encoder: nn.Module, action: int) -> TrajectoryObjective | AbstractObjective:
    """Return the objective of a level, which its predictor decides. Raises: ValueError for a setting it has not."""
    if settings.predictor.name == ABSTRACT:
        if (latent := settings.latent.name) != "gaussian":
            raise ValueError(f"latent: expected 'gaussian' beside the predictor {ABSTRACT!r}, found {latent!r}")
        if (expander := settings.expander) != Part("identity"):
            raise ValueError(
                f"expander: expected 'identity' beside the predictor {ABSTRACT!r}, found {expander.name!r}"
            )
        return AbstractObjective(settings.loss, settings.terms, settings.heads)
    if settings.heads != Level().heads:
        what = f"expected {Level().heads}, as only the predictor {ABSTRACT!r} has heads"
        raise ValueError(f"heads: {what}, found {settings.heads} beside {settings.predictor.name!r}")
    expander = make("expander", settings.expander, EXPANDERS, inputs=encoder.outputs)
    head = InverseDynamics(encoder.outputs, action) if settings.terms.inverse else None
    moving = MovingTarget(encoder, settings.terms.momentum) if settings.terms.targets == "moving" else None
    options = {"head": head, "expander": expander, "moving": moving}
    return TrajectoryObjective(settings.loss, settings.terms, **options)


def source(config: Config, world: Any, model: HJEPA) -> Source:
    """Return the source of training clips, as long as the highest level needs for its steps."""
    steps = training_frames(config, model) - 1

    def sample(count: int, generator: Generator) -> Trajectories:
        """Return clips."""
        return world.trajectories(count, steps, generator)

    return sample


def monitor(config: Config, of: Any) -> LevelsMonitor:
    """Return the monitor of an untrained hierarchy, on the configured device. Args: of: the parts of a run."""
    batch = of.sample(whole_groups(of.world, WATCHED), Generator(config.device).manual_seed(0))
    return LevelsMonitor(of.objective, batch, config.train.steps, config.monitor.times)


def reference(of: Any) -> float:
    """Return E0 of the highest level of an untrained hierarchy. Args: of: the parts of a run."""
    batch = of.sample(whole_groups(of.world, WATCHED), Generator().manual_seed(0))
    return reference_energy(of.model.encode(batch.frames)[-1].flatten(0, 1))


def subject(
    config: Config, seed: int, of: Any, held_out: HeldOut, reference: float, stream: Callable[[str], Generator]
) -> Stacked | Planning:
    """Return a trained hierarchy, on the CPU, with what it is measured on: clips, or tasks in a world that has none."""
    if hasattr(of.world, "tasks_of") and not hasattr(of.world, "clips_of"):
        counts = config.evaluation.samples, config.evaluation.probe
        return Planning(of.model.eval(), of.world, of.world.tasks_of(held_out), reference, stream, seed, *counts)
    options = {name: getattr(config.evaluation, name) for name in ("samples", "probe", "frames")}
    training = Training(of.objective, of.sample, config.train, config.pool * clip_frames(config), config.device)
    return Stacked(of.model.eval(), of.world, held_out, reference, stream, training, **options, below=of.below)


def clip_frames(config: Config) -> int:
    """Return the frames of a clip of the pool."""
    return config.objective.options.get("clip", CLIP)


def clip_steps(config: Config) -> int:
    """Return the steps of the highest level in a training clip."""
    return config.objective.options.get("steps", STEPS)


def training_frames(config: Config, model: HJEPA) -> int:
    """Return the frames of a training clip, as many as the highest level needs for its steps."""
    clock = model.clocks[-1]
    return clock.span + clip_steps(config) * clock.stride


def _check_groups(config: Config, world: Any, below: int) -> None:
    """Raises: ValueError for a batch, or a pool that frozen levels encode, that is no multiple of a world's group."""
    group = group_of(world)
    for name, count in (("train.batch", config.train.batch), ("pool", config.pool))[: 2 if below else 1]:
        if count % group:
            what = f"expected a multiple of {group}, the trajectories that share a static part"
            raise ValueError(f"{name}: {what}, found {count}")


def _check_clips(config: Config, model: HJEPA) -> None:
    """Raises: ValueError if a clip of the pool is shorter than a training clip."""
    if (found := clip_frames(config)) < (least := training_frames(config, model)):
        what = f"expected at least {least} for {clip_steps(config)} steps of the highest level"
        raise ValueError(f"objective.clip: {what}, found {found} frames; make clips longer or steps fewer")


def _check_measures(config: Config, world: Any, model: HJEPA) -> None:
    """Raises: ValueError for a measure that cannot be taken of a hierarchy, before it is trained."""
    for part in config.measure:
        if part.name in READ:
            levels = [part.options.get("level", 2)] if part.name == "routes" else part.options.get("levels", ())
            chosen(part.name, levels, len(model.levels))
            presents_of(model, world, config.evaluation.frames)
        if part.name == "horizons":
            ahead_of(config.evaluation.frames)


def _check(config: Config, world: Any, below: int, encoded: bool) -> None:
    """Raises: ValueError for settings that a hierarchy has not, or a world that has no trajectories of pictures."""
    if not hasattr(world, "trajectories"):
        raise ValueError(f"objective: expected a world of trajectories, found {config.world.name!r}")
    if encoded:
        raise ValueError("parents.encoder: expected none with levels, which are kept as parents.below, found one")
    for name, default in ELSEWHERE.items():
        if (value := getattr(config, name)) != default:
            what = f"expected {default!r} beside levels, which have settings of their own"
            raise ValueError(f"{name}: {what}, found {value!r}")
    make("objective", config.objective, {"levels": lambda steps=STEPS, clip=CLIP: None})
    for name, value in config.objective.options.items():
        if value < 1:
            raise ValueError(f"objective.{name}: expected at least 1, found {value}")
    if not below < len(config.levels):
        raise ValueError(f"levels: expected more than the {below} below, found {len(config.levels)}")
