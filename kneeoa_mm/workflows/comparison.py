"""The statistics of a comparison: every model on the same knees, folds and draws of persons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.analysis.figures import Scored, reliability_bins
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.metrics import (
    Aurocs,
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
BESIDE_A_GRADER = ("kl+grader", "clinical+kl+grader")
"""Simple models that know an image by the grader's probabilities."""
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
        shares: How much each knee counts: one that was seen stands for those like it that were not,
            (n,); None where all count the same.
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
    shares: Array | None = None
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
        levels = {name: self.level_of(name) for name in self.risks}
        return decision_curves(self.events, levels, shares=self.shares)

    def judge(self, metric: Metric, risk: Array, blocks: Codes | None = None) -> Resampled:
        """A metric of some risks, of the sample and of each draw.

        Args:
            metric: What to compute.
            risk: Of each row, (n,).
            blocks: Of ``blocks``; rows without take no part. None for all rows.
        """
        rows = slice(None) if blocks is None else blocks >= 0
        return resample(
            metric,
            self.events[rows],
            risk[rows],
            self.weights[rows],
            shares=None if self.shares is None else self.shares[rows],
        )


def resampled(contest: Contest) -> dict[str, dict[str, Resampled]]:
    """Every metric of every model, of the sample and of each draw."""
    return {name: _of_model(contest, name) for name in contest.risks}


def _of_model(contest: Contest, name: str) -> dict[str, Resampled]:
    risk, level = contest.risks[name], contest.level_of(name)
    found = {
        metric: contest.judge(auroc_within(blocks[blocks >= 0]), risk, blocks)
        for metric, blocks in contest.blocks().items()
    }
    if contest.sampled_on_outcome:
        return found
    found["auprc"] = contest.judge(auprc_within(contest.folds), risk)
    found["auprc_baseline"] = contest.judge(prevalence_within(contest.folds), risk)
    of_levels = {
        "brier": brier,
        "scaled_brier": scaled_brier,
        "calibration_in_the_large": calibration_in_the_large,
        "calibration_slope": calibration_slope,
        **threshold_metrics(contest.thresholds),
    }
    return found | {metric: contest.judge(each, level) for metric, each in of_levels.items()}


def complete_cases(contest: Contest) -> dict[str, Any]:
    """How each model does where the seen stand for themselves alone: a sensitivity analysis."""
    alone = replace(contest, shares=None)
    judged: list[tuple[str, Metric, Callable[[str], Array]]] = [
        ("auroc", auroc_within(contest.folds), contest.risks.__getitem__),
        ("brier", brier, contest.level_of),
        ("calibration_in_the_large", calibration_in_the_large, contest.level_of),
    ]
    return {
        name: {
            metric: as_json(alone.judge(each, risk_of(name)).estimate())
            for metric, each, risk_of in judged
        }
        for name in contest.risks
    }


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
        ``<first>-<second>`` to metric to estimate: of AUROCs with the interval and ``p_value`` of
        the clustered DeLong test, of all others with the interval of the draws.
    """
    of_images = [name for name in (*runs, *BESIDE_A_GRADER) if name in found]
    pairs = [(name, KL_ONLY) for name in of_images]
    if FUSED in found:
        pairs += [(FUSED, name) for name in found if name not in (FUSED, KL_ONLY)]
    pairs += [pair for pair in further if set(pair) <= set(found)]
    tested = {metric: _clustered(contest, blocks) for metric, blocks in contest.blocks().items()}
    names = list(contest.risks)
    document: dict[str, Any] = {}
    for first, second in dict.fromkeys(pairs):
        lines = document.setdefault(f"{first}-{second}", {})
        for metric in (name for name in DIFFERENCES if name in found[first]):
            line = as_json((found[first][metric] - found[second][metric]).estimate())
            if aurocs := tested.get(metric):
                # of the test, not of the draws
                line.pop("reason", None)
                line |= _tested(aurocs, names.index(first), names.index(second))
            lines[metric] = line
    return document


def _clustered(contest: Contest, blocks: Codes) -> Aurocs | None:
    rows = blocks >= 0
    scores = np.stack([risk[rows] for risk in contest.risks.values()], axis=1)
    try:
        return clustered_aurocs(
            contest.events[rows],
            scores,
            contest.persons[rows],
            blocks=blocks[rows],
            shares=None if contest.shares is None else contest.shares[rows],
        )
    except UndefinedMetricError:
        return None


def _tested(aurocs: Aurocs, first: int, second: int) -> dict[str, Any]:
    """Interval and P of one test, so that neither says what the other denies."""
    apart = aurocs.difference(first, second)
    if apart.limits is None:
        why = "both rank alike, or all of one class are of one person"
        return {"ci_low": None, "ci_high": None, "p_value": None, "reason": why}
    low, high = apart.limits
    return {"ci_low": low, "ci_high": high, "p_value": apart.p_value}


def calibration_curves(contest: Contest) -> dict[str, Any]:
    """Bins of each model's calibration curve: mean risk, observed share, its limits, knees."""
    return {
        name: {
            key: [round(float(value), 6) for value in values]
            for key, values in reliability_bins(
                Scored(contest.events, contest.level_of(name)),
                persons=contest.persons,
                shares=contest.shares,
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
                metric: as_json(contest.judge(each, contest.risks[name]).estimate())
                for metric, each in (
                    ("calibration_in_the_large", calibration_in_the_large),
                    ("calibration_slope", calibration_slope),
                )
            },
        }
        for name, reasons in distorted_by.items()
        if name in contest.levels
    }
