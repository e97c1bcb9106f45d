"""VICReg against loops over its equations, against an independent implementation, and against its own algebra.

Factors stated beforehand: against pytorch-metric-learning none, for it follows the authors' code as we do (half the sum
of the variance terms, the sum of the covariance terms, a mean over features in the invariance). The paper's text, which
the loops write down, has twice our variance total and E times our invariance.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import VICRegLoss
from torch.utils._python_dispatch import TorchDispatchMode

from jepa.objectives.vicreg import covariance, variance, vicreg

SHAPES = [(2, 1), (2, 5), (5, 5), (6, 5), (7, 3), (4, 11)]
TERMS = [variance, covariance]


def batch(size, features, seed=0, scale=0.7):
    """Correlated features with an offset, float64; the scale keeps some deviations below and some above 1."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(scale * random.normal(size=(size, features)) @ random.normal(size=(features, features)) + 3)


def loop_variance(v, target=1.0, epsilon=1e-4):
    """Equations 1 and 2 of Bardes et al. 2022, one sample at a time."""
    size, features = v.shape
    total = 0.0
    for j in range(features):
        mean = sum(v[b, j] for b in range(size)) / size
        square = sum((v[b, j] - mean) ** 2 for b in range(size)) / (size - 1)
        total += max(0.0, target - math.sqrt(square + epsilon))
    return total / features


def loop_covariance(v):
    """Equations 3 and 4 of Bardes et al. 2022, one pair of features at a time."""
    size, features = v.shape
    mean = [sum(v[b, j] for b in range(size)) / size for j in range(features)]
    total = 0.0
    for i in range(features):
        for j in range(features):
            if i != j:
                entry = sum((v[b, i] - mean[i]) * (v[b, j] - mean[j]) for b in range(size)) / (size - 1)
                total += entry**2
    return total / features


def loop_invariance(v_x, v_y):
    """Equation 5 of Bardes et al. 2022, summed over features as in the text."""
    size, features = v_x.shape
    return sum((v_x[b, j] - v_y[b, j]) ** 2 for b in range(size) for j in range(features)) / size


