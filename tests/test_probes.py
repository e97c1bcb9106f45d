"""The probes against scikit-learn, planted factors, and noise that is really drawn."""

import math

import numpy as np
import pytest
import torch
from conftest import normal
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from jepa.measures.probes import Probe, ridge_probe

SCALES = torch.tensor([0.01, 0.3, 1.0, 20.0], dtype=torch.float64)


def planted(train=60, test=40, noise=0.5, seed=0):
    """Features of unlike scale with an offset, and three factors that are linear in them but for noise."""
    size = train + test
    s = normal(size, 4, seed=seed) * SCALES + 5
    t = (s / SCALES) @ normal(4, 3, seed=seed + 1) + noise * normal(size, 3, seed=seed + 2) - 2
    return s[:train], t[:train], s[train:], t[train:]


@pytest.mark.parametrize("penalty, precision", [(1e-6, 0.0), (0.3, 0.0), (1e-12, 0.5), (0.1, 0.5)])
def test_probe_is_the_ridge_regression_of_scikit_learn(penalty, precision):
    train_s, train_t, test_s, test_t = (matrix.numpy() for matrix in planted())
    # Features divided by the root of their own penalty share the one penalty that scikit-learn knows.
    unit = np.sqrt(precision**2 + penalty * (train_s.var(axis=0) + precision**2))
    ridge = Ridge(alpha=len(train_s)).fit(train_s / unit, train_t)
    noise = precision**2 * ((ridge.coef_ / unit) ** 2).sum(axis=1) / test_t.var(axis=0)
    expected = r2_score(test_t, ridge.predict(test_s / unit), multioutput="raw_values") - noise
    np.testing.assert_allclose(ridge_probe(*planted(), penalty=penalty, precision=precision), expected, atol=1e-9)


def test_precision_is_the_noise_of_the_reading():
    train_s, train_t, test_s, test_t = (matrix.numpy() for matrix in planted(train=100, test=100))
    precision, copies, random = 0.7, 2000, np.random.default_rng(0)

    def read(s):
        s = np.tile(s, (copies, 1))
        return s + precision * random.normal(size=s.shape)

    probe = LinearRegression().fit(read(train_s), np.tile(train_t, (copies, 1)))
    expected = r2_score(np.tile(test_t, (copies, 1)), probe.predict(read(test_s)), multioutput="raw_values")
    found = ridge_probe(*planted(train=100, test=100), penalty=1e-12, precision=precision)
    np.testing.assert_allclose(found, expected, atol=0.005)


def test_noise_is_not_read_and_overfitting_does_not_help():
    s, t = normal(4000, 20, seed=0), normal(4000, 2, seed=1)
    assert ridge_probe(s[:2000], t[:2000], s[2000:], t[2000:]).abs().max() < 0.03
    assert ridge_probe(s[:22], t[:22], s[2000:], t[2000:]).max() < -0.5


