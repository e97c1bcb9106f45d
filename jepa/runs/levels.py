"""From a configuration to the parts of a hierarchy's training, `objective: {name: levels, …}` and `levels: {1: …, …}`.

Levels that are frozen run once: their codes of a pool of clips are kept beside the run that has trained them, and are
another source. What is trained above them is a shorter list of parts, not another function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa.batches import Source, Trajectories
from jepa.checkpoints import load, save
from jepa.data import HeldOut, verify
from jepa.data import load as load_held_out
from jepa.encoders import ENCODERS
from jepa.evaluate.levels import Stacked, Training, held_out_factors, pictured, probe_factors
from jepa.hierarchy import HJEPA, Window
from jepa.latents import LATENTS
from jepa.measures.collapse import reference_energy
from jepa.model import JEPA
from jepa.objectives.heads import EXPANDERS
from jepa.objectives.levels import LevelsObjective
from jepa.objectives.trajectories import InverseDynamics, MovingTarget, TrajectoryObjective
from jepa.predictors import PREDICTORS
from jepa.runs.behavior import fingerprint
from jepa.runs.config import Config, Level, to_dict
from jepa.runs.kinds import Part, make, parameters
from jepa.streams import generator_for, number
from jepa.trajectory_monitor import LevelsMonitor

WATCHED = 64  # clips for E0, and for the monitor
CHUNK = 16  # clips that are drawn and encoded at a time
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
    steps = clock.span - 1 + _steps(config) * clock.stride

    def sample(count: int, generator: Generator) -> Trajectories:
        """Return clips."""
        return world.trajectories(count, steps, generator)

    return sample


def above(config: Config, model: HJEPA, kept: Mapping[str, Tensor]) -> Source:
    """Return a source of windows of codes that frozen levels have made, each clip from a code drawn at random.

    Args: kept: codes [N, T, D] of the highest frozen level, and actions [N, T−1, A] of its steps.
    Raises: ValueError if the clips are too short for the level above.
    """
    window, codes, actions = model.windows[-1], kept["codes"], kept["actions"]
    length = window.width + _steps(config) * window.stride
    if length > codes.shape[1]:
        what = f"expected at least {length} codes below for {_steps(config)} steps of the highest level"
        raise ValueError(f"objective.clip: {what}, found clips of {codes.shape[1]}; make clips longer or steps fewer")

    def sample(count: int, generator: Generator) -> Trajectories:
        """Return windows of the pool, with replacement."""
        device = codes.device
        rows = torch.randint(len(codes), (count, 1), generator=generator, device=device)
        first = torch.randint(codes.shape[1] - length + 1, (count, 1), generator=generator, device=device)
        time = first + torch.arange(length, device=device)
        return Trajectories(codes[rows, time], actions[rows, time[:, :-1]], codes.new_zeros(count, 0), {})

    return sample


def kept_codes(task: Any, model: HJEPA, world: Any, folder: Path) -> dict[str, Any]:
    """Return what a trained hierarchy makes of clips, once for all that is built on it.

    Args: task: what is built on it; model: on the CPU; world: of the task; folder: where the run of the model is kept.
    Returns: codes and actions of its highest level, of a pool of clips to learn from; below: the codes of all its
        levels, of the clips that probes learn from and of those held out.
    """
    config, seed = task.config, task.seed
    evaluation, clip = config.evaluation, _clip(config)
    counts = config.pool, clip, evaluation.samples, evaluation.frames
    deciding = [config.world.flat(), *counts, config.device, config.streams, seed, task.code.encoding]
    levels = {name: to_dict(level, deciding=True) for name, level in config.levels.items()}
    lower = {name: levels[name] for name in list(levels)[: len(model.levels)]}
    path = folder / f"codes-{fingerprint(deciding, lower, verify(task.held_out)['files'])}.pt"
    if not path.is_file():
        generator = generator_for(config.streams, seed, "pool", config.device)
        made = _encoded(model.eval().to(config.device), world, counts[:2], generator)
        learned = probe_factors(world, counts[2:], generator_for(config.streams, seed, "probe clips"))
        tested = held_out_factors(world, load_held_out(task.held_out), evaluation.frames)
        clips = {"probe clips": learned, "held-out clips": tested}
        model.to("cpu")
        below = {name: pictured(model, world, factors, name) for name, factors in clips.items()}
        save(path, {"model": {}, **made, "below": below})
    return load(path)


@torch.no_grad()
def _encoded(model: HJEPA, world: Any, counts: tuple[int, int], generator: Generator) -> dict[str, Tensor]:
    """Return codes and actions of the highest level of clips that are drawn. Args: counts: clips and frames of each."""
    codes, actions = [], []
    for first in range(0, counts[0], CHUNK):
        batch = world.trajectories(min(CHUNK, counts[0] - first), counts[1] - 1, generator)
        a = batch.a
        for level in range(1, len(model.levels) + 1):
            a = model.actions(a, level)
        codes.append(model.encode(batch.frames)[-1].cpu())
        actions.append(a[:, : codes[-1].shape[1] - 1].cpu())
    return {"codes": torch.cat(codes), "actions": torch.cat(actions)}


def on_codes(task: Any, of: Any, parent: HJEPA, folder: Path) -> tuple[Any, list[nn.Module]]:
    """Return the parts of a run above frozen levels, whose source has their codes, and what is left to train.

    Args: task: what is trained; of: its parts; parent: the hierarchy below, trained, on the CPU; folder: of its run.
    Raises: ValueError if the levels below are no others, or of other shapes, or the clips are too short.
    """
    config, count = task.config, len(parent.levels)
    try:
        for own, other in zip(of.model.levels, parent.levels, strict=False):
            own.load_state_dict(other.state_dict())
            own.requires_grad_(False)
    except RuntimeError as error:
        raise ValueError(f"below: expected levels of the same shapes, found others ({str(error)[:200]})") from error
    kept = kept_codes(task, parent, of.world, folder)
    kept |= {name: kept[name].to(config.device) for name in ("codes", "actions")}
    left = [*list(of.model.levels)[count:], of.objective]
    return of._replace(sample=above(config, of.model, kept), below=kept["below"]), left


def monitor(config: Config, of: Any) -> LevelsMonitor:
    """Return the monitor of an untrained hierarchy, on the configured device. Args: of: the parts of a run."""
    batch = of.sample(WATCHED, Generator(config.device).manual_seed(0))
    return LevelsMonitor(of.objective, batch, config.train.steps, config.monitor.times)


def reference(of: Any) -> float:
    """Return E0 of the highest level of an untrained hierarchy. Args: of: the parts of a run."""
    batch = of.sample(WATCHED, Generator().manual_seed(0))
    return reference_energy(of.model.encode(batch.frames)[-1].flatten(0, 1))


def subject(
    config: Config, of: Any, held_out: HeldOut, reference: float, stream: Callable[[str], Generator]
) -> Stacked:
    """Return a trained hierarchy, on the CPU, with what it is measured on."""
    options = {name: getattr(config.evaluation, name) for name in ("samples", "probe", "frames")}
    training = Training(of.objective, of.sample, config.train, config.pool * _clip(config), config.device)
    return Stacked(of.model.eval(), of.world, held_out, reference, stream, training, **options, below=of.below)


def _clip(config: Config) -> int:
    """Return the frames of a clip of the pool."""
    return config.objective.options.get("clip", CLIP)


def _steps(config: Config) -> int:
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
