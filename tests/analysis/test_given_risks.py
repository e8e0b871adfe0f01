"""Risks that survival is given: their horizon, their folds, the looks at them, and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from sklearn.metrics import brier_score_loss, roc_auc_score

from kneeoa_mm.analysis import survival
from kneeoa_mm.analysis.agreement import agreement
from kneeoa_mm.analysis.report import report
from kneeoa_mm.analysis.report.runs import Run
from kneeoa_mm.analysis.report.survival import survival_section
from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.analysis.turnbull import interval_incidence
from kneeoa_mm.cohort_spec import OutcomesSpec
from kneeoa_mm.errors import InputError, OutputExistsError
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import write_table

VISITS = (12, 24, 36, 48)


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    monkeypatch.setattr(survival, "_draw", lambda *_: ())


@pytest.fixture
def cohort(make_cohort, tmp_path):
    """A folder of ``cohort`` that judges replacement at 96 months and all films at 48."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    write_table(make_cohort(), COHORT, folder / "cohort.parquet")
    outcomes = OutcomesSpec(tkr_horizon_months=84).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump({"cohort": {"outcomes": outcomes}}))
    return folder


@pytest.fixture
def risks(make_predictions):
    """Predictions of the knees of ``cohort``, with the risks of a model of times."""
    generator = np.random.default_rng(5)
    table = make_predictions(n_persons=120)
    rising = np.sort(generator.random((len(table), 4)), axis=1)
    by_visit = {f"jsl_48m_cif_{m}": rising[:, k] for k, m in enumerate(VISITS)}
    return table.assign(**by_visit, jsl_48m_prob=rising[:, 3], tkr_prob=rising[:, 0])


def _found(out):
    return json.loads((out / "survival.json").read_text())


def test_the_horizon_is_that_at_which_the_cohort_judges_the_outcome(cohort, tmp_path):
    survive(cohort, tmp_path / "out", outcome="tkr", n_boot=0)
    found = _found(tmp_path / "out")
    assert found["provenance"]["horizon_months"] == 84
    assert found["prognosis"]["horizon_months"] == 84
    section = survival_section(Run(tmp_path / "out", "out"))
    assert section.tables[0].caption == "Cumulative incidence by 84 months."


def test_risks_by_another_horizon_are_refused(cohort, risks, write_predictions, tmp_path):
    """The model's risk is by 84 months, as the cohort says; a risk by 48 it does not have."""
    path = write_predictions(risks)
    with pytest.raises(InputError, match="84"):
        survive(
            cohort,
            tmp_path / "out",
            outcome="tkr",
            predictions=path,
            horizon_months=48,
            n_boot=0,
        )
    with pytest.raises(InputError, match="12, 24, 36, 48"):
        survive(
            cohort,
            tmp_path / "out",
            outcome="jsl_48m",
            predictions=path,
            horizon_months=60,
            n_boot=0,
        )


def test_a_model_of_times_is_judged_by_its_risk_at_each_horizon(
    make_cohort, cohort, risks, write_predictions, tmp_path
):
    """Oracle: scikit-learn's Brier score at each visit and the trapezoidal rule, none censored."""
    table = make_cohort()
    free = table["jsl_48m_event_observed"] == 0
    table.loc[free, "jsl_48m_lower_months"] = 48.0
    write_table(table, COHORT, cohort / "cohort.parquet")
    path = write_predictions(risks)
    survive(cohort, tmp_path / "out", outcome="jsl_48m", predictions=path, n_boot=0)
    found = _found(tmp_path / "out")["prognosis"]
    happened = {m: (table["jsl_48m_upper_months"] <= m).to_numpy(int) for m in VISITS}
    scores = [brier_score_loss(happened[m], risks[f"jsl_48m_cif_{m}"]) for m in VISITS]
    model = found["models"]["predictions"]
    assert model["brier"]["value"] == pytest.approx(scores[-1])
    assert model["integrated_brier"]["value"] == pytest.approx(np.trapezoid(scores, VISITS) / 36)
    assert "integrated_brier" in found["differences"]["predictions-kl_grade"]
    earlier = tmp_path / "earlier"
    survive(cohort, earlier, outcome="jsl_48m", predictions=path, horizon_months=24, n_boot=0)
    at_24 = _found(earlier)["prognosis"]["models"]["predictions"]["auroc"]["value"]
    assert at_24 == pytest.approx(roc_auc_score(happened[24], risks["jsl_48m_cif_24"]))


def test_knees_are_ranked_within_folds_and_all_models_on_the_same_pairs(
    cohort, risks, write_predictions, tmp_path
):
    """A risk that only tells the fold ranks no knee: each pair of one fold is a tie, and 0.5."""
    fold = risks.groupby("subject_id").ngroup() % 4
    risks = risks.drop(columns=[name for name in risks if "cif" in name])
    folded = risks.assign(fold=fold.astype("Int64"), jsl_48m_prob=0.1 + 0.1 * fold)
    path = write_predictions(folded)
    survive(cohort, tmp_path / "out", outcome="jsl_48m", predictions=path, n_boot=0)
    found = _found(tmp_path / "out")["prognosis"]
    assert found["folds"] == 4
    assert found["models"]["predictions"]["uno_c"]["value"] == 0.5
    assert found["models"]["predictions"]["auroc"]["value"] == 0.5
    assert any("of one fold" in text for text in found["estimand"])
    # neither is a third of the risk made of a fold
    assert [row["knees"] for row in found["calibration"]] == [len(folded)]