def test_standard_probe_is_blind_to_offset_and_unit_of_every_feature():
    train_s, train_t, test_s, test_t = planted()
    unit, offset = torch.tensor([1e-6, -3.0, 1e4, 7.0]), torch.tensor([0.0, 1.0, -1e4, 3.0])
    moved = ridge_probe(train_s * unit + offset, train_t, test_s * unit + offset, test_t)
    torch.testing.assert_close(moved, ridge_probe(*planted()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_and_repeated_features_change_nothing(value):
    train_s, train_t, test_s, test_t = planted()
    wide = [torch.cat([s, s[:, :2], torch.full((len(s), 1), value)], dim=1) for s in (train_s, test_s)]
    wide[1][0, -1] += 1  # a unit that was silent in training is not trusted in the test
    found = ridge_probe(wide[0], train_t, wide[1], test_t)
    torch.testing.assert_close(found, ridge_probe(*planted()), rtol=0, atol=1e-5)


def test_constant_representation_predicts_the_mean():
    _, train_t, _, test_t = planted(train=60, test=60)
    # Sixty times 0.1 has a mean that is not 0.1: its rounding error must not pass for a feature.
    found = ridge_probe(torch.full_like(train_t[:, :1], 0.1), train_t, torch.full_like(test_t[:, :1], 0.2), test_t)
    mean = train_t.mean(dim=0).expand_as(test_t)
    np.testing.assert_allclose(found, r2_score(test_t, mean, multioutput="raw_values"), atol=1e-12)


def test_constant_factor_has_no_score():
    s = normal(60, 4, seed=0)
    with pytest.raises(ValueError, match="^test_t: expected factors that vary, found a constant in column 0"):
        ridge_probe(s, normal(60, 1, seed=1), s, torch.full_like(s[:, :1], 0.1))


@pytest.mark.parametrize("change, argument", [
    ({"train_s": torch.zeros(60)}, "train_s"),
    ({"train_s": torch.zeros(60, 0)}, "train_s"),
    ({"train_t": torch.zeros(59, 3)}, "train_t"),
    ({"test_s": torch.zeros(40, 5)}, "test_s"),
    ({"test_t": normal(40, 2, seed=0)}, "test_t"),
    ({"test_t": torch.zeros(39, 3)}, "test_t"),
    ({"train_s": torch.full((60, 4), math.nan)}, "train_s"),
    ({"penalty": 0.0}, "penalty"),
    ({"precision": -0.1}, "precision"),
])  # fmt: skip
def test_bad_input_is_named(change, argument):
    arguments = dict(zip(["train_s", "train_t", "test_s", "test_t"], planted(), strict=True)) | change
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        ridge_probe(**arguments)


def curved(size=1500, seed=0):
    """Three features of unlike scale and factors: linear in them, the product of two of them, and noise."""
    s = normal(size, 3, seed=seed)
    t = torch.stack(
        [s @ torch.tensor([1.0, -2.0, 0.5]).double() + 3, s[:, 0] * s[:, 1], normal(size, seed=seed + 1)], 1
    )
    return s * SCALES[:3] + 5, t


def halves(s, t):
    """Return training and test samples."""
    return s[:1000], t[:1000], s[1000:], t[1000:]


def test_non_linear_probe_reads_what_a_linear_one_cannot():
    train_s, train_t, test_s, test_t = halves(*curved())
    probe = Probe(train_s, train_t, penalty=1e-4)
    linear, product, noise = probe.r2(test_s, test_t).tolist()
    assert linear > 0.999 and product > 0.9 and noise < 0.05
    linear, product, noise = ridge_probe(train_s, train_t, test_s, test_t).tolist()
    assert linear > 0.999 and product < 0.05 and noise < 0.05


def test_non_linear_probe_is_ridge_regression_on_its_layer():
    train_s, train_t, test_s, test_t = (matrix.numpy() for matrix in halves(*curved()))
    layer = torch.Generator().manual_seed(7)
    weights = torch.randn(3, 40, generator=layer, dtype=torch.float64).numpy() / math.sqrt(3)
    bias = torch.randn(40, generator=layer, dtype=torch.float64).numpy()

    def features(s):
        standard = (s - train_s.mean(axis=0)) / train_s.std(axis=0)
        return np.concatenate([standard, np.maximum(0, standard @ weights + bias)], axis=1)

    read = Ridge(alpha=0.3 * len(train_s)).fit(features(train_s), train_t).predict(features(test_s))
    probe = Probe(*halves(*curved())[:2], features=40, penalty=0.3, seed=7)
    np.testing.assert_allclose(probe(torch.tensor(test_s)), read, atol=1e-9)
    expected = r2_score(test_t, read, multioutput="raw_values")
    np.testing.assert_allclose(probe.r2(torch.tensor(test_s), torch.tensor(test_t)), expected, atol=1e-9)


def test_non_linear_probe_is_blind_to_offset_and_unit_of_every_feature():
    train_s, train_t, test_s, test_t = halves(*curved())
    unit, offset = torch.tensor([1e-5, 3.0, 1e4]), torch.tensor([0.0, 1.0, -1e4])
    plain = Probe(train_s, train_t).r2(test_s, test_t)
    moved = Probe(train_s * unit + offset, train_t).r2(test_s * unit + offset, test_t)
    torch.testing.assert_close(moved, plain, rtol=0, atol=1e-6)
    scaled = Probe(train_s, 50 * train_t - 9)(test_s)
    torch.testing.assert_close(scaled, 50 * Probe(train_s, train_t)(test_s) - 9, rtol=1e-9, atol=1e-6)


def test_feature_that_hardly_any_sample_wakes_is_not_blown_up():
    """Samples a little farther out than any seen in training; a factor that is noise is read as noise there too."""
    s, t = normal(3000, 8), normal(3000, 1, seed=1)
    probe, far = Probe(s, t), 1.5 * normal(1000, 8, seed=2)
    assert probe.r2(far, normal(1000, 1, seed=3)).item() > -0.5
    assert probe(far).abs().max() < 5


def test_same_seed_same_probe_whatever_else_is_drawn():
    train_s, train_t, test_s, _ = halves(*curved())
    before = torch.get_rng_state()
    first = Probe(train_s, train_t, seed=3)(test_s)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(Probe(train_s, train_t, seed=3)(test_s), first)
    assert not torch.equal(Probe(train_s, train_t, seed=4)(test_s), first)
    assert torch.equal(Probe(train_s, train_t)(test_s), Probe(train_s, train_t, seed=0)(test_s))


def test_probe_reads_sets_of_representations_in_their_precision():
    train_s, train_t, test_s, _ = halves(*curved())
    probe = Probe(train_s.float(), train_t.float(), features=16)
    sets = test_s[:24].float().view(2, 4, 3, 3)
    found = probe(sets)
    assert found.shape == (2, 4, 3, 3) and found.dtype == torch.float32
    one_by_one = torch.stack([probe(row) for row in sets.view(24, 3)]).view(2, 4, 3, 3)
    torch.testing.assert_close(found, one_by_one)
    assert probe(test_s).dtype == torch.float64
    narrow = Probe(train_s, train_t[:, :1])
    assert narrow(test_s[0]).shape == (1,) and narrow(test_s[:0]).shape == (0, 1)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_feature_is_no_obstacle_to_the_non_linear_probe(value):
    # A constant is 0 once it is centered: of its row in the layer nothing is left, whatever the row is.
    train_s, train_t, test_s, test_t = halves(*curved())
    wide = [torch.cat([s, torch.full((len(s), 1), value)], 1) for s in (train_s, test_s)]
    scores = Probe(wide[0], train_t, penalty=1e-4).r2(wide[1], test_t)
    assert scores[0] > 0.999 and scores[1] > 0.9
    silent = Probe(torch.full_like(train_s, value), train_t)
    mean = train_t.mean(dim=0).expand_as(test_t)
    torch.testing.assert_close(silent(torch.full_like(test_s, value)), mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("change, argument", [
    ({"s": torch.zeros(60)}, "s: expected a matrix"),
    ({"s": torch.full((60, 4), math.nan)}, "s: expected finite numbers"),
    ({"t": torch.zeros(59, 3)}, "t: expected 60 samples as in the representations, found 59"),
    ({"penalty": math.nan}, "penalty: expected a number above 0, found nan"),
])  # fmt: skip
def test_bad_input_of_the_non_linear_probe_is_named(change, argument):
    train_s, train_t, _, _ = planted()
    with pytest.raises(ValueError, match=f"^{argument}"):
        Probe(**({"s": train_s, "t": train_t} | change))


def test_bad_test_input_of_the_non_linear_probe_is_named():
    train_s, train_t, test_s, test_t = planted()
    probe = Probe(train_s, train_t, features=8)
    with pytest.raises(ValueError, match="^s: expected 4 columns as in training, found 5"):
        probe(torch.zeros(40, 5))
    with pytest.raises(ValueError, match="^s: expected 4 columns as in training, found 3"):
        probe.r2(test_s[:, :3], test_t)
    with pytest.raises(ValueError, match="^s: expected finite numbers"):
        probe.r2(test_s / 0, test_t)
    test_t[:, 1] = 0.1
    with pytest.raises(ValueError, match="^t: expected factors that vary, found a constant in column 1"):
        probe.r2(test_s, test_t)
