"""All figures of a target, per knee, per person and per grade, and which of them a plan names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.analysis.prespecified import EXPLORATORY, Plan
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.analysis.targets import KL, Target
from kneeoa_mm.metrics import (
    OF_ONE_GRADE,
    auroc,
    auroc_within,
    binary_estimates,
    estimate,
    kl_estimates,
    of_one_grade,
    person_shares,
    resample,
)
from kneeoa_mm.records import KL_CLASSES

ESTIMANDS: Mapping[str, str] = {
    "per_knee": "Each knee counts the same: what is expected of a knee drawn from all knees "
    "(participant-average; Kahan et al. 2023, Int J Epidemiol 52:107).",
    "per_person": "Each person counts the same: what is expected of a knee of a person who was "
    "drawn first (cluster-average; Kahan et al. 2023, by the weights of Williamson et al. 2003, "
    "Biometrics 59:36). It is the same as per knee where all persons have as many knees.",
}
"""What the figures of each are of; all that is not called per person is per knee."""
WITHIN_FOLDS = (
    "AUROC and AUPRC count pairs of knees of one fold: each fold has a model of its own, and the "
    "scores of two need not agree on a level (Forman and Scholz 2010, SIGKDD Explor 12:49)."
)
POOLED = "AUROC and AUPRC count pairs of all knees; no knee names a fold."


def ranking_of(target: Target) -> str:
    """Which pairs of knees are ranked."""
    return POOLED if target.folds is None else WITHIN_FOLDS


Estimates = dict[str, dict[str, Any]]
"""Metric to its estimate as JSON."""


def estimates_of(
    target: Target,
    weights: NDArray[np.uint16],
    *,
    thresholds: tuple[float, ...],
    per_person: bool = False,
) -> Estimates:
    """All metrics of a target, with person-clustered intervals.

    Args:
        target: What is judged.
        weights: Draws of persons, of ``target.draws``.
        thresholds: Risks at which decisions on an outcome are judged.
        per_person: Let each person count the same, instead of each knee.
    """
    shares = person_shares(target.persons) if per_person else None
    if target.name == KL:
        found = kl_estimates(
            target.truth,
            target.predicted,
            target.probability,
            target.sets,
            weights,
            shares=shares,
            blocks=target.folds,
        )
    else:
        found = binary_estimates(
            target.truth,
            target.probability,
            weights,
            thresholds=thresholds,
            shares=shares,
            blocks=target.folds,
        )
    return {name: as_json(each) for name, each in found.items()}


def beside_the_grade(
    target: Target,
    grades: NDArray[np.float64],
    weights: NDArray[np.uint16],
    *,
    per_person: bool = False,
) -> Estimates:
    """How an outcome is ranked by the read grade alone, and how much better by the model.

    The image that a model sees is the one that the grade was read from, so that its figure means
    little without this one. Both are of the knees with a grade.

    Args:
        target: An outcome.
        grades: Read grade of each knee, NaN where there is none, (n,).
        weights: As in ``estimates_of``.
        per_person: As in ``estimates_of``.

    Returns:
        ``auroc_of_kl_grade`` and ``auroc_above_kl_grade``; empty where no knee has a grade.
    """
    known = ~np.isnan(grades)
    if not known.any():
        return {}
    judged = target.subset(known)
    shares = person_shares(judged.persons) if per_person else None
    area = auroc if judged.folds is None else auroc_within(judged.folds)
    model, grade = (
        resample(area, judged.truth, score, weights[known], shares=shares)
        for score in (judged.probability, grades[known])
    )
    found = {"auroc_of_kl_grade": grade, "auroc_above_kl_grade": model - grade}
    return {name: as_json(each.estimate()) for name, each in found.items()}


def per_grade(target: Target, weights: NDArray[np.uint16]) -> dict[str, Estimates]:
    """Precision, recall and F1 of each grade against the rest, by metric and grade."""
    return {
        name: {
            grade: as_json(
                estimate(of_one_grade(name, int(grade)), target.truth, target.predicted, weights)
            )
            for grade in KL_CLASSES
        }
        for name in OF_ONE_GRADE
    }


def places_of(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each figure of an evaluation with its place, such as ``jsl_48m.auroc``.

    Args:
        document: ``metrics.json``, or what is there of it. A factor of subgroups is one figure.
    """
    for target in document["counts"]:
        groups = {
            target: document[target],
            f"per_person.{target}": document["per_person"][target],
            f"subgroups.{target}": document["subgroups"][target],
        }
        for prefix, figures in groups.items():
            yield from ((f"{prefix}.{name}", figure) for name, figure in figures.items())
    for metric, grades in document["per_grade"].items():
        yield from ((f"per_grade.{metric}.{grade}", each) for grade, each in grades.items())


def has_value(figure: Mapping[str, Any]) -> bool:
    """Whether an estimate has a value, or a factor of subgroups has levels."""
    return bool(figure["levels"]) if "levels" in figure else figure["value"] is not None


def named_by(plan: Plan) -> list[str]:
    """Places of the figures of an evaluation that a plan names."""
    prefix = f"{plan.estimand}." if plan.estimand != "per_knee" else ""
    return [
        *(f"{prefix}{plan.target}.{metric}" for metric in plan.metrics),
        *(f"subgroups.{plan.target}.{factor}" for factor in plan.subgroups),
    ]


def mark_exploratory(document: Mapping[str, Any], plan: Plan) -> None:
    """Mark, in place, each figure that the plan does not name."""
    named = set(named_by(plan))
    for place, figure in places_of(document):
        if place not in named:
            figure[EXPLORATORY] = True
