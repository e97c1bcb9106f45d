"""Latents: what they hold, samples against the density exp(−R), and inference against brute force."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from jepa.encoders import MLP as Encoder
from jepa.encoders import Identity
from jepa.energy import distance
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete, NoLatent
from jepa.latents.quantized import FiniteScalar, VectorQuantized
from jepa.latents.sparse import Sparse
from jepa.latents.stochastic import Dropped, Gaussian, Noisy
from jepa.measures.collapse import effective_rank
from jepa.model import JEPA, Representations
from jepa.predictors import MLP as Predictor

SEEDS = st.integers(0, 10_000)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)  # what converges slowest must not be luck


def samples(latent, *shape, seed=0):
    return latent.sample(shape, torch.Generator().manual_seed(seed)).double().numpy()


@pytest.mark.parametrize("latent, bits", [
    (NoLatent(), 0), (Discrete(1), 0), (Discrete(2), 1), (Discrete(8), 3), (Discrete(5), math.log2(5)),
    (LowDimensional(1), math.inf), (LowDimensional(3, alpha=2.0), math.inf),
])  # fmt: skip
def test_bits_are_the_logarithm_of_the_number_of_values(latent, bits):
    assert latent.bits == pytest.approx(bits)


def test_no_latent_is_the_empty_vector():
    found = NoLatent().infer(lambda z: distance(normal(3, 1, 2), normal(3, 1, 2, seed=1)))
    assert found.argmin.shape == (3, 0)
    torch.testing.assert_close(found.value, (normal(3, 2) - normal(3, 1, 2, seed=1)[:, 0]).square().sum(1))
    assert samples(NoLatent(), 4, 2).shape == (4, 2, 0)


@pytest.mark.parametrize("size", [2, 5])
def test_samples_of_a_discrete_latent_are_its_codes_equally_often(size):
    drawn = samples(Discrete(size), 50, 100).reshape(-1, size)
    assert ((drawn == 0) | (drawn == 1)).all() and (drawn.sum(1) == 1).all()
    assert stats.chisquare(drawn.sum(0)).pvalue > 0.001
    following = np.histogram2d(drawn[:-1].argmax(1), drawn[1:].argmax(1), bins=size)[0]
    assert stats.chi2_contingency(following).pvalue > 0.001


@pytest.mark.parametrize("size, alpha", [(1, 0.5), (3, 0.02), (4, 7.0)])
def test_samples_of_a_continuous_latent_have_the_density_of_its_regularizer(size, alpha):
    latent = LowDimensional(size, alpha)
    drawn = samples(latent, 40, 50).reshape(-1, size)
    for i in range(size):
        assert stats.kstest(drawn[:, i], stats.norm(scale=1 / math.sqrt(2 * alpha)).cdf).pvalue > 0.001
    # of the density exp(−R) with R quadratic in d numbers, R itself has the distribution Gamma(d / 2)
    assert stats.kstest(latent.regularize(torch.from_numpy(drawn)), stats.gamma(size / 2).cdf).pvalue > 0.001
    if size > 1:
        assert np.abs(np.corrcoef(drawn.T) - np.eye(size)).max() < 0.07


@pytest.mark.parametrize("latent", [Discrete(3), LowDimensional(2, alpha=1.0)])
def test_same_generator_same_samples(latent):
    assert (samples(latent, 9) == samples(latent, 9)).all()
    assert (samples(latent, 9) != samples(latent, 9, seed=1)).any()


def test_no_density_without_a_regularizer():
    with pytest.raises(ValueError, match=r"^alpha: expected a number above 0 to sample from exp\(−R\), found 0"):
        samples(LowDimensional(2), 3)


def test_regularizer_is_quadratic_where_there_is_one():
    z = normal(3, 4, 2)
    torch.testing.assert_close(LowDimensional(2, 0.3).regularize(z), 0.3 * (z[..., 0] ** 2 + z[..., 1] ** 2))
    for latent in (Discrete(2), LowDimensional(2)):
        assert latent.regularize(z).tolist() == [[0.0] * 4] * 3


@PROPERTY
@given(SEEDS, st.integers(1, 7))
def test_discrete_inference_tries_every_code(seed, size):
    table = normal(5, size, seed=seed)  # the cost of each code
    found = Discrete(size).infer(lambda z: (z * table.unsqueeze(1)).sum(-1))
    for b in range(5):
        best = min(range(size), key=lambda k: table[b, k])
        assert found.value[b] == table[b, best]
        assert found.argmin[b].tolist() == [float(k == best) for k in range(size)]


@pytest.mark.parametrize("size", [1, 2, 16])
@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_inference_over_codes_of_any_length_is_brute_force(size, scale):
    latent = Discrete(size, scale).double()
    decoder, curve, y = normal(6, size), normal(3, 6, seed=1), normal(20, 3, seed=2)

    def outcome(z):
        return (z @ decoder.T).tanh() @ curve.T

    found, tried = latent.infer(lambda z: distance(y.unsqueeze(1), outcome(z))), set()
    for b in range(20):
        costs = []
        for k in range(size):
            code = torch.zeros(size, dtype=torch.float64)
            code[k] = scale
            costs.append((y[b] - outcome(code)).square().sum().item())
        best = min(range(size), key=costs.__getitem__)
        tried.add(best)
        assert found.value[b].item() == pytest.approx(costs[best], rel=1e-12)
        assert found.argmin[b].tolist() == [scale * (k == best) for k in range(size)]
    assert len(tried) >= min(size, 4)  # the answer is not always the same code


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_scale_is_the_length_of_every_code(scale):
    latent = Discrete(3, scale)
    assert latent.codes.tolist() == [[scale, 0, 0], [0, scale, 0], [0, 0, scale]]
    assert latent.bits == pytest.approx(math.log2(3)) and latent.width == 3
    drawn = samples(latent, 300)
    assert ((drawn == 0) | (drawn == scale)).all() and (drawn.sum(0) > 0).all() and (drawn.sum(1) == scale).all()
    assert torch.equal(Discrete(3).codes, torch.eye(3))


@PROPERTY
@given(SEEDS, st.sampled_from([0.0, 0.1, 2.0]), st.sampled_from([1, 3]))
def test_continuous_inference_solves_the_ridge_problem(seed, alpha, restarts):
    latent = LowDimensional(2, alpha, restarts=restarts, steps=200).double()
    decoder, y = normal(6, 2, seed=seed), normal(5, 6, seed=seed + 1)
    found = latent.infer(lambda z: distance(y.unsqueeze(1), z @ decoder.T))
    exact = torch.linalg.solve(decoder.T @ decoder + alpha * torch.eye(2), decoder.T @ y.T).T
    torch.testing.assert_close(found.argmin, exact, rtol=0, atol=1e-3)
    assert (found.trace.diff(dim=0) <= 1e-12).all()


def chained(size, layers, **options):
    """Return a latent behind a chain whose matrices are drawn from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LowDimensional(size, layers=layers, **options).double()


