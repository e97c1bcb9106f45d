"""Trainings that collapse say so themselves, and what they lack; whoever looks at them changes nothing."""

from __future__ import annotations

import math
import warnings
from itertools import count, pairwise
from types import SimpleNamespace

import pytest
import torch
from conftest import normal
from test_train import KINDS, Cut, cut_after, run, same, settings
from torch import nn

from jepa import train
from jepa.latents.finite import NoLatent
from jepa.model import JEPA
from jepa.monitor import CHUNK, PAIRS, CollapseWarning, Signs, Watch, drawn, lacking
from jepa.predictors import Identity
from jepa.runs import build
from jepa.runs.config import configure
from jepa.train import fit
from jepa.worlds.pairs import Pairs

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def linear(width=4, outputs=3, seed=0, scale=1.0):
    """Return a joint embedding s = W x, s_y = W y."""
    encoder = nn.Linear(width, outputs, bias=False).double()
    encoder.weight.data = scale * normal(outputs, width, seed=seed)
    return JEPA(encoder, encoder, Identity(outputs, outputs), NoLatent())


def pairs(x, y, a=None):
    """Return pairs, by default without actions."""
    return Pairs(x, x.new_zeros(len(x), 0) if a is None else a, y, {})


def twins(number=40, width=4, seed=3):
    """Return pairs whose y is x."""
    y = normal(number, width, seed=seed)
    return pairs(y, y)


# -- what a look finds ---------------------------------------------------------------------------------------------


def by_hand(model, data, wrong):
    """Return the energies of true and of mismatched pairs, and the mean squared distance of all s_y, by loops."""
    s_x, s_y = model.encoder(data.x).detach(), model.target_encoder(data.y).detach()
    number = len(s_y)
    true = [float((s_x[i] - s_y[i]).square().sum()) for i in range(number)]
    mismatched = [float((s_x[i] - s_y[(i + 1) % number]).square().sum()) for i in wrong]
    distances = [float((s_y[i] - s_y[j]).square().sum()) for i in range(number) for j in range(number) if i != j]
    return true, mismatched, sum(distances) / len(distances)


def median(values):
    """Return the mean of the two middle ones of an even number of values."""
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


@pytest.mark.parametrize("left_out", [[], [0, 5, 39]])
def test_signs_are_those_of_energies_computed_one_by_one(left_out):
    x, y = normal(40, 4, seed=1), normal(40, 4, seed=2)
    first, then, data = linear(), linear(seed=7), pairs(x, x + 0.3 * y)
    plausible = torch.zeros(40, dtype=torch.bool)
    plausible[left_out] = True
    found = Watch(first, data, y, plausible if left_out else None).look(then)
    true, mismatched, now = by_hand(then, data, [i for i in range(40) if i not in left_out])
    reference = by_hand(first, data, range(40))[2]
    higher = sum((m > t) + (m == t) / 2 for m in mismatched for t in true) / len(true) / len(mismatched)
    assert found.contrast == pytest.approx((median(mismatched) - median(true)) / reference)
    assert found.auroc == pytest.approx(higher)
    assert found.spread == pytest.approx(now / reference)
    lowest = sorted(mismatched)[(len(mismatched) - 1) // 2]
    assert found.mismatched_energy_ratio == pytest.approx(lowest / now)


@pytest.mark.parametrize("scale", [1e-4, 0.1, 10.0])
def test_contrast_and_spread_know_the_scale_and_the_other_signs_do_not(scale):
    data = twins()
    watch = Watch(linear(), data)
    before, after = watch.look(linear()), watch.look(linear(scale=scale))
    assert before.spread == pytest.approx(1) and before.contrast > 0.5 and before.auroc == 1
    assert after.contrast == pytest.approx(scale**2 * before.contrast)
    assert after.spread == pytest.approx(scale**2)
    assert after[1:5] == pytest.approx(before[1:5])


def test_probe_reads_what_is_there_and_not_what_is_gone():
    y = normal(512, 4, seed=3)
    model = JEPA(*(nn.Sequential(nn.Linear(4, 4)).double() for _ in range(2)), Identity(4, 4), NoLatent())
    model.target_encoder[0].weight.data = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])).double()
    score = [Watch(model, pairs(y, y), y[:, i : i + 1]).look(model).probe_r2 for i in range(4)]
    assert min(score[:3]) > 0.98 and score[3] < 0.05
    assert Watch(model, pairs(y, y), y).look(model).probe_r2 == pytest.approx(sum(score) / 4)
    assert Watch(model, pairs(y, y)).look(model).probe_r2 == pytest.approx(sum(score) / 4, abs=1e-6)  # y itself


