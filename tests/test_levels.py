"""Levels trained one by one or together, by formulas and loops; what they pool, predict and are watched by."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from conftest import generator, normal, same
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hierarchy import clips, enough, objective_of, stacked
from test_trajectories import batch as of_five
from test_trajectories import made
from torch import nn

from jepa.batches import Trajectories, transitions
from jepa.encoders import MLP as Encoder
from jepa.hierarchy import HJEPA, Window
from jepa.latents.finite import NoLatent
from jepa.maps import MapReader
from jepa.model import JEPA
from jepa.monitor import CollapseWarning
from jepa.objectives.heads import Expander
from jepa.objectives.levels import LevelsObjective
from jepa.objectives.pairs import Weights
from jepa.objectives.trajectories import InverseDynamics, MovingTarget, Terms, TrajectoryObjective
from jepa.pooling import POOLINGS, Pooled
from jepa.predictors import MLP, Shifted, rollout
from jepa.train import Train, fit
from jepa.trajectory_monitor import SPREAD, LevelsMonitor, TrajectoryMonitor, signs

STACK = [(2, 1), (2, 2), (2, 1)]
FRAMES = enough(STACK, 4)
LOSSES = [  # of each level, and its terms
    (Weights(energy=2.0, energy_start=0.3, variance=3.0, covariance=0.5), Terms(0.1, horizon=1)),
    (Weights(variance=1.0), Terms(inverse=0.3, horizon=2, centered=True)),
    (Weights(energy=0.5, covariance=2.0), Terms(targets="stopped")),
]


def whole(count=3, training=True) -> HJEPA:
    """Return a hierarchy with actions, its lowest levels."""
    return stacked(STACK[:count], action=1, hidden=(5,)).train(training)


def told(hierarchy) -> list[TrajectoryObjective]:
    """Return the objective of each level."""
    levels = zip(hierarchy.levels, LOSSES, strict=False)
    return [objective_of(level, *loss, action=level.predictor.action).double() for level, loss in levels]


def by_level(hierarchy, batch, progress):
    """Return the loss of each level by its own objective, of windows of codes that are data."""
    found = []
    for number, (level, objective) in enumerate(zip(hierarchy.levels, told(hierarchy), strict=True), 1):
        found.append(objective(level, hierarchy.trajectories(batch, number), progress))
    return found


def slopes(total, module) -> list[torch.Tensor | None]:
    """Return the gradient of a scalar of all weights of a module that are trained, None where it has none."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    return list(torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True))


def equal(ours, theirs) -> bool:
    """Return whether gradients are the same to the bit, and there are any."""
    pairs = list(zip(ours, theirs, strict=True))
    return all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs) and any(
        a is not None and bool(a.any()) for a, _ in pairs
    )


# -- one by one, and together ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=3, max_size=3).filter(any), st.floats(0, 1))
def test_total_is_the_weighted_sum_of_what_each_level_says_alone(weights, progress):
    hierarchy, batch = whole(), clips(5, FRAMES, 1)
    objective = LevelsObjective(told(hierarchy), weights)
    total, terms = objective(hierarchy, batch, progress)
    alone = by_level(hierarchy, batch, progress)
    by_hand = sum(weight * loss.total for weight, loss in zip(weights, alone, strict=True))
    torch.testing.assert_close(total, by_hand, rtol=1e-12, atol=1e-12)
    assert (*terms,) == objective.terms and terms["total"] is total
    for number, (weight, loss) in enumerate(zip(weights, alone, strict=True), 1):
        for name, value in loss.terms.items():
            expected = value if weight else torch.zeros_like(value)
            torch.testing.assert_close(terms[f"{name}_{number}"], expected, rtol=1e-12, atol=1e-12)
    assert min(float(loss.terms["energy"].detach()) for loss in alone) > 1e-3


def test_weights_are_one_where_none_are_given():
    hierarchy, batch = whole(), clips(5, FRAMES, 1)
    found = [LevelsObjective(told(hierarchy), *w)(hierarchy, batch, 1.0).total for w in ((), ([1, 1, 1],))]
    assert torch.equal(*found)


def test_a_level_is_encoded_once_and_only_where_it_is_needed():
    for weights, expected in (((1, 1, 1), [1, 2, 3]), ((0, 1, 0), [1, 2]), ((1, 0, 0), [1]), ((0, 0, 1), [1, 2, 3])):
        hierarchy, calls = whole(), []
        for number, level in enumerate(hierarchy.levels, 1):
            level.encoder.register_forward_hook(lambda *_, number=number, calls=calls: calls.append(number))
        LevelsObjective(told(hierarchy), weights)(hierarchy, clips(5, FRAMES, 1), 0.0)
        assert calls == expected


