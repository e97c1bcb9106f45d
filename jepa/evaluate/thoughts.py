"""What planners in mazes think, as positions that can be drawn: every plan of an episode, with its rounds of thought.

Positions are read from codes by a linear map that is fitted on dots drawn at random places of the same layout; planners
see codes alone. A plan is drawn where its codes put it, be it inside a wall.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from jepa.evaluate.following import Done
from jepa.evaluate.hierarchical import PERCEPT, SEES, arrived, chosen, known, seen
from jepa.evaluate.mazes import Planning
from jepa.evaluate.methods import method
from jepa.evaluate.proposals import Places
from jepa.evaluate.scenes import Scene
from jepa.planning.hierarchical.control import Kept, Log
from jepa.planning.hierarchical.proposals import Round
from jepa.static import OVERLAP, moving
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.maze import Maze
from jepa.worlds.rooms.motion import touches
from jepa.worlds.rooms.policies import uniform
from jepa.worlds.rooms.tasks import Tasks

DOTS = 128  # from which positions are learned, a layout


class Thought(NamedTuple):
    """One round of thought: what the upper level asked for, and how the level below realized it in imagination."""

    asked: Tensor  # [n, 2] conditions, in units
    path: Tensor  # [P+1, 2] where it begins, and after each step of the level below
    unmet: int  # the number of the condition that was not met, counted from 0; −1 if all were


class Proposed(NamedTuple):
    """A plan of an upper level."""

    step: int  # of the episode at which it was made
    level: int  # that made it, from 2; a flat plan that the servo follows counts as one of level 2
    start: Tensor  # [2] in units
    asked: Tensor  # [n, 2] conditions that were taken, in units
    rounds: list[Thought]  # none where what is asked for is taken for what will be
    taken: int  # the number of the round whose conditions were taken, counted from 0; −1 if there was none


class Watched(NamedTuple):
    """One episode of a planner, with what it thought."""

    name: str  # of the planner
    layouts: Layouts  # one of them, with the gates as they are
    goal: Tensor  # [2] in units
    positions: Tensor  # [T+1, 2] in units, true ones
    solved: bool  # by the rule of the world
    evaluations: tuple[int, ...]  # of each level, from the lowest
    plans: list[Proposed]  # in their order; none of planners that make none, or whose plans are not kept


@torch.no_grad()
def thoughts(
    subject: Planning, tasks: Tasks, row: int, name: str, sees: str = PERCEPT, numbers: dict[str, Any] | None = None
) -> Watched:
    """Return one episode of a planner with all plans that it made.

    What it draws at random it draws for this episode alone: it may go otherwise than the same task among others.

    Args: row: of the tasks; name: of the planner (`jepa.evaluate.methods`); sees: what upper levels see, the percept,
        or the map, in which shut gates look open; numbers: of planners, that differ from the defaults.
    Raises: ValueError for a row, planner or number that does not exist, an unknown `sees`, or another subject.
    """
    if not 0 <= row < len(tasks.start):
        raise ValueError(f"row: expected from 0 to {len(tasks.start) - 1}, the tasks, found {row}")
    return watched(subject, tasks.rows(slice(row, row + 1)), name, sees, numbers)[0]


@torch.no_grad()
def watched(
    subject: Planning, tasks: Tasks, name: str, sees: str = PERCEPT, numbers: dict[str, Any] | None = None
) -> list[Watched]:
    """Return an episode for each of several tasks, all at once, the same that `jepa.evaluate.hierarchical` measures.

    Args, Raises: as for `thoughts`.
    """
    known(subject, "thoughts")
    if sees not in SEES:
        raise ValueError(f"sees: expected one of {', '.join(SEES)}, found {sees!r}")
    settings = chosen(subject, {**(numbers or {}), "keep": True})
    of = seen(subject, subject.world.episodes(tasks, generator=subject.stream("collisions")), sees)
    return told(subject, of, name, method(name)(of, settings, subject.stream("planner")))


@torch.no_grad()
def told(subject: Planning, of: Scene, name: str, done: Done) -> list[Watched]:
    """Return what was done and thought in the episodes of a scene, for planners of any kind, those of other tasks too.

    Args: of: the scene, after its episodes; name: of what was done; done: what was, with its plans kept.
    """
    tasks, positions = of.acting.tasks, of.acting.positions
    solved = arrived(subject.world, positions, tasks.goal, done).solved.tolist()
    columns = [
        [at for at, level in enumerate(done.levels) if level == number] for number in range(1, max(done.levels) + 1)
    ]
    kept = done.log.kept if isinstance(done.log, Log) else []
    generator, episodes = subject.stream("places of thoughts"), []
    for row, was in enumerate(solved):
        layouts, used = tasks.layouts.rows(slice(row, row + 1)), done.evaluations[row].tolist()
        spent = tuple(sum(used[at] for at in of_level) for of_level in columns)
        mine = [(one, (one.rows == row).nonzero()[:, 0].tolist()) for one in kept]
        read = places(subject, of, layouts, generator) if kept else None
        plans = [proposed(one, at, read) for one, found in mine for at in found]
        episodes.append(Watched(name, layouts, tasks.goal[row], positions[row], was, spent, plans))
    return episodes


def places(subject: Planning, of: Scene, layouts: Layouts, generator: Generator) -> Places:
    """Return what reads positions from codes, fitted on dots at random places of one layout."""
    anywhere = subject.world.uniform if isinstance(subject.world, Maze) else uniform
    points = anywhere(layouts.repeat(DOTS), generator)
    pictures = subject.world.draw(layouts, points.unsqueeze(0))
    static = pictures.amin(1)  # without any dot, and with all gates
    codes = of.model.levels[0].representation(moving(pictures, static, OVERLAP)[0])
    return Places(codes, points)


def proposed(kept: Kept, at: int, read: Places) -> Proposed:
    """Return a plan of one episode as positions. Args: at: which of the episodes that the plan was made for."""
    proposal, start = kept.proposal, kept.start[at]
    width = len(start)  # of the code; what a task appends to it, its progress, stands behind
    asked = proposal.states[at, : int(proposal.length[at]), :width]
    rounds, taken = [], -1
    for one in proposal.trace:
        for number in (one.rows == at).nonzero()[:, 0].tolist():
            states = one.states[number, : int(one.length[number]), :width]
            if taken < 0 and torch.equal(states, asked):
                taken = len(rounds)
            rounds.append(thought(one, number, start, read))
    return Proposed(kept.step, kept.level, read(start), read(asked), rounds, taken)


def thought(one: Round, number: int, start: Tensor, read: Places) -> Thought:
    """Return a round of one episode as positions, without the steps in which others went on and it did not."""
    path = torch.cat([start.unsqueeze(0), one.path[number, :, : len(start)]])
    moved = (path[1:] != path[:-1]).any(-1).nonzero()[:, 0]
    last = int(moved[-1]) + 1 if len(moved) else 0
    asked = one.states[number, : int(one.length[number]), : len(start)]
    return Thought(read(asked), read(path[: last + 1]), int(one.unmet[number]))


def reason(episode: Watched) -> str:
    """Return in a few words why an episode in a maze was not solved: what its plans asked for, and where it ended."""
    doors = episode.layouts.doors.shape[1]
    gates = episode.layouts.solids[:, 2 * doors : 3 * doors][:, episode.layouts.gates[0]]  # [1, G, 4]
    through = 0
    for plan in episode.plans:
        way = torch.cat([plan.start.unsqueeze(0), plan.asked])
        boxes = gates.expand(len(way) - 1, -1, -1)
        through += bool(touches(boxes, way[:-1], way[1:]).any()) if gates.shape[1] and len(way) > 1 else False
    apart = float((episode.positions[-1] - episode.goal).norm())
    made = f"{through} of {len(episode.plans)} plans lead through a shut gate"
    return f"{made}; it ends {apart:.0f} units from the goal"
