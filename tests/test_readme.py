"""The README's code runs as it stands."""

from __future__ import annotations

import re

import torch
from conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_code_of_the_readme_runs_and_does_what_it_says():
    state = torch.get_rng_state()
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    torch.set_rng_state(state)
    assert len(BLOCKS) == 2 and names["found"].argmin.shape == (5, 4)
    model, world = names["model"], names["world"]
    pairs = world.sample(512, torch.Generator().manual_seed(2))
    predictions = model.predictions(pairs.x, model.latent.codes[None])  # the second training was on other data
    assert predictions.shape == (512, 4, 2) and names["monitor"].warnings == []
