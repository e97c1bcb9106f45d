"""What the levels of a hierarchy hold, and how far ahead each of them sees (LeCun 2022, section 4.6).

A code is read by a probe that has learned on codes; what a level predicts is read by the same probe. So a prediction
scores only where it is what the code would be. A window's code is probed for each frame of the window, so a level whose
step is 32 frames is read from one frame ahead on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from jepa.energy import distance
from jepa.evaluate.levels import PENALTY, Stacked, known, rows, targets, within_roads
from jepa.evaluate.subject import Row
from jepa.measures.collapse import EPSILON, effective_rank
from jepa.measures.probes import Probe
from jepa.worlds.drive.ring import LAP, MIDDLE

HORIZONS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # frames
READ = ("place", "road", "speed", "wobble", "other", "texture")
LOST = 1e6  # what is missed of a variance, at most
NONE = -1.0  # R² below it is written as this: nothing is known, how wrong a roll-out is is no matter


@torch.no_grad()
def contents(subject: Stacked, levels: Sequence[int] = (), precision: float = 0.1) -> list[Row]:
    """Return what codes hold of every factor at the last frame that they speak of: R² on held-out clips.

    `held_{level}_{factor}` is read by a probe of stated precision: to every number of the code is added noise of
    `precision` times the root of their mean variance, since a probe without is blind to scale. `exact_…` is without.
    Args: levels: which ones, all for none.
    """
    found = []
    for level in known(subject, "contents", levels):
        presents = subject.presents
        s, s_test = (subject.at(clips, level, presents).flatten(0, 1) for clips in (subject.learned, subject.tested))
        found.append(Row(f"spread_{level}", float(s.var(0).mean().sqrt())))
        found.append(Row(f"effective_rank_{level}", effective_rank(s)))
        noise = precision * s.var(0).mean().sqrt()
        draws = subject.stream("precision of probes")
        noisy = [part + noise * torch.randn(part.shape, generator=draws) for part in (s, s_test)]
        for name, (own, other) in (("held", noisy), ("exact", (s, s_test))):
            found += [Row(f"{name}_{level}_{factor}", value) for factor, value in _held(subject, own, other).items()]
    return found


def _held(subject: Stacked, s: Tensor, s_test: Tensor) -> dict[str, float]:
    """Return the R² of each factor from codes [N P, D] at the presents."""
    options = {"features": subject.probe, "penalty": PENALTY}
    factors, factors_test = (rows(clips.factors, subject.presents) for clips in (subject.learned, subject.tested))
    truth, truth_test = (targets(subject.world, of) for of in (factors, factors_test))
    found = {}
    for name in READ:
        pairs = (s, truth[name]), (s_test, truth_test[name])
        if name == "wobble":
            found[name] = within_roads(*pairs, (factors["road"], factors_test["road"]), options)
        else:
            found[name] = float(Probe(*pairs[0], **options).r2(*pairs[1]).mean())
    return found


@torch.no_grad()
def horizons(subject: Stacked, levels: Sequence[int] = ()) -> list[Row]:
    """Return how well each level foresees where the car is, by frames ahead, from the same frames on.

    `place_px_{level}_{frames}` is the root of the mean squared error along the ring, `map_px` along and across on the
    map, both in px; `place_r2` of (cos, sin), not below −1. Of a level with a latent z is drawn as often as it is used.
    `unexplained_{level}` is the part of the variance of a level's next code that its prediction of it misses.
    Args: levels: which ones, all for none.
    """
    found = []
    for level in known(subject, "horizons", levels):
        imagined = _imagined(subject, level)
        found.append(Row(f"unexplained_{level}", _unexplained(subject, level, imagined[:, 0])))
        readers: dict[int, Probe] = {}  # by how many frames before a code's last one they read
        for horizon in (frames for frames in HORIZONS if frames <= subject.ahead):
            found += _scores(subject, level, horizon, imagined, readers)
    return found


def _imagined(subject: Stacked, level: int) -> Tensor:
    """Return what a level predicts from the presents on that have enough frames after them, [N P, T, D_l]."""
    clock = subject.model.clocks[level - 1]
    s = subject.at(subject.tested, level, subject.starts).flatten(0, 1)
    steps = -(-subject.ahead // clock.stride)
    z = drawn(subject, level, (len(s), 1, steps))
    return subject.model.rollout(level, s.unsqueeze(1), s.new_zeros(1, 1, steps, 0), z)[:, 0]


def _unexplained(subject: Stacked, level: int, predicted: Tensor) -> float:
    """Return the mean squared error of predictions [N P, D_l] of the codes after the starts, by their variance."""
    clock = subject.model.clocks[level - 1]
    after = subject.at(subject.tested, level, subject.starts + clock.stride).flatten(0, 1)
    after, predicted = after.double(), predicted.double()
    variance = distance(after, after.mean(0)).mean()
    missed = float(distance(predicted, after).mean() / variance.clamp_min(EPSILON))
    return missed if missed < LOST else LOST  # nan too


def drawn(subject: Stacked, level: int, shape: tuple[int, ...]) -> Tensor:
    """Return z [*shape, Z] of a level, drawn from those that its transitions in the probes' clips were given."""
    model = subject.model.levels[level - 1]
    if not model.latent.inferred_width:
        return torch.zeros(*shape, 0)
    s = subject.learned.codes[level - 1]
    x, y = s[:, :-1].flatten(0, 1), s[:, 1:].flatten(0, 1)
    z = model.minimum(x, x.new_zeros(1, 0), y).argmin
    generator = subject.stream(f"z of level {level}")
    return z[torch.randint(len(z), (math.prod(shape),), generator=generator)].view(*shape, -1)