def test_rank_counts_the_directions_that_are_left():
    data, watched = twins(512), linear(4, 3)
    watch = Watch(watched, data)
    assert 1.5 < watch.look(watched).effective_rank <= 3
    watched.target_encoder.weight.data[1:] = watched.target_encoder.weight.data[:1]
    assert watch.look(watched).effective_rank == pytest.approx(1)


def test_targets_that_do_not_vary_are_not_asked_for():
    data, model = twins(64), linear(4, 4)
    dull = torch.zeros(64, 2, dtype=torch.float64)
    dull[0, 1] = 1.0  # varies where the probe learns, not where it is tested
    asked = torch.cat([dull, data.y], 1)
    assert Watch(model, data, asked).look(model) == Watch(model, data, data.y).look(model)
    assert math.isnan(Watch(model, data, dull).look(model).probe_r2)


def test_mismatched_pairs_have_the_action_of_their_y():
    x, a = normal(50, 2, seed=1), 3 * normal(50, 2, seed=2)
    model = JEPA(nn.Identity(), nn.Identity(), Identity(2, 2), NoLatent())
    model.predictor.forward = lambda s, a, z: (s + a).unsqueeze(1)
    found = Watch(model, pairs(x, x + a, a)).look(model)
    mismatched = median(float((x[i] - x[(i + 1) % 50]).square().sum()) for i in range(50))
    assert found.contrast == pytest.approx(mismatched / by_hand(model, pairs(x, x + a), [])[2])


def test_wide_targets_are_read_through_projections():
    y = normal(200, 3, 30, 30, seed=1)
    model = JEPA(nn.Flatten(), nn.Flatten(), Identity(2700, 2700), NoLatent())
    found = Watch(model, pairs(y, y)).look(model)
    assert found.auroc == 1 and 20 < found.effective_rank <= 64 and math.isfinite(found.probe_r2)


def test_constant_representation_says_nothing():
    data, model = twins(64), linear()
    watch = Watch(model, data)
    model.target_encoder.weight.data.zero_()
    found = watch.look(model)
    assert (found.contrast, found.spread, found.effective_rank, found.auroc) == (0, 0, 0, 0.5)
    assert abs(found.probe_r2) < 0.2
    assert "criteria 1 and 2 are missing" in lacking(found, configure().loss, model)


def test_weights_that_are_nan_are_no_matter_of_a_look():
    data, model = twins(), linear()
    watch = Watch(model, data)
    model.target_encoder.weight.data[0, 0] = math.nan
    found = watch.look(model)
    assert all(map(math.isnan, found)) and lacking(found, configure().loss, model) is None


def test_encoder_that_starts_constant_gives_no_unit():
    found = Watch(linear(scale=0.0), twins()).look(linear())
    assert math.isnan(found.contrast) and math.isnan(found.spread) and found.auroc == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": twins(3)}, "pairs: expected at least 4, found 3"),
        ({"targets": normal(39, 2)}, r"targets: expected \[40, F\], found \[39, 2\]"),
        ({"targets": normal(40)}, r"targets: expected \[40, F\], found \[40\]"),
        ({"plausible": torch.zeros(39, dtype=torch.bool)}, r"plausible: expected \[40\].*found \[39\]"),
        ({"plausible": torch.ones(40, dtype=torch.bool)}, r"plausible: .*not true everywhere, found \[40\], 40 true"),
    ],
)
def test_what_cannot_be_watched_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        Watch(linear(), **{"pairs": twins(), **change})


# -- looking changes nothing ---------------------------------------------------------------------------------------


