"""What models of the fork know, on models built by hand that are told the true state instead of frames."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, nn

from jepa import build
from jepa.config import configure
from jepa.data import HeldOut
from jepa.encoders import Identity
from jepa.evaluate import MEASURES, Subject, encode, futures, measure, pixels
from jepa.latents.finite import Discrete, NoLatent
from jepa.latents.low_dimensional import LowDimensional
from jepa.measures.collapse import auroc, contrast, effective_rank
from jepa.model import JEPA, Representations
from jepa.worlds.fork import Fork
from jepa.worlds.pairs import Pairs

BEFORE = ("approach", "speed", "lane", "heading", "place", "angle")
REFERENCE = 50.0


@dataclass(frozen=True)
class Told(Fork):
    """The fork, where x says the predictable factors and y the car's path, the trees' brightness and the noise."""

    frames: int = 2

    def render(self, factors, noise=None, shift=None):
        """Return states in place of clips."""
        path = self.positions(factors)[:, self.frames :]
        path = path if shift is None else path + shift.unsqueeze(1)
        grain = path.new_zeros(len(path), 1) if noise is None else noise.flatten(1)[:, :1]
        y = torch.cat([path.flatten(1), factors["texture_y"], grain], 1)
        x = torch.cat([factors[name] for name in BEFORE], 1)
        return Pairs(x, x.new_zeros(len(x), 0), y, factors)


class Formula(nn.Module):
    """A part given by a formula."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, s, a=None, z=None):
        """Return what the formula makes of s, and of z where there is one."""
        return self.formula(s) if z is None else self.formula(s, z)


def state(s):
    """Return the factors in s_x [B, 6]."""
    return dict(zip(BEFORE, s.split(1, 1), strict=True))


def of_path(world):
    """Return an encoder of y that keeps the car's path."""
    return Formula(lambda y: y[:, : 2 * world.frames])


def of_trees(world):
    """Return an encoder of y that keeps the brightness of the trees."""
    return Formula(lambda y: y[:, 2 * world.frames : -1])


def codebook(world, *rows):
    """Return a formula whose code k predicts the mixture `rows[k]` of the futures, weights that sum to one."""
    weights = torch.tensor(rows, dtype=torch.float)
    return lambda s, z: torch.einsum("bkc,cm,bmd->bkd", z.expand(len(s), -1, -1), weights, every(world, s))


def every(world, s):
    """Return the futures [B, M, D] of s_x."""
    return world.futures(state(s)).flatten(2)


def told(formula, encoder_y, codes=2, world=None, count=300, **settings):
    """Return a subject: a model built by hand, and what it is measured on."""
    world = world or Told()
    latent = codes if isinstance(codes, nn.Module) else Discrete(codes) if codes else NoLatent()
    model = JEPA(Formula(lambda x: x), encoder_y, Formula(formula), latent)
    return asked(world, model, count=count, **settings)


def asked(world, model, held_out=None, count=300, **settings):
    """Return a subject of a model."""
    pairs = world.sample(count, Generator().manual_seed(1), unseen=True)
    held_out = held_out or HeldOut(pairs.x, pairs.y, pairs.factors)
    config = configure({"world": "fork", "measure.samples": 600, "encoder_y": "convolutional"}, settings)
    return Subject(config, model, world, held_out, REFERENCE, Generator().manual_seed(2))


def values(rows):
    """Return the numbers by name."""
    assert all(math.isfinite(row.value) for row in rows)
    return {row.metric: row.value for row in rows}


def apart(a, b):
    """Return the mean over clips of the root of the mean squared distance over frames, of paths [B, T, 2]."""
    return sum(float((one - two).square().sum(1).mean().sqrt()) for one, two in zip(a, b, strict=True)) / len(a)


def halves(subject):
    """Return the mean distance of the two futures of the held-out clips."""
    found = subject.world.futures(subject.held_out.factors)
    return apart(found[:, 0], found[:, 1])


