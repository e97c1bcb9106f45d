"""Collapse measures against brute force, scikit-learn and the cases that rank and AUROC are blind to."""

import math

import numpy as np
import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from jepa.energy import distance
from jepa.measures.collapse import auroc, contrast, effective_rank, reference_energy

ENERGIES = st.lists(st.integers(-5, 5), min_size=1, max_size=12)  # whole numbers, so that ties abound


def with_singular_values(sigma, size=40):
    """A centered batch [size, len(sigma)] with these singular values."""
    noise = normal(size, len(sigma)).numpy()
    left, _ = np.linalg.qr(noise - noise.mean(axis=0))
    right, _ = np.linalg.qr(normal(len(sigma), len(sigma), seed=1).numpy())
    return torch.from_numpy(left * np.array(sigma, dtype=float) @ right)


def test_reference_energy_is_the_mean_distance_over_all_pairs():
    s = normal(12, 5) * torch.linspace(0.1, 3, 5, dtype=torch.float64) + 7
    pairs = [distance(s[i], s[j]) for i in range(12) for j in range(12) if i != j]
    assert reference_energy(s) == pytest.approx(torch.stack(pairs).mean().item(), rel=1e-12)


def test_contrast_is_one_for_a_perfect_predictor_of_unrelated_samples():
    s = normal(4000, 50)
    mismatched = distance(s, s.roll(1, dims=0))
    assert contrast(torch.zeros(4000), mismatched, reference_energy(s)) == pytest.approx(1, abs=0.02)
    assert contrast(mismatched, mismatched, reference_energy(s)) == 0


def test_contrast_uses_the_median_between_the_middle_values():
    assert contrast(torch.tensor([0.0, 1.0, 2.0, 90.0]), torch.tensor([4.0, 3.0]), 2.0) == pytest.approx(1.0)
    assert contrast(torch.tensor([5.0]), torch.tensor([1.0]), 2.0) == pytest.approx(-2.0)


def test_shrinking_shows_in_the_contrast_and_neither_in_rank_nor_in_auroc():
    s = normal(500, 6)
    reference = reference_energy(s)
    true, mismatched = distance(s, s + 0.1 * normal(500, 6, seed=1)), distance(s, s.roll(1, dims=0))
    shrink = 1e-3
    assert contrast(true, mismatched, reference) > 0.5
    assert contrast(shrink**2 * true, shrink**2 * mismatched, reference) < 1e-5
    assert auroc(shrink**2 * true, shrink**2 * mismatched) == auroc(true, mismatched) > 0.99
    assert effective_rank(shrink * s) == pytest.approx(effective_rank(s), rel=1e-9)
    assert effective_rank(s) > 5.5


@settings(deadline=None, max_examples=200)
@given(ENERGIES, ENERGIES)
def test_auroc_is_that_of_scikit_learn(true, mismatched):
    labels = [0] * len(true) + [1] * len(mismatched)
    expected = roc_auc_score(labels, true + mismatched)
    assert auroc(torch.tensor(true), torch.tensor(mismatched)) == pytest.approx(expected)


@pytest.mark.parametrize("sigma", [[3, 3, 3, 3], [5, 0, 0], [4, 2, 1, 1], [1e-5, 1e-5, 1e-7]])
def test_effective_rank_is_the_exponential_of_the_spectrum_s_entropy(sigma):
    share = np.array([value for value in sigma if value]) / sum(sigma)
    assert effective_rank(with_singular_values(sigma)) == pytest.approx(math.prod(share**-share), rel=1e-9)


def test_effective_rank_knows_neither_offset_nor_rotation_nor_unit():
    s = with_singular_values([4, 2, 1])
    rotation, _ = torch.linalg.qr(normal(3, 3, seed=2))
    assert effective_rank(100 - 0.01 * s @ rotation) == pytest.approx(effective_rank(s), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_constant_has_no_direction_even_with_rounding_errors(dtype):
    constant = torch.full((200, 30), 0.3, dtype=dtype)
    last_digit = torch.finfo(dtype).eps / 4  # of numbers between 1/4 and 1/2
    rounded = constant + last_digit * normal(200, 30).sign().to(dtype)
    assert not torch.equal(rounded, constant)
    assert effective_rank(constant) == effective_rank(rounded) == 0
    assert effective_rank(torch.zeros(200, 30, dtype=dtype)) == reference_energy(constant) == 0


def test_floor_hides_directions_of_less_deviation():
    s = with_singular_values([3, 3, 3, 1, 1]) * math.sqrt(39)  # standard deviations along the directions
    assert effective_rank(s, floor=2) == pytest.approx(3)
    assert effective_rank(s, floor=0.5) == effective_rank(s) > 4
    assert effective_rank(s, floor=4) == 0


@pytest.mark.parametrize("call, argument", [
    (lambda: reference_energy(torch.zeros(1, 3)), "s"),
    (lambda: reference_energy(torch.zeros(4)), "s"),
    (lambda: effective_rank(torch.full((4, 3), math.nan)), "s"),
    (lambda: effective_rank(torch.zeros(4, 0)), "s"),
    (lambda: effective_rank(torch.zeros(4, 3), floor=-1.0), "floor"),
    (lambda: contrast(torch.zeros(3), torch.ones(3), 0.0), "reference"),
    (lambda: contrast(torch.zeros(3), torch.ones(3), math.nan), "reference"),
    (lambda: contrast(torch.zeros(3), torch.ones(3), math.inf), "reference"),
    (lambda: contrast(torch.zeros(0), torch.ones(3), 1.0), "true"),
    (lambda: contrast(torch.zeros(3), torch.tensor([1.0, math.inf]), 1.0), "mismatched"),
    (lambda: auroc(torch.zeros(3), torch.zeros(3, 1)), "mismatched"),
    (lambda: auroc(torch.tensor([math.nan]), torch.zeros(3)), "true"),
])  # fmt: skip
def test_bad_input_is_named(call, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        call()
