"""Latents: what they hold, samples against the density exp(−R), and inference against brute force."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from conftest import generator, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import nn

from jepa.encoders import MLP as Encoder
from jepa.encoders import Identity
from jepa.energy import distance
from jepa.latents import LATENTS
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete, NoLatent
from jepa.latents.quantized import FiniteScalar, VectorQuantized
from jepa.latents.sparse import Sparse
from jepa.latents.stochastic import Dropped, Gaussian, Noisy
from jepa.model import JEPA, Representations
from jepa.predictors import MLP as Predictor
from jepa.runs.config import Part
from jepa.runs.kinds import make

SEEDS = st.integers(0, 10_000)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)  # what converges slowest must not be luck
OPTIONS = {  # of a small latent of every kind
    "none": {},
    "discrete": {"size": 3},
    "vector_quantized": {"size": 3, "width": 2, "rate_weight": 0.1},
    "finite_scalar": {"levels": [2, 3], "rate_weight": 0.1},
    "low_dimensional": {"size": 2, "alpha": 0.1, "layers": 2},
    "noisy": {"size": 2, "alpha": 0.1},
    "dropped": {"size": 2, "alpha": 0.1},
    "gaussian": {"size": 2},
    "sparse": {"size": 2, "alpha": 0.1},
}
every_latent = pytest.mark.parametrize("name", LATENTS)


def made(name, **options):
    """Return a latent of a kind that infers; of values whose rate has a weight some are used more often."""
    latent = make("latent", Part(name, {**OPTIONS[name], **options}), LATENTS).double().eval()
    if getattr(latent, "rate_weight", 0):
        latent.counts.copy_(torch.arange(1, len(latent.codes) + 1))
    return latent


def samples(latent, *shape, seed=0):
    return latent.sample(shape, generator(seed)).double().numpy()


Y = normal(6, 4, seed=1)


class Distance(nn.Module):
    """The distance of s̃ = W z' to six targets, as a function of z."""

    def __init__(self, latent):
        super().__init__()
        self.latent, self.decoder = latent, nn.Parameter(normal(4, latent.width, seed=2))

    def forward(self, z):
        given = self.latent.predictor_input(z)  # [B or 1, K, J, Z]
        return distance(given @ self.decoder.T, Y[:, None, None]).mean(-1)


class Network(nn.Module):
    """The network that proposes M s_y."""

    def __init__(self, latent):
        super().__init__()
        self.weight = nn.Parameter(normal(latent.inferred_width, 4, seed=3) / 4)

    def forward(self, s_x, s_y):
        return s_y @ self.weight.T


@every_latent
def test_without_a_network_inference_is_the_minimum(name, seeded):
    latent = made(name)
    D, z = Distance(latent), normal(6, 3, latent.inferred_width)
    torch.testing.assert_close(latent.energy(D)(z), D(z) + latent.regularize(z))
    found = latent.infer(D)
    assert all(map(torch.equal, found, latent.minimize(D))) and not found.value.requires_grad
    torch.testing.assert_close(latent.energy(D)(found.argmin.unsqueeze(1))[:, 0], found.value)
    torch.testing.assert_close(latent.free_energy(D), found.value)
    tried = latent.energy(D)(
        0.3 * normal(1, 500, latent.inferred_width) if latent.codes is None else latent.codes[None]
    )
    assert (found.value.unsqueeze(1) <= tried + 1e-4).all()


@every_latent
def test_network_proposes_what_the_latent_constrains(name, seeded):
    latent, s = made(name), (normal(6, 3), Y)
    D, network = Distance(latent), Network(latent)
    proposal, searched = network(*s), latent.infer(D)
    z, commitment = latent.constrain(proposal)
    assert latent.amortize(network) is latent
    found, free = latent.infer(D, s), latent.free_energy(D, s)
    assert torch.equal(found.argmin, z) and torch.equal(found.trace, found.value[None])
    torch.testing.assert_close(found.value, latent.energy(D)(z.unsqueeze(1))[:, 0])
    torch.testing.assert_close(free, found.value + commitment)
    assert not found.value.requires_grad and free.requires_grad
    if latent.codes is None:
        assert torch.equal(z, proposal) and not commitment.any()
    else:
        assert torch.cdist(z, latent.codes).amin(1).max() < 1e-6
    assert all(map(torch.equal, latent.amortize(None).infer(D, s), searched))


