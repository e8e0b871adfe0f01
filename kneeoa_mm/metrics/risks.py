"""Metrics of binary risks: ranking, distance, and decisions at a threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kneeoa_mm.metrics.metric import Array, Labels, Metric, Weighed, mean_of, metric, ratio
from kneeoa_mm.metrics.ranking import Ranking

DECISION_THRESHOLD = 0.5
CURVE_THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 61))
"""Risks at which a decision curve is drawn."""


@metric(undefined="only one class in the truth")
def auroc(truth: Labels, probability: Array) -> Weighed:
    """Area under the ROC curve: share of event/non-event pairs in the right order, ties half."""
    ranking = Ranking(truth == 1, probability)
    return lambda weights: ratio(*ranking.concordant_and_pairs(weights))


@metric(undefined="only one class in the truth")
def auprc(truth: Labels, probability: Array) -> Weighed:
    """Average precision; without any skill it is the prevalence."""
    ranking = Ranking(truth == 1, probability)

    def weighed(weights: Array) -> Array:
        precision, events = ranking.precision_and_events(weights)
        # as with the ROC curve: without non-events there is nothing to tell events from; their own
        # sum is exactly 0 then, while that of events may differ from that of all by rounding
        return np.where((1 - truth) @ weights > 0, ratio(precision, events), np.nan)

    return weighed


@metric()
def prevalence(truth: Labels, _: Array) -> Weighed:
    """Share of events, which is the average precision of a model without any skill."""
    return mean_of(truth)


@metric()
def brier(truth: Labels, probability: Array) -> Weighed:
    """Brier score: mean squared difference of probability and event, 0 to 1."""
    return mean_of((probability - truth) ** 2)


@metric(undefined="only one class in the truth")
def scaled_brier(truth: Labels, probability: Array) -> Weighed:
    """1 less the Brier score as a share of that of the prevalence given to all.

    1 is perfect, 0 no better than the prevalence (Steyerberg et al. 2010, Epidemiology 21:128).
    """
    score, events, others = brier.prepare(truth, probability), mean_of(truth), mean_of(1 - truth)
    # each share by its own sum, which is exactly 0 where its class is absent
    return lambda weights: 1 - ratio(score(weights), events(weights) * others(weights))


def _decided(
    threshold: float,
    score: Callable[[Array, Array, Array, Array], Array],
    text: str,
    undefined: str = "no knee",
) -> Metric:
    """A score of true positives, false positives, events and non-events, each (draws,)."""

    def prepare(truth: Labels, probability: Array) -> Weighed:
        event, positive = truth == 1, probability >= threshold
        cells = np.stack([event & positive, ~event & positive, event, ~event]).astype(np.float64)
        return lambda weights: score(*(cells @ weights))

    prepare.__doc__ = text
    return Metric(prepare, undefined)


def sensitivity(threshold: float) -> Metric:
    """Share of events whose risk reaches the threshold."""
    return _decided(
        threshold,
        lambda hits, _, events, __: ratio(hits, events),
        f"Sensitivity at the risk {threshold:g}.",
        "no events in the truth",
    )


def specificity(threshold: float) -> Metric:
    """Share of non-events whose risk stays below the threshold."""
    return _decided(
        threshold,
        lambda _, alarms, __, others: 1 - ratio(alarms, others),
        f"Specificity at the risk {threshold:g}.",
        "no non-events in the truth",
    )


def net_benefit(threshold: float) -> Metric:
    """True positives less false positives at the odds of the threshold, a knee (Vickers 2006).

    Whoever treats above a risk t holds that t / (1 - t) false alarms are as bad as one missed event
    (Vickers and Elkin 2006, Med Decis Making 26:565).
    """
    odds = threshold / (1 - threshold)
    return _decided(
        threshold,
        lambda hits, alarms, events, others: ratio(hits - odds * alarms, events + others),
        f"Net benefit at the risk {threshold:g}.",
    )


def treat_all(threshold: float) -> Metric:
    """Net benefit of treating everybody; that of treating nobody is 0."""
    odds = threshold / (1 - threshold)
    return _decided(
        -np.inf,
        lambda hits, alarms, events, others: ratio(hits - odds * alarms, events + others),
        f"Net benefit of treating everybody at the risk {threshold:g}.",
    )


BINARY_METRICS: Mapping[str, Metric] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "accuracy": _decided(
        DECISION_THRESHOLD,
        lambda hits, alarms, events, others: ratio(hits + others - alarms, events + others),
        "Share of knees on the right side of 0.5.",
    ),
    "balanced_accuracy": _decided(
        DECISION_THRESHOLD,
        lambda hits, alarms, events, others: (1 + ratio(hits, events) - ratio(alarms, others)) / 2,
        "Mean of sensitivity and specificity at 0.5.",
        "only one class in the truth",
    ),
    "precision": _decided(
        DECISION_THRESHOLD,
        lambda hits, alarms, _, __: ratio(hits, hits + alarms),
        "Share of events among risks of 0.5 and more.",
        "no probability reaches the threshold 0.5",
    ),
    "recall": sensitivity(DECISION_THRESHOLD),
    "f1": _decided(
        DECISION_THRESHOLD,
        lambda hits, alarms, events, _: ratio(2 * hits, hits + alarms + events),
        "Harmonic mean of precision and recall at 0.5.",
        "no events, and no probability reaches the threshold 0.5",
    ),
}
"""Of events (n,) coded 0 and 1 and probabilities (n,). Decisions use the threshold 0.5."""


def decision_curves(
    truth: Labels, risks: Mapping[str, Array], *, shares: Array | None = None
) -> dict[str, Any]:
    """Net benefit of each model, of treating all and of treating none, over ``CURVE_THRESHOLDS``.

    Args:
        truth: Events coded 0 and 1, (n,); at least one row.
        risks: Name of each model to its risks, (n,).
        shares: How much each row counts, (n,); None for all the same.

    Returns:
        ``thresholds``, ``models`` by name, ``treat_all`` and ``treat_none``.
    """

    def curve(metric_at: Callable[[float], Metric], risk: Array) -> list[float]:
        return [round(metric_at(t)(truth, risk, shares=shares), 6) for t in CURVE_THRESHOLDS]

    return {
        "thresholds": list(CURVE_THRESHOLDS),
        "models": {name: curve(net_benefit, risk) for name, risk in risks.items()},
        "treat_all": curve(treat_all, np.ones(len(truth))),
        "treat_none": [0.0] * len(CURVE_THRESHOLDS),
    }


def threshold_metrics(thresholds: tuple[float, ...]) -> dict[str, Metric]:
    """Sensitivity, specificity and net benefit at thresholds that were stated beforehand.

    Example:
        >>> list(threshold_metrics((0.2,)))
        ['sensitivity_at_0.2', 'specificity_at_0.2', 'net_benefit_at_0.2', 'treat_all_at_0.2']
    """
    found = {}
    for threshold in thresholds:
        found[f"sensitivity_at_{threshold:g}"] = sensitivity(threshold)
        found[f"specificity_at_{threshold:g}"] = specificity(threshold)
        found[f"net_benefit_at_{threshold:g}"] = net_benefit(threshold)
        found[f"treat_all_at_{threshold:g}"] = treat_all(threshold)
    return found
