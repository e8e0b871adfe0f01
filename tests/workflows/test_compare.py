"""Comparison of models: the same knees, folds and draws for all, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from known_runs import Study, image_risk, two_knees_a_person
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from kneeoa_mm import schemas, tables
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.records import Outcome
from kneeoa_mm.workflows.compare import compare
from kneeoa_mm.workflows.compared_runs import parse_runs

FACTORS = ("age_years", "sex")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = Study(tmp_path_factory.mktemp("study"), two_knees_a_person(300, seed=0))
    made.write_cohort()
    return made


def comparison(study, out, runs, **options):
    result = compare(runs, study.cohort, out, outcome=Outcome.JSL_48M, **{"n_boot": 200} | options)
    return json.loads((out / "compare.json").read_text()), result


@pytest.fixture(scope="module")
def events(study):
    return study.knees["jsl_48m"].to_numpy()


@pytest.fixture(scope="module")
def compared(study, events, tmp_path_factory):
    """A strong fused run on levels that differ between folds, a weak image run, and a grader."""
    strong = image_risk(events, seed=1)
    shifted = norm.cdf(norm.ppf(strong.clip(1e-9, 1 - 1e-9)) + study.knees["fold"])
    grader = 0.2 + 0.1 * np.outer(image_risk(events, seed=3, shift=1), [-1, -0.5, 0, 0.5, 1])
    runs = {
        "fused": study.run(
            "fused", shifted, factors=FACTORS, config="train: {augment: {mixup: 0.2}}\n"
        ),
        "image": study.run(
            "image", image_risk(events, seed=2, shift=0.3), config="kl_input: predicted\n"
        ),
    }
    columns = {f"kl_prob_{grade}": grader[:, grade] for grade in range(5)}
    grades = study.run("kl", strong, columns=columns)
    out = tmp_path_factory.mktemp("comparison") / "out"
    document, result = comparison(study, out, runs, grades=grades, thresholds=(0.3,))
    return document, result, out


def test_every_run_stands_beside_the_simple_models(compared):
    document, _, _ = compared
    simple = {"clinical", "clinical_boosted", "kl_grade", "mjsw", "kl+grader"}
    simple |= {"clinical+kl", "clinical+kl+grader"}
    assert set(document["models"]) == {"fused", "image"} | simple
    assert set(document["inputs"]) == set(document["models"])


def test_inputs_are_those_of_the_run_and_not_a_default_list(compared):
    inputs = compared[0]["inputs"]
    assert inputs["fused"] == "image, age_years, sex"
    assert inputs["clinical"] == "age_years, sex; logistic regression"
    assert inputs["image"] == "image, KL grade as predicted"


def test_areas_are_those_of_the_stated_distributions(compared):
    """Closed form: a shift of d standard deviations gives the area Phi(d / sqrt 2)."""
    models = compared[0]["models"]
    for name, shift in (("fused", 2), ("image", 0.3), ("clinical", 1), ("mjsw", 0.5)):
        auroc = models[name]["auroc"]
        assert auroc["value"] == pytest.approx(norm.cdf(shift / np.sqrt(2)), abs=0.05), name
        assert auroc["ci_low"] < auroc["value"] < auroc["ci_high"]
    assert models["kl_grade"]["auroc"]["value"] == pytest.approx(0.5, abs=0.06)
    grader = models["kl+grader"]["auroc"]["value"]
    assert grader == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.05)


def test_areas_are_averaged_over_folds_whose_levels_differ(study, events, compared):
    """Oracle: scikit-learn's area of each fold; pooled, the shifted levels would cost a lot."""
    document, _, _ = compared
    strong, fold = image_risk(events, seed=1), study.knees["fold"].to_numpy()
    areas = [roc_auc_score(events[fold == k], strong[fold == k]) for k in range(5)]
    pairs = [np.sum(events[fold == k]) * np.sum(1 - events[fold == k]) for k in range(5)]
    found = document["models"]["fused"]["auroc"]["value"]
    assert found == pytest.approx(np.average(areas, weights=pairs), abs=1e-6)
    shifted = norm.ppf(strong.clip(1e-9, 1 - 1e-9)) + fold
    assert roc_auc_score(events, shifted) < found - 0.1


