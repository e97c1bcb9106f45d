"""What training a hierarchy costs, in multiply-adds of matrix products and convolutions, backward passes included."""

from __future__ import annotations

import torch

from jepa.batches import Trajectories
from jepa.evaluate.inference import Operations
from jepa.evaluate.levels import Stacked, known
from jepa.evaluate.subject import Row
from jepa.streams import generator_for

FEW = 8  # steps of the highest level on which encoding is counted


def training_cost(subject: Stacked) -> list[Row]:
    """Return the cost of this training alone, of what is frozen below none, in units of 10⁹ multiply-adds.

    `cost_training` is of all steps; `cost_codes` of encoding once the pool that the levels above learn from, by all
    levels of the hierarchy.
    """
    known(subject, "training_cost")
    model, training = subject.model, subject.training
    batch = training.sample(training.train.batch, generator_for("purpose", 0, "costs", training.device))
    batch = Trajectories(batch.frames.cpu(), batch.a.cpu(), batch.static.cpu(), {})
    parts = (model, training.objective)  # a head is trained, too
    trained = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
    with torch.enable_grad(), Operations() as step:
        loss = training.objective(model, batch, 1.0)
        torch.autograd.grad(loss.total, trained, allow_unused=True)
    steps = model.clocks[-1].span - 1 + FEW * model.clocks[-1].stride
    frames = subject.world.trajectories(1, steps, generator_for("purpose", 0, "costs")).frames
    with torch.no_grad(), Operations() as codes:
        model.encode(frames)
    each = codes.total / frames.shape[1]
    found = {"training": step.total * training.train.steps, "codes": each * training.pool}
    return [Row(f"cost_{name}", 1e-9 * total / 2) for name, total in found.items()]