@pytest.mark.parametrize("frames", [FRAMES, 3])
def test_a_level_without_those_above_it_is_trained_as_if_it_were_alone_to_the_bit(frames):
    hierarchy, batch = whole(2), clips(5, frames, 1)  # of 3 frames there is no step of level 2
    total = LevelsObjective(told(hierarchy), (1, 0))(hierarchy, batch, 0.5).total
    lowest = hierarchy.bottom(1)
    alone = LevelsObjective(told(lowest))(lowest, batch, 0.5).total
    plain = told(lowest)[0](hierarchy.levels[0], hierarchy.trajectories(batch, 1), 0.5).total
    assert torch.equal(total, alone) and torch.equal(total, plain)
    assert equal(found := slopes(total, hierarchy.levels[0]), slopes(alone, hierarchy.levels[0]))
    assert equal(found, slopes(plain, hierarchy.levels[0])) and set(slopes(total, hierarchy.levels[1])) == {None}


def above(hierarchy, batch) -> Trajectories:
    """Return what is known of clips where the lowest level is frozen: its codes, and the actions of its steps."""
    s = hierarchy.encode(batch.frames)[0].detach()
    return Trajectories(s, hierarchy.actions(batch.a, 1), batch.static, {})


def test_a_level_above_frozen_ones_is_trained_as_on_their_codes_to_the_bit():
    hierarchy, batch = whole(2), clips(5, FRAMES, 1)
    hierarchy.levels[0].requires_grad_(False)
    objective = told(hierarchy)
    together = LevelsObjective(objective, (0, 1))(hierarchy, batch, 0.5)
    one_by_one = LevelsObjective(objective[1:], below=1)(hierarchy, above(hierarchy, batch), 0.5)
    assert torch.equal(together.total, one_by_one.total)
    assert equal(*(slopes(loss.total, hierarchy.levels[1]) for loss in (together, one_by_one)))
    assert {name: together.terms[name] for name in one_by_one.terms} == one_by_one.terms
    assert {*together.terms} - {*one_by_one.terms} == {f"{name}_1" for name in TrajectoryObjective.terms}


def test_together_the_gradient_of_a_level_goes_through_all_encoders_below():
    hierarchy, batch = whole(2), clips(5, FRAMES, 1)
    lower, objectives = hierarchy.levels[0], told(hierarchy)
    alone, upper, together = (
        slopes(LevelsObjective(objectives, weights)(hierarchy, batch, 0.5).total, lower)
        for weights in ((1, 0), (0, 1), (1, 1))
    )
    count = len(list(lower.encoder.parameters()))
    assert all(bool(slope.any()) for slope in upper[:count]) and set(upper[count:]) == {None}  # not its predictor
    for one, two, both in zip(alone, upper, together, strict=True):
        torch.testing.assert_close(one if two is None else one + two, both, rtol=1e-10, atol=1e-12)
    weight, ends = lower.encoder.layers[0].weight, []
    for change in (1e-6, -1e-6):
        with torch.no_grad():
            weight[0, 0] += change
            ends.append(LevelsObjective(objectives, (0, 1))(hierarchy, batch, 0.5).total)
            weight[0, 0] -= change
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, upper[0][0, 0], rtol=1e-5, atol=1e-8)


def test_settings_and_weights_of_levels_decide_a_training():
    levels = told(whole(2))
    one, two, three = (
        LevelsObjective(levels, (1, 1)).settings,
        LevelsObjective(levels, (1, 2)).settings,
        LevelsObjective(levels, (1, 1), below=1).settings,
    )
    assert one != two and one | {"weight_2": 2} == two and three["below"] == 1
    assert one["variance_1"] == three["variance_2"] == 3.0 and one["inverse_2"] == three["inverse_3"] == 0.3


def test_settings_say_nothing_of_what_is_new_and_stands_where_all_trainings_stood_before():
    found = TrajectoryObjective(Weights(), Terms()).settings  # of which there are checkpoints
    assert not {*found} & {"horizon", "targets", "momentum", "centered"} and {"delta", "similarity"} <= {*found}
    new = {"horizon": 1, "momentum": 0.5, "centered": True, "targets": "stopped"}
    for name, value in new.items():
        assert TrajectoryObjective(Weights(), Terms(**{name: value})).settings == found | {name: value}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o, h, b: LevelsObjective([]), r"weights: expected at least 1 of at least 0, one above 0, found \[\]"),
        (lambda o, h, b: LevelsObjective([], [1.0]), r"weights: expected at least 1 .* found \[1.0\]"),
        (lambda o, h, b: LevelsObjective(o, [1.0]), r"weights: expected 2 .* found \[1.0\]"),
        (lambda o, h, b: LevelsObjective(o, [1, 2, 3]), r"weights: expected 2 .* found \[1, 2, 3\]"),
        (lambda o, h, b: LevelsObjective(o, [1, -0.1]), r"weights: expected 2 of at least 0, .* found \[1, -0.1\]"),
        (lambda o, h, b: LevelsObjective(o, [0, 0]), r"weights: expected 2 .* one above 0, found \[0, 0\]"),
        (lambda o, h, b: LevelsObjective(o, [1, math.nan]), r"weights: expected 2 .* found \[1, nan\]"),
        (lambda o, h, b: LevelsObjective(o[:1])(h, b, 0.0), "model: expected 1 levels as in the objective, found 2"),
        (lambda o, h, b: LevelsObjective(o, below=1)(h, b, 0.0), "model: expected 3 levels .* found 2"),
        (lambda o, h, b: LevelsObjective(o)(h, b._replace(a=b.a[:, 1:]), 0.0), "a: expected .* for frames"),
        (lambda o, h, b: LevelsObjective(o)(h, clips(5, 4, 1), 0.0), "a: expected at least 3 .* of level 2, found 2"),
        (lambda o, h, b: LevelsObjective(o)(h, clips(5, 2, 1), 0.0), "a: expected at least 2 .* of level 1, found 1"),
        (lambda o, h, b: LevelsObjective(o)(h.float(), b, 0.0), "frames: expected torch.float32 .*found torch.float64"),
        (
            lambda o, h, b: LevelsObjective(o)(h, clips(5, 5, 1), 0.0),
            "objective.horizon: expected at most 1, the steps of the trajectories, found 2",
        ),
    ],
)
def test_levels_that_cannot_be_are_named(call, message):
    hierarchy = whole(2)
    with pytest.raises(ValueError, match=f"^{message}"):
        call(told(hierarchy), hierarchy, clips(5, FRAMES, 1))


