"""What can be drawn from a prediction: a decoder to pixels, trained on frozen representations, for looking only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jepa.evaluate.futures import halved
from jepa.evaluate.subject import Row, Subject, paths
from jepa.latents.finite import NoLatent
from jepa.measures.probes import Probe
from jepa.model import JEPA, Representations
from jepa.objectives.pairs import PairObjective
from jepa.predictors import MLP
from jepa.sampling import pool
from jepa.train import fit
from jepa.worlds.clips import Clips

STEPS = 200  # of a decoder's training
DECODER = (80,)  # hidden widths, as in the generative model it is compared with


def pixels(subject: Subject[Clips], steps: int = STEPS) -> list[Row]:
    """Return the error of decoded predictions per pixel, and what a probe reads from the decoded frames: R².

    Args: steps: of the decoder's training.
    """
    held_out, world, seen = subject.held_out, subject.world, subject.probe_pairs
    decode = decoder(subject, steps)
    drawn, known = (decode(best(subject.model, s)) for s in (subject.s, subject.s_probe))
    targets, truth = (torch.cat([paths(world, of.factors), of.factors["texture_y"]], 1) for of in (seen, held_out))
    position, texture = Probe(halved(known), targets).r2(halved(drawn), truth).tensor_split([2 * world.frames])
    return [
        Row("pixel_error", float((drawn - held_out.y).square().mean())),
        Row("decoded_position_r2", float(position.mean())),
        Row("decoded_texture_r2", float(texture.mean())),
    ]


@torch.no_grad()
def best(model: JEPA, s: Representations) -> Tensor:
    """Return s̃_y at ž, [B, D]: of the set of predictions the one nearest to what happened."""
    a = s.s_x.new_zeros(len(s.s_x), 0)
    z = model.minimum(s.s_x, a, s.s_y).argmin.unsqueeze(1)
    return model.step(s.s_x.unsqueeze(1), a.unsqueeze(1), z).squeeze(1)


def decoder(subject: Subject[Clips], steps: int = STEPS) -> Callable[[Tensor], Tensor]:
    """Return the map from predictions [B, D] to frames [B, T, S, S]; a generative model's predictions are frames.

    It learns to draw y from s̃_y at ž by the one optimizer loop, as a generative model whose context is s̃_y.
    """
    world, seen = subject.world, subject.probe_pairs
    shape = (world.frames, world.size, world.size)
    if subject.model.generative:
        return lambda prediction: prediction.unflatten(1, shape)
    s, targets = best(subject.model, subject.s_probe), seen.y.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draw = MLP(s.shape[1], targets.shape[1], hidden=DECODER)
    model = JEPA(nn.Identity(), nn.Identity(), draw, NoLatent())
    train = dataclasses.replace(subject.recipe[0], steps=steps)
    weights = dataclasses.replace(subject.recipe[1], energy=1.0, variance=0.0, covariance=0.0)
    fit(model, PairObjective(weights), pool(s, targets), subject.stream("decoder"), train)

    def decode(prediction: Tensor) -> Tensor:
        """Return frames [B, T, S, S]."""
        with torch.no_grad():
            return model.predictions(prediction, prediction.new_zeros(1, 1, 0))[:, 0].unflatten(1, shape)

    return decode
