"""Training and evaluation mode of modules, put back to what they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def training_mode(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Put parts into training mode, but for modules that are to stay in evaluation mode; afterwards into the latter."""
    for part in parts:
        modules = list(part.modules())
        kept = [module for module in modules if not module.training and (part.training or _frozen(module))]
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