@every_latent
def test_values_follow_proposals_where_a_training_asks_for_it(name, seeded, monkeypatch):
    latent, seen, s = made(name), [], (normal(6, 3), Y)
    D, network = Distance(latent), Network(latent)
    monkeypatch.setattr(latent, "update", seen.append)
    for training, learn in ((True, False), (False, True), (True, True)):
        latent.train(training).amortize(network).free_energy(D, s, learn=learn)
    latent.amortize(None).free_energy(D, s, learn=True)  # nobody proposes
    assert len(seen) == 1 and torch.equal(seen[0], network(*s)) and not seen[0].requires_grad


@every_latent
def test_finitely_many_values_are_not_refined(name, seeded):
    latent = made(name)
    D, s = Distance(latent), (normal(6, 3), Y)
    what = "at least 0 steps" if latent.codes is None else "0 steps for a latent of finitely many values"
    for refine in (-1, *([] if latent.codes is None else [3])):
        with pytest.raises(ValueError, match=f"^refine: expected {what}, found {refine}$"):
            latent.amortize(Network(latent), refine)
    assert latent.network is None and latent.refine == 0
    if latent.codes is None:
        found = latent.amortize(Network(latent), 3).infer(D, s)
        assert len(found.trace) == 4 and (found.value < found.trace[0]).all()
        torch.testing.assert_close(latent.free_energy(D, s), found.trace[0])  # training goes without


@every_latent
@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_temperature_is_for_values_that_are_summed_over(name, beta, seeded):
    latent = made(name)
    D = Distance(latent)
    if latent.codes is None:
        with pytest.raises(ValueError, match=f"^beta: expected infinity, .*, found {beta}"):
            latent.free_energy(D, beta=beta)
    else:
        energies = latent.energy(D)(latent.codes[None]).detach().numpy()
        expected = -special.logsumexp(-beta * energies, axis=1, b=1 / len(latent.codes)) / beta
        np.testing.assert_allclose(latent.free_energy(D, beta=beta).detach(), expected, rtol=1e-10)
    with pytest.raises(ValueError, match=f"^beta: expected infinity, .*, found {beta}"):
        latent.amortize(Network(latent)).free_energy(D, (Y, Y), beta=beta)


