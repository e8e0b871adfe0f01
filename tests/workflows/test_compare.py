"""Comparison of models: the same knees, the same folds, the same draws for all of them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from kneeoa_mm import tables
from kneeoa_mm.errors import InputError
from kneeoa_mm.records import Outcome
from kneeoa_mm.workflows.compare import compare, parse_runs

N_PERSONS = 300


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two knees a person; age shifts the risk by one standard deviation, the image by two."""
    folder = tmp_path_factory.mktemp("compare")
    generator = np.random.default_rng(0)
    events = np.repeat(generator.integers(0, 2, N_PERSONS), 2)
    n = len(events)
    subjects = np.repeat([str(i) for i in range(N_PERSONS)], 2)
    frame = pd.DataFrame(
        {
            "subject_id": subjects,
            "laterality": ["L", "R"] * N_PERSONS,
            "months": 0,
            "jsl_48m": events,
            "age_years": 60 + 5 * (events + generator.normal(size=n)),
            "kl_grade": generator.integers(0, 4, n),
        }
    )
    frame["knee_id"] = [
        f"t:{s}:0:{side}" for s, side in zip(subjects, frame["laterality"], strict=True)
    ]
    others = {"sex": "F", "bmi_kg_m2": 27.0, "race": "1", "knee_injury": 0, "fta_deg": 4.0}
    required = [c for c, rule in tables.COHORT.rules.columns.items() if rule.required]
    blank = {c: None for c in required if c not in frame and c not in others}
    cohort = frame.assign(**others, **blank)
    tables.write_table(cohort, tables.COHORT, folder / "cohort" / "cohort.parquet")
    ids = sorted(set(subjects))
    folds = pd.DataFrame({"subject_id": ids, "fold": np.arange(len(ids)) % 5})
    tables.write_table(folds, tables.FOLDS, folder / "cohort" / "folds.parquet")

    def write_run(name, risk, rows=slice(None)):
        predictions = frame[["knee_id", "subject_id", "laterality", "jsl_48m"]].assign(
            status="ok",
            seen_in_training=False,
            kl_grade_pred=0,
            jsl_48m_prob=risk,
            **{f"kl_prob_{grade}": 0.2 for grade in range(5)},
        )
        path = folder / name / "predictions.parquet"
        tables.write_table(predictions.iloc[rows], tables.PREDICTIONS, path)
        return folder / name

    strong = norm.cdf(2 * events - 1 + generator.normal(size=n))
    return {
        "cohort": folder / "cohort",
        "strong": write_run("strong", strong),
        "twin": write_run("twin", strong),
        "half": write_run("half", strong, slice(0, 100)),
        "other": write_run("other", strong, slice(0, 0)),
    }


def run(study, tmp_path, **runs):
    paths = {name: study[folder] for name, folder in runs.items()}
    out = tmp_path / "out"
    compare(paths, study["cohort"], out, outcome=Outcome.JSL_48M, n_boot=100)
    return json.loads((out / "compare.json").read_text())


def test_aurocs_are_those_of_the_stated_distributions(study, tmp_path):
    models = run(study, tmp_path, fused="strong")["models"]
    for name, shift in (("fused", 2), ("clinical", 1), ("kl_grade", 0)):
        auroc = models[name]["auroc"]
        theory = norm.cdf(shift / np.sqrt(2))
        assert auroc["value"] == pytest.approx(theory, abs=0.06), name
        assert auroc["ci_low"] < auroc["value"] < auroc["ci_high"]


def test_two_equal_models_do_not_differ_at_all(study, tmp_path):
    document = run(study, tmp_path, fused="strong", image="twin")
    difference = document["differences"]["fused-image"]["auroc"]
    assert difference["value"] == difference["ci_low"] == difference["ci_high"] == 0


def test_a_better_model_differs_by_the_difference_of_its_values(study, tmp_path):
    document = run(study, tmp_path, fused="strong")
    models = document["models"]
    difference = document["differences"]["fused-clinical"]["auroc"]
    expected = models["fused"]["auroc"]["value"] - models["clinical"]["auroc"]["value"]
    assert difference["value"] == pytest.approx(expected)
    assert difference["ci_low"] > 0


def test_only_knees_that_all_runs_predict_are_compared(study, tmp_path):
    assert run(study, tmp_path, fused="strong", image="half")["n"] == 100


def test_runs_without_a_knee_in_common_are_refused(study, tmp_path):
    with pytest.raises(InputError, match="in common"):
        run(study, tmp_path, fused="strong", image="other")


@pytest.mark.parametrize("texts", [["runs/a"], ["a="], ["=b"], ["a=b", "a=c"], ["clinical=b"]])
def test_runs_that_are_not_named_once_each_are_refused(texts):
    with pytest.raises(InputError, match="NAME=RUN"):
        parse_runs(texts)