def test_differences_are_of_the_values_and_have_intervals_and_p(compared):
    document, _, _ = compared
    models = document["models"]
    assert set(document["differences"]) == {
        "fused-kl_grade",
        "image-kl_grade",
        "kl+grader-kl_grade",
        "clinical+kl+grader-kl_grade",
        *(f"fused-{name}" for name in ("image", "clinical", "clinical_boosted", "mjsw")),
        *(f"fused-{name}" for name in ("clinical+kl", "kl+grader", "clinical+kl+grader")),
    }
    for pair, metrics in document["differences"].items():
        first, second = pair.split("-")
        for metric, estimate in metrics.items():
            expected = models[first][metric]["value"] - models[second][metric]["value"]
            assert estimate["value"] == pytest.approx(expected)
            if estimate["ci_low"] is not None:
                assert estimate["ci_low"] <= estimate["value"] <= estimate["ci_high"]
        sure = metrics["auroc"]["ci_low"] > 0 or metrics["auroc"]["ci_high"] < 0
        assert sure == (metrics["auroc"]["p_value"] < 0.05), pair


def test_within_grades_the_grade_itself_is_worth_one_half(compared):
    models = compared[0]["models"]
    assert models["kl_grade"]["auroc_within_kl"]["value"] == 0.5
    assert models["kl_grade"]["auroc_within_kl_1_to_3"]["ci_high"] == 0.5
    assert models["fused"]["auroc_within_kl_1_to_3"]["value"] > 0.85
    assert {f"auroc_kl_{k}" for k in range(4)} <= set(models["fused"])


def test_a_run_whose_training_moved_its_risks_is_recalibrated_and_said_so(compared):
    document, result, _ = compared
    assert set(document["recalibrated"]) == {"fused"}
    before = document["recalibrated"]["fused"]["calibration_in_the_large"]["value"]
    after = document["models"]["fused"]["calibration_in_the_large"]["value"]
    assert abs(after) < 0.1 < abs(before)
    assert any("mixed" in note and note.startswith("fused") for note in result.notes)


def test_decisions_are_judged_at_the_thresholds_that_were_stated(compared):
    document, _, _ = compared
    fused = document["models"]["fused"]
    assert {"sensitivity_at_0.3", "specificity_at_0.3", "net_benefit_at_0.3"} <= set(fused)
    curve = document["net_benefit"]
    at = curve["thresholds"].index(0.3)
    found = fused["net_benefit_at_0.3"]["value"]
    assert curve["models"]["fused"][at] == pytest.approx(found, abs=1e-6)
    share = document["events"] / document["n"]
    assert curve["treat_all"][at] == pytest.approx(share - (1 - share) * 3 / 7, abs=1e-6)


def test_a_coupled_width_is_said_to_be(compared):
    assert any("mjsw is coupled" in note for note in compared[0]["notes"])


def test_files_hold_the_table_the_rows_and_the_figure(compared):
    document, _, out = compared
    rows = pd.read_csv(out / "compare.csv").set_index("model")
    assert set(rows.index) == set(document["models"])
    above = document["differences"]["image-kl_grade"]["auroc"]
    assert rows.loc["image", "auroc_above_kl_grade"] == pytest.approx(above["value"])
    assert rows.loc["image", "auroc_above_kl_grade_p"] == pytest.approx(above["p_value"])
    text = (out / "compare.md").read_text()
    assert f"{document['models']['fused']['auroc']['value']:.3f}" in text
    assert all(sentence in text for sentence in document["verdict"])
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{name}.{suffix}"
        for name in ("comparison", "comparison_calibration")
        for suffix in ("svg", "png")
    }


def test_fusion_that_wins_is_said_to_help(compared):
    verdict = compared[0]["verdict"]
    assert verdict[0].startswith("Fusion helps here")
    assert any("fused model ranks knees better than KL grade alone" in line for line in verdict)


def test_fusion_that_does_not_help_is_said_in_words(study, events, tmp_path):
    risk = image_risk(events, seed=2, shift=0.3)
    runs = {
        "fused": study.run("weak", risk, factors=FACTORS),
        "image": study.run("twin", risk),
    }
    document, result = comparison(study, tmp_path / "out", runs)
    difference = document["differences"]["fused-image"]["auroc"]
    assert difference["value"] == 0
    # nothing varies, so nothing is tested
    assert difference["ci_low"] is difference["ci_high"] is difference["p_value"] is None
    assert "rank alike" in difference["reason"]
    assert document["verdict"][0].startswith("Fusion is not shown to help")
    assert "clinical factors alone" in result.notes[0]


