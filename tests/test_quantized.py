"""Codebooks: assignment against brute force, the moving mean against its formula, gradients straight through."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from jepa.latents.quantized import FiniteScalar, VectorQuantized


class Echo(nn.Module):
    """The network that proposes s_y itself."""

    def forward(self, s_x, s_y):
        return s_y


def trained(latent, u):
    """Have values follow proposals u [B, Z] as they do in a step of a training; return F [B] without a distance."""
    return latent.amortize(Echo()).free_energy(lambda z: z.new_zeros(z.shape[:2]), (u, u), learn=True)


def quantizer(size=4, width=2, **options):
    """Return a quantizer in double precision with codes that are drawn from seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VectorQuantized(size, width, **options).double()


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(1, 7), st.integers(1, 4), st.floats(0.01, 3), st.just(0.0) | st.floats(0, 2), st.integers(0, 1000))
def test_proposals_go_to_the_cheapest_code(size, width, commitment, rate_weight, seed):
    latent, u = quantizer(size, width, commitment=commitment, rate_weight=rate_weight), 2 * normal(9, width, seed=seed)
    latent.counts.copy_(normal(size, seed=seed + 1).abs() + 0.01)
    share = (latent.counts / latent.counts.sum()).clamp(min=1e-6).tolist()
    z, cost = latent.constrain(u)
    for b in range(9):
        gaps = [commitment * float((u[b] - code).square().sum()) for code in latent.codes]
        total = [gap - rate_weight * math.log(p) for gap, p in zip(gaps, share, strict=True)]
        best = total.index(min(total))  # without a weight the nearest one
        torch.testing.assert_close(z[b], latent.codes[best], rtol=1e-12, atol=1e-12)
        assert float(cost[b]) == pytest.approx(gaps[best])


def test_gradient_passes_straight_through_and_proposals_are_drawn_to_their_codes():
    latent, u = quantizer(commitment=0.25).eval(), normal(6, 2).requires_grad_()
    z, cost = latent.constrain(u)
    slope = normal(6, 2, seed=1)
    (through,) = torch.autograd.grad(z, u, slope, retain_graph=True)
    assert torch.equal(through, slope)
    (drawn,) = torch.autograd.grad(cost.sum(), u)
    torch.testing.assert_close(drawn, 0.5 * (u - z).detach(), rtol=1e-9, atol=1e-12)


def test_codes_are_the_moving_means_of_their_proposals():
    latent, decay = quantizer(3, 2, decay=0.75, revive=0.0), 0.75
    codes = latent.codes.clone().numpy()
    count, total = np.ones(3), codes.copy()
    for step in range(6):
        u = normal(9, 2, seed=step).numpy()
        nearest = [min(range(3), key=lambda k, one=one: ((one - codes[k]) ** 2).sum()) for one in u]
        for k in range(3):
            mine = u[[n for n in range(9) if nearest[n] == k]]
            count[k] = decay * count[k] + (1 - decay) * len(mine) / 3
            total[k] = decay * total[k] + (1 - decay) * mine.sum(axis=0) / 3
            codes[k] = total[k] / count[k]
        trained(latent, torch.from_numpy(u))
        np.testing.assert_allclose(latent.codes, codes, rtol=1e-9, atol=1e-12)


def test_codes_learn_in_training_only_and_end_at_the_clusters():
    middles = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]]).double()
    latent = quantizer(4, 2, decay=0.9)
    for step in range(200):
        trained(latent, middles.repeat(8, 1) + 0.1 * normal(32, 2, seed=step))
    found = latent.codes.clone()
    assert torch.cdist(middles, found).amin(1).max() < 0.2  # no cluster is without a code …
    assert len(set(torch.cdist(middles, found).argmin(1).tolist())) == 4  # … of its own
    far = 100 + normal(32, 2)
    latent.free_energy(lambda z: z.sum(-1), (far, far))  # nobody asks for learning
    latent.infer(lambda z: z.sum(-1), (far, far))
    trained(latent.eval(), far)
    assert torch.equal(latent.codes, found)


def test_values_follow_a_step_only_after_it_and_without_a_gradient():
    latent, u = quantizer(commitment=0.25), normal(8, 2).requires_grad_()
    z, cost = latent.constrain(u)
    found = trained(latent, u)
    torch.testing.assert_close(found, cost)  # as the codes were before
    torch.testing.assert_close(*(torch.autograd.grad(of.sum(), u)[0] for of in (found, cost)))
    assert (latent.codes[torch.cdist(z, latent.codes).argmin(1)] - z).abs().max() > 1e-3
    assert not latent.codes.requires_grad


