"""What frozen levels of a hierarchy make of clips, kept beside the run that has trained them, as another source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa.batches import Source, Trajectories
from jepa.checkpoints import load, save
from jepa.data import load as load_held_out
from jepa.data import verify
from jepa.evaluate.levels import CHUNK, held_out_factors, pictured, probe_factors
from jepa.hierarchy import HJEPA
from jepa.runs.behavior import fingerprint
from jepa.runs.config import Config
from jepa.runs.levels import clip_frames, training_frames
from jepa.runs.sequences import group_of
from jepa.runs.tasks import training_key
from jepa.streams import generator_for


def levels_below(task: Any) -> int:
    """Return how many levels of a hierarchy are kept as another run has trained them.

    Raises: ValueError if one of both is no hierarchy, or a level that is kept has other settings than there.
    """
    if "below" not in task.parents:
        return 0
    parent = task.parents["below"]
    for one in (task, parent):
        if (found := one.config.objective.name) != "levels":
            raise ValueError(f"parents.below: expected hierarchies, found {one.name!r} with the objective {found!r}")
    for number, level in parent.config.levels.items():
        own = task.config.levels.get(number, level)  # of too few levels somebody else says so
        for name, value in vars(level).items():
            if (found := getattr(own, name)) != value:
                what = f"expected {value!r} as in {parent.name!r}, whose levels are kept as they are"
                raise ValueError(f"levels.{number}.{name}: {what}, found {found!r}")
    return len(parent.config.levels)


def has_clips(world: Any) -> bool:
    """Return whether a world has clips on which hierarchies are measured."""
    return hasattr(world, "clips_of")


def above(config: Config, model: HJEPA, below: int, kept: Mapping[str, Tensor]) -> Source:
    """Return a source of windows of codes that frozen levels have made, each clip from a code drawn at random.

    Clips that share a static part come together, all of a group in their order.

    Args: below: how many levels are frozen; kept: codes [N, T, D] of the highest of them, and actions [N, T−1, A] of
        its steps, at least as long as a training clip; static [G, …], where there is one, each of N/G clips in a row.
    """
    codes, actions = kept["codes"], kept["actions"]
    static = kept.get("static", codes.new_zeros(len(codes), 0))
    group = len(codes) // len(static)
    length = model.clocks[below - 1].codes(training_frames(config, model))

    def sample(count: int, generator: Generator) -> Trajectories:
        """Return windows of the pool, with replacement. Raises: ValueError for a count of no whole groups."""
        if count % group:
            raise ValueError(f"count: expected a multiple of {group}, the clips of a group, found {count}")
        device = codes.device
        drawn = torch.randint(len(static), (count // group, 1), generator=generator, device=device)
        rows = (drawn * group + torch.arange(group, device=device)).view(count, 1)
        first = torch.randint(codes.shape[1] - length + 1, (count, 1), generator=generator, device=device)
        time = first + torch.arange(length, device=device)
        return Trajectories(codes[rows, time], actions[rows, time[:, :-1]], static[drawn[:, 0]], {})

    return sample


def kept_codes(task: Any, parent: Any, model: HJEPA, world: Any, store: Path) -> dict[str, Any]:
    """Return what a trained hierarchy makes of clips, once for all that is built on it.

    Args: task: what is built on it, which says how many clips; parent: the task that has trained it; model: it itself,
        on the CPU; world: of the task; store: folder of finished runs.
    Returns: codes and actions of its highest level, of a pool of clips to learn from, and their static parts, if any;
        below: the codes of all its levels, of the clips that probes learn from and of those held out, empty for a
        world that has none.
    """
    config, evaluation, files = task.config, task.config.evaluation, {}
    counts = [config.pool, clip_frames(config)]
    if has_clips(world):
        counts += [evaluation.samples, evaluation.frames, evaluation.pairs]
        files = verify(task.held_out)["files"]
    deciding = [config.world.flat(), *counts, config.device, config.streams, task.seed, task.code.encoding]
    path = store / training_key(parent) / f"codes-{fingerprint(deciding, files)}.pt"
    if path.is_file():
        return load(path)
    if "below" in parent.parents:
        lowest = len(parent.parents["below"].config.levels)
        lower = kept_codes(task, parent.parents["below"], model.bottom(lowest), world, store)
        made = _raised(model.eval(), lowest, lower)
    else:
        made = _made(task, model.eval(), world)
    save(path, {"model": {}, **made})
    return made


@torch.no_grad()
def _raised(model: HJEPA, lowest: int, lower: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a hierarchy, of what is kept of its `lowest` levels."""
    a = lower["actions"]
    for level in range(lowest + 1, len(model.levels) + 1):
        a = model.actions(a, level)
    codes = model.encode(lower["codes"], lowest)[-1]
    below = {name: [*kept, *model.encode(kept[-1], lowest)] for name, kept in lower["below"].items()}
    static = {name: lower[name] for name in ("static",) if name in lower}
    return {"codes": codes, "actions": a[:, : codes.shape[1] - 1], **static, "below": below}