@every_latent
def test_gradient_of_the_free_energy_is_that_of_the_minimum(name, seeded):
    """The envelope theorem: ž moves with the weights, and the minimum does not notice."""
    many = {"low_dimensional": 300, "noisy": 300, "dropped": 300, "gaussian": 300, "sparse": 1000}
    latent = made(name, **({"steps": many[name]} if name in many else {}))
    D = Distance(latent)
    weights = list(D.parameters())
    slopes = torch.autograd.grad(latent.free_energy(D).sum(), weights)
    held = latent.energy(D)(latent.infer(D).argmin.unsqueeze(1)).sum()
    for slope, weight, alone in zip(slopes, weights, torch.autograd.grad(held, weights), strict=True):
        torch.testing.assert_close(slope, alone)
        direction, values = normal(*weight.shape, seed=5), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight += step * direction
                values.append(float(latent.minimize(D).value.sum()))
                weight -= step * direction
        expected = (values[0] - values[1]) / 2e-5
        assert float((slope * direction).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@every_latent
def test_energies_that_are_no_numbers_are_refused(name, seeded):
    with pytest.raises(ValueError, match="^cost: expected numbers, found nan"):
        made(name).infer(lambda z: z.sum(-1) * math.nan)


@pytest.mark.parametrize("latent, bits", [
    (NoLatent(), 0), (Discrete(1), 0), (Discrete(2), 1), (Discrete(8), 3), (Discrete(5), math.log2(5)),
    (LowDimensional(1), math.inf), (LowDimensional(3, alpha=2.0), math.inf), (Sparse(3, 0.7), math.inf),
])  # fmt: skip
def test_bits_are_the_logarithm_of_the_number_of_values(latent, bits):
    assert latent.bits == pytest.approx(bits)


@pytest.mark.parametrize("latent", [Discrete(6), Discrete(5, 3.0), VectorQuantized(5, 3), FiniteScalar((2, 3))])
def test_bits_spent_are_the_entropy_of_use(latent):
    use, codes = [0] * 6 + [1] * 3 + [4], latent.codes
    assert latent.rate_bits(codes[use]) == pytest.approx(stats.entropy([0.6, 0.3, 0.1], base=2), rel=1e-10)
    assert latent.rate_bits(codes) == pytest.approx(latent.bits) and latent.rate_bits(codes[:1].repeat(9, 1)) == 0


def test_bits_spent_are_not_bounded_where_values_are_not():
    assert NoLatent().rate_bits(torch.zeros(5, 0)) == 0
    for latent in (LowDimensional(2, 0.5), Sparse(2, 0.5)):
        assert latent.rate_bits(normal(5, 2)) == math.inf


@pytest.mark.parametrize("latent", [Discrete(2), Discrete(5, 3.0), VectorQuantized(5, 3), FiniteScalar((2, 3))])
def test_samples_of_finitely_many_values_are_all_of_them_equally_often(latent):
    drawn, size = torch.from_numpy(samples(latent, 50, 100)).view(-1, latent.width).float(), len(latent.codes)
    which = torch.cdist(drawn, latent.codes).argmin(1)
    assert torch.equal(latent.codes[which], drawn)
    assert stats.chisquare(which.bincount(minlength=size)).pvalue > 0.001
    following = np.histogram2d(which[:-1], which[1:], bins=size)[0]
    assert stats.chi2_contingency(following).pvalue > 0.001


def quadratic(alpha):
    return stats.norm(scale=1 / math.sqrt(2 * alpha))


@pytest.mark.parametrize("latent, number, regularizer", [
    # of the density exp(−R) with R quadratic in d numbers R itself has the distribution Gamma(d / 2), in norms Gamma(d)
    (LowDimensional(1, 0.5), quadratic(0.5), stats.gamma(1 / 2)),
    (LowDimensional(3, 0.02), quadratic(0.02), stats.gamma(3 / 2)),
    (LowDimensional(4, 7.0), quadratic(7.0), stats.gamma(2)),
    (Noisy(2, 0.3, sigma=0.7), quadratic(0.3), stats.gamma(1)),
    (Dropped(2, 0.3, probability=0.4), quadratic(0.3), stats.gamma(1)),
    (Sparse(3, 0.7), stats.laplace(scale=1 / 0.7), stats.gamma(3)),
    (Gaussian(2, temperature=0.2), stats.norm(), None),  # samples are of z', R is of its mean and deviation
], ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "")  # fmt: skip
def test_samples_have_the_density_of_the_regularizer(latent, number, regularizer):
    drawn = samples(latent, 40, 75).reshape(-1, latent.width)
    for i in range(latent.width):
        assert stats.kstest(drawn[:, i], number.cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(drawn.T) - np.eye(latent.width)).max() < 0.07
    if regularizer:
        assert stats.kstest(latent.regularize(torch.from_numpy(drawn)), regularizer.cdf).pvalue > 0.001


@settings(deadline=None, derandomize=True, max_examples=20)
@given(SEEDS, st.lists(st.integers(1, 3), max_size=3), st.integers(1, 4))
def test_samples_have_the_shape_that_is_asked_for(seed, shape, size):
    for latent in (
        NoLatent(), Discrete(size), VectorQuantized(size, 2), VectorQuantized(size, 2, rate_weight=0.1),
        FiniteScalar([size, 2]), LowDimensional(size, 0.5), Noisy(size, 0.5), Sparse(size, 0.5), Gaussian(size),
    ):  # fmt: skip
        drawn = latent.sample(tuple(shape), generator(seed))
        assert drawn.shape == (*shape, latent.width) and drawn.isfinite().all()
        assert torch.equal(drawn, latent.sample(tuple(shape), generator(seed)))
        if latent.inferred_width == latent.width:  # R is of what inference chooses
            assert latent.regularize(drawn).shape == tuple(shape)
        if latent.codes is None:
            assert (drawn != latent.sample(tuple(shape), generator(seed + 1))).all()


def test_regularizer_is_quadratic_where_there_is_one():
    z = normal(3, 4, 2)
    for layers in (0, 2):  # R is of z, not of what a predictor is given
        latent = LowDimensional(2, 0.3, layers)
        torch.testing.assert_close(latent.regularize(z), 0.3 * (z[..., 0] ** 2 + z[..., 1] ** 2))
    for latent in (Discrete(2), VectorQuantized(2, 2), FiniteScalar([2, 2]), LowDimensional(2)):
        assert latent.regularize(z).tolist() == [[0.0] * 4] * 3
    assert Discrete(3).code_lengths.tolist() == [0.0] * 3


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_scale_is_the_length_of_every_code(scale):
    latent = Discrete(3, scale)
    assert latent.codes.tolist() == [[scale, 0, 0], [0, scale, 0], [0, 0, scale]] and latent.width == 3
    assert torch.equal(Discrete(3).codes, torch.eye(3))


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    SEEDS, st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.25, 1.0, 3.0]),
    st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_inference_over_finitely_many_values_is_brute_force(seed, size, width, problems, scale, dtype):
    grid = [2] * (width - 1) + [size]
    for latent in (Discrete(size, scale), VectorQuantized(size, width), FiniteScalar(grid), NoLatent()):
        latent = latent.to(dtype).eval()
        decoder, y = normal(3, latent.width, seed=seed).to(dtype), normal(problems, 3, seed=seed + 1).to(dtype)
        found = latent.infer(lambda z, W=decoder, y=y: distance(y.unsqueeze(1), (z @ W.T).tanh()))
        assert found.value.dtype == found.argmin.dtype == dtype
        for b in range(problems):
            each = torch.stack([(y[b] - (decoder @ code).tanh()).square().sum() for code in latent.codes])
            assert torch.equal(found.argmin[b], latent.codes[each.argmin()])
            torch.testing.assert_close(found.value[b], each.min())


