"""Operations counted against formulas, and what a network that proposes ž saves, where its answer is known."""

from __future__ import annotations

import pytest
import torch
from conftest import generator
from torch import nn

from jepa.data import HeldOut
from jepa.evaluate.inference import POINTS, STEPS, Operations, amortization, operations, prediction_operations
from jepa.evaluate.subject import Subject
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete
from jepa.minimize import gradient, multistart
from jepa.model import JEPA


def counted(act):
    """Return the operations of what is done."""
    with Operations() as found:
        act()
    return found.total


@pytest.mark.parametrize(("count", "inputs", "outputs"), [(1, 3, 5), (8, 16, 4), (64, 7, 1)])
def test_linear_layer_multiplies_and_adds_once_a_weight(count, inputs, outputs):
    layer, x = nn.Linear(inputs, outputs), torch.rand(count, inputs)
    assert counted(lambda: layer(x)) == 2 * count * inputs * outputs
    with torch.no_grad():
        assert counted(lambda: (layer(x) + 1).relu().square().sum()) == 2 * count * inputs * outputs


def test_convolution_does_so_at_every_place():
    layer, x = nn.Conv2d(3, 4, 2, stride=2), torch.rand(5, 3, 8, 6)
    assert counted(lambda: layer(x)) == 2 * 5 * (3 * 2 * 2) * 4 * (4 * 3)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_gradient_step_is_a_way_forward_and_one_back(steps):
    layer, y = nn.Linear(4, 6), torch.rand(10, 1, 6)
    cost = lambda z: (layer(z) - y).square().sum(-1)  # noqa: E731
    start, once = torch.rand(10, 3, 4), 2 * 10 * 3 * 4 * 6
    assert counted(lambda: gradient(cost, start, steps)) == (steps + 1) * 2 * once
    points = torch.rand(5, 4)  # the same for all ten problems, so computed once
    spent = counted(lambda: multistart(cost, points, 3, steps, 0.1))
    assert spent == 2 * 5 * 4 * 6 + (steps + 1) * 2 * once


def test_counting_changes_nothing():
    layer, x = nn.Linear(4, 6), torch.rand(10, 4)
    with Operations():
        counted_result = layer(x)
    assert torch.equal(counted_result, layer(x)) and Operations().total == 0


class Line(nn.Module):
    """A predictor of a point on a line through s: s̃ = s + z q, |q| = 1."""

    def __init__(self):
        super().__init__()
        self.q = nn.Parameter(torch.tensor([[0.6, 0.8]]))

    def forward(self, s, a, z):
        """Return s̃ [B, K, 2]."""
        return s + z @ self.q


class Proposal(nn.Module):
    """A network z = c (s_y − s_x) · q, whose answer is exact for c = 1."""

    def __init__(self, share):
        super().__init__()
        q = torch.tensor([[0.6, 0.8]])
        self.layer = nn.Linear(4, 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(share * torch.cat([-q, q], 1))

    def forward(self, s_x, s_y):
        """Return z [B, 1]."""
        return self.layer(torch.cat([s_x, s_y], 1))


LAYER, STEP = 2 * 4, 2 * 2  # operations of the network and of one prediction from z


def subject(network, latent=None, count=80):
    """Return a subject whose targets lie on the line, and where on it they do, [N]."""
    x, z = torch.randn(count, 2, generator=generator()), torch.randn(count, 1, generator=generator(1))
    predictor, latent = Line(), latent or LowDimensional(1, starts=64)
    y = x + z @ predictor.q.detach()
    model = JEPA(nn.Identity(), nn.Identity(), predictor, latent.amortize(network))
    return Subject(model, None, HeldOut(x, y, {}), x[:, :0], 1.0, None, None), z[:, 0]


def mismatched(of):
    """Return the median F of one x with the next one's y: the squared distance across the line."""
    across = torch.tensor([-0.8, 0.6])
    gaps = of.held_out.y.roll(-1, 0) - of.held_out.x
    return float((gaps @ across).square().median())


def grid():
    """Return the operations of each descent, per pair."""
    return {4 * starts / 64 + 8 * restarts * (steps + 1) for starts, restarts in POINTS for steps in STEPS}


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.0])
def test_gap_is_what_the_proposal_misses_in_units_of_the_contrast(share):
    of, z = subject(Proposal(share))
    found = {row.metric: row.value for row in amortization(of)}
    expected = float(((1 - share) * z).square().mean()) / mismatched(of)
    assert found["gap"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    spent = found["speedup"] * (LAYER + STEP)
    assert min(abs(spent - possible) for possible in grid()) < 1e-6


def test_speedup_is_that_over_the_cheapest_descent_that_comes_as_close():
    spent = [{row.metric: row.value for row in amortization(subject(Proposal(c))[0])}["speedup"] for c in (0, 0.5)]
    assert spent == sorted(spent) and spent[0] < spent[-1]
    of, z = subject(Proposal(0.5))
    close = float((z / 2).square().mean())
    model, possible = of.model, []
    for starts, restarts in POINTS:
        for steps in STEPS:
            points = model.latent.points[:starts]
            found = multistart(model.D(of.s.s_x, of.a, of.s.s_y), points, restarts, steps, model.latent.rate).value
            if float(found.mean()) <= close:
                possible.append(4 * starts / 64 + 8 * restarts * (steps + 1))
    assert spent[1] == pytest.approx(min(possible) / (LAYER + STEP))


def test_network_is_asked_for_where_it_is_compared():
    with pytest.raises(ValueError, match="^measure: expected a network that infers z for 'amortization', found none"):
        amortization(subject(None)[0])
    with pytest.raises(
        ValueError, match="^measure: expected a latent found by gradient descent for .*, found Discrete"
    ):
        amortization(subject(Proposal(1.0), Discrete(1))[0])


def test_operations_are_those_of_the_inference_per_pair():
    of, _ = subject(None, LowDimensional(1, starts=16, restarts=2, steps=3))
    assert operations(of.model, of.s, of.a) == 4 * 16 / 64 + 8 * 2 * 4
    assert prediction_operations(of.model, of.s, of.a) == pytest.approx(4 / 64)  # one z for all pairs
    of, _ = subject(Proposal(1.0))
    assert operations(of.model, of.s, of.a) == LAYER + STEP