EVEN = Told()


@pytest.mark.parametrize("rows", [((1, 0), (0, 1)), ((0, 1), (1, 0)), ((0.5, 0.5), (0, 1), (1, 0))])
def test_codes_that_are_the_futures_name_the_branch(rows):
    subject = told(codebook(EVEN, *rows), of_path(EVEN), len(rows))
    (row,) = futures.branches(subject)
    assert row == ("branch_accuracy", 1.0, 300)


def test_each_code_stands_for_one_branch_at_most():
    def shared(s, z):
        """Return predictions of which two take turns to be branch 0."""
        first, second = every(EVEN, s).unbind(1)
        far, mine = first + 100, s[:, 2:3] > 0
        return torch.einsum(
            "bkc,bcd->bkd",
            z.expand(len(s), -1, -1),
            torch.stack([torch.where(mine, first, far), torch.where(mine, far, first), second], 1),
        )

    subject = told(shared, of_path(EVEN), 3)
    lane, branch = subject.held_out.factors["lane"][:, 0], subject.held_out.factors["branch"][:, 0]
    turns = [int(((branch == 0) & mine).sum()) for mine in (lane > 0, lane <= 0)]
    (row,) = futures.branches(subject)
    assert min(turns) > 30 and row.value == pytest.approx((max(turns) + int((branch == 1).sum())) / 300)


@pytest.mark.parametrize("rows", [((1, 0, 0),), ((1, 0, 0), (0, 0, 1)), ((0, 1, 0), (0, 1, 0), (0, 1, 0))])
def test_fewer_codes_than_branches_miss_the_rest(rows):
    world = Told(turns=(-1, 0, 1), odds=(1, 2, 5))
    subject = told(codebook(world, *rows), of_path(world), len(rows), world)
    drawn = codebook(world, *rows)(subject.held_out.x, torch.eye(len(rows))[None])
    chosen = [int((each - y[:4]).square().sum(1).argmin()) for each, y in zip(drawn, subject.held_out.y, strict=True)]
    branch = subject.held_out.factors["branch"][:, 0].tolist()
    hits = [
        sum(names[code] == m for code, m in zip(chosen, branch, strict=True))
        for names in itertools.permutations(range(3), len(rows))  # the branch that each code stands for
    ]
    assert futures.branches(subject)[0].value == pytest.approx(max(hits) / 300) != 1


def test_perfect_predictions_are_the_futures():
    for rows in (((1, 0), (0, 1)), ((0, 1), (1, 0))):
        subject = told(codebook(EVEN, *rows), of_path(EVEN))
        found = values(futures.predictions(subject))
        assert found["decoded_error"] < 0.15 and found["future_error"] < 0.15 and found["mode_recall"] == 1
        assert found["future_separation"] == pytest.approx(halves(subject), rel=0.03)
    counts = {row.metric: row.count for row in futures.predictions(subject)}
    assert counts == {"decoded_error": None, "future_error": None, "mode_recall": 600, "future_separation": None}


def test_mean_of_the_futures_is_half_way_from_each():
    subject = told(codebook(EVEN, (0.5, 0.5), (0.5, 0.5)), of_path(EVEN))
    found = values(futures.predictions(subject))
    half = halves(subject) / 2
    assert found["decoded_error"] == pytest.approx(half, rel=0.1)
    assert found["future_error"] == pytest.approx(half, rel=0.1)
    assert found["mode_recall"] < 0.1 and found["future_separation"] == 0


@pytest.mark.parametrize(("row", "recall", "missed"), [((1.0, 0.0), 0.5, 0.5), ((0.5, 0.5), 0.0, 0.5)])
def test_one_prediction_is_not_two(row, recall, missed):
    subject = told(codebook(EVEN, row), of_path(EVEN), 1)
    found = values(futures.predictions(subject))
    assert found["mode_recall"] == pytest.approx(recall, abs=0.1) and found["future_separation"] == 0
    assert found["decoded_error"] == pytest.approx(missed * halves(subject), rel=0.15)


