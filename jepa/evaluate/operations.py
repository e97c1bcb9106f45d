"""What planning costs, counted in floating-point operations of matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from jepa.evaluate.inference import Operations
from jepa.model import JEPA


class Spent(NamedTuple):
    """Floating-point operations by PyTorch's formulas: a product and a sum are two, reading and comparing are none."""

    evaluation: float  # of one state that the step is asked for
    encoding: float  # of one picture
    binding: float  # of one static part, which is done once for an episode

    def teraflops(self, evaluations: float, encodings: float, bindings: float = 1.0) -> float:
        """Return what so many of each come to, in units of 10¹² operations."""
        return 1e-12 * (evaluations * self.evaluation + encodings * self.encoding + bindings * self.binding)


@torch.no_grad()
def operations(model: JEPA, static: Tensor, frames: Tensor, action: int = 2) -> Spent:
    """Return what a model takes for an evaluation, an encoding and a binding, counted on one of each.

    Args: static: [G, …] with G at least 1, as `Trajectories.static`; frames: [n, …] of pictures, n at least 1; action:
        A, the width of an action. No latent is asked for.
    Raises: ValueError without a static part or a picture, or as the model does.
    """
    for name, part in (("static", static), ("frames", frames)):
        if not len(part):
            raise ValueError(f"{name}: expected at least one, found none")
    s = model.representation(frames[:1]).unsqueeze(1)
    step, a = model.bound(static[:1]), s.new_zeros(1, 1, action)
    evaluation = _counted(lambda: step(s, a, s.new_zeros(1, 1, 0)))
    encoding = _counted(lambda: model.representation(frames[:1]))
    return Spent(evaluation, encoding, _counted(lambda: model.bound(static[:1])))


def _counted(act: Callable[[], object]) -> float:
    """Return the floating-point operations of what is done."""
    with Operations() as counted:
        act()
    return float(counted.total)
