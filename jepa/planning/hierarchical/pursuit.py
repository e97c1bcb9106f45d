"""How a lower level pursues conditions: the lowest by the best of a few moves, step by step; others by a search."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from jepa.planning.costs import Distance
from jepa.planning.hierarchical.course import Course
from jepa.planning.level import Level, selected
from jepa.planning.passages import raised
from jepa.planning.search import Found, Search, search


def toward(level: Level, s: Tensor, target: Tensor, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best of given moves and the state that it is imagined to lead to: argmin_k ‖s̃_k − c‖² + passage.

    Args: level: of these episodes, with `up` to the states of the level above; s: [n, D]; target: c [n, D']; moves:
        [P, A].
    Returns: a [n, A], s̃ [n, D].
    """
    a = moves.to(s).unsqueeze(0)
    after = level.step(s.unsqueeze(1), a, s.new_zeros(1, 1, level.latent))  # [n, P, D]
    cost = (raised(level, after) - target.unsqueeze(1)).square().sum(-1)
    if level.passage is not None:
        cost = cost + level.passage(s.unsqueeze(1).expand_as(after), after, a)
    best = cost.argmin(1)
    rows = torch.arange(len(s), device=s.device)
    return a[0, best], after[rows, best]


@torch.no_grad()
def realize(
    level: Level, s: Tensor, course: Course, moves: Tensor, whole: bool = False
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Let the lowest level pursue conditions in imagination; the course says afterwards which of them are met.

    Args: level: of these B episodes; s: [B, D]; course: of these episodes; moves: [P, A]; whole: whether to go on
        behind a condition that is not met.
    Returns: the last states [B, D]; evaluations [B]; the states after every step, each [B, D].
    """
    s, spent, path = s.clone(), torch.zeros_like(course.at), []
    while len(rows := course.active.nonzero()[:, 0]):
        _, after = toward(selected(level, rows), s[rows], course.target(rows), moves)
        s[rows] = after
        spent[rows] += len(moves)
        course.seen(rows, raised(level, after))
        path.append(s.clone())
        if whole:
            course.skip(course.unmet.nonzero()[:, 0])
    return s, spent, path


@torch.no_grad()
def realize_by_search(
    level: Level, s: Tensor, course: Course, settings: Search, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Let a middle level pursue conditions in imagination, each by a plan of its own.

    Args: as for `realize`; settings: of the level's search, whose tolerance is that of the course's rules.
    Returns: the last states [B, D]; evaluations [B].
    """
    s, spent = s.clone(), torch.zeros_like(course.at)
    settings = replace(settings, tolerance=course.rules.near**2)
    while len(rows := course.active.nonzero()[:, 0]):
        found = search(aimed(selected(level, rows), course.target(rows)), s[rows], generator, settings)
        s[rows] = ends(found, s[rows])
        spent[rows] += found.plan.evaluations
        course.arrive(rows, raised(level, s[rows]))
    return s, spent


def aimed(level: Level, target: Tensor) -> Level:
    """Return a level of n episodes whose cost is the distance to targets [n, D], of all of them and of some."""

    def at(index: Tensor) -> Level:
        """Return the level of some of these episodes."""
        return aimed(selected(level, index), target[index])

    return level._replace(cost=Distance(target), rows=at)


def ends(found: Found, s: Tensor) -> Tensor:
    """Return where ways end [n, D], at s where they are empty."""
    if not found.plan.states.shape[1]:
        return s
    last = (found.plan.length - 1).clamp(min=0)
    end = found.plan.states[torch.arange(len(s), device=s.device), last]
    return torch.where((found.plan.length > 0).unsqueeze(-1), end, s)
