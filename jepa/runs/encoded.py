"""What frozen encoders make of a world's pairs: encoded once, learned from and measured on many times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from jepa.data import HeldOut
from jepa.measures.probes import Probe
from jepa.model import JEPA, Representations
from jepa.runs import build
from jepa.runs.config import Config
from jepa.streams import generator_for
from jepa.worlds.pairs import Pairs, joined

FUTURES = 512  # held-out pairs of which all futures are drawn


@dataclass(frozen=True)
class Encoded:
    """Representations of all pairs that a predictor behind frozen encoders learns from and is measured on."""

    pool: Pairs  # to train on: s_x and s_y in the place of x and y, without factors
    seen: Pairs  # of the same kind, with factors: for probes and decoders to learn from
    held_out: Representations
    alternatives: Tensor  # [N, M, D] s_y of all futures of the first held-out pairs; M = 0 where they are not finite
    state: Tensor  # of the generator that has drawn the pool
    probes: dict[int, Probe] = field(default_factory=dict, compare=False)  # of paths, by their number of features


@torch.no_grad()
def encode(encoder: nn.Module, x: Tensor) -> Tensor:
    """Return s = Enc(x) [N, D] of x [N, …], a few hundred at a time."""
    return torch.cat([encoder(part) for part in x.split(build.CHUNK)])


def representations(model: JEPA, pairs: HeldOut | Pairs) -> Representations:
    """Return s_x and s_y of pairs."""
    return Representations(encode(model.encoder_x, pairs.x), encode(model.encoder_y, pairs.y))


def encoded(config: Config, model: JEPA, held_out: HeldOut, seed: int) -> Encoded:
    """Return what trained encoders make of `train.pool` and `measure.samples` pairs, and of the held-out ones.

    Args: config: of the run behind the encoders; model: on the CPU, where all is measured; seed: of both draws.
    """
    source = build.source(config, build.world(config))
    generator = generator_for(config.streams, seed, "pool", config.device)
    pool = [_encoded(model.to(config.device), part) for part in build.portions(source, config.train.pool, generator)]
    state = generator.get_state()
    again = generator_for(config.streams, seed, "probe pairs")
    seen = [_encoded(model.to("cpu"), part) for part in build.portions(source, config.measure.samples, again)]
    futures = alternatives(model, build.world(config), held_out)
    pool, s = joined([part._replace(factors={}) for part in pool]), representations(model, held_out)
    return Encoded(pool, joined(seen), s, futures, state)


def alternatives(model: JEPA, world: Any, held_out: HeldOut) -> Tensor:
    """Return s_y [N, M, D] of all M futures of the first held-out pairs, with textures and noise of their own.

    M is 0 for a world whose futures cannot be counted.
    """
    count = min(FUTURES, len(held_out.x))
    if not getattr(world, "branches", 0):
        return torch.zeros(count, 0, 0)
    factors = {name: factor[:count] for name, factor in held_out.factors.items()}
    clips = world.alternatives(factors, Generator().manual_seed(0))
    return encode(model.encoder_y, clips.flatten(0, 1)).unflatten(0, clips.shape[:2])


def packed(of: Encoded) -> dict[str, Any]:
    """Return plain tensors to write."""
    pool, seen = ({name: getattr(pairs, name).cpu() for name in ("x", "a", "y")} for pairs in (of.pool, of.seen))
    rest = {"held_out": of.held_out._asdict(), "alternatives": of.alternatives, "state": of.state}
    return {"pool": pool, "seen": seen, "factors": of.seen.factors, **rest}


def unpacked(state: dict[str, Any]) -> Encoded:
    """Return what was packed."""
    pool, seen = Pairs(**state["pool"], factors={}), Pairs(**state["seen"], factors=state["factors"])
    return Encoded(pool, seen, Representations(**state["held_out"]), state["alternatives"], state["state"])


def _encoded(model: JEPA, pairs: Pairs) -> Pairs:
    """Return the pairs with representations in the place of x and y."""
    s = representations(model.eval(), pairs)
    return pairs._replace(x=s.s_x, y=s.s_y)