def test_worst_of_the_set_is_its_error():
    subject = told(codebook(EVEN, (1, 0), (0.5, 0.5), (0, 1)), of_path(EVEN), 3)
    found = values(futures.predictions(subject))
    assert found["decoded_error"] < 0.15 and found["mode_recall"] == 1
    assert found["future_error"] == pytest.approx(halves(subject) / 2, rel=0.1)
    assert found["future_separation"] == pytest.approx(halves(subject), rel=0.03)


def test_future_is_met_within_a_unit_of_length():
    for off, recall in ((0.6, 1.0), (1.4, 0.0)):
        shift = torch.tensor([off, 0.0]).repeat(2)
        model = codebook(EVEN, (1, 0), (0, 1))
        found = values(futures.predictions(told(lambda s, z, by=shift, of=model: of(s, z) + by, of_path(EVEN))))
        assert found["mode_recall"] == pytest.approx(recall, abs=0.05)
        assert found["decoded_error"] == pytest.approx(off, abs=0.15)


def brute_mismatched(subject):
    """Return which clips' x the next clip's y could not follow, by loops over branches."""
    world, factors = subject.world, subject.held_out.factors
    count = len(factors["place"])
    ways, taken = world.futures(factors), world.positions(factors)[:, world.frames :]
    wrong = []
    for n in range(count):
        y = taken[(n + 1) % count]
        gaps = [float((way - y).square().sum(1).mean().sqrt()) for way in ways[n]]
        wrong.append(min(gaps) > 1)
    return torch.tensor(wrong)


@pytest.mark.parametrize("model", ["oracle", "mean"])
def test_contrast_is_that_of_pairs_that_cannot_be(model):
    rows = {"oracle": ((1, 0), (0, 1)), "mean": ((0.5, 0.5), (0.5, 0.5))}[model]
    subject = told(codebook(EVEN, *rows), of_path(EVEN), count=200)
    x, y = subject.held_out.x, subject.held_out.y
    wrong = brute_mismatched(subject)
    true = subject.model.infer(x, y).value
    mismatched = subject.model.infer(x[wrong], y.roll(-1, 0)[wrong]).value
    found = values(futures.collapse(subject))
    assert 0 < (~wrong).sum() < 60
    assert found["contrast"] == pytest.approx(contrast(true, mismatched, REFERENCE))
    assert found["auroc"] == pytest.approx(auroc(true, mismatched))
    assert found["true_energy"] == pytest.approx(float(true.median()) / REFERENCE, abs=1e-6)
    assert found["effective_rank"] == pytest.approx(effective_rank(y[:, :4]), rel=1e-5) and found["parameters"] == 0
    assert found["oracle_auroc"] >= 0.99 and (found["auroc"] == 1) == (model == "oracle")


def test_mismatch_that_differs_in_the_branch_only_is_plausible():
    subject = told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN), count=100)
    factors = {name: factor.repeat_interleave(2, 0) for name, factor in subject.held_out.factors.items()}
    factors["branch"][1::2] = 1 - factors["branch"][::2]
    pairs = EVEN.render(factors)
    subject = asked(EVEN, subject.model, HeldOut(pairs.x, pairs.y, factors))
    assert not brute_mismatched(subject)[::2].any()
    found = values(futures.collapse(subject))
    assert found["auroc"] == found["oracle_auroc"] == 1 and found["contrast"] > 0


def test_constant_model_has_collapsed():
    point = Formula(lambda y: torch.ones(len(y), 2))
    found = values(futures.collapse(told(lambda s, z: s.new_zeros(len(s), z.shape[1], 2), point)))
    assert (found["contrast"], found["auroc"], found["effective_rank"]) == (0, 0.5, 0)
    assert found["oracle_auroc"] >= 0.99 and found["true_energy"] == pytest.approx(2 / REFERENCE)