@pytest.mark.parametrize("layers", [0, 1, 2, 5])
def test_chain_is_the_product_of_its_matrices(layers):
    latent, z = chained(3, layers), normal(7, 3)
    product = torch.eye(3).double()
    for matrix in latent.state_dict().values():
        product = matrix @ product
    assert len(latent.state_dict()) == layers and sum(p.numel() for p in latent.parameters()) == 9 * layers
    torch.testing.assert_close(latent.predictor_input(z).detach(), (z @ product.T).unsqueeze(-2))
    proposed, cost = latent.constrain(z)
    assert torch.equal(proposed, z) and not cost.any() and cost.shape == (7,)
    spread = np.std(chained(200, 3).predictor_input(normal(500, 200)).detach().numpy())
    assert 0.8 < spread < 1.25  # the scale of z survives


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_chain_of_known_rank_lets_no_more_dimensions_through(rank):
    latent, z = chained(4, 2, alpha=0.3), normal(50, 4)
    with torch.no_grad():
        latent.deep_linear[0].weight.copy_(torch.diag(torch.tensor([1.0] * rank + [0.0] * (4 - rank))))
        given = latent.predictor_input(z)[:, 0]
    assert np.linalg.matrix_rank(given.numpy(), tol=1e-9) == rank
    torch.testing.assert_close(latent.regularize(z), 0.3 * z.square().sum(-1))  # R is of z, not of what is given


