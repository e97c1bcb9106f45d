"""Training and evaluation mode of modules, put back to what they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def training_mode(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Put parts into training mode, and afterwards into evaluation mode.

    In evaluation mode stays what is in it within a part in training mode, or has weights of which none is to be
    trained, with all that is in it.
    """
    for part in parts:
        asleep = [module for module in part.modules() if not module.training]
        kept = [inner for module in asleep if part.training or _frozen(module) for inner in module.modules()]
        kept = [module for module in kept if not module.training]
        part.train()
        for module in kept:
            module.training = False
    try:
        yield
    finally:
        for part in parts:
            part.eval()


def _frozen(module: nn.Module) -> bool:
    """Return whether a module has weights, and none to train."""
    weights = list(module.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let a model be used as outside of training and without gradients; every part of it is put back afterwards."""
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training
