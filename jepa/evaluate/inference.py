"""What inferring a latent costs, counted in floating-point operations, and what a network saves (LeCun 2022, 4.5.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jepa.evaluate.subject import Row, Subject, refused
from jepa.minimize import Minimum, multistart, refined
from jepa.model import JEPA, Representations

TIMED = 64  # pairs on which operations are counted
PAIRS = 512  # on which descents of many kinds are compared
POINTS = ((1, 1), (4, 1), (16, 1), (64, 1), (4, 4), (16, 4), (64, 4), (16, 16))  # starts, and how many of them descend
WIDE = (64, 4)  # of them, where the least energy is asked for
STEPS = (0, 1, 2, 3, 5, 8, 12, 20, 40)


class Operations(TorchDispatchMode):
    """Counts floating-point operations of matrix products and convolutions by PyTorch's formulas, backward passes too.

    `FlopCounterMode` also tracks modules, which `torch.autograd.grad` does not bear.
    """

    def __init__(self) -> None:
        """Begin at 0."""
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Do what is asked and count it."""
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


@torch.no_grad()
def amortization(subject: Subject) -> list[Row]:
    """Return how close the network's proposal comes to the least energy, and how much more gradient descent costs.

    F*: the least that the proposal, its refinement and every descent of a grid find, pair by pair. `gap`: (mean F of
    the proposals − mean F*) / (median F of mismatched pairs − mean F*). `speedup`: operations of the cheapest descent
    that comes as close, over those of the network and one energy; a descent takes the best of so many fixed starts and
    so many steps. Where none of the grid comes as close, it is that of the dearest one, and so a bound from below.

    Raises: ValueError for a model without a network, or a latent that no descent begins for.
    """
    model = subject.model
    if model.latent.network is None:
        raise refused("amortization", "a network that infers z", None)
    if not hasattr(model.latent, "points"):
        raise refused("amortization", "a latent found by gradient descent", model.latent)
    s, a = subject.s.first(PAIRS), subject.a[:PAIRS]
    descents = [descent for points in POINTS for descent in _descents(model, s, a, points)]
    proposal = model.latent.constrain(model.latent.network(*s))[0].detach()
    first, last = (refined(model.E(s.s_x, a, s.s_y), proposal, steps).value for steps in (0, 2 * STEPS[-1]))
    least = torch.stack([last, *(found for found, _ in descents)]).amin(0).mean()
    wrong = Representations(s.s_x, s.s_y.roll(-1, 0))
    scale = float(_descent(model, wrong, a, WIDE).value.median() - least)
    gaps = [float(found.mean() - least) / scale for found, _ in descents]
    gap = float(first.mean() - least) / scale
    spent = [operations for (_, operations), found in zip(descents, gaps, strict=True) if found <= gap]
    few = s.first(TIMED)
    own = _counted(lambda: refined(model.E(few.s_x, a[:TIMED], few.s_y), model.latent.network(*few)))
    dearest = max(operations for _, operations in descents)
    return [Row("gap", gap), Row("speedup", min(spent, default=dearest) / own)]


def _descents(model: JEPA, s: Representations, a: Tensor, points: tuple[int, int]) -> list[tuple[Tensor, float]]:
    """Return what gradient descents of growing length find, F [B], and the operations of each per pair.

    The longest passes by the ends of all others, and every step takes as many operations as the first.
    """
    trace, few = _descent(model, s, a, points).trace, (model, s.first(TIMED), a[:TIMED], points)
    begin, one = (_counted(lambda count=count: _descent(*few, count)) for count in (0, 1))
    return [(trace[count], begin + count * (one - begin)) for count in STEPS]


def _descent(model: JEPA, s: Representations, a: Tensor, points: tuple[int, int], steps: int = STEPS[-1]) -> Minimum:
    """Return the end of gradient descent from the best so many of so many of the latent's fixed starts."""
    (starts, restarts), latent = points, model.latent
    return multistart(model.E(s.s_x, a, s.s_y), latent.points[:starts], restarts, steps, latent.rate)


def operations(model: JEPA, s: Representations, a: Tensor) -> float:
    """Return the floating-point operations of matrix products and convolutions that an inference takes, per pair."""
    return _counted(lambda: model.minimum(s.s_x[:TIMED], a[:TIMED], s.s_y[:TIMED]))


def prediction_operations(model: JEPA, s: Representations, a: Tensor) -> float:
    """Return the operations of one prediction, per pair."""
    z = s.s_x.new_zeros(1, 1, model.latent.width)
    with torch.no_grad():
        return _counted(lambda: model.step(s.s_x[:TIMED].unsqueeze(1), a[:TIMED].unsqueeze(1), z))


def _counted(act: Callable[[], object]) -> float:
    """Return the floating-point operations, per pair, of what is done on a few pairs."""
    with Operations() as counted:
        act()
    return counted.total / TIMED
