"""Predictors against one layer on everything side by side; rollouts against composition."""

import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from jepa.predictors import MLP, PREDICTORS, Additive, Identity, Recurrent, rollout

UNBOUND = [name for name, kind in PREDICTORS.items() if not isinstance(kind, str)]  # the others: test_maps.py

ALONE, SHARED, EACH = (1, 1), (5, 1), (5, 6)  # leading axes of a value for all problems, for one, and a candidate


def build(kind=MLP, inputs=3, outputs=3, action=2, latent=4, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"hidden": (8, 6)} | options if kind in (MLP, Additive) else options
        return kind(inputs, outputs, action, latent, **options).double()


def told(s=SHARED, a=SHARED, z=EACH, inputs=3, action=2, latent=4):
    """Return s, a and z with these leading axes."""
    return {"s": normal(*s, inputs), "a": normal(*a, action, seed=1), "z": normal(*z, latent, seed=2)}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.sampled_from([ALONE, SHARED, EACH]))
def test_split_first_layer_is_one_layer_on_everything(inputs, action, latent, axes):
    predictor, given = build(MLP, inputs, 3, action, latent), told(SHARED, SHARED, axes, inputs, action, latent)
    side_by_side = torch.cat([part.expand(5, axes[1], -1) for part in given.values()], -1)
    expected = predictor.rest(predictor.first(side_by_side))
    torch.testing.assert_close(predictor(**given), expected, rtol=1e-12, atol=1e-12)
    assert predictor(**given).shape == (5, axes[1], 3)


@pytest.mark.parametrize("name", UNBOUND)
@pytest.mark.parametrize("z", [ALONE, SHARED, EACH])
@pytest.mark.parametrize("a", [ALONE, SHARED, EACH])
@pytest.mark.parametrize("s", [ALONE, SHARED, EACH])
def test_what_all_share_may_be_said_once(name, s, a, z):
    widths = {"action": 0, "latent": 0} if name == "identity" else {}
    predictor, given = build(PREDICTORS[name], **widths), told(s, a, z, **widths)
    batch, candidates = (max(axes[axis] for axes in (s, a, z)) for axis in (0, 1))
    found = predictor(**given)
    assert found.shape == (batch, candidates, 3)
    for b in range(batch):
        for k in range(candidates):
            one = {key: part[b % len(part), k % part.shape[1]].view(1, 1, -1) for key, part in given.items()}
            torch.testing.assert_close(found[b, k], predictor(**one)[0, 0], rtol=1e-12, atol=1e-12)


def test_first_layer_reads_the_state_once_for_all_candidates(monkeypatch):
    sizes, linear = [], nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda x, *rest: sizes.append(x.shape) or linear(x, *rest))
    build()(**told(z=(5, 100)))
    assert sizes[0] == (5, 1, 5)


@pytest.mark.parametrize("hidden", [(8,), (8, 6), (5, 5, 5)])
def test_gain_brings_first_predictions_together(hidden):
    large, small = (build(hidden=hidden, gain=gain)(**told()) for gain in (1.0, 0.125))
    torch.testing.assert_close(small, large / 8, rtol=1e-12, atol=0)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize(("inputs", "outputs", "action", "axes"), [(3, 5, 0, EACH), (2, 1, 3, (1, 6))])
def test_additive_is_a_function_plus_a_dictionary_times_z(unit, inputs, outputs, action, axes):
    predictor, given = build(Additive, inputs, outputs, action, unit=unit), told(z=axes, inputs=inputs, action=action)
    atoms = predictor.atoms.detach().numpy()
    lengths = (atoms**2).sum(0) ** 0.5
    found = predictor(**given).detach()
    for b in range(5):
        mean = predictor.mean(torch.cat([given["s"][b, 0], given["a"][b, 0]])).detach().numpy()
        for k in range(6):
            code = given["z"][b % axes[0], k].numpy()
            effect = sum(code[i] * atoms[:, i] / (lengths[i] if unit else 1) for i in range(4))
            torch.testing.assert_close(found[b, k], torch.from_numpy(mean + effect), rtol=1e-10, atol=1e-12)


def test_atoms_of_a_dictionary_stay_of_unit_length_in_training():
    predictor = build(Additive)
    torch.testing.assert_close(predictor.dictionary.norm(dim=0), torch.ones(4).double())
    before, optimizer = predictor.dictionary.detach().clone(), torch.optim.SGD(predictor.parameters(), 0.5)
    (100 * predictor(**told())).sum().backward()  # it would gain from longer atoms
    optimizer.step()
    torch.testing.assert_close(predictor.dictionary.norm(dim=0), torch.ones(4).double())
    assert (predictor.dictionary - before).abs().max() > 0.01
    assert (build(Additive, unit=False).dictionary.norm(dim=0) - 1).abs().max() > 0.01


def path(batch=5, candidates=6, steps=4):
    """Return s, actions and latents of so many steps."""
    a, z = normal(batch, candidates, steps, 2, seed=1), normal(batch, candidates, steps, 4, seed=2)
    return normal(batch, candidates, 3), a, z