def test_parameters_are_counted():
    subject = told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN))
    subject.model.encoder_x.weights = nn.Parameter(torch.zeros(3, 5))
    assert values(futures.collapse(subject))["parameters"] == 15


def test_model_that_sees_the_car_only_is_invariant():
    rows = futures.invariance(told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN)))
    found = values(rows)
    assert found["invariance_rate"] == 1 and rows[0].count == 300
    assert found["retextured_energy"] == pytest.approx(0, abs=1e-9)
    assert found["moved_energy"] == pytest.approx(2 / REFERENCE, rel=1e-3)  # a unit in each of the two frames


def test_model_that_sees_the_trees_only_is_not():
    found = values(futures.invariance(told(lambda s, z: s.new_zeros(len(s), z.shape[1], 16), of_trees(EVEN))))
    assert found["invariance_rate"] == found["moved_energy"] == 0 and found["retextured_energy"] > 0.01


def test_new_noise_comes_with_the_new_trees():
    predict = codebook(EVEN, (1, 0), (0, 1))
    for seen, rate in ((lambda grain: 10 * (grain != 0), 1.0), (lambda grain: 30 * grain, 0.5)):
        encoder = Formula(lambda y, seen=seen: torch.cat([y[:, :4], seen(y[:, -1:])], 1))
        last = 10 if rate == 1 else 0  # that there is noise is expected, how much of it is not
        subject = told(lambda s, z, last=last: nn.functional.pad(predict(s, z), (0, 1), value=last), encoder)
        found = values(futures.invariance(subject))["invariance_rate"]
        assert found == rate if rate == 1 else found < rate


def test_car_that_may_be_moved_for_the_better_is_not_seen():
    aside = codebook(EVEN, (1, 0), (0, 1))
    found = values(futures.invariance(told(lambda s, z: aside(s, z) + 100, of_path(EVEN))))
    assert found["invariance_rate"] == pytest.approx(0.5, abs=0.1)
    point = Formula(lambda y: torch.ones(len(y), 2))
    still = told(lambda s, z: s.new_zeros(len(s), z.shape[1], 2), point)
    assert values(futures.invariance(still))["invariance_rate"] == 0


def test_probe_reads_what_the_code_holds():
    every_part = {"path": of_path(EVEN), "trees": of_trees(EVEN)}
    nothing = lambda s, z: s.new_zeros(len(s), z.shape[1], 4)  # noqa: E731
    found = {name: values(futures.factors(told(nothing, part))) for name, part in every_part.items()}
    path, trees = found["path"], found["trees"]
    assert path["position_r2"] > 0.99 and path["branch_r2"] > 0.6 and path["branch_probe_accuracy"] > 0.97
    assert trees["texture_r2"] > 0.98 and path["texture_r2"] < 0.1
    assert trees["position_r2"] < 0.1 and trees["branch_r2"] < 0.1 and 0.3 < trees["branch_probe_accuracy"] < 0.7
    counts = {row.metric: row.count for row in futures.factors(told(nothing, of_path(EVEN)))}
    assert counts.pop("branch_probe_accuracy") == 300 and set(counts.values()) == {None}
    assert set(counts) == {f"{name}_r2" for name in (*BEFORE, "texture", "position", "branch", "probe")}


@pytest.mark.parametrize("kept", [(1,), (5, 0), range(6)])
def test_factors_are_read_one_by_one(kept):
    """The code is s_x and the best z where y is not encoded; here it is made to hold some of the factors."""
    world = Told()
    model = JEPA(
        Formula(lambda x: x[:, list(kept)]),
        Identity(21),
        Formula(lambda s, z: s.new_zeros(len(s), z.shape[1], 21)),
        Discrete(2),
    )
    found = values(futures.factors(asked(world, model)))
    for n, name in enumerate(BEFORE):
        assert found[f"{name}_r2"] > 0.98 if n in kept else found[f"{name}_r2"] < 0.1
    assert found["probe_r2"] == pytest.approx(sum(found[f"{name}_r2"] for name in BEFORE) / 6)


