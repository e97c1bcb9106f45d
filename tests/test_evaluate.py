"""Measures of the plane on models built by hand, whose answers are known in closed form, and how they are asked."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import generator
from torch import nn

from jepa.data import HeldOut
from jepa.encoded import alternatives, encoded
from jepa.encoders import Identity
from jepa.evaluate.landscapes import area, codes, codimension, free_energy, information, volume
from jepa.evaluate.subject import Row, Subject, measured, reference_of
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete, NoLatent
from jepa.model import JEPA
from jepa.runs import build
from jepa.runs.config import configure
from jepa.streams import generator_for
from jepa.worlds.plane import Plane

PLANE = Plane()
CLOUD = Plane(dimension=8, modes=1, radius=0.0, spread=1.0)


class Predictor(nn.Module):
    """A predictor given by a formula (s [B, 1, D], z) -> s̃."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, s, a, z):
        """Return the formula's predictions."""
        return self.formula(s, z)


class Constant(nn.Module):
    """An encoder that has collapsed: whatever it sees becomes the same point."""

    def forward(self, x):
        """Return zeros."""
        return torch.zeros_like(x)


def held_out(world, count):
    """Return held-out pairs."""
    pairs = world.sample(count, generator(17))
    return HeldOut(pairs.x, pairs.y, pairs.factors)


def subject(formula, latent, world=PLANE, count=2048, target_encoder=None, pairs=None, **settings):
    """Return a subject whose context encoder keeps everything, and whose predictor is a formula."""
    width = world.dimension
    model = JEPA(Identity(width), target_encoder or Identity(width), Predictor(formula), latent).eval()
    pairs = pairs or held_out(world, count)
    reference = reference_of(JEPA(Identity(width), Identity(width), None, latent), pairs)
    a = pairs.x.new_zeros(len(pairs.x), 0)
    return Subject(model, world, pairs, a, reference, lambda purpose: generator(), world.sample, **settings)


def values(rows):
    """Return the numbers by name."""
    return {row.metric: row.value for row in rows}


def codebook(world, *modes):
    """Return a formula whose k-th code predicts the center of the given place."""
    return lambda s, z: z @ world.targets(s[:, 0])[:, list(modes)]


@pytest.mark.parametrize(
    ("modes", "recall", "minima", "used"),
    [
        ((0, 1, 2, 3), 1.0, 1.0, 1.0),
        ((2, 0, 3, 1), 1.0, 1.0, 1.0),
        ((0, 1, 2), 0.75, 1.0, 1.0),
        ((3,), 0.25, 1.0, 1.0),
        ((0, 1, 2, 3, 0, 1, 2, 3), 1.0, 0.5, 0.5),  # of equal codes the first one wins
    ],
)
def test_codes_that_know_the_places(modes, recall, minima, used):
    rows = codes(subject(codebook(PLANE, *modes), Discrete(len(modes))), contexts=2, grid=64)
    assert rows == [
        Row("minima_per_code", minima), Row("mode_recall", recall, 256 * 4), Row("codes_used", used),
    ]  # fmt: skip


def test_place_is_met_within_the_half_width_of_what_cannot_be_predicted():
    for share, recall in ((0.9, 1.0), (1.1, 0.0)):
        shift = torch.tensor([share * PLANE.spread, 0.0])
        beside = subject(lambda s, z, shift=shift: codebook(PLANE, 0, 1, 2, 3)(s, z) + shift, Discrete(4))
        assert values(codes(beside, contexts=2, grid=16))["mode_recall"] == recall


def test_area_of_four_perfect_codes_is_that_of_four_disks():
    of = subject(codebook(PLANE, 0, 1, 2, 3), Discrete(4), count=8192)
    share, true = area(of, contexts=2, grid=256, epsilon=0.001)
    disk = math.pi * 0.001 * of.reference  # π r² with r² the threshold
    low, high = PLANE.box()
    assert share.value == pytest.approx(4 * disk / float((high - low).prod()), rel=0.02)
    square = (2 * PLANE.spread) ** 2  # over which y is spread around the place
    assert disk < math.pi * PLANE.spread**2 and true.count == 8192
    assert true.value == pytest.approx(disk / square, abs=4 * math.sqrt(0.25 / 8192))


