"""Predictors against one layer on everything side by side; rollouts against composition."""

import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jepa.predictors import MLP, Additive, Identity, rollout


def build(inputs=3, outputs=3, action=2, latent=4, hidden=(8, 6)):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MLP(inputs, outputs, action, latent, hidden).double()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4), st.booleans())
def test_split_first_layer_is_one_layer_on_everything(inputs, action, latent, candidates, shared):
    predictor = build(inputs, 3, action, latent)
    s, a = normal(5, inputs), normal(5, action, seed=1)
    z = normal(1 if shared else 5, candidates, latent, seed=2)
    side_by_side = torch.cat([torch.cat([s, a], -1).unsqueeze(1).expand(-1, candidates, -1), z.expand(5, -1, -1)], -1)
    expected = predictor.rest(predictor.first(side_by_side))
    torch.testing.assert_close(predictor(s, a, z), expected, rtol=1e-12, atol=1e-12)
    assert predictor(s, a, z).shape == (5, candidates, 3)


@pytest.mark.parametrize("moved", ["s", "a", "z"])
def test_prediction_hangs_on_everything_it_is_told(moved):
    told = {"s": normal(5, 3), "a": normal(5, 2, seed=1), "z": normal(5, 2, 4, seed=2)}
    before, after = build()(**told), build()(**told | {moved: told[moved].flip(0)})
    assert (before - after).abs().amin(-1)[[0, 1, 3, 4]].min() > 1e-6
    torch.testing.assert_close(before[2], after[2])


def test_first_layer_reads_the_state_once_for_all_candidates(monkeypatch):
    sizes, linear = [], nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda x, *rest: sizes.append(x.shape) or linear(x, *rest))
    build()(normal(5, 3), normal(5, 2), normal(5, 100, 4))
    assert sizes[0] == (5, 5)


@pytest.mark.parametrize("hidden", [(8,), (8, 6), (5, 5, 5)])
def test_gain_brings_first_predictions_together(hidden):
    with torch.random.fork_rng(devices=[]):
        told = {"s": normal(5, 3), "a": normal(5, 2, seed=1), "z": normal(5, 2, 4, seed=2)}
        found = []
        for gain in (1.0, 0.125):
            torch.manual_seed(0)
            found.append(MLP(3, 3, 2, 4, hidden, gain).double()(**told))
    torch.testing.assert_close(found[1], found[0] / 8, rtol=1e-12, atol=0)
    for gain in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"^gain: expected a number above 0, found {gain}$"):
            MLP(3, 3, gain=gain)


def test_rollout_is_the_composition_of_steps():
    predictor, s, actions, latents = build(), normal(5, 3), normal(5, 4, 2, seed=1), normal(5, 4, 4, seed=2)
    found = rollout(predictor, s, actions, latents)
    for t in range(4):
        s = predictor(s, actions[:, t], latents[:, t : t + 1])[:, 0]
        torch.testing.assert_close(found[:, t], s, rtol=1e-12, atol=1e-12)
    half = rollout(predictor, found[:, 1], actions[:, 2:], latents[:, 2:])
    torch.testing.assert_close(half, found[:, 2:], rtol=1e-12, atol=1e-12)


def test_rollout_of_a_point_mass_adds_up_its_actions():
    s, actions = normal(5, 2), normal(5, 7, 2, seed=1)
    found = rollout(lambda s, a, z: (s + a).unsqueeze(1), s, actions, torch.zeros(5, 7, 0))
    torch.testing.assert_close(found, s.unsqueeze(1) + actions.cumsum(1))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("late", [0, 2, 3])
def test_what_comes_later_cannot_change_what_was_predicted_before(which, late):
    inputs = [normal(5, 4, 2, seed=1), normal(5, 4, 4, seed=2)]
    before = rollout(build(), normal(5, 3), *inputs)
    inputs[which][:, late] += 1
    after = rollout(build(), normal(5, 3), *inputs)
    assert torch.equal(before[:, :late], after[:, :late])
    assert ((before - after)[:, late:].abs().amax((0, 2)) > 1e-6).all()


def test_identity_predicts_what_it_is_given():
    s = normal(5, 3)
    found = Identity(3, 3)(s, s[:, :0], torch.zeros(1, 2, 0))
    assert torch.equal(found, torch.stack([s, s], 1))


