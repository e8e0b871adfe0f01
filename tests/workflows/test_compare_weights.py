"""Knees that were seen stand for those that were lost, in every figure of a comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest
from known_runs import N_FOLDS, Study, image_risk, two_knees_a_person
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, roc_auc_score

from kneeoa_mm.records import Outcome
from kneeoa_mm.workflows.compare import compare

READ = "kl_input: read\n"


def compared(study, out, runs, **options):
    compare(runs, study.cohort, out, outcome=Outcome.JSL_48M, **{"n_boot": 200} | options)
    return json.loads((out / "compare.json").read_text())


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    """Weights that differ, and a run with and without the reading."""
    study = Study(tmp_path_factory.mktemp("study"), two_knees_a_person(150, seed=0))
    events = study.knees["jsl_48m"].to_numpy()
    study.knees["jsl_48m_weight"] = np.random.default_rng(1).uniform(0.5, 4, len(events))
    study.write_cohort()
    unread = {"jsl_48m_prob_without_reading": image_risk(events, seed=2, shift=0.5)}
    run = study.run("run", image_risk(events, seed=1, shift=1), columns=unread, config=READ)
    return study, events, compared(study, study.folder / "out", {"image": run})


def test_weights_enter_ranking_and_levels(weighted):
    """Oracle: scikit-learn with sample weights, folds averaged by the pairs they stand for."""
    study, events, document = weighted
    shares, fold = study.knees["jsl_48m_weight"].to_numpy(), study.knees["fold"].to_numpy()
    risk = image_risk(events, seed=1, shift=1)
    parts = [fold == k for k in range(N_FOLDS)]
    areas = [roc_auc_score(events[p], risk[p], sample_weight=shares[p]) for p in parts]
    pairs = [shares[p & (events == 1)].sum() * shares[p & (events == 0)].sum() for p in parts]
    found = document["models"]["image"]
    assert found["auroc"]["value"] == pytest.approx(np.average(areas, weights=pairs))
    brier = brier_score_loss(events, risk, sample_weight=shares)
    assert found["brier"]["value"] == pytest.approx(brier)
    complete = document["complete_cases"]["image"]
    assert complete["brier"]["value"] == pytest.approx(brier_score_loss(events, risk))
    plain = [roc_auc_score(events[p], risk[p]) for p in parts]
    counts = [(events[p] == 1).sum() * (events[p] == 0).sum() for p in parts]
    assert complete["auroc"]["value"] == pytest.approx(np.average(plain, weights=counts))


def test_a_run_with_the_reading_is_judged_without_it_too(weighted):
    document = weighted[2]
    assert document["inputs"]["image"] == "image, KL grade as read"
    assert document["inputs"]["image_without_reading"] == "image, no reading of either knee"
    with_it, without = (
        document["models"][name]["auroc"]["value"] for name in ("image", "image_without_reading")
    )
    assert without < with_it
    assert "image_without_reading-kl_grade" in document["differences"]


def test_intervals_and_p_of_areas_agree(weighted):
    for metrics in weighted[2]["differences"].values():
        apart = metrics["auroc"]
        assert (apart["ci_low"] <= 0 <= apart["ci_high"]) == (apart["p_value"] >= 0.05)


def test_true_risks_are_calibrated_though_knees_were_lost(tmp_path):
    """Simulation with the truth known: knees without an event drop out, most at low risk.

    An event is seen before the knee is lost, so that complete cases have too many of them.
    """
    study = Study(tmp_path, two_knees_a_person(3000, seed=0))
    generator = np.random.default_rng(0)
    n = len(study.knees)
    true = expit(-2 + generator.normal(size=n))
    events = (generator.random(n) < true).astype(float)
    stays = expit(1 + 0.5 * logit(true))
    seen = (events == 1) | (generator.random(n) < stays)
    study.knees["jsl_48m"] = events
    study.knees["jsl_48m_weight"] = np.where(events == 1, 1.0, 1 / stays)
    study.knees = study.knees[seen].reset_index(drop=True)
    study.write_cohort()
    document = compared(study, tmp_path / "out", {"image": study.run("run", true[seen])})
    found = document["models"]["image"]["calibration_in_the_large"]
    assert found["ci_low"] < 0 < found["ci_high"]
    assert document["complete_cases"]["image"]["calibration_in_the_large"]["ci_low"] > 0.2
    assert document["weighted_to"]["event_share"] == pytest.approx(true.mean(), abs=0.01)
    assert document["weighted_to"]["knees"] == pytest.approx(n, rel=0.05)
    # the grade tells nothing here, and the regression on it must find the share of all
    simple = document["models"]["kl_grade"]["calibration_in_the_large"]["value"]
    assert simple == pytest.approx(0, abs=0.02)


def test_knees_that_all_count_the_same_have_no_complete_cases_beside(tmp_path):
    study = Study(tmp_path, two_knees_a_person(60, seed=0))
    study.write_cohort()
    risk = image_risk(study.knees["jsl_48m"].to_numpy(), seed=1)
    document = compared(study, tmp_path / "out", {"image": study.run("run", risk)})
    assert document["complete_cases"] is None
    assert document["weighted_to"] is None


def test_clinical_factors_stand_beside_the_grade_they_are_added_to(tmp_path):
    study = Study(tmp_path, two_knees_a_person(150, seed=0))
    study.write_cohort()
    events = study.knees["jsl_48m"].to_numpy()
    run = study.run("run", image_risk(events, seed=1), factors=("age_years",))
    columns = {f"kl_prob_{grade}": np.full(len(events), 0.2) for grade in range(5)}
    grades = study.run("kl", image_risk(events, seed=1), columns=columns)
    document = compared(study, tmp_path / "out", {"fused": run}, grades=grades)
    assert document["inputs"]["clinical+kl"] == "KL grade as read, age_years"
    assert document["inputs"]["clinical+kl+grader"].endswith("log-probabilities, age_years")
    assert {"fused-clinical+kl", "fused-clinical+kl+grader"} <= set(document["differences"])
    # the grade tells nothing and the factor much: together they do as well as the factor
    both, alone = (document["models"][n]["auroc"]["value"] for n in ("clinical+kl", "clinical"))
    assert both == pytest.approx(alone, abs=0.03)
