"""Pictures of what codes say: frames that are read from a code, or from what a level predicts, for looking only.

The decoder is the probe that reads factors (`jepa.measures.probes.Probe`), with pixels for factors: what a code does
not hold comes out as the mean of what it could be, blurred. As with places (`jepa.evaluate.horizons`), it learns on
codes and is applied to predictions, and a window's code is read for each frame of the window.

A roll-out may leave the codes. Of one that is farther from their mean than any code that the decoder has learned from,
in standard deviations, nothing is read: its picture is nan.

A ridge regression's prediction is linear in what it has learned, t̃(s) = Σ_n w_n(s) t_n. The weights w are those of a
probe whose factors are the samples themselves; so one probe serves every frame of a window. No picture has pixel noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jepa.evaluate.horizons import drawn
from jepa.evaluate.levels import Stacked, known
from jepa.evaluate.routes import crossed, crossings
from jepa.latents.base import Latent
from jepa.measures.probes import Probe
from jepa.worlds.drive.ring import LAP

ROWS = 3000  # codes that the decoder learns from, at most
FEATURES, PENALTY = 1024, 1e-2  # of the decoder, by its error on held-out frames; of pixels most cannot be known
CHUNK = 64  # clips that are drawn at a time
BEHIND = 0.35  # part of a lap behind a junction, where the roads are well apart


class Chosen(NamedTuple):
    """A frame of a held-out clip."""

    clip: int
    present: int  # frame


@torch.no_grad()
def decoded(subject: Stacked, level: int, clip: int, horizons: Sequence[int]) -> Tensor:
    """Return what can be read of the frames ahead from a level's prediction, [H, 3, S, S]; nan where it has no code.

    It predicts from the first present of a held-out clip; of a level with a latent z is drawn as often as it is used.
    Args: level: from 1; clip: number of the held-out clip; horizons: in frames.
    Raises: ValueError for a level, clip or horizon that there is not.
    """
    known(subject, "decoded", [level])
    ahead = _ahead(subject, clip, horizons)
    stride = subject.model.clocks[level - 1].stride
    steps = -(-ahead // stride)
    s = subject.at(subject.tested, level, subject.starts[:1])[clip, :1]
    z = drawn(subject, level, (1, 1, int(steps.amax())))
    imagined = subject.model.rollout(level, s.unsqueeze(1), s.new_zeros(1, 1, z.shape[2], 0), z)[0, 0]
    return _read(subject, level, imagined[steps - 1], steps * stride - ahead)


def pictures(subject: Stacked, clip: int, horizons: Sequence[int]) -> Tensor:
    """Return the frames of a held-out clip that far ahead of its first present, [H, 3, S, S].

    Args: clip: its number; horizons: in frames, 0 for the present.
    Raises: ValueError for a clip or horizon that there is not.
    """
    return frames(subject, clip, int(subject.starts[0]) + _ahead(subject, clip, horizons, least=0))


def positions(subject: Stacked, clip: int, horizons: Sequence[int]) -> Tensor:
    """Return where the car is on the map in the frames of `pictures`, [H, 2] in px. Args, Raises: as `pictures`."""
    numbers = int(subject.starts[0]) + _ahead(subject, clip, horizons, least=0)
    return subject.tested.factors["position"][clip, numbers]


def frames(subject: Stacked, clip: int, numbers: Tensor) -> Tensor:
    """Return frames [H, 3, S, S] of a held-out clip by their numbers [H], from 0.

    Raises: ValueError for a clip or frame that there is not.
    """
    _clip(subject, clip)
    if not 0 <= int(numbers.amin()) <= int(numbers.amax()) < subject.frames:
        raise ValueError(f"numbers: expected frames from 0 to {subject.frames - 1}, found {numbers.tolist()}")
    factors = {name: value[clip : clip + 1, numbers] for name, value in subject.tested.factors.items()}
    return subject.world.draw(factors)[0]


@torch.no_grad()
def decoded_codes(subject: Stacked, level: int, clip: int, present: int) -> tuple[Tensor, Tensor]:
    """Return what can be read of the frame one step ahead for every value of z, [K, 3, S, S], and how often it is used.

    Args: level: one whose latent has K values; clip: number of the held-out clip; present: frame to predict from, at
        which a code of the level ends.
    Returns: the pictures, and the share [K] of transitions in the probes' clips for which each value is the best.
    Raises: ValueError for a level, clip or present that there is not, or a latent without values.
    """
    latent = _finite(subject, "decoded_codes", level)
    _clip(subject, clip)
    clock, step = subject.model.clocks[level - 1], subject.model.levels[level - 1].step
    s = subject.tested.codes[level - 1]
    at, rest = divmod(present - clock.span + 1, clock.stride)
    if rest or not 0 <= at < s.shape[1]:
        what = f"expected one of every {clock.stride} frames from {clock.span - 1} to {clock.last(s.shape[1] - 1)}"
        raise ValueError(f"present: {what}, where a code of level {level} ends, found {present}")
    given = latent.predictor_input(latent.codes.unsqueeze(0))[:, :, 0]
    predicted = step(s[clip, at].view(1, 1, -1), s.new_zeros(1, 1, 0), given)[0]
    return _read(subject, level, predicted, torch.zeros(len(predicted), dtype=torch.long)), _used(subject, level)


@torch.no_grad()
def code_roads(subject: Stacked, level: int) -> Tensor:
    """Return the share of each of M roads in the transitions for which a value of z is best, [K, M]; nan for no such.

    Counted are transitions of the probes' clips that cross a junction and end on a road (`jepa.evaluate.routes`).
    Raises: ValueError for a level that there is not, or a latent without values.
    """
    latent, found = _finite(subject, "code_roads", level), crossings(subject, subject.learned, level)
    roads, size = subject.world.roads, len(latent.codes)
    counts = torch.bincount(latent.nearest(found.z) * roads + found.road, minlength=size * roads).view(size, roads)
    return counts / counts.sum(-1, keepdim=True)


def before_junction(subject: Stacked, level: int) -> Chosen:
    """Return from where a step of a level leads over a junction far onto a road: a held-out frame just before one.

    Raises: ValueError for a level that there is not, or if no held-out clip has such a step.
    """
    known(subject, "before_junction", [level])
    clock, clips = subject.model.clocks[level - 1], subject.tested
    which = crossed(subject, clips, level).nonzero()
    if not len(which):
        raise ValueError(f"held_out: expected a step of level {level} that crosses a junction, found none")
    present = which[:, 1] * clock.stride + clock.span - 1
    before, after = (clips.factors["place"][which[:, 0], present + steps, 0] for steps in (0, clock.stride))
    short, past = LAP - torch.remainder(before, LAP), torch.remainder(after, LAP)
    best = int((short / LAP + (past / LAP - BEHIND).abs()).argmin())
    return Chosen(int(which[best, 0]), int(present[best]))


def _read(subject: Stacked, level: int, s: Tensor, back: Tensor) -> Tensor:
    """Return what is read from codes s [H, D] of the frames `back` [H] before their last ones, [H, 3, S, S]."""
    factors, presents = subject.learned.factors, subject.presents
    count = min(len(factors["place"]), max(2, ROWS // len(presents)))
    learned = subject.at(subject.learned, level, presents)[:count].flatten(0, 1)
    lost = _lost(learned, s)
    weights = Probe(learned, torch.eye(len(learned)), FEATURES, PENALTY)(torch.where(lost.unsqueeze(-1), learned[0], s))
    weights = weights.float().view(len(s), count, len(presents))
    size = subject.world.size
    found = torch.zeros(len(s), 3, size, size)
    for frames_back in back.unique():
        of = back == frames_back
        for rows in torch.arange(count).split(CHUNK):
            numbers = presents - frames_back
            drawn_frames = subject.world.draw({name: value[rows][:, numbers] for name, value in factors.items()})
            found[of] += torch.einsum("hnp,npcyx->hcyx", weights[of][:, rows], drawn_frames.float())
    found[lost] = torch.nan
    return found


def _lost(learned: Tensor, s: Tensor) -> Tensor:
    """Return whether codes s [H, D] are farther from the mean of those learned from [N, D] than any of these, [H]."""
    center, scale = learned.mean(0), learned.std(0).clamp(min=1e-6)
    own, other = (((codes - center) / scale).norm(dim=-1) for codes in (learned, s))
    return ~(other <= own.amax() * (1 + 1e-6))


def _used(subject: Stacked, level: int) -> Tensor:
    """Return the share of transitions in the probes' clips for which each value of z is the best, [K]."""
    model, s = subject.model.levels[level - 1], subject.learned.codes[level - 1]
    x, y = s[:, :-1].flatten(0, 1), s[:, 1:].flatten(0, 1)
    best = model.latent.nearest(model.minimum(x, x.new_zeros(1, 0), y).argmin)
    return torch.bincount(best, minlength=len(model.latent.codes)) / len(best)


def _ahead(subject: Stacked, clip: int, horizons: Sequence[int], least: int = 1) -> Tensor:
    """Return horizons as a tensor. Raises: ValueError for a clip or horizon that there is not."""
    _clip(subject, clip)
    most = subject.frames - 1 - int(subject.starts[0])
    if not len(horizons) or min(horizons) < least or max(horizons) > most:
        raise ValueError(f"horizons: expected frames from {least} to {most}, found {list(horizons)}")
    return torch.as_tensor(list(horizons))


def _clip(subject: Stacked, clip: int) -> None:
    """Raises: ValueError for a held-out clip that there is not."""
    count = len(subject.tested.factors["place"])
    if not 0 <= clip < count:
        raise ValueError(f"clip: expected from 0 to {count - 1}, found {clip}")


def _finite(subject: Stacked, measure: str, level: int) -> Latent:
    """Return the latent of a level. Raises: ValueError for a level that there is not, or a latent without values."""
    known(subject, measure, [level])
    latent = subject.model.levels[level - 1].latent
    if latent.codes is None or not latent.inferred_width:
        raise ValueError(f"level: expected one whose latent has values to choose from, found level {level} without")
    return latent
