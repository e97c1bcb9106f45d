"""The optimizer loop: a function of configuration and seed, cut anywhere and resumed to the bit, never torn."""

from __future__ import annotations

import errno
import math
import os
import pickle
import random
import subprocess
import sys
from itertools import count, pairwise
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from jepa import train
from jepa.runs import build
from jepa.runs.config import configure
from jepa.train import fit

MLP = {"name": "mlp", "outputs": 5, "hidden": [8]}
KINDS = {
    "cooled codes": {"latent": {"name": "discrete", "size": 4}, "loss.beta_start": 1.0},
    "free latent": {"latent": {"name": "low_dimensional", "size": 2, "starts": 4, "steps": 2}},
    "inferring network": {
        "latent": {"name": "low_dimensional", "size": 2, "alpha": 0.1},
        "inference": {"name": "amortized", "features": 3, "hidden": 4},
    },
    "fuzzy latent": {
        "latent": {"name": "dropped", "size": 2, "alpha": 0.1},
        "inference": {"name": "amortized", "features": 3, "hidden": 4},
    },
    "learned codes": {
        "latent": {"name": "vector_quantized", "size": 3, "width": 2, "decay": 0.8},
        "inference": {"name": "amortized", "features": 3, "hidden": 4},
    },
    "auto-encoder": {"context": "y", "encoder": MLP},
    "joint embedding": {
        **{"encoder": MLP, "target_encoder": MLP, "predictor": "identity"},
        **{"expander": {"name": "expander", "outputs": 6, "hidden": [7]}, "loss.variance": 1.0, "loss.covariance": 0.5},
    },
}
SMALL = {"train": {"steps": 12, "batch": 8, "rate": 0.01, "watch": 0}, "predictor": {"hidden": [8]}}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


class Cut(Exception):
    """What ends a training from outside."""


def settings(*diffs):
    """Return the configuration of a small training."""
    return configure(SMALL, *diffs)


def run(config, seed=0, checkpoint=None, sample=None):
    """Return all that a training leaves: weights and buffers, curve, state of the generator."""
    model, generator = build.model(config, seed), torch.Generator().manual_seed(seed)
    sample = sample or build.source(config, build.world(config))
    curve = fit(model, sample, (config.train, config.loss), generator, checkpoint)
    return {**model.state_dict(), "generator": generator.get_state()}, curve


def same(one, other) -> bool:
    """Return whether two results agree to the bit."""
    (tensors, curve), (others, other_curve) = one, other
    equal = tensors.keys() == others.keys() and all(torch.equal(tensors[key], others[key]) for key in tensors)
    return equal and curve == other_curve


def cut_after(config, steps):
    """Return a source of pairs that is cut when it has served a number of steps."""
    source, left = build.source(config, build.world(config)), count(steps, -1)

    def sample(batch, generator):
        if next(left) == 0:
            raise Cut
        return source(batch, generator)

    return sample


def spoilt(config, name, value, step):
    """Return a source of pairs in which one number of one batch is spoilt."""
    source, number = build.source(config, build.world(config)), count()

    def sample(batch, generator):
        pairs = source(batch, generator)
        if next(number) == step:
            pairs = pairs._replace(**{name: getattr(pairs, name).clone()})
            getattr(pairs, name)[3, 1] = value
        return pairs

    return sample


@kinds
def test_same_seed_trains_to_the_same_bits_and_another_does_not(kind):
    first = run(settings(kind), seed=1)
    torch.manual_seed(99)  # the global generator has no say
    assert same(run(settings(kind), seed=1), first)
    assert not same(run(settings(kind), seed=2), first)


def test_pairs_are_drawn_afresh_from_the_given_generator():
    config, generators, batches = settings(), [], []
    source, given = build.source(config, build.world(config)), torch.Generator().manual_seed(5)

    def sample(batch, generator):
        generators.append(generator)
        batches.append(source(batch, generator).x)
        return source(batch, generator)

    fit(build.model(config, 0), sample, (config.train, config.loss), given)
    assert len(generators) == 12 and all(generator is given for generator in generators)
    assert len({str(batch) for batch in batches}) == 12 and {len(batch) for batch in batches} == {8}


@kinds
@pytest.mark.parametrize("steps", [1, 7, 11])
@pytest.mark.parametrize("interval", [0.0, 2.5])
def test_cut_run_resumes_to_the_bits_of_an_uninterrupted_one(kind, steps, interval, tmp_path, monkeypatch):
    clock = count()  # a second passes with every look at the clock
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    config, file = settings(kind, {"train.checkpoint": interval}), tmp_path / "checkpoint.pt"
    whole = run(config, seed=1)
    with pytest.raises(Cut):
        run(config, seed=1, checkpoint=file, sample=cut_after(config, steps))
    assert file.is_file() == (interval == 0.0 or steps > 1)
    # all that the checkpoint does not bring back would come from the wrong seed
    resumed = run(config, seed=1 if not file.is_file() else 2, checkpoint=file)
    assert same(resumed, whole)


