"""The architectures of the table as configurations, inference against brute force, and the envelope theorem."""

import copy
import math

import pytest
import torch
from conftest import Formula, normal
from torch import nn

from jepa.encoders import MLP as Encoder
from jepa.encoders import Identity
from jepa.energy import distance, free_energy
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete, NoLatent
from jepa.model import JEPA
from jepa.predictors import MLP as Predictor
from jepa.predictors import Identity as Copied
from jepa.runs import build
from jepa.runs.config import configure

MLP = {"name": "mlp", "outputs": 3, "hidden": [8]}
CODES = {"name": "discrete", "size": 4}
CURVE = {"name": "low_dimensional", "size": 1, "alpha": 0.2, "restarts": 3, "steps": 200}
AMORTIZED = {"name": "amortized", "hidden": 8, "features": 3}
BOTH = {"encoder": MLP, "target_encoder": MLP}
X, Y, A, NONE = normal(6, 2), normal(6, 2, seed=1), normal(6, 2, seed=2), normal(6, 0)


def made(seed=0, **diff):
    return build.parts(configure({"predictor": {"name": "mlp", "hidden": [8]}, **diff}), seed).model.double()


def with_action(latent, **parts):
    """A JEPA whose predictor is told an action of two numbers, or with other parts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, target_encoder = Encoder(2, 3, hidden=[8]), Encoder(2, 4, hidden=[8])
        predictor = Predictor(3, 4, 2, latent.width, hidden=[8])
    own = {"encoder": encoder, "target_encoder": target_encoder, "predictor": predictor, "latent": latent}
    return JEPA(**own | parts).double()


def free(model, x, y, a=NONE, **given):
    """The free energy of representations."""
    s_x, s_y = model.encode(x, y)
    return model.free_energy(s_x, a, s_y, **given)


class Even(nn.Module):
    """The encoder for which y and −y are the same."""

    def __init__(self):
        super().__init__()
        self.inner = Encoder(2, 3, hidden=[8])

    def forward(self, y):
        return self.inner(y.square())


# -- the energy and its minimum ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [Discrete(4), LowDimensional(1, alpha=0.2)])
def test_energy_is_the_distance_to_the_prediction_plus_the_regularizer(latent):
    model = with_action(latent)
    z = model.latent.sample((6, 5), torch.Generator().manual_seed(0)).double()
    expected = torch.empty(6, 5, dtype=torch.float64)
    for b in range(6):
        for k in range(5):
            one = model.encoder(X[b]).view(1, 1, 3), A[b].view(1, 1, 2), z[b : b + 1, k : k + 1]
            gap = model.target_encoder(Y[b]) - model.predictor(*one)[0, 0]
            expected[b, k] = gap.square().sum() + latent.regularize(z[b, k])
    torch.testing.assert_close(model.energy(X, Y, z, A), expected)
    D = expected - latent.regularize(z)
    torch.testing.assert_close(distance(model.predictions(X, z, A), model.target_encoder(Y).unsqueeze(1)), D)
    torch.testing.assert_close(model.D(model.encoder(X), A, model.target_encoder(Y))(z), D)


@pytest.mark.parametrize("latent, inference", [
    ("none", "minimize"), (CODES, "minimize"), (CURVE, "minimize"), (CODES, AMORTIZED), (CURVE, AMORTIZED),
])  # fmt: skip
def test_model_of_a_batch_is_its_free_energy(latent, inference):
    model = made(**BOTH, latent=latent, inference=inference)
    found = model(X, Y)
    torch.testing.assert_close(found, model.infer(X, Y).value)
    assert torch.equal(found, free(model, X, Y)) and not torch.equal(found, model(X, Y.flip(0)))
    assert torch.equal(nn.DataParallel(model)(X, Y), found)  # on the CPU it hands on what it is given
    found.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    told = with_action(Discrete(3))
    torch.testing.assert_close(told(X, Y, A), told.infer(X, Y, A).value)


def test_generative_latent_variable_model_measures_its_energy_on_y_itself():
    model = made(encoder=MLP, latent=CODES)
    outputs = model.predictions(X, model.latent.codes.unsqueeze(0))
    expected = torch.stack([(Y - outputs[:, k]).square().sum(1) for k in range(4)]).amin(0)
    torch.testing.assert_close(model.infer(X, Y).value, expected)
    assert model.generative and not made(**BOTH).generative


def test_auto_encoder_measures_what_it_fails_to_rebuild():
    narrow = {"name": "mlp", "outputs": 1, "hidden": [8]}
    of = build.parts(configure({"context": "y", "encoder": narrow, "predictor": {"hidden": [8]}}), 0)
    pairs = of.sample(5, torch.Generator().manual_seed(0))
    assert torch.equal(pairs.x, pairs.y)
    code = of.model.encoder(pairs.y)
    assert code.shape == (5, 1)
    rebuilt = of.model.predictor(code.unsqueeze(1), *torch.zeros(2, 5, 1, 0))[:, 0]
    torch.testing.assert_close(of.model.infer(pairs.x, pairs.y).value, (pairs.y - rebuilt).square().sum(1))


def test_joint_embedding_compares_two_representations():
    model = made(**BOTH, predictor="identity")
    torch.testing.assert_close(model.infer(X, Y).value, (model.encoder(X) - model.target_encoder(Y)).square().sum(1))


def test_shared_encoder_makes_the_energy_a_distance():
    shared, apart = (made(encoder=MLP, target_encoder=target, predictor="identity") for target in ("shared", MLP))
    assert shared(X, X).tolist() == [0.0] * 6 and apart(X, X).min() > 0
    torch.testing.assert_close(shared(X, Y), shared(Y, X))


@pytest.mark.parametrize("latent", [Discrete(5), LowDimensional(1, alpha=0.2, restarts=8, steps=100)])
def test_inference_is_the_minimum_over_energies(latent):
    model = with_action(latent)
    grid = torch.linspace(-5, 5, 20_001, dtype=torch.float64).view(1, -1, 1)
    energies = model.energy(X, Y, grid if latent.codes is None else latent.codes.unsqueeze(0), A)
    found = model.infer(X, Y, A)
    torch.testing.assert_close(found.value, energies.amin(1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(model.energy(X, Y, found.argmin.unsqueeze(1), A).squeeze(1), found.value)
    assert not any(tensor.requires_grad for tensor in found)


@pytest.mark.parametrize("latent", ["none", CODES, CURVE])
def test_gradient_of_the_free_energy_is_that_of_the_minimum(latent):
    # The envelope theorem: ∂F/∂w = ∂E/∂w at ž; against central differences of min over z of E, inferred anew.
    model = made(**BOTH, latent=latent)
    slopes = torch.autograd.grad(free(model, X, Y).sum(), list(model.parameters()))
    directions = [normal(*parameter.shape, seed=i) for i, parameter in enumerate(model.parameters())]

    def minimum(step):
        moved = copy.deepcopy(model)
        for parameter, direction in zip(moved.parameters(), directions, strict=True):
            parameter.data += step * direction
        return moved.infer(X, Y).value.sum().item()

    expected = (minimum(1e-5) - minimum(-1e-5)) / 2e-5
    found = sum((slope * direction).sum().item() for slope, direction in zip(slopes, directions, strict=True))
    assert abs(expected) > 0.1
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 3.0, math.inf])
@pytest.mark.parametrize("latent", ["none", CODES])
def test_free_energy_sums_over_all_codes(latent, beta):
    model = made(**BOTH, latent=latent)
    energies = model.energy(X, Y, model.latent.codes.unsqueeze(0))
    totals = free(model, X, Y, beta=beta), free_energy(energies, beta)
    torch.testing.assert_close(*totals)
    found, expected = (torch.autograd.grad(total.sum(), model.predictor.first.weight) for total in totals)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("latent", [
    {"name": "vector_quantized", "size": 3, "width": 2, "decay": 0.8},
    {"name": "vector_quantized", "size": 3, "width": 2, "rate_weight": 0.1},
    {"name": "finite_scalar", "levels": [3, 2], "rate_weight": 0.1},
])  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("learn", [True, False])
def test_what_a_latent_learns_from_proposals_moves_only_in_a_step_of_a_training(latent, training, learn):
    model = made(**BOTH, latent=latent, inference=AMORTIZED).train(training)
    before = {name: buffer.clone() for name, buffer in model.latent.named_buffers()}
    model(X, Y), model.infer(X, Y)
    free(model, X, Y, learn=learn).sum().backward()
    moved = {name for name, buffer in model.latent.named_buffers() if not torch.equal(buffer, before[name])}
    assert ("counts" in moved) == bool(moved) == (training and learn)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_latent_as_wide_as_s_y_is_copied_and_the_energy_is_flat(alpha):
    # LeCun 2022, section 4.5: nothing but R(z) holds the energy up; then min ‖s − z‖² + α ‖z‖² = α / (1 + α) ‖s‖².
    copied = Formula(lambda s, z: z.expand(len(s), -1, -1))
    model = JEPA(Identity(2), Identity(3), copied, LowDimensional(3, alpha, steps=60)).double()
    x, y = normal(50, 2), 10 * normal(50, 3, seed=1)
    for partner in (y, y.flip(0), -3 * y):
        flat = alpha / (1 + alpha) * partner.square().sum(1)
        torch.testing.assert_close(model.infer(x, partner).value, flat, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("inference", ["minimize", AMORTIZED])
@pytest.mark.parametrize("latent", [CODES, CURVE])
def test_energies_are_equal_to_the_bit_where_representations_are(latent, inference):
    model = made(**BOTH, latent=latent, inference=inference)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.target_encoder = Even().double()
    other = Y * torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]).repeat(2, 1)
    z = model.latent.sample((6, 5), torch.Generator().manual_seed(0)).double()
    assert (Y != other).any(1).all() and torch.equal(model.target_encoder(Y), model.target_encoder(other))
    assert torch.equal(model.energy(X, Y, z), model.energy(X, other, z))
    for found, expected in zip(model.infer(X, Y), model.infer(X, other), strict=True):
        assert torch.equal(found, expected)
    energies = [model(X, target) for target in (Y, other, Y + 0.1)]
    assert torch.equal(energies[0], energies[1]) and (energies[0] != energies[2]).all()


@pytest.mark.parametrize("inference", ["minimize", AMORTIZED])
@pytest.mark.parametrize("latent", [CODES, CURVE])
def test_one_context_is_broadcast_against_many_targets(latent, inference):
    model, x, y = made(**BOTH, latent=latent, inference=inference), normal(1, 2), normal(7, 2, seed=1)
    s = model.encoder(x), NONE[:1], model.target_encoder(y)
    apart = model.infer(x.expand(7, -1), y)
    assert apart.argmin.shape == (7, model.latent.width)
    for found, expected in zip(model.minimum(*s), apart, strict=True):
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad
    torch.testing.assert_close(model.free_energy(*s), apart.value)


# -- what does not fit -------------------------------------------------------------------------------------------------


def returning(change):
    """A part whose result is changed: a predictor's where it is given three arguments."""

    class Changed(nn.Module):
        def forward(self, s, a=None, z=None):
            result = s.new_ones(6, 4) if z is None else s.new_ones(6, z.shape[1], 4)
            return change(result)

    return Changed()


