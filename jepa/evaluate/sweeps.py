"""Energies along a path through the futures of one clip: across the roads, and through the textures."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from jepa.evaluate import Subject, encode
from jepa.model import Representations


def across(subject: Subject, clip: int, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energies E(x, y, z) [L, K] of every code where the car of a held-out clip takes other ways.

    Args: clip: number in the held-out set; turns: [L] where the car heads behind the fork, in units of the fork angle:
        −1 and 1 are the two branches, what is between them leads over the grass.
    Returns: the energies, in units of the squared representation, and the clips y [L, T, S, S] they are of.
    """
    known = _repeated(subject, clip, len(turns))
    noise = subject.world.draw_noise(1, Generator().manual_seed(clip))
    y = subject.world.render(known, noise, turn=turns.unsqueeze(1)).y
    return _energies(subject, clip, y), y


def along_textures(subject: Subject, clip: int, shares: Tensor, seed: int = 0) -> Tensor:
    """Return the energies E(x, y, z) [L, K] where the trees of a held-out clip turn into other ones.

    Args: shares: [L] of the other trees, 0 to 1; seed: of the other trees.
    """
    known = _repeated(subject, clip, len(shares))
    other = subject.world.draw_texture(1, Generator().manual_seed(seed))["texture_y"]
    known["texture_y"] = torch.lerp(known["texture_y"], other, shares.unsqueeze(1))
    noise = subject.world.draw_noise(1, Generator().manual_seed(clip))
    return _energies(subject, clip, subject.world.render(known, noise).y)


def _repeated(subject: Subject, clip: int, count: int) -> dict[str, Tensor]:
    """Return the factors of one held-out clip, `count` times."""
    factors = subject.held_out.factors
    return {name: factors[name][clip : clip + 1].repeat(count, 1) for name in subject.world.factor_labels}


def _energies(subject: Subject, clip: int, y: Tensor) -> Tensor:
    """Return the energies [L, K] of clips y [L, T, S, S] after one held-out x."""
    s = Representations(subject.s.s_x[clip : clip + 1], encode(subject.model.encoder_y, y))
    with torch.no_grad():
        return subject.model.cost(s)(subject.model.latent.codes.unsqueeze(0))
