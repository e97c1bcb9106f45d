"""What the latent of an upper level carries: which road is taken at a junction (LeCun 2022, section 4.6).

Asked are transitions that cross one junction and end where the roads are apart: elsewhere the car is on no road yet.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jepa.evaluate.levels import PENALTY, Clips, Stacked, known
from jepa.evaluate.subject import Row
from jepa.measures.probes import Probe
from jepa.worlds.drive.ring import LAP

APART = (0.15, 0.85)  # parts of a lap between which a car is on a road


class Crossings(NamedTuple):
    """Transitions of a level that cross a junction, with the best z of each."""

    s: Tensor  # [N, D]
    after: Tensor  # [N, D]
    road: Tensor  # [N] that was taken
    z: Tensor  # [N, Z]


@torch.no_grad()
def routes(subject: Stacked, level: int = 2) -> list[Row]:
    """Return whether z names the road that was taken, asked in three ways; the count is that of held-out transitions.

    `route_decoded` is how often the road is right that a probe of codes reads from the prediction with the best z;
    `route_majority` how often it is the one that z most often stands for, in other clips; `route_relabelled` the same,
    in these clips. Without a latent there is but the prediction. `route_ahead` is how often a probe reads the road that
    comes from the code before, which no code can know.
    Args: level: which one.
    Raises: ValueError for another subject or level, or one whose steps hardly ever do that.
    """
    known(subject, "routes", [level])
    learned, tested = (crossings(subject, clips, level) for clips in (subject.learned, subject.tested))
    model, roads, count = subject.model.levels[level - 1], subject.world.roads, len(tested.road)
    s = learned.after, torch.nn.functional.one_hot(learned.road, roads).to(learned.after)
    read = Probe(*s, subject.probe, PENALTY)
    given = model.latent.predictor_input(tested.z.unsqueeze(1))[:, :, 0]
    predicted = model.step(tested.s.unsqueeze(1), tested.s.new_zeros(1, 1, 0), given)[:, 0]
    ahead = Probe(learned.s, s[1], subject.probe, PENALTY)
    found = [
        Row("route_decoded", _accuracy(read(predicted).argmax(-1), tested.road), count),
        Row("route_from_code", _accuracy(read(tested.after).argmax(-1), tested.road), count),
        Row("route_ahead", _accuracy(ahead(tested.s).argmax(-1), tested.road), count),
    ]
    if model.latent.codes is None or not model.latent.inferred_width:
        return found
    codes, codes_test = (model.latent.nearest(of.z) for of in (learned, tested))
    size = len(model.latent.codes)
    for name, (own, road) in {"majority": (codes, learned.road), "relabelled": (codes_test, tested.road)}.items():
        table = torch.zeros(size, roads).index_put_((own, road), torch.ones(len(own)), accumulate=True)
        found.append(Row(f"route_{name}", _accuracy(table.argmax(-1)[codes_test], tested.road), count))
    used = torch.bincount(codes_test, minlength=size) / count
    return [*found, Row("route_codes_used", float((used > 0.01).sum()))]


def crossed(subject: Stacked, clips: Clips, level: int) -> Tensor:
    """Return which transitions of a level [N, T_l − 1] cross one junction and end where the roads are apart."""
    place = clips.factors["place"][:, _last(subject, clips, level), 0]
    lap, u = torch.div(place, LAP, rounding_mode="floor"), torch.remainder(place / LAP, 1)
    return (lap[:, 1:] == lap[:, :-1] + 1) & (u[:, 1:] > APART[0]) & (u[:, 1:] < APART[1])


def crossings(subject: Stacked, clips: Clips, level: int) -> Crossings:
    """Return the transitions of a level that cross one junction and end on a road.

    Raises: ValueError for less than two.
    """
    s, which = clips.codes[level - 1], crossed(subject, clips, level)
    if (count := int(which.sum())) < 2:
        what = "expected steps that cross a junction and end where the roads are apart"
        raise ValueError(f"measure.routes.level: {what}, found {count} of them at level {level}")
    road = clips.factors["road"][:, _last(subject, clips, level), 0]
    x, y = s[:, :-1][which], s[:, 1:][which]
    model = subject.model.levels[level - 1]
    return Crossings(x, y, road[:, 1:][which].long(), model.minimum(x, x.new_zeros(1, 0), y).argmin)


def _last(subject: Stacked, clips: Clips, level: int) -> Tensor:
    """Return the frames at which the codes of a level end, [T_l]."""
    clock = subject.model.clocks[level - 1]
    return torch.arange(clips.codes[level - 1].shape[1]) * clock.stride + clock.span - 1


def _accuracy(found: Tensor, truth: Tensor) -> float:
    """Return how often an index is right."""
    return float((found == truth).double().mean())