NO_REPRESENTATIONS = {
    "tokens": (lambda s: s.unsqueeze(1).expand(-1, 7, *s.shape[1:]), r"torch.float64 \[6, 7, .*4\]"),
    "class token": (lambda s: s.unsqueeze(1), r"torch.float64 \[6, 1, .*4\]"),
    "squeezed": (lambda s: s[..., 0], r"torch.float64 \[6(, 3)?\]"),
    "dictionary": (lambda s: {"s": s}, "dict$"),
    "tuple": (lambda s: (s, s), "tuple$"),
    "integers": (lambda s: s.long(), "torch.int64"),
    "half of the batch": (lambda s: s[:3], r"torch.float64 \[3, "),
}


@pytest.mark.parametrize("kind", NO_REPRESENTATIONS)
@pytest.mark.parametrize("part", ["encoder", "target_encoder", "predictor"])
def test_part_that_returns_anything_else_is_named(part, kind):
    change, found = NO_REPRESENTATIONS[kind]
    model = with_action(Discrete(3), **{part: returning(change)})
    axes = "6, 3, D" if part == "predictor" else "6, D"
    for call in (model, model.infer):
        with pytest.raises(ValueError, match=rf"^{part}: expected floating-point numbers \[{axes}\], found {found}"):
            call(X, Y, A)
    fits = {"encoder": nn.Linear(2, 3), "target_encoder": nn.Linear(2, 4), "predictor": returning(lambda s: s)}[part]
    assert with_action(Discrete(3), **{part: fits})(X, Y, A).shape == (6,)


