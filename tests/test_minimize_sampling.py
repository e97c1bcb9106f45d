"""cem and mppi against closed forms and pytorch-mppi; what they owe to limits, budgets and scales."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import generator, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_mppi import MPPI

from jepa.minimize import Elites, Softmin, cem, mppi, shifted
from jepa.minimize.sampling import Sampling, noise, weights

PROPERTY = settings(deadline=None, derandomize=True, max_examples=15)
SEEDS = st.integers(0, 10_000)
BOTH = {
    "cem": partial(cem, spread=1.0, sampling=Elites(samples=64, rounds=4, elites=8)),
    "mppi": partial(mppi, spread=1.0, sampling=Softmin(samples=64, rounds=4)),
}


def bowl(y):
    """Return a quadratic cost with its minimum 0 at y [B, N]."""
    scale = torch.linspace(1, 3, y.shape[1], dtype=y.dtype)
    return lambda z: (scale * (z - y.unsqueeze(1)).square()).sum(-1)


@PROPERTY
@given(SEEDS, st.integers(0, 20), st.booleans())
def test_cem_finds_the_minimum_of_a_bowl(seed, keep, colored):
    y = normal(4, 8, seed=seed)
    sampling = Elites(samples=300, rounds=25, elites=50, keep=keep, floor=1e-4, color=1.0 * colored, width=2)
    found = cem(bowl(y), torch.zeros_like(y), generator(seed), spread=2.0, sampling=sampling)
    assert torch.allclose(found.argmin, y, atol=0.03) and (found.value < 1e-3).all()


@PROPERTY
@given(SEEDS, st.booleans())
def test_mppi_comes_near_the_minimum_of_a_bowl(seed, relative):
    y = normal(4, 6, seed=seed)
    sampling = Softmin(samples=400, rounds=30, temperature=0.1 if relative else 1.0, relative=relative)
    found = mppi(bowl(y), torch.zeros_like(y), generator(seed), spread=0.4, sampling=sampling)
    assert torch.allclose(found.argmin, y, atol=0.2) and (found.value < 0.02 * bowl(y)(y[:, None] * 0)[:, 0]).all()


@pytest.mark.parametrize("steps, actions, temperature", [(5, 2, 1.0), (3, 1, 0.2)])
def test_one_round_of_mppi_is_that_of_pytorch_mppi(steps, actions, temperature):
    y = 0.3 * normal(1, steps * actions, seed=5)
    ours = Softmin(samples=500, rounds=1, temperature=temperature, relative=False, width=actions)
    low, high = torch.full((actions,), -1.2).double(), torch.full((actions,), 1.2).double()
    path = y.view(steps, actions)
    theirs = MPPI(
        lambda state, a, t: state, lambda state, a, t: (a - path[t]).square().sum(-1), 1,
        torch.eye(actions).double(), num_samples=500, horizon=steps, lambda_=temperature, u_min=low, u_max=high,
        U_init=torch.zeros(steps, actions).double(), step_dependent_dynamics=True,
    )  # fmt: skip
    drawn = noise(y, ours, generator(3))
    theirs._sample_noise = lambda shape: drawn.view(*shape, actions)
    theirs.command(torch.zeros(1).double(), shift_nominal_trajectory=False)

    def cost(z):
        return (z - y[:, None]).square().sum(-1)

    found = mppi(cost, torch.zeros_like(y), generator(3), lambda z: z.clamp(-1.2, 1.2), spread=1.0, sampling=ours)
    assert found.trace[1] < found.trace[0]  # the mean is better than every sample, so that it is what is returned
    torch.testing.assert_close(found.argmin.view(steps, actions), theirs.U, rtol=0, atol=1e-7)


@PROPERTY
@given(SEEDS, st.floats(0.01, 100), st.floats(0.05, 5))
def test_weights_scale_with_temperature_and_relative_ones_with_nothing(seed, factor, temperature):
    values = normal(3, 20, seed=seed)
    found = weights(values, temperature)
    direct = (-(values - values.amin(1, keepdim=True)) / temperature).exp()
    torch.testing.assert_close(found, direct / direct.sum(1, keepdim=True))
    torch.testing.assert_close(weights(factor * values + 7, factor * temperature), found)
    relative = weights(values, temperature, relative=True)
    torch.testing.assert_close(weights(factor * values - 7, temperature, relative=True), relative)
    torch.testing.assert_close(relative, weights(values / values.std(1, False, keepdim=True), temperature))
    count = [float(1 / weights(values, t).square().sum(1).mean()) for t in (1e-4, 0.1, 1.0, 1e4)]
    assert count == sorted(count) and count[0] < 1.01 and count[-1] > 19.9  # from the best alone to all alike


def test_infinite_costs_weigh_nothing_and_are_no_elites():
    values = torch.tensor([[1.0, torch.inf, 1.0], [torch.inf] * 3, [-1e9, 0.0, torch.inf], [2.0, 2.0, 2.0]])
    for relative in (False, True):
        found = weights(values, 0.05, relative)
        torch.testing.assert_close(found[[0, 1]], torch.tensor([[0.5, 0, 0.5], [1 / 3] * 3]))
        torch.testing.assert_close(found[[2, 3]], torch.tensor([[1.0, 0, 0], [1 / 3] * 3]))
    seen = []

    def cost(z):
        """Few candidates are finite; the second problem has none at all."""
        seen.append(z)
        value = torch.where(z[..., 0] > 1, z.square().sum(-1), torch.inf)
        return torch.stack([value[0], torch.full_like(value[1], torch.inf)])

    start, sampling = torch.zeros(2, 2), Elites(samples=200, rounds=3, elites=100, floor=0.0)
    found = cem(cost, start, generator(), spread=1.0, sampling=sampling)
    assert found.value[0] < 2 and found.value[1] == torch.inf
    allowed = seen[0][0][seen[0][0][:, 0] > 1]
    assert len(allowed) < 50 and (seen[1][0].mean(0) - allowed.mean(0)).norm() < 0.2
    assert seen[2][1].mean(0).norm() < 0.3 and (seen[2][1].std(0) - 1).abs().max() < 0.2  # as it was


@pytest.mark.parametrize("name", BOTH)
def test_budget_is_exact_the_trace_ends_at_the_value_and_no_candidate_leaves(name):
    y, asked, best = 3 * normal(5, 4), [], []

    def cost(z):
        assert z.shape[0] == 5 and (z.abs() <= 0.7).all()
        asked.append(z.shape[1])
        values = bowl(y)(z)
        best.append(values.amin(1))
        return values

    found = BOTH[name](cost, torch.ones_like(y), generator(), lambda z: z.clamp(-0.7, 0.7))
    assert sum(asked) == 64 * 4 + (name == "mppi") and len(found.trace) == len(asked)
    assert torch.equal(found.value, torch.stack(best).amin(0)) and torch.equal(found.trace[-1], found.value)
    assert torch.equal(found.trace, torch.stack(best).cummin(0).values)
    torch.testing.assert_close(bowl(y)(found.argmin[:, None])[:, 0], found.value)


def test_cem_is_never_worse_than_its_start_and_elites_that_are_kept_count():
    y = normal(6, 4)
    poor = Elites(samples=2, rounds=1, elites=1)
    found = cem(bowl(y), y, generator(), spread=5.0, sampling=poor)
    assert torch.equal(found.argmin, y)
    traces = []
    for keep in (0, 10):
        seen = []
        cem(lambda z, seen=seen: (seen.append(z), bowl(y)(z))[1], 0 * y, generator(), spread=1.0,
            sampling=Elites(samples=20, rounds=2, elites=10, keep=keep))  # fmt: skip
        traces.append(seen)
    assert torch.equal(traces[0][0], traces[1][0]) and torch.equal(traces[0][1], traces[1][1])
    third = []
    for keep in (0, 10):
        seen = []
        cem(lambda z, seen=seen: (seen.append(z), bowl(y)(z))[1], 0 * y, generator(), spread=1.0,
            sampling=Elites(samples=20, rounds=3, elites=10, keep=keep))  # fmt: skip
        third.append(seen[2])
    assert not torch.equal(*third)  # what the first round kept shapes the third


@pytest.mark.parametrize("name", BOTH)
def test_with_shared_noise_a_problem_does_not_depend_on_its_batch(name):
    y, minimize = normal(4, 8), BOTH[name]
    sampling = type(minimize.keywords["sampling"])(samples=64, rounds=4, shared=True, color=1.0, width=2)
    together = minimize(bowl(y), 0 * y, generator(1), sampling=sampling)
    for b in range(4):
        alone = minimize(bowl(y[b : b + 1]), 0 * y[:1], generator(1), sampling=sampling)
        torch.testing.assert_close(alone.argmin[0], together.argmin[b])
        torch.testing.assert_close(alone.trace[:, 0], together.trace[:, b])
    apart = minimize(bowl(y[:1].expand(4, -1)), 0 * y, generator(1))
    assert not torch.allclose(apart.argmin[0], apart.argmin[1])  # without, problems draw their own


@pytest.mark.parametrize("steps", [16, 15, 2, 1])
@pytest.mark.parametrize("color", [0.0, 1.0, 2.5])
def test_noise_has_the_spectrum_that_is_asked_for(steps, color):
    drawn = noise(torch.zeros(3, steps * 2).double(), Sampling(4000, color=color, width=2), generator())
    drawn = drawn.view(-1, steps, 2)
    assert (drawn.var(0) - 1).abs().max() < 0.08 and drawn.mean(0).abs().max() < 0.05
    assert (drawn[..., 0] * drawn[..., 1]).mean(0).abs().max() < 0.05  # dimensions are independent
    power = torch.fft.rfft(drawn, dim=1).abs().square().mean((0, 2))
    frequency = torch.fft.rfftfreq(steps).double().clamp(min=1 / steps)
    expected = frequency**-color
    torch.testing.assert_close(power / power.sum(), expected / expected.sum(), rtol=0.06, atol=0)


def test_shifted_is_what_is_left():
    plan = normal(2, 3, 1)
    assert torch.equal(shifted(plan), torch.cat([plan[:, 1:], torch.zeros(2, 1, 1)], 1))
    assert torch.equal(shifted(plan, 0), plan) and torch.equal(shifted(plan, 9), 0 * plan)


@pytest.mark.parametrize("name", BOTH)
def test_generators_decide_and_nothing_else_is_touched(name):
    y, before = normal(3, 4), torch.get_rng_state()
    first, again, other = (BOTH[name](bowl(y), 0 * y, generator(seed)) for seed in (1, 1, 2))
    assert all(map(torch.equal, first, again)) and not torch.equal(first.argmin, other.argmin)
    assert torch.equal(torch.get_rng_state(), before)
    empty = BOTH[name](lambda z: z.sum(-1), y[:0], generator())
    assert empty.argmin.shape == (0, 4) and empty.value.shape == (0,)
    with pytest.raises(ValueError, match="^cost: expected numbers, found nan"):
        BOTH[name](lambda z: z.sum(-1).log(), y - 9, generator())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Elites(samples=8, elites=9), "elites: expected 1 to 8 samples, found 9"),
        (lambda: Elites(elites=0), "elites: expected 1 to"),
        (lambda: Elites(elites=4, keep=5), "keep: expected 0 to 4 elites"),
        (lambda: Elites(floor=-1), "floor: expected"),
        (lambda: Softmin(temperature=0.0), "temperature: expected a number above 0"),
        (lambda: weights(torch.zeros(1, 2), -1.0), "temperature: expected"),
        (lambda: Softmin(samples=0), "samples: expected at least 1"),
        (lambda: Elites(rounds=0), "rounds: expected at least 1"),
        (lambda: Sampling(color=-1), "color: expected"),
        (
            lambda: cem(torch.sum, torch.zeros(2, 5), generator(), spread=1.0, sampling=Elites(width=2)),
            "start: .*width",
        ),
        (lambda: mppi(torch.sum, torch.zeros(5), generator(), spread=1.0, sampling=Softmin()), "start: expected"),
        (lambda: mppi(torch.sum, torch.zeros(1, 5), generator(), spread=-1.0, sampling=Softmin()), "spread: expected"),
        (lambda: shifted(torch.zeros(1, 2, 3), -1), "by: expected at least 0"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
