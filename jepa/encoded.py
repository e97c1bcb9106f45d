"""What frozen encoders make of a world's pairs: encoded once, learned from and measured on many times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa.batches import Source
from jepa.data import HeldOut
from jepa.measures.probes import Probe
from jepa.model import JEPA, Representations
from jepa.sampling import CHUNK, portions
from jepa.worlds.base import Branching, World
from jepa.worlds.pairs import Pairs, joined

FUTURES = 512  # held-out pairs of which all futures are drawn


@dataclass(frozen=True)
class Encoded:
    """Representations of all pairs that a predictor behind frozen encoders learns from and is measured on."""

    pool: Pairs  # to train on: s_x and s_y in the place of x and y, without factors
    probe_pairs: Pairs  # of the same kind, with factors: for probes and decoders to learn from
    held_out: Representations
    alternatives: Tensor  # [N, M, D] s_y of all futures of the first held-out pairs; M = 0 where they are not finite
    state: Tensor  # of the generator that has drawn the pool
    probes: dict[int, Probe] = field(default_factory=dict, compare=False)  # of paths, by their number of features


@torch.no_grad()
def encode(encoder: nn.Module, x: Tensor) -> Tensor:
    """Return s = Enc(x) [N, D] of x [N, …], a few hundred at a time."""
    return torch.cat([encoder(part) for part in x.split(CHUNK)])


def representations(model: JEPA, pairs: HeldOut | Pairs) -> Representations:
    """Return s_x and s_y of pairs."""
    return Representations(encode(model.encoder, pairs.x), encode(model.target_encoder, pairs.y))


def encoded(
    model: JEPA,
    sample: Source,
    counts: tuple[int, int],
    generators: tuple[Generator, Generator],
    held_out: HeldOut,
    futures: Tensor,
) -> Encoded:
    """Return what trained encoders make of pairs to train on, of pairs for probes, and of the held-out ones.

    Args: model: on the CPU, where all is measured; sample: the source; counts, generators: of the pool, which is drawn
        and encoded on its generator's device, and of the pairs for probes; futures: as from `alternatives`.
    """
    (pool_count, probe_count), (pool_generator, probe_generator) = counts, generators
    device = pool_generator.device
    pool = [_encoded(model.to(device), part) for part in portions(sample, pool_count, pool_generator)]
    state = pool_generator.get_state()
    probe_pairs = [_encoded(model.to("cpu"), part) for part in portions(sample, probe_count, probe_generator)]
    pool, s = joined([part._replace(factors={}) for part in pool]), representations(model, held_out)
    return Encoded(pool, joined(probe_pairs), s, futures, state)


def alternatives(model: JEPA, world: World, held_out: HeldOut) -> Tensor:
    """Return s_y [N, M, D] of all M futures of the first held-out pairs, with textures and noise of their own.

    M is 0 for a world whose futures cannot be counted.
    """
    count = min(FUTURES, len(held_out.x))
    if not isinstance(world, Branching) or not world.branches:
        return torch.zeros(count, 0, 0)
    factors = {name: factor[:count] for name, factor in held_out.factors.items()}
    clips = world.alternatives(factors, Generator().manual_seed(0))
    return encode(model.target_encoder, clips.flatten(0, 1)).unflatten(0, clips.shape[:2])


def packed(of: Encoded) -> dict[str, Any]:
    """Return plain tensors to write."""
    pool, probe_pairs = (
        {name: getattr(of_, name).cpu() for name in ("x", "a", "y")} for of_ in (of.pool, of.probe_pairs)
    )
    rest = {"held_out": of.held_out._asdict(), "alternatives": of.alternatives, "state": of.state}
    return {"pool": pool, "probe_pairs": probe_pairs, "factors": of.probe_pairs.factors, **rest}


def unpacked(state: dict[str, Any]) -> Encoded:
    """Return what was packed."""
    pool, probe_pairs = Pairs(**state["pool"], factors={}), Pairs(**state["probe_pairs"], factors=state["factors"])
    return Encoded(pool, probe_pairs, Representations(**state["held_out"]), state["alternatives"], state["state"])


def _encoded(model: JEPA, pairs: Pairs) -> Pairs:
    """Return the pairs with representations in the place of x and y."""
    s = representations(model.eval(), pairs)
    return pairs._replace(x=s.s_x, y=s.s_y)
