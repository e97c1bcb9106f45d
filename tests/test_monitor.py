"""Trainings that collapse say so themselves; an evaluation changes nothing, and finds what measuring finds."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from conftest import Told, codebook, generator, normal, of_path, told, values
from test_train import KINDS, Cut, kinds, run, same, settings
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from jepa.batches import Pairs
from jepa.evaluate import futures
from jepa.latents.finite import NoLatent
from jepa.loaders import from_loader
from jepa.measures.collapse import Diagnostics, diagnostics
from jepa.model import JEPA
from jepa.monitor import CHUNK, PAIRS, CollapseWarning, Monitor, drawn
from jepa.objectives.pairs import PairObjective, Weights
from jepa.predictors import Identity
from jepa.runs import build
from jepa.runs.config import configure
from jepa.train import fit
from jepa.worlds.pairs import NEAR

MLP = {"name": "mlp", "outputs": 4, "hidden": [16]}
SYSTEM = {
    "world": {"name": "plane", "dimension": 4, "modes": 1, "radius": 0.0, "share": 0.5, "spread": 0.5},
    **{"encoder": MLP, "target_encoder": MLP, "predictor": {"hidden": [16]}},
    "loss": {"variance": 25.0, "covariance": 1.0},
    "train": {"steps": 90, "batch": 32, "rate": 2e-2},
}
FREE = {
    "predictor": {"name": "additive", "hidden": [16]},
    "latent": {"name": "low_dimensional", "size": 4},
    "inference": {"name": "amortized", "hidden": 16, "features": 8},
    "loss": {"variance": 3.0, "covariance": 0.1},
}
NO_WEIGHT = {"loss": {"variance": 0.0, "covariance": 0.0}}


def linear(width=4, outputs=3, seed=0, scale=1.0):
    """Return a joint embedding s = W x, s_y = W y."""
    encoder = nn.Linear(width, outputs, bias=False).double()
    encoder.weight.data = scale * normal(outputs, width, seed=seed)
    return JEPA(encoder, encoder, Identity(outputs, outputs), NoLatent())


def pairs(x, y, a=None):
    """Return pairs, by default without actions."""
    return Pairs(x, x.new_zeros(len(x), 0) if a is None else a, y, {})


def twins(number=40, width=4):
    """Return pairs whose y is x."""
    y = normal(number, width, seed=3)
    return pairs(y, y)


def monitor(model, data, targets=None, plausible=None, steps=1):
    """Return a monitor."""
    return Monitor(model, PairObjective(Weights()), data, steps, targets=targets, plausible=plausible)


def evaluate(model, data, *given):
    """Return what a monitor of a model finds at once."""
    return monitor(model, data, *given).evaluate(model)


# -- what an evaluation finds ------------------------------------------------------------------------------------------


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
def test_diagnostics_are_those_of_energies_computed_one_by_one(left_out):
    x, y = normal(40, 4, seed=1), normal(40, 4, seed=2)
    first, then, data = linear(), linear(seed=7), pairs(x, x + 0.3 * y)
    plausible = torch.zeros(40, dtype=torch.bool)
    plausible[left_out] = True
    found = monitor(first, data, y, plausible if left_out else None).evaluate(then)
    true, mismatched, now = by_hand(then, data, [i for i in range(40) if i not in left_out])
    reference = by_hand(first, data, range(40))[2]
    higher = sum((m > t) + (m == t) / 2 for m in mismatched for t in true) / len(true) / len(mismatched)
    assert found.contrast == pytest.approx((median(mismatched) - median(true)) / reference)
    assert found.auroc == pytest.approx(higher)
    assert found.spread == pytest.approx(now / reference)
    lowest = sorted(mismatched)[(len(mismatched) - 1) // 2]
    assert found.mismatched_energy_ratio == pytest.approx(lowest / now)
    # the same for the same energies, by whomever they were measured
    energies, s_y = (torch.tensor(part) for part in (true, mismatched)), then.target_encoder(data.y)
    again = diagnostics(*energies, s_y, reference, found.effective_rank, found.probe_r2)
    assert tuple(again) == pytest.approx(tuple(found), rel=1e-6)


def test_monitor_finds_what_measuring_finds():
    world = Told()
    subject = told(codebook(world, (0.9, 0.1), (0, 1)), of_path(world), count=200, world=world)
    data = pairs(subject.held_out.x, subject.held_out.y)
    watching = monitor(subject.model, data, plausible=subject.oracle <= NEAR**2)
    found, measured = watching.evaluate(subject.model), values(futures.collapse(subject))
    unit = subject.reference / watching.reference
    assert found.contrast == pytest.approx(unit * measured["contrast"], rel=1e-12) and found.contrast > 0.1
    for name in ("auroc", "effective_rank", "mismatched_energy_ratio"):
        assert getattr(found, name) == measured[name]
    everywhere = monitor(subject.model, data).evaluate(subject.model)  # those that are plausible not left out
    assert everywhere.auroc != found.auroc


def test_probe_reads_what_is_there_and_not_what_is_gone():
    y = normal(512, 4, seed=3)
    model = JEPA(*(nn.Sequential(nn.Linear(4, 4)).double() for _ in range(2)), Identity(4, 4), NoLatent())
    model.target_encoder[0].weight.data = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])).double()
    score = [evaluate(model, pairs(y, y), y[:, i : i + 1]).probe_r2 for i in range(4)]
    assert min(score[:3]) > 0.98 and score[3] < 0.05
    assert evaluate(model, pairs(y, y), y).probe_r2 == pytest.approx(sum(score) / 4)
    assert evaluate(model, pairs(y, y)).probe_r2 == pytest.approx(sum(score) / 4, abs=1e-6)  # y itself


def test_targets_that_do_not_vary_are_not_asked_for():
    data, model = twins(64), linear(4, 4)
    dull = torch.zeros(64, 2, dtype=torch.float64)
    dull[0, 1] = 1.0  # varies where the probe learns, not where it is tested
    assert evaluate(model, data, torch.cat([dull, data.y], 1)) == evaluate(model, data, data.y)
    assert math.isnan(evaluate(model, data, dull).probe_r2)


class Moved(Identity):
    """The predictor s + a."""

    def forward(self, s, a, z):
        return s + a


def test_mismatched_pairs_have_the_action_of_their_y():
    x, a = normal(50, 2, seed=1).float(), 3 * normal(50, 2, seed=2).float()
    model = JEPA(nn.Identity(), nn.Identity(), Moved(2, 2), NoLatent())
    found = evaluate(model, pairs(x, x + a, a))
    mismatched = median(float((x[i] - x[(i + 1) % 50]).square().sum()) for i in range(50))
    assert found.contrast == pytest.approx(mismatched / by_hand(model, pairs(x, x + a), [])[2])


def test_wide_targets_are_read_through_projections():
    y = normal(200, 3, 30, 30, seed=1).float()
    found = evaluate(JEPA(nn.Flatten(), nn.Flatten(), Identity(2700, 2700), NoLatent()), pairs(y, y))
    assert found.auroc == 1 and 20 < found.effective_rank <= 64 and math.isfinite(found.probe_r2)


def test_constant_representation_says_nothing():
    model = linear()
    watching = monitor(model, twins(64))
    model.target_encoder.weight.data.zero_()
    found = watching.evaluate(model)
    assert (found.contrast, found.spread, found.effective_rank, found.auroc) == (0, 0, 0, 0.5)
    assert abs(found.probe_r2) < 0.2 and found.silent and found.uninformative


def test_weights_that_are_nan_are_no_matter_of_an_evaluation():
    model = linear()
    watching = monitor(model, twins())
    model.target_encoder.weight.data[0, 0] = math.nan
    assert all(map(math.isnan, watching.evaluate(model)))


def test_encoder_that_starts_constant_gives_no_unit():
    found = monitor(linear(scale=0.0), twins()).evaluate(linear())
    assert math.isnan(found.contrast) and math.isnan(found.spread) and found.auroc == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": twins(3)}, "^pairs: expected at least 4, found 3"),
        ({"targets": normal(39, 2)}, r"^targets: expected \[40, F\], found \[39, 2\]"),
        ({"targets": normal(40)}, r"^targets: expected \[40, F\], found \[40\]"),
        ({"plausible": torch.zeros(39, dtype=torch.bool)}, r"^plausible: expected \[40\].*found \[39\]"),
        ({"plausible": torch.ones(40, dtype=torch.bool)}, r"^plausible: .*not true everywhere, found \[40\], 40 true"),
        ({"data": twins()._replace(a=None)}, r"^a: expected .*found NoneType; .*give \[B, 0\]"),
        ({"data": pairs(normal(40, 4), normal(39, 4))}, "^y: expected a batch of 40 as for x, found 39"),
        ({"model": linear().float()}, "^x: expected torch.float32 .*found torch.float64"),
        (
            {"model": JEPA(nn.Flatten(0), nn.Linear(4, 4), Identity(4, 4), NoLatent()).double(), "data": twins()},
            r"^encoder: expected floating-point numbers \[40, D\], found torch.float64 \[160\]",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        monitor(**{"model": linear(), "data": twins(), **change})


# -- an evaluation changes nothing -------------------------------------------------------------------------------------


def watched(*diffs, seed=0, **given):
    """Return what a training leaves whose monitor has its pairs from the source, and the monitor."""
    config, kept = settings(*diffs), []
    times = config.monitor.times

    def change(model):
        of = build.parts(config, seed)
        kept.append(drawn(model, of.objective, of.sample, config.train.steps, times))

    def callback(step, model):
        kept[0](step, model)

    return run(config, seed, change=change, callbacks=[callback], **given), kept[0]


@kinds
def test_training_that_is_watched_ends_with_the_same_bits(kind):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found, watching = watched(kind, {"monitor.times": 10}, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(found, run(settings(kind), seed=1)) and len(watching.steps) == 11


def test_every_part_of_a_model_is_left_as_it_was():
    config = settings(KINDS["joint embedding"])
    model, objective = (of := build.parts(config, 0)).model.train(), of.objective
    model.encoder.eval()
    watching = drawn(model, objective, of.sample, 12)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    watching.evaluate(model)
    assert [part.training for part in model.modules()] == modes and len(set(modes)) == 2
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    model.predictor.forward = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        watching.evaluate(model)
    assert [part.training for part in model.modules()] == modes


@kinds
def test_evaluations_are_made_where_the_model_is(kind):
    config = settings(kind, {"train.steps": 4})
    of = build.parts(config, 0)
    expected = drawn(of.model, of.objective, of.sample, 4).evaluate(of.model)
    with torch.device("meta"):  # takes the part of an accelerator
        assert drawn(of.model, of.objective, of.sample, 4).evaluate(of.model) == expected


def test_pairs_to_evaluate_are_drawn_in_portions_by_a_generator_of_their_own():
    calls, of = [], build.parts(settings(), 0)

    def sample(number, drawing):
        calls.append((number, drawing.initial_seed()))
        return of.sample(number, drawing)

    drawn(of.model, of.objective, sample, 12)
    assert calls == [(CHUNK, 0)] * (PAIRS // CHUNK)


def test_source_of_few_pairs_is_watched_all_the_same():
    of = build.parts(settings(), 0)
    few = of.sample(8, generator())
    batch = SimpleNamespace(x=few.x, a=few.a, y=few.y)  # any object will do
    found = drawn(of.model, of.objective, lambda number, drawing: batch, 12).evaluate(of.model)
    assert all(map(math.isfinite, found))
    batch.a = None
    with pytest.raises(ValueError, match=r"^a: expected .*found NoneType; .*give \[B, 0\]"):
        drawn(of.model, of.objective, lambda number, drawing: batch, 12)


def test_source_with_a_state_is_left_where_it_was():
    of = build.parts(settings(), 0)
    source = from_loader(DataLoader(TensorDataset(*of.sample(40, generator())[:3]), 8, shuffle=True))
    source(8, generator())
    before = source.state_dict()
    found = drawn(of.model, of.objective, source, 12, portion=8).evaluate(of.model)
    assert source.state_dict() == before and math.isfinite(found.contrast)
    with pytest.raises(ValueError, match="^count: expected 8, the pairs in a batch of the loader, found 256"):
        drawn(of.model, of.objective, source, 12)


# -- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "times", "evaluated"),
    [
        (12, 4, [0, 3, 6, 9, 12]),
        (10, 3, [0, 3, 6, 10]),
        (12, 1, [0, 12]),
        (12, 0, []),
        (2, 5, [0, 1, 2]),
        (0, 4, [0]),
    ],
)
def test_evaluations_are_evenly_spaced_from_the_first_step_to_the_last(steps, times, evaluated):
    _, watching = watched({"train.steps": steps, "monitor.times": times})
    assert watching.steps == evaluated
    assert watching.diagnostics.keys() == (set(Diagnostics._fields) if times else set())
    assert all(len(found) == len(evaluated) for found in watching.diagnostics.values())


# -- warnings ----------------------------------------------------------------------------------------------------------


def trained(*diffs, checkpoint=None, cut=None):
    """Return the monitor of a training, cut after a step if one is given, and the texts of its warnings."""
    config = configure(SYSTEM, {"monitor.times": 6}, *diffs)
    of = build.parts(config, 0)
    watching = drawn(of.model, of.objective, of.sample, config.train.steps, config.monitor.times)

    def end(step, model):
        if step == cut:
            raise Cut

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        given = {"checkpoint": checkpoint, "callbacks": [watching, end]}
        try:
            fit(of.model, of.objective, of.sample, generator(), config.train, **given)
        except Cut:
            pass
    assert all(one.category is CollapseWarning and one.filename == __file__ for one in heard)
    return watching, [str(one.message) for one in heard]


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
        (
            {"loss": {"variance": 1e-3, "covariance": 1e-3}},
            "no criterion is missing",
            "a larger loss.variance beside loss.energy, or a lower train.rate",
        ),
    ],
    ids=["2", "1 and 2", "no weights", "shared", "3", "4", "none"],
)
def test_training_without_a_criterion_says_which_and_says_it_once(diff, criteria, remedy):
    watching, said = trained(diff)
    assert len(said) == 1 and said == watching.warnings
    assert criteria in said[0] and remedy in said[0]
    step = int(said[0].split(" after ")[1].split()[0])
    assert step in watching.steps and 3 * step >= 90
    found = watching.diagnostics["contrast"][watching.steps.index(step)]
    start = f"the energy is collapsing after {step} of 90 steps: contrast {found:z.3f}, probe R² "
    assert said[0].startswith(start)


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
    watching, said = trained(diff)
    assert said == watching.warnings == []
    last = {name: found[-1] for name, found in watching.diagnostics.items()}
    if not diff:
        assert last["contrast"] > 0.5 and last["auroc"] > 0.7
    if "train.rate" in diff:
        assert last["contrast"] < 0.05 and last["probe_r2"] > 0.5


def test_cut_training_goes_on_with_what_its_monitor_found_and_does_not_warn_again(tmp_path):
    diff, file = {"loss.information_y": 0.0, "train.checkpoint": 1e9}, tmp_path / "checkpoint.pt"
    whole, said = trained(diff)
    step = int(said[0].split(" after ")[1].split()[0])
    for cut, heard in ((step - 1, []), (step, said), (step + 1, [])):  # goes on from the cut before
        found, now = trained(diff, checkpoint=file, cut=cut)
        assert now == heard and found.steps == [at for at in whole.steps if at <= cut]
    for _ in range(2):  # finished by then: nothing is evaluated again
        found, now = trained(diff, checkpoint=file)
        assert now == [] and found.state_dict() == whole.state_dict()