@pytest.mark.parametrize("wrong", [{"outputs": 2}, {"action": 1}, {"latent": 1}])
def test_identity_refuses_what_it_would_ignore(wrong):
    with pytest.raises(ValueError, match="^predictor: an identity expects .* found inputs 3"):
        Identity(**{"inputs": 3, "outputs": 3} | wrong)


@pytest.mark.parametrize("wrong", ["s", "a", "z"])
def test_width_that_does_not_fit_is_named(wrong):
    told = {"s": normal(5, 3), "a": normal(5, 2), "z": normal(5, 1, 4)}
    with pytest.raises(ValueError, match=f"^{wrong}: expected {told[wrong].shape[-1]} features"):
        build()(**told | {wrong: torch.cat([told[wrong]] * 2, -1)})


@pytest.mark.parametrize("hidden", [[], [8, 0]])
def test_hidden_widths_are_checked(hidden):
    with pytest.raises(ValueError, match="^hidden: expected at least one width of at least 1"):
        build(hidden=hidden)


@pytest.mark.parametrize("shape", [(5, 3, 4), (4, 4, 4)])
def test_latents_for_other_steps_or_another_batch_are_refused(shape):
    with pytest.raises(ValueError, match=r"^latents: expected batch and steps \[5, 4\]"):
        rollout(build(), normal(5, 3), normal(5, 4, 2), normal(*shape))


def additive(inputs=3, outputs=3, action=2, latent=4, hidden=(8, 6), unit=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Additive(inputs, outputs, action, latent, hidden, unit).double()


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize(("inputs", "outputs", "action", "shared"), [(3, 5, 0, False), (2, 1, 3, True)])
def test_additive_is_a_function_plus_a_dictionary_times_z(unit, inputs, outputs, action, shared):
    predictor = additive(inputs, outputs, action, 4, unit=unit)
    s, a, z = normal(5, inputs), normal(5, action, seed=1), normal(1 if shared else 5, 6, 4, seed=2)
    columns = predictor.atoms.detach().numpy()
    lengths = (columns**2).sum(0) ** 0.5
    found = predictor(s, a, z).detach()
    assert found.shape == (5, 6, outputs)
    for b in range(5):
        known = predictor.known(torch.cat([s[b], a[b]])).detach().numpy()
        for k in range(6):
            code = z[0 if shared else b, k].numpy()
            effect = sum(code[i] * columns[:, i] / (lengths[i] if unit else 1) for i in range(4))
            torch.testing.assert_close(found[b, k], torch.from_numpy(known + effect), rtol=1e-10, atol=1e-12)


def test_columns_of_a_dictionary_stay_of_unit_length_in_training():
    predictor, told = additive(), {"s": normal(5, 3), "a": normal(5, 2), "z": normal(5, 2, 4)}
    torch.testing.assert_close(predictor.dictionary.norm(dim=0), torch.ones(4).double())
    before, optimizer = predictor.dictionary.detach().clone(), torch.optim.SGD(predictor.parameters(), 0.5)
    (100 * predictor(**told)).sum().backward()  # it would gain from longer columns
    optimizer.step()
    torch.testing.assert_close(predictor.dictionary.norm(dim=0), torch.ones(4).double())
    assert (predictor.dictionary - before).abs().max() > 0.01
    assert (additive(unit=False).dictionary.norm(dim=0) - 1).abs().max() > 0.01


@pytest.mark.parametrize("wrong", ["s", "a", "z"])
def test_width_that_does_not_fit_a_dictionary_is_named(wrong):
    told = {"s": normal(5, 3), "a": normal(5, 2), "z": normal(5, 1, 4)}
    with pytest.raises(ValueError, match=f"^{wrong}: expected {told[wrong].shape[-1]} features"):
        additive()(**told | {wrong: torch.cat([told[wrong]] * 2, -1)})


@pytest.mark.parametrize(("wrong", "message"), [
    ({"latent": 0}, "latent: expected a width of at least 1, found 0"),
    ({"hidden": (8, 0)}, "widths: expected at least 1 everywhere"),
])  # fmt: skip
def test_widths_of_a_dictionary_are_checked(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        additive(**wrong)