def test_dead_code_is_moved_to_the_farthest_proposal():
    latent = quantizer(2, 1, decay=0.5, revive=0.2)
    latent.codes.copy_(torch.tensor([[0.0], [100.0]]))
    latent.sums.copy_(latent.codes)
    u = torch.tensor([[0.1], [-0.1], [0.0], [3.0]]).double()
    for _ in range(3):  # its count is halved by every step: 1/2, 1/4, 1/8
        trained(latent, u)
    assert latent.codes[1].item() == 3.0 and latent.counts[1] == 1
    z, _ = latent.eval().constrain(u)
    assert z[:, 0].round(decimals=6)[-1] == 3 and z[:3].abs().max() < 1.5


LEVELS = [(2,), (3,), (1,), (4, 3), (2, 1, 5), (8, 5, 5)]


@pytest.mark.parametrize("levels", LEVELS)
def test_grid_has_every_combination_of_levels_once(levels):
    latent = FiniteScalar(levels)
    axes = [[0.0] if level == 1 else [2 * k / (level - 1) - 1 for k in range(level)] for level in levels]
    expected = sorted(itertools.product(*axes))
    found = sorted(tuple(row) for row in latent.codes.tolist())
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert latent.bits == pytest.approx(sum(math.log2(level) for level in levels)) and latent.width == len(levels)


@pytest.mark.parametrize("levels", LEVELS)
def test_proposals_go_to_the_nearest_level_of_their_hyperbolic_tangent(levels):
    latent, u = FiniteScalar(levels).double(), 2 * normal(200, len(levels))
    z, cost = latent.constrain(u)
    nearest = latent.codes[torch.cdist(u.tanh(), latent.codes).argmin(1)]
    torch.testing.assert_close(z, nearest, rtol=0, atol=1e-6)
    assert not cost.any() and cost.shape == (200,)


def weighted(latent, counts):
    """Return a latent whose values were used this often, in units of an even part."""
    latent.counts.copy_(torch.tensor(counts))
    return latent


WEIGHTED = [
    lambda: weighted(quantizer(4, 2, rate_weight=0.7), [2.0, 1.0, 0.75, 0.25]),
    lambda: weighted(FiniteScalar((2, 2), rate_weight=0.7).double(), [2.0, 1.0, 0.75, 0.25]),
]
SHARES = [0.5, 0.25, 0.1875, 0.0625]
every_weighted = pytest.mark.parametrize("make", WEIGHTED, ids=["codebook", "grid"])


@every_weighted
def test_regularizer_is_the_length_of_an_ideal_code(make):
    latent = make().eval()
    expected = [-0.7 * math.log(share) for share in SHARES]
    assert latent.code_lengths.tolist() == pytest.approx(expected)
    which = torch.tensor([[3, 0, 1], [2, 2, 0]])
    assert latent.regularize(latent.codes[which]).tolist() == [
        pytest.approx([expected[k] for k in row]) for row in which.tolist()
    ]
    assert float(latent.regularize(latent.codes[3])) == pytest.approx(expected[3])  # a single value
    torch.testing.assert_close((-latent.code_lengths / 0.7).exp(), torch.tensor(SHARES).double(), rtol=1e-6, atol=1e-9)


@every_weighted
def test_samples_are_as_frequent_as_the_lengths_of_their_codes_say(make):
    latent = make().eval()
    drawn = latent.sample((40, 100), torch.Generator().manual_seed(0))
    assert drawn.shape == (40, 100, 2)
    which = torch.cdist(drawn.flatten(0, 1), latent.codes).argmin(1)
    torch.testing.assert_close(latent.codes[which], drawn.flatten(0, 1))
    assert stats.chisquare(which.bincount(minlength=4), 4000 * np.array(SHARES)).pvalue > 0.001


def test_value_that_is_never_used_has_a_finite_length():
    latent = weighted(quantizer(4, 2, rate_weight=0.7), [4.0, 0.0, 0.0, 0.0])
    assert latent.code_lengths.isfinite().all() and latent.code_lengths[1] > 9 and latent.code_lengths[0] == 0