@PROPERTY
@given(SEEDS, st.sampled_from([0.0, 0.1, 2.0]), st.sampled_from([1, 3]))
def test_continuous_inference_solves_the_ridge_problem(seed, alpha, restarts):
    latent = LowDimensional(2, alpha, restarts=restarts, steps=200).double()
    decoder, y = normal(6, 2, seed=seed), normal(5, 6, seed=seed + 1)
    found = latent.infer(lambda z: distance(y.unsqueeze(1), z @ decoder.T))
    exact = torch.linalg.solve(decoder.T @ decoder + alpha * torch.eye(2), decoder.T @ y.T).T
    torch.testing.assert_close(found.argmin, exact, rtol=0, atol=1e-3)
    assert (found.trace.diff(dim=0) <= 1e-12).all()


@pytest.mark.parametrize("layers", [0, 1, 2, 5])
def test_chain_is_the_product_of_its_matrices(layers, seeded):
    latent, z = LowDimensional(3, layers=layers).double(), normal(7, 3)
    product = torch.eye(3).double()
    for matrix in latent.state_dict().values():
        product = matrix @ product
    assert len(latent.state_dict()) == layers and sum(p.numel() for p in latent.parameters()) == 9 * layers
    torch.testing.assert_close(latent.predictor_input(z).detach(), (z @ product.T).unsqueeze(-2))
    spread = np.std(LowDimensional(200, layers=3).predictor_input(normal(500, 200).float()).detach().numpy())
    assert 0.8 < spread < 1.25  # the scale of z survives


@pytest.mark.parametrize("rank", [1, 2])
def test_inference_through_a_chain_finds_the_best_point_of_its_range(rank, seeded):
    latent, target = LowDimensional(3, layers=2, steps=500).double(), normal(6, 3)
    left, right = normal(3, rank, seed=1), normal(rank, 3, seed=2)
    with torch.no_grad():
        latent.deep_linear[1].weight.copy_(left @ right)
        latent.deep_linear[0].weight.copy_(torch.eye(3))
    found = latent.infer(lambda z: distance(target.unsqueeze(1), latent.predictor_input(z)[..., 0, :]))
    basis = torch.linalg.qr(left).Q
    given = latent.predictor_input(found.argmin)[:, 0].detach()
    torch.testing.assert_close(given, target @ basis @ basis.T, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.value, (target - target @ basis @ basis.T).square().sum(1), rtol=0, atol=1e-6)


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