def test_code_is_what_y_is_rebuilt_from():
    subject = told(codebook(EVEN, (1, 0), (0, 1)), of_path(EVEN))
    s = subject.s
    assert torch.equal(futures.code(subject.model, s), s.s_y) and torch.equal(s.s_y, subject.held_out.y[:, :4])
    rebuilt = JEPA(subject.model.encoder_x, Identity(4), subject.model.predictor, subject.model.latent)
    branch = nn.functional.one_hot(subject.held_out.factors["branch"][:, 0], 2)
    found = futures.code(rebuilt, Representations(s.s_x, s.s_y))
    assert torch.equal(found, torch.cat([s.s_x, branch], 1))


def test_clips_are_encoded_in_parts():
    sizes = []
    x = torch.rand(600, 2, requires_grad=True)
    s = encode(Formula(lambda x: sizes.append(len(x)) or 2 * x), x)
    assert torch.equal(s, 2 * x) and not s.requires_grad
    assert sum(sizes) == 600 and max(sizes) <= 256


def test_measures_encode_once():
    seen, keep = [], of_path(EVEN)
    encoders = (Formula(lambda x: seen.append(len(x)) or x), Formula(lambda y: seen.append(len(y)) or keep(y)))
    subject = asked(EVEN, JEPA(*encoders, Formula(codebook(EVEN, (1, 0), (0, 1))), Discrete(2)))
    for ask in (futures.collapse, futures.factors, futures.branches, futures.predictions):
        ask(subject)
    assert sum(seen) == 2 * (300 + 600)


def test_codes_are_asked_of_a_latent_that_has_some():
    latent = LowDimensional(2, starts=2, steps=1)
    subject = told(lambda s, z: s[:, None, :4], of_path(EVEN), latent, latent={"name": "low_dimensional", "size": 2})
    what = "measure.names: expected a latent with codes for 'branches' and 'predictions', found 'low_dimensional'"
    for ask in (futures.branches, futures.predictions):
        with pytest.raises(ValueError, match=f"^{what}$"):
            ask(subject)


def test_branch_is_asked_of_a_world_that_has_two():
    bend = Told(turns=(0.5,), odds=(1,))
    subject = told(codebook(bend, (1.0,)), of_path(bend), 1, bend)
    for ask in (futures.branches, futures.factors):
        with pytest.raises(ValueError, match="^turns: expected at least 2 branches to tell apart, found 1$"):
            ask(subject)
    found = values(futures.predictions(subject))
    assert found["mode_recall"] == 1 and found["decoded_error"] < 0.15
    assert values(futures.collapse(subject))["auroc"] == 1


FRAMES = Fork(frames=2)


def framed(model, **settings):
    """Return a subject that sees frames, few of them."""
    return asked(FRAMES, model, count=60, **{"world.frames": 2, "measure.samples": 120, **settings})


def pooled():
    """Return a model of y in eight by eight pixels, and a predictor with a weight that keeps what it is given."""
    pool = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    predictor = Formula(lambda s, z: s.unsqueeze(1) * predictor.weight)
    predictor.weight = nn.Parameter(torch.ones(()))
    return JEPA(pool, pool, predictor, NoLatent())


def test_best_prediction_is_the_one_nearest_to_what_happened():
    rows = torch.randn(3, 4, generator=Generator().manual_seed(0))
    model = JEPA(nn.Identity(), nn.Identity(), Formula(lambda s, z: s.unsqueeze(1) + z @ rows), Discrete(3))
    s = Representations(*torch.randn(2, 50, 4, generator=Generator().manual_seed(1)))
    found = pixels.best(model, s)
    for s_x, s_y, one in zip(s.s_x, s.s_y, found, strict=True):
        gaps = [float((s_x + row - s_y).square().sum()) for row in rows]
        torch.testing.assert_close(one, s_x + rows[gaps.index(min(gaps))])
    assert len({tuple(row.tolist()) for row in (found - s.s_x).round(decimals=4)}) == 3


