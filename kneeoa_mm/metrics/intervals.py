"""Estimates with person-clustered bootstrap intervals.

The two knees of a person are not independent, so draws are of persons, not knees. A draw is a
weight for each row; a metric weighs many draws together (``kneeoa_mm.metrics.metric``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from kneeoa_mm.metrics.calibration import calibration_in_the_large, calibration_slope
from kneeoa_mm.metrics.grades import (
    GRADE_METRICS,
    GRADE_PROBABILITY_METRICS,
    SET_METRICS,
    grade_ranking,
)
from kneeoa_mm.metrics.metric import Array, Labels, Metric, UndefinedMetricError
from kneeoa_mm.metrics.risks import BINARY_METRICS, prevalence, scaled_brier, threshold_metrics
from kneeoa_mm.metrics.within import Blocks, auprc_within, auroc_within, prevalence_within
from kneeoa_mm.records import UNKNOWN, Estimate

CI_PERCENTILES = (2.5, 97.5)
Z_95 = float(ndtri(0.975))
"""Standard errors from a value to a limit of its 95 % interval, where it is normal."""
ONE_PERSON = "all knees are of one person, so there is no interval"
NO_DRAWS = "no bootstrap draw, so no interval"
MIN_DEFINED = 0.9
"""Share of draws that must define a metric; limits of the others alone would leave out the worst
samples, and look like certainty."""
FEW_PERSONS = 10
"""With fewer persons of a class, 95 % intervals hold the truth in clearly less than 95 of 100
studies (``tests/metrics/test_few_events.py``)."""
_DRAWS_THAT_TELL_PERSONS_APART = 64
_RAISED_BY_NOISE = frozenset({"ece"})
_CELLS_AT_ONCE = 400_000
"""Rows times draws that are weighed together: what a core's cache holds."""


def persons_of(subject_ids: ArrayLike, knee_ids: ArrayLike) -> NDArray[np.str_]:
    """The person of each row; a knee whose subject is unknown counts as a person of its own.

    Args:
        subject_ids: Subject of each row, ``-`` where unknown, shape (n,).
        knee_ids: Knee of each row, shape (n,).

    Returns:
        What intervals cluster on, shape (n,).

    Example:
        >>> persons_of(["9000017", "-"], ["a:9000017:0:L", "-:-:-:L"]).tolist()
        ['9000017', '-:-:-:L']
    """
    subjects, knees = np.asarray(subject_ids, dtype=str), np.asarray(knee_ids, dtype=str)
    return np.where(subjects == UNKNOWN, knees, subjects)


def person_shares(persons: ArrayLike) -> Array:
    """Weight of each row with which every person weighs the same, (n,).

    A metric so weighted is of a knee of a person, drawn after the person was: the cluster-average
    estimand (Williamson et al. 2003, Biometrics 59:36; Kahan et al. 2023, Int J Epidemiol 52:107).
    Without weights each knee counts the same: the participant-average estimand.

    Example:
        >>> person_shares(["a", "b", "a"]).tolist()
        [0.5, 1.0, 0.5]
    """
    _, person, knees = np.unique(np.asarray(persons), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / knees[person], dtype=np.float64)


def bootstrap_rows(subject_ids: ArrayLike, *, n_boot: int, seed: int) -> list[NDArray[np.int64]]:
    """The rows of each draw, for a statistic that knows no weights.

    Args:
        subject_ids: Subject of each row, shape (n,).
        n_boot: Number of draws.
        seed: Seed of the draws.

    Returns:
        For each draw of ``bootstrap_weights`` the indices of its rows, each as often as drawn.
    """
    weights = bootstrap_weights(subject_ids, n_boot=n_boot, seed=seed)
    rows = np.arange(len(weights))
    return [np.repeat(rows, weights[:, draw]) for draw in range(weights.shape[1])]


