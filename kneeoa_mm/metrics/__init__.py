"""Metrics of graders and of binary risks, with person-clustered intervals and comparisons.

A metric that a sample does not define (one class only, say) has no value but a reason.
"""

from kneeoa_mm.metrics.calibration import (
    calibration_in_the_large,
    calibration_slope,
    recalibrated,
)
from kneeoa_mm.metrics.delong import Aurocs, clustered_aurocs
from kneeoa_mm.metrics.grades import (
    GRADE_METRICS,
    GRADE_PROBABILITY_METRICS,
    SET_METRICS,
    accuracy,
    auroc_kl2,
    coverage,
    ece,
    kl_brier,
    mae,
    qwk,
    set_size,
)
from kneeoa_mm.metrics.intervals import (
    CI_PERCENTILES,
    Resampled,
    binary_estimates,
    bootstrap_rows,
    bootstrap_weights,
    estimate,
    kl_estimates,
    persons_of,
    resample,
)
from kneeoa_mm.metrics.metric import Metric, UndefinedMetricError
from kneeoa_mm.metrics.risks import (
    BINARY_METRICS,
    CURVE_THRESHOLDS,
    DECISION_THRESHOLD,
    auprc,
    auroc,
    brier,
    net_benefit,
    prevalence,
    scaled_brier,
    sensitivity,
    specificity,
    threshold_metrics,
    treat_all,
)
from kneeoa_mm.metrics.within import auprc_within, auroc_within, mean_roc, prevalence_within

__all__ = [
    "BINARY_METRICS",
    "CI_PERCENTILES",
    "CURVE_THRESHOLDS",
    "DECISION_THRESHOLD",
    "GRADE_METRICS",
    "GRADE_PROBABILITY_METRICS",
    "SET_METRICS",
    "Aurocs",
    "Metric",
    "Resampled",
    "UndefinedMetricError",
    "accuracy",
    "auprc",
    "auprc_within",
    "auroc",
    "auroc_kl2",
    "auroc_within",
    "binary_estimates",
    "bootstrap_rows",
    "bootstrap_weights",
    "brier",
    "calibration_in_the_large",
    "calibration_slope",
    "clustered_aurocs",
    "coverage",
    "ece",
    "estimate",
    "kl_brier",
    "kl_estimates",
    "mae",
    "mean_roc",
    "net_benefit",
    "persons_of",
    "prevalence",
    "prevalence_within",
    "qwk",
    "recalibrated",
    "resample",
    "scaled_brier",
    "sensitivity",
    "set_size",
    "specificity",
    "threshold_metrics",
    "treat_all",
]