@pytest.mark.parametrize("predictor, width", [(returning(lambda s: s[..., :1]), 1), (Copied(3, 3), 3)])
def test_prediction_of_another_width_than_its_target_is_named(predictor, width):
    model = JEPA(nn.Linear(2, 3), nn.Linear(2, 4), predictor, NoLatent()).double()
    with pytest.raises(ValueError, match=rf"^predictor: expected \[6, 1, 4\], as wide as s_y, found \[6, 1, {width}\]"):
        model(X, Y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.infer(X, Y[:2], A), "^y: expected a batch of 6 as for x, found 2"),
        (lambda model: model(X[:2], Y, A), "^y: expected a batch of 2 as for x, found 6"),
        (lambda model: model(X, Y), r"^a: expected \[B, K, 2\], found \[6, 1, 0\]"),
        (lambda model: model(X, Y, A[:3]), r"^a: expected \[6, A\] as for x, found \[3, 2\]"),
        (lambda model: model.infer(X, Y, A[:, 0]), r"^a: expected \[6, A\] as for x, found \[6\]"),
        (lambda model: model.predictions(X, normal(1, 2, 3), A[:3]), r"^a: expected \[6, A\] as for x, found \[3, 2\]"),
        (lambda model: model.energy(X, Y, normal(1, 2, 4), A), r"^z: expected \[B, K, 3\], found \[1, 2, 4\]"),
        (lambda model: model.infer(normal(6, 3), Y, A), "^x: expected 2 features"),
        (lambda model: model.infer(X, torch.full_like(Y, math.nan), A), "^cost: expected numbers, found nan"),
        (lambda model: made(predictor="identity", latent=CURVE), "^predictor: an identity expects"),
        (lambda model: free(made(latent=CURVE), X, Y, beta=2.0), "^beta: expected infinity, .* found 2"),
        (lambda model: free(made(latent=CODES, inference=AMORTIZED), X, Y, beta=2.0), "^beta: expected infinity"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(with_action(Discrete(3)))
