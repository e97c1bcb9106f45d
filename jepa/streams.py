"""Streams of random numbers: each purpose of a run has its own, decided by the run's seed and the purpose's name.

With `streams: seed`, as the first notebooks were measured, all purposes begin with the bare seed; so their streams are
equal, and what one of them draws another one draws as well.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Generator


def number(streams: str, seed: int, purpose: str) -> int:
    """Return the seed of a purpose: of "purpose", 63 bits of SHA-256 of (seed, purpose); of "seed", the seed itself."""
    if streams == "seed":
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1


def generator_for(streams: str, seed: int, purpose: str, device: str | torch.device = "cpu") -> Generator:
    """Return a generator at the beginning of the stream of a purpose. Args: as for `number`; device: where it draws."""
    return Generator(device=device).manual_seed(number(streams, seed, purpose))
