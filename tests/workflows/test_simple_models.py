"""Missing clinical factors beside a comparison: drawn from training knees, risks averaged."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from kneeoa_mm.workflows.simple_models import simple_models

FACTORS = ["age_years", "bmi_kg_m2"]
N = 4_000
TOGETHER = 0.8


@pytest.fixture(scope="module")
def study():
    """Two factors of correlation 0.8, both of which decide the event; 30 % of one are not known."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal(N)
    second = TOGETHER * first + np.sqrt(1 - TOGETHER**2) * rng.standard_normal(N)
    events = (rng.random(N) < expit(first + second)).astype(int)
    knees = pd.DataFrame(
        {
            "age_years": 60 + 8 * first,
            "bmi_kg_m2": np.where(rng.random(N) < 0.3, np.nan, 28 + 4 * second),
            "kl_grade": pd.array(rng.integers(0, 5, N), dtype="Int64"),
            "mjsw_medial_mm": np.nan,
        }
    )
    return knees, events, np.arange(N) % 2


def clinical_risk(knees, events, folds):
    models = simple_models(knees, events, folds, factors=FACTORS, grader=None)
    return models["clinical"].risk


def test_without_a_factor_the_risk_is_what_the_other_one_leaves(study):
    """Oracle: the known risk, integrated over the known distribution of the factor that lacks."""
    knees = study[0]
    lacks = knees["bmi_kg_m2"].isna().to_numpy()
    first = (knees["age_years"].to_numpy() - 60) / 8
    left = np.sqrt(1 - TOGETHER**2) * np.random.default_rng(1).standard_normal(500)
    true = expit(first[lacks, None] * (1 + TOGETHER) + left).mean(axis=1)
    risk = clinical_risk(*study)[lacks]
    assert np.abs(risk - true).mean() < 0.03
    assert np.corrcoef(risk, true)[0, 1] > 0.99


def test_knees_held_out_teach_the_imputation_nothing(study):
    """What a knee of a fold weighs, and what became of it, changes no other risk of its fold."""
    knees, events, folds = study
    strange, turned = knees.copy(), events.copy()
    other = int(np.flatnonzero(knees["bmi_kg_m2"].notna())[0])
    strange.loc[other, "bmi_kg_m2"] = 60.0
    turned[other] = 1 - turned[other]
    same_fold = (folds == folds[other]) & (np.arange(N) != other)
    before, after = clinical_risk(*study), clinical_risk(strange, turned, folds)
    np.testing.assert_array_equal(before[same_fold], after[same_fold])
    assert np.abs(before - after)[folds != folds[other]].max() > 0, "elsewhere it is training"