@kinds
def test_training_that_is_watched_ends_with_the_same_bits(kind):
    tensors, curve = run(settings(kind), seed=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    watched, looked = run(settings(kind, {"train.watch": 10}), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert tensors.keys() == watched.keys() and all(torch.equal(tensors[name], watched[name]) for name in tensors)
    assert (looked.steps, looked.terms) == (curve.steps, curve.terms)
    assert (curve.looks, curve.signs) == ([], {}) and len(looked.looks) == 11


def test_every_part_of_a_model_is_left_as_it_was():
    config = settings(KINDS["joint embedding"])
    model, world = build.model(config, 0).train(), build.world(config)
    model.encoder.eval()
    before, modes = (
        {name: value.clone() for name, value in model.state_dict().items()},
        [m.training for m in model.modules()],
    )
    drawn(model, world.sample, torch.device("cpu")).look(model)
    assert [m.training for m in model.modules()] == modes and len(set(modes)) == 2
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    model.predictor.forward = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        drawn(model, world.sample, torch.device("cpu")).look(model)
    assert [m.training for m in model.modules()] == modes


@kinds
def test_looks_are_made_where_the_model_is(kind):
    config = settings(kind, {"train": {"steps": 4, "watch": 2}})
    expected = run(config)
    model, source = build.model(config, 0), build.source(config, build.world(config))
    source(1, torch.Generator())
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # takes the part of an accelerator
        curve = fit(model, source, (config.train, config.loss), generator)
    assert same(({**model.state_dict(), "generator": generator.get_state()}, curve), expected)


def test_pairs_to_look_at_are_drawn_in_portions_by_a_generator_of_their_own():
    config, calls = settings({"train.watch": 1}), []
    source, given = build.source(config, build.world(config)), torch.Generator().manual_seed(5)

    def sample(number, generator):
        calls.append((number, generator is given))
        return source(number, generator)

    fit(build.model(config, 0), sample, (config.train, config.loss), given)
    assert calls == [(CHUNK, False)] * (PAIRS // CHUNK) + [(8, True)] * 12


def test_source_of_few_pairs_is_watched_all_the_same():
    config = settings({"train.watch": 3})
    few = build.world(config).sample(8, torch.Generator().manual_seed(0))
    batch = SimpleNamespace(x=few.x, a=few.a, y=few.y)  # any object will do
    _, curve = run(config, sample=lambda number, generator: batch)
    assert len(curve.looks) == 4 and all(map(math.isfinite, curve.signs["contrast"]))


# -- the curve -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "watch", "looks"),
    [
        (12, 4, [0, 3, 6, 9, 12]),
        (10, 3, [0, 3, 6, 10]),
        (12, 1, [0, 12]),
        (12, 0, []),
        (2, 5, [0, 1, 2]),
        (0, 4, [0]),
    ],
)
def test_looks_are_evenly_spaced_from_the_first_step_to_the_last(steps, watch, looks):
    _, curve = run(settings({"train": {"steps": steps, "watch": watch}}))
    assert curve.looks == looks
    assert curve.signs.keys() == (set(Signs._fields) if watch else set())
    assert all(len(values) == len(looks) for values in curve.signs.values())


def test_given_watch_does_the_looking():
    config = settings({"train": {"watch": 2, "rate": 0.05}})
    model, world = build.model(config, 0), build.world(config)
    data = world.sample(64, torch.Generator().manual_seed(1))
    watch = Watch(model, data, data.factors["x"])
    first = watch.look(model)
    curve = fit(model, world.sample, (config.train, config.loss), torch.Generator(), watch=watch)
    signs = [Signs(*values) for values in zip(*(curve.signs[name] for name in Signs._fields), strict=True)]
    assert (signs[0], signs[-1]) == (first, watch.look(model)) and signs[0] != signs[-1]


@kinds
@pytest.mark.parametrize("steps", [1, 6])
def test_cut_run_resumes_to_the_same_looks(kind, steps, tmp_path):
    config, file = settings(kind, {"train": {"watch": 4, "checkpoint": 0.0}}), tmp_path / "checkpoint.pt"
    whole = run(config, seed=1)
    with pytest.raises(Cut):
        run(config, seed=1, checkpoint=file, sample=cut_after(config, PAIRS // CHUNK + steps))
    assert train.load(file)["step"] == steps
    assert same(run(config, seed=1, checkpoint=file), whole)
    assert same(run(config, seed=1, checkpoint=file), whole)  # finished: nothing is looked at again


# -- warnings ------------------------------------------------------------------------------------------------------

MLP = {"name": "mlp", "outputs": 4, "hidden": [16]}
WORLD = {"name": "plane", "dimension": 4, "modes": 1, "radius": 0.0, "share": 0.5, "spread": 0.5}
SYSTEM = {
    **{"world": WORLD, "encoder": MLP, "target_encoder": MLP, "predictor": {"hidden": [16]}},
    "loss": {"variance": 25.0, "covariance": 1.0},
    "train": {"steps": 90, "batch": 32, "rate": 2e-2, "watch": 6},
}
FREE = {
    "predictor": {"name": "additive", "hidden": [16]},
    "latent": {"name": "low_dimensional", "size": 4},
    "inference": {"name": "amortized", "hidden": 16, "features": 8},
    "loss": {"variance": 3.0, "covariance": 0.1},
}
NO_WEIGHT = {"loss": {"variance": 0.0, "covariance": 0.0}}
WEAK = {"loss": {"variance": 1e-3, "covariance": 1e-3}}


def trained(*diffs, checkpoint=None, sample=None):
    """Return the curve of a training and the texts of its warnings."""
    config = configure(SYSTEM, *diffs)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        curve = fit(
            build.model(config, 0),
            sample or build.source(config, build.world(config)),
            (config.train, config.loss),
            torch.Generator().manual_seed(0),
            checkpoint,
        )
    assert all(one.category is CollapseWarning and one.filename == __file__ for one in heard)
    return curve, [str(one.message) for one in heard]


@pytest.mark.parametrize(
    ("diff", "criteria", "remedy"),
    [
        ({"loss.information_y": 0.0}, "criterion 2 is missing, nothing asks s_y", "(loss.information_y = 0)"),
        (
            {"loss": {"information_x": 0.0, "information_y": 0.0}},
            "criteria 1 and 2 are missing, nothing asks s_x and s_y to be informative",
            "(loss.information_x = 0, loss.information_y = 0)",
        ),
        (NO_WEIGHT, "criteria 1 and 2 are missing", "(loss.variance = 0, loss.covariance = 0)"),
        (NO_WEIGHT | {"target_encoder": "shared"}, "criteria 1 and 2 are", "(loss.variance = 0, loss.covariance = 0)"),
        ({"loss.energy": 0.0}, "criterion 3 is missing", "nothing asks s_y to be predictable from s_x"),
        (FREE, "criterion 4 is missing", "a smaller latent.size or a larger latent.alpha"),
        (WEAK, "no criterion is missing", "a larger loss.variance beside loss.energy, or a lower train.rate"),
    ],
    ids=["2", "1 and 2", "no weights", "shared", "3", "4", "none"],
)
def test_training_without_a_criterion_says_which_and_says_it_once(diff, criteria, remedy):
    curve, said = trained(diff)
    assert len(said) == 1 and said == curve.warnings
    assert criteria in said[0] and remedy in said[0]
    step = int(said[0].split(" after ")[1].split()[0])
    assert step in curve.looks and 3 * step >= 90
    place = curve.looks.index(step)
    numbers = f"after {step} of 90 steps: contrast {curve.signs['contrast'][place]:z.3f}, probe R² "
    assert said[0].startswith("the energy is collapsing " + numbers)


@pytest.mark.parametrize(
    "diff",
    [
        {},
        {"latent": {"name": "discrete", "size": 4}},
        {"target_encoder": "shared", "loss.information_y": 0.0},
        {"target_encoder": "identity", **NO_WEIGHT},
        {"train.rate": 1e-6},
        {"train": {"steps": 6, "rate": 1e-4}},
        {"train.steps": 0, **NO_WEIGHT},
    ],
    ids=["healthy", "codes", "shared", "generative", "slow", "short", "untrained"],
)
def test_training_that_is_healthy_or_has_not_learned_yet_says_nothing(diff):
    curve, said = trained(diff)
    assert said == curve.warnings == []
    if not diff:
        assert curve.signs["contrast"][-1] > 0.5 and curve.signs["auroc"][-1] > 0.7
    if "train.rate" in diff:
        assert curve.signs["contrast"][-1] < 0.05 and curve.signs["probe_r2"][-1] > 0.5


def test_training_cut_after_its_warning_does_not_warn_again(tmp_path):
    diffs, file = ({"loss.information_y": 0.0}, {"train.checkpoint": 0.0}), tmp_path / "checkpoint.pt"
    whole, said = trained(*diffs)
    step = int(said[0].split(" after ")[1].split()[0])
    config = configure(SYSTEM, *diffs)
    with pytest.raises(Cut):
        trained(*diffs, checkpoint=file, sample=cut_after(config, PAIRS // CHUNK + step + 1))
    assert train.load(file)["curve"]["warnings"] == said
    assert trained(*diffs, checkpoint=file) == (whole, [])  # it is in the curve, word by word


def test_cut_before_the_look_was_kept_repeats_look_and_warning(tmp_path, monkeypatch):
    clock = count()  # a second passes with every look at the clock
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    diffs, file = ({"loss.information_y": 0.0}, {"train.checkpoint": 15.0}), tmp_path / "checkpoint.pt"
    whole, said = trained(*diffs)
    step = int(said[0].split(" after ")[1].split()[0])
    with pytest.raises(Cut):
        trained(*diffs, checkpoint=file, sample=cut_after(configure(SYSTEM, *diffs), PAIRS // CHUNK + step + 1))
    assert 0 < train.load(file)["step"] < step
    assert trained(*diffs, checkpoint=file) == (whole, said)


HEALTHY = Signs(0.9, 0.95, 3.5, 0.99, 0.8, 1.0)
INFORMATIONAL = {"contrast": 0.0, "probe_r2": 0.02}
SHRUNK = {"contrast": 0.005, "spread": 0.01}
FLAT = {"contrast": 0.003, "mismatched_energy_ratio": 0.01}
LOUD = {"contrast": 0.05, "mismatched_energy_ratio": 0.005, "spread": 10.0}  # E0 is no unit for what has grown
QUIET = {"contrast": 0.003}
INFORMED = {"loss": {"variance": 25.0, "covariance": 1.0}}
NO_Y, NO_X = {"loss.information_y": 0.0}, {"loss.information_x": 0.0}
LIMITED = {"latent": {"name": "discrete", "size": 4}}


@pytest.mark.parametrize(
    ("signs", "diffs", "expected"),
    [
        ({}, [NO_WEIGHT], None),
        ({"probe_r2": 0.0}, [NO_WEIGHT], None),  # not collapsed where the energy tells pairs apart
        ({"contrast": math.nan}, [NO_WEIGHT], None),
        (QUIET, [INFORMED], None),  # has learned nothing yet
        (QUIET, [NO_WEIGHT], None),
        (QUIET, [INFORMED, {"loss.energy": 0.0}], "criterion 3 is missing"),
        ({"contrast": 0.3, "auroc": 0.55}, [INFORMED, {"loss.energy": 0.0}], "criterion 3 is missing"),  # by chance
        ({"contrast": 0.3, "auroc": 0.55}, [INFORMED], None),
        ({}, [INFORMED, {"loss.energy": 0.0}], None),
        (INFORMATIONAL, [NO_WEIGHT], "criteria 1 and 2 are missing"),
        (INFORMATIONAL, [INFORMED, NO_Y], "criterion 2 is missing"),
        (INFORMATIONAL, [INFORMED, NO_X], "criterion 1 is missing"),
        (INFORMATIONAL, [INFORMED, NO_X, NO_Y], "criteria 1 and 2 are missing"),
        (INFORMATIONAL, [INFORMED], "no criterion is missing"),
        (INFORMATIONAL, [INFORMED, NO_Y, {"target_encoder": "shared"}], "no criterion is missing"),
        (INFORMATIONAL, [INFORMED, NO_X, NO_Y, {"target_encoder": "shared"}], "criteria 1 and 2 are missing"),
        (INFORMATIONAL, [NO_WEIGHT, {"encoder": "identity"}], "criterion 2 is missing"),  # x itself says all
        (INFORMATIONAL, [NO_WEIGHT, {"target_encoder": "identity"}], None),
        (INFORMATIONAL, [FREE, NO_WEIGHT], "criteria 1 and 2"),
        (SHRUNK, [INFORMED, NO_Y], "criterion 2 is missing"),
        (FLAT, [FREE], "criterion 4 is missing"),
        (LOUD, [FREE], "criterion 4 is missing"),
        (FLAT, [FREE, {"latent.size": 7}], "criterion 4 is missing"),
        (FLAT, [FREE, {"target_encoder": "identity"}], "criterion 4 is missing"),
        (FLAT, [FREE, {"latent.alpha": 0.1}], "no criterion is missing"),
        (FLAT, [FREE, {"latent.size": 2}], "no criterion is missing, but z, 2 numbers wide, says all of s_y"),
        (FLAT, [INFORMED, LIMITED, {"loss.energy": 0.0}], "criterion 3 is missing"),
        (FLAT, [INFORMED, LIMITED], "no criterion is missing"),
        (FLAT, [INFORMED], None),  # without a latent nothing makes an energy flat
    ],
)
def test_signs_and_settings_decide_what_is_said(signs, diffs, expected):
    config = configure(SYSTEM, *diffs)
    model = build.model(config, 0).train()
    said = lacking(HEALTHY._replace(**signs), config.loss, model)
    assert said is None if expected is None else expected in said
    assert model.training


def test_head_behind_frozen_encoders_is_judged_by_its_latent_alone():
    config = configure(SYSTEM, FREE)
    head = build.head(build.model(config, 0))
    assert "criterion 4 is missing" in lacking(HEALTHY._replace(**FLAT), config.loss, head)
    assert lacking(HEALTHY._replace(**INFORMATIONAL), config.loss, head) is None


def test_less_is_said_the_healthier_the_signs_are():
    config = configure(SYSTEM, {"loss.information_y": 0.0})
    model = build.model(config, 0)
    said = [lacking(HEALTHY._replace(contrast=c, probe_r2=0.05), config.loss, model) for c in (-1.0, 0.0, 0.01, 0.02)]
    assert [text is not None for text in said] == [True, True, True, False]
    assert all(one != other for one, other in pairwise(said))