# -- roll-outs and their targets ---------------------------------------------------------------------------------------


def doubled(kind="none", **diff):
    """Return a model in double precision, and trajectories of 4 steps for it."""
    model = made(kind, **diff)[0].double()
    data = of_five(5, 4)
    return model, data._replace(frames=data.frames.double(), a=data.a.double(), static=data.static.double())


def best(model, s, a, y):
    """Return of the values that z may have, one after the other, that whose prediction of y is the nearest."""
    with torch.no_grad():
        values = model.latent.codes.unbind(0)
        errors = [(model.predictor(*(part[None, None] for part in (s, a, z))) - y).square().sum() for z in values]
        return values[int(torch.stack(errors).argmin())][None, None]


def by_hand(model, data, horizon, targets, delta=math.inf):
    """Return the mean energy of roll-outs of so many steps from every frame that has so many after it, by loops."""
    s, (count, steps), energies = model.encoder(data.frames), data.a.shape[:2], []
    y = targets(s)
    for b in range(count):
        for first in range(steps - horizon + 1):
            current = s[b, first]
            for t in range(first, first + horizon):
                z = best(model, s[b, t], data.a[b, t], y[b, t + 1])
                current = model.predictor(current[None, None], data.a[b, t][None, None], z)[0, 0]
                gap = (current - y[b, t + 1]).abs()
                far = delta * (2 * gap - delta) if math.isfinite(delta) else gap
                energies.append(torch.where(gap <= delta, gap**2, far).sum())
    return torch.stack(energies).mean()


TARGETS = {"gradient": lambda s: s, "stopped": lambda s: s.detach()}


@pytest.mark.parametrize("kind", ["none", "codes", "recurrent"])
@pytest.mark.parametrize("horizon", [1, 2, 3, 4])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("delta", [math.inf, 0.3])
def test_energy_and_its_gradient_are_those_of_loops_over_all_starts(kind, horizon, targets, delta):
    model, data = doubled(kind)
    terms = Terms(horizon=horizon, targets=targets, delta=delta)
    found = TrajectoryObjective(Weights(), terms)(model, data, 1.0).terms["energy"]
    expected = by_hand(model, data, horizon, TARGETS[targets], delta)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    ours, theirs, other = (
        slopes(total, model) for total in (found, expected, by_hand(model, data, horizon, TARGETS["gradient"], delta))
    )
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)
    changed = not all(torch.allclose(one, two, rtol=1e-4) for one, two in zip(ours, other, strict=True))
    assert changed == (targets == "stopped")


def test_a_horizon_of_all_steps_is_the_one_roll_out_to_the_bit():
    model, data = doubled("codes")
    found = [TrajectoryObjective(Weights(), Terms(horizon=h))(model, data, 1.0).total for h in (0, 4)]
    assert torch.equal(*found)


STEPWISE = ["none", "codes", "warm codes", "curve", "amortized", "noise", "learned codes", "dictionary"]


