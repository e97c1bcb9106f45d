"""Every measure on models built by hand, whose answers are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jepa.data import HeldOut
from jepa.encoded import encoded
from jepa.encoders import Identity
from jepa.evaluate.landscapes import free_energy
from jepa.evaluate.subject import Subject, inferring, measure
from jepa.latents.continuous import LowDimensional
from jepa.latents.finite import Discrete, NoLatent
from jepa.model import JEPA
from jepa.runs import build
from jepa.runs.config import configure


class Predictor(nn.Module):
    """A predictor given by a formula (s, z) -> s̃."""

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


def subject(diff, count=2048):
    """Return configuration, world and held-out pairs."""
    config = configure({"measure": {"contexts": 2, "chains": 256, "moves": 6}}, diff)
    world = build.world(config)
    pairs = world.sample(count, torch.Generator().manual_seed(17))
    return config, world, HeldOut(pairs.x, pairs.y, pairs.factors)


def hand_built(formula, latent, target_encoder=None, width=2):
    """Return a model whose context encoder keeps everything."""
    return JEPA(Identity(width), target_encoder or Identity(width), Predictor(formula), latent)


def measured(config, model, held_out, seed=0):
    """Return the numbers of all configured measures by name, and the trials behind them."""
    rows = measure(config, model, held_out, seed)
    return {row.metric: row.value for row in rows}, {row.metric: row.count for row in rows}


def codebook(world, *modes):
    """Return a formula whose k-th code predicts the center of the given place."""
    return lambda s, z: z @ world.targets(s)[:, list(modes)]


PLACES = {"world": "plane", "measure": {"names": ["area", "codes"], "grid": 64, "epsilon": 0.0025}}


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
    config, world, held_out = subject(PLACES)
    values, counts = measured(config, hand_built(codebook(world, *modes), Discrete(len(modes))), held_out)
    assert (values["mode_recall"], values["minima_per_code"], values["codes_used"]) == (recall, minima, used)
    assert counts["mode_recall"] == 256 * 4 and counts["minima_per_code"] is None


def test_place_is_met_within_the_half_width_of_what_cannot_be_predicted():
    config, world, held_out = subject(PLACES)
    for share, recall in ((0.9, 1.0), (1.1, 0.0)):
        shift = torch.tensor([share * world.spread, 0.0])
        beside = hand_built(lambda s, z, shift=shift: z @ world.targets(s) + shift, Discrete(4))
        assert measured(config, beside, held_out)[0]["mode_recall"] == recall


def test_area_of_four_perfect_codes_is_that_of_four_disks():
    config, world, held_out = subject(PLACES, count=8192)
    config = configure({"measure": {"grid": 256, "epsilon": 0.001}}, base=config)
    values, counts = measured(config, hand_built(codebook(world, 0, 1, 2, 3), Discrete(4)), held_out)
    disk = math.pi * config.measure.epsilon * values["reference_energy"]  # π r² with r² the threshold
    low, high = world.box()
    assert values["low_energy_share"] == pytest.approx(4 * disk / float((high - low).prod()), rel=0.02)
    square = (2 * world.spread) ** 2  # over which y is spread around the place
    assert disk < math.pi * world.spread**2 and counts["true_pairs_low"] == 8192
    assert values["true_pairs_low"] == pytest.approx(disk / square, abs=4 * math.sqrt(0.25 / 8192))


def test_reference_is_the_mean_distance_between_targets_of_the_untrained_encoder():
    config, world, held_out = subject(
        {"target_encoder": {"name": "mlp", "outputs": 3}, "encoder": "identity"}, count=64
    )
    values, _ = measured(config, hand_built(codebook(world, 0), Discrete(1), Constant()), held_out, seed=5)
    with torch.no_grad():
        s = build.model(config, 5).target_encoder(held_out.y).double()
    assert values["reference_energy"] == pytest.approx(float(torch.cdist(s, s).square().sum() / (64 * 63)))


def test_collapsed_encoder_knows_nothing_and_finds_everything_low():
    names = {"measure.names": ["area", "volume", "information"], "world": {"name": "plane", "spread": 0.0}}
    config, _, held_out = subject(names)
    model = hand_built(lambda s, z: torch.zeros(len(s), 1, 2), NoLatent(), Constant())
    values, _ = measured(config, model, held_out)
    assert values["low_energy_share"] == values["true_pairs_low"] == 1 and values["log_volume"] == 0
    assert values["effective_rank"] == 0 and abs(values["probe_r2"]) < 0.01


def test_probe_reads_the_share_of_what_can_be_predicted():
    world = {"name": "plane", "dimension": 3, "modes": 1, "share": 0.5, "spread": 1.0, "falloff": 0.5}
    config, _, held_out = subject({"world": world, "measure.names": ["information"]}, count=20_000)
    model = hand_built(lambda s, z: s.unsqueeze(1), NoLatent(), width=3)
    values, _ = measured(config, model, held_out)
    variances = [(0.25, spread**2) for spread in (1.0, 0.5, 0.25)]  # of y: of x's share and of the offset, times three
    expected = sum(known / (known + unknown) for known, unknown in variances) / 3
    assert values["probe_r2"] == pytest.approx(expected, abs=0.02)
    deviations = [math.sqrt(known + unknown) for known, unknown in variances]
    shares = [deviation / sum(deviations) for deviation in deviations]
    entropy = -sum(share * math.log(share) for share in shares)
    assert values["effective_rank"] == pytest.approx(math.exp(entropy), rel=0.01)


def test_probe_reads_the_held_out_half():
    config, _, held_out = subject({"measure.names": ["information"], "world.spread": 0.0, "world.modes": 1}, count=512)
    model = hand_built(lambda s, z: s.unsqueeze(1), NoLatent())
    assert measured(config, model, held_out)[0]["probe_r2"] == pytest.approx(1, abs=1e-5)
    noise = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    spoilt = held_out._replace(y=torch.cat([held_out.y[:256], noise]))
    assert measured(config, model, spoilt)[0]["probe_r2"] < 0


CLOUD = {"world": {"name": "plane", "dimension": 8, "modes": 1, "radius": 0.0, "spread": 1.0}}
NARROW = {"names": ["codimension"], "contexts": 1, "chains": 512, "epsilons": [1e-2, 1e-3, 1e-4]}


@pytest.mark.parametrize("size", [0, 1, 3, 6])
def test_flat_manifold_lacks_the_dimensions_that_its_latent_has_not(size):
    config, _, held_out = subject({**CLOUD, "measure": NARROW})
    latent = LowDimensional(size, starts=8, steps=3) if size else NoLatent()
    pad = (0, 8 - size)
    values, _ = measured(config, hand_built(lambda s, z: nn.functional.pad(z, pad), latent, width=8), held_out)
    assert values["codimension"] == pytest.approx(8 - size, abs=0.6)
    curve = [values[f"log_volume_{epsilon:.1e}"] for epsilon in NARROW["epsilons"]]
    slope = 2 * (curve[0] - curve[-1]) / math.log(1e-2 / 1e-4)
    assert slope == pytest.approx(values["codimension"])


def test_latent_as_wide_as_the_target_leaves_nothing_high():
    narrow = {**NARROW, "names": ["codimension", "volume"]}
    config, _, held_out = subject({**CLOUD, "measure": narrow})
    values, _ = measured(config, hand_built(lambda s, z: z, LowDimensional(8, starts=8, steps=3), width=8), held_out)
    assert values["codimension"] == values["log_volume"] == 0


def test_volume_is_the_logarithm_of_the_mean_share_over_contexts():
    config, world, held_out = subject({"measure": {"names": ["volume"], "epsilon": 0.01, "chains": 4096}})
    low, high = world.box()
    # the one prediction lies in the middle of the box for the first context, in its corner for the second
    model = hand_built(lambda s, z: torch.where(s[:, :1] > 0, 0 * s, low).unsqueeze(1), NoLatent())
    contexts = torch.tensor([[0.5, 0.5], [-0.5, 0.5]]).repeat(len(held_out.x) // 2, 1)
    values, _ = measured(config, model, held_out._replace(x=contexts))
    disk = math.pi * 0.01 * values["reference_energy"] / float((high - low).prod())
    assert values["log_volume"] == pytest.approx(math.log((disk + disk / 4) / 2), abs=0.15)


def test_measure_that_does_not_exist_is_named_with_those_that_do():
    config, world, held_out = subject({"measure.names": ["arae"]})
    model = hand_built(codebook(world, 0), Discrete(1))
    with pytest.raises(
        ValueError, match="measure.names: expected one of amortization, area, branches, .*found 'arae'.*mean 'area'"
    ):
        measure(config, model, held_out, seed=0)


def test_codes_are_asked_of_a_latent_that_has_some():
    config, _, held_out = subject({"latent": {"name": "low_dimensional", "size": 2}, "measure.names": ["codes"]})
    with pytest.raises(ValueError, match="expected a latent with codes for 'codes', found 'low_dimensional'"):
        measure(config, build.model(config, 0), held_out, seed=0)


FREE = {"latent": {"name": "low_dimensional", "size": 2, "starts": 1, "steps": 0}}


def test_options_for_measuring_change_the_inference_and_nothing_else():
    config, _, held_out = subject({**FREE, "measure.latent": {"starts": 32, "steps": 20}}, count=64)
    model = build.model(config, 0)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    better = inferring(config, model)
    assert (better.latent.steps, len(better.latent.points), better.latent.width) == (20, 32, 2)
    assert (model.latent.steps, len(model.latent.points)) == (0, 1)
    assert better.encoder is model.encoder and better.predictor is model.predictor
    assert better.state_dict().keys() == weights.keys()
    low = [net.infer(held_out.x, held_out.y).value for net in (better, model)]
    assert (low[0] <= low[1]).all() and low[0].mean() < low[1].mean()
    assert inferring(configure({"measure.latent": {}}, base=config), model) is model


def test_measuring_infers_with_the_options_for_measuring():
    plain, _, held_out = subject({**FREE, "measure": {"names": ["area"], "grid": 16}}, count=64)
    model = build.model(plain, 0)
    better = configure({"measure.latent": {"starts": 32, "steps": 20}}, base=plain)
    few, many = (measured(config, model, held_out)[0] for config in (plain, better))
    assert many["reference_energy"] == few["reference_energy"]
    assert many["low_energy_share"] > few["low_energy_share"]
    energies = inferring(better, model).infer(held_out.x, held_out.y).value
    assert many["true_pairs_low"] == float((energies < 0.01 * many["reference_energy"]).double().mean())


NETWORK = {"latent": {"name": "low_dimensional", "size": 2, "starts": 32, "steps": 20}, "inference": "amortized"}


def test_measuring_may_minimize_where_a_network_proposed_in_training():
    config, _, held_out = subject({**NETWORK, "measure.minimize": True}, count=64)
    model = build.model(config, 0).eval()
    searching = inferring(config, model)
    assert searching.inference is None and model.inference is not None
    assert searching.latent is model.latent and searching.predictor is model.predictor
    found, proposed = (net.infer(held_out.x, held_out.y).value for net in (searching, model))
    assert found.mean() < proposed.mean()
    both = configure({"measure.latent": {"steps": 3}}, base=config)
    assert inferring(both, model).inference is None and inferring(both, model).latent.steps == 3
    kept = configure({"measure.minimize": False}, base=both)
    assert inferring(kept, model).inference is model.inference and inferring(kept, model).latent.steps == 3


class Deaf(nn.Module):
    """An encoder that nobody may ask."""

    def forward(self, x):
        """Raises: AssertionError."""
        raise AssertionError("expected representations that were encoded before")


def test_subject_behind_frozen_encoders_takes_what_they_have_made():
    config, world, held_out = subject({"told": ["mode"], "measure.samples": 300}, count=600)
    model = build.model(config, 0).eval()
    made = encoded(config, model, held_out, seed=3)
    plain = Subject(config, model, world, held_out, 1.0, torch.Generator().manual_seed(3))
    deaf = JEPA(Deaf(), Deaf(), model.predictor, model.latent)
    taken = Subject(config, deaf, world, held_out, 1.0, torch.Generator().manual_seed(3), made)
    torch.rand(5, generator=taken.generator)  # whatever was drawn before, the pairs are those that were encoded
    assert torch.equal(plain.a, held_out.factors["mode"].float()) and torch.equal(taken.a, plain.a)
    for one, two in ((plain.s, taken.s), (plain.s_probe, taken.s_probe), (plain.seen[:3], taken.seen[:3])):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(torch.equal(plain.known[name], taken.known[name]) for name in plain.known)
    assert torch.equal(plain.alternatives, taken.alternatives) and len(taken.s_probe.s_x) == 300


def test_option_for_measuring_that_the_latent_has_not_is_an_error():
    config, _, held_out = subject({**FREE, "measure.latent": {"step": 20}})
    with pytest.raises(ValueError, match="latent: option of 'low_dimensional'.*did you mean 'steps'"):
        measure(config, build.model(config, 0), held_out, seed=0)


ENCODERS = {f"encoder_{side}": {"name": "mlp", "outputs": 3, "hidden": [8]} for side in "xy"}


@pytest.mark.parametrize(
    "latent", ["none", {"name": "discrete", "size": 3}, {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 3}]
)
def test_one_context_against_many_targets_is_that_context_repeated(latent):
    model = build.model(configure(ENCODERS, {"latent": latent}), seed=1).double()
    x, y = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).double().split([1, 39])
    expected = model.infer(x.expand(39, -1), y).value
    torch.testing.assert_close(free_energy(model, x)(y), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(free_energy(model, None)(y), model.infer(y, y).value, rtol=0, atol=0)
    assert expected.std() > 0 and not free_energy(model, x)(y).requires_grad


def test_auto_encoder_is_looked_at_along_its_diagonal():
    config, world, held_out = subject({"context": "y", "measure": {"names": ["area"], "grid": 64, "epsilon": 0.25}})
    halved = hand_built(lambda s, z: s.unsqueeze(1) / 2, NoLatent())  # F(y, y) = ‖y‖² / 4: a disk of radius 2 √level
    values, _ = measured(config, halved, held_out._replace(x=held_out.y))
    low, high = world.box()
    disk = math.pi * 4 * 0.25 * values["reference_energy"]
    assert values["low_energy_share"] == pytest.approx(min(1, disk / float((high - low).prod())), rel=0.05)


def test_measurements_are_a_function_of_model_and_seed():
    config, _, held_out = subject({"measure": {"names": ["area", "volume", "information"], "grid": 8}})
    model, before = build.model(config, 0), torch.get_rng_state()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    first = measure(config, model, held_out, seed=3)
    torch.manual_seed(99)
    assert measure(config, model, held_out, seed=3) == first
    other = measure(config, model, held_out, seed=4)
    assert {one.metric for one, two in zip(first, other, strict=True) if one != two} == {"log_volume"}  # what is drawn
    torch.set_rng_state(before)
    measure(config, model, held_out, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_measuring_is_done_on_the_cpu_wherever_training_was():
    config, _, held_out = subject({**ENCODERS, "measure": {"names": ["area", "information"], "grid": 8}}, count=64)
    model = build.model(config, 0)
    assert measure(configure({"device": "meta"}, base=config), model, held_out, 0) == measure(
        config, model, held_out, 0
    )
