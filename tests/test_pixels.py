"""What decoders draw from predictions, and every measure of the fork on frames."""

from __future__ import annotations

import pytest
import torch
from conftest import Formula, asked, values
from torch import Generator, nn

from jepa.data import HeldOut
from jepa.encoders import Identity
from jepa.evaluate import MEASURES, pixels
from jepa.evaluate.subject import measured
from jepa.latents.finite import Discrete, NoLatent
from jepa.model import JEPA, Representations
from jepa.runs import build
from jepa.runs.config import configure
from jepa.worlds.fork import Fork

FRAMES = Fork(frames=2)


def framed(model, **settings):
    """Return a subject that sees frames, few of them."""
    return asked(FRAMES, model, count=60, **{"evaluation.samples": 120, **settings})


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
    subject = framed(black)
    drawn = torch.rand(3, 2048)
    assert torch.equal(pixels.decoder(subject)(drawn), drawn.view(3, 2, 32, 32))
    found = values(pixels.pixels(subject))
    assert found["pixel_error"] == pytest.approx(float(subject.held_out.y.square().mean()), rel=1e-5)
    assert abs(found["decoded_position_r2"]) < 0.15 and abs(found["decoded_texture_r2"]) < 0.15
    exact = JEPA(flat, flat, Formula(lambda s, z: s.unsqueeze(1)), NoLatent())
    whole = subject.held_out._replace(x=subject.held_out.y)
    found = values(pixels.pixels(asked(FRAMES, exact, whole, context="y")))
    assert found["pixel_error"] == 0 and found["decoded_position_r2"] > 0.8 and found["decoded_texture_r2"] > 0.5


def test_decoder_learns_to_draw_and_leaves_the_model_as_it_is():
    errors = {}
    for steps in (1, 120):
        settings = {"context": "y", "train.batch": 32, "evaluation.samples": 300}
        subject = framed(pooled(), **settings)
        state, random = subject.model.state_dict()["predictor.weight"].clone(), torch.get_rng_state()
        decode = pixels.decoder(subject, steps)
        assert torch.equal(subject.model.predictor.weight, state) and subject.model.predictor.weight.grad is None
        assert torch.equal(torch.get_rng_state(), random)
        y = subject.held_out.y
        drawn = decode(nn.functional.avg_pool2d(y, 4).flatten(1))
        assert drawn.shape == y.shape and not drawn.requires_grad
        errors[steps] = float((drawn - y).square().mean())
        torch.manual_seed(steps)  # what else is drawn decides nothing
        again = pixels.decoder(framed(pooled(), **settings), steps)(nn.functional.avg_pool2d(y, 4).flatten(1))
        assert torch.equal(again, drawn)
    blind = float((y - subject.probe_pairs.y.mean(0)).square().mean())  # the mean picture
    assert errors[120] < 0.7 * blind < blind < errors[1]


OTHERS = ("landscapes", "sparsity", "inference", "world_models", "planning", "known", "planners")
OTHERS += ("horizons", "routes", "costs", "hierarchical", "proposals", "reconfigured", ".late:")  # of hierarchies
ALL = [name for name, where in MEASURES.items() if not any(module in where for module in OTHERS)]


def test_every_measure_of_the_fork_runs_on_frames():
    small = {"name": "convolutional", "outputs": 6, "channels": [4], "patch": 8, "hidden": 8}
    config = configure({
        "world": {"name": "fork", "frames": 2},
        "encoder": small,
        "target_encoder": small,
        "predictor": {"hidden": [8]},
        "latent": {"name": "discrete", "size": 2},
        "measure": [{"name": name, "steps": 2} if name == "pixels" else name for name in ALL],
        "evaluation.samples": 80,
        "train.batch": 16,
    })  # fmt: skip
    pairs = FRAMES.sample(40, Generator().manual_seed(3), unseen=True)
    held_out = HeldOut(pairs.x, pairs.y, pairs.factors | {"x": pairs.x, "y": pairs.y})  # as a stored set has it
    of = build.parts(config, 0)
    subjects = (build.subject(config, 0, of, held_out, 1.0) for _ in range(2))
    first, again = (measured(subject, build.measures(config)) for subject in subjects)
    assert again == first
    found = values(first)
    assert set(ALL) == {
        "collapse", "factors", "branches", "predictions", "context", "invariance", "pixels",
        "modes", "latents", "entries", "wells",
    }  # fmt: skip
    assert {"auroc", "probe_r2", "branch_accuracy", "mode_recall", "invariance_rate", "pixel_error"} <= set(found)
    assert found["parameters"] == sum(weights.numel() for weights in of.model.parameters()) > 1000