def test_starts_are_those_of_a_standard_normal_and_always_the_same(seeded):
    before, points = torch.get_rng_state(), LowDimensional(3, starts=256).points
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(points, LowDimensional(3, starts=256).points) and points.isfinite().all()
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


def huber(y, alpha):
    """Return min over z of ‖y − z‖² + α ‖z‖₁, number by number."""
    size = y.abs()
    return torch.where(size > alpha / 2, alpha * size - alpha**2 / 4, size.square()).sum(1)


@pytest.mark.parametrize("latent, least", [
    (LowDimensional(4, steps=30), lambda y: 0 * y[:, 0]),  # LeCun 2022, section 4.5: dim z = dim s_y
    (Noisy(4, 0.0, 0.0, draws=1, steps=30), lambda y: 0 * y[:, 0]),
    # a regularizer, fewer dimensions or finitely many values leave some energy
    *[(LowDimensional(4, c, steps=60), lambda y, c=c: c / (1 + c) * y.square().sum(1)) for c in (0.01, 0.5)],
    *[(Sparse(4, c), lambda y, c=c: huber(y, c)) for c in (0.01, 0.5)],
    *[(LowDimensional(size, steps=60), lambda y, size=size: y[:, size:].square().sum(1)) for size in (1, 3)],
    (Discrete(4), lambda y: torch.cdist(y, torch.eye(4).double()).square().amin(1)),
])  # fmt: skip
def test_energy_that_is_left_where_a_predictor_copies_the_latent(latent, least):
    s = Representations(normal(50, 4), 5 * normal(50, 4, seed=1))  # far more than a model would see, and of any kind
    model = JEPA(Identity(4), Identity(4), Copy(4), latent).double().eval()
    close = {"rtol": 1e-6, "atol": 1e-9} if isinstance(latent, Sparse) else {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(model.minimum(s.s_x, s.s_x[:, :0], s.s_y).value, least(s.s_y), **close)


@every_latent
def test_inference_mode_changes_nothing(name, seeded):
    latent = made(name)
    model = JEPA(Encoder(4, 3), Encoder(5, 3), Predictor(3, 3, latent=latent.width), latent).double().eval()
    x, y = normal(6, 4), normal(6, 5)
    with torch.inference_mode():
        found = model.infer(2 * x, 2 * y)
    assert all(map(torch.equal, found, model.infer(2 * x, 2 * y)))


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
@every_latent
def test_latent_can_be_stored(name, copied, seeded):
    latent = made(name).train()
    z = normal(50, latent.inferred_width)
    latent.predictor_input(z)  # in training some draw from a generator of their own, which is stored as it stands
    other = copied(latent)
    assert torch.equal(other.regularize(z), latent.regularize(z))
    assert torch.equal(other.predictor_input(z), latent.predictor_input(z))
    found = [Distance(one.eval()) for one in (other, latent)]
    assert all(map(torch.equal, other.infer(found[0]), latent.infer(found[1])))


@pytest.mark.parametrize("build, argument", [
    (lambda: Discrete(0), "size"),
    (lambda: Discrete(2, scale=0.0), "scale"),
    (lambda: Discrete(2, scale=-1.0), "scale"),
    (lambda: Discrete(2, scale=math.nan), "scale"),
    (lambda: LowDimensional(0), "size"),
    (lambda: LowDimensional(2, alpha=-0.1), "alpha"),
    (lambda: LowDimensional(2, alpha=math.nan), "alpha"),
    (lambda: LowDimensional(2).sample((3,), generator()), "alpha"),  # no density without a regularizer
    (lambda: LowDimensional(2, layers=-1), "layers"),
    (lambda: LowDimensional(2, starts=0), "restarts"),
    (lambda: LowDimensional(2, starts=4, restarts=5), "restarts"),
    (lambda: LowDimensional(2, restarts=0), "restarts"),
    (lambda: LowDimensional(2, steps=-1).infer(lambda z: z.square().sum(-1)), "steps"),
])  # fmt: skip
def test_bad_input_is_named(build, argument):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