def test_thirds_get_turnbulls_estimate_where_events_lie_between_visits(
    make_cohort, cohort, risks, write_predictions, tmp_path
):
    """Oracle: the estimate on the knees below the lower third of the risk."""
    table, path = make_cohort(), write_predictions(risks)
    survive(cohort, tmp_path / "out", outcome="jsl_48m", predictions=path, n_boot=0)
    found = _found(tmp_path / "out")["curves"]["turnbull_by_predicted_risk"]["lowest third"]
    low = table[(risks["jsl_48m_prob"].rank() <= len(risks) / 3).to_numpy()]
    low = low[low["jsl_48m_lower_months"].gt(0) | low["jsl_48m_event_observed"].eq(1)]
    upper = low["jsl_48m_upper_months"].fillna(np.inf).to_numpy()
    oracle = interval_incidence(
        low["jsl_48m_lower_months"].to_numpy(), upper, low["subject_id"].to_numpy(str), n_boot=0
    )
    assert found["incidence"] == pytest.approx(oracle.incidence.tolist(), abs=1e-6)
    survive(cohort, tmp_path / "days", outcome="tkr", n_boot=0)
    assert _found(tmp_path / "days")["curves"]["turnbull_by_predicted_risk"] == {}


def test_knees_that_the_model_saw_or_has_no_risk_of_by_a_horizon_are_left_out_and_told(
    cohort, risks, write_predictions, tmp_path
):
    """Such as a table that joins a model of times to one of a single horizon."""
    risks.loc[:4, "seen_in_training"] = True
    risks.loc[5:14, "jsl_48m_cif_24"] = np.nan
    path = write_predictions(risks)
    survive(cohort, tmp_path / "out", outcome="jsl_48m", predictions=path, n_boot=0)
    found = _found(tmp_path / "out")
    (note,) = [text for text in found["notes"] if "no prediction" in text]
    assert "15 knees have no prediction, or the model has seen their person" in note
    model = found["prognosis"]["models"]["predictions"]
    assert model["knees"] == len(risks) - 15
    assert all(model[name]["value"] is not None for name in ("auroc", "brier", "integrated_brier"))


def test_looks_of_survival_and_agreement_at_test_knees_are_logged(
    make_cohort, cohort, risks, write_predictions, tmp_path
):
    split = np.where(np.arange(len(risks)) % 4 == 0, "test", "train")
    path = write_predictions(risks.assign(split=split))
    survive(cohort, tmp_path / "out", outcome="jsl_48m", predictions=path, n_boot=0)
    first = risks["kl_grade"].astype(int)
    readings = risks[["knee_id", "subject_id"]].assign(kl_grade=first, second_kl_grade=first)
    readings.to_csv(tmp_path / "kl_second_readings.csv", index=False)
    agreement(tmp_path, tmp_path / "readers", predictions=path, n_boot=0)
    # who is refused has seen nothing
    with pytest.raises(OutputExistsError):
        survive(cohort, tmp_path / "out", outcome="jsl_48m", predictions=path, n_boot=0)
    with pytest.raises(OutputExistsError):
        agreement(tmp_path, tmp_path / "readers", predictions=path, n_boot=0)
    lines = (tmp_path / "predictions.looks.jsonl").read_text().splitlines()
    assert [json.loads(line)["command"] for line in lines] == ["survival", "agreement"]
    assert [json.loads(line)["knees"] for line in lines][1] == 60
    assert _found(tmp_path / "out")["looks"]["count"] == 1
    assert any("the first look" in note for note in _found(tmp_path / "out")["notes"])
    readers = json.loads((tmp_path / "readers" / "agreement.json").read_text())
    assert readers["looks"]["count"] == 2


def test_the_report_shows_what_a_model_is_worth_to_persons_it_never_saw(
    cohort, risks, write_predictions, tmp_path
):
    path = write_predictions(risks)
    survive(cohort, tmp_path / "out", outcome="kl_progression", n_boot=10)
    section = survival_section(Run(tmp_path / "out", "out"))
    (tile,) = section.headline
    assert tile.label == "KL progression: Uno's C (Clinical and KL grade)"
    judged = _found(tmp_path / "out")["prognosis"]["models"]["clinical_and_kl_grade"]["uno_c"]
    assert tile.value == f"{judged['value']:.2f}"
    captions = [table.caption for table in section.tables]
    assert any("integrated Brier score from 12 to 48 months" in text for text in captions)
    assert any("differences" in text for text in captions)
    assert any("Time to KL progression" in text for text in section.methods)
    survive(cohort, tmp_path / "jsl", outcome="jsl_48m", predictions=path, n_boot=10)
    report([tmp_path / "jsl"], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "Joint-space loss: Uno&#39;s C (Predictions)" in text


def test_methods_do_not_claim_a_cox_model_that_was_refused(make_cohort, tmp_path):
    """All events are in knees with a narrow joint space, so that no ratio is finite."""
    table = make_cohort(60)
    event = (table["mjsw_medial_mm"] < 3).to_numpy()
    table["jsl_48m_event_observed"] = event.astype(int)
    table["jsl_48m_lower_months"] = np.where(event, 0.0, 48.0)
    table["jsl_48m_upper_months"] = np.where(event, 12.0, np.nan)
    write_table(table, COHORT, tmp_path / "cohort.parquet")
    survive(tmp_path, tmp_path / "out", outcome="jsl_48m", covariates=("mjsw_medial_mm",), n_boot=0)
    section = survival_section(Run(tmp_path / "out", "out"))
    assert not any("Cox" in text for text in section.methods)
    assert any("There is no Cox model: Medial joint-space width" in note for note in section.notes)
