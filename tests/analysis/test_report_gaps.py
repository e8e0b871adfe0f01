"""Runs in which little can be computed still end in a report that says what, and why."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from report_runs import EVIL, Page

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.report import report
from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.schemas import COHORT, PREDICTIONS
from kneeoa_mm.tables import write_table


def told(*runs, out) -> str:
    report(list(runs), out)
    return Page(out).text


def test_predictions_without_truth_say_that_nothing_can_be_judged(make_predictions, tmp_path):
    table = make_predictions(5).assign(
        kl_grade=pd.array([pd.NA] * 10, dtype="Int64"),
        jsl_48m=pd.array([pd.NA] * 10, dtype="Int64"),
    )
    path = write_table(table, PREDICTIONS, tmp_path / "predictions.csv")
    text = told(path, out=tmp_path / "r.html")
    assert "10 knees of 5 persons, of which 10 were graded" in text
    assert "nothing here says how good the predictions are" in text


def test_predictions_of_which_none_succeeded_have_a_section(make_predictions, tmp_path):
    table = make_predictions(2).assign(status="unreadable", kl_grade_pred=pd.NA)
    table = table.astype({"kl_grade_pred": "Int64"})
    for name in [n for n in table if n.endswith("_prob") or "_prob_" in n]:
        table[name] = np.nan
    path = write_table(table, PREDICTIONS, tmp_path / "predictions.parquet")
    text = told(path, out=tmp_path / "r.html")
    assert "of which 0 were graded" in text
    assert "No knee was graded" in text


def test_one_class_leaves_ranks_undefined_with_their_reason(make_predictions, tmp_path):
    table = make_predictions(20).assign(jsl_48m=0, kl_grade=2)
    table = table.astype({"jsl_48m": "Int64", "kl_grade": "Int64"})
    path = write_table(table, PREDICTIONS, tmp_path / "predictions.parquet")
    evaluate(path, tmp_path / "evaluation", n_boot=20)
    text = told(tmp_path / "evaluation", out=tmp_path / "r.html")
    reason = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["jsl_48m"]["auroc"]
    assert reason["value"] is None
    assert text.count(reason["reason"]) >= 2, "in the table, and in the note above it"
    assert "some metrics cannot be computed" in text


def test_one_person_has_values_but_no_interval(make_predictions, tmp_path):
    path = write_table(make_predictions(1), PREDICTIONS, tmp_path / "predictions.parquet")
    evaluate(path, tmp_path / "evaluation", n_boot=20)
    text = told(tmp_path / "evaluation", out=tmp_path / "r.html")
    assert "all knees are of one person" in text


def test_a_cohort_of_one_person_has_a_section(make_cohort, tmp_path):
    write_table(make_cohort(1), COHORT, tmp_path / "cohort.parquet")
    text = told(tmp_path, out=tmp_path / "r.html")
    assert "2 knees of 1 person" in text
    assert "no interval, test or spread" in text


def test_a_subgroup_of_three_is_shown_and_warned_of(make_predictions, make_cohort, tmp_path):
    cohort = make_cohort(60)
    few = cohort["subject_id"].isin(cohort["subject_id"].unique()[:3])
    cohort["sex"] = np.where(few, "M", "F")
    write_table(cohort, COHORT, tmp_path / "cohort" / "cohort.parquet")
    path = write_table(make_predictions(60), PREDICTIONS, tmp_path / "predictions.parquet")
    evaluate(path, tmp_path / "evaluation", cohort=tmp_path / "cohort", n_boot=20)
    text = told(tmp_path / "evaluation", out=tmp_path / "r.html")
    assert "Sex: M" in text
    assert "fewer than 10 persons in" in text
    assert "do subgroups differ?" in text


def test_a_survival_that_can_fit_nothing_says_why(make_cohort, tmp_path):
    cohort = make_cohort(4)
    write_table(cohort, COHORT, tmp_path / "cohort.parquet")
    survive(tmp_path, tmp_path / "survival", outcome="jsl_48m", n_boot=10)
    text = told(tmp_path / "survival", out=tmp_path / "r.html")
    document = json.loads((tmp_path / "survival" / "survival.json").read_text())
    assert document["prognosis"]["reason"]
    assert f"Prognosis could not be judged: {document['prognosis']['reason']}" in text


def test_a_survival_of_months_has_no_table_by_year_and_still_its_methods(make_cohort, tmp_path):
    cohort = make_cohort()
    happened = cohort["jsl_48m_event_observed"] == 1
    cohort["jsl_48m_lower_months"] = np.where(happened, 0.0, 6.0)
    cohort["jsl_48m_upper_months"] = np.where(happened, 6.0, np.nan)
    write_table(cohort, COHORT, tmp_path / "cohort.parquet")
    survive(tmp_path, tmp_path / "survival", outcome="jsl_48m", n_boot=0)
    text = told(tmp_path / "survival", out=tmp_path / "r.html")
    assert "by 0 months" not in text
    assert "no incidence is tabled" in text
    assert "was described by Kaplan-Meier and Turnbull estimates by KL grade" in text


@pytest.mark.parametrize("kind", ["history.csv", "members"])
def test_a_training_run_without_a_finished_member_has_a_section(tmp_path, kind):
    (tmp_path / "members").mkdir()
    (tmp_path / "history.csv").write_text("" if kind == "members" else "member,epoch\n")
    assert "no finished member" in told(tmp_path, out=tmp_path / "r.html")


def test_a_comparison_in_which_no_rank_is_defined_says_so(tmp_path):
    undefined = {"value": None, "ci_low": None, "ci_high": None, "n": 3, "reason": "no events"}
    document = {
        "outcome": "jsl_48m",
        "n": 3,
        "events": 0,
        "models": {"image": {"auroc": undefined}},
        "differences": {"image-kl_grade": {"auroc": undefined}},
    }
    (tmp_path / "compare.json").write_text(json.dumps(document))
    text = told(tmp_path, out=tmp_path / "r.html")
    assert "No AUROC could be computed" in text
    assert "no events" in text


def test_an_external_validation_and_a_plan_are_shown(make_predictions, tmp_path):
    path = write_table(make_predictions(20), PREDICTIONS, tmp_path / "predictions.parquet")
    evaluate(path, tmp_path / "evaluation", n_boot=10)
    file = tmp_path / "evaluation" / "metrics.json"
    document = json.loads(file.read_text())
    estimate = {"value": 0.6, "ci_low": 0.5, "ci_high": 0.7, "n": 40}
    mix = {"knees": 40, "persons": 20, "knees_by_truth": {"0": 30, "1": 10}, "score": "risk"}
    document["external"] = {
        "developed_on": {
            "run": EVIL,
            "persons": None,
            "cohorts": None,
            "persons_in_training_of_a_member": [240, 242],
            "weights_sha256": {"m": "ab12"},
        },
        "judged_on": {"cohorts": {"most": 40}, "persons": 20},
        "overlap": {"persons": 0, "how": "by subject_id"},
        "targets": {
            "jsl_48m": {
                "case_mix": {"development": None, "validation": mix},
                "membership_auroc": None,
                "performance": {
                    "development": None,
                    "validation": {"auroc": estimate},
                    "difference": None,
                },
                "recalibration": {
                    "intercept": estimate,
                    "before": {"brier": estimate},
                    "after": {"brier": estimate},
                },
            }
        },
    }
    document["prespecified"] = {
        "file": EVIL,
        "sha256": "feed" * 16,
        "confirmatory": ["jsl_48m.auroc"],
        "exploratory": 41,
        "missing": [{"what": "jsl_48m.qwk", "reason": "not computed"}],
    }
    document["looks"] = {"count": 3, "held_out": "split test", "log": "a.looks.jsonl"}
    document["jsl_48m"]["brier"]["exploratory"] = True
    file.write_text(json.dumps(document))
    text = told(tmp_path / "evaluation", out=tmp_path / "r.html")
    assert "240 to 242 persons a member" in text
    assert "most (40 knees), 20 persons" in text
    assert "calibration before and after the intercept was learnt anew" in text
    assert "Named beforehand, and not there." in text
    assert "feed" * 16 in text
    assert "Look 3 at these held-out knees" in text
    assert "Brier score *" in text
    assert "* Not named by the pre-specification: exploratory." in text


def test_an_outcome_is_shown_beside_the_grade_alone_and_as_complete_cases(
    make_predictions, tmp_path
):
    table = make_predictions(20)
    table.loc[:2, "jsl_48m"] = pd.NA
    path = write_table(table, PREDICTIONS, tmp_path / "predictions.parquet")
    evaluate(path, tmp_path / "evaluation", n_boot=20)
    text = told(tmp_path / "evaluation", out=tmp_path / "r.html")
    found = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["jsl_48m"]
    alone = f"{found['auroc_of_kl_grade']['value']:.2f}"
    assert f"Joint-space loss: AUROC of KL grade alone {alone}" in text, "among the headlines"
    assert "complete cases, 3 knees without the outcome left out" in text, "in the methods"
