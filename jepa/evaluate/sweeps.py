"""Energies along a path through the futures of one clip: across the roads, and through the textures."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from jepa.encoded import encode
from jepa.evaluate.subject import Subject
from jepa.worlds.clips import Clips


def across(subject: Subject[Clips], clip: int, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energies E(x, y, z) [L, K] of every code where the car of a held-out clip takes other ways.

    Args: clip: number in the held-out set; turns: [L] where the car heads behind the fork, in units of the fork angle:
        −1 and 1 are the two branches, what is between them leads over the grass.
    Returns: the energies, in units of the squared representation, and the clips y [L, T, S, S] they are of.
    """
    y = _drives(subject, clip, turns)
    return _energies(subject, clip, y), y


def lowest_across(subject: Subject[Clips], clip: int, turns: Tensor) -> Tensor:
    """Return the free energy F(x, y) [L] where the car of a held-out clip takes other ways. Args: as for `across`."""
    with torch.no_grad():
        s_y = encode(subject.model.target_encoder, _drives(subject, clip, turns))
    s_x = subject.s.s_x[clip : clip + 1].expand(len(s_y), -1)
    return subject.model.minimum(s_x, s_x[:, :0], s_y).value


def along_textures(subject: Subject[Clips], clip: int, shares: Tensor, seed: int = 0) -> Tensor:
    """Return the energies E(x, y, z) [L, K] where the trees of a held-out clip turn into other ones.

    Args: shares: [L] of the other trees, 0 to 1; seed: of the other trees.
    """
    known = _repeated(subject, clip, len(shares))
    other = subject.world.draw_texture(1, Generator().manual_seed(seed))["texture_y"]
    known["texture_y"] = torch.lerp(known["texture_y"], other, shares.unsqueeze(1))
    noise = subject.world.draw_noise(1, Generator().manual_seed(clip))
    return _energies(subject, clip, subject.world.render(known, noise).y)


def between(subject: Subject, clip: int, pair: tuple[int, int], shares: Tensor) -> Tensor:
    """Return the energies E(x, s_y, z) [L, K] of all codes on the line from the prediction of one code to another's.

    Args: clip: number in the held-out set; pair: numbers of the two codes; shares: [L] of the way between them.
    """
    codes = subject.model.latent.codes.unsqueeze(0)
    s_x = subject.s.s_x[clip : clip + 1]
    with torch.no_grad():
        first, last = subject.model.step(s_x.unsqueeze(1), s_x.new_zeros(1, 1, 0), codes)[0, list(pair)]
        line = torch.lerp(first, last, shares.unsqueeze(1))
        return _all_energies(subject, s_x, line)


def _drives(subject: Subject[Clips], clip: int, turns: Tensor) -> Tensor:
    """Return clips y [L, T, S, S] in which the car takes other ways, all with the same trees and noise."""
    noise = subject.world.draw_noise(1, Generator().manual_seed(clip))
    return subject.world.render(_repeated(subject, clip, len(turns)), noise, turn=turns.unsqueeze(1)).y


def _repeated(subject: Subject[Clips], clip: int, count: int) -> dict[str, Tensor]:
    """Return the factors of one held-out clip, `count` times."""
    factors = subject.held_out.factors
    return {name: factors[name][clip : clip + 1].repeat(count, 1) for name in subject.world.factor_labels}


def _energies(subject: Subject[Clips], clip: int, y: Tensor) -> Tensor:
    """Return the energies [L, K] of clips y [L, T, S, S] after one held-out x."""
    with torch.no_grad():
        return _all_energies(subject, subject.s.s_x[clip : clip + 1], encode(subject.model.target_encoder, y))


def _all_energies(subject: Subject, s_x: Tensor, s_y: Tensor) -> Tensor:
    """Return the energies [L, K] of targets s_y [L, D] behind one context s_x [1, D_x] under every code."""
    return subject.model.E(s_x, s_x.new_zeros(1, 0), s_y)(subject.model.latent.codes.unsqueeze(0))
