"""Linear probes: how much of a known factor can be read from a representation, on data the probe has not seen.

The probe reads r = s + precision · noise: every feature through an instrument whose independent noise has that standard
deviation, in training and in the test. Its linear map W of the centered readings to the centered factors t minimizes

    mean over samples of ‖t − W r‖² + penalty Σ_fd W_fd² Var r_d                     ridge, Hoerl & Kennard 1970

The noise is never drawn but averaged over: Var r_d = Var s_d + precision², and the mean of ‖t − W r‖² is the mean of
‖t − W s‖² plus precision² Σ W_fd² (Bishop 1995), a ridge penalty on features that are not standardized.

With precision = 0 this is the customary probe on standardized features. It is blind to scale: it reads a representation
that has shrunk to a millionth as well as before. With a precision above 0 what has shrunk below it cannot be read.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ridge_probe(
    train_s: Tensor,
    train_t: Tensor,
    test_s: Tensor,
    test_t: Tensor,
    penalty: float = 1e-6,
    precision: float = 0.0,
) -> Tensor:
    """Return R²_f = 1 − (mean (t_f − t̃_f)² + precision² ‖W_f‖²) / Var t_f of every factor, on the test samples.

    Args: train_s, test_s: [N, D], [M, D] representations; train_t, test_t: [N, F], [M, F] factors, in any unit;
        penalty: in units of each reading's variance, above 0, so that dependent features are no obstacle;
        precision: standard deviation of the noise, in the unit of s.
    Returns: [F] float64 on the CPU; 1 if all is read, about 0 if nothing is, below 0 if the mean is the better guess.
    Raises: ValueError naming the argument: shapes that do not fit, numbers that are not finite, a test factor that is
        constant, a penalty of 0, a negative precision.
    """
    if not precision >= 0:
        raise ValueError(f"precision: expected a standard deviation of at least 0, found {precision}")
    train_s, train_t = _samples(train_s, train_t, ("train_s", "train_t"))
    test_s, test_t = _samples(test_s, test_t, ("test_s", "test_t"), (train_s.shape[1], train_t.shape[1]))
    variance = _variance("test_t", test_t)
    origin = train_s[0]  # makes a constant feature exactly 0, where a mean would leave its rounding error
    weights, offset = _fit(train_s - origin, train_t, penalty, precision)
    error = (test_t - (test_s - origin) @ weights - offset).square().mean(dim=0)
    return 1 - (error + precision**2 * weights.square().sum(dim=0)) / variance


def _fit(s: Tensor, t: Tensor, penalty: float, precision: float, unit: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights [D, F] and offset [F] by the normal equations of readings in units [D], by default their deviations."""
    if not penalty > 0:
        raise ValueError(f"penalty: expected a number above 0, found {penalty}")
    deviation = (s.var(dim=0, correction=0) + precision**2).sqrt() if unit is None else unit
    deviation = torch.where(deviation > 0, deviation, 1.0)  # a constant gets no weight
    standard = (s - s.mean(dim=0)) / deviation
    normal = standard.T @ standard / len(s) + torch.diag((precision / deviation) ** 2 + penalty)
    weights = torch.linalg.solve(normal, standard.T @ (t - t.mean(dim=0)) / len(s)) / deviation.unsqueeze(-1)
    return weights, t.mean(dim=0) - s.mean(dim=0) @ weights


def _variance(name: str, t: Tensor) -> Tensor:
    """The variance [F] of factors, once it is checked that none is constant."""
    variance = (t - t[0]).var(dim=0, correction=0)  # exactly 0 for a constant
    if not variance.all():
        raise ValueError(f"{name}: expected factors that vary, found a constant in column {variance.argmin()}")
    return variance


def _samples(
    s: Tensor, t: Tensor, names: tuple[str, str] = ("s", "t"), columns: tuple[int | None, int | None] = (None, None)
) -> tuple[Tensor, Tensor]:
    """Representations and factors as matrices, once it is checked that there are as many of both."""
    s, t = (_matrix(name, values, wide) for name, values, wide in zip(names, (s, t), columns, strict=True))
    if len(s) != len(t):
        raise ValueError(f"{names[1]}: expected {len(s)} samples as in the representations, found {len(t)}")
    return s, t


def _matrix(name: str, values: Tensor, columns: int | None = None) -> Tensor:
    """The values in float64 on the CPU, once shape and finiteness are checked."""
    matrix = values.detach().cpu().double()
    if matrix.ndim != 2 or len(matrix) < 2 or matrix.shape[1] < 1:
        raise ValueError(f"{name}: expected a matrix of at least 2 samples and 1 column, found {list(matrix.shape)}")
    if columns not in (None, matrix.shape[1]):
        raise ValueError(f"{name}: expected {columns} columns as in training, found {matrix.shape[1]}")
    if not matrix.isfinite().all():
        raise ValueError(f"{name}: expected finite numbers, found {int((~matrix.isfinite()).sum())} that are not")
    return matrix


class Probe:
    """A non-linear probe: a ridge regression on s, standardized, and on a random layer of it, never trained.

    t̃ = W (s, max(0, A s + b)) + c: as strong for every representation, in closed form, and no part of any loss. The
    layer's features keep their unit: one that hardly any sample wakes would be blown up by standardizing it.
    """

    def __init__(self, s: Tensor, t: Tensor, features: int = 512, penalty: float = 3e-3, seed: int = 0) -> None:
        """Args: s: [N, D] representations; t: [N, F] factors, in any unit; features: width of the random layer;
        penalty: as for `ridge_probe`; seed: of the layer.

        Raises: ValueError naming the argument, as `ridge_probe` does.
        """
        s, t = _samples(s, t)
        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator, "dtype": torch.float64}
        self._layer = torch.randn(s.shape[1], features, **options) / s.shape[1] ** 0.5
        self._bias = torch.randn(features, **options)
        deviation = (s - s[0]).std(dim=0, correction=0)
        self._center, self._scale = s.mean(dim=0), torch.where(deviation > 0, deviation, 1.0)
        seen = self._features(s)
        self._weights, self._offset = _fit(seen, t, penalty, 0.0, unit=torch.ones_like(seen[0]))

    def __call__(self, s: Tensor) -> Tensor:
        """Return the factors read, [..., F], of s [..., D] in the precision of s. Raises: ValueError for another D."""
        if s.shape[-1] != len(self._center):
            raise ValueError(f"s: expected {len(self._center)} columns as in training, found {s.shape[-1]}")
        return (self._features(s.double()) @ self._weights + self._offset).to(s)

    def r2(self, s: Tensor, t: Tensor) -> Tensor:
        """Return R²_f = 1 − mean (t_f − t̃_f)² / Var t_f [F] on test samples s [M, D], t [M, F]; below 0 at worst.

        Raises: ValueError as `ridge_probe` does for a test factor that is constant.
        """
        s, t = _samples(s, t)
        return 1 - (t - self(s)).square().mean(dim=0) / _variance("t", t)

    def _features(self, s: Tensor) -> Tensor:
        """Return s, standardized, beside its random layer."""
        standard = (s - self._center) / self._scale
        return torch.cat([standard, (standard @ self._layer + self._bias).relu()], -1)