@kinds
def test_finished_run_is_read_and_not_trained_again(kind, tmp_path):
    config, file = settings(kind), tmp_path / "checkpoint.pt"
    whole = run(config, seed=1, checkpoint=file)
    assert same(run(config, seed=2, checkpoint=file, sample=cut_after(config, 0)), whole)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from jepa import train
sys.path.insert(0, "tests")
from test_train import KINDS, run, settings

def half(state, file, real=torch.save):
    real(state, file)
    if state["step"] == 7:
        os.truncate(file, os.path.getsize(file) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
train.torch.save = half
run(settings(KINDS["joint embedding"], {"train.checkpoint": 0.0}), seed=1, checkpoint=Path(sys.argv[1]))
"""


def test_run_killed_in_the_middle_of_a_checkpoint_resumes_to_the_same_bits(tmp_path):
    file, config = tmp_path / "checkpoint.pt", settings(KINDS["joint embedding"], {"train.checkpoint": 0.0})
    command = [sys.executable, "-W", "error", "-c", KILLED, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert train.load(file)["step"] == 6
    assert same(run(config, seed=2, checkpoint=file), run(config, seed=1))


@pytest.fixture
def checkpoint(tmp_path):
    """Return the configuration and the checkpoint of a finished small run."""
    config = settings(KINDS["joint embedding"], {"train.steps": 2})
    run(config, checkpoint=tmp_path / "checkpoint.pt")
    return config, tmp_path / "checkpoint.pt"


def refused(config, file) -> str:
    """Return the message with which a checkpoint is refused, once it names the file and the remedy and kept it."""
    before = file.read_bytes()
    with pytest.raises(ValueError) as caught:
        run(config, checkpoint=file)
    assert str(file) in str(caught.value) and "delete it" in str(caught.value)
    assert file.read_bytes() == before
    return str(caught.value)


def test_truncated_checkpoint_is_refused(checkpoint):
    config, file = checkpoint
    text = file.read_bytes()
    for length in (0, 1, 4, 100, len(text) // 2, len(text) - 100, len(text) - 1):
        file.write_bytes(text[:length])
        assert "damaged or foreign" in refused(config, file)


def leaves(state) -> list:
    """Return all that a checkpoint holds, tensors as lists."""
    if isinstance(state, dict | list):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return [(key, leaves(value)) for key, value in items]
    return state.tolist() if isinstance(state, torch.Tensor) else state


def test_checkpoint_with_a_changed_byte_is_refused_unless_nothing_hangs_on_that_byte(checkpoint):
    _, file = checkpoint
    text, good, noticed = file.read_bytes(), leaves(train.load(file)), 0
    places = random.Random(0).sample(range(len(text)), 150)
    for place in places:
        changed = bytearray(text)
        changed[place] ^= 1
        file.write_bytes(changed)
        try:
            assert leaves(train.load(file)) == good
        except ValueError as error:
            noticed += "damaged or foreign" in str(error) and str(file) in str(error)
    assert noticed > len(places) / 2


class Bomb:
    """An object that makes a file when it is unpickled without care."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("write", [torch.save, lambda state, file: file.write_bytes(pickle.dumps(state))])
def test_checkpoint_that_would_execute_code_is_refused_and_executes_none(checkpoint, write, tmp_path):
    config, file = checkpoint
    state = train.load(file)
    write({**state, "step": Bomb(tmp_path / "executed")}, file)
    assert "damaged or foreign" in refused(config, file)
    assert not (tmp_path / "executed").exists()
    torch.load(file, weights_only=False) if write is torch.save else pickle.loads(file.read_bytes())
    assert (tmp_path / "executed").exists()  # the trap was armed


@pytest.mark.parametrize(
    "diff",
    [
        {"encoder.hidden": [9]},
        {"encoder": {"hidden": [8, 8]}, "target_encoder": {"hidden": [8, 8]}},
        {"expander": "identity"},
        {"latent": {"name": "discrete", "size": 2}, "predictor": {"name": "mlp", "hidden": [8]}},
        {"train.steps": 1},
        {"train.rate": 0.5},
        {"train.beta2": 0.9},
        {"train.pool": 64},
        {"loss.covariance": 0.25},
        {"loss.information_y": 0.0},
        {"train.watch": 1},
    ],
)
def test_checkpoint_of_another_model_or_run_is_refused(checkpoint, diff):
    config, file = checkpoint
    assert "the checkpoint is of another" in refused(configure(diff, base=config), file)


def test_how_often_a_checkpoint_is_written_may_change_between_cut_and_resumption(checkpoint):
    config, file = checkpoint
    assert same(run(configure({"train.checkpoint": 1.0}, base=config), checkpoint=file), run(config))


@pytest.mark.parametrize(
    "change",
    [
        {"generator": torch.zeros(3, dtype=torch.uint8)},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"optimizer": 3},
        {"curve": {"steps": []}},
        {"step": "two"},
        {"model": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_checkpoint_of_foreign_make_is_refused(checkpoint, change):
    config, file = checkpoint
    train.save(file, {**train.load(file), **change})
    assert "the checkpoint is of another" in refused(config, file)


@pytest.mark.parametrize("missing", ["model", "settings", "step", "curve", "optimizer", "generator"])
def test_checkpoint_that_lacks_an_entry_is_refused(checkpoint, missing):
    config, file = checkpoint
    train.save(file, {key: value for key, value in train.load(file).items() if key != missing})
    refused(config, file)


def test_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none.pt: expected a checkpoint, found no file"):
        train.load(tmp_path / "none.pt")


@kinds
@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_that_is_not_finite_is_named_and_never_saved(kind, name, value, tmp_path):
    config, file = settings(kind, {"train.steps": 400, "train.checkpoint": 0.0}), tmp_path / "checkpoint.pt"
    with pytest.raises(ValueError, match=f"{name}: expected finite numbers .* after 5 steps"):
        run(config, checkpoint=file, sample=spoilt(config, name, value, step=5))
    state = train.load(file)
    assert state["step"] == 5 and all(tensor.isfinite().all() for tensor in state["model"].values())


def test_loss_that_overflows_is_an_error_with_a_remedy():
    config = settings({"loss.energy": 1e300})
    with pytest.raises(ValueError, match="loss: expected finite terms, found .*lower train.rate"):
        run(config)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("save", OSError(errno.ENOSPC, "no space left")),
        ("save", RuntimeError("failed writing")),
        ("replace", OSError()),
    ],
)
def test_full_disk_keeps_the_old_checkpoint_and_leaves_nothing_beside_it(checkpoint, monkeypatch, name, error):
    _, file = checkpoint
    before = file.read_bytes()

    def failing(first, second):
        if name == "save":
            second.write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch if name == "save" else os, name, failing)
        with pytest.raises(OSError, match=f"{file}: could not be written .*the previous file.*untouched"):
            train.save(file, {"model": {}})
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_eight_pairs_are_learned_by_heart():
    config = settings({"train": {"steps": 300, "batch": 8, "rate": 0.02}, "predictor.hidden": [32, 32]})
    pairs = build.world(config).sample(8, torch.Generator().manual_seed(0))
    _, curve = run(config, sample=lambda batch, generator: pairs)
    assert curve.terms["energy"][-1] < 1e-4 < 0.1 < curve.terms["energy"][0]
    assert curve.terms["energy"] == curve.terms["total"] and curve.steps == list(range(3, 301, 3))


