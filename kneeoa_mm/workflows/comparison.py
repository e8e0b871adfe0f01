"""The statistics of a comparison: every model on the same knees, folds and draws of persons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.analysis.figures import Scored, reliability_bins
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.metrics import (
    Metric,
    Resampled,
    UndefinedMetricError,
    auprc_within,
    auroc_within,
    brier,
    calibration_in_the_large,
    calibration_slope,
    clustered_aurocs,
    decision_curves,
    prevalence_within,
    resample,
    scaled_brier,
    threshold_metrics,
)

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

FUSED, KL_ONLY = "fused", "kl_grade"
MIDDLE_GRADES = (1, 2, 3)
"""Where a grade says least of what comes, and an image has something to add."""
NO_GRADE = -1
DIFFERENCES = ("auroc", "auprc", "brier", "auroc_kl_1_to_3", "auroc_within_kl_1_to_3")


@dataclass(frozen=True)
class Contest:
    """What all models are judged on.

    Attributes:
        events: Outcome coded 0 and 1, (n,).
        persons: What draws and variances cluster on, (n,).
        folds: Fold of each row, (n,).
        grades: KL grade, ``NO_GRADE`` where it was not read, (n,).
        risks: Name of each model to its out-of-fold risks, (n,).
        levels: The same after recalibration, for models whose training moved the level of risks.
        weights: Of ``bootstrap_weights``, (n, draws).
        thresholds: Risks at which decisions are judged, stated beforehand.
        sampled_on_outcome: The share of events is the sampler's, so that ranking alone is judged.
    """

    events: Codes
    persons: NDArray[Any]
    folds: Codes
    grades: Codes
    risks: Mapping[str, Array]
    levels: Mapping[str, Array]
    weights: NDArray[np.uint16]
    thresholds: tuple[float, ...]
    sampled_on_outcome: bool = False

    def blocks(self) -> dict[str, Codes]:
        """Ranking metric to the block of each row, ``-1`` where a row takes no part.

        Only rows of one block are held against each other: those of one fold, and in
        ``..._within_...`` also of one grade.
        """
        fold, grade = self.folds, self.grades
        known, middle = grade != NO_GRADE, np.isin(grade, MIDDLE_GRADES)
        stratum = fold * 10 + grade
        found = {
            "auroc": fold,
            "auroc_kl_1_to_3": np.where(middle, fold, -1),
            "auroc_within_kl": np.where(known, stratum, -1),
            "auroc_within_kl_1_to_3": np.where(middle, stratum, -1),
        }
        for each in np.unique(grade[known]):
            found[f"auroc_kl_{each}"] = np.where(grade == each, fold, -1)
        return found

    def level_of(self, name: str) -> Array:
        """Risks of a model whose level counts."""
        return self.levels.get(name, self.risks[name])

    def decision_curves(self) -> dict[str, Any]:
        """Of ``metrics.decision_curves``, by risks whose level counts."""
        return decision_curves(self.events, {name: self.level_of(name) for name in self.risks})


def resampled(contest: Contest) -> dict[str, dict[str, Resampled]]:
    """Every metric of every model, of the sample and of each draw."""
    return {name: _of_model(contest, name) for name in contest.risks}


def _of_model(contest: Contest, name: str) -> dict[str, Resampled]:
    def judge(metric: Metric, risk: Array, blocks: Codes | None = None) -> Resampled:
        rows = slice(None) if blocks is None else blocks >= 0
        return resample(metric, contest.events[rows], risk[rows], contest.weights[rows])

    risk, level = contest.risks[name], contest.level_of(name)
    found = {
        metric: judge(auroc_within(blocks[blocks >= 0]), risk, blocks)
        for metric, blocks in contest.blocks().items()
    }
    if contest.sampled_on_outcome:
        return found
    found["auprc"] = judge(auprc_within(contest.folds), risk)
    found["auprc_baseline"] = judge(prevalence_within(contest.folds), risk)
    of_levels = {
        "brier": brier,
        "scaled_brier": scaled_brier,
        "calibration_in_the_large": calibration_in_the_large,
        "calibration_slope": calibration_slope,
        **threshold_metrics(contest.thresholds),
    }
    return found | {metric: judge(each, level) for metric, each in of_levels.items()}


def differences(
    contest: Contest,
    found: Mapping[str, Mapping[str, Resampled]],
    runs: Sequence[str],
    *,
    further: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Each model that uses an image against KL only, and fused against every other model.

    Args:
        contest: What was judged.
        found: Of ``resampled``.
        runs: Names of the models that are runs.
        further: More pairs; one of a model that is not there is left out.

    Returns:
        ``<first>-<second>`` to metric to estimate, with the clustered DeLong ``p_value`` of AUROCs.
    """
    of_images = [name for name in (*runs, "kl+grader") if name in found]
    pairs = [(name, KL_ONLY) for name in of_images]
    if FUSED in found:
        pairs += [(FUSED, name) for name in found if name not in (FUSED, KL_ONLY)]
    pairs += [pair for pair in further if set(pair) <= set(found)]
    p_values = {metric: _p_values(contest, metric) for metric in contest.blocks()}
    document: dict[str, Any] = {}
    for first, second in dict.fromkeys(pairs):
        lines = document.setdefault(f"{first}-{second}", {})
        for metric in (name for name in DIFFERENCES if name in found[first]):
            lines[metric] = as_json((found[first][metric] - found[second][metric]).estimate())
            if metric in p_values:
                lines[metric]["p_value"] = p_values[metric].get((first, second))
    return document


def _p_values(contest: Contest, metric: str) -> dict[tuple[str, str], float | None]:
    blocks = contest.blocks()[metric]
    rows = blocks >= 0
    names = list(contest.risks)
    scores = np.stack([contest.risks[name][rows] for name in names], axis=1)
    try:
        aurocs = clustered_aurocs(
            contest.events[rows], scores, contest.persons[rows], blocks=blocks[rows]
        )
    except UndefinedMetricError:
        return {}
    return {
        (first, second): aurocs.p_value(i, j)
        for i, first in enumerate(names)
        for j, second in enumerate(names)
        if i != j
    }


def calibration_curves(contest: Contest) -> dict[str, Any]:
    """Bins of each model's calibration curve: mean risk, observed share, its limits, knees."""
    return {
        name: {
            key: [round(float(value), 6) for value in values]
            for key, values in reliability_bins(
                Scored(contest.events, contest.level_of(name))
            ).items()
        }
        for name in contest.risks
    }


def as_given(contest: Contest, distorted_by: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Of recalibrated models: why, and their calibration before it."""
    return {
        name: {
            "because": list(reasons),
            **{
                metric: as_json(
                    resample(each, contest.events, contest.risks[name], contest.weights).estimate()
                )
                for metric, each in (
                    ("calibration_in_the_large", calibration_in_the_large),
                    ("calibration_slope", calibration_slope),
                )
            },
        }
        for name, reasons in distorted_by.items()
        if name in contest.levels
    }