def test_a_run_that_is_told_as_much_as_fused_is_no_simpler_model(study, events, tmp_path):
    """Two fusions that tie, each with its branch for knees without a reading, say nothing of it."""
    risk = image_risk(events, seed=1)
    told = {"factors": FACTORS, "config": "kl_input: read\n"}
    unread = {"columns": {"jsl_48m_prob_without_reading": risk}}
    runs = {
        "fused": study.run("fusion", risk, **told, **unread),
        "joint": study.run("joint", risk, **told, **unread),
        "other": study.run("other", risk, factors=("age_years", "bmi_kg_m2")),
        "image": study.run("picture", image_risk(events, seed=2, shift=0.3)),
    }
    document, _ = comparison(study, tmp_path / "out", runs, n_boot=0)
    for name in ("joint", "other", "fused_without_reading", "joint_without_reading"):
        assert document["differences"][f"fused-{name}"]["auroc"]["value"] == 0
    assert document["verdict"][0].startswith("Fusion helps here")
    assert sum("cannot be t" in sentence for sentence in document["verdict"]) == 4
    # told no more than fused is, and less
    runs["some"] = study.run("some", risk, factors=("sex",), config="kl_input: read\n")
    document, _ = comparison(study, tmp_path / "less", runs, n_boot=0)
    assert document["verdict"][0].endswith("ranks knees better than some.")


def test_only_knees_that_all_runs_predict_are_compared(study, events, tmp_path):
    risk = image_risk(events, seed=2)
    runs = {"a": study.run("whole", risk), "b": study.run("half", risk, rows=slice(0, 100))}
    document, result = comparison(study, tmp_path / "out", runs, n_boot=0)
    assert document["n"] == 100
    assert document["left_out"] == {"no_prediction": {"a": 0, "b": len(events) - 100}}
    told = f"{len(events) - 100} of {len(events)} knees with the outcome lack a prediction of: b"
    assert any(note.startswith(told) for note in result.notes)
    assert "clinical" not in document["models"]
    assert any("No run was given clinical factors" in note for note in document["notes"])
    # without draws there is still the test of areas
    assert document["differences"]["a-kl_grade"]["auroc"]["ci_low"] > 0
    assert document["differences"]["a-kl_grade"]["brier"]["ci_low"] is None


# what is refused, before anything is written


def refused(study, tmp_path, error, message, runs, **options):
    with pytest.raises(error, match=message):
        comparison(study, tmp_path / "out", runs, **options)
    assert not (tmp_path / "out").exists()


def test_runs_without_a_knee_in_common_are_refused(study, events, tmp_path):
    empty = study.run("none", image_risk(events, seed=2), rows=slice(0, 0))
    refused(study, tmp_path, InputError, "in common", {"image": empty})


def test_a_run_whose_member_saw_persons_of_its_fold_is_refused(study, events, tmp_path):
    leaky = study.run("leaky", image_risk(events, seed=2), leak=2)
    refused(study, tmp_path, LeakError, "seen in training", {"image": leaky})


def test_rows_that_are_marked_as_seen_are_refused(study, events, tmp_path):
    seen = np.arange(len(events)) < 3
    run = study.run("marked", image_risk(events, seed=2), columns={"seen_in_training": seen})
    refused(study, tmp_path, LeakError, "seen in training", {"image": run})


def test_a_grader_that_saw_persons_of_its_fold_is_refused(study, events, tmp_path):
    risk = image_risk(events, seed=2)
    run, grader = study.run("image", risk), study.run("leaky-kl", risk, leak=1)
    refused(study, tmp_path, LeakError, "seen in training", {"image": run}, grades=grader)


def test_a_grader_without_runs_is_compared_on_folds_that_are_not_its_own(study, events, tmp_path):
    grades = np.outer(image_risk(events, seed=3), [-0.1, -0.05, 0, 0.05, 0.1]) + 0.2
    columns = {f"kl_prob_{grade}": grades[:, grade] for grade in range(5)}
    grader = study.run("elsewhere-kl", image_risk(events, seed=2), columns=columns)
    halves = study.folds().assign(fold=lambda f: f["fold"] % 2)
    folds = tables.write_table(halves, schemas.FOLDS, tmp_path / "halves.parquet")
    document, _ = comparison(study, tmp_path / "out", {}, grades=grader, folds=folds)
    assert document["folds"] == 2
    assert set(document["models"]) == {"kl_grade", "mjsw", "kl+grader"}
    assert document["differences"]["kl+grader-kl_grade"]["auroc"]["ci_low"] > 0


