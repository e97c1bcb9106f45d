"""A code that is stuck says so, on what it is stuck and what to do; watching a training changes nothing of it."""

from __future__ import annotations

import math
import re
import warnings

import pytest
import torch
from conftest import generator, normal, same
from sklearn.linear_model import Ridge
from torch import nn

from jepa.batches import Pairs, Trajectories
from jepa.encoders import MLP as Encoder
from jepa.latents.finite import NoLatent
from jepa.model import JEPA
from jepa.monitor import CollapseWarning
from jepa.objectives.pairs import Weights
from jepa.objectives.trajectories import Terms, TrajectoryObjective
from jepa.predictors import MLP
from jepa.train import Train, fit
from jepa.trajectory_monitor import DRIVEN, SPREAD, Signs, TrajectoryMonitor, drawn, signs, stuck

COUNT, STEPS = 60, 6
OBJECTIVE = TrajectoryObjective(Weights(variance=1.0), Terms())


class Linear(nn.Module):
    """An encoder of frames (position, layout), of which it keeps as much as it is told."""

    def __init__(self, position=1.0, layout=0.0, noise=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([position, layout, noise]))
        self.outputs = 2

    def forward(self, x):
        """Return s [B, 2]."""
        return self.weights[0] * x[:, :2] + self.weights[1] * x[:, 2:4] + self.weights[2] * x[:, 4:]


def walks(count=COUNT, draws=None, acting=True):
    """Return walks of a point whose place moves by the action, in layouts of their own; noise is seen beside it."""
    draws = draws or generator(1)
    a = torch.randn(count, STEPS, 2, generator=draws) / 2
    place = torch.cat([torch.randn(count, 1, 2, generator=draws), a], 1).cumsum(1)
    layout = 2 * torch.randn(count, 1, 2, generator=draws).expand_as(place)
    frames = torch.cat([place, layout, torch.randn(place.shape, generator=draws)], -1)
    return Trajectories(frames, a if acting else a[..., :0], torch.zeros(count, 0), {})


