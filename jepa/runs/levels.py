"""From a configuration to the parts of a hierarchy's training, `objective: {name: levels, …}` and `levels: {1: …, …}`.

Levels that are frozen run once (`jepa.runs.below`): their codes of a pool of clips are another source, and what is
trained above them is a shorter list of parts, not another function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator

from jepa.batches import Source, Trajectories
from jepa.data import HeldOut
from jepa.encoders import ENCODERS
from jepa.evaluate.levels import Stacked, Training
from jepa.hierarchy import HJEPA, Window
from jepa.latents import LATENTS
from jepa.measures.collapse import reference_energy
from jepa.model import JEPA
from jepa.objectives.heads import EXPANDERS
from jepa.objectives.levels import LevelsObjective
from jepa.objectives.trajectories import InverseDynamics, MovingTarget, TrajectoryObjective
from jepa.predictors import PREDICTORS
from jepa.runs.config import Config, Level
from jepa.runs.kinds import Part, make, parameters
from jepa.streams import number
from jepa.trajectory_monitor import LevelsMonitor

WATCHED = 64  # clips for E0, and for the monitor
STEPS, CLIP = 8, 257  # of the highest level in a training clip; frames of a clip of the pool
ELSEWHERE = {  # settings that a hierarchy has level by level
    **{name: Part("identity") for name in ("encoder", "target_encoder", "expander")},
    "predictor": Part("mlp"),
    "latent": Part("none"),
    "context": "x",
    "condition_on": (),
}


def parts(config: Config, seed: int, world: Any, below: int) -> tuple[HJEPA, LevelsObjective, Source]:
    """Return model, objective and source, with weights drawn from `seed`, level by level.

    Args: below: how many levels are frozen.
    Raises: ValueError for settings that a hierarchy has not, a world without trajectories, or widths that do not fit.
    """
    _check(config, world, below)
    (depth, *size), action, _ = world.widths
    levels, objectives, inputs = [], [], (depth, *size)
    for name, settings in config.levels.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number(config.streams, seed, f"weights of level {name}"))
            action *= settings.stride
            level, objective = _level(settings, inputs, action)
        levels.append(level)
        objectives.append(objective)
        inputs = level.encoder.outputs
    windows = [Window(settings.width, settings.stride) for settings in config.levels.values()]
    weights = [settings.weight for settings in config.levels.values()]
    objective = LevelsObjective(objectives[below:], weights[below:], below)
    model = HJEPA(levels, windows)
    return model, objective, source(config, world, model)


def _level(settings: Level, below: int | tuple[int, int, int], action: int) -> tuple[JEPA, TrajectoryObjective]:
    """Return a level and its objective. Args: below: the shape of what it sees windows of; action: A of its steps."""
    width = settings.width
    inputs = below * width if isinstance(below, int) else (below[0] * width, *below[1:])
    known = {"frames": width}
    told = {name: known[name] for name in known if name in parameters("encoder", settings.encoder, ENCODERS)}
    encoder = make("encoder", settings.encoder, ENCODERS, inputs=inputs, **told)
    latent = make("latent", settings.latent, LATENTS)
    widths = {"inputs": encoder.outputs, "outputs": encoder.outputs, "action": action, "latent": latent.width}
    told = {name: known[name] for name in known if name in parameters("predictor", settings.predictor, PREDICTORS)}
    predictor = make("predictor", settings.predictor, PREDICTORS, **widths, **told)
    expander = make("expander", settings.expander, EXPANDERS, inputs=encoder.outputs)
    head = InverseDynamics(encoder.outputs, action) if settings.terms.inverse else None
    moving = MovingTarget(encoder, settings.terms.momentum) if settings.terms.targets == "moving" else None
    options = {"head": head, "expander": expander, "moving": moving}
    objective = TrajectoryObjective(settings.loss, settings.terms, **options)
    return JEPA(encoder, encoder, predictor, latent), objective


def source(config: Config, world: Any, model: HJEPA) -> Source:
    """Return the source of training clips, as long as the highest level needs for its steps."""
    clock = model.clocks[-1]
    steps = clock.span - 1 + clip_steps(config) * clock.stride

    def sample(count: int, generator: Generator) -> Trajectories:
        """Return clips."""
        return world.trajectories(count, steps, generator)

    return sample


def monitor(config: Config, of: Any) -> LevelsMonitor:
    """Return the monitor of an untrained hierarchy, on the configured device. Args: of: the parts of a run."""
    batch = of.sample(WATCHED, Generator(config.device).manual_seed(0))
    return LevelsMonitor(of.objective, batch, config.train.steps, config.monitor.times)


def reference(of: Any) -> float:
    """Return E0 of the highest level of an untrained hierarchy. Args: of: the parts of a run."""
    batch = of.sample(WATCHED, Generator().manual_seed(0))
    return reference_energy(of.model.encode(batch.frames)[-1].flatten(0, 1))


def subject(
    config: Config, seed: int, of: Any, held_out: HeldOut, reference: float, stream: Callable[[str], Generator]
) -> Stacked:
    """Return a trained hierarchy, on the CPU, with what it is measured on."""
    options = {name: getattr(config.evaluation, name) for name in ("samples", "probe", "frames")}
    training = Training(of.objective, of.sample, config.train, config.pool * clip_frames(config), config.device)
    return Stacked(of.model.eval(), of.world, held_out, reference, stream, training, **options, below=of.below)


def clip_frames(config: Config) -> int:
    """Return the frames of a clip of the pool."""
    return config.objective.options.get("clip", CLIP)


def clip_steps(config: Config) -> int:
    """Return the steps of the highest level in a training clip."""
    return config.objective.options.get("steps", STEPS)


def _check(config: Config, world: Any, below: int) -> None:
    """Raises: ValueError for settings that a hierarchy has not, or a world that has no trajectories of pictures."""
    if not hasattr(world, "trajectories"):
        raise ValueError(f"objective: expected a world of trajectories, found {config.world.name!r}")
    for name, default in ELSEWHERE.items():
        if (value := getattr(config, name)) != default:
            raise ValueError(f"{name}: expected {default!r}, as each of the levels has its own, found {value!r}")
    make("objective", config.objective, {"levels": lambda steps=STEPS, clip=CLIP: None})
    for name, value in config.objective.options.items():
        if value < 1:
            raise ValueError(f"objective.{name}: expected at least 1, found {value}")
    if not below < len(config.levels):
        raise ValueError(f"levels: expected more than the {below} below, found {len(config.levels)}")
