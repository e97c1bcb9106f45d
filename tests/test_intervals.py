"""Intervals over seeds: coverage on simulated seeds, closed forms, SciPy as witness, symmetries, bad input."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from jepa.measures.intervals import interval

REPEATS = 3000
MARGIN = 4 * math.sqrt(0.95 * 0.05 / REPEATS)  # four standard deviations of a binomial: 1.6 points


def share_covered(samples, truth, **options):
    covered = [limits.low <= truth <= limits.high for limits in (interval(row, **options) for row in samples)]
    return float(np.mean(covered))


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    ("scale", "inverse", "center", "spread"),
    [("linear", lambda x: x, -0.3, 2.0), ("log", np.exp, 1.0, 0.7), ("logit", expit, 1.5, 0.5)],
)
def test_interval_covers_the_truth_95_times_in_100(scale, inverse, center, spread, seeds):
    normal = np.random.default_rng(seeds).normal(center, spread, size=(REPEATS, seeds))
    assert abs(share_covered(inverse(normal), inverse(center), scale=scale) - 0.95) <= MARGIN


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("rate", [0.5, 0.97, 0.999])
def test_rate_interval_covers_the_truth_at_least_95_times_in_100(rate, seeds):
    hits = np.random.default_rng(seeds).binomial(50, rate, size=(REPEATS, seeds))
    assert share_covered(hits / 50, rate, scale="logit", counts=[50] * seeds) >= 0.95 - MARGIN


def test_linear_interval_is_the_one_scipy_computes():
    values = [0.3, 1.7, -0.4, 2.2, 0.9]
    low, high = stats.t.interval(0.9, df=4, loc=np.mean(values), scale=stats.sem(values))
    found = interval(values, confidence=0.9)
    assert found == pytest.approx((np.mean(values), low, high, 5), rel=1e-12)


def test_log_interval_is_the_exponential_of_the_linear_one():
    values = np.array([0.02, 0.05, 0.031, 0.044])
    expected = np.exp(interval(np.log(values))[:3])
    assert interval(values, "log")[:3] == pytest.approx(expected, rel=1e-12)
    assert interval(values, "log").estimate == pytest.approx(math.prod(values) ** 0.25, rel=1e-12)


def test_logit_interval_with_half_a_hit_added_is_the_closed_form():
    # seeds that differ by more than their trials explain, so that Student's limits are the wider ones
    hits, trials = [10, 45, 80], [50, 60, 100]
    logits = [math.log((k + 0.5) / (n - k + 0.5)) for k, n in zip(hits, trials, strict=True)]
    middle = sum(logits) / 3
    deviation = math.sqrt(sum((x - middle) ** 2 for x in logits) / 2)
    margin = 4.302652729911275 * deviation / math.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    found = interval(np.divide(hits, trials), "logit", counts=trials)
    assert found.estimate == pytest.approx(135 / 210, rel=1e-12)
    assert found.low == pytest.approx(1 / (1 + math.exp(margin - middle)), rel=1e-9)
    assert found.high == pytest.approx(1 / (1 + math.exp(-margin - middle)), rel=1e-9)


@pytest.mark.parametrize(("hits", "seeds"), [(50, 5), (0, 5), (49, 5), (25, 3)])
def test_rate_interval_of_equal_seeds_is_the_exact_binomial_of_their_pooled_trials(hits, seeds):
    exact = stats.binomtest(hits * seeds, 50 * seeds).proportion_ci(0.95, method="exact")
    found = interval([hits / 50] * seeds, "logit", counts=[50] * seeds)
    shrunk = (hits + 0.5) / 51  # all that equal seeds leave of Student's interval
    assert found.low == pytest.approx(min(exact.low, shrunk), rel=1e-9)
    assert found.high == pytest.approx(max(exact.high, shrunk), rel=1e-9)


def test_five_perfect_seeds_are_not_certain():
    found = interval([1.0] * 5, "logit", counts=[100] * 5)
    assert found.estimate == 1 and found.high == 1
    assert found.low == pytest.approx(0.025 ** (1 / 500), rel=1e-9)  # the rate at which 500 hits come 1 time in 40


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_equal_values_have_exactly_that_interval(scale):
    assert interval([0.1] * 7, scale) == (0.1, 0.1, 0.1, 7)


@pytest.mark.parametrize(
    ("scale", "counts", "limits"),
    [("linear", None, (-math.inf, math.inf)), ("log", None, (0, math.inf)), ("logit", [20], (0, 1))],
)
def test_one_seed_leaves_the_quantity_unbounded(scale, counts, limits):
    assert interval([0.25], scale, counts) == (pytest.approx(0.25), *limits, 1)


def test_reciprocals_have_the_reciprocal_interval():
    values = np.array([0.5, 3.0, 1.2])
    there, back = interval(values, "log"), interval(1 / values, "log")
    assert (1 / back.high, 1 / back.low) == pytest.approx((there.low, there.high), rel=1e-12)


def test_misses_have_the_mirrored_interval_of_hits():
    rates, counts = np.array([0.9, 1.0, 0.7]), [10, 20, 30]
    hits, misses = interval(rates, "logit", counts), interval(1 - rates, "logit", counts)
    assert (1 - misses.high, 1 - misses.low) == pytest.approx((hits.low, hits.high), abs=1e-12)


@pytest.mark.parametrize(("scale", "counts"), [("linear", None), ("log", None), ("logit", None), ("logit", [40] * 4)])
def test_interval_grows_with_confidence_and_contains_its_estimate(scale, counts):
    values = [0.975, 0.925, 0.95, 0.1]  # an outlier drags the mean rate far from the middle of the logits
    wide, narrow = interval(values, scale, counts, 0.99), interval(values, scale, counts, 0.2)
    assert wide.low < narrow.low <= narrow.estimate <= narrow.high < wide.high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "values: expected one number per seed, found shape"),
        (([[1.0, 2.0]],), "values: expected one number per seed, found shape"),
        (([1.0, math.nan],), "values: expected finite numbers, found nan"),
        (([1.0, -math.inf],), "values: expected finite numbers, found -inf"),
        ((["one"],), "values: expected numbers"),
        (([1.0, 0.0], "log"), "values: expected positive ratios .* found 0.0"),
        (([0.5, 1.2], "logit"), "values: expected rates between 0 and 1 .* found 1.2"),
        (([0.5, -0.2], "logit"), "values: expected rates between 0 and 1 .* found -0.2"),
        (([0.5, 1.0], "logit"), "counts: expected the trials behind rates of exactly 0 or 1"),
        (([0.5, 1.0], "logit", [2, 3, 4]), r"counts: expected one per value \(2\), found 3"),
        (([0.5, 1.0], "logit", [2, 0]), "counts: expected whole numbers of at least 1"),
        (([0.5, 1.0], "logit", [2, 2.5]), "counts: expected whole numbers of at least 1"),
        (([0.5, 0.3], "logit", [2, 4]), "values: expected hits / count, found 0.3 with count 4"),
        (([0.5, 1.0], "linear", [2, 4]), "counts: expected with scale 'logit' only"),
        (([0.5, 1.0], "probit"), "scale: expected one of linear, log, logit, found 'probit'"),
        (([0.5, 1.0], "linear", None, 95), "confidence: expected a number between 0 and 1, found 95"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        interval(*arguments)