@pytest.mark.parametrize("rank", [1, 2])
def test_inference_through_a_chain_finds_the_best_point_of_its_range(rank):
    latent, target = chained(3, 2, steps=500), normal(6, 3)
    left, right = normal(3, rank, seed=1), normal(rank, 3, seed=2)
    with torch.no_grad():
        latent.deep_linear[1].weight.copy_(left @ right)
        latent.deep_linear[0].weight.copy_(torch.eye(3))
    found = latent.infer(lambda z: distance(target.unsqueeze(1), latent.predictor_input(z)[..., 0, :]))
    basis = torch.linalg.qr(left).Q
    given = latent.predictor_input(found.argmin)[:, 0].detach()
    torch.testing.assert_close(given, target @ basis @ basis.T, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.value, (target - target @ basis @ basis.T).square().sum(1), rtol=0, atol=1e-6)


def test_gradient_descent_on_a_chain_prefers_few_dimensions():
    """Where eight numbers are mapped on two that are wanted, the rest stays with one matrix and fades with a chain of
    four."""
    z = normal(400, 8)
    wanted = z @ normal(8, 2, seed=1) @ normal(2, 8, seed=2) / 8
    ranks = []
    for layers in (1, 4):
        latent = chained(8, layers)
        with torch.no_grad():
            for matrix in latent.parameters():
                matrix *= 0.5
        reader = normal(8, 8, seed=3) / 3
        optimizer = torch.optim.SGD(latent.parameters(), 0.05)
        for _ in range(1500):
            loss = ((latent.predictor_input(z)[:, 0] - wanted) @ reader[:, :3]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ranks.append(effective_rank(latent.predictor_input(z)[:, 0].detach()))
    assert ranks[1] < 0.7 * ranks[0] and ranks[1] < 3.5


@PROPERTY
@given(SEEDS)
def test_continuous_inference_finds_the_deepest_of_many_valleys(seed):
    y, side = normal(4, 3, seed=seed), torch.linspace(-4, 4, 8001, dtype=torch.float64)
    latent = LowDimensional(1, alpha=0.1, starts=64, restarts=64, steps=40).double()

    def D(z):  # from a curve that winds through three dimensions
        return distance(y.unsqueeze(1), torch.cat([(3 * z).cos(), (2 * z).sin(), z], -1))

    on_grid = (D(side.view(1, -1, 1)) + 0.1 * side.square()).amin(1)
    torch.testing.assert_close(latent.infer(D).value, on_grid, rtol=0, atol=1e-4)


@pytest.mark.parametrize("restarts, expected", [(1, 0.0), (2, -1.0)])
def test_restarts_are_the_cheapest_of_the_starts(restarts, expected):
    latent = LowDimensional(1, starts=16, restarts=restarts, steps=100).double()
    wide, narrow = latent.points.amin(), latent.points.amax() + 0.2  # the cheapest start is in the wide valley
    found = latent.infer(lambda z: torch.minimum((z - wide).square(), 26 * (z - narrow).square() - 1).squeeze(-1))
    assert found.value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("starts, worst", [(2, 4.0), (64, 0.5), (512, 0.1)])
def test_more_starts_lie_closer(starts, worst):
    latent = LowDimensional(1, starts=starts, steps=0).double()
    y = torch.linspace(-1.5, 1.5, 50, dtype=torch.float64).unsqueeze(1)
    found = latent.infer(lambda z: distance(y.unsqueeze(1), z))
    assert found.value.max() <= worst**2
    torch.testing.assert_close(found.value, (y - latent.points.T).square().amin(1))


def test_starts_are_those_of_a_standard_normal_and_always_the_same():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before, points = torch.get_rng_state(), LowDimensional(3, starts=256).points
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(points, LowDimensional(3, starts=256).points)
    assert points.isfinite().all()
    for i in range(3):
        assert stats.kstest(points[:, i].double(), stats.norm.cdf).statistic < 1 / 64  # random ones reach about 1 / 18


class Copy(nn.Module):
    """The predictor that copies z into the first numbers of s̃, zeros after them."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, s, a, z):
        z = z.expand(len(s), -1, -1)
        return nn.functional.pad(z, (0, self.outputs - z.shape[-1]))


def copied(latent, s):
    """Return F of representations where the predictor copies z."""
    model = JEPA(Identity(4), Identity(4), Copy(4), latent).double().eval()
    return model.minimum(s.s_x, s.s_x[:, :0], s.s_y).value


PAIRS = Representations(normal(50, 4), 5 * normal(50, 4, seed=1))  # far more than a model would see, and of any kind


@pytest.mark.parametrize("latent", [LowDimensional(4, steps=30), Noisy(4, 0.0, 0.0, draws=1, steps=30)])
def test_free_latent_that_a_predictor_copies_leaves_no_energy_anywhere(latent):
    assert copied(latent, PAIRS).abs().max() < 1e-12  # LeCun 2022, section 4.5: dim z = dim s_y


@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_regularizer_keeps_a_copied_latent_from_leaving_no_energy(alpha):
    # min over z of ‖y − z‖² + α ‖z‖² is at z = y / (1 + α)
    expected = alpha / (1 + alpha) * PAIRS.s_y.square().sum(1)
    torch.testing.assert_close(copied(LowDimensional(4, alpha, steps=60), PAIRS), expected, rtol=1e-9, atol=1e-12)
    size = PAIRS.s_y.abs()  # of ‖y − z‖² + α ‖z‖₁, number by number: Huber's function
    huber = torch.where(size > alpha / 2, alpha * size - alpha**2 / 4, size.square()).sum(1)
    torch.testing.assert_close(copied(Sparse(4, alpha), PAIRS), huber, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [1, 3])
def test_fewer_dimensions_keep_a_copied_latent_from_leaving_no_energy(size):
    expected = PAIRS.s_y[:, size:].square().sum(1)
    torch.testing.assert_close(copied(LowDimensional(size, steps=60), PAIRS), expected, rtol=1e-9, atol=1e-12)
    nearest = torch.cdist(PAIRS.s_y, torch.eye(4).double()).square().amin(1)
    torch.testing.assert_close(copied(Discrete(4), PAIRS), nearest, rtol=1e-9, atol=1e-12)
    assert expected.min() > 0 and nearest.min() > 0


@settings(deadline=None, derandomize=True, max_examples=20)
@given(SEEDS, st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.sampled_from([torch.float32, torch.float64]))
def test_no_tried_value_is_better_than_the_inferred_one(seed, size, width, problems, dtype):
    grid = [2] * (width - 1) + [size]
    for latent in (Discrete(size), VectorQuantized(size, width), FiniteScalar(grid), NoLatent()):
        latent = latent.to(dtype).eval()
        decoder, y = normal(3, latent.width, seed=seed).to(dtype), normal(problems, 3, seed=seed + 1).to(dtype)
        tried = []

        def D(z, decoder=decoder, y=y, tried=tried):
            tried.append(distance(y.unsqueeze(1), z @ decoder.T))
            return tried[-1]

        found = latent.infer(D)
        assert found.value.dtype == found.argmin.dtype == dtype and found.argmin.shape == (problems, latent.width)
        assert tried[0].shape == (problems, len(latent.codes)) and (found.value.unsqueeze(1) <= tried[0]).all()
        torch.testing.assert_close(found.value, distance(y, found.argmin @ decoder.T))


@settings(deadline=None, derandomize=True, max_examples=20)
@given(SEEDS, st.lists(st.integers(1, 3), max_size=3), st.integers(1, 4))
def test_samples_have_the_shape_that_is_asked_for(seed, shape, size):
    for latent in (
        NoLatent(), Discrete(size), VectorQuantized(size, 2), VectorQuantized(size, 2, rate_weight=0.1),
        FiniteScalar([size, 2]), LowDimensional(size, 0.5), Noisy(size, 0.5), Sparse(size, 0.5), Gaussian(size),
    ):  # fmt: skip
        drawn = latent.sample(tuple(shape), torch.Generator().manual_seed(seed))
        assert drawn.shape == (*shape, latent.width) and drawn.isfinite().all()
        if latent.inferred_width == latent.width:  # R is of what inference chooses
            assert latent.regularize(drawn).shape == tuple(shape)


LATENTS = {
    "none": NoLatent,
    "discrete": lambda: Discrete(3),
    "quantized": lambda: VectorQuantized(3, 2, rate_weight=0.1),
    "scalar": lambda: FiniteScalar([2, 3], rate_weight=0.1),
    "low-dimensional": lambda: LowDimensional(2, 0.1, layers=2),
    "noisy": lambda: Noisy(2, 0.1),
    "dropped": lambda: Dropped(2, 0.1),
    "gaussian": lambda: Gaussian(2),
    "sparse": lambda: Sparse(2, 0.1),
}


@pytest.mark.parametrize("name", LATENTS)
def test_inference_mode_changes_nothing(name, seeded):
    latent = LATENTS[name]()
    model = JEPA(Encoder(4, 3), Encoder(5, 3), Predictor(3, 3, latent=latent.width), latent).eval()
    x, y = torch.randn(6, 4), torch.randn(6, 5)
    with torch.inference_mode():
        found = model.infer(2 * x, 2 * y)
    assert all(map(torch.equal, found, model.infer(2 * x, 2 * y)))


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
@pytest.mark.parametrize("name", LATENTS)
def test_latent_can_be_stored(name, copied, seeded):
    latent = LATENTS[name]()
    z = torch.randn(50, latent.inferred_width)
    latent.predictor_input(z)  # in training some draw from a generator of their own, which is stored as it stands
    other = copied(latent)
    assert torch.equal(other.regularize(z), latent.regularize(z)) and torch.equal(
        other.predictor_input(z), latent.predictor_input(z)
    )
    y, wide = torch.randn(6, latent.width), slice(latent.width)

    def inferred(latent):
        return latent.eval().infer(lambda z: distance(y.unsqueeze(1), z[..., wide]))

    assert all(map(torch.equal, inferred(other), inferred(latent)))


def test_bits_spent_are_the_entropy_of_use_and_unbounded_without_noise():
    codes = torch.eye(4)[[0, 0, 0, 0, 1, 1, 2, 3]]
    assert Discrete(4).rate_bits(codes) == pytest.approx(1.75)  # 1/2 · 1 + 1/4 · 2 + 2 · 1/8 · 3
    assert NoLatent().rate_bits(torch.zeros(5, 0)) == 0 and Discrete(1).rate_bits(torch.ones(5, 1)) == 0
    assert LowDimensional(2, 0.5).rate_bits(normal(5, 2)) == math.inf


@pytest.mark.parametrize("latent", [NoLatent(), Discrete(3)])
def test_values_without_a_rate_weight_cost_nothing(latent):
    assert latent.code_lengths.tolist() == [0.0] * len(latent.codes)


@pytest.mark.parametrize("latent", [NoLatent(), Discrete(3), LowDimensional(2)])
def test_energies_that_are_no_numbers_are_refused(latent):
    with pytest.raises(ValueError, match="^cost: expected numbers, found nan"):
        latent.infer(lambda z: z.sum(-1) * math.nan)


@pytest.mark.parametrize("build, argument", [
    (lambda: Discrete(0), "size"),
    (lambda: Discrete(2, scale=0.0), "scale"),
    (lambda: Discrete(2, scale=-1.0), "scale"),
    (lambda: Discrete(2, scale=math.nan), "scale"),
    (lambda: LowDimensional(0), "size"),
    (lambda: LowDimensional(2, alpha=-0.1), "alpha"),
    (lambda: LowDimensional(2, alpha=math.nan), "alpha"),
    (lambda: LowDimensional(2, layers=-1), "layers"),
    (lambda: LowDimensional(2, starts=0), "restarts"),
    (lambda: LowDimensional(2, starts=4, restarts=5), "restarts"),
    (lambda: LowDimensional(2, restarts=0), "restarts"),
    (lambda: LowDimensional(2, steps=-1).infer(lambda z: z.square().sum(-1)), "steps"),
])  # fmt: skip
def test_bad_input_is_named(build, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
