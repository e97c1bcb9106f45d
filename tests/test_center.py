"""The center carries what comes: sequences, a level above, and a plan run through the same rollout, fit and Minimum."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import generator, normal, same
from torch import nn

from jepa.batches import Pairs, Trajectories, transitions, windows
from jepa.encoders import MLP as Encoder
from jepa.energy import distance
from jepa.latents.finite import Discrete, NoLatent
from jepa.minimize import gradient
from jepa.model import JEPA
from jepa.objectives.base import Loss
from jepa.objectives.pairs import PairObjective, Weights
from jepa.predictors import MLP as Predictor
from jepa.predictors import rollout
from jepa.train import Train, fit

ACT, STATE, SEEN = 2, 4, 6  # widths of actions, of the true state and of what is seen of it
VICREG = Weights(variance=5.0, covariance=1.0)


def plant() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return A, B and C of the linear world s' = A s + B a, seen as C s."""
    draw = generator(4)
    rotation = torch.linalg.qr(torch.randn(STATE, STATE, generator=draw)).Q
    return 0.9 * rotation, torch.randn(ACT, STATE, generator=draw) / 2, torch.randn(STATE, SEEN, generator=draw) / 2


def episodes(steps: int, count: int, draws: torch.Generator) -> Trajectories:
    """Return episodes of the linear world under random actions."""
    A, B, C = plant()
    states = [torch.randn(count, STATE, generator=draws)]
    actions = torch.randn(count, steps, ACT, generator=draws)
    for a in actions.unbind(1):
        states.append(states[-1] @ A + a @ B)
    return Trajectories(torch.stack(states, 1) @ C, actions, torch.zeros(count, 0), {})


def pairs(count: int, draws: torch.Generator) -> Pairs:
    """Return the episodes of one step as pairs."""
    return transitions(*episodes(1, count, draws)[:2])


class Unrolled(PairObjective):
    """The objective for pairs, its energy that of T predictions, each made from the one before."""

    def forward(self, model, batch, progress):
        """Return the loss of trajectories; z is inferred step by step."""
        steps = batch.a.shape[1]
        s = model.encode(batch.frames[:, :-1].flatten(0, 1), batch.frames[:, 1:].flatten(0, 1))
        s_x, s_y = (part.unflatten(0, (-1, steps)) for part in s)
        current, energies = s_x[:, 0], []
        for a, target in zip(batch.a.unbind(1), s_y.unbind(1), strict=True):
            energies.append(model.free_energy(current, a, target, learn=True))
            z = model.minimum(current, a, target).argmin[:, None]
            current = rollout(model.step, current[:, None], a[:, None, None], z.unsqueeze(2))[:, 0, 0]
        energy = torch.stack(energies).mean(0).mean()
        spread, decorrelation = self._criteria(s, energy)
        total = energy + self.weights.variance * spread + self.weights.covariance * decorrelation
        return Loss(total, {"total": total, "energy": energy, "variance": spread, "covariance": decorrelation})