@pytest.mark.parametrize("kind", STEPWISE)
def test_a_horizon_of_one_step_is_the_mean_free_energy_of_all_transitions(kind):
    model, data = doubled(kind)
    beta, other = (0.7 if kind == "warm codes" else math.inf), copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        found = TrajectoryObjective(Weights(beta=beta), Terms(horizon=1))(model.train(), data, 1.0).total
        torch.manual_seed(1)
        x, a, y, _ = transitions(other.encoder(data.frames), data.a)
        energies = other.train().free_energy(x, a, y, beta, learn=True)
    assert energies.shape == (5 * 4,)
    torch.testing.assert_close(found, energies.mean(), rtol=1e-12, atol=1e-12)
    assert same(model.state_dict(), other.state_dict())  # values that are learned follow all transitions, once
    for one, two in zip(slopes(found, model), slopes(energies.mean(), other), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_a_free_energy_of_one_step_is_its_formula():
    (model, data), beta = doubled("codes"), 0.7
    found = TrajectoryObjective(Weights(beta=beta), Terms(horizon=1))(model, data, 1.0).total
    s, expected = model.encoder(data.frames), []
    for b in range(5):
        for t in range(4):
            z = model.latent.codes[None]
            errors = (model.predictor(s[b, t][None, None], data.a[b, t][None, None], z) - s[b, t + 1]).square().sum(-1)
            expected.append(-torch.exp(-beta * errors).mean().log() / beta)
    torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_roll_outs_of_a_trajectory_share_its_map(horizon):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, reader = Encoder(5, 2, [6]), MapReader(2, 2, 2, 0, (1, 9, 9), (4,), (8,), reach=1.0)
    model, data = JEPA(encoder, encoder, reader, NoLatent()), of_five(6, 3)
    static = torch.rand(3, 1, 9, 9, generator=generator())  # each of two trajectories in a row
    found = TrajectoryObjective(Weights(), Terms(horizon=horizon))(model, data._replace(static=static), 0.0).total
    s, energies = encoder(data.frames), []
    for b in range(6):
        step = reader.bind(static[b // 2 : b // 2 + 1])
        for first in range(3 - horizon + 1):
            current = s[b, first][None, None]
            for t in range(first, first + horizon):
                current = step(current, data.a[b, t][None, None], current[..., :0])
                energies.append((current[0, 0] - s[b, t + 1]).square().sum())
    torch.testing.assert_close(found, torch.stack(energies).mean())


@pytest.mark.parametrize("horizon", [0, 2])
@pytest.mark.parametrize(
    ("kind", "weights", "message"),
    [
        ("codes", Weights(beta=2.0), "loss.beta: expected infinity, as a roll-out has one z a step, found 2.0"),
        ("amortized", Weights(), "inference: expected 'minimize', as no gradient of a roll-out reaches a network"),
        ("learned codes", Weights(), "inference: expected 'minimize'"),
        ("noise", Weights(), "inference: expected 'minimize'"),
    ],
)
def test_roll_outs_of_more_steps_refuse_what_has_no_one_z_a_step(horizon, kind, weights, message):
    model, data = doubled(kind)
    with pytest.raises(ValueError, match=f"^{message}"):
        TrajectoryObjective(weights, Terms(horizon=horizon))(model, data, 1.0)


# -- a copy that follows -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(st.floats(0, 0.99), st.sampled_from([1, 2, 4]), st.sampled_from(["none", "codes"]))
def test_moving_targets_follow_by_their_formula_and_are_what_the_energy_compares_with(momentum, horizon, kind):
    model, data = doubled(kind)
    objective = TrajectoryObjective(
        Weights(), Terms(horizon=horizon, targets="moving"), moving=MovingTarget(model.encoder, momentum)
    )
    names, optimizer = [*dict(model.encoder.named_parameters())], torch.optim.SGD(model.parameters(), 0.05)
    expected = {name: weight.detach().clone() for name, weight in model.encoder.named_parameters()}
    for _ in range(4):
        own = dict(model.encoder.named_parameters())
        expected = {name: momentum * expected[name] + (1 - momentum) * own[name].detach() for name in names}
        loss = objective(model, data, 0.0).total
        y = torch.func.functional_call(model.encoder, expected, (data.frames,)).detach()
        by_loops = by_hand(model, data, horizon, lambda _, y=y: y)
        torch.testing.assert_close(loss, by_loops, rtol=1e-9, atol=1e-12)
        for one, two in zip(slopes(loss, model), slopes(by_loops, model), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-10)
        for name, weight in objective.moving.encoder.named_parameters():
            torch.testing.assert_close(weight, expected[name], rtol=1e-12, atol=1e-14)
            assert not weight.requires_grad and weight.grad is None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_copy_begins_as_the_encoder_and_does_not_share_its_weights():
    model, _ = doubled()
    moving = MovingTarget(model.encoder, 0.5)
    assert same(moving.encoder.state_dict(), model.encoder.state_dict())
    assert not {id(weight) for weight in moving.parameters()} & {id(weight) for weight in model.parameters()}
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_copy_stands_still_where_nothing_is_trained():
    model, data = doubled()
    moving = MovingTarget(model.encoder, 0.5)
    objective = TrajectoryObjective(Weights(), Terms(targets="moving"), moving=moving)
    next(model.encoder.parameters()).data.add_(1)
    before = copy.deepcopy(objective.state_dict())
    with torch.no_grad():
        first = objective(model, data, 0.0).total
    assert same(before, objective.state_dict()) and {*before} == {
        f"moving.encoder.{name}" for name in model.encoder.state_dict()
    }
    second = objective(model, data, 0.0).total
    assert not same(before, objective.state_dict()) and not torch.equal(first, second)


# -- criteria ----------------------------------------------------------------------------------------------------------


def spread_by_hand(v) -> float:
    """Return V of v [N, E] by its formula, number by number."""
    columns = [v[:, j].tolist() for j in range(v.shape[1])]
    means = [sum(column) / len(column) for column in columns]
    powers = [
        sum((x - mean) ** 2 for x in column) / (len(column) - 1) for column, mean in zip(columns, means, strict=True)
    ]
    return sum(max(0.0, 1 - math.sqrt(power + 1e-4)) for power in powers) / len(columns)


def covariance_by_hand(v) -> float:
    """Return C of v [N, E] by its formula, pair by pair."""
    count, width = v.shape
    centered = (v - v.mean(0)).tolist()
    total = 0.0
    for i in range(width):
        for j in range(width):
            total += (sum(row[i] * row[j] for row in centered) / (count - 1)) ** 2 if i != j else 0.0
    return total / width


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("expanded", [True, False])
def test_criteria_are_of_an_expansion_of_codes_less_their_mean_over_time(centered, expanded):
    model, data = doubled()
    expander = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double() if expanded else None
    objective = TrajectoryObjective(Weights(variance=2.0, covariance=3.0), Terms(centered=centered), expander=expander)
    found = {name: float(value.detach()) for name, value in objective(model, data, 1.0).terms.items()}
    s = model.encoder(data.frames).detach()
    if centered:
        s = torch.stack([torch.stack([s[b, t] - sum(s[b]) / 5 for t in range(5)]) for b in range(5)])
    v = s.reshape(25, 4) if expander is None else expander(s.reshape(25, 4)).detach()
    assert found["variance"] == pytest.approx(spread_by_hand(v), rel=1e-9) and found["variance"] > 0.01
    assert found["covariance"] == pytest.approx(covariance_by_hand(v), rel=1e-9)
    energy = TrajectoryObjective(Weights(), Terms())(model, data, 1.0).total.item()  # what neither changes
    assert found["energy"] == pytest.approx(energy, rel=1e-12)
    assert found["total"] == pytest.approx(energy + 2 * found["variance"] + 3 * found["covariance"], rel=1e-12)


@pytest.mark.parametrize("centered", [True, False])
def test_only_centered_criteria_see_a_code_that_stays_the_same(centered):
    model, data = doubled()
    data = data._replace(frames=9 * data.frames[:, :1].expand(-1, 5, -1))  # clips differ, nothing moves
    found = TrajectoryObjective(Weights(variance=1.0), Terms(centered=centered))(model, data, 1.0).terms["variance"]
    assert (float(found.detach()) == pytest.approx(1 - 1e-2)) == centered


def test_an_expander_is_asked_and_trained_only_where_a_criterion_has_a_weight():
    model, data = doubled()
    expander = nn.Linear(4, 6).double()
    objective = TrajectoryObjective(Weights(variance=1.0), Terms(), expander=expander)
    assert {id(weight) for weight in objective.parameters()} == {id(weight) for weight in expander.parameters()}
    assert all(bool(slope.any()) for slope in slopes(objective(model, data, 1.0).total, expander)[:1])
    expander.forward = None  # whoever asks it, fails
    assert TrajectoryObjective(Weights(), Terms(), expander=expander)(model, data, 1.0).total > 0


def objective_with(terms, **given) -> TrajectoryObjective:
    """Return an objective of no weight but the energy's."""
    return TrajectoryObjective(Weights(), terms, **given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Terms(horizon=-1), "objective.horizon: expected at least 0, found -1"),
        (lambda: Terms(targets="slow"), "objective.targets: expected one of gradient, stopped, moving, found 'slow'"),
        (lambda: Terms(momentum=1.0), "objective.momentum: expected a number from 0 to below 1, found 1.0"),
        (lambda: Terms(momentum=-0.1), "objective.momentum: expected a number from 0 to below 1, found -0.1"),
        (lambda: Terms(momentum=math.nan), "objective.momentum: expected .* found nan"),
        (lambda: objective_with(Terms(targets="moving")), "moving: expected a copy .* 'moving', found none"),
        (
            lambda: objective_with(Terms(), moving=MovingTarget(nn.Linear(2, 2), 0.9)),
            "moving: expected a copy where objective.targets is 'moving', found one",
        ),
        (
            lambda: objective_with(Terms(horizon=5))(*doubled(), 0.0),
            "objective.horizon: expected at most 4, the steps of the trajectories, found 5",
        ),
    ],
)
def test_terms_that_cannot_be_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


# -- cut and resumed ---------------------------------------------------------------------------------------------------


def with_everything(seed) -> tuple[HJEPA, LevelsObjective]:
    """Return two levels and their objective with all that may have a state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objectives, levels = [], []
        for inputs, action in ((4, 1), (6, 2)):
            encoder = Encoder(inputs, 3, [5])
            levels.append(JEPA(encoder, encoder, MLP(3, 3, action, 0, [6]), NoLatent()))
            parts = {"head": InverseDynamics(3, action, 4), "expander": Expander(3, 6, [5])}
            terms = Terms(inverse=0.1, horizon=1, targets="moving", momentum=0.8, centered=True)
            moving = MovingTarget(encoder, terms.momentum)
            objectives.append(TrajectoryObjective(Weights(variance=1.0), terms, **parts, moving=moving))
    return HJEPA(levels, [Window(2, 1), Window(2, 2)]), LevelsObjective(objectives, (1, 0.5))


def drawn(count, draws) -> Trajectories:
    """Return clips in single precision."""
    frames = torch.randn(count, 9, 2, generator=draws)
    return Trajectories(frames, torch.randn(count, 8, 1, generator=draws), torch.zeros(count, 0), {})


def trained(path, seed, stop=None, watched=False):
    """Return the states after a training that may be cut after a step, and its monitor."""
    model, objective = with_everything(seed)
    monitor = LevelsMonitor(objective, drawn(20, generator(3)), 12, 4) if watched else None

    def end(step, model):
        if step == stop:
            raise KeyboardInterrupt

    draws, callbacks = generator(seed), [part for part in (monitor, end) if part is not None]
    fit(model, objective, drawn, draws, Train(steps=12, batch=16, rate=0.01), checkpoint=path, callbacks=callbacks)
    kept = {f"objective.{name}": value for name, value in objective.state_dict().items()}
    return {**model.state_dict(), **kept, "generator": draws.get_state()}, monitor


@pytest.mark.filterwarnings("ignore::jepa.monitor.CollapseWarning")
@pytest.mark.parametrize("cut", [1, 6, 11])
def test_a_training_of_levels_goes_on_where_it_was_cut_and_watching_changes_nothing(tmp_path, cut):
    alone, _ = trained(tmp_path / "alone.pt", 7)
    ours, monitor = trained(tmp_path / "whole.pt", 7, watched=True)
    assert {name for name in ours if "moving" in name} == {
        f"objective.objectives.{level}.moving.encoder.layers.{layer}.{part}"
        for level in (0, 1)
        for layer in (0, 2)
        for part in ("weight", "bias")
    }
    assert same(alone, ours)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut.pt", 7, stop=cut, watched=True)
    # all that the checkpoint does not bring back would come from the wrong seed
    theirs, resumed = trained(tmp_path / "cut.pt", 8, watched=True)
    assert same(ours, theirs) and monitor.state_dict() == resumed.state_dict()
    assert monitor.steps == [0, 3, 6, 9, 12] and len({*monitor.diagnostics["energy_2"]}) == 5


def test_a_copy_is_as_slow_in_a_training_as_its_momentum_says(tmp_path):
    found, _ = trained(tmp_path / "one.pt", 7)
    start = {f"levels.0.encoder.{name}": v for name, v in with_everything(7)[0].levels[0].encoder.state_dict().items()}
    for name, weight in start.items():
        copied = found[f"objective.objectives.0.moving.encoder.{name.removeprefix('levels.0.encoder.')}"]
        assert 0 < (copied - weight).norm() < (found[name] - weight).norm()


# -- pooling -----------------------------------------------------------------------------------------------------------


def pooled(pooling, frames=4, width=3, hidden=(5,)) -> Pooled:
    """Return an encoder of windows in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return Pooled(frames * width, 2, frames, pooling, hidden).double()


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("hidden", [(), (5,), (5, 6)])
def test_pooling_is_what_its_name_says(frames, hidden):
    x = normal(7, 5, frames * 3)
    for b in range(7):
        for n in range(5):
            window = [x[b, n, 3 * t : 3 * t + 3] for t in range(frames)]
            by_name = {"convolution": torch.cat(window), "mean": sum(window) / frames, "last": window[-1]}
            assert {*by_name} == {*POOLINGS}
            for name, seen in by_name.items():
                encoder = pooled(name, frames, hidden=hidden)
                torch.testing.assert_close(encoder(x)[b, n], encoder.layers(seen), rtol=1e-12, atol=1e-12)
                assert len(encoder.layers) == 2 * len(hidden) + 1 and encoder.outputs == 2


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(4)), st.sampled_from(POOLINGS))
def test_mean_sees_no_order_last_only_the_last_and_a_convolution_everything(order, pooling):
    encoder, x = pooled(pooling), normal(6, 12)
    moved = x.unflatten(-1, (4, 3))[:, list(order)].flatten(1)
    alike = torch.allclose(encoder(moved), encoder(x), rtol=1e-12, atol=1e-12)
    same_for = {"mean": True, "last": order[-1] == 3, "convolution": order == [0, 1, 2, 3]}
    assert alike == same_for[pooling]