def test_reference_is_the_mean_distance_between_targets():
    of, pairs = build.parts(configure({"target_encoder": {"name": "mlp", "outputs": 3}}), 5), held_out(PLANE, 64)
    with torch.no_grad():
        s = of.model.target_encoder(pairs.y).double()
    expected = pytest.approx(float(torch.cdist(s, s).square().sum() / (64 * 63)))
    assert reference_of(of.model, pairs) == expected
    subject = build.subject(configure(), 5, of, pairs, reference_of(of.model, pairs))
    assert measured(subject, []) == [("reference_energy", expected, None)]


def test_collapsed_encoder_knows_nothing_and_finds_everything_low():
    world = Plane(spread=0.0)
    of = subject(lambda s, z: torch.zeros(len(s), z.shape[1], 2), NoLatent(), world, target_encoder=Constant())
    found = values(measured(of, [area, volume, information]))
    assert found["low_energy_share"] == found["true_pairs_low"] == 1 and found["log_volume"] == 0
    assert found["effective_rank"] == 0 and abs(found["probe_r2"]) < 0.01


def test_probe_reads_the_share_of_what_can_be_predicted():
    world = Plane(dimension=3, modes=1, share=0.5, spread=1.0, falloff=0.5)
    found = values(information(subject(lambda s, z: s, NoLatent(), world, count=20_000)))
    variances = [(0.25, spread**2) for spread in (1.0, 0.5, 0.25)]  # of y: of x's share and of the offset, times three
    expected = sum(known / (known + unknown) for known, unknown in variances) / 3
    assert found["probe_r2"] == pytest.approx(expected, abs=0.02)
    deviations = [math.sqrt(known + unknown) for known, unknown in variances]
    shares = [deviation / sum(deviations) for deviation in deviations]
    entropy = -sum(share * math.log(share) for share in shares)
    assert found["effective_rank"] == pytest.approx(math.exp(entropy), rel=0.01)


def test_probe_reads_the_held_out_half():
    world = Plane(spread=0.0, modes=1)
    pairs = held_out(world, 512)
    spoilt = pairs._replace(y=torch.cat([pairs.y[:256], torch.randn(256, 2, generator=generator())]))
    found = [
        values(information(subject(lambda s, z: s, NoLatent(), world, pairs=p)))["probe_r2"] for p in (pairs, spoilt)
    ]
    assert found[0] == pytest.approx(1, abs=1e-5) and found[1] < 0


EPSILONS = (1e-2, 1e-3, 1e-4)


@pytest.mark.parametrize("size", [0, 1, 3, 6])
def test_flat_manifold_lacks_the_dimensions_that_its_latent_has_not(size):
    latent = LowDimensional(size, starts=8, steps=3) if size else NoLatent()
    flat = subject(lambda s, z: nn.functional.pad(z, (0, 8 - size)) + 0 * s, latent, CLOUD)
    found = values(codimension(flat, contexts=1, chains=512, epsilons=EPSILONS))
    assert found["codimension"] == pytest.approx(8 - size, abs=0.6)
    curve = [found[f"log_volume_{epsilon:.1e}"] for epsilon in EPSILONS]
    slope = 2 * (curve[0] - curve[-1]) / math.log(1e-2 / 1e-4)
    assert slope == pytest.approx(found["codimension"])


def test_latent_as_wide_as_the_target_leaves_nothing_high():
    wide = subject(lambda s, z: z + 0 * s, LowDimensional(8, starts=8, steps=3), CLOUD)
    rows = [*codimension(wide, contexts=1, epsilons=EPSILONS), *volume(wide, contexts=1)]
    assert values(rows)["codimension"] == values(rows)["log_volume"] == 0


def test_volume_is_the_logarithm_of_the_mean_share_over_contexts():
    low, high = PLANE.box()
    # the one prediction lies in the middle of the box for the first context, in its corner for the second
    contexts = torch.tensor([[0.5, 0.5], [-0.5, 0.5]]).repeat(1024, 1)
    pairs = held_out(PLANE, 2048)._replace(x=contexts)
    of = subject(lambda s, z: torch.where(s[..., :1] > 0, 0 * s, low), NoLatent(), pairs=pairs)
    disk = math.pi * 0.01 * of.reference / float((high - low).prod())
    found = values(volume(of, contexts=2, chains=4096, moves=6, epsilon=0.01))["log_volume"]
    assert found == pytest.approx(math.log((disk + disk / 4) / 2), abs=0.15)