def test_persons_whom_the_grader_has_no_fold_of_are_counted(study, events, tmp_path):
    grader = study.run("half-kl", image_risk(events, seed=2))
    known = study.folds()[:200]
    tables.write_table(known, schemas.FOLDS, grader / "folds.parquet")
    document, _ = comparison(study, tmp_path / "out", {}, grades=grader, n_boot=0)
    absent = ~study.knees["subject_id"].isin(known["subject_id"])
    assert document["left_out"]["no_prediction"] == {"kl+grader": int(absent.sum())}
    assert document["n"] == int((~absent).sum())


def test_knees_of_one_person_are_a_stratum_without_an_interval(tmp_path):
    knees = two_knees_a_person(100, seed=6)
    knees.loc[:1, ["jsl_48m", "kl_grade"]] = [[0, 4], [1, 4]]
    study = Study(tmp_path, knees)
    study.write_cohort()
    risk = image_risk(knees["jsl_48m"].to_numpy(), seed=5)
    document, _ = comparison(study, tmp_path / "out", {"image": study.run("image", risk)})
    found = document["models"]["image"]["auroc_kl_4"]
    assert found["value"] == float(risk[1] > risk[0])
    assert (found["ci_low"], found["ci_high"]) == (None, None)
    assert "one person" in found["reason"]


def test_widths_that_a_training_part_lacks_stand_beside_nothing(study, events, tmp_path):
    risk = image_risk(events, seed=2)
    of_one_fold = study.knees["mjsw_medial_mm"].where(study.knees["fold"] == 0)
    narrow = Study(tmp_path, study.knees.assign(mjsw_medial_mm=of_one_fold))
    narrow.write_cohort()
    document, _ = comparison(narrow, tmp_path / "out", {"a": narrow.run("a", risk)}, n_boot=0)
    assert set(document["models"]) == {"a", "kl_grade"}


def test_a_cohort_without_grades_is_refused(study, events, tmp_path):
    blank = Study(tmp_path, study.knees.assign(kl_grade=pd.array([pd.NA] * len(events), "Int64")))
    blank.write_cohort()
    run = blank.run("a", image_risk(events, seed=2))
    refused(blank, tmp_path, InputError, "no KL grade", {"image": run})


def test_a_grader_of_a_folder_of_images_is_known_by_person_and_side(study, events, tmp_path):
    grades = np.outer(image_risk(events, seed=3), [-0.1, -0.05, 0, 0.05, 0.1]) + 0.2
    columns = {f"kl_prob_{grade}": grades[:, grade] for grade in range(5)}
    named = study.run("named-kl", image_risk(events, seed=2), columns=columns)
    ids = [f"-:{row.subject_id}:-:{row.laterality}" for row in study.knees.itertuples()]
    unnamed = study.run(
        "unnamed-kl", image_risk(events, seed=2), columns=columns | {"knee_id": ids}
    )
    first, _ = comparison(study, tmp_path / "first", {}, grades=named)
    second, _ = comparison(study, tmp_path / "second", {}, grades=unnamed)
    assert second["n"] == first["n"] == len(events)
    assert second["models"] == first["models"]


def test_nothing_to_compare_is_refused(study, tmp_path):
    refused(study, tmp_path, InputError, "nothing to compare", {})


@pytest.mark.parametrize("factor", ["jsl_48m_upper_months", "death_months", "split"])
def test_inputs_of_after_the_baseline_are_refused(study, events, tmp_path, factor):
    late = replace(study, knees=study.knees.assign(**{factor: 12.0}))
    run = late.run("late", image_risk(events, seed=2), factors=("age_years", factor))
    refused(study, tmp_path, LeakError, f"at baseline[\\s\\S]*{factor}", {"fused": run})


def test_a_run_of_another_outcome_is_refused(study, events, tmp_path):
    other = replace(study, outcome="tkr").run("other", image_risk(events, seed=2))
    refused(study, tmp_path, InputError, r"does not predict[\s\S]*found: *tkr", {"image": other})


def test_a_run_on_other_folds_is_refused(study, events, tmp_path):
    run = study.run("elsewhere", image_risk(events, seed=2))
    folds = study.folds().assign(fold=lambda f: (f["fold"] + 1) % 5)
    tables.write_table(folds, schemas.FOLDS, run / "folds.parquet")
    refused(study, tmp_path, InputError, "other folds", {"image": run})