@pytest.mark.parametrize(("pooling", "seen"), [("convolution", range(4)), ("mean", range(4)), ("last", [3])])
def test_pooling_depends_on_the_codes_that_it_sees(pooling, seen):
    encoder, x = pooled(pooling), normal(1, 12).requires_grad_()
    (slope,) = torch.autograd.grad(encoder(x).sum(), x)
    assert slope.view(4, 3).ne(0).all(1).nonzero().flatten().tolist() == [*seen]


def test_a_mean_over_pairs_of_a_line_is_the_line_itself():
    hierarchy = HJEPA([JEPA(p := pooled("mean", 2, hidden=()), p, MLP(2, 2, 0, 0, [6]), NoLatent())], [Window(2, 2)])
    line = torch.arange(8.0, dtype=torch.float64).view(1, 8, 1) * torch.ones(3)
    at = line[:, ::2] + 0.5
    torch.testing.assert_close(hierarchy.encode(line)[0], p.layers(at), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Pooled(7, 2, 3), "inputs: expected a multiple of the 3 codes of a window, found 7"),
        (lambda: Pooled((3, 8, 8), 2, 1), r"inputs: expected a multiple of the 1 codes of a window, found \(3, 8, 8\)"),
        (lambda: Pooled(6, 2, 0), "inputs: expected a multiple of the 0 codes of a window, found 6"),
        (lambda: Pooled(6, 2, 2, "max"), "pooling: expected one of convolution, mean, last, found 'max'"),
        (lambda: Pooled(6, 0, 2), "widths: expected at least 1 everywhere"),
        (lambda: Pooled(6, 2, 2, hidden=[0]), "widths: expected at least 1 everywhere"),
        (lambda: pooled("mean")(normal(5, 11)), r"x: expected 12 features on the last axis, found shape \[5, 11\]"),
    ],
)
def test_pooling_that_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