def test_predictions_of_a_generative_model_are_frames():
    flat = Identity((2, 32, 32))
    black = JEPA(flat, flat, Formula(lambda s, z: 0 * s.unsqueeze(1)), NoLatent())
    subject = framed(black, encoder_y="identity")
    drawn = torch.rand(3, 2048)
    assert torch.equal(pixels.decoder(subject)(drawn), drawn.view(3, 2, 32, 32))
    found = values(pixels.pixels(subject))
    assert found["pixel_error"] == pytest.approx(float(subject.held_out.y.square().mean()), rel=1e-5)
    assert abs(found["decoded_position_r2"]) < 0.15 and abs(found["decoded_texture_r2"]) < 0.15
    subject = framed(
        JEPA(flat, flat, Formula(lambda s, z: s.unsqueeze(1)), NoLatent()),
        encoder_y="identity",
        context="y",
        **{"measure.samples": 500},
    )
    whole = subject.held_out._replace(x=subject.held_out.y)
    found = values(pixels.pixels(asked(FRAMES, subject.model, whole, **{"context": "y", "encoder_y": "identity"})))
    assert found["pixel_error"] == 0 and found["decoded_position_r2"] > 0.8 and found["decoded_texture_r2"] > 0.5


def test_decoder_learns_to_draw_and_leaves_the_model_as_it_is():
    errors = {}
    for steps in (1, 120):
        settings = {"context": "y", "measure.decoder": steps, "train.batch": 32, "measure.samples": 300}
        subject = framed(pooled(), **settings)
        state, random = subject.model.state_dict()["predictor.weight"].clone(), torch.get_rng_state()
        decode = pixels.decoder(subject)
        assert torch.equal(subject.model.predictor.weight, state) and subject.model.predictor.weight.grad is None
        assert torch.equal(torch.get_rng_state(), random)
        y = subject.held_out.y
        drawn = decode(nn.functional.avg_pool2d(y, 4).flatten(1))
        assert drawn.shape == y.shape and not drawn.requires_grad
        errors[steps] = float((drawn - y).square().mean())
        torch.manual_seed(steps)  # what else is drawn decides nothing
        again = pixels.decoder(framed(pooled(), **settings))(nn.functional.avg_pool2d(y, 4).flatten(1))
        assert torch.equal(again, drawn)
    blind = float((y - subject.seen.y.mean(0)).square().mean())  # the mean picture
    assert errors[120] < 0.7 * blind < blind < errors[1]


ALL = [name for name, where in MEASURES.items() if "landscapes" not in where]


def test_every_measure_of_the_fork_runs_on_frames():
    small = {"name": "convolutional", "outputs": 6, "channels": [4], "patch": 8, "hidden": 8}
    config = configure({
        "world": {"name": "fork", "frames": 2},
        "encoder_x": small,
        "encoder_y": small,
        "predictor": {"hidden": [8]},
        "latent": {"name": "discrete", "size": 2},
        "measure": {"names": ALL, "samples": 80, "decoder": 2},
        "train.batch": 16,
    })  # fmt: skip
    pairs = FRAMES.sample(40, Generator().manual_seed(3), unseen=True)
    held_out = HeldOut(pairs.x, pairs.y, pairs.factors | {"x": pairs.x, "y": pairs.y})  # as a stored set has it
    model = build.model(config, 0).eval()
    first = measure(config, model, held_out, seed=0)
    assert measure(config, model, held_out, seed=0) == first
    found = values(first)
    assert len(found) == len(first) and set(ALL) == {
        "collapse", "factors", "branches", "predictions", "invariance", "pixels"
    }  # fmt: skip
    assert {"auroc", "probe_r2", "branch_accuracy", "mode_recall", "invariance_rate", "pixel_error"} <= set(found)
    assert found["parameters"] == sum(weights.numel() for weights in model.parameters()) > 1000
