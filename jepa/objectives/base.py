"""What an objective is: a function of a model, a batch and the training's progress, which the optimizer descends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn


class Loss(NamedTuple):
    """What an objective makes of a batch."""

    total: Tensor  # a scalar, what the optimizer descends
    terms: Mapping[str, Tensor]  # name -> a scalar, for the training curve; detached or not


# (model, batch, progress from 0 to 1) -> Loss; a `torch.nn.Module` where it owns heads that only the loss sees
Objective = Callable[[nn.Module, Any, float], Loss]
