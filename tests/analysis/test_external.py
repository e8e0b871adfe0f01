"""A model judged on another cohort: what changes is found, and shared persons are refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.errors import LeakError, ModelFolderError
from kneeoa_mm.model_folder import ModelCard, Preprocessing, SeenSubjects, write_model
from kneeoa_mm.schemas import FOLDS, PREDICTIONS
from kneeoa_mm.tables import write_table

CONTRACT = Preprocessing(
    image_size_px=64, mean=0.5, std=0.2, clip_percentiles=(1, 99), reinvert_negatives=False
)


def people(cohort: str, n_persons: int, *, seed: int, mean: float = -1.0) -> pd.DataFrame:
    """Two knees a person whose log odds of the event are normal, and risks that keep their word."""
    generator = np.random.default_rng(seed)
    subjects = np.repeat([f"{cohort}{i:04d}" for i in range(n_persons)], 2)
    sides = np.tile(["L", "R"], n_persons)
    log_odds = generator.normal(mean, 1.0, 2 * n_persons)
    return pd.DataFrame(
        {
            "knee_id": [f"{cohort}:{s}:0:{side}" for s, side in zip(subjects, sides, strict=True)],
            "subject_id": subjects,
            "laterality": sides,
            "status": "ok",
            "seen_in_training": False,
            "kl_grade_pred": 0,
            **{f"kl_prob_{grade}": 0.2 for grade in range(5)},
            "jsl_48m_prob": expit(log_odds),
            "jsl_48m": (generator.random(2 * n_persons) < expit(log_odds)).astype(int),
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run made from the cohort `home`."""
    folder = tmp_path_factory.mktemp("runs") / "fused"
    own = people("home", 600, seed=0)
    write_table(own, PREDICTIONS, folder / "predictions.parquet")
    card = ModelCard(
        kind="jsl",
        architecture={},
        outputs=("jsl_48m_prob",),
        preprocessing=CONTRACT,
        seen_subjects=SeenSubjects.of(set(own["subject_id"]), ["chooser"], salt=b"salt"),
    )
    write_model(folder / "members" / "00", card, save({"a": np.zeros(1, dtype=np.float32)}))
    return folder


@pytest.fixture
def judge(run, tmp_path, monkeypatch):
    monkeypatch.setattr("kneeoa_mm.analysis.evaluation.draw", lambda *_: ())

    def validate(table: pd.DataFrame, model=run):
        path = write_table(table, PREDICTIONS, tmp_path / "away.parquet")
        evaluate(path, tmp_path / "out", n_boot=50, external_to=model, overwrite=True)
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    return validate


def test_it_says_whose_data_the_model_learnt_from_and_whose_it_is_judged_on(judge):
    document = judge(people("away", 40, seed=1))
    external = document["external"]
    assert external["developed_on"]["cohorts"] == {"home": 1200}
    assert external["developed_on"]["persons"] == 600
    assert external["judged_on"] == {"cohorts": {"away": 80}, "persons": 40}
    assert any("1,200 knees of home" in note and "away" in note for note in document["notes"])
    # an external cohort is held out by nature
    assert document["looks"]["count"] == 1


@pytest.mark.parametrize("shared", ["home0003", "chooser"])
def test_persons_whom_the_model_has_seen_are_refused(judge, shared, tmp_path):
    table = people("away", 30, seed=1)
    table.loc[:1, "subject_id"] = shared
    with pytest.raises(LeakError, match=f"1 of 30 persons seen by 00, such as {shared}"):
        judge(table)
    assert not (tmp_path / "out").exists()


def test_risks_that_are_too_low_everywhere_are_mended_by_the_intercept_alone(judge):
    """Closed form: log odds lowered by 1 need 1 added; the slope and the ranking stay."""
    table = people("away", 600, seed=2)
    table["jsl_48m_prob"] = expit(logit(table["jsl_48m_prob"]) - 1)
    changes = judge(table)["external"]["targets"]["jsl_48m"]
    anew = changes["recalibration"]
    assert anew["intercept"]["value"] == pytest.approx(1, abs=0.2)
    assert anew["before"]["calibration_in_the_large"]["ci_low"] > 0.5
    assert anew["after"]["calibration_in_the_large"]["value"] == pytest.approx(0, abs=0.02)
    assert anew["after"]["brier"]["value"] < anew["before"]["brier"]["value"]
    slopes = [anew[when]["calibration_slope"]["value"] for when in ("before", "after")]
    assert slopes == pytest.approx([1, 1], abs=0.2)
    difference = changes["performance"]["difference"]
    assert difference["auroc"]["ci_low"] < 0 < difference["auroc"]["ci_high"]
    assert difference["calibration_in_the_large"]["ci_low"] > 0.5


