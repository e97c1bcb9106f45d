"""Upper levels whose latent is an abstract action: what the predictor reads and infers, and what its loss is."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import normal, same
from torch import nn
from torch.distributions import Normal, kl_divergence

from jepa.abstract import OF, Abstract
from jepa.batches import Trajectories
from jepa.encoders import Identity
from jepa.keypoints import UNIT
from jepa.latents.finite import NoLatent
from jepa.latents.stochastic import Gaussian
from jepa.maps import MapReader
from jepa.model import JEPA
from jepa.objectives.abstract import AbstractObjective
from jepa.objectives.pairs import Weights
from jepa.objectives.trajectories import Terms, TrajectoryObjective
from jepa.predictors import MLP, PREDICTORS
from jepa.runs.kinds import Part, kind_of
from jepa.train import Train, fit

SIZE, ACTION = (2, 12, 9), 6
SMALL = {"static": SIZE, "channels": (4, 3), "strides": (1, 2), "hidden": (8,)}


def made(of="outcome", width=2, latent=2, **options):
    """Return a predictor on small maps, in double precision, whose steps are large enough to be seen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = Abstract(width, width, ACTION, latent, of=of, **{**SMALL, **options}).double()
        if predictor.motion is not None:
            nn.init.normal_(predictor.motion[-1].weight)
        return predictor