@pytest.mark.parametrize(
    "texts", [["runs/a"], ["a="], ["=b"], ["a=b", "a=c"], ["clinical=b"], ["a-b=c"], ["a|b=c"]]
)
def test_runs_that_are_not_named_once_each_are_refused(texts):
    with pytest.raises(InputError, match="NAME=RUN"):
        parse_runs(texts)


PLAN = """
outcome: jsl_48m
model: fused
primary_metric: auroc
secondary_metrics: [calibration_slope]
thresholds: [0.25]
comparisons: [fused-kl_grade, clinical-kl_grade, fused-absent]
"""


def test_a_plan_names_what_is_confirmatory_and_asks_for_its_comparisons(study, events, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    runs = {"fused": study.run("planned", image_risk(events, seed=5), factors=FACTORS)}
    document, result = comparison(
        study, tmp_path / "out", runs, prespecified=tmp_path / "plan.yaml", n_boot=20
    )
    found = document["prespecified"]
    assert found["confirmatory"] == [
        "models.fused.auroc",
        "models.fused.calibration_slope",
        "models.fused.sensitivity_at_0.25",
        "models.fused.specificity_at_0.25",
        "models.fused.net_benefit_at_0.25",
        "differences.fused-kl_grade.auroc",
        "differences.clinical-kl_grade.auroc",
    ]
    assert [each["what"] for each in found["missing"]] == ["differences.fused-absent.auroc"]
    assert any("fused-absent" in note for note in result.notes)
    assert "exploratory" not in document["models"]["fused"]["auroc"]
    assert document["models"]["clinical"]["auroc"]["exploratory"]
    assert document["differences"]["fused-kl_grade"]["brier"]["exploratory"]


def test_a_plan_of_figures_per_person_finds_none_of_them_here(study, events, tmp_path):
    """A comparison is per knee, and its figures answer another question."""
    (tmp_path / "plan.yaml").write_text(PLAN + "estimand: per_person\n")
    runs = {"fused": study.run("per-person", image_risk(events, seed=5), factors=FACTORS)}
    document, _ = comparison(
        study, tmp_path / "out", runs, prespecified=tmp_path / "plan.yaml", n_boot=0
    )
    assert document["prespecified"]["confirmatory"] == []
    missing = {each["what"] for each in document["prespecified"]["missing"]}
    assert {
        "per_person.models.fused.auroc",
        "per_person.differences.fused-kl_grade.auroc",
    } <= missing
    assert document["models"]["fused"]["auroc"]["exploratory"]
    assert document["differences"]["fused-kl_grade"]["auroc"]["exploratory"]


def test_a_plan_of_another_outcome_makes_nothing_confirmatory(study, events, tmp_path):
    (tmp_path / "plan.yaml").write_text("outcome: tkr\nmodel: fused\n")
    runs = {"fused": study.run("other-plan", image_risk(events, seed=5))}
    document, _ = comparison(
        study, tmp_path / "out", runs, prespecified=tmp_path / "plan.yaml", n_boot=0
    )
    assert document["prespecified"]["confirmatory"] == []
    assert document["models"]["fused"]["auroc"]["exploratory"]


def test_a_comparison_on_held_out_knees_is_logged_beside_each_run(tmp_path):
    knees = two_knees_a_person(100, seed=3)
    knees["split"] = np.where(np.arange(len(knees)) % 20 < 2, "test", "train")
    study = Study(tmp_path, knees)
    study.write_cohort()
    risk = image_risk(knees["jsl_48m"].to_numpy(), seed=5)
    runs = {name: study.run(name, risk) for name in ("image", "fused")}
    first, _ = comparison(study, tmp_path / "a", runs, n_boot=0)
    second, result = comparison(study, tmp_path / "b", runs, n_boot=0)
    assert {name: look["count"] for name, look in first["looks"].items()} == {
        "image": 1,
        "fused": 1,
    }
    assert second["looks"]["image"]["count"] == 2
    assert second["looks"]["image"]["knees"] == (knees["split"] == "test").sum()
    assert (tmp_path / "image.looks.jsonl").is_file()
    assert any("look 2" in note for note in result.notes)
    third, _ = comparison(study, tmp_path / "c", {}, grades=study.run("kl", risk), n_boot=0)
    assert third["looks"]["kl+grader"]["count"] == 1
    predictions = (tmp_path / "kl" / "predictions.parquet").read_bytes()
    sha256 = hashlib.sha256(predictions).hexdigest()
    assert third["provenance"]["grades_sha256"] == sha256
    line = json.loads((tmp_path / "kl.looks.jsonl").read_text())
    assert line["predictions_sha256"] == sha256
