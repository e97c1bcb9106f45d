"""What an objective lacks is decided by diagnostics, weights and parts, and less is said the healthier they are."""

from __future__ import annotations

import math

import pytest
from test_monitor import FREE, NO_WEIGHT, SYSTEM

from jepa.diagnosis import diagnose
from jepa.measures.collapse import Diagnostics
from jepa.runs import build
from jepa.runs.config import configure

HEALTHY = Diagnostics(0.9, 0.95, 3.5, 0.99, 0.8, 1.0)
UNINFORMATIVE = {"contrast": 0.0, "probe_r2": 0.02}
SHRUNK = {"contrast": 0.005, "spread": 0.01}
FLAT = {"contrast": 0.003, "mismatched_energy_ratio": 0.01}
LOUD = {"contrast": 0.05, "mismatched_energy_ratio": 0.005, "spread": 10.0}  # E0 is no unit for what has grown
QUIET = {"contrast": 0.003}
CHANCE = {"contrast": 0.3, "auroc": 0.55}
INFORMED = {"loss": {"variance": 25.0, "covariance": 1.0}}
NO_Y, NO_X, NO_ENERGY = {"loss.information_y": 0.0}, {"loss.information_x": 0.0}, {"loss.energy": 0.0}
LIMITED = {"latent": {"name": "discrete", "size": 4}}


def said(found, *diffs, encoded=False):
    """Return what is said of a healthy model with diagnostics changed."""
    of = build.parts(configure(SYSTEM, *diffs), 0, encoded)
    text = diagnose(HEALTHY._replace(**found), of.objective, of.model.train())
    assert of.model.training
    return text


@pytest.mark.parametrize(
    ("found", "diffs", "expected"),
    [
        ({}, [NO_WEIGHT], None),
        ({"probe_r2": 0.0}, [NO_WEIGHT], None),  # not collapsed where the energy tells pairs apart
        ({"contrast": math.nan}, [NO_WEIGHT], None),
        (dict.fromkeys(Diagnostics._fields, math.nan), [NO_WEIGHT], None),
        (QUIET, [INFORMED], None),  # has learned nothing yet
        (QUIET, [NO_WEIGHT], None),
        (QUIET, [INFORMED, NO_ENERGY], "criterion 3 is missing"),
        (CHANCE, [INFORMED, NO_ENERGY], "criterion 3 is missing"),
        (CHANCE, [INFORMED], None),
        ({}, [INFORMED, NO_ENERGY], None),
        (UNINFORMATIVE, [NO_WEIGHT], "criteria 1 and 2 are missing"),
        (UNINFORMATIVE, [INFORMED, NO_Y], "criterion 2 is missing"),
        (UNINFORMATIVE, [INFORMED, NO_X], "criterion 1 is missing"),
        (UNINFORMATIVE, [INFORMED, NO_X, NO_Y], "criteria 1 and 2 are missing"),
        (UNINFORMATIVE, [INFORMED], "no criterion is missing"),
        (UNINFORMATIVE, [INFORMED, NO_Y, {"target_encoder": "shared"}], "no criterion is missing"),
        (UNINFORMATIVE, [INFORMED, NO_X, NO_Y, {"target_encoder": "shared"}], "criteria 1 and 2 are missing"),
        (UNINFORMATIVE, [NO_WEIGHT, {"encoder": "identity"}], "criterion 2 is missing"),  # x itself says all
        (UNINFORMATIVE, [NO_WEIGHT, {"target_encoder": "identity"}], None),
        (UNINFORMATIVE, [FREE, NO_WEIGHT], "criteria 1 and 2"),
        (SHRUNK, [INFORMED, NO_Y], "criterion 2 is missing"),
        (FLAT, [FREE], "criterion 4 is missing"),
        (LOUD, [FREE], "criterion 4 is missing"),
        (FLAT, [FREE, {"latent.size": 7}], "criterion 4 is missing"),
        (FLAT, [FREE, {"target_encoder": "identity"}], "criterion 4 is missing"),
        (FLAT, [FREE, {"latent.alpha": 0.1}], "no criterion is missing"),
        (FLAT, [FREE, {"latent.size": 2}], "no criterion is missing, but z, 2 numbers wide, says all of s_y"),
        (FLAT, [INFORMED, LIMITED, NO_ENERGY], "criterion 3 is missing"),
        (FLAT, [INFORMED, LIMITED], "no criterion is missing"),
        (FLAT, [INFORMED], None),  # without a latent nothing makes an energy flat
    ],
)
def test_diagnostics_and_settings_decide_what_is_said(found, diffs, expected):
    text = said(found, *diffs)
    assert text is None if expected is None else expected in text


def test_predictor_behind_frozen_encoders_is_judged_by_its_latent_alone():
    assert "criterion 4 is missing" in said(FLAT, FREE, encoded=True)
    assert said(UNINFORMATIVE, NO_WEIGHT, encoded=True) is None


def test_less_is_said_the_healthier_the_diagnostics_are():
    texts = [said({"contrast": value, "probe_r2": 0.05}, NO_Y) for value in (-1.0, 0.0, 0.01, 0.02)]
    assert [text is not None for text in texts] == [True, True, True, False] and len({*texts}) == 4
