"""VICReg keeps embeddings informative by two statistics of a batch (Bardes et al. 2022; LeCun 2022, figure 14).

    V(v) = 1/E Σ_j max(0, γ − √(Var v_j + ε))            variance: no feature is constant               equations 1, 2
    C(v) = 1/E Σ_{i≠j} [Cov v]²_ij                       covariance: no feature repeats another         equations 3, 4
    I(v_x, v_y) = 1/(B E) Σ_b D(v_x,b, v_y,b)            invariance: the energy of an identity predictor    equation 5

Var and Cov divide by B − 1. The constants are those of the authors' code (facebookresearch/vicreg), for which the
weights 25, 25, 1 are meant; pytorch-metric-learning has the same. The paper's text differs: its invariance sums over
features (E times ours), and its total adds V(v_x) + V(v_y), of which the code takes half.

The squared entries of XᵀX and XXᵀ have the same sum (Garrido et al. 2023: dimension-contrastive and sample-contrastive
criteria are duals), so the smaller of the two matrices serves, at a cost of B·E·min(B, E).

A batch with NaN or infinity raises on the CPU. On an accelerator the check would wait for the device at every step;
there the term is NaN, and whoever reads the loss has to look.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from jepa.energy import distance


class Terms(NamedTuple):
    """The published loss, unweighted: its total is 25 invariance + 25 variance + covariance (Bardes et al. 2022)."""

    invariance: Tensor  # scalar, mean of both branches' squared difference over batch and features
    variance: Tensor  # scalar, (V(v_x) + V(v_y)) / 2
    covariance: Tensor  # scalar, C(v_x) + C(v_y)


def vicreg(v_x: Tensor, v_y: Tensor) -> Terms:
    """Return the three terms for two branches, combined as in the authors' code (Bardes et al. 2022, equation 6).

    Args: v_x, v_y: [B, E] embeddings of the same B samples, dimensionless.
    Returns: scalars I, (V(v_x) + V(v_y)) / 2 and C(v_x) + C(v_y).
    Raises: ValueError if the shapes differ, and as `variance` does.
    """
    if v_x.shape != v_y.shape:
        raise ValueError(f"v_y: expected the shape of v_x, {list(v_x.shape)}, found {list(v_y.shape)}")
    return Terms(
        invariance=distance(v_x, v_y).mean() / v_x.shape[-1],
        variance=(variance(v_x) + variance(v_y)) / 2,
        covariance=covariance(v_x) + covariance(v_y),
    )


def variance(v: Tensor, target: float = 1.0, epsilon: float = 1e-4) -> Tensor:
    """Return V = 1/E Σ_j max(0, γ − √(Var v_j + ε)) (Bardes et al. 2022, equations 1 and 2).

    Zero where every feature's deviation reaches the target; γ − √ε, with a finite gradient, where v is constant.

    Args: v: [B, E] embeddings; target: γ, a standard deviation in the unit of v; epsilon: ε, in its square.
    Returns: scalar in the unit of v, in float32 at least.
    Raises: ValueError if v is not a floating-point [B, E] with B ≥ 2 and E ≥ 1, not finite (CPU only), or ε ≤ 0.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon: expected a number above 0, found {epsilon}")
    deviation = (_batch(v).var(dim=0) + epsilon).sqrt()  # [E]
    return _finite((target - deviation).relu().mean(), v)


def covariance(v: Tensor) -> Tensor:
    """Return C = 1/E Σ_{i≠j} [Cov v]²_ij (Bardes et al. 2022, equations 3 and 4) at a cost of B·E·min(B, E).

    For B < E the diagonal is subtracted from the sum of all squares, which in float32 costs about 1e-7 of the mean
    squared variance: far below C while features share a scale, 0.5 % of C once one is 1,000 times the others.

    Args: v: [B, E] embeddings.
    Returns: scalar in the unit of v to the fourth power, in float32 at least.
    Raises: ValueError if v is not a floating-point [B, E] with B ≥ 2 and E ≥ 1, or not finite (CPU only).
    """
    x = _batch(v)
    size, features = x.shape
    scatter = _OffDiagonal.apply(x - x.mean(dim=0))
    return _finite(scatter / (features * (size - 1) ** 2), v)


class _OffDiagonal(torch.autograd.Function):
    """Σ_{i≠j} [XᵀX]²_ij of centered X [B, E], with its gradient 4 X (XᵀX − diag XᵀX), by the smaller Gram matrix.

    Automatic differentiation would multiply by both sides of the symmetric matrix in turn: half as much work again.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        # Mixed precision is off: three digits in the Gram matrix would not survive the subtraction of the diagonal.
        with torch.autocast(x.device.type, enabled=False):
            if x.shape[0] < x.shape[1]:
                gram = x @ x.T  # [B, B]
                power = x.square().sum(dim=0)  # [E], the diagonal of XᵀX
                value = (gram.square().sum() - power.square().sum()).clamp_min(0)  # rounding may fall below zero
                slope = torch.addmm(x * power, gram, x, beta=-1)
            else:
                cross = (x.T @ x).fill_diagonal_(0)  # [E, E]
                value = cross.square().sum()
                slope = x @ cross
        ctx.save_for_backward(x, slope)  # slope: [B, E], a quarter of the gradient, so that no Gram matrix is kept
        return value

    @staticmethod
    def backward(ctx: FunctionCtx, upstream: Tensor) -> Tensor:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, for which the slope has to depend on x
            slope = (x @ x.T) @ x - x * x.square().sum(dim=0)
        return slope * (4 * upstream)


def _batch(v: Tensor) -> Tensor:
    """The batch in float32 at least, once its shape and type are checked."""
    if v.ndim != 2 or v.shape[0] < 2 or v.shape[1] < 1:
        raise ValueError(f"v: expected [B, E] with at least 2 samples and 1 feature, found {list(v.shape)}")
    if not v.is_floating_point():
        raise ValueError(f"v: expected floating-point numbers, found {v.dtype}")
    return v.float() if v.dtype in (torch.float16, torch.bfloat16) else v


def _finite(value: Tensor, v: Tensor) -> Tensor:
    """The value as it is; on the CPU one that is not finite raises."""
    if value.device.type == "cpu" and not value.isfinite():
        bad = int((~v.isfinite()).sum())
        found = f"{bad} of {v.numel()} that are not" if bad else f"entries up to {v.abs().max():.1e}, which overflow"
        raise ValueError(f"v: expected finite entries, found {found}")
    return value