def bootstrap_weights(subject_ids: ArrayLike, *, n_boot: int, seed: int) -> NDArray[np.uint16]:
    """Draw as many persons as there are, with replacement, again and again.

    Args:
        subject_ids: Subject of each row, shape (n,).
        n_boot: Number of draws.
        seed: Seed of the draws.

    Returns:
        How often each row is in each draw, shape (n, draws), which is how often its person was
        drawn. Without rows there are no draws.
    """
    persons, person = np.unique(np.asarray(subject_ids, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = np.zeros((len(persons), n_boot if len(persons) else 0), dtype=np.uint16)
    for draw in range(counts.shape[1]):
        drawn = generator.integers(len(persons), size=len(persons))
        counts[:, draw] = np.bincount(drawn, minlength=len(persons))
    return counts[person]


@dataclass(frozen=True)
class Resampled:
    """A metric of the sample and of each draw.

    Attributes:
        value: Of the sample; None where it is not defined.
        draws: Of each draw, NaN where one does not define it, (draws,); none of one person.
        n: Rows.
        reason: Why there is no value, or there are no draws.
        note: What makes an interval doubtful.
    """

    value: float | None
    draws: Array
    n: int
    reason: str | None = None
    note: str | None = None

    def __sub__(self, other: Resampled) -> Resampled:
        """The difference, draw by draw.

        Of two models on the same rows, draws must be the same; of two samples, independent.
        """
        if self.value is None or other.value is None:
            missing = self if self.value is None else other
            return Resampled(None, self.draws, self.n, missing.reason)
        both = self.draws.size and other.draws.size
        draws = self.draws - other.draws if both else np.empty(0)
        return Resampled(
            self.value - other.value,
            draws,
            self.n,
            self.reason or other.reason,
            self.note or other.note,
        )

    @property
    def has_interval(self) -> bool:
        """Whether there is a value, and nearly all draws define it."""
        known = bool(self.draws.size) and self.value is not None
        return known and bool(np.mean(~np.isnan(self.draws)) >= MIN_DEFINED)

    def estimate(self, *, centred: bool = False) -> Estimate:
        """The value with its percentile interval.

        Args:
            centred: Move the draws so that their mean is the value. For a metric that noise can
                only raise: drawing adds noise of its own, and would lift the interval off the
                value.
        """
        if self.value is None:
            return Estimate(None, n=self.n, reason=self.reason)
        known = ~np.isnan(self.draws)
        if not self.has_interval:
            reason = (
                self.reason or f"only {known.mean():.0%} of the draws define it, so no interval"
            )
            return Estimate(self.value, n=self.n, reason=reason)
        defined = self.draws[known]
        low, high = np.percentile(defined, CI_PERCENTILES)
        if centred:
            low, high = np.maximum(0, np.array([low, high]) - np.mean(defined) + self.value)
        return Estimate(self.value, float(low), float(high), self.n, note=self.note)


def resample(
    metric: Metric,
    truth: Labels,
    prediction: Any,
    weights: ArrayLike,
    *,
    shares: Array | None = None,
) -> Resampled:
    """A metric of the sample and of each draw.

    Rows that always come together are of one person. They have no draws: each would be the sample
    itself, and look like certainty. Nor are there draws of a metric of events, or of KL 2 or more,
    where all events, or all others, are of one person.

    Args:
        metric: What to compute.
        truth: Grades or events, shape (n,).
        prediction: What the metric wants beside the truth, n rows.
        weights: Of ``bootstrap_weights``, (n, draws); empty for none.
        shares: How much each row counts, such as ``person_shares``, (n,); None for all the same.
    """
    drawn, n = np.asarray(weights), len(truth)
    if n == 0:
        return Resampled(None, np.empty(0), 0, "no knee has both a truth and a prediction")
    counts = np.ones((n, 1)) if shares is None else shares[:, None]
    try:
        weighed = metric.prepare(truth, prediction)
        value = float(weighed(counts)[0])
    except UndefinedMetricError as error:
        return Resampled(None, np.empty(0), n, str(error))
    if np.isnan(value):
        return Resampled(None, np.empty(0), n, metric.undefined)
    if not drawn.size:
        return Resampled(value, np.empty(0), n, NO_DRAWS)
    if all(np.array_equal(row, drawn[0]) for row in drawn):
        return Resampled(value, np.empty(0), n, ONE_PERSON)
    events = metric.events_in(truth)
    reason, note = (None, None) if events is None else _few_persons(events, drawn, metric.event)
    if reason:
        return Resampled(value, np.empty(0), n, reason)
    at_once = max(1, _CELLS_AT_ONCE // n)
    parts = (drawn[:, i : i + at_once] for i in range(0, drawn.shape[1], at_once))
    draws = [weighed(np.ascontiguousarray(part * counts, dtype=np.float64)) for part in parts]
    return Resampled(value, np.concatenate(draws), n, note=note)


def _few_persons(events: Labels, drawn: NDArray[Any], event: str) -> tuple[str | None, str | None]:
    """Of events and non-events, why there is no interval, or what makes it doubtful."""
    note = None
    for named, of_class in ((f"without {event}", events == 0), (f"with {event}", events == 1)):
        rows = drawn[of_class][:, :_DRAWS_THAT_TELL_PERSONS_APART]
        persons = len(np.unique(rows, axis=0))
        if persons == 1:
            return f"one person alone has a knee {named}, so there is no interval", None
        if 0 < persons < FEW_PERSONS:
            note = f"only {persons} persons have a knee {named}: the interval is too sure"
    return None, note


def estimate(
    metric: Metric,
    truth: Labels,
    prediction: Any,
    weights: ArrayLike,
    *,
    shares: Array | None = None,
    centred: bool = False,
) -> Estimate:
    """Value of a metric with its percentile interval over bootstrap draws.

    Args:
        metric: What to compute.
        truth: Grades or events, shape (n,).
        prediction: What the metric wants beside the truth, n rows.
        weights: Of ``bootstrap_weights``, (n, draws); empty for no interval.
        shares: As in ``resample``.
        centred: As in ``Resampled.estimate``.

    Returns:
        The estimate; without a value, and with the reason, where the sample does not define it.
    """
    return resample(metric, truth, prediction, weights, shares=shares).estimate(centred=centred)


def kl_estimates(
    truth: Labels,
    predicted: Labels,
    probabilities: Array,
    sets: NDArray[np.bool_] | None,
    weights: ArrayLike,
    *,
    shares: Array | None = None,
    blocks: Blocks | None = None,
) -> dict[str, Estimate]:
    """All metrics of a grader.

    Args:
        truth: True grades, shape (n,).
        predicted: Grades by the ensemble's voting rule, shape (n,).
        probabilities: Grade probabilities, shape (n, 5).
        sets: Whether each grade belongs to the knee's set, shape (n, 5); None without sets.
        weights: Of ``bootstrap_weights``, (n, draws).
        shares: As in ``resample``.
        blocks: Fold of each row, (n,), where each has a model of its own: knees are ranked within
            it. None ranks all together.
    """
    judged: list[tuple[Mapping[str, Metric], Any]] = [
        (GRADE_METRICS, predicted),
        ({**GRADE_PROBABILITY_METRICS, **grade_ranking(blocks)}, probabilities),
        *([] if sets is None else [(SET_METRICS, sets)]),
    ]
    return {
        name: estimate(
            metric, truth, prediction, weights, shares=shares, centred=name in _RAISED_BY_NOISE
        )
        for metrics, prediction in judged
        for name, metric in metrics.items()
    }


def binary_estimates(
    truth: Labels,
    probability: Array,
    weights: ArrayLike,
    *,
    thresholds: tuple[float, ...] = (),
    shares: Array | None = None,
    blocks: Blocks | None = None,
) -> dict[str, Estimate]:
    """All metrics of a binary risk.

    Args:
        truth: Events coded 0 and 1, (n,).
        probability: Their risks, (n,).
        weights: Of ``bootstrap_weights``, (n, draws).
        thresholds: Risks, stated beforehand, at which decisions are judged.
        shares: As in ``resample``.
        blocks: As in ``kl_estimates``.
    """
    found: Mapping[str, Metric] = {
        **BINARY_METRICS,
        "auprc_baseline": prevalence,
        "scaled_brier": scaled_brier,
        "calibration_in_the_large": calibration_in_the_large,
        "calibration_slope": calibration_slope,
        **threshold_metrics(thresholds),
    }
    if blocks is not None:
        found = {
            **found,
            "auroc": auroc_within(blocks),
            "auprc": auprc_within(blocks),
            "auprc_baseline": prevalence_within(blocks),
        }
    return {
        name: estimate(metric, truth, probability, weights, shares=shares)
        for name, metric in found.items()
    }