def test_proposals_go_to_the_cheapest_entry_of_a_grid_and_are_counted():
    latent = FiniteScalar((3, 2), rate_weight=0.3, decay=0.8).double()
    counts = np.ones(6)
    for step in range(4):
        u = normal(50, 2, seed=step)
        lengths = -0.3 * np.log(counts / counts.sum())
        index = ((u.tanh().numpy()[:, None] - latent.codes.numpy()) ** 2).sum(-1) + lengths
        np.testing.assert_allclose(latent.constrain(u)[0], latent.codes[index.argmin(1)], atol=1e-9)
        trained(latent, u)
        counts = 0.8 * counts + 0.2 * np.bincount(index.argmin(1), minlength=6) * 6 / 50
        np.testing.assert_allclose(latent.counts, counts, rtol=1e-9)
    trained(latent.eval(), u)
    np.testing.assert_allclose(latent.counts, counts, rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_a_rate_weight_codes_that_serve_alike_die_out(seed):
    middles, spent = torch.tensor([[2.0], [-2.0]]).double(), []
    for rate_weight in (0.0, 0.2):
        latent = quantizer(8, 1, decay=0.9, revive=0.0, rate_weight=rate_weight)
        latent.codes.copy_(torch.linspace(-3, 3, 8).view(8, 1))
        latent.sums.copy_(latent.codes)
        for step in range(150):
            trained(latent, middles.repeat(32, 1) + 0.5 * normal(64, 1, seed=1000 * seed + step))
        z, _ = latent.eval().constrain(middles.repeat(500, 1) + 0.5 * normal(1000, 1, seed=99))
        spent.append(latent.rate_bits(z))
    assert spent[0] > 2 and spent[1] == pytest.approx(1, abs=0.1)  # one code is left for each of two equal clusters


def test_code_that_is_never_used_again_stays_where_it_is():
    latent, u = quantizer(2, 1, decay=0.5, revive=0.0).float(), torch.zeros(4, 1)
    latent.codes.copy_(torch.tensor([[0.0], [100.0]]))
    latent.sums.copy_(latent.codes)
    for _ in range(200):  # beyond where its count is too small for a float
        trained(latent, u)
    assert latent.codes.tolist() == [[0.0], [pytest.approx(100)]]


@pytest.mark.parametrize("make", [
    lambda: quantizer(4, 2), lambda: quantizer(4, 2, rate_weight=0.5), lambda: FiniteScalar((2, 2), 0.5).double(),
], ids=["codebook", "weighted codebook", "weighted grid"])  # fmt: skip
def test_what_is_learned_is_part_of_the_state(make):
    latent, other = make(), make()
    for step in range(5):
        trained(latent, 1 + normal(8, 2, seed=step))
    assert (latent.counts - 1).abs().max() > 0.01
    other.load_state_dict(latent.state_dict())
    for _ in range(2):
        assert torch.equal(other.codes, latent.codes) and torch.equal(other.code_lengths, latent.code_lengths)
        trained(latent, 1 + normal(8, 2, seed=9)), trained(other, 1 + normal(8, 2, seed=9))
    assert "counts" not in FiniteScalar((2, 2)).state_dict()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: VectorQuantized(0, 2), "size, width: expected at least 1, found 0, 2"),
    (lambda: VectorQuantized(2, 0), "size, width: expected at least 1, found 2, 0"),
    (lambda: VectorQuantized(2, 2, commitment=-1.0), "commitment, rate_weight: expected .* found -1.0, 0.0"),
    (lambda: VectorQuantized(2, 2, rate_weight=-0.1), "commitment, rate_weight: expected .* found 0.25, -0.1"),
    (lambda: VectorQuantized(2, 2, rate_weight=math.nan), "commitment, rate_weight: expected .* found 0.25, nan"),
    (lambda: quantizer(2, rate_weight=0.1).constrain(normal(8, 2) / 0), "proposal: expected finite numbers"),
    (lambda: FiniteScalar((2, 2), rate_weight=-0.1), "rate_weight, decay: expected .* found -0.1, 0.99"),
    (lambda: FiniteScalar((2, 2), decay=1.0), "rate_weight, decay: expected .* found 0.0, 1.0"),
    (lambda: FiniteScalar((2, 2), 0.1).constrain(torch.full((3, 2), math.nan)), "proposal: expected finite numbers"),
    (lambda: VectorQuantized(2, 2, decay=1.0), "decay, revive: expected fractions from 0 to below 1, found 1.0, 0.1"),
    (lambda: VectorQuantized(2, 2, revive=math.nan), "decay, revive: expected fractions"),
    (lambda: trained(quantizer(4), normal(3, 2)), "size: expected at most 3 codes, one a proposal, found 4"),
    (lambda: quantizer(4).constrain(normal(8, 2) / 0), "proposal: expected finite numbers"),
    (lambda: FiniteScalar(()), "levels: expected at least 1 each"),
    (lambda: FiniteScalar((3, 0)), "levels: expected at least 1 each"),
    (lambda: FiniteScalar((100, 100, 100)), "levels: expected at least 1 each and a product up to 65536"),
])  # fmt: skip
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