def untrained(latent=NoLatent, inputs: int = SEEN) -> JEPA:
    """Return a model with one encoder for contexts and targets."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder, made = Encoder(inputs, STATE, [16]), latent()
        return JEPA(encoder, encoder, Predictor(STATE, STATE, ACT, made.width, [16]), made)


def trained(objective, sample, steps: int = 12, **given) -> JEPA:
    """Return a model after a training."""
    model = untrained(**given)
    fit(model, objective, sample, generator(5), Train(steps=steps, batch=32, rate=5e-3))
    return model


@pytest.mark.parametrize("latent", [NoLatent, partial(Discrete, 3)])
def test_a_sequence_of_one_step_is_the_pair_model_to_the_bit(latent):
    one = trained(PairObjective(VICREG), pairs, latent=latent)
    sequence = trained(Unrolled(VICREG), partial(episodes, 1), latent=latent)
    assert same(one.state_dict(), sequence.state_dict())
    assert not same(one.state_dict(), trained(Unrolled(VICREG), partial(episodes, 2), latent=latent).state_dict())


def rolled_error(model: JEPA, batch: Trajectories) -> torch.Tensor:
    """Return the error of open-loop predictions [T], in units of that of predicting no change."""
    with torch.no_grad():
        s = model.encoder(batch.frames)
        z = s.new_zeros(1, 1, batch.a.shape[1], model.latent.width)
        found = rollout(model.step, s[:, :1], batch.a.unsqueeze(1), z)[:, 0]
    return distance(found, s[:, 1:]).mean(0) / distance(s[:, :1], s[:, 1:]).mean(0)


def test_a_sequence_model_predicts_four_steps_ahead_without_seeing_what_is_between():
    batch = episodes(4, 256, generator(9))
    model = trained(Unrolled(VICREG), partial(episodes, 4), steps=300)
    assert rolled_error(model, batch).max() < 0.1 < rolled_error(untrained(), batch).min()
    shuffled = batch._replace(a=batch.a.roll(1, 0))  # a model that ignores actions would not notice
    assert rolled_error(model, shuffled)[-1] > 0.5


def level_above(below: JEPA, width: int, count: int, draws: torch.Generator) -> Trajectories:
    """Return what a level above sees: windows of the codes below, and the actions between their ends side by side."""
    batch = episodes(3 * width - 1, count, draws)
    with torch.no_grad():
        s = windows(below.encoder(batch.frames), width)  # [B, 3, width · D]
    actions = windows(batch.a[:, width - 1 :], width)  # [B, 2, width · A]
    return Trajectories(s, actions, batch.static, {})


def test_a_level_above_is_the_same_model_on_windows_of_the_codes_below():
    below = trained(Unrolled(VICREG), partial(episodes, 4), steps=120)
    sample = partial(level_above, below, 2)
    batch = sample(256, generator(9))
    assert batch.frames.shape == (256, 3, 2 * STATE) and batch.a.shape == (256, 2, 2 * ACT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder = Encoder(2 * STATE, STATE, [16])
        above = JEPA(encoder, encoder, Predictor(STATE, STATE, 2 * ACT, 0, [16]), NoLatent())
    before = rolled_error(above, batch)
    fit(above, Unrolled(VICREG), sample, generator(5), Train(steps=300, batch=32, rate=5e-3))
    assert rolled_error(above, batch).max() < 0.15 < before.min()


def test_one_level_of_windows_of_one_frame_is_the_plain_model_to_the_bit():
    def windowed(count, draws):
        batch = episodes(3, count, draws)
        return batch._replace(frames=windows(batch.frames, 1), a=windows(batch.a, 1))

    plain, level = (trained(Unrolled(VICREG), sample) for sample in (partial(episodes, 3), windowed))
    assert same(plain.state_dict(), level.state_dict())


class Linear(nn.Module):
    """The linear world itself as a step."""

    def forward(self, s, a, z):
        """Return A s + B a for every candidate."""
        A, B, _ = (part.to(s) for part in plant())
        return s @ A + a @ B


def planned(start: torch.Tensor, goal: torch.Tensor, horizon: int, effort: float):
    """Return the plan of a horizon that ends at a goal, actions at a price, found by the minimizer of latents."""

    def cost(candidates):
        """Return the cost [B, K] of action sequences [B, K, T · A]."""
        a = candidates.unflatten(-1, (horizon, ACT))
        states = rollout(Linear(), start[:, None], a, a.new_zeros(1, 1, horizon, 0))
        return distance(states[:, :, -1], goal[:, None]) + effort * candidates.square().sum(-1)

    points = torch.randn(len(start), 3, horizon * ACT, generator=generator(6)).to(start)
    return gradient(cost, points, steps=400, rate=0.05)


def test_a_flat_plan_is_the_least_squares_solution_of_a_linear_world():
    (A, B, _), horizon, effort = (part.double() for part in plant()), 4, 1e-2
    start, goal = normal(5, STATE, seed=8), normal(5, STATE, seed=9)
    plan = planned(start, goal, horizon, effort)
    reach = torch.cat([B @ torch.linalg.matrix_power(A, horizon - 1 - t) for t in range(horizon)])  # [T · A, D]
    gap = goal - start @ torch.linalg.matrix_power(A, horizon)
    exact = gap @ reach.T @ torch.linalg.inv(reach @ reach.T + effort * torch.eye(horizon * ACT, dtype=torch.float64))
    assert torch.allclose(plan.argmin, exact, atol=1e-4) and plan.argmin.shape == (5, horizon * ACT)
    least = (exact @ reach - gap).square().sum(1) + effort * exact.square().sum(1)
    assert torch.allclose(plan.value, least, rtol=1e-8)
    idle = gap.square().sum(1)
    assert (plan.value < 0.2 * idle).all() and (plan.trace.diff(dim=0) <= 0).all()


def test_replanning_in_a_known_world_is_the_plan():
    A, B, _ = (part.double() for part in plant())
    s, goal = normal(5, STATE, seed=8), normal(5, STATE, seed=9)
    plan = planned(s, goal, 3, 1e-2).argmin.unflatten(-1, (3, ACT))
    for step in range(3):  # the principle of optimality: what is left of a best plan is the best plan for what is left
        a = planned(s, goal, 3 - step, 1e-2).argmin.unflatten(-1, (3 - step, ACT))[:, 0]
        assert torch.allclose(a, plan[:, step], atol=1e-4)
        s = s @ A + a @ B
    assert not torch.allclose(planned(s, goal, 3, 1e-2).argmin[:, :ACT], plan[:, 0], atol=0.1)
