"""The README's code runs as it stands, but for numbers of steps that would only take long."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
FEWER = {"steps=180": "steps=6", "tasks(100": "tasks(4", "steps=200": "steps=12"}  # of training, tasks, an episode


def run(block: str, names: dict) -> None:
    """Run a block with the names of those before it."""
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102


def test_the_code_of_the_readme_runs_and_does_what_it_says():
    state = torch.get_rng_state()
    names: dict = {}
    for block in BLOCKS[:2]:
        run(block, names)
    assert len(BLOCKS) == 6 and names["found"].argmin.shape == (5, 4)
    model, world = names["model"], names["world"]
    pairs = world.sample(512, torch.Generator().manual_seed(2))
    predictions = model.predictions(pairs.x, model.latent.codes[None])  # the second training was on other data
    assert predictions.shape == (512, 4, 2) and names["monitor"].warnings == []
    planned, layered, stacked, own = BLOCKS[2:]
    for many, few in FEWER.items():
        assert planned.count(many) == 1
        planned = planned.replace(many, few)
    run(planned, names)
    assert names["log"].actions.shape == (4, 12, 2) and (names["log"].plans > 0).all()
    assert float(names["acting"].positions.diff(dim=1).norm(dim=-1).amax(1).min()) > 1  # all of them move
    run(layered.replace("tasks(20", "tasks(3").replace("steps=40", "steps=9"), names)
    assert names["log"].evaluations.shape == (3, 2) and (names["log"].evaluations > 0).all()
    run(stacked.replace("steps=20, batch=8", "steps=3, batch=4"), names)
    assert names["ahead"].shape == (4, 1, 3, 16) and [clock.stride for clock in names["stack"].clocks] == [1, 8]
    pytest.importorskip("gymnasium")
    run(own, names)
    torch.set_rng_state(state)
    assert names["log"].actions.shape == (8, 12, 2)
    assert names["batch"].frames.shape == (8, 25, 2, 33, 33) and float(names["batch"].frames.min()) == 0
