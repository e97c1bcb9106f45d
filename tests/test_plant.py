"""The measure of the servo: nothing but rounding for the right control, and a large gap for any other one."""

from __future__ import annotations

import pytest
import torch

from jepa.evaluate import plant
from jepa.evaluate.plant import GAINS, STEPS, servo_gaps


@pytest.mark.parametrize(("seed", "plants", "width"), [(0, 8, 2), (1, 1, 1), (2, 3, 7)])
def test_servo_is_proportional_control_to_rounding(seed, plants, width):
    gaps = servo_gaps(seed, plants, width)
    assert max(gaps.control, gaps.closed_loop) < 1e-13
    assert gaps.distances.shape == (len(GAINS), STEPS + 1) and (gaps.distances[:, 0] > 0).all()
    for gain, distances in zip(GAINS, gaps.distances, strict=True):
        shrunk = distances[0] * (1 - gain) ** torch.arange(STEPS + 1)
        torch.testing.assert_close(distances, shrunk.double(), rtol=1e-5, atol=1e-13)


@pytest.mark.parametrize("share", [0.5, 0.99, 1.01])
def test_servo_of_another_gain_shows(share, monkeypatch):
    right = plant.servo
    monkeypatch.setattr(plant, "servo", lambda level, s, gain, draws: right(level, s, share * gain, draws))
    gaps = servo_gaps()
    assert min(gaps.control, gaps.closed_loop) > abs(1 - share) / 5


def test_servo_that_errs_only_near_the_goal_shows(monkeypatch):
    right = plant.servo

    def sticky(level, s, gain, draws):
        """Return the control, but none that is small."""
        found = right(level, s, gain, draws)
        return found._replace(actions=torch.where(found.actions.abs() < 0.01, 0, found.actions))

    monkeypatch.setattr(plant, "servo", sticky)
    gaps = servo_gaps()
    assert min(gaps.control, gaps.closed_loop) > 1e-3
