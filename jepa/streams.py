"""Streams of random numbers: each purpose of a run has its own, decided by the run's seed and the purpose's name.

With `streams: seed`, as the first notebooks were measured, all purposes begin with the bare seed; so their streams are
equal, and what one of them draws another one draws as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Generator, Tensor


def number(streams: str, seed: int, purpose: str) -> int:
    """Return the seed of a purpose: of "purpose", 63 bits of SHA-256 of (seed, purpose); of "seed", the seed itself."""
    if streams == "seed":
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1


def generator_for(streams: str, seed: int, purpose: str, device: str | torch.device = "cpu") -> Generator:
    """Return a generator at the beginning of the stream of a purpose. Args: as for `number`; device: where it draws."""
    return Generator(device=device).manual_seed(number(streams, seed, purpose))


def forked(device: torch.device) -> AbstractContextManager[None]:
    """Return a context after which the global generators, of the CPU and of the device, are what they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def global_generator(generator: Generator) -> Iterator[None]:
    """Seed PyTorch's global generator from the state of another, which draws nothing, and put it back afterwards."""
    with forked(generator.device):
        digest = hashlib.sha256(generator.get_state().cpu().numpy().tobytes()).digest()
        seed = int.from_bytes(digest[:8], "big") >> 1
        torch.default_generator.manual_seed(seed)
        if generator.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def global_states(device: torch.device) -> list[Tensor]:
    """Return the states of the global generators, of the CPU's and of the device's."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_global_states(states: Sequence[Tensor], device: torch.device) -> None:
    """Put the global generators back to states."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
