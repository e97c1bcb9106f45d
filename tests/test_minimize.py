"""Minimizers against brute force, closed forms and scikit-learn; what they owe to every cost.

Factors stated beforehand: for n targets scikit-learn's Lasso minimizes ‖y − Wz‖² / (2n) + a ‖z‖₁, our cost divided by
2n at α = 2n a.
"""

import copy
import math
import pickle
import re
import warnings

import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

from jepa.energy import energy
from jepa.minimize import ConvergenceWarning, exhaustive, fista, gradient, l1, multistart, refined
from jepa.predictors import MLP

SEEDS = st.integers(0, 10_000)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)  # what converges slowest must not be luck


def waves(y):
    """A cost of period 2π for every row of y [B, 6], its slope at most Σ k |a_k|; sums alone, to the bit per row."""
    weights, phases = y[:, :3], y[:, 3:]

    def cost(z):
        total = 0
        for k in range(3):
            total = total + weights[:, None, k] * torch.cos((k + 1) * z[..., 0] + phases[:, None, k])
        return total

    return cost


def descend(cost, start, steps=200):
    return gradient(cost, start, steps)


def shrink(cost, start, steps=200):
    """FISTA without a penalty."""
    return fista(cost, l1(0.0), start, steps)


@PROPERTY
@given(SEEDS, st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_exhaustive_is_a_loop_over_candidates(seed, problems, count, shared):
    candidates = normal(1 if shared else problems, count, 2, seed=seed).round(decimals=1)
    y = normal(problems, 2, seed=seed + 1)
    found = exhaustive(lambda z: energy(y, z), candidates)
    for b in range(problems):
        values = [float((y[b] - z).square().sum()) for z in candidates[0 if shared else b]]
        assert found.value[b].item() == pytest.approx(min(values), rel=1e-12)
        assert torch.equal(found.argmin[b], candidates[0 if shared else b, values.index(min(values))])
    assert torch.equal(found.trace, found.value.unsqueeze(0))


def test_exhaustive_takes_the_first_of_a_tie():
    candidates = torch.tensor([[[3.0], [-1.0], [1.0], [-1.0]]])
    assert exhaustive(lambda z: z.square().sum(-1), candidates).argmin.item() == -1.0
    assert exhaustive(lambda z: z.square().sum(-1), candidates.flip(1)[:, 1:]).argmin.item() == 1.0


@PROPERTY
@given(SEEDS, st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from([1e-6, 0.1, 1e6]))
def test_gradient_solves_the_ridge_problem_from_any_first_step(seed, alpha, rate):
    decoder, y = normal(8, 3, seed=seed), normal(5, 8, seed=seed + 1)

    def cost(z):
        return energy(y, z @ decoder.T, alpha * z.square().sum(-1))

    found = gradient(cost, normal(5, 2, 3, seed=seed + 2), 300, rate)
    exact = torch.linalg.solve(decoder.T @ decoder + alpha * torch.eye(3), decoder.T @ y.T).T
    torch.testing.assert_close(found.value, cost(exact.unsqueeze(1)).squeeze(1), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.argmin, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("targets, latents", [(12, 5), (6, 10)])
@pytest.mark.parametrize("alpha", [0.3, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_fista_is_the_lasso_of_scikit_learn(targets, latents, alpha, seed):
    scales = torch.linspace(0.5, 2, latents)
    decoder, y = normal(targets, latents, seed=seed) * scales, normal(4, targets, seed=seed + 9)
    witness = Lasso(alpha=alpha / (2 * targets), fit_intercept=False, tol=1e-14, max_iter=100_000)
    witness.fit(decoder.numpy(), y.T.numpy())
    theirs = torch.from_numpy(witness.coef_)
    found = fista(lambda z: energy(y, z @ decoder.T), l1(alpha), torch.zeros(4, 1, latents).double(), steps=2000)
    value = (y - theirs @ decoder.T).square().sum(-1) + alpha * theirs.abs().sum(-1)
    torch.testing.assert_close(found.value, value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.argmin, theirs, rtol=0, atol=1e-5)
    assert ((found.argmin.abs() < 1e-8) == (theirs.abs() < 1e-8)).all()


@pytest.mark.parametrize("lipschitz", [1e-12, 1e-3, 1.0, 300.0, 1e4])
def test_fista_forgives_a_bad_first_guess_of_the_constant(lipschitz):
    scales = torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64)  # the slope's constant is 200
    y, start = normal(6, 3), normal(6, 2, 3, seed=1)
    found = fista(lambda z: energy(y, z * scales), l1(0.5), start, 2000, lipschitz)
    exact = y.sign() * (y.abs() - 0.25 / scales).clamp(min=0) / scales
    torch.testing.assert_close(found.argmin, exact, rtol=0, atol=1e-6)


def test_fista_falls_with_the_square_of_the_steps():
    # Beck & Teboulle 2009, theorem 4.4: the gap after k steps is at most 2 L ‖z₀ − z*‖² / (k + 1)². Here L = 2, and
    # without momentum the gap after 150 steps is 7 times that.
    curvature, start = torch.tensor([1, 1 / 300]).double(), torch.tensor([[[0.1, 1.0]]]).double()
    trace = shrink(lambda z: (curvature * z.square()).sum(-1), start, 150).trace[:, 0]
    assert (trace <= 4 * 1.01 / torch.arange(1, 152) ** 2).all()


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_proximal_map_of_l1_minimizes_what_it_stands_for(alpha):
    penalty, step = l1(alpha), torch.tensor([0.4], dtype=torch.float64)
    u = torch.linspace(-3, 3, 6001, dtype=torch.float64).unsqueeze(1)
    for z in torch.tensor([-2.5, -0.3, 0.0, 0.2, 1.1], dtype=torch.float64).split(1):
        best = u[(penalty.value(u) + (u - z).square().sum(-1) / (2 * step)).argmin()]
        torch.testing.assert_close(penalty.proximal(z, step), best, rtol=0, atol=6e-4)
    assert penalty.value(torch.tensor([-2.0, 3.0])).item() == pytest.approx(5 * alpha)


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
def test_penalty_can_be_stored(copied):
    penalty, z, step = copied(l1(0.3)), normal(4, 5), normal(4, 1, seed=1).abs()
    assert penalty == l1(0.3) and penalty != l1(0.4)
    assert torch.equal(penalty.value(z), l1(0.3).value(z))
    assert torch.equal(penalty.proximal(z, step), l1(0.3).proximal(z, step))


@PROPERTY
@given(SEEDS)
@pytest.mark.parametrize("minimizer", [descend, shrink])
def test_minimum_is_that_of_a_fine_grid(minimizer, seed):
    y, count = normal(4, 6, seed=seed), 20_000
    cost, restarts = waves(y), torch.linspace(0, 2 * math.pi, 25, dtype=torch.float64)[:-1].view(1, 24, 1)
    found = minimizer(cost, restarts.expand(4, -1, -1), 60)
    on_grid = cost(torch.linspace(0, 2 * math.pi, count, dtype=torch.float64).view(1, -1, 1)).amin(1)
    steepest = (y[:, :3].abs() * torch.tensor([1, 2, 3])).sum(1)
    assert (found.value <= on_grid + 1e-7).all()
    assert (found.value >= on_grid - steepest * math.pi / count).all()


@PROPERTY
@given(SEEDS, st.integers(0, 30))
@pytest.mark.parametrize("minimizer", [exhaustive, descend, shrink])
def test_value_is_the_cost_of_the_argmin_and_the_trace_ends_there(minimizer, seed, steps):
    cost, start = waves(normal(3, 6, seed=seed)), 4 * normal(3, 2, 1, seed=seed + 1)
    found = minimizer(cost, start) if minimizer is exhaustive else minimizer(cost, start, steps)
    torch.testing.assert_close(found.value, cost(found.argmin.unsqueeze(1)).squeeze(1), rtol=1e-12, atol=1e-12)
    assert torch.equal(found.trace[-1], found.value)
    assert (found.trace.diff(dim=0) <= 0).all()
    assert torch.equal(found.trace[0], cost(start).amin(1))
    assert len(found.trace) == (1 if minimizer is exhaustive else steps + 1)


@pytest.mark.parametrize("minimizer", [exhaustive, descend, shrink])
def test_problems_of_a_batch_are_independent(minimizer):
    y, start = normal(5, 6), normal(5, 3, 1, seed=1)
    y[0] *= 1000  # one problem that needs far smaller steps
    together = minimizer(waves(y), start)
    for b in range(5):
        alone = minimizer(waves(y[b : b + 1]), start[b : b + 1])
        assert torch.equal(alone.argmin[0], together.argmin[b])
        assert torch.equal(alone.trace[:, 0], together.trace[:, b])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("minimizer", [exhaustive, descend, shrink])
def test_result_carries_no_graph(minimizer, mode):
    weight, start = torch.ones(2, requires_grad=True), normal(3, 2, 2).float().requires_grad_()
    with mode():
        found = minimizer(lambda z: (weight * z - 1).square().sum(-1), start)
    assert not any(tensor.requires_grad for tensor in found)
    assert weight.grad is None and start.grad is None


ALL = {
    "exhaustive": exhaustive,
    "gradient": lambda cost, start: gradient(cost, start, 20),
    "refined": lambda cost, start: refined(cost, start[:, 0], 20),
    "multistart": lambda cost, start: multistart(cost, start[0], 2, 20, 0.1),
    "fista": lambda cost, start: fista(cost, l1(0.1), start, 20),
}


@settings(PROPERTY, max_examples=10)
@given(SEEDS)
@pytest.mark.parametrize("name", ALL)
def test_inference_mode_changes_nothing(name, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        predictor, x, y, start = MLP(4, 3, latent=2, hidden=[8]), *map(torch.randn, [(5, 4), (5, 3), (5, 3, 2)])

    def found():
        s, t = 2 * x, 2 * y  # made in inference mode autograd refuses to save them
        return ALL[name](lambda z: energy(t, t.unsqueeze(1) * predictor(s[:, None], s[:, None, :0], z)), start)

    with torch.no_grad():
        expected = found()
    with torch.inference_mode():
        assert all(map(torch.equal, found(), expected))
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
    assert torch.is_grad_enabled() and all(parameter.grad is None for parameter in predictor.parameters())


@pytest.mark.parametrize("name", ["exhaustive", "gradient", "refined", "multistart"])
def test_no_number_is_read_on_the_way(name):
    found = ALL[name](lambda z: z.square().sum(-1).expand(3, -1), torch.empty(3, 4, 2, device="meta"))
    assert found.argmin.shape == (3, 2) and found.value.shape == found.trace.shape[1:] == (3,)
    assert found.value.device.type == "meta"  # where there is none to be read


def test_step_to_a_non_finite_cost_is_rejected():
    def cost(z):
        return (z - z.log()).sum(-1)  # nan below 0, where the first steps lead

    start = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    for found in (gradient(cost, start, 100, rate=10.0), fista(cost, l1(0.0), start, 100, lipschitz=0.1)):
        assert found.argmin.item() == pytest.approx(1.0, abs=1e-5)


def square(z):
    return z.square().sum(-1)


@pytest.mark.parametrize("minimizer, argument", [(exhaustive, "candidates"), (descend, "start"), (shrink, "start")])
def test_cost_or_shape_without_a_minimum_is_named(minimizer, argument):
    with pytest.raises(ValueError, match="^cost: expected numbers, found nan in 1 of 4 values"):
        minimizer(lambda z: z.log().sum(-1), torch.tensor([[[-1.0], [1.0]], [[2.0], [3.0]]]))
    for shape in ((3, 0, 2), (3, 2)):  # without a candidate
        with pytest.raises(ValueError, match=rf"^{argument}: expected shape \[B, ., N\].* found \[3, "):
            minimizer(square, torch.zeros(shape))


ONE = torch.zeros(1, 1, 1)


@pytest.mark.parametrize(
    ("call", "values", "message"),
    [
        (lambda wrong: shrink(square, ONE, wrong), [-1], "steps: expected at least 0"),
        (lambda wrong: descend(square, ONE, wrong), [-1], "steps: expected at least 0"),
        (lambda wrong: fista(square, l1(1.0), ONE, 3, wrong), [0.0, -1.0, math.nan], "lipschitz: expected a number"),
        (lambda wrong: fista(square, l1(1.0), ONE, 3, 1.0, wrong), [-1e-9, math.nan], "tolerance: expected a number"),
        (lambda wrong: gradient(square, ONE, 3, 0.1, wrong), [-1e-9, math.nan], "tolerance: expected a number of"),
        (l1, [-1.0, math.nan], "alpha: expected a number of at least 0"),
    ],
)  # fmt: skip
def test_constant_that_no_minimizer_has_is_named(call, values, message):
    for wrong in values:
        with pytest.raises(ValueError, match=f"^{message}.*, found {wrong}"):
            call(wrong)


TOLERANT = [  # the same minimizers with a tolerance
    lambda cost, start, steps, tolerance: gradient(cost, start, steps, tolerance=tolerance),
    lambda cost, start, steps, tolerance: fista(cost, l1(0.0), start, steps, tolerance=tolerance),
]
tolerant = pytest.mark.parametrize("minimizer", TOLERANT, ids=["gradient", "fista"])


def bowl(problems, seed=0):
    """Return a convex quadratic cost of three numbers and where it is least, both [B, ...]."""
    decoder, y = normal(8, 3, seed=seed), normal(problems, 8, seed=seed + 1)
    return lambda z: energy(y, z @ decoder.T), torch.linalg.solve(decoder.T @ decoder, decoder.T @ y.T).T


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
@tolerant
def test_tolerance_stops_at_the_first_five_rounds_without_a_fall_in_any_problem(minimizer, tolerance):
    cost, _ = bowl(6)
    start = 3 * normal(6, 2, 3, seed=2)
    whole, found = minimizer(cost, start, 1000, None), minimizer(cost, start, 1000, tolerance)
    trace = whole.trace.tolist()
    stop = next(
        i
        for i in range(5, 1001)
        if all(was - now <= tolerance * (1 + abs(now)) for was, now in zip(trace[i - 5], trace[i], strict=True))
    )
    assert torch.equal(found.trace, whole.trace[: stop + 1]) and stop < 1000
    assert len(whole.trace) == 1001  # without a tolerance, as many as asked for


@tolerant
def test_warning_tells_where_the_cost_still_fell(minimizer):
    cost, exact = bowl(64)
    start = exact.unsqueeze(1).clone()
    start[[7, 20, 41]] += torch.tensor([0.1, 50.0, 0.2]).view(3, 1, 1)  # all others begin where they end
    with pytest.warns(ConvergenceWarning) as caught:
        found = minimizer(cost, start, 6, 1e-9)
    fall = found.trace[1] - found.trace[6]
    falling = fall > 1e-9 * (1 + found.value.abs())
    assert len(caught) == 1 and caught[0].filename == __file__
    name, steps, some, of, last, fell, rounds, tolerance = re.fullmatch(
        r"(\w+): not converged after (\d+) steps in (\d+) of (\d+) problems; the last value of the worst is (\S+), and "
        r"it still fell by (\S+) over the last (\d+) steps \(tolerance (\S+)\): give it more steps",
        str(caught[0].message),
    ).groups()
    assert name == ("gradient", "fista")[TOLERANT.index(minimizer)] and (steps, rounds) == ("6", "5")
    assert (int(some), int(of), float(tolerance)) == (int(falling.sum()), 64, 1e-9) and 1 <= int(some) <= 3
    worst = (fall / (1 + found.value.abs())).argmax()
    assert float(last) == pytest.approx(float(found.value[worst]), rel=1e-4)
    assert float(fell) == pytest.approx(float(fall[worst]), rel=1e-2)


@pytest.mark.parametrize("steps", [0, 1, 3, 12])
@tolerant
def test_tolerance_that_is_not_met_changes_nothing_but_warns(minimizer, steps):
    cost, _ = bowl(5)
    start = 9 * normal(5, 2, 3, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = minimizer(cost, start, steps, None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = minimizer(cost, start, steps, 1e-30)
    assert len(caught) == (steps > 0)
    assert all(map(torch.equal, whole, found))


@tolerant
def test_cost_that_stays_infinite_ends_the_search(minimizer):
    found = minimizer(lambda z: (0 * z).sum(-1) + math.inf, torch.ones(2, 1, 1).double(), 50, 1e-6)
    assert found.value.isinf().all() and len(found.trace) < 50