@pytest.mark.parametrize(("diff", "message"), [
    ({"measure": ["arae"]}, "measure: expected one of amortization, area, branches, .*found 'arae'.*mean 'area'"),
    ({"measure": [{"name": "area", "gird": 8}]}, "measure.area: option of 'area': .*found 'gird'; did you mean 'grid'"),
    ({"measure": [{"name": "area", "grid": 8.5}]}, "measure.area.grid: expected int, found 8.5"),
    ({"measure": [{"name": "area", "subject": 8}]}, "measure.area: option of 'area': .*found 'subject'"),
    ({"latent": {"name": "low_dimensional", "size": 2}, "at_measurement": {"step": 20}},
     "latent: option of 'low_dimensional'.*did you mean 'steps'"),
])  # fmt: skip
def test_measure_or_option_that_does_not_exist_or_fit_is_named(diff, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build.measures(configure(diff))


def test_options_of_a_measure_reach_it():
    of = subject(codebook(PLANE, 0, 1, 2, 3), Discrete(4))
    config = configure({"measure": [{"name": "area", "grid": 8, "contexts": 1, "epsilon": 0.3}, "information"]})
    config = configure({"measure": {"area": {"grid": 16}}}, base=config)
    expected = [Row("reference_energy", of.reference), *area(of, 1, 16, 0.3), *information(of)]
    assert measured(of, build.measures(config)) == expected and area(of, 1, 8, 0.3) != area(of, 1, 16, 0.3)


def test_number_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="^area: expected a finite number, found nan"):
        measured(subject(lambda s, z: s, NoLatent()), [lambda of: [Row("area", math.nan)]])


def test_codes_are_asked_of_a_latent_that_has_some():
    with pytest.raises(ValueError, match="^measure: expected a latent with codes for 'codes', found LowDimensional$"):
        codes(subject(lambda s, z: z, LowDimensional(2)))


def made(*diffs, count=64):
    """Return a configuration, its parts and the subject that is measured."""
    config = configure(*diffs)
    of = build.parts(config, 0)
    return config, of, build.subject(config, 0, of, held_out(of.world, count), 1.0)


FREE = {"latent": {"name": "low_dimensional", "size": 2, "layers": 2, "starts": 1, "steps": 0}}
NETWORK = {"inference": {"name": "amortized", "refine": 2}}
SEARCH = {"at_measurement": {"starts": 32, "steps": 20}}


def test_options_for_measuring_change_the_inference_and_nothing_else():
    config, of, better = made(FREE, SEARCH)
    model, latent, before = of.model, better.model.latent, {k: v.clone() for k, v in of.model.state_dict().items()}
    assert (latent.steps, len(latent.points), latent.width) == (20, 32, 2)
    assert (model.latent.steps, len(model.latent.points)) == (0, 1)
    assert better.model.encoder is model.encoder and better.model.predictor is model.predictor
    assert better.model.target_encoder is model.target_encoder
    state = better.model.state_dict()
    assert state.keys() == before.keys() and all(torch.equal(state[name], value) for name, value in before.items())
    low, high = better.inferred.value, made(FREE)[2].inferred.value
    assert (low <= high).all() and low.mean() < high.mean()
    assert build.as_measured(configure(FREE), model) is model
    assert not better.model.training and not latent.training


def test_measuring_may_minimize_where_a_network_proposed_in_training():
    own = made(FREE, NETWORK)[1].model.latent
    assert own.network is not None and own.refine == 2
    for diff, network, steps in (
        ({"network": False}, None, 0),
        ({"network": False, "steps": 3}, None, 3),
        ({"network": True, "steps": 3}, own.network, 3),
        ({"steps": 3}, own.network, 3),
    ):
        config = configure(FREE, NETWORK, {"at_measurement": diff})
        model = JEPA(Identity(2), Identity(2), None, own)
        latent = build.as_measured(config, model).latent
        assert latent.network is network and latent.steps == steps and latent.refine == (2 if network else 0)
        assert own.network is not None and own.refine == 2 and own.steps == 0
        assert all(map(torch.equal, latent.deep_linear.parameters(), own.deep_linear.parameters()))
    plain = {"latent": {**FREE["latent"], "starts": 32, "steps": 20}, "inference": "amortized"}
    found, proposed = (made(plain, {"at_measurement": d})[2].inferred.value for d in ({"network": False}, {}))
    assert found.mean() < proposed.mean()


