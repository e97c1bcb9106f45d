"""What latents do, on models whose codes are the futures, and on real ones where a formula says what must be found."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import Formula, Told, asked, brute_mismatched, codebook, every, generator, of_path, told, values
from scipy import stats
from torch import nn

from jepa.data import HeldOut
from jepa.encoded import Encoded
from jepa.evaluate import latents
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete
from jepa.model import JEPA
from jepa.runs import build
from jepa.runs.config import configure

EVEN, UNEVEN = Told(), Told(turns=(-1, 0, 1), odds=(1, 2, 5))


def identity(count):
    """Return weights with which code k predicts future k."""
    return torch.eye(count).tolist()


def entropy(labels):
    """Return the entropy in bits of how often labels occur."""
    return float(stats.entropy(np.unique(np.asarray(labels), return_counts=True)[1], base=2))


@pytest.mark.parametrize("world", [EVEN, UNEVEN], ids=("two", "three"))
@pytest.mark.parametrize("flip", [False, True])
def test_codes_that_are_the_futures_meet_all_and_name_the_right_one(world, flip):
    rows = identity(world.branches)[:: -1 if flip else 1]
    subject = told(codebook(world, *rows), of_path(world), world.branches, world)
    found = values(latents.modes(subject))
    assert found["mode_recall"] == found["right_mode_lowest"] == 1
    assert found["bits_of_future"] == pytest.approx(entropy(subject.held_out.factors["branch"][:, 0]))
    assert found["energy_over_barrier"] == pytest.approx(0, abs=1e-6)
    assert {row.metric: row.count for row in latents.modes(subject)}["mode_recall"] == 300 * world.branches


def test_one_prediction_meets_one_future_and_names_none():
    subject = told(codebook(EVEN, (1.0, 0.0)), of_path(EVEN), 1)
    found = values(latents.modes(subject))
    first = float((subject.held_out.factors["branch"] == 0).double().mean())
    assert found["mode_recall"] == pytest.approx(0.5, abs=0.1) and found["right_mode_lowest"] == pytest.approx(first)
    assert found["bits_of_future"] == pytest.approx(0, abs=1e-9)
    assert "energy_over_barrier" not in found  # all modes have one prediction


def test_free_latent_meets_all_futures_and_cannot_be_told_from_none():
    """A latent as wide as s_y says any of it: energies are low for the wrong targets too."""
    free = LowDimensional(4, starts=8, steps=4)
    subject = told(lambda s, z: z.expand(len(s), -1, -1), of_path(EVEN), free)
    found = values(latents.modes(subject))
    assert found["mode_recall"] == 1 and found["recall_uncollapsed"] == 0


def test_recall_counts_from_a_contrast_of_a_half_on(monkeypatch):
    subject = told(codebook(EVEN, *identity(2)), of_path(EVEN))
    wrong = brute_mismatched(subject)
    gaps = (every(EVEN, subject.held_out.x)[wrong] - subject.held_out.y.roll(-1, 0)[wrong, None, :4]).square().sum(2)
    height = float(gaps.amin(1).median())  # true pairs have none
    for share, recall in ((0.45, 0.0), (0.55, 1.0)):
        monkeypatch.setitem(vars(subject), "mean_squared_distance", height / share)
        assert values(latents.modes(subject))["recall_uncollapsed"] == recall


def test_barrier_is_a_quarter_of_the_squared_distance_of_the_modes():
    """Both codes miss by a constant, so that F is its square everywhere."""
    off, predict = 0.5, codebook(EVEN, *identity(2))
    subject = told(lambda s, z: predict(s, z) + off / 2, of_path(EVEN))
    ways = every(EVEN, subject.held_out.x)
    barrier = float((ways[:, 0] - ways[:, 1]).square().sum(1).mean()) / 4
    assert values(latents.modes(subject))["energy_over_barrier"] == pytest.approx(off**2 / barrier, rel=1e-3)


def test_modes_are_asked_of_a_told_predictor_with_what_it_is_told():
    class Acting(nn.Module):
        """A predictor whose codes swap where it is told that the car is to the left."""

        def forward(self, s, a, z):
            z = z.expand(len(s), -1, -1)
            return codebook(EVEN, *identity(2))(s[:, 0], torch.where(a > 0, z, z.flip(-1)))

    model = JEPA(Formula(lambda x: x), of_path(EVEN), Acting(), Discrete(2))
    found = values(latents.modes(asked(EVEN, model, condition_on=["lane"])))
    assert found["mode_recall"] == found["right_mode_lowest"] == 1


@pytest.mark.parametrize(("size", "copied"), [(2, 0.0), (3, 0.5), (5, 0.9), (4, 1.0)])
def test_information_is_that_between_two_labels(size, copied):
    a, other = torch.randint(size, (2, 5000), generator=generator(size))
    b = torch.where(torch.rand(5000, generator=generator(1)) < copied, (a + 1) % size, other)
    joint = stats.contingency.crosstab(a.numpy(), b.numpy()).count / 5000
    independent = np.outer(joint.sum(1), joint.sum(0))
    expected = float(stats.entropy(joint.ravel(), independent.ravel(), base=2))
    assert latents.information(a, b, size) == pytest.approx(expected, abs=1e-12)
    assert latents.information(b, a, size) == pytest.approx(expected, abs=1e-12)
    if copied == 1:
        assert expected == pytest.approx(entropy(a))


def test_values_that_each_future_takes_are_counted():
    """Code 2 m + i predicts branch m, i = 1 where the lane is right: each future takes two values, in known shares."""

    def split(s, z):
        side = (s[:, 2] > 0).long()
        near = torch.stack([side == 0, side == 1], 1)[:, None, :, None]  # [B, 1, 2, 1]
        ways = torch.where(near, every(UNEVEN, s).unsqueeze(2), 1e3).flatten(1, 2)  # [B, 6, D]
        return z.expand(len(s), -1, -1) @ ways

    subject = told(split, of_path(UNEVEN), 6, UNEVEN)
    branch, right = subject.held_out.factors["branch"][:, 0], subject.held_out.factors["lane"][:, 0] > 0
    shares = [float((right[branch == m] == side).double().mean()) for m in range(3) for side in (False, True)]
    ((_, found, _),) = latents.entries(subject)
    assert found == pytest.approx(float(np.exp(stats.entropy(shares))) / 3)


REAL = {
    "encoder": {"name": "mlp", "outputs": 5, "hidden": [8]},
    "target_encoder": {"name": "mlp", "outputs": 6, "hidden": [8]},
    "predictor": {"hidden": [7]},
}
FREE = {"name": "low_dimensional", "size": 3, "starts": 8, "steps": 4}


def real(latent, count=200, **diff):
    """Return a subject of a configured model of the plane with weights as they are drawn."""
    config = configure(REAL, {"latent": latent}, diff)
    of = build.parts(config, 0)
    pairs = of.world.sample(count, generator(1))
    return build.subject(config, 2, of, HeldOut(pairs.x, pairs.y, pairs.factors), 3.0)


CODES = {"name": "discrete", "size": 4}


@pytest.mark.parametrize("latent", ["none", CODES, FREE], ids=("none", "codes", "free"))
def test_fit_is_the_distance_at_the_best_latent_without_its_regularizer(latent):
    subject = real({**latent, "alpha": 0.1} if latent is FREE else latent)
    model, s = subject.model, subject.s
    found = model.minimum(s.s_x, subject.a, s.s_y)
    with torch.no_grad():
        prediction = model.step(s.s_x.unsqueeze(1), subject.a.unsqueeze(1), found.argmin.unsqueeze(1))[:, 0]
    rows = values(latents.latents(subject))
    assert rows["fit"] == pytest.approx(float((prediction - s.s_y).square().sum(1).median()) / 3, rel=1e-4)
    assert ("latent_rank" in rows) == (latent != "none") and ("bits_spent" in rows) == (latent is not FREE)
    if latent is CODES:
        assert rows["bits_spent"] == pytest.approx(entropy(found.argmin.argmax(1)))
    if latent == "none":
        assert rows["bits_spent"] == 0 and rows["inference_cost"] == 1
    if latent is FREE:
        assert 1 < rows["latent_rank"] <= 3


@pytest.mark.parametrize("size", [1, 4, 9])
def test_trying_all_codes_costs_what_the_layers_cost(size):
    """The share of s_x in the first layer is computed once, that of z once for all pairs, the rest for each code."""
    once, own, rest = 2 * 5 * 7, 2 * size * 7 / 64, 2 * 7 * 6  # for 64 pairs, multiply and add counted as two
    prediction = once + own + rest
    found = values(latents.latents(real({"name": "discrete", "size": size})))["inference_cost"]
    assert found == pytest.approx((once + size * (own + rest)) / prediction)


@pytest.mark.parametrize("diff", [{}, {"condition_on": ["mode"]}, {"latent.size": 1}, {"latent.size": 5}], ids=str)
def test_wells_are_parabolas_and_their_ridge_is_half_way(diff):
    found = values(latents.wells(real({"name": "discrete", "size": 2}, **diff)))
    assert all(abs(value) < 1e-9 for value in found.values())
    assert ("midpoint_gap" in found) == ("latent.size" not in diff)


def test_wells_of_codes_whose_rate_has_a_weight_begin_at_their_lengths():
    latent = {"name": "finite_scalar", "levels": [2], "rate_weight": 0.5}
    subject = real(latent)
    subject.model.latent.counts.copy_(torch.tensor([3.0, 1.0]))
    assert all(abs(value) < 1e-9 for value in values(latents.wells(subject)).values())


def test_inference_that_misses_the_lowest_well_shows(monkeypatch):
    subject = real({"name": "discrete", "size": 2})
    minimize = Discrete.minimize

    def lame(self, D):
        """Return the second code, whatever it costs."""
        return minimize(self, D)._replace(value=D(self.codes[None])[:, 1])

    monkeypatch.setattr(Discrete, "minimize", lame)
    assert values(latents.wells(subject))["parabola_gap"] > 1e-3


@pytest.mark.parametrize("ask", [latents.entries, latents.wells])
def test_codes_are_asked_of_a_latent_that_has_some(ask):
    with pytest.raises(ValueError, match="^measure: expected a latent with codes for '(entries|wells)', found LowDim"):
        ask(real(FREE))


def test_measuring_leaves_the_model_as_it_is():
    subject = real(CODES)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    latents.wells(subject), latents.latents(subject)
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())
    assert {value.dtype for value in subject.model.parameters()} == {torch.float32} and math.isfinite(subject.reference)


def test_probe_of_paths_learns_once_for_all_that_is_behind_the_same_encoders():
    of = told(codebook(EVEN, *identity(2)), of_path(EVEN), 2, EVEN)
    pairs = of.probe_pairs._replace(x=of.s_probe.s_x, y=of.s_probe.s_y)
    pairs = Encoded(pairs, pairs, of.s, of.alternatives, torch.empty(0))
    first, second = (dataclasses.replace(of, encoded=pairs) for _ in range(2))
    assert first.path_probe is second.path_probe and first.path_probe is not of.path_probe
    torch.testing.assert_close(first.path_probe(of.s.s_y), of.path_probe(of.s.s_y), rtol=0, atol=0)
    finer = dataclasses.replace(first, probe=64)
    assert finer.path_probe is not first.path_probe


def test_constant_representation_has_collapsed_and_is_measured_all_the_same():
    point = Formula(lambda y: torch.ones(len(y), 4))
    subject = told(lambda s, z: s.new_zeros(len(s), z.shape[1], 4), point)
    assert values(latents.modes(subject))["recall_uncollapsed"] == 0