def test_rollout_is_the_composition_of_steps_for_each_candidate():
    predictor, (s, a, z) = build(), path()
    found = rollout(predictor, s, a, z)
    assert found.shape == (5, 6, 4, 3)
    for k in range(6):
        state = s[:, k : k + 1]
        for t in range(4):
            state = predictor(state, a[:, k : k + 1, t], z[:, k : k + 1, t])
            torch.testing.assert_close(found[:, k, t], state[:, 0], rtol=1e-12, atol=1e-12)
    half = rollout(predictor, found[:, :, 1], a[:, :, 2:], z[:, :, 2:])
    torch.testing.assert_close(half, found[:, :, 2:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", ["s", "a", "z", "sa", "az", "saz"])
def test_rollout_of_what_candidates_share_is_a_loop_over_candidates(shared):
    s, a, z = (part[:, :1] if name in shared else part for name, part in zip("saz", path(), strict=True))
    found = rollout(build(), s, a, z)
    for k in range(found.shape[1]):
        one = rollout(build(), *(part[:, k % part.shape[1], None] for part in (s, a, z)))
        torch.testing.assert_close(found[:, k], one[:, 0], rtol=1e-12, atol=1e-12)
    everyone = rollout(build(), s, a[:1], z[:1])  # the same actions in every problem
    torch.testing.assert_close(everyone, rollout(build(), s, *(part[:1].expand(5, -1, -1, -1) for part in (a, z))))


@pytest.mark.parametrize("limit", [1.0, 2.5])
@pytest.mark.parametrize("action, latent", [(2, 4), (2, 0), (0, 4)])
def test_recurrent_is_the_gated_unit_of_torch_over_all_steps(action, latent, limit):
    predictor, witness = build(Recurrent, 3, 3, action, latent, limit=limit), nn.GRU(action + latent, 3).double()
    cell = predictor.unit.state_dict().items()
    witness.load_state_dict({f"{name}_l0": value for name, value in cell})
    s, a, z = normal(5, 6, 3), normal(5, 6, 7, action, seed=1), normal(5, 6, 7, latent, seed=2)
    driven = torch.cat([a / limit, z], -1).flatten(0, 1).transpose(0, 1)
    expected = witness(driven, s.flatten(0, 1).unsqueeze(0))[0].transpose(0, 1).unflatten(0, (5, 6))
    torch.testing.assert_close(rollout(predictor, s, a, z), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind, widths", [(MLP, (2, 4)), (Additive, (2, 4)), (Identity, (0, 0)), (Recurrent, (2, 4))])
def test_rollout_of_one_step_is_the_step_to_the_bit(kind, widths):
    predictor, (s, a, z) = build(kind, 3, 3, *widths).float(), (part.float() for part in path(steps=1))
    a, z = a[..., : widths[0]], z[..., : widths[1]]
    assert torch.equal(rollout(predictor, s, a, z)[:, :, 0], predictor(s, a[:, :, 0], z[:, :, 0]))


def test_rollout_of_a_point_mass_adds_up_its_actions():
    s, a, _ = path(steps=7)
    found = rollout(lambda s, a, z: s + a, s[..., :2], a, a[..., :0])
    torch.testing.assert_close(found, s[..., None, :2] + a.cumsum(2))


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("late", [0, 2, 3])
def test_what_comes_later_cannot_change_what_was_predicted_before(which, late):
    given = path()
    before = rollout(build(), *given)
    given[which][:, :, late] += 1
    after = rollout(build(), *given)
    assert torch.equal(before[:, :, :late], after[:, :, :late])
    assert ((before - after)[:, :, late:].abs().amax((0, 1, 3)) > 1e-6).all()


@pytest.mark.parametrize(
    ("a", "z", "message"),
    [
        ((5, 6, 3, 2), (5, 6, 4, 4), r"z: expected .*same T .* a \[5, 6, 3, 2\] and z \[5, 6, 4, 4\]"),
        ((5, 6, 0, 2), (5, 6, 0, 4), r"a: expected .*T of at least 1"),
        ((5, 4, 2), (5, 6, 4, 4), r"a: expected \[B, K, T, width\].*, found \[5, 4, 2\]"),
        ((5, 6, 4, 2), (5, 6, 4), r"z: expected \[B, K, T, width\].*, found \[5, 6, 4\]"),
    ],
)
def test_paths_that_do_not_fit_are_named(a, z, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        rollout(build(), normal(5, 6, 3), normal(*a), normal(*z))


@pytest.mark.parametrize("kind", [MLP, Additive, Recurrent])
@pytest.mark.parametrize("name, width", [("s", 3), ("a", 2), ("z", 4)])
@pytest.mark.parametrize("wrong", [(5, 4), (5, 1, 5)])
def test_shape_that_does_not_fit_is_named(kind, name, width, wrong):
    with pytest.raises(ValueError, match=rf"^{name}: expected \[B, K, {width}\], found \[5, "):
        build(kind)(**told() | {name: normal(*wrong)})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MLP, {"hidden": []}, "hidden: expected at least one width of at least 1"),
        (MLP, {"hidden": [8, 0]}, "hidden: expected at least one width of at least 1"),
        (MLP, {"gain": 0.0}, "gain: expected a number above 0, found 0.0"),
        (MLP, {"gain": -1.0}, "gain: expected a number above 0, found -1.0"),
        (Additive, {"hidden": [8, 0]}, "widths: expected at least 1 everywhere"),
        (Additive, {"latent": 0}, "latent: expected a width of at least 1, found 0"),
        (Recurrent, {"outputs": 2}, "predictor: expected inputs = outputs, something that drives it .*found 3, 2"),
        (Recurrent, {"action": 0, "latent": 0}, r"predictor: expected .*found 3, 3, 0 \+ 0"),
        (Recurrent, {"limit": 0.0}, "predictor: expected .* a limit above 0, found .* 0.0"),
        (Identity, {"outputs": 2, "action": 0, "latent": 0}, "predictor: an identity expects .* found inputs 3"),
        (Identity, {"latent": 0}, "predictor: an identity expects"),
        (Identity, {"action": 0}, "predictor: an identity expects"),
    ],
)
def test_predictor_that_cannot_be_is_named(kind, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build(kind, **options)
