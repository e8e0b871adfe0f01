"""Calibration of risks: known distortions are found, and recalibration learns from other folds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit

from kneeoa_mm import metrics

RISK = np.linspace(0.05, 0.95, 400)
# the outcomes that a risk promises, without the chance of a draw: each knee as ten of equal risk
KNEES = np.repeat(RISK, 1000)
EVENTS = (np.tile(np.arange(1000), len(RISK)) < np.round(1000 * KNEES)).astype(int)


def test_risks_that_keep_their_word_have_intercept_zero_and_slope_one():
    assert metrics.calibration_in_the_large(EVENTS, KNEES) == pytest.approx(0, abs=5e-3)
    assert metrics.calibration_slope(EVENTS, KNEES) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1), (-1, 1), (0, 2), (0.3, 0.5)])
def test_shifts_and_stretches_of_the_log_odds_are_found(shift, stretch):
    """Closed form: with log odds a + b x the slope is 1 / b, and for b = 1 the intercept is -a."""
    distorted = expit(shift + stretch * logit(KNEES))
    assert metrics.calibration_slope(EVENTS, distorted) == pytest.approx(1 / stretch, abs=0.01)
    if stretch == 1:
        found = metrics.calibration_in_the_large(EVENTS, distorted)
        assert found == pytest.approx(-shift, abs=0.01)


def test_recalibration_undoes_a_distortion_and_keeps_the_order_within_a_fold():
    generator = np.random.default_rng(0)
    risk = expit(generator.normal(-1, 1, 4000))
    event = (generator.random(4000) < risk).astype(int)
    fold = np.arange(4000) % 5
    found = metrics.recalibrated(event, expit(2 + 3 * logit(risk)), fold)
    assert np.abs(found - risk).max() < 0.06
    for each in range(5):
        rows = fold == each
        assert np.array_equal(np.argsort(found[rows]), np.argsort(risk[rows]))


def test_a_fold_teaches_its_own_recalibration_nothing():
    generator = np.random.default_rng(1)
    risk, event = generator.random(200), generator.integers(0, 2, 200)
    fold = np.arange(200) % 4
    before = metrics.recalibrated(event, risk, fold)
    turned = np.where(fold == 2, 1 - event, event)
    after = metrics.recalibrated(turned, risk, fold)
    np.testing.assert_allclose(before[fold == 2], after[fold == 2], atol=1e-9)
    assert not np.allclose(before[fold != 2], after[fold != 2])


@pytest.mark.parametrize(
    ("event", "risk"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),
        ([0, 0, 0, 0], [0.1, 0.2, 0.8, 0.9]),
    ],
)
def test_where_the_likelihood_has_no_maximum_there_is_no_slope(event, risk):
    with pytest.raises(metrics.UndefinedMetricError, match="parts the classes"):
        metrics.calibration_slope(np.array(event), np.array(risk))


def test_certain_risks_stay_finite():
    event, risk = np.array([0, 1, 0, 1, 1, 0]), np.array([0.0, 1.0, 0.5, 0.5, 0.0, 1.0])
    assert np.isfinite(metrics.calibration_in_the_large(event, risk))


FAR_OFF = {
    "one and the same risk, far too low": (np.full(1000, 0.01), 0.1),
    "far too low": (expit(np.random.default_rng(0).normal(-4, 1, 1000)), 0.2),
    "far too high": (expit(np.random.default_rng(1).normal(3, 1, 1000)), 0.5),
    "nearly all certain": (np.repeat([1e-6, 1 - 1e-6], [990, 10]), 0.02),
    "certain, and half of it wrong": (np.repeat([1e-6, 1 - 1e-6], 500), 0.4),
}


@pytest.mark.parametrize("name", FAR_OFF)
def test_a_level_that_is_far_off_is_found_however_far(name):
    """Oracle: the root of its own equation by scipy's bisection."""
    risk, share = FAR_OFF[name]
    event = np.random.default_rng(2).permutation(np.arange(1000) < 1000 * share).astype(int)
    expected = brentq(lambda a: expit(logit(risk) + a).sum() - event.sum(), -40, 40, xtol=1e-10)
    assert metrics.calibration_in_the_large(event, risk) == pytest.approx(expected, abs=1e-6)
    anew = metrics.recalibrated(event, risk, np.arange(1000) % 5, slope_is_free=False)
    assert anew.mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("every", [0, 1])
def test_of_one_class_no_level_and_no_slope_is_found(every):
    event, risk = np.full(50, every), np.linspace(0.1, 0.9, 50)
    with pytest.raises(metrics.UndefinedMetricError, match="one class"):
        metrics.calibration_in_the_large(event, risk)
    with pytest.raises(metrics.UndefinedMetricError, match="one class"):
        metrics.calibration_slope(event, risk)