# -- predicting from a context -----------------------------------------------------------------------------------------


def shifted(frames=3, width=2, action=2, latent=1) -> Shifted:
    """Return a predictor of the next of a number of codes, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Shifted(frames * width, frames * width, action, latent, frames, [5]).double()


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize(("batch", "candidates"), [((5, 1), (1, 6)), ((1, 1), (5, 6)), ((5, 6), (1, 1))])
def test_shifted_keeps_all_codes_but_the_first_and_predicts_the_next(frames, batch, candidates):
    predictor, s = shifted(frames), normal(*batch, frames * 2)
    a, z = normal(5, 1, 2, seed=1), normal(*candidates, 1, seed=2)
    found = predictor(s, a, z)
    rows, many = max(len(s), len(a), len(z)), max(s.shape[1], z.shape[1])
    assert found.shape == (rows, many, frames * 2)
    for b in range(rows):
        for k in range(many):
            own = s[b % len(s), k % s.shape[1]]
            assert torch.equal(found[b, k, :-2], own[2:])  # to the bit
            given = torch.cat([own, a[b, 0], z[b % len(z), k % z.shape[1]]])
            expected = predictor.next.rest(predictor.next.first(given))
            torch.testing.assert_close(found[b, k, -2:], expected, rtol=1e-12, atol=1e-12)


def test_rollout_of_shifted_is_a_window_that_slides_over_what_it_predicts():
    predictor, s = shifted(), normal(5, 1, 6)
    a, z = normal(5, 4, 6, 2, seed=1), normal(5, 4, 6, 1, seed=2)
    found = rollout(predictor, s, a, z)
    for b in range(5):
        for k in range(4):
            path = [s[b, 0, 2 * t : 2 * t + 2] for t in range(3)]
            for t in range(6):
                given = torch.cat([*path[-3:], a[b, k, t], z[b, k, t]])
                path.append(predictor.next.rest(predictor.next.first(given)))
                torch.testing.assert_close(found[b, k, t], torch.cat(path[-3:]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Shifted(6, 4, frames=3), "predictor: expected inputs = outputs, codes side by side, found 6, 4 and 3"),
        (lambda: Shifted(7, 7, frames=3), "predictor: expected inputs = outputs, .* found 7, 7 and 3 frames"),
        (lambda: Shifted(6, 6, frames=0), "predictor: expected inputs = outputs, .* found 6, 6 and 0 frames"),
        (lambda: Shifted(6, 6, frames=3, hidden=[]), "hidden: expected at least one width of at least 1"),
        (lambda: shifted()(normal(5, 1, 4), normal(5, 1, 2), normal(5, 1, 1)), r"s: expected \[B, K, 6\], found"),
        (lambda: shifted()(normal(5, 1, 6), normal(5, 1, 3), normal(5, 1, 1)), r"a: expected \[B, K, 2\], found"),
        (lambda: shifted()(normal(5, 1, 6), normal(5, 1, 2), normal(5, 1, 2)), r"z: expected \[B, K, 1\], found"),
    ],
)
def test_shifted_that_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


# -- watched -----------------------------------------------------------------------------------------------------------


class Kept(nn.Module):
    """An encoder that keeps the first numbers of what it sees, larger or smaller."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.outputs = nn.Parameter(torch.tensor(scale)), 2

    def forward(self, x):
        """Return s [B, 2]."""
        return self.scale * x[:, :2]


