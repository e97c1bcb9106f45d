"""Whether an energy tells true pairs from others, and what it sees, on models that are told the true state."""

from __future__ import annotations

import pytest
import torch
from conftest import REFERENCE, Formula, Told, asked, brute_mismatched, codebook, of_path, of_trees, told, values
from torch import nn

from jepa.data import HeldOut
from jepa.evaluate import futures
from jepa.latents.finite import NoLatent
from jepa.measures.collapse import auroc, contrast, effective_rank
from jepa.model import JEPA

EVEN = Told()


@pytest.mark.parametrize("model", ["oracle", "mean"])
def test_contrast_is_that_of_pairs_that_cannot_be(model):
    rows = {"oracle": ((1, 0), (0, 1)), "mean": ((0.5, 0.5), (0.5, 0.5))}[model]
    subject = told(codebook(EVEN, *rows), of_path(EVEN), count=200)
    x, y = subject.held_out.x, subject.held_out.y
    wrong = brute_mismatched(subject)
    true = subject.model.infer(x, y).value
    mismatched = subject.model.infer(x[wrong], y.roll(-1, 0)[wrong]).value
    found = values(futures.collapse(subject))
    assert 0 < (~wrong).sum() < 60
    assert found["contrast"] == pytest.approx(contrast(true, mismatched, REFERENCE))
    spread = float(torch.cdist(y[:, :4], y[:, :4]).square().sum()) / (200 * 199)
    assert found["relative_contrast"] == pytest.approx(contrast(true, mismatched, 1) / spread, rel=1e-4)
    assert found["auroc"] == pytest.approx(auroc(true, mismatched))
    assert found["true_energy"] == pytest.approx(float(true.median()) / REFERENCE, abs=1e-6)
    assert found["effective_rank"] == pytest.approx(effective_rank(y[:, :4]), rel=1e-5) and found["parameters"] == 0
    assert found["oracle_auroc"] >= 0.99 and (found["auroc"] == 1) == (model == "oracle")


def test_mismatch_that_differs_in_the_branch_only_is_plausible():
    subject = told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN), count=100)
    factors = {name: factor.repeat_interleave(2, 0) for name, factor in subject.held_out.factors.items()}
    factors["branch"][1::2] = 1 - factors["branch"][::2]
    pairs = EVEN.render(factors)
    subject = asked(EVEN, subject.model, HeldOut(pairs.x, pairs.y, factors))
    assert not brute_mismatched(subject)[::2].any()
    found = values(futures.collapse(subject))
    assert found["auroc"] == found["oracle_auroc"] == 1 and found["contrast"] > 0


def test_constant_model_has_collapsed():
    point = Formula(lambda y: torch.ones(len(y), 2))
    found = values(futures.collapse(told(lambda s, z: s.new_zeros(len(s), z.shape[1], 2), point)))
    assert (found["contrast"], found["auroc"], found["effective_rank"]) == (0, 0.5, 0)
    assert found["oracle_auroc"] >= 0.99 and found["true_energy"] == pytest.approx(2 / REFERENCE)


def test_model_that_sees_the_car_only_is_invariant():
    rows = futures.invariance(told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN)))
    found = values(rows)
    assert found["invariance_rate"] == 1 and rows[0].count == 300
    assert found["retextured_energy"] == pytest.approx(0, abs=1e-9)
    assert found["moved_energy"] == pytest.approx(2 / REFERENCE, rel=1e-3)  # a unit in each of the two frames


def test_model_that_sees_the_trees_only_is_not():
    found = values(futures.invariance(told(lambda s, z: s.new_zeros(len(s), z.shape[1], 16), of_trees(EVEN))))
    assert found["invariance_rate"] == found["moved_energy"] == 0 and found["retextured_energy"] > 0.01


def test_new_noise_comes_with_the_new_trees():
    predict = codebook(EVEN, (1, 0), (0, 1))
    for seen, rate in ((lambda grain: 10 * (grain != 0), 1.0), (lambda grain: 30 * grain, 0.5)):
        encoder = Formula(lambda y, seen=seen: torch.cat([y[:, :4], seen(y[:, -1:])], 1))
        last = 10 if rate == 1 else 0  # that there is noise is expected, how much of it is not
        subject = told(lambda s, z, last=last: nn.functional.pad(predict(s, z), (0, 1), value=last), encoder)
        found = values(futures.invariance(subject))["invariance_rate"]
        assert found == rate if rate == 1 else found < rate


def test_car_that_may_be_moved_for_the_better_is_not_seen():
    aside = codebook(EVEN, (1, 0), (0, 1))
    found = values(futures.invariance(told(lambda s, z: aside(s, z) + 100, of_path(EVEN))))
    assert found["invariance_rate"] == pytest.approx(0.5, abs=0.1)
    point = Formula(lambda y: torch.ones(len(y), 2))
    still = told(lambda s, z: s.new_zeros(len(s), z.shape[1], 2), point)
    assert values(futures.invariance(still))["invariance_rate"] == 0


def constant(subject):
    """Return the mean of s_y over the held-out clips."""
    return subject.held_out.y[:, :4].mean(0)


def test_constant_prediction_has_the_error_one_and_its_energies_are_a_half():
    subject = told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN))
    mean = constant(subject)
    blind = told(lambda s, z: mean.expand(len(s), 1, -1), of_path(EVEN), 0)
    found = values(futures.collapse(blind))
    assert found["normalized_error"] == pytest.approx(1, abs=1 / 200)
    y, wrong = subject.held_out.y[:, :4], brute_mismatched(subject)
    distances = torch.cdist(y.double(), y.double()).square().sum() / (300 * 299)
    gaps = (y.roll(-1, 0)[wrong] - mean).square().sum(1).median()
    assert found["mismatched_energy_ratio"] == pytest.approx(float(gaps / distances), rel=1e-5)


def test_error_and_ratio_do_not_depend_on_the_scale():
    found = [
        values(futures.collapse(told(lambda s, z, c=c: c * codebook(EVEN, (1, 0))(s, z), scaled, 1)))
        for c, scaled in ((1, of_path(EVEN)), (0.01, Formula(lambda y: 0.01 * y[:, :4])))
    ]
    for name in ("normalized_error", "mismatched_energy_ratio", "auroc"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-3)
    assert found[1]["contrast"] == pytest.approx(1e-4 * found[0]["contrast"], rel=1e-3)


class Acting(nn.Module):
    """A predictor that is told which branch is taken."""

    def forward(self, s, a, z):
        """Return the future on that branch."""
        return codebook(EVEN, (1, 0), (0, 1))(s[:, 0], nn.functional.one_hot(a[..., 0].long(), 2).float())


def test_told_predictor_is_asked_with_the_action_of_the_target():
    subject = asked(EVEN, JEPA(Formula(lambda x: x), of_path(EVEN), Acting(), NoLatent()), condition_on=["branch"])
    found, branch = values(futures.collapse(subject)), subject.held_out.factors["branch"][:, 0]
    assert found["true_energy"] == found["normalized_error"] == 0 and found["auroc"] == 1
    y, wrong = subject.held_out.y[:, :4], brute_mismatched(subject)
    ways = EVEN.futures(subject.held_out.factors).flatten(2)
    after = [float((ways[n, branch[(n + 1) % 300]] - y[(n + 1) % 300]).square().sum()) for n in range(300) if wrong[n]]
    assert found["contrast"] == pytest.approx(float(torch.tensor(after).median()) / REFERENCE, rel=0.02)