def read_at(subject: Stacked, level: int, back: int) -> Probe:
    """Return what reads (cos, sin) of the place, and y on the map, from a code, `back` frames before its last one."""
    presents = subject.presents
    s = subject.at(subject.learned, level, presents).flatten(0, 1)
    truth = targets(subject.world, rows(subject.learned.factors, presents - back))
    return Probe(s, torch.cat([truth["place"], truth["across"]], -1), subject.probe, PENALTY)


def _scores(subject: Stacked, level: int, horizon: int, imagined: Tensor, readers: dict[int, Probe]) -> list[Row]:
    """Return the scores of a level's predictions [N P, T, D_l] so many frames ahead; readers that are new are kept."""
    stride = subject.model.clocks[level - 1].stride
    step = -(-horizon // stride)
    back = step * stride - horizon
    if back not in readers:
        readers[back] = read_at(subject, level, back)
    seen = readers[back](imagined[:, step - 1])
    lost = seen.new_tensor([1.0, 0.0, MIDDLE])  # what is guessed where a roll-out has left all numbers: as by chance
    seen = torch.where(seen.isfinite().all(-1, keepdim=True), seen.clamp(-1e6, 1e6), lost)
    truth = targets(subject.world, rows(subject.tested.factors, subject.starts + horizon))
    error = (seen[:, :2] - truth["place"]).square().sum(-1).mean()
    r2 = float(1 - error / (truth["place"] - truth["place"].mean(0)).square().sum(-1).mean())
    along = angles(seen, truth["place"]) * LAP / (2 * math.pi)
    across = seen[:, 2].clamp(0, LAP) - truth["across"][:, 0]
    name = f"{level}_{horizon}"
    return [
        Row(f"place_r2_{name}", max(NONE, r2)),
        Row(f"place_px_{name}", float(along.square().mean().sqrt())),
        Row(f"map_px_{name}", float((along.square() + across.square()).mean().sqrt())),
    ]


def angles(seen: Tensor, truth: Tensor) -> Tensor:
    """Return the angles [N] between directions (cos, sin) [N, 2 or more] and [N, 2], from −π to π."""
    cross = seen[:, 0] * truth[:, 1] - seen[:, 1] * truth[:, 0]
    return torch.atan2(cross, (seen[:, :2] * truth).sum(-1))