def _made(task: Any, model: HJEPA, world: Any) -> dict[str, Any]:
    """Return what is kept of a hierarchy, from pictures."""
    config, evaluation, seed = task.config, task.config.evaluation, task.seed
    generator = generator_for(config.streams, seed, "pool", config.device)
    made = _encoded(model.to(config.device), world, (config.pool, clip_frames(config)), generator)
    model.to("cpu")
    if not has_clips(world):
        return made | {"below": {}}
    counts = evaluation.samples, evaluation.frames
    learned = probe_factors(world, counts, generator_for(config.streams, seed, "probe clips"))
    tested = held_out_factors(world, load_held_out(task.held_out, count=evaluation.pairs), evaluation.frames)
    clips = {"probe clips": learned, "held-out clips": tested}
    return made | {"below": {name: pictured(model, world, factors, name) for name, factors in clips.items()}}


@torch.no_grad()
def _encoded(model: HJEPA, world: Any, counts: tuple[int, int], generator: Generator) -> dict[str, Tensor]:
    """Return codes and actions of the highest level of clips that are drawn, and static parts of theirs, if any.

    Args: counts: clips, in whole groups, and frames of each.
    """
    codes, actions, static, group = [], [], [], group_of(world)
    chunk = max(1, CHUNK // group) * group
    for first in range(0, counts[0], chunk):
        batch = world.trajectories(min(chunk, counts[0] - first), counts[1] - 1, generator)
        a = batch.a
        for level in range(1, len(model.levels) + 1):
            a = model.actions(a, level)
        codes.append(model.encode(batch.frames)[-1].cpu())
        actions.append(a[:, : codes[-1].shape[1] - 1].cpu())
        static.append(batch.static.cpu())
    made = {"codes": torch.cat(codes), "actions": torch.cat(actions)}
    return made | ({"static": torch.cat(static)} if static[0].numel() else {})


def on_codes(task: Any, of: Any, parent: HJEPA, store: Path) -> tuple[Any, list[nn.Module]]:
    """Return the parts of a run above frozen levels, whose source has their codes, and what is left to train.

    Args: task: what is trained; of: its parts; parent: the hierarchy below, trained, on the CPU; store: of all runs.
    Raises: ValueError if the levels below are of other shapes.
    """
    config, count = task.config, len(parent.levels)
    try:
        for own, other in zip(of.model.levels, parent.levels, strict=False):
            own.load_state_dict(other.state_dict())
            own.requires_grad_(False)
    except RuntimeError as error:
        raise ValueError(f"below: expected levels of the same shapes, found others ({str(error)[:200]})") from error
    kept = kept_codes(task, task.parents["below"], parent, of.world, store)
    kept |= {name: kept[name].to(config.device) for name in ("codes", "actions", "static") if name in kept}
    left = [*list(of.model.levels)[count:], of.objective]
    return of._replace(sample=above(config, of.model, count, kept), below=kept["below"]), left
