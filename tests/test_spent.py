"""What an evaluation, an encoding and a binding take, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jepa.evaluate.operations import Spent, operations
from jepa.keypoints import Keypoints
from jepa.latents.finite import NoLatent
from jepa.maps import MapCode, MapReader
from jepa.model import JEPA
from jepa.predictors import Recurrent
from jepa.strided import Strided

STATIC = torch.rand(3, 2, 33, 33)


def model(encoder, predictor):
    """Return a world model of two parts."""
    return JEPA(encoder, encoder, predictor, NoLatent())


def test_keypoints_and_a_map_that_is_read():
    encoder = Keypoints((2, 33, 33), 2, channels=8)
    of = model(encoder, MapReader(2, 2, static=(2, 33, 33), channels=(16, 32, 16), hidden=(128, 128)))
    found = operations(of, STATIC, torch.rand(5, 2, 33, 33))
    # 5 × 5 kernels over 2 channels, then 3 × 3 over 8, each at 17 × 17 places; and the mean place of one heat map
    assert found.encoding == 2 * 17 * 17 * (8 * 2 * 25 + 1 * 8 * 9 + 2)
    assert found.binding == 2 * 33 * 33 * 9 * (2 * 16 + 16 * 32 + 32 * 16)
    # 16 features, 2 numbers for where in the pixel, 2 of the action
    assert found.evaluation == 2 * (20 * 128 + 128 * 128 + 128 * 2)


def test_a_vector_of_the_map():
    of = model(Keypoints((2, 33, 33), 2), MapCode(2, 2, static=(2, 33, 33), channels=(4, 8), code=5, hidden=(16,)))
    found = operations(of, STATIC, torch.rand(1, 2, 33, 33))
    assert found.binding == 2 * (17 * 17 * 9 * 2 * 4 + 9 * 9 * 9 * 4 * 8 + 9 * 9 * 8 * 5)
    assert found.evaluation == 2 * ((2 + 5 + 2) * 16 + 16 * 2)


def test_a_unit_that_is_told_no_map():
    of = model(Strided((2, 33, 33), 64, channels=(8,)), Recurrent(64, 64, action=2))
    frames, static = torch.rand(1, 2, 33, 33), torch.zeros(1, 0)
    found = operations(of, static, frames)
    assert found == (2 * 3 * 64 * (64 + 2), 2 * (17 * 17 * 9 * 2 * 8 + 17 * 17 * 8 * 64), 0)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        of.representation(frames)
    assert counter.get_total_flops() == found.encoding  # PyTorch's own counter
    with pytest.raises(ValueError, match="^frames: expected at least one, found none"):
        operations(of, static, frames[:0])


def test_an_episode_is_so_many_of_each():
    assert Spent(2e12, 3e12, 5e12).teraflops(10, 4, 2) == pytest.approx(42)
    assert Spent(2e12, 3e12, 5e12).teraflops(10, 4) == pytest.approx(37)