@pytest.fixture
def spy(monkeypatch):
    """Return lists that fill with the inverse temperature, energy weight, learning rate and decay of every step."""
    seen = SimpleNamespace(betas=[], energies=[], rates=[], decays=[])
    loss, step = train.loss, torch.optim.AdamW.step

    def watched_loss(model, x, a, y, weights):
        seen.betas.append(weights.beta)
        seen.energies.append(weights.energy)
        return loss(model, x, a, y, weights)

    def watched_step(optimizer):
        seen.rates.append(optimizer.param_groups[0]["lr"])
        seen.decays.append(optimizer.param_groups[0]["weight_decay"])
        return step(optimizer)

    monkeypatch.setattr(train, "loss", watched_loss)
    monkeypatch.setattr(torch.optim.AdamW, "step", watched_step)
    return seen


def test_learning_rate_warms_up_and_falls_as_half_a_cosine(spy):
    run(settings({"train": {"steps": 100, "rate": 0.3, "decay": 0.02}}))
    warm = [0.3 * step / 5 for step in range(1, 6)]
    cosine = [0.3 * math.cos(math.pi / 2 * step / 95) ** 2 for step in range(95)]
    assert spy.rates == pytest.approx(warm + cosine) and set(spy.decays) == {0.02}
    assert spy.rates[-1] > 0


def test_single_step_has_the_full_learning_rate(spy):
    run(settings({"train": {"steps": 1, "rate": 0.3}}))
    assert spy.rates == [0.3]