def test_a_cohort_at_lower_risk_is_another_mix_of_cases(judge):
    """Closed form: normals one and a half standard deviations apart."""
    changes = judge(people("away", 600, seed=3, mean=-2.5))["external"]["targets"]["jsl_48m"]
    expected = norm.cdf(-1.5 / np.sqrt(2))
    assert changes["membership_auroc"]["value"] == pytest.approx(expected, abs=0.03)
    mix = changes["case_mix"]
    assert mix["validation"]["mean"] < mix["development"]["mean"]
    assert mix["validation"]["quantiles"]["50"] == pytest.approx(expit(-2.5), abs=0.02)
    assert mix["validation"]["knees_by_truth"]["1"] < mix["development"]["knees_by_truth"]["1"]


def test_the_difference_is_that_of_the_two_cohorts(judge):
    performance = judge(people("away", 60, seed=4))["external"]["targets"]["jsl_48m"]["performance"]
    for name, each in performance["difference"].items():
        apart = performance["validation"][name]["value"] - performance["development"][name]["value"]
        assert each["value"] == pytest.approx(apart), name


def test_a_model_without_its_predictions_has_nothing_to_compare_with_but_is_judged(judge, run):
    external = judge(people("away", 40, seed=1), model=run / "members" / "00")["external"]
    assert external["developed_on"]["cohorts"] is None
    changes = external["targets"]["jsl_48m"]
    assert changes["performance"]["development"] is None
    assert changes["performance"]["difference"] is None
    assert changes["membership_auroc"] is None
    assert changes["recalibration"]["after"]["brier"]["value"] is not None


def test_one_class_and_one_person_end_with_reasons(judge):
    changes = judge(people("away", 1, seed=1).assign(jsl_48m=0))["external"]["targets"]["jsl_48m"]
    assert changes["performance"]["validation"]["auroc"]["reason"]
    assert changes["recalibration"]["before"]["calibration_slope"]["reason"]
    assert changes["recalibration"]["after"]["brier"]["reason"]
    assert changes["performance"]["difference"]["auroc"]["value"] is None


def test_what_is_no_model_is_refused(judge, tmp_path):
    with pytest.raises(ModelFolderError, match="no model here"):
        judge(people("away", 10, seed=1), model=tmp_path)


def test_the_models_own_people_are_ranked_within_folds(judge, run, tmp_path):
    """Oracle: scikit-learn's area of each fold; five models need not agree on a level."""
    own = people("home", 600, seed=0).assign(kl_grade=0)
    fold = np.repeat(np.arange(600) % 5, 2)
    own["jsl_48m_prob"] = expit(logit(own["jsl_48m_prob"]) + 2 * fold)
    # grades that the table's probabilities of 2 and more follow in each fold, but for its level
    own["kl_grade"] = 2 * own["jsl_48m"]
    low = 1 - own["jsl_48m_prob"]
    own = own.assign(kl_prob_0=low, kl_prob_1=0.0, kl_prob_2=1 - low, kl_prob_3=0.0, kl_prob_4=0.0)
    folder = tmp_path / "folded"
    shutil.copytree(run, folder)
    write_table(own, PREDICTIONS, folder / "predictions.parquet")
    folds = pd.DataFrame({"subject_id": own["subject_id"], "fold": fold}).drop_duplicates()
    write_table(folds, FOLDS, folder / "folds.parquet")
    away = people("away", 60, seed=1).assign(kl_grade=[0, 2] * 60)
    targets = judge(away, model=folder)["external"]["targets"]
    event, risk = own["jsl_48m"].to_numpy(), own["jsl_48m_prob"].to_numpy()
    areas = [roc_auc_score(event[fold == k], risk[fold == k]) for k in range(5)]
    pairs = [event[fold == k].sum() * (1 - event[fold == k]).sum() for k in range(5)]
    expected = np.average(areas, weights=pairs)
    assert roc_auc_score(event, risk) < expected - 0.1
    for target, name in (("jsl_48m", "auroc"), ("kl", "auroc_kl2")):
        performance = targets[target]["performance"]
        assert performance["development"][name]["value"] == pytest.approx(expected)
        apart = performance["validation"][name]["value"] - expected
        assert performance["difference"][name]["value"] == pytest.approx(apart)
