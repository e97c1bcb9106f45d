"""Student's t intervals over seeds: the uncertainty behind every verdict.

A seed is one independent run, so n seeds give n numbers v_1 ... v_n and the interval speaks about further seeds. With m
and s the mean and the standard deviation (divisor n - 1) of g(v_1) ... g(v_n), the interval at confidence c is

    g⁻¹(m ± t s / √n),   t = the (1 + c) / 2 quantile of Student's t with n - 1 degrees of freedom     (Student 1908)

    scale     g(v)                                 for
    linear    v                                    differences, correlations, distances
    log       log v                                ratios
    logit     log(v / (1 - v))                     rates; with k hits in N trials log((k + ½) / (N - k + ½)),
                                                   finite at k = 0 and k = N (Haldane 1956, Anscombe 1956)

Five seeds that all reach a rate of 1 show no spread, and yet are not certain: a rate with known trials is never given
less room than the exact binomial interval of its pooled trials (Clopper & Pearson 1934). A bootstrap has no place here:
over 3 to 5 seeds its nominal 95 % cover 75 to 84 %.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, expit, logit, stdtrit

SCALES = ("linear", "log", "logit")


class Interval(NamedTuple):
    """An estimate with its confidence limits, in the unit of the values, and the number n of seeds behind it."""

    estimate: float
    low: float
    high: float
    n: int


def interval(
    values: ArrayLike, scale: str = "linear", counts: ArrayLike | None = None, confidence: float = 0.95
) -> Interval:
    """Return the t interval over seeds of one measured quantity.

    g⁻¹(m ± t s / √n), with g by scale as in the module's table (Student 1908). The estimate is the mean for linear, the
    geometric mean for log and the pooled rate Σk / ΣN for logit (the mean rate if no counts are given). The exact
    binomial limits for K = Σk hits in N trials are the (1 - c) / 2 quantile of Beta(K, N - K + 1) and the (1 + c) / 2
    quantile of Beta(K + 1, N - K) (Clopper & Pearson 1934). One seed leaves the quantity unbounded: (-∞, ∞) for linear,
    (0, ∞) for log, (0, 1) for logit.

    Args:
        values: [n], one number per seed, in any unit; positive for log, between 0 and 1 for logit.
        scale: "linear", "log" or "logit".
        counts: [n], the trials behind each rate; for logit only, where rates of exactly 0 or 1 need them.
        confidence: nominal coverage, between 0 and 1.

    Returns:
        Interval in the unit of `values`; it always contains its estimate.

    Raises:
        ValueError: naming the argument that is empty, not finite, of wrong shape or out of range.
    """
    if scale not in SCALES:
        raise ValueError(f"scale: expected one of {', '.join(SCALES)}, found {scale!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, found {confidence!r}")
    values = _vector(values, "values")
    if scale == "logit":
        return _rate_interval(values, counts, confidence)
    if counts is not None:
        raise ValueError(f"counts: expected with scale 'logit' only, found with {scale!r}")
    if scale == "linear":
        center, margin = _student(values, confidence)
        return Interval(center, center - margin, center + margin, len(values))
    if values.min() <= 0:
        raise ValueError(f"values: expected positive ratios for scale 'log', found {values.min()}")
    center, margin = _student(np.log(values) - np.log(values[0]), confidence)
    with np.errstate(over="ignore"):
        limits = values[0] * np.exp([center, center - margin, center + margin])
    return Interval(*map(float, limits), len(values))


def _rate_interval(rates: np.ndarray, counts: ArrayLike | None, confidence: float) -> Interval:
    """The t interval on the logit scale, widened to the exact binomial limits where the trials are known."""
    if rates.min() < 0 or rates.max() > 1:
        wrong = rates.min() if rates.min() < 0 else rates.max()
        raise ValueError(f"values: expected rates between 0 and 1 for scale 'logit', found {wrong}")
    if counts is None:
        if rates.min() == 0 or rates.max() == 1:
            raise ValueError("counts: expected the trials behind rates of exactly 0 or 1, found None")
        estimate = low = high = float(rates.mean())
        logits = logit(rates)
    else:
        hits, trials = _hits(rates, counts)
        estimate = float(hits.sum() / trials.sum())
        low, high = _binomial_limits(hits.sum(), trials.sum(), confidence)
        logits = np.log((hits + 0.5) / (trials - hits + 0.5))
    center, margin = _student(logits, confidence)
    return Interval(
        estimate, float(min(low, expit(center - margin))), float(max(high, expit(center + margin))), len(rates)
    )


def _student(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Mean and half width; summed relative to the first value, so that equal values have exactly that mean."""
    center = values[0] + np.mean(values - values[0])
    if len(values) == 1:
        return float(center), np.inf
    quantile = stdtrit(len(values) - 1, (1 + confidence) / 2)
    return float(center), float(quantile * np.std(values - values[0], ddof=1) / np.sqrt(len(values)))


def _binomial_limits(hits: float, trials: float, confidence: float) -> tuple[float, float]:
    """Exact binomial limits from the quantiles of the beta distribution."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else betaincinv(hits, trials - hits + 1, tail)
    high = 1.0 if hits == trials else betaincinv(hits + 1, trials - hits, 1 - tail)
    return low, high


def _hits(rates: np.ndarray, counts: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of hits and trials; a rate may have been rounded to six decimals."""
    trials = _vector(counts, "counts")
    if trials.shape != rates.shape:
        raise ValueError(f"counts: expected one per value ({len(rates)}), found {len(trials)}")
    if np.any(trials < 1) or np.any(trials != np.round(trials)):
        raise ValueError(f"counts: expected whole numbers of at least 1, found {trials.tolist()}")
    hits = np.round(rates * trials)
    wrong = np.abs(rates * trials - hits) > 1e-6 * trials
    if wrong.any():
        raise ValueError(f"values: expected hits / count, found {rates[wrong][0]} with count {trials[wrong][0]:.0f}")
    return hits, trials


def _vector(values: ArrayLike, name: str) -> np.ndarray:
    """A one-dimensional, non-empty, finite float64 array."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, found {values!r}") from error
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name}: expected one number per seed, found shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"{name}: expected finite numbers, found {vector[~np.isfinite(vector)][0]}")
    return vector
