"""What an upper level proposes: whether it can be, and whether its conditions say when its predictions are right.

From states all over the rooms an upper level imagines where its abstract actions lead. What it imagines *cannot be*
where that place is inside a wall or farther by the true shortest way than a stride leads. Positions, read from codes by
a linear map, are used here alone, to score.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.distributions import Normal

from jepa.evaluate.following import Numbers, lower
from jepa.evaluate.hierarchical import PERCEPT, PLENTY, chosen, known, seen
from jepa.evaluate.methods import hierarchy_search
from jepa.evaluate.scenes import Scene, abstract_moves
from jepa.evaluate.subject import Row
from jepa.planning.hierarchical.memory import Memory
from jepa.planning.hierarchical.planners import Searching
from jepa.planning.hierarchical.pursuit import toward
from jepa.worlds.rooms.geodesic import geodesic
from jepa.worlds.rooms.layouts import Layouts
from jepa.worlds.rooms.motion import cleared, obstacles, within
from jepa.worlds.rooms.tasks import Tasks

WITHIN = 0.3  # units behind a wall's face from which a place counts as inside
SLACK = 0.5  # units by which a way may be longer than a stride


@torch.no_grad()
def proposals(
    subject: Any, states: int = 400, sees: str = PERCEPT, budget: int = PLENTY, numbers: dict[str, Any] | None = None
) -> list[Row]:
    """Return what a level 2 proposes that cannot be, how much of it its heads doubt, and how its conditions do.

    `proposed_impossible` is of all abstract actions that a search tries, `kept_impossible` of those that the heads let
    pass, `planned_impossible` and `planned_inside` of the steps of plans. `condition_correlation` is Spearman's, of
    C(s, a_2) = −log q(a_2) with the upper prediction's error, where the lower level has pursued it in the world for a
    stride: q is what level 2 infers from what was done, or from what came of it.

    Args: states: of as many tasks; sees, budget, numbers: as for `hierarchical`.
    Raises: ValueError as there, or if the heads let nothing pass.
    """
    known(subject, "proposals")
    use = chosen(subject, numbers, budget)
    tasks = subject.world.tasks(states, subject.stream("proposals"))
    acting = subject.world.episodes(tasks)
    of = seen(subject, acting, sees)
    s, level = of.encode(acting.observe()), of.upper(2, use.doubt)
    places = Places(s, tasks.start)
    a = abstract_moves(of.model.levels[1].predictor, use.headings, use.shorter).to(s).expand(states, -1, -1)
    after = level.step(s.unsqueeze(1), a, s.new_zeros(1, 1, 0))
    passes = level.passage(s.unsqueeze(1).expand_as(after), after, a).isfinite()
    bad = impossible(tasks.layouts, tasks.start, places(after), of.stride(2) * acting.limit)
    rows = [
        Row("proposed_impossible", float(bad.double().mean())),
        Row("kept_impossible", float(bad[passes].double().mean())),
        Row("doubted", float((~passes).double().mean())),
        *_planned(subject, of, tasks, places, use),
    ]
    return [*rows, *_conditions(subject, of, (s, a, after, passes), acting)]


class Places:
    """The linear map from codes to positions, by least squares."""

    def __init__(self, s: Tensor, position: Tensor) -> None:
        self._weights = torch.linalg.lstsq(_with_one(s), position).solution

    def __call__(self, s: Tensor) -> Tensor:
        """Return positions [..., 2] in units of codes [..., D]."""
        return _with_one(s) @ self._weights


def _with_one(s: Tensor) -> Tensor:
    return torch.cat([s, torch.ones_like(s[..., :1])], -1)


def inside(layouts: Layouts, points: Tensor) -> Tensor:
    """Return which points [B, K, 2] are inside walls, [B, K]."""
    boxes = obstacles(layouts)
    boxes = torch.cat([boxes[..., :2] + WITHIN, boxes[..., 2:] - WITHIN], -1)
    count = points.shape[1]
    return within(boxes.repeat_interleave(count, 0), points.flatten(0, 1)).any(1).view(-1, count)


def impossible(layouts: Layouts, start: Tensor, points: Tensor, reach: float) -> Tensor:
    """Return which points [B, K, 2] are inside walls or farther than a reach from start [B, 2] or [B, K, 2]."""
    count = points.shape[1]
    start = start.unsqueeze(1).expand_as(points) if start.dim() == 2 else start
    all_layouts, walls = layouts.repeat(count), obstacles(layouts).repeat_interleave(count, 0)
    # reading is not exact: points a little inside a wall are moved out, and those that stay inside count without a way
    from_, to = (cleared(walls, part.flatten(0, 1), 1e-3) for part in (start, points))
    lost = [within(walls, part).any(1) for part in (from_, to)]
    middle = layouts.bounds.new_tensor([4.0, 4.0])  # of a room
    from_, to = (torch.where(bad.unsqueeze(1), middle, part) for bad, part in zip(lost, (from_, to), strict=True))
    length = geodesic(all_layouts, from_, to).length
    length = torch.where(lost[0] | lost[1], torch.inf, length).view(-1, count)
    return inside(layouts, points) | (length > reach + SLACK)


def _planned(subject: Any, of: Scene, tasks: Tasks, places: Places, numbers: Numbers) -> list[Row]:
    """Return how many of the steps of plans cannot be. Raises: ValueError if there are none."""
    rows, s = torch.arange(len(of.goal)), of.encode(of.acting.observe())
    left = torch.full_like(rows, numbers.budget)
    plan = Searching(of.upper(2, numbers.doubt), hierarchy_search(of, 2, numbers), lower(of))
    found, _ = plan(rows, s, of.goal, Memory.empty(s, 0, 1), subject.stream("proposed plans"), left)
    before = torch.cat([s.unsqueeze(1), found.states], 1)[:, :-1]
    meant = torch.arange(found.states.shape[1]) < found.length.unsqueeze(1)
    if not bool(meant.any()):
        raise ValueError(f"numbers: expected some step that the heads let pass, found none at doubt {numbers.doubt}")
    reach = of.stride(2) * of.acting.limit
    bad = impossible(tasks.layouts, places(before), places(found.states), reach)
    walls = inside(tasks.layouts, places(found.states))
    return [
        Row("planned_impossible", float(bad[meant].double().mean()), int(meant.sum())),
        Row("planned_inside", float(walls[meant].double().mean()), int(meant.sum())),
    ]


def _conditions(subject: Any, of: Scene, proposed: tuple[Tensor, ...], acting: Any) -> list[Row]:
    """Return how the condition's cost goes with the upper prediction's error."""
    predictor = of.model.levels[1].predictor
    if predictor.network is None:
        return []
    s, a, after, passes = proposed
    luck = torch.rand(passes.shape, generator=subject.stream("pursued"))
    chosen = torch.where(passes, luck, luck - 1).argmax(1)
    rows = torch.arange(len(s))
    z, target = a[rows, chosen], after[rows, chosen]
    now, done, below = s, [], lower(of)
    for _ in range(of.stride(2)):
        step, _ = toward(below.level, now, target, below.moves)
        done.append(step)
        now = of.encode(acting.act(step))
    inferred = predictor.on(predictor.map(of.map), "inferred")
    mean, log_deviation = inferred(s[:, None], torch.cat(done, 1)[:, None], now[:, None])[:, 0].chunk(2, -1)
    cost = -Normal(mean, log_deviation.exp()).log_prob(z).sum(-1)
    error = (now - target).norm(dim=-1)
    return [Row("condition_correlation", float(spearmanr(cost, error).statistic))]