@pytest.mark.parametrize(
    ("loss", "temperatures"),
    [
        ({}, [0, 0, 0, 0, 0, 0, 0, 0]),
        ({"beta_start": 0.5}, [2, 1.5, 1, 0.5, 0, 0, 0, 0]),
        ({"beta_start": 0.5, "anneal": 1.0}, [2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25]),
        ({"beta_start": 0.5, "beta": 1.0}, [2, 1.75, 1.5, 1.25, 1, 1, 1, 1]),
        ({"beta": 4.0}, [0.25] * 8),
        ({"beta_start": 4.0, "beta": 1.0}, [1] * 8),  # a start colder than the end: no annealing
    ],
)
def test_temperature_falls_linearly_to_its_final_value(spy, loss, temperatures):
    run(settings(KINDS["cooled codes"], {"loss.beta_start": math.inf}, {"loss": loss, "train.steps": 8}))
    assert [1 / beta for beta in spy.betas] == pytest.approx(temperatures)


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        ({}, [1] * 8),
        ({"energy_start": 0.2, "energy": 5.0}, [1, 2, 3, 4, 5, 5, 5, 5]),
        ({"energy_start": 3.0, "anneal": 1.0}, [3, 2.75, 2.5, 2.25, 2, 1.75, 1.5, 1.25]),
    ],
)
def test_weight_of_the_energy_goes_linearly_to_its_final_value(spy, loss, weights):
    run(settings({"loss": loss, "train.steps": 8}))
    assert spy.energies == pytest.approx(weights)


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.999])
def test_two_steps_are_those_of_adamw_with_the_given_second_beta(beta2):
    config = settings({"train": {"steps": 2, "batch": 8, "rate": 0.01, "beta2": beta2, "decay": 0.3, "clip": 1e9}})
    source, generator = build.source(config, build.world(config)), torch.Generator().manual_seed(0)
    batches = [source(8, generator) for _ in range(2)]
    model, served = build.model(config, 0), iter(batches)
    fit(model, lambda count, generator: next(served), (config.train, config.loss), generator)
    other = build.model(config, 0)
    weights = [weight.detach() for weight in other.parameters()]
    first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    for step, (x, a, y, _) in enumerate(batches, start=1):
        for weight in other.parameters():
            weight.grad = None
        train.loss(other, x, a, y, train.Weights(1.0, 0.0, 0.0, 1.0, 1.0, math.inf)).total.backward()
        for i, (weight, slope) in enumerate(zip(weights, [w.grad for w in other.parameters()], strict=True)):
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = beta2 * second[i] + (1 - beta2) * slope.square()
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - beta2**step)
            weight.copy_(weight * (1 - 0.01 * 0.3) - 0.01 * mean / (square.sqrt() + 1e-8))
    for found, expected in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)


def test_gradient_is_clipped_to_its_largest_norm():
    config = settings({"train.clip": 1e-3})
    model, source = build.model(config, 0), build.source(config, build.world(config))
    fit(model, source, (config.train, config.loss), torch.Generator().manual_seed(0))
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_batch_statistics_are_learned_in_training_and_frozen_after_it():
    config = settings(KINDS["joint embedding"])
    model, source = build.model(config, 0).eval(), build.source(config, build.world(config))
    fit(model, source, (config.train, config.loss), torch.Generator().manual_seed(0))
    assert not model.training
    assert model.expander_x.layers[1].num_batches_tracked == config.train.steps


@pytest.mark.parametrize("steps", [1, 12, 250])
def test_progress_is_the_number_of_finished_steps(steps):
    config, seen = settings({"train.steps": steps}), []
    model, source = build.model(config, 0), build.source(config, build.world(config))
    curve = fit(model, source, (config.train, config.loss), torch.Generator().manual_seed(0), progress=seen.append)
    assert seen == curve.steps and seen[-1] == steps and all(a < b for a, b in pairwise(seen))
    assert min(steps, 100) <= len(seen) <= 130


@kinds
def test_what_training_makes_is_made_where_the_model_is(kind):
    config = settings(kind, {"train.steps": 4})
    expected = run(config)
    # another default device takes the part of an accelerator: whatever forgets to ask the model meets the wrong one
    model, source = build.model(config, 0), build.source(config, build.world(config))
    source(1, torch.Generator())  # a world's constants are made once
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        curve = fit(model, source, (config.train, config.loss), generator)
    assert same(({**model.state_dict(), "generator": generator.get_state()}, curve), expected)


def test_no_steps_leave_the_weights_as_they_are_drawn(tmp_path):
    config = settings({"train.steps": 0})
    model = build.model(config, 3)
    drawn = {name: weight.clone() for name, weight in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    source = build.source(config, build.world(config))
    curve = fit(model, source, (config.train, config.loss), generator, tmp_path / "checkpoint.pt")
    assert curve.steps == [] and not model.training
    kept = train.load(tmp_path / "checkpoint.pt")["model"]
    assert all(torch.equal(kept[name], weight) for name, weight in drawn.items()) and kept.keys() == drawn.keys()
