"""Calibration of binary risks: in the large, slope, and recalibration that no knee does for itself.

Cox 1958 (Biometrika 45:562); Van Calster et al. 2019 (BMC Med 17:230).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from kneeoa_mm.metrics.metric import Array, Labels, Weighed, metric

_CERTAIN = 1e-6
_STEPS = 30
_TOLERANCE = 1e-9
_SEPARATED = 50.0
"""Beyond this, on the logit scale, the likelihood has no maximum: events and non-events part."""


def log_odds(probability: Array) -> Array:
    """Logit of a probability, kept away from certainty by a millionth."""
    return np.asarray(logit(np.clip(probability, _CERTAIN, 1 - _CERTAIN)), dtype=np.float64)


@metric(undefined="only one class in the truth")
def calibration_in_the_large(truth: Labels, probability: Array) -> Weighed:
    """Log odds to add to each risk so that their mean is the share of events; 0 is perfect.

    Above 0 the risks are too low. It is the intercept of a logistic regression whose slope is held
    at 1.
    """
    line = _Line(truth, probability, slope_is_free=False)
    return lambda weights: line.fit(weights)[0]


@metric(undefined="one class only, or one and the same risk, or a risk that parts the classes")
def calibration_slope(truth: Labels, probability: Array) -> Weighed:
    """Slope of a logistic regression of the event on the log odds of its risk; 1 is perfect.

    Below 1 the risks are too extreme, as those of an overfitted model are.
    """
    line = _Line(truth, probability)
    return lambda weights: line.fit(weights)[1]


def recalibrated(
    truth: Labels,
    probability: Array,
    folds: NDArray[np.int64],
    *,
    slope_is_free: bool = True,
    shares: Array | None = None,
) -> Array:
    """Risks after logistic recalibration, learnt for each fold on the knees of the others.

    For risks whose level a sampling scheme or a loss has moved. The order within a fold stays,
    unless the other folds say that it is upside down.

    Args:
        truth: Events coded 0 and 1, (n,).
        probability: Out-of-fold risks, (n,).
        folds: Fold of each row, (n,); a person is in one.
        slope_is_free: Otherwise the intercept alone is learnt, and the slope stays 1.
        shares: How much each row counts, (n,); None for all the same.

    Returns:
        Risks, (n,); NaN in a fold for which the others define no recalibration.
    """
    line = _Line(truth, probability, slope_is_free=slope_is_free)
    held_out = [folds == fold for fold in np.unique(folds)]
    counts = np.ones(len(truth)) if shares is None else shares
    intercept, slope = line.fit((1.0 - np.stack(held_out, axis=1)) * counts[:, None])
    risks = np.full(len(truth), np.nan)
    for i, rows in enumerate(held_out):
        risks[rows] = expit(intercept[i] + slope[i] * log_odds(probability[rows]))
    return risks


class _Line:
    """Logistic regression of the event on the log odds of its risk, for many draws together.

    Args:
        truth: Events coded 0 and 1, (n,).
        probability: Their risks, (n,).
        slope_is_free: Otherwise the slope is 1.
    """

    def __init__(self, truth: Labels, probability: Array, *, slope_is_free: bool = True) -> None:
        score = log_odds(probability)
        # about the mean the two parameters are nearly independent, and steps are safe
        self._centre = float(np.mean(score))
        self._truth, self._x = truth, score - self._centre
        self._slope_is_free = slope_is_free
        share = np.clip(np.mean(truth), _CERTAIN, 1 - _CERTAIN)
        self._start = float(logit(share)), 0.0 if slope_is_free else 1.0
        # draws differ little from the sample, and so start from where it ends
        intercept, slope = self._newton(np.ones((len(truth), 1)))
        if np.isfinite(intercept + slope).all():
            self._start = float(intercept[0]), float(slope[0])

    def fit(self, weights: Array) -> tuple[Array, Array]:
        """Intercept and slope of each draw, (draws,); NaN where there is no maximum."""
        intercept, slope = self._newton(weights)
        return intercept - slope * self._centre, slope

    def _newton(self, weights: Array) -> tuple[Array, Array]:
        # of one class the likelihood has no maximum, and NaN stays NaN
        has_both = (self._truth @ weights > 0) & ((1 - self._truth) @ weights > 0)
        intercept, slope = (np.where(has_both, start, np.nan) for start in self._start)
        events = np.stack([self._truth, self._truth * self._x]) @ weights
        powers = np.stack([np.ones_like(self._x), self._x, self._x**2])
        moved = np.full_like(slope, np.inf)
        for _ in range(_STEPS):
            risk = np.multiply.outer(self._x, slope)
            risk += intercept
            expit(risk, out=risk)
            expected = risk * weights
            pull = events - powers[:2] @ expected
            risk -= 1
            expected *= risk
            up, along = self._step(pull, -(powers @ expected))
            intercept, slope = intercept + up, slope + along
            moved = np.maximum(np.abs(up), np.abs(along))
            if not (moved > _TOLERANCE).any():
                break
        far = np.maximum(np.abs(intercept), np.abs(slope)) > _SEPARATED
        found = (moved <= _TOLERANCE) & ~far
        return np.where(found, intercept, np.nan), np.where(found, slope, np.nan)

    def _step(self, pull: Array, information: Array) -> tuple[Array, Array]:
        flat, cross, steep = information
        with np.errstate(divide="ignore", invalid="ignore"):
            if not self._slope_is_free:
                # information changes by a factor of e at most within a step of 1, so that steps no
                # longer than that reach the only root from anywhere
                return np.clip(pull[0] / flat, -1, 1), np.zeros_like(flat)
            determinant = flat * steep - cross**2
            up = (steep * pull[0] - cross * pull[1]) / determinant
            return up, (flat * pull[1] - cross * pull[0]) / determinant