def model_of(encoder=None, action=2):
    """Return a model around an encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        encoder = encoder or Encoder(6, 2, [8])
        return JEPA(encoder, encoder, MLP(2, 2, action, 0, [8]), NoLatent())


def told(encoder, step=30, acting=True):
    """Return what is warned of when a model is evaluated after so many of 90 steps."""
    model, data = model_of(encoder, 2 if acting else 0), walks(acting=acting)
    watching = TrajectoryMonitor(model, OBJECTIVE, data, 90, times=9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watching(step, model)
    assert [str(one.message) for one in caught] == watching.warnings
    assert all(one.category is CollapseWarning for one in caught)
    assert watching.steps == [step] and {*watching.diagnostics} == {*Signs._fields}
    return watching.warnings


def test_a_healthy_code_is_no_matter():
    assert told(Linear()) == [] == told(Linear(layout=0.1, noise=0.1)) == told(Linear(), acting=False)


def test_a_constant_code_is_named_with_what_to_do():
    for encoder in (Linear(0.0), Linear(0.1), Linear(0.0, 0.1)):
        (message,) = told(encoder)
        assert message.startswith("the code is stuck after 30 of 90 steps: its standard deviation is 0.")
        assert f"below {SPREAD}" in message and "start the encoder again" in message and "loss.variance" in message
    assert len(told(Linear(0.0), acting=False)) == 1


@pytest.mark.parametrize("encoder", [Linear(0.0, 1.0), Linear(0.0, 1.0, 0.2), Linear(0.0, 0.7, 0.001)])
def test_a_code_of_the_layout_is_named_though_its_spread_is_healthy(encoder):
    (message,) = told(encoder)
    found = signs(model_of(encoder).encoder(walks().frames.flatten(0, 1)).unflatten(0, (COUNT, -1)), walks().a)
    assert found.spread > 1 and found.within < 0.1 and abs(found.driven) < DRIVEN
    assert "of the variance is within trajectories, and actions account for" in message and "`jepa.static`" in message
    assert told(encoder, acting=False) == []  # without actions nothing can be known to account for it


def test_what_moves_by_itself_is_not_what_actions_move():
    (message,) = told(Linear(0.0, 0.0, 1.0))
    assert "actions account for 0% of its change" in message


def test_nothing_is_said_early_and_nothing_twice():
    model = model_of(Linear(0.0))
    watching = TrajectoryMonitor(model, OBJECTIVE, walks(), 90, times=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in (0, 10, 20, 25):
            watching(step, model)
    with pytest.warns(CollapseWarning, match="after 30 of 90"):
        watching(30, model)
    watching(40, model)
    assert watching.steps == [0, 10, 20, 30, 40] and len(watching.warnings) == 1
    assert all(len(values) == 5 for values in watching.diagnostics.values())


def test_signs_are_their_formulas():
    s, a = normal(20, 5, 3), normal(20, 4, 2, seed=1)
    s = (s + 2 * normal(20, 1, 3, seed=2)).cumsum(1)
    found = signs(s, a, 0.25)
    flat = s.flatten(0, 1)
    total = sum(float(((flat[:, d] - flat[:, d].mean()) ** 2).mean()) for d in range(3)) / 3
    inner = sum(float(((s[b, :, d] - s[b, :, d].mean()) ** 2).mean()) for b in range(20) for d in range(3)) / 60
    assert found.spread == pytest.approx(math.sqrt(total)) and found.within == pytest.approx(inner / total)
    assert found.energy == 0.25


def test_share_of_actions_is_that_of_a_ridge_regression_on_other_trajectories():
    a = normal(40, 6, 2)
    change = 2 * a @ normal(2, 3, seed=1) + normal(40, 6, 3, seed=2)
    s = torch.cat([normal(40, 1, 3, seed=3), change], 1).cumsum(1)
    known, asked = (a[rows].flatten(0, 1).numpy() for rows in (slice(0, 20), slice(20, None)))
    told, truth = (change[rows].flatten(0, 1).numpy() for rows in (slice(0, 20), slice(20, None)))
    mean, unit = known.mean(0), known.std(0)
    witness = Ridge(3e-3 * len(known)).fit((known - mean) / unit, told).predict((asked - mean) / unit)
    expected = 1 - ((truth - witness) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()
    assert signs(s, a).driven == pytest.approx(expected, rel=1e-6) and 0.3 < expected < 0.9
    assert signs(s, a.flip(0)).driven < DRIVEN and signs(s, a[..., :0]).driven == 0


@pytest.mark.parametrize("layout", [0.0, 1.0])
def test_a_code_that_does_not_move_at_all_is_driven_by_nothing(layout):
    found = signs(layout * normal(20, 1, 2).expand(-1, 5, -1), normal(20, 4, 2, seed=1))
    assert found.within == found.driven == 0 and (stuck(found, True) is not None)


@pytest.mark.parametrize(
    ("found", "acting", "part"),
    [
        (Signs(SPREAD, 0.01, DRIVEN, 0.0), True, None),
        (Signs(0.99 * SPREAD, 1.0, 1.0, 0.0), True, "below"),
        (Signs(2.0, 0.012, -0.3, 0.0), True, "only 1.2% of the variance is within trajectories, and actions .* 0%"),
        (Signs(2.0, 0.01, 0.0, 0.0), False, None),
        (Signs(*[math.nan] * 4), True, None),
    ],
)
def test_signs_are_read_by_their_thresholds(found, acting, part):
    reason = stuck(found, acting)
    assert reason is None if part is None else re.search(part, reason)


@pytest.mark.parametrize("part", ["encoder", "predictor"])
def test_weights_that_are_nan_are_no_matter_of_an_evaluation(part):
    model = model_of(Linear())
    watching = TrajectoryMonitor(model, OBJECTIVE, walks(), 90, times=9)
    next(getattr(model, part).parameters()).data.fill_(math.nan)
    watching(30, model)
    assert math.isnan(watching.diagnostics["energy"][0]) and watching.warnings == []


def trained(tmp_path, watched, cut=None):
    """Return the weights after a training, and its monitor; it may be cut after a step and resumed."""
    path, monitors = tmp_path / f"{watched}-{cut}.pt", []

    def once(stop):
        model = model_of()
        objective = TrajectoryObjective(Weights(variance=1.0), Terms())
        monitor = drawn(model, objective, walks, 12, 4, count=20) if watched else None
        monitors.append(monitor)

        def end(step, model):
            if step == stop:
                raise KeyboardInterrupt

        draws, callbacks = generator(7), [part for part in (monitor, end) if part is not None]
        fit(model, objective, walks, draws, Train(steps=12, batch=16), checkpoint=path, callbacks=callbacks)
        return {**model.state_dict(), "generator": draws.get_state()}

    if cut:
        with pytest.raises(KeyboardInterrupt):
            once(cut)
    return once(None), monitors[-1]


@pytest.mark.filterwarnings("ignore::jepa.monitor.CollapseWarning")
@pytest.mark.parametrize("cut", [3, 4, 6, 11])
def test_watching_changes_nothing_and_goes_on_where_a_training_was_cut(tmp_path, cut):
    alone, _ = trained(tmp_path, False)
    whole, monitor = trained(tmp_path, True)
    again, resumed = trained(tmp_path, True, cut)
    assert same(alone, whole) and same(whole, again)
    assert monitor.steps == [0, 3, 6, 9, 12] and monitor.state_dict() == resumed.state_dict()
    assert len(set(monitor.diagnostics["energy"])) == 5


def test_an_evaluation_leaves_modes_gradients_and_random_numbers_alone():
    model = model_of(nn.Sequential(nn.Linear(6, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)))
    model.train()
    model.encoder[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [part.training for part in model.modules()], torch.get_rng_state()
    watching = TrajectoryMonitor(model, OBJECTIVE, walks(), 90)
    assert watching.evaluate(model) == watching.evaluate(model)
    assert same(before, model.state_dict()) and modes == [part.training for part in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())


def test_drawn_trajectories_are_always_the_same():
    one, two = (drawn(model_of(), OBJECTIVE, walks, 90, 2, count=20).evaluate(model_of()) for _ in range(2))
    assert one == two and drawn(model_of(), OBJECTIVE, walks, 90, 0, count=20)(0, model_of()) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (walks(3), "batch: expected at least 4 trajectories, found 3"),
        (Pairs(*[torch.zeros(8, 3)] * 3, {}), "batch: expected trajectories, found Pairs"),
        (walks()._replace(a=None), r"a: expected .*give \[B, T, 0\]"),
        (walks()._replace(frames=walks().frames.double()), "frames: expected torch.float32"),
    ],
)
def test_what_cannot_be_watched_is_named(data, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TrajectoryMonitor(model_of(), OBJECTIVE, data, 9)
    with pytest.raises(ValueError, match=r"^a: expected \[4, 2, A\] for s \[4, 3, 2\], found \[4, 3, 1\]"):
        signs(normal(4, 3, 2), normal(4, 3, 1))
