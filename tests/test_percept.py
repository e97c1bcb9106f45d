"""What a world model is shown of tasks whose start and goal are near."""

from __future__ import annotations

import torch
from conftest import generator

from jepa.evaluate.acting import OVERLAP, Acting
from jepa.latents.finite import NoLatent
from jepa.model import JEPA
from jepa.predictors import MLP
from jepa.static import separate
from jepa.worlds.rooms import Rooms, Tasks
from jepa.worlds.rooms.layouts import two_rooms


def test_dots_whose_tails_overlap_are_still_seen_to_move():
    world = Rooms()
    layouts = two_rooms(torch.full((4,), 32.0), torch.full((4,), 32.0))
    y = torch.tensor([20.0, 20.5, 33.0, 45.7])
    tasks = Tasks(layouts, torch.stack([torch.full((4,), 28.4), y], 1), torch.stack([torch.full((4,), 35.6), y], 1))
    static, _ = separate(world.draw(layouts, torch.stack([tasks.start, tasks.goal], 1)))
    assert 0.01 < float(static[:, 0].max()) < OVERLAP  # the nearest that a start and a goal can be
    encoder = torch.nn.Flatten()
    model = JEPA(encoder, encoder, MLP(1, 1), NoLatent())
    subject = Acting(model, world, tasks, 1.0, lambda purpose: generator(), lambda *_: None)
    acting = world.episodes(tasks, "stay")
    encode = subject.percept(static)
    assert encode(acting.observe()).shape == (4, 2 * 33 * 33)
    up = acting.act(torch.tensor([0.0, -2.0]).expand(4, 2))  # what both had in common is darker now
    assert float(encode(up).min()) < -1e-3
