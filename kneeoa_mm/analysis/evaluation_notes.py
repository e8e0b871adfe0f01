"""What a person must know of an evaluation, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kneeoa_mm.analysis import looks, prespecified
from kneeoa_mm.analysis.targets import KL, Target
from kneeoa_mm.records import UNKNOWN, PredictionStatus


def notes_of(
    document: Mapping[str, Any], targets: Sequence[Target], table: pd.DataFrame
) -> list[str]:
    """Sentences on what was judged, what was left out, and what was decided beforehand.

    Args:
        document: What will be ``metrics.json``.
        targets: What was judged.
        table: All predictions, judged or not, with what the cohort knows of their knees.
    """
    notes = _of_source(document["provenance"].get("source_provenance", {}))
    notes += _of_knees(document["left_out"], targets)
    for target in targets:
        if target.name != KL:
            notes += _of_lost_knees(target, document["left_out"]["no_truth"][target.name], table)
            notes += _of_grade(target, document[target.name])
    if (table["subject_id"] == UNKNOWN).any():
        notes.append(
            "Some subjects are unknown: each of their knees counts as a person, so intervals may "
            "be too narrow, and whether the model has seen them cannot be told."
        )
    notes += _of_subgroups(document["subgroups"])
    if external := document["external"]:
        notes.append(
            f"External validation of the run {external['developed_on']['run']}: it was made from "
            f"{_in_words(external['developed_on']['cohorts'])}, and is judged on "
            f"{_in_words(external['judged_on']['cohorts'])}. {external['overlap']['how']}"
        )
    return (
        notes + prespecified.notes_of(document["prespecified"]) + looks.notes_of(document["looks"])
    )


def _of_source(source: Mapping[str, Any]) -> list[str]:
    notes = []
    if part := source.get("part"):
        notes.append(f"The predictions are of this part of the data: {part}.")
    if taught := source.get("calibration"):
        notes.append(f"Temperature and sets of grades were calibrated: {taught}.")
    if source.get("seen_unknown"):
        notes.append(
            "The model learnt from images of unknown subjects: whether it has seen these persons "
            "cannot be told."
        )
    return notes


def _of_knees(left_out: Mapping[str, Any], targets: Sequence[Target]) -> list[str]:
    notes = []
    if left_out["seen_in_training"]:
        notes.append(
            f"{left_out['seen_in_training']} knees were left out: the model has seen their persons."
        )
    if left_out["not_ok"]:
        failed = ", ".join(f"{n} {status}" for status, n in left_out["not_ok"].items())
        notes.append(f"Knees without a prediction were left out: {failed}.")
    for target in targets:
        if target.name == KL and (number := left_out["no_truth"][KL]):
            notes.append(f"{KL}: {number} knees have no truth.")
        if number := left_out["no_prediction"][target.name]:
            notes.append(f"{target.name}: {number} knees have a truth but no probability.")
        if len(target.truth) and len(np.unique(target.truth)) < 2:
            notes.append(f"{target.name}: one class only, so there is no ROC curve.")
    return notes


def _of_lost_knees(target: Target, lost: int, table: pd.DataFrame) -> list[str]:
    """That knees without the outcome are left out, and where they are stood for."""
    if not lost:
        return []
    why = ""
    if (column := f"{target.name}_reason") in table:
        is_judgeable = table["status"].eq(PredictionStatus.OK) & ~table["seen_in_training"]
        of_lost = table.loc[is_judgeable & table[target.name].isna(), column].fillna("unknown")
        why = (
            " (" + ", ".join(f"{n} {reason}" for reason, n in of_lost.value_counts().items()) + ")"
        )
    weights = f"{target.name}_weight"
    is_weighted = weights in table and table[weights].nunique() > 1
    there = f"the cohort's weights ({weights})" if is_weighted else "the cohort's weights, if any,"
    return [
        f"{target.name}: complete cases. The {len(target.truth)} knees with the outcome each stand "
        f"for themselves alone, and {lost} have none{why}. Where knees were lost, {there} are what "
        "lets the others stand for them: `compare` counts knees by them."
    ]


def _of_grade(target: Target, figures: Mapping[str, Any]) -> list[str]:
    if "auroc_of_kl_grade" in figures or not len(target.truth):
        return []
    return [
        f"{target.name}: no knee has a read grade in the predictions or the cohort, so nothing "
        "here says whether the model ranks knees better than that grade alone."
    ]


def _of_subgroups(subgroups: Mapping[str, Any]) -> list[str]:
    tests = sum(
        test["p_value"] is not None
        for factors in subgroups.values()
        for factor in factors.values()
        for test in factor["heterogeneity"].values()
    )
    if not tests:
        return []
    return [
        f"{tests} tests of subgroups: by chance alone about one in twenty has a P below 0.05. That "
        "of the first metric is also given adjusted for the number of factors (Holm 1979); the "
        "others are not adjusted."
    ]


def _in_words(cohorts: Mapping[str, int] | None) -> str:
    if cohorts is None:
        return "people whose predictions its folder does not hold"
    return ", ".join(f"{n:,} knees of {name}" for name, n in cohorts.items())