def value_and_gradient(function, *tensors):
    """The value with its gradient for every tensor."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


def assert_close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("term", TERMS)
def test_derivatives_are_those_of_the_value(term, shape):
    v = batch(*shape).requires_grad_()
    assert torch.autograd.gradcheck(term, v)
    assert torch.autograd.gradgradcheck(term, v)
    (differentiable,) = torch.autograd.grad(term(v), v, create_graph=True)
    assert_close(differentiable.detach(), value_and_gradient(term, v)[1])


def test_target_and_epsilon_enter_as_in_the_equation():
    v = batch(6, 4)
    assert_close(variance(v, target=2.5, epsilon=0.3).item(), loop_variance(v.numpy(), 2.5, 0.3))


@pytest.mark.parametrize("shape", SHAPES)
def test_paper_text_differs_by_the_stated_constants(shape):
    v_x, v_y = batch(*shape, seed=1), batch(*shape, seed=2)
    terms = vicreg(v_x, v_y)
    x, y = v_x.numpy(), v_y.numpy()
    assert_close(loop_invariance(x, y), shape[1] * terms.invariance.item())
    assert_close(loop_variance(x) + loop_variance(y), 2 * terms.variance.item())
    assert_close(loop_covariance(x) + loop_covariance(y), terms.covariance.item())


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (25, 25, 1)])
@pytest.mark.parametrize("shape", [(12, 5), (6, 6), (5, 32), (64, 128)])
def test_loss_is_the_published_one(shape, weights):
    witness = VICRegLoss(invariance_lambda=weights[0], variance_mu=weights[1], covariance_v=weights[2], eps=1e-4)
    v_x, v_y = batch(*shape, seed=3, scale=0.1), batch(*shape, seed=4, scale=0.1)
    ours = value_and_gradient(lambda a, b: torch.stack(vicreg(a, b)) @ a.new_tensor(weights), v_x, v_y)
    theirs = value_and_gradient(lambda a, b: witness(a, ref_emb=b), v_x, v_y)
    for found, expected in zip(ours, theirs, strict=True):
        assert expected.abs().max() > 0
        assert_close(found, expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 20), st.integers(1, 20), st.floats(-3, 3), st.integers(0, 1000))
def test_both_matrices_give_one_term(size, features, constant, seed):
    # Constant features add nothing to the sum, but enough of them turn the choice of the matrix.
    v = batch(size, features, seed)
    value, gradient = value_and_gradient(covariance, v)
    wide = torch.cat([v, torch.full((size, size), constant, dtype=v.dtype)], dim=1)
    wide_value, wide_gradient = value_and_gradient(covariance, wide)
    ratio = (features + size) / features
    scale = max(value.item(), gradient.abs().max().item(), v.var(dim=0).square().sum().item())
    assert abs(wide_value * ratio - value) <= 1e-11 * scale
    assert (wide_gradient[:, :features] * ratio - gradient).abs().max() <= 1e-11 * scale
    assert wide_gradient[:, features:].abs().max() <= 1e-11 * scale


class LargestTensor(TorchDispatchMode):
    """Records the largest tensor that any operation returns, in elements."""

    largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def test_no_matrix_over_features_is_made():
    size, features = 8, 256
    v = torch.randn(size, features, generator=torch.Generator().manual_seed(0))
    with LargestTensor() as ours:
        value_and_gradient(covariance, v)
    with LargestTensor() as theirs:
        value_and_gradient(lambda a: VICRegLoss(0, 0, 1)(a, ref_emb=a), v)
    assert ours.largest == size * features
    assert theirs.largest >= features**2


def test_white_batch_costs_nothing():
    noise = np.random.default_rng(0).normal(size=(30, 6))
    orthonormal, _ = np.linalg.qr(noise - noise.mean(axis=0))
    white = torch.from_numpy(orthonormal * math.sqrt(29))
    assert variance(white).item() == pytest.approx(0, abs=1e-12)
    assert covariance(white).item() == pytest.approx(0, abs=1e-12)
    assert variance(0.5 * white).item() == pytest.approx(0.5, abs=1e-3)


def test_rounding_never_makes_the_covariance_negative():
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(16, 8))
        orthonormal, _ = np.linalg.qr(noise - noise.mean(axis=0))
        decorrelated = np.concatenate([orthonormal, np.zeros((16, 24))], axis=1)
        assert 0 <= covariance(torch.from_numpy(decorrelated).float()) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
@pytest.mark.parametrize("term", TERMS)
def test_collapsed_batch_has_a_finite_gradient(term, shape, dtype):
    _, gradient = value_and_gradient(term, torch.full(shape, 0.3, dtype=dtype))
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_single_precision_error_is_the_documented_one(scale):
    v = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    v[:, 0] *= scale
    exact = covariance(v.double())
    assert abs(covariance(v) - exact) <= 2e-7 * (exact + v.double().var(dim=0).square().mean())


@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
def test_mixed_precision_leaves_the_term_alone(shape):
    v = batch(*shape).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = value_and_gradient(covariance, v)
    for found, expected in zip(mixed, value_and_gradient(covariance, v), strict=True):
        assert torch.equal(found, expected)


def test_half_precision_is_summed_in_single():
    v = 100 * torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).half()
    assert torch.equal(covariance(v), covariance(v.float()))  # about 1e7, far above half precision's 65,504
    assert torch.equal(variance(v), variance(v.float()))


@pytest.mark.parametrize("wrong", [(1, 4), (0, 4), (4, 0), (4,), (2, 3, 4)])
@pytest.mark.parametrize("term", TERMS)
def test_batch_that_has_no_statistics_is_refused(term, wrong):
    with pytest.raises(ValueError, match=r"^v: expected \[B, E\]"):
        term(torch.zeros(wrong))


@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("term", TERMS)
def test_entry_that_is_not_finite_is_refused(term, entry, shape):
    v = torch.ones(shape)
    v[1, 2] = entry
    with pytest.raises(ValueError, match="^v: expected finite entries, found 1 of 18"):
        term(v)


def test_other_bad_input_is_named():
    v = batch(4, 3)
    with pytest.raises(ValueError, match="^v: .*overflow"):
        covariance(1e12 * v.float())
    with pytest.raises(ValueError, match="^v: expected floating-point"):
        covariance(v.long())
    with pytest.raises(ValueError, match="^epsilon: "):
        variance(v, epsilon=0.0)
    with pytest.raises(ValueError, match="^v_y: "):
        vicreg(v, v[:, :2])
