"""Refusal of factors from after baseline, and the arithmetic of the attrition table."""

from __future__ import annotations

import pandas as pd
import pytest

from kneeoa_mm.cohort.audit import Attrition, late_factors, refuse_late_factors
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec
from kneeoa_mm.errors import LeakError


def _spec(file: str, column: str) -> CohortSpec:
    return CohortSpec.model_validate(
        {
            "name": "tiny",
            "visits": {"V00": 0, "V06": 48},
            "tables": {
                "enrollees": {"file": file, "columns": {"subject_id": "ID", "bmi_kg_m2": column}}
            },
        }
    )


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("AllClinical00.txt", "V06BMI"),
        ("AllClinical00.txt", "v06bmi"),
        ("AllClinical06.txt", "BMI"),
        ("AllClinical{visit}.txt", "V{visit}BMI"),
        ("Outcomes99.txt", "V99BMI"),
    ],
)
def test_a_factor_measured_after_baseline_is_refused(file: str, column: str) -> None:
    with pytest.raises(LeakError, match="bmi_kg_m2"):
        refuse_late_factors(_spec(file, column))


@pytest.mark.parametrize(
    ("file", "column"),
    [("AllClinical00.txt", "P01BMI"), ("AllClinical00.txt", "V00BMI"), ("survey2006.csv", "BMI")],
)
def test_a_factor_measured_at_baseline_passes(file: str, column: str) -> None:
    assert late_factors(_spec(file, column)) == []


@pytest.mark.parametrize("name", ["oai", "synthetic"])
def test_the_shipped_cohorts_pass(name: str) -> None:
    assert late_factors(read_cohort_spec(name)) == []


def test_every_knee_is_counted_once_though_two_steps_would_remove_it() -> None:
    knees = pd.DataFrame({"subject_id": ["a", "a", "b", "c"]})
    attrition = Attrition()
    left = attrition.select(
        knees,
        [
            ("first", pd.Series([True, False, False, False])),
            ("second", pd.Series([True, True, False, True])),
        ],
        name="left over",
    )
    assert left["subject_id"].tolist() == ["b"]
    assert attrition.table().values.tolist() == [
        ["cohort", "start", "enrolled", 4, 3],
        ["cohort", "removed", "first", 1, 1],
        ["cohort", "removed", "second", 2, 2],
        ["cohort", "left", "left over", 1, 1],
    ]
