"""From a configuration to the parts of a training on trajectories, `objective: {name: trajectories, …}`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Generator

from jepa.batches import Source, Trajectories
from jepa.data import HeldOut
from jepa.evaluate.acting import Acting
from jepa.measures.collapse import reference_energy
from jepa.objectives.trajectories import InverseDynamics, Terms, TrajectoryObjective, encoded
from jepa.runs.config import Config
from jepa.runs.kinds import Part, make, parameters
from jepa.trajectory_monitor import TrajectoryMonitor, drawn

WATCHED = 96  # trajectories for E0, and for the monitor
ONLY_PAIRS = {"context": "x", "condition_on": (), "expander": Part("identity")}  # settings that trajectories have not
STEPS = 8  # of a training trajectory, where the configuration names no other number


def check(config: Config, world: Any, frozen: bool) -> None:
    """Raises: ValueError for settings that trajectories have not, or a world that has none. Args: frozen: encoders."""
    if not hasattr(world, "trajectories"):
        raise ValueError(f"objective: expected a world of trajectories, found {config.world.name!r}")
    if frozen:
        raise ValueError("parents.encoder: expected none with trajectories, which hold frames, found one")
    for name, default in ONLY_PAIRS.items():
        if (value := getattr(config, name)) != default:
            raise ValueError(f"{name}: expected {default!r} with trajectories, found {value!r}")


def objective(config: Config, width: int, action: int, limit: float) -> TrajectoryObjective:
    """Return the objective of trajectories, with the head of inverse dynamics where it has a weight.

    Args: width, action: D and A; limit: of an action, in its unit.
    Raises: ValueError for an option that does not exist, or a number of steps below 1.
    """

    def made(
        steps: int = STEPS, similarity: float = 0.0, inverse: float = 0.0, delta: float = math.inf
    ) -> TrajectoryObjective:
        """Return the objective; its arguments are the options of the configuration."""
        if steps < 1:
            raise ValueError(f"objective.steps: expected at least 1, found {steps}")
        head = InverseDynamics(width, action) if inverse else None
        return TrajectoryObjective(config.loss, Terms(similarity, inverse, delta), head, limit)

    return make("objective", config.objective, {"trajectories": made})


def source(config: Config, world: Any) -> Source:
    """Return the source of training trajectories."""
    steps = config.objective.options.get("steps", STEPS)

    def sample(count: int, generator: Generator) -> Trajectories:
        """Return trajectories."""
        return world.trajectories(count, steps, generator)

    return sample


def surroundings(world: Any, predictor: Part, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a world tells a predictor that has a parameter for it: the map's shape and the limit of an action."""
    known = parameters("predictor", predictor, kinds)
    told = {"static": getattr(world, "static", None), "limit": getattr(world, "step_limit", None)}
    return {name: value for name, value in told.items() if name in known and value is not None}


def monitor(config: Config, of: Any) -> TrajectoryMonitor:
    """Return the monitor of an untrained model, on the configured device. Args: of: the parts of a run."""
    watched = whole_groups(of.world, WATCHED)
    return drawn(of.model, of.objective, of.sample, config.train.steps, config.monitor.times, watched)


def reference(of: Any) -> float:
    """Return E0 of an untrained model, from frames of its own source. Args: of: the parts of a run."""
    batch = of.sample(whole_groups(of.world, WATCHED), Generator().manual_seed(0))
    return reference_energy(encoded(of.model, batch.frames).flatten(0, 1))


def whole_groups(world: Any, count: int) -> int:
    """Return how many trajectories at least `count` are in whole groups, where a world draws them in groups."""
    group = group_of(world)
    return -(-count // group) * group


def group_of(world: Any) -> int:
    """Return how many trajectories in succession share a static part in a world, 1 where it says nothing of it."""
    return getattr(world, "group", 1)


def subject(
    config: Config, seed: int, of: Any, held_out: HeldOut, reference: float, stream: Callable[[str], Generator]
) -> Acting:
    """Return a trained world model, on the CPU, with what it is measured on."""
    options = {"samples": config.evaluation.samples, "probe": config.evaluation.probe}
    tasks = of.world.tasks_of(held_out)
    return Acting(of.model.eval(), of.world, tasks, reference, stream, of.sample, seed, **options)