class Deaf(nn.Module):
    """An encoder that nobody may ask."""

    def forward(self, x):
        """Raises: AssertionError."""
        raise AssertionError("expected representations that were encoded before")


@pytest.mark.parametrize("streams", ["purpose", "seed"])
def test_subject_behind_frozen_encoders_takes_what_they_have_made(streams):
    config = configure({"condition_on": ["mode"], "evaluation.samples": 300, "streams": streams})
    of, pairs = build.parts(config, 0), held_out(PLANE, 600)
    made_of = [generator_for(streams, 3, purpose) for purpose in ("pool", "probe pairs")]
    futures = alternatives(of.model, of.world, pairs)
    made = encoded(of.model.eval(), of.sample, (200, 300), made_of, pairs, futures)
    deaf = of._replace(model=JEPA(Deaf(), Deaf(), of.model.predictor, of.model.latent))
    plain, taken = build.subject(config, 3, of, pairs, 1.0), build.subject(config, 3, deaf, pairs, 1.0, made)
    torch.rand(5, generator=taken.stream("sparsity"))  # whatever was drawn before, the pairs are those encoded
    assert torch.equal(plain.a, pairs.factors["mode"].float()) and torch.equal(taken.a, plain.a)
    for name in ("s", "s_probe", "probe_pairs"):
        one, two = (list(getattr(which, name))[:3] for which in (plain, taken))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(torch.equal(plain.probe_factors[name], taken.probe_factors[name]) for name in plain.probe_factors)
    assert torch.equal(plain.alternatives, taken.alternatives) and len(taken.s_probe.s_x) == 300


ENCODERS = {name: {"name": "mlp", "outputs": 3, "hidden": [8]} for name in ("encoder", "target_encoder")}


@pytest.mark.parametrize("diff", [
    {"latent": "none"},
    {"latent": {"name": "discrete", "size": 3}},
    {"latent": {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 3}},
    {"latent": {"name": "low_dimensional", "size": 2}, "inference": "amortized"},
], ids=str)  # fmt: skip
def test_one_context_against_many_targets_is_that_context_repeated(diff):
    model = build.parts(configure(ENCODERS, diff), seed=1).model.double()
    x, y = torch.rand(40, 2, generator=generator()).double().split([1, 39])
    expected = model.infer(x.expand(39, -1), y).value
    torch.testing.assert_close(free_energy(model, x)(y), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(free_energy(model, None)(y), model.infer(y, y).value, rtol=0, atol=0)
    assert expected.std() > 0 and not free_energy(model, x)(y).requires_grad


def test_auto_encoder_is_looked_at_along_its_diagonal():
    pairs = held_out(PLANE, 2048)
    # F(y, y) = ‖y‖² / 4: a disk of radius 2 √level
    halved = subject(lambda s, z: s / 2, NoLatent(), pairs=pairs._replace(x=pairs.y), of_target=True)
    low, high = PLANE.box()
    disk = math.pi * 4 * 0.25 * halved.reference
    found = values(area(halved, grid=64, epsilon=0.25))
    assert found["low_energy_share"] == pytest.approx(min(1, disk / float((high - low).prod())), rel=0.05)
    assert made({"context": "y"})[2].of_target and not made({"context": "x"})[2].of_target


def test_measurements_are_a_function_of_model_and_seed():
    measures = [{"name": "area", "grid": 8}, {"name": "volume", "chains": 256, "moves": 6}, "information"]
    config = configure({**ENCODERS, "measure": measures})
    of, pairs = build.parts(config, 0), held_out(PLANE, 256)
    weights = {key: value.clone() for key, value in of.model.state_dict().items()}

    def found(seed, config=config):
        return measured(build.subject(config, seed, of, pairs, 1.0), build.measures(config))

    before, first = torch.get_rng_state(), found(3)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert found(3) == first
    other = found(4)
    assert {one.metric for one, two in zip(first, other, strict=True) if one != two} == {"log_volume"}  # what is drawn
    # it is done on the CPU, wherever training was
    assert found(3, configure({"device": "meta"}, base=config)) == first
    assert all(torch.equal(value, weights[key]) for key, value in of.model.state_dict().items())