def model_of(of="outcome", width=2, hidden=(8,), **options):
    """Return a level of codes with such a predictor. Args: options: of the latent."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = Identity(width)
        return JEPA(encoder, encoder, made(of, width, width, hidden=hidden), Gaussian(width, **options)).double()


def maps(count=3, size=SIZE, seed=9):
    """Return static parts."""
    return normal(count, *size, seed=seed)


def batch_of(count=6, steps=3, width=2, shared=2, seed=0):
    """Return trajectories of codes, some of which share a map."""
    frames, a = 0.4 * normal(count, steps + 1, width, seed=seed), normal(count, steps, ACTION, seed=seed + 1)
    return Trajectories(frames, a, maps(count // shared), {})


def loss_of(model, batch, heads=1.0, energy=1.0, **terms):
    """Return the loss of a batch."""
    return AbstractObjective(Weights(energy=energy), Terms(**terms), heads)(model, batch, 0.0)


def numbers(loss):
    """Return the terms of a loss by name."""
    return {name: float(term.detach()) for name, term in loss.terms.items()}


# -- the predictor -----------------------------------------------------------------------------------------------------


def test_it_is_found_by_its_name():
    assert kind_of("predictor", Part("abstract"), PREDICTORS) is Abstract


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("width", [2, 4])
def test_shapes(of, width):
    predictor = made(of, width, width)
    looks = {what: predictor.map(maps()) for what in ("step", "inferred")} | {"place": predictor.fine(maps())}
    s, a, z = normal(6, 5, width), normal(6, 5, ACTION), normal(6, 5, width)
    assert predictor.bind(maps())(s, s.new_zeros(1, 1, 0), z).shape == (6, 5, width)
    assert predictor.bind(maps())(s[:, :1], s.new_zeros(1, 1, 0), z[:1]).shape == (6, 5, width)
    assert predictor.on(looks["inferred"], "inferred")(s, a, s + z).shape == (6, 5, 2 * width)
    for what in ("place", "doubts"):
        assert predictor.on(looks["place"], what)(s, s, s).shape == (6, 5, 1)
    if of == "subgoal":
        assert predictor.on(looks["step"], "end")(s, s + z, s).shape == (6, 5, 1)


def test_read_as_a_map_reader_reads_whose_action_is_the_abstract_one():
    reader = MapReader(2, 2, 2, static=SIZE, channels=(4, 3), hidden=(8,), reach=0.3).double()
    predictor = made(strides=(1, 1), reach=0.3)
    predictor.map.load_state_dict(reader.map.state_dict())
    predictor.motion.load_state_dict(reader.motion.state_dict())
    s, z, none = normal(6, 5, 2), normal(6, 5, 2, seed=1), normal(1, 1, 0)
    assert torch.equal(predictor.bind(maps())(s, none, z), reader.bind(maps())(s, z, none))


@pytest.mark.parametrize("size", [(2, 12, 9), (1, 33, 33), (1, 7, 8)])
def test_coarse_features_are_read_as_grid_sample_does(size):
    look, s = made(static=size, channels=(5, 4, 3), strides=(1, 2, 1)).map, 3 * normal(5, 40, 2)
    features = look(maps(5, size)).unflatten(1, look.sides).movedim(-1, 1)  # one is at every other pixel
    pixel = (s * UNIT + (torch.tensor(size[:0:-1]) - 1) / 2) / 2
    side = torch.tensor(look.sides[::-1]) - 1
    options = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}
    expected = nn.functional.grid_sample(features, (2 * pixel / side - 1).unsqueeze(1), **options)[:, :, 0]
    read = look.at(look(maps(5, size)), torch.arange(5), s)
    torch.testing.assert_close(read[..., :3], expected.transpose(1, 2), rtol=1e-9, atol=1e-9)
    assert features.shape[2:] == ((size[1] + 1) // 2, (size[2] + 1) // 2)


def test_maps_are_shared_in_a_row_and_chosen_by_rows():
    predictor, s, z = made(), normal(6, 4, 2), normal(6, 4, 2, seed=1)
    none = s.new_zeros(1, 1, 0)
    whole = predictor.bind(maps())(s, none, z)
    assert torch.equal(whole, predictor.bind(maps().repeat_interleave(2, 0))(s, none, z))
    chosen = torch.tensor([2, 0, 0])
    each = predictor.bind(maps()).rows(chosen)(s[:3], none, z[:3])
    assert torch.equal(each, predictor.bind(maps()[chosen])(s[:3], none, z[:3]))
    assert not torch.equal(whole[:2], predictor.bind(maps().flip(0))(s, none, z)[:2])  # the map is read


@pytest.mark.parametrize("of", OF)
def test_what_an_abstract_action_is_inferred_from(of):
    predictor, s, a, moved = made(of), 0.3 * normal(6, 5, 2), normal(6, 5, ACTION), normal(6, 5, 2, seed=2)
    inferred = predictor.on(predictor.map(maps()), "inferred")
    found = inferred(s, a, s + moved)
    same_action, same_move = inferred(s + 0.2, a, s), inferred(s, a + 1, s + moved)
    elsewhere = predictor.on(predictor.map(maps(seed=3)), "inferred")(s, a, s + moved)
    assert torch.equal(found, same_action) == (of == "actions")
    assert torch.equal(found, same_move) == (of != "actions")
    assert torch.equal(found, elsewhere) == (of != "outcome")


def test_a_subgoal_is_where_the_step_ends():
    predictor, s, after = made("subgoal", reach=0.25), normal(6, 5, 2), normal(6, 5, 2, seed=2)
    inferred = predictor.on(predictor.map(maps()), "inferred")
    mean, log_deviation = inferred(s, s.new_zeros(6, 1, ACTION), after).chunk(2, -1)
    torch.testing.assert_close(predictor.bind(maps())(s, s.new_zeros(1, 1, 0), mean), after, rtol=0, atol=1e-12)
    assert (log_deviation == -math.inf).all()


def test_limit_divides_actions_and_reach_multiplies_steps():
    one, ten, s, a = made("actions"), made("actions", limit=10.0, reach=10.0), normal(6, 5, 2), normal(6, 5, ACTION)
    found = [predictor.on(predictor.map(maps()), "inferred")(s, k * a, s) for predictor, k in ((one, 1.0), (ten, 10.0))]
    torch.testing.assert_close(*found)
    moved = [predictor.bind(maps())(s, s.new_zeros(1, 1, 0), s) - s for predictor in (one, ten)]
    torch.testing.assert_close(10 * moved[0], moved[1])


def test_doubts_are_of_the_least_plausible_place_on_the_way():
    predictor, s, after = made(), normal(6, 5, 2), normal(6, 5, 2, seed=2)
    place = predictor.on(predictor.fine(maps()), "place")
    way = [place(s + k / 3 * (after - s), s, s) for k in (1, 2, 3)]
    found = predictor.on(predictor.fine(maps()), "doubts")(s, after, after)
    torch.testing.assert_close(found, torch.minimum(torch.minimum(way[0], way[1]), way[2]))


@pytest.mark.parametrize("of", OF)
def test_weights_do_not_know_how_large_a_map_is(of):
    small, large = made(of), made(of, static=(2, 30, 21))
    large.load_state_dict(small.state_dict())
    assert large.bind(maps(size=(2, 30, 21)))(normal(3, 1, 2), normal(1, 1, 0), normal(3, 4, 2)).shape == (3, 4, 2)


CANNOT = [
    ({"inputs": 3, "outputs": 3}, "inputs, outputs: expected the same, two numbers a place, found 3, 3"),
    ({"outputs": 4}, "inputs, outputs: expected the same, two numbers a place, found 2, 4"),
    ({"inputs": 0, "outputs": 0}, "inputs, outputs: expected the same, two numbers a place, found 0, 0"),
    ({"of": "outcomes"}, "of: expected one of actions, outcome, subgoal, found 'outcomes'"),
    ({"latent": 0}, "latent: expected a width of at least 1 for 'outcome', found 0"),
    ({"latent": 3, "of": "subgoal"}, "latent: expected a width of 2, as the state for 'subgoal', found 3"),
    ({"limit": 0.0}, "limit, reach: expected numbers above 0, found 0.0, 1.0"),
    ({"reach": -1.0}, "limit, reach: expected numbers above 0, found 1.0, -1.0"),
    ({"static": 5}, "static: expected a map, C, H, W, found a width of 5"),
    ({"static": (2, 2, 9)}, "static: expected at least 2 pixels a side to read between, found"),
    ({"strides": (1,)}, r"strides: expected 2 of at least 1, found \[1\]"),
]


@pytest.mark.parametrize(("options", "message"), CANNOT, ids=str)
def test_predictors_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Abstract(**{"inputs": 2, "outputs": 2, "action": ACTION, "latent": 2, **SMALL, **options})


def test_a_map_must_be_told_and_fit():
    with pytest.raises(ValueError, match="^static: expected a map, found none"):
        made()(normal(1, 1, 2), normal(1, 1, 0), normal(1, 1, 2))
    with pytest.raises(ValueError, match=r"^static: expected \[G, 2, 12, 9\], found \[3, 2, 9, 12\]"):
        made().bind(maps(size=(2, 9, 12)))


# -- the objective: closed forms ---------------------------------------------------------------------------------------


def settled(module, *values):
    """Give the last layer of a perceptron weights of 0 and these biases: its output whatever it is given."""
    with torch.no_grad():
        module[-1].weight.zero_()
        module[-1].bias.copy_(torch.tensor(values, dtype=torch.float64))


MEAN, LOG = (0.5, -1.5), (-0.25, 0.75)


@pytest.mark.parametrize("of", ["actions", "outcome"])
@pytest.mark.parametrize("training", [True, False])
def test_terms_of_what_is_told_nothing_are_known(of, training):
    model, batch = model_of(of, temperature=0.3).train(training), batch_of()
    predictor = model.predictor
    settled(predictor.motion, 0.1, -0.2)  # every step is this one
    settled(predictor.network, *MEAN, *LOG)
    settled(predictor.plausible, 0.0)
    settled(predictor.reachable, 0.0)
    loss = loss_of(model, batch, heads=0.5, energy=3.0)
    assert tuple(loss.terms) == AbstractObjective.terms == ("total", "energy", "rate", "heads")
    ways = batch.frames[:, :1] + torch.arange(1, 4).view(1, 3, 1) * torch.tensor([0.1, -0.2])
    energy = (ways - batch.frames[:, 1:]).square().sum(-1).mean()
    divergence = kl_divergence(Normal(torch.tensor(MEAN), torch.tensor(LOG).exp()), Normal(0.0, 1.0)).sum()
    expected = {"energy": float(energy), "rate": 0.3 * float(divergence), "heads": math.log(2)}
    expected["total"] = 3 * (expected["energy"] + expected["rate"]) + 0.5 * expected["heads"]
    assert numbers(loss) == pytest.approx(expected, rel=1e-6) and loss.total is loss.terms["total"]


def test_what_is_beyond_delta_counts_as_a_line():
    model, batch = model_of(), batch_of()
    settled(model.predictor.motion, 0.0, 0.0)
    gone = (batch.frames[:, :1] - batch.frames[:, 1:]).abs()
    assert 0.1 < (gone > 0.25).double().mean() < 0.9
    expected = torch.where(gone > 0.25, 0.25 * (2 * gone - 0.25), gone.square()).sum(-1).mean()
    torch.testing.assert_close(loss_of(model, batch, delta=0.25).terms["energy"], expected)


@pytest.mark.parametrize("of", OF)
def test_both_heads_count_the_same_whatever_an_abstract_action_is_of(of):
    model, batch = model_of(of), batch_of()
    predictor = model.predictor
    settled(predictor.plausible, 0.0)
    settled(predictor.reachable, 2.0)
    ends = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert numbers(loss_of(model, batch))["heads"] == pytest.approx((math.log(2) + ends) / 2)


def test_a_subgoal_has_no_energy_and_no_price_and_two_heads():
    model, batch = model_of("subgoal"), batch_of()
    predictor = model.predictor
    settled(predictor.plausible, 0.0)
    settled(predictor.reachable, 2.0)
    found = numbers(loss_of(model, batch, horizon=2))
    assert found["energy"] == pytest.approx(0, abs=1e-20) and found["rate"] == 0
    ends = (math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2
    assert found["heads"] == pytest.approx((math.log(2) + ends) / 2)
    settled(predictor.plausible, -3.0)
    places = (math.log1p(math.exp(-3)) + math.log1p(math.exp(3))) / 2
    assert numbers(loss_of(model, batch))["heads"] == pytest.approx((places + ends) / 2)


def test_measured_energy_is_the_mean_over_the_fixed_draws():
    model, batch = model_of(draws=4).eval(), batch_of()
    predictor, found = model.predictor, []
    with torch.no_grad():
        z = predictor.on(predictor.map(batch.static), "inferred")(batch.frames[:, :-1], batch.a, batch.frames[:, 1:])
        mean, log_deviation = z.chunk(2, -1)
        for draw in model.latent.draws.fixed:
            s, step = batch.frames[:, :1], predictor.bind(batch.static)
            for t in range(3):
                told = (mean + log_deviation.exp() * draw)[:, t : t + 1]
                s = step(s, s.new_zeros(1, 1, 0), told)
                found.append((s[:, 0] - batch.frames[:, t + 1]).square().sum(-1).mean())
        torch.testing.assert_close(loss_of(model, batch).terms["energy"], torch.stack(found).mean())


@pytest.mark.parametrize("of", OF)
def test_roll_outs_of_few_steps_are_those_of_the_windows_with_the_map_of_their_trajectory(of):
    model, batch = model_of(of).eval(), batch_of(steps=5)
    whole = loss_of(model, batch, heads=0.0, horizon=2).terms
    parts = []
    for row in range(6):
        for first in range(4):
            frames, a = batch.frames[row : row + 1, first : first + 3], batch.a[row : row + 1, first : first + 2]
            one = Trajectories(frames, a, batch.static[row // 2 : row // 2 + 1], {})
            parts.append(loss_of(model, one, heads=0.0).terms)
    for name in ("energy", "rate"):
        torch.testing.assert_close(whole[name], torch.stack([part[name] for part in parts]).mean())


def test_places_two_at_a_time():
    model = model_of("subgoal", width=4)
    assert loss_of(model, batch_of(width=4)).total.isfinite()


# -- the objective: gradients and draws --------------------------------------------------------------------------------


@pytest.mark.parametrize("of", OF)
def test_gradients_reach_all_that_is_learned(of):
    model = model_of(of)
    loss_of(model, batch_of()).total.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
    names = {name.split(".")[1] for name, _ in model.named_parameters()}
    expected = {"map", "fine", "plausible", "reachable"} | (set() if of == "subgoal" else {"motion", "network"})
    assert names == expected


def test_energy_alone_teaches_network_and_motion_and_no_head():
    model = model_of()
    loss_of(model, batch_of(), heads=0.0).total.backward()
    taught = {name.split(".")[1] for name, weight in model.named_parameters() if weight.grad is not None}
    assert taught == {"map", "motion", "network"}


def test_heads_teach_no_encoder():
    model, batch = model_of("subgoal"), batch_of()
    batch.frames.requires_grad_(True)
    loss_of(model, batch, energy=0.0).terms["heads"].backward()
    assert batch.frames.grad is None


@pytest.mark.parametrize("of", OF)
def test_draws_are_of_the_latent_s_generator_alone(of):
    model, batch = model_of(of).train(), batch_of()
    before, outside = model.latent.draws.get_extra_state(), torch.get_rng_state()
    first, second = loss_of(model, batch), loss_of(model, batch)
    model.latent.draws.set_extra_state(before)
    again = loss_of(model, batch)
    assert torch.equal(first.total, again.total) and not torch.equal(first.total, second.total)
    assert torch.equal(torch.get_rng_state(), outside)


@pytest.mark.parametrize("of", OF)
def test_whoever_only_looks_moves_no_draw(of):
    model, batch = model_of(of).eval(), batch_of()
    before = model.latent.draws.get_extra_state()
    losses = [loss_of(model, batch).total for _ in range(2)]
    assert torch.equal(*losses) and torch.equal(model.latent.draws.get_extra_state(), before)


def source(count, generator):
    """Return trajectories, two on each map."""
    frames = 0.4 * torch.randn(count, 4, 2, generator=generator, dtype=torch.float64)
    static = torch.randn(count // 2, *SIZE, generator=generator, dtype=torch.float64)
    return Trajectories(frames, torch.randn(count, 3, ACTION, generator=generator, dtype=torch.float64), static, {})


@pytest.mark.parametrize("of", OF)
def test_training_that_is_cut_goes_on_to_the_same_to_the_bit(of, tmp_path):
    objective, train = AbstractObjective(Weights(), Terms(horizon=2, delta=0.25)), Train(steps=5, batch=4, rate=0.01)

    def trained(path, stop=None):
        """Return the weights of a training that may be cut after a step."""
        model = model_of(of)

        def callback(step, model):
            if step == stop:
                raise KeyboardInterrupt

        fit(model, objective, source, torch.Generator().manual_seed(3), train, checkpoint=path, callbacks=[callback])
        return model.state_dict()

    whole = trained(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut.pt", 2)
    assert same(trained(tmp_path / "cut.pt"), whole) and not same(model_of(of).state_dict(), whole)


def test_the_dearer_it_is_the_less_is_told_and_the_less_is_foreseen():
    objective, train, found = AbstractObjective(Weights(), Terms(horizon=1)), Train(steps=150, batch=32, rate=0.02), []
    for temperature in (1e-3, 3.0):
        model = model_of("outcome", temperature=temperature, hidden=(32, 32))
        curve = fit(model, objective, source, torch.Generator().manual_seed(3), train)
        found.append((curve.terms["energy"][-1], curve.terms["rate"][-1] / temperature))
    (cheap, much), (dear, little) = found
    assert cheap < 0.5 * dear and much > 10 * little, found


# -- the objective: what cannot be -------------------------------------------------------------------------------------


REFUSED = [
    ({"heads": -1.0}, "heads: expected a weight of at least 0, found -1.0"),
    ({"heads": math.nan}, "heads: expected a weight of at least 0, found nan"),
    ({"weights": Weights(variance=1.0)}, "loss.variance, loss.covariance: expected 0, .*, found 1.0, 0.0"),
    ({"weights": Weights(covariance=0.5)}, "loss.variance, loss.covariance: expected 0, .*, found 0.0, 0.5"),
    ({"weights": Weights(beta=2.0)}, "loss.beta: expected infinity, as z is inferred by a network, found 2.0"),
    ({"extra": Terms(similarity=1.0)}, "objective.similarity: expected 0.0 for abstract actions, found 1.0"),
    ({"extra": Terms(inverse=1.0)}, "objective.inverse: expected 0.0 for abstract actions, found 1.0"),
    ({"extra": Terms(targets="stopped")}, "objective.targets: expected 'gradient' for abstract actions, found 'stopp"),
    ({"extra": Terms(centered=True)}, "objective.centered: expected False for abstract actions, found True"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_weights_and_terms_that_do_not_count_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        AbstractObjective(**{"weights": Weights(), "extra": Terms(), **options})


def test_models_and_batches_that_do_not_fit_are_named():
    encoder, batch = Identity(2), batch_of()
    with pytest.raises(ValueError, match="^predictor: expected one of abstract actions, found MLP"):
        loss_of(JEPA(encoder, encoder, MLP(2, 2, ACTION), NoLatent()).double(), batch)
    with pytest.raises(ValueError, match="^latent: expected a Gaussian beside it, found NoLatent"):
        loss_of(JEPA(encoder, encoder, made(), NoLatent()), batch)
    with pytest.raises(ValueError, match="^objective.horizon: expected at most 3, .* found 4"):
        loss_of(model_of(), batch, horizon=4)
    with pytest.raises(ValueError, match="^frames: expected torch.float64"):
        loss_of(model_of(), batch._replace(frames=batch.frames.float()))


def test_settings_say_what_decides_a_training():
    settings = AbstractObjective(Weights(energy=2.0, energy_start=0.5), Terms(horizon=3, delta=0.25), 0.5).settings
    expected = {"energy": 2.0, "energy_start": 0.5, "heads": 0.5, "horizon": 3, "delta": 0.25}
    assert {name: settings[name] for name in expected} == expected
    assert not {*AbstractObjective.terms[2:]} & {*TrajectoryObjective.terms}