def watched(scales, weights=(), below=0, steps=30, batch=None):
    """Return the monitor of levels that keep what they see, after so many of 90 steps, and what was warned of."""
    levels = [JEPA(encoder := Kept(scale), encoder, MLP(2, 2, 0, 0, [4]), NoLatent()) for scale in scales]
    hierarchy = HJEPA(levels, [Window(2, 1), Window(2, 2)])
    objectives = [TrajectoryObjective(Weights(), Terms(horizon=1)) for _ in levels[below:]]
    batch = drawn(40, generator(2)) if batch is None else batch
    if below:
        batch = batch._replace(frames=hierarchy.encode(batch.frames)[0].detach(), a=batch.a[:, 1:])
    batch = batch._replace(a=batch.a[..., :0])
    monitor = LevelsMonitor(LevelsObjective(objectives, weights, below), batch, 90, times=9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monitor(steps, hierarchy)
    assert [str(one.message) for one in caught] == monitor.warnings
    assert all(one.category is CollapseWarning for one in caught)
    return monitor


@pytest.mark.parametrize(
    ("scales", "level", "spread"), [((1.0, 0.0), 2, 0), ((1.0, 0.2), 2, 20), ((0.2, 5.0), 1, 20), ((0.0, 1.0), 1, 0)]
)
def test_the_level_that_is_stuck_is_named(scales, level, spread):
    monitor = watched(scales)
    (message,) = monitor.warnings
    start = "the codes of a level are stuck after 30 of 90 steps: "
    assert message.startswith(f"{start}level {level}: its standard deviation is 0.")
    assert f"below {SPREAD}" in message
    assert monitor.diagnostics[f"spread_{level}"][0] == pytest.approx(spread / 100, abs=0.02)


def test_healthy_levels_are_no_matter():
    assert watched((1.0, 1.0)).warnings == [] == watched((0.7, 1.0)).warnings
    assert watched((1.0, 0.0), steps=20).warnings == []  # too early to tell


def test_only_levels_that_are_trained_are_watched():
    above_frozen = watched((0.2, 5.0), below=1)
    assert above_frozen.warnings == [] and {*above_frozen.diagnostics} == {
        f"{name}_2" for name in ("spread", "within", "driven", "energy")
    }
    assert watched((1.0, 0.0), below=1).warnings[0].count("level 2: ") == 1
    for batch in (None, drawn(40, generator(2))._replace(frames=torch.randn(40, 3, 2, generator=generator()))):
        batch = batch if batch is None else batch._replace(a=batch.a[:, :2])  # too short for a step of level 2
        lower = watched((1.0, 0.0), (1, 0), batch=batch)
        assert lower.warnings == [] and {name[-1] for name in lower.diagnostics} == {"1"}
    assert watched((1.0, 0.0), (0, 1)).warnings and watched((0.0, 1.0), (0, 1)).warnings  # trained through level 2


def test_signs_of_levels_are_those_of_their_codes_actions_and_energies():
    hierarchy, batch = whole(2), clips(20, FRAMES, 1)
    objective = LevelsObjective(told(hierarchy))
    found = LevelsMonitor(objective, batch, 90).evaluate(hierarchy)
    loss, a = by_level(hierarchy, batch, 1.0), batch.a
    for level, s in enumerate(hierarchy.encode(batch.frames), 1):
        a = hierarchy.actions(a, level)
        expected = signs(s, a, float(loss[level - 1].terms["energy"].detach()))
        assert found[level] == pytest.approx(expected, rel=1e-9)
    assert {*found} == {1, 2} and found._asdict()["spread_2"] == found[2].spread


def modes(*modules) -> list[bool]:
    """Return the modes of all parts."""
    return [part.training for module in modules for part in module.modules()]


@pytest.mark.parametrize("kind", ["levels", "trajectories"])
def test_an_evaluation_leaves_weights_statistics_modes_and_random_numbers_alone(kind):
    model, objective = with_everything(3)
    batch = drawn(20, generator(2))
    monitor = LevelsMonitor(objective, batch, 90)
    if kind == "trajectories":
        batch, model, objective = model.trajectories(batch, 1), model.levels[0], objective.objectives[0]
        monitor = TrajectoryMonitor(model, objective, batch, 90)
    model.train()
    objective.train()
    next(model.children()).eval()  # a part that is in evaluation mode stays so
    before, random = copy.deepcopy((model.state_dict(), objective.state_dict())), torch.get_rng_state()
    kept = modes(model, objective)
    assert monitor.evaluate(model) == monitor.evaluate(model)
    assert same(before[0], model.state_dict()) and modes(model, objective) == kept
    assert same(before[1], objective.state_dict())  # no statistic of an expander, no copy that follows
    assert torch.equal(random, torch.get_rng_state())
    assert all(weight.grad is None for weight in (*model.parameters(), *objective.parameters()))


def test_codes_that_are_nan_are_no_matter_of_an_evaluation():
    monitor = watched((1.0, math.nan))
    assert monitor.warnings == [] and all(math.isnan(values[0]) for values in monitor.diagnostics.values())
    assert {*monitor.diagnostics} >= {"spread_1", "energy_2"}


def test_less_than_four_clips_cannot_be_watched():
    with pytest.raises(ValueError, match="^batch: expected at least 4 clips, found 3"):
        LevelsMonitor(with_everything(1)[1], drawn(3, generator()), 90)
