"""What counts in an evaluation, what its files say, and which input is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.evaluation_figures import curves_of, draw
from kneeoa_mm.analysis.targets import read_targets
from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError, TableError
from kneeoa_mm.metrics import auroc
from kneeoa_mm.records import KL_CLASSES

PROBABILITIES = [f"kl_prob_{k}" for k in KL_CLASSES]


@pytest.fixture
def without_figures(monkeypatch):
    """Figures take most of the time and most tests are about numbers."""
    monkeypatch.setattr("kneeoa_mm.analysis.evaluation.draw", lambda *_: ())


@pytest.fixture
def judge(write_predictions, tmp_path, without_figures):
    """Evaluate a table with few draws and return metrics.json."""

    def run(table: pd.DataFrame, **options):
        out = tmp_path / "evaluation"
        evaluate(write_predictions(table), out, **{"n_boot": 20, "overwrite": True} | options)
        return json.loads((out / "metrics.json").read_text())

    return run


def test_each_metric_has_value_interval_and_size(judge, make_predictions):
    table = make_predictions()
    document = judge(table)
    for target in ("kl", "jsl_48m"):
        for name, estimate in document[target].items():
            assert {"value", "ci_low", "ci_high", "n"} <= set(estimate), name
            assert estimate["ci_low"] <= estimate["value"] <= estimate["ci_high"], name
            assert estimate["n"] == len(table)
    assert document["kl"]["accuracy"]["value"] == pytest.approx(
        (table["kl_grade_pred"] == table["kl_grade"]).mean()
    )
    expected = auroc(table["jsl_48m"].to_numpy(int), table["jsl_48m_prob"].to_numpy())
    assert document["jsl_48m"]["auroc"]["value"] == pytest.approx(expected)
    assert document["provenance"]["source"] == "predictions.parquet"
    assert len(document["provenance"]["source_sha256"]) == 64


def test_decisions_are_judged_at_the_stated_risks(judge, make_predictions, tmp_path):
    """Oracle: the counts of the table, and the closed form of net benefit."""
    table = make_predictions()
    found = judge(table, thresholds=(0.35,))["jsl_48m"]
    event, called = table["jsl_48m"].to_numpy(int), table["jsl_48m_prob"].to_numpy() >= 0.35
    assert found["sensitivity_at_0.35"]["value"] == pytest.approx(called[event == 1].mean())
    assert found["specificity_at_0.35"]["value"] == pytest.approx((~called[event == 0]).mean())
    gain = np.mean(called * event) - np.mean(called * (1 - event)) * 0.35 / 0.65
    assert found["net_benefit_at_0.35"]["value"] == pytest.approx(gain)
    assert "sensitivity_at_0.1" not in found
    assert "0.35" in (tmp_path / "evaluation" / "config.yaml").read_text()


@pytest.mark.parametrize("asked", [{"thresholds": (0.0,)}, {"thresholds": (1.0,)}, {"seed": -1}])
def test_a_risk_at_which_nobody_decides_and_no_seed_are_refused(
    make_predictions, write_predictions, tmp_path, asked
):
    path = write_predictions(make_predictions())
    with pytest.raises(ConfigError, match=next(iter(asked))):
        evaluate(path, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_knees_of_persons_seen_in_training_do_not_count(judge, make_predictions):
    table = make_predictions()
    table["kl_grade_pred"] = table["kl_grade"]
    table.loc[:9, "seen_in_training"] = True
    table.loc[:9, "kl_grade_pred"] = (table.loc[:9, "kl_grade"] + 1) % 5
    document = judge(table)
    assert document["kl"]["accuracy"]["value"] == 1
    assert document["kl"]["accuracy"]["n"] == len(table) - 10
    assert document["left_out"]["seen_in_training"] == 10
    assert any("10 knees" in note and "seen" in note for note in document["notes"])


def test_knees_without_prediction_or_truth_are_counted_for_each_target(judge, make_predictions):
    table = make_predictions()
    table.loc[0, "status"] = "unreadable"
    table.loc[0, [*PROBABILITIES, "kl_grade_pred"]] = np.nan
    table.loc[1:3, "kl_grade"] = pd.NA
    table.loc[2:8, "jsl_48m"] = pd.NA
    table.loc[9, "jsl_48m_prob"] = np.nan
    left_out = judge(table)["left_out"]
    assert left_out["not_ok"] == {"unreadable": 1}
    assert left_out["no_truth"] == {"kl": 3, "jsl_48m": 7}
    assert left_out["no_prediction"] == {"kl": 0, "jsl_48m": 1}


def test_the_read_grade_alone_stands_beside_an_outcome(judge, make_predictions):
    """Oracle: scikit-learn, on the knees with a grade, which was read from the same image."""
    table = make_predictions()
    table.loc[:20, "kl_grade"] = pd.NA
    found = judge(table)["jsl_48m"]
    graded = table.dropna(subset=["kl_grade"])
    events = graded["jsl_48m"].to_numpy(int)
    alone = roc_auc_score(events, graded["kl_grade"].to_numpy(int))
    model = roc_auc_score(events, graded["jsl_48m_prob"])
    assert found["auroc_of_kl_grade"]["value"] == pytest.approx(alone)
    assert found["auroc_above_kl_grade"]["value"] == pytest.approx(model - alone)
    assert found["auroc_of_kl_grade"]["n"] == len(graded)
    assert found["auroc_above_kl_grade"]["ci_low"] < model - alone


def test_a_model_that_says_the_grade_adds_nothing_to_it(judge, make_predictions):
    """The draws of both are the same, so the interval of the difference is nought, too."""
    table = make_predictions()
    table["jsl_48m_prob"] = table["kl_grade"].astype(float) / 5
    table["fold"] = pd.array(np.arange(len(table)) // 2 % 3, dtype="Int64")
    above = judge(table)["jsl_48m"]["auroc_above_kl_grade"]
    assert above["value"] == above["ci_low"] == above["ci_high"] == 0


def test_the_read_grade_may_come_from_the_cohort(
    judge, make_predictions, make_cohort, write_cohort
):
    table = make_predictions(120).drop(columns="kl_grade")
    document = judge(table)
    assert "auroc_of_kl_grade" not in document["jsl_48m"]
    assert any("better than that grade alone" in note for note in document["notes"])
    document = judge(table, cohort=write_cohort(make_cohort(120)))
    assert document["jsl_48m"]["auroc_of_kl_grade"]["n"] == len(table)
    assert not any("better than that grade alone" in note for note in document["notes"])


def test_complete_cases_are_said_to_be(judge, make_predictions, make_cohort, write_cohort):
    """Knees that were lost are not stood for here, though the cohort has weights for it."""
    table, cohort = make_predictions(120), make_cohort(120)
    assert not any("complete cases" in note for note in judge(table)["notes"])
    table.loc[:6, "jsl_48m"] = pd.NA
    table.loc[0, "seen_in_training"] = True
    cohort.loc[:6, "jsl_48m_reason"] = ["lost"] * 5 + ["baseline_kl_4"] * 2
    cohort["jsl_48m_weight"] = np.linspace(1, 2, len(cohort))
    notes = judge(table, cohort=write_cohort(cohort))["notes"]
    (note,) = [note for note in notes if "complete cases" in note]
    assert "233 knees with the outcome" in note
    assert "6 have none (4 lost, 2 baseline_kl_4)" in note
    assert "(jsl_48m_weight)" in note
    assert "`compare`" in note


def test_the_voted_grade_is_judged_and_not_the_most_probable_one(judge, make_predictions):
    table = make_predictions()
    table["kl_grade_pred"] = table["kl_grade"]
    assert (table[PROBABILITIES].to_numpy().argmax(axis=1) != table["kl_grade"]).any()
    document = judge(table)
    assert document["kl"]["accuracy"]["value"] == 1
    assert document["kl"]["auroc"]["value"] < 1


def test_sets_of_grades_are_judged_where_the_table_has_them(judge, make_predictions):
    table = make_predictions()
    assert "coverage" not in judge(table)["kl"]
    truth = table["kl_grade"].to_numpy(int)
    table["kl_set"] = [f"{k};{k + 1}" if k < 3 else "2" for k in truth]
    document = judge(table)
    assert document["kl"]["coverage"]["value"] == pytest.approx(np.mean(truth < 3))
    assert document["kl"]["set_size"]["value"] == pytest.approx(1 + np.mean(truth < 3))
    assert document["kl"]["coverage"]["ci_low"] < np.mean(truth < 3)


def test_sets_of_one_grade_survive_a_csv(make_predictions, write_predictions, tmp_path):
    table = make_predictions()
    table["kl_set"] = table["kl_grade_pred"].astype(str)
    table.loc[0, ["status", "kl_set"]] = ["unreadable", None]
    evaluate(write_predictions(table, "predictions.csv"), tmp_path / "out", n_boot=0)
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["kl"]["set_size"]["value"] == 1
    assert document["kl"]["coverage"]["value"] == document["kl"]["accuracy"]["value"]


def test_impossible_sets_are_refused(make_predictions, write_predictions):
    with pytest.raises(TableError, match="kl_set"):
        write_predictions(make_predictions().assign(kl_set="1,2"))


def test_rows_of_the_confusion_matrix_are_the_truth(judge, make_predictions):
    table = make_predictions()
    table["kl_grade"], table["kl_grade_pred"] = 2, 3
    table["kl_grade"] = table["kl_grade"].astype("Int64")
    matrix = np.array(judge(table)["confusion_matrix"]["kl"])
    assert matrix[2, 3] == len(table)
    assert matrix.sum() == len(table)


def test_an_outcome_of_one_class_gives_null_with_a_reason(judge, make_predictions):
    table = make_predictions().assign(jsl_48m=0)
    document = judge(table)
    estimate = document["jsl_48m"]["auroc"]
    assert estimate["value"] is None
    assert "one class" in estimate["reason"]
    assert document["jsl_48m"]["brier"]["value"] is not None


def test_an_outcome_of_one_class_has_no_roc_curve_but_the_rest(make_predictions):
    targets, _ = read_targets(make_predictions().assign(jsl_48m=0), None, where="")
    document = {
        "subgroups": {"kl": {}, "jsl_48m": {}},
        "curves": {target.name: curves_of(target) for target in targets},
    }
    names = [name for target in targets for name, _ in draw(target, document)]
    assert "jsl_48m_roc" not in names
    assert {"kl_roc", "jsl_48m_calibration"} <= set(names)


def test_an_outcome_that_nobody_knows_leaves_the_grades_judged(judge, make_predictions):
    table = make_predictions()
    document = judge(table.assign(jsl_48m=pd.array([pd.NA] * len(table), dtype="Int64")))
    assert document["kl"]["accuracy"] == judge(table)["kl"]["accuracy"]
    assert document["confusion_matrix"]["jsl_48m"] == [[0, 0], [0, 0]]
    assert document["jsl_48m"]["auroc"]["value"] is None
    assert document["left_out"]["no_truth"]["jsl_48m"] == len(table)


def test_the_confusion_matrix_is_that_of_scikit_learn(judge, make_predictions):
    """Oracle: scikit-learn's confusion matrix."""
    table = make_predictions()
    found = judge(table)["confusion_matrix"]
    grades = table["kl_grade"].astype(int), table["kl_grade_pred"].astype(int)
    assert found["kl"] == confusion_matrix(*grades, labels=range(5)).tolist()
    decided = (table["jsl_48m_prob"] >= 0.5).astype(int)
    assert found["jsl_48m"] == confusion_matrix(table["jsl_48m"].astype(int), decided).tolist()


def test_one_person_has_values_but_no_intervals(judge, make_predictions):
    document = judge(make_predictions(n_persons=1))
    estimate = document["kl"]["accuracy"]
    assert estimate["value"] is not None
    assert estimate["ci_low"] is None
    assert "one person" in estimate["reason"]


def test_knees_of_unknown_subjects_are_not_one_person(judge, make_predictions):
    table = make_predictions()
    table["knee_id"] = [f"-:-:-:L:{i}" for i in range(2, len(table) + 2)]
    table["subject_id"], table["laterality"] = "-", "L"
    document = judge(table)
    assert document["counts"]["kl"]["persons"] == len(table)
    estimate = document["kl"]["accuracy"]
    assert estimate["ci_low"] < estimate["ci_high"]
    assert any("unknown" in note for note in document["notes"])


def test_a_part_used_to_choose_epochs_is_named(tmp_path, make_predictions, without_figures):
    from kneeoa_mm.schemas import PREDICTIONS
    from kneeoa_mm.tables import write_table

    path = tmp_path / "run" / "predictions.parquet"
    write_table(make_predictions(), PREDICTIONS, path, extra={"part": "validation"})
    result = evaluate(tmp_path / "run", tmp_path / "out", n_boot=0)
    assert any("validation" in note for note in result.notes)


def test_csv_and_parquet_say_the_same(judge, make_predictions, write_predictions, tmp_path):
    table = make_predictions()
    csv = write_predictions(table, "predictions.csv")
    evaluate(csv, tmp_path / "from-csv", n_boot=20)
    from_csv = json.loads((tmp_path / "from-csv" / "metrics.json").read_text())
    document = judge(table)
    for target in ("kl", "jsl_48m"):
        for name, estimate in document[target].items():
            assert from_csv[target][name] == pytest.approx(estimate), name


def test_the_same_seed_gives_the_same_files(
    make_predictions, write_predictions, tmp_path, without_figures
):
    path = write_predictions(make_predictions())
    for name in ("a", "b"):
        evaluate(path, tmp_path / name, n_boot=20, seed=4)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert files == ["config.yaml", "metrics.csv", "metrics.json", "subgroups.csv"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_figures_are_pictures(make_predictions, write_predictions, tmp_path):
    evaluate(write_predictions(make_predictions()), tmp_path / "a", n_boot=0)
    pictures = sorted((tmp_path / "a" / "figures").glob("*.png"))
    assert {p.stem for p in pictures} >= {
        f"{target}_{name}"
        for target in ("kl", "jsl_48m")
        for name in ("confusion_matrix", "roc", "precision_recall", "calibration")
    } | {"jsl_48m_decision_curve"}
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 400
        assert path.with_suffix(".svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["kl_grade", "jsl_48m"]), "No knee can be judged"),
        (lambda t: t.assign(kl_grade=pd.NA, jsl_48m=pd.NA), "No knee can be judged"),
        (lambda t: t.assign(seen_in_training=True), "No knee can be judged"),
        (lambda t: t.iloc[:0], "No knee can be judged"),
        (lambda t: t.assign(kl_prob_0=t["kl_prob_0"] / 2 + 0.4), "sum to 1"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_written(
    change, message, make_predictions, write_predictions, tmp_path
):
    path = write_predictions(change(make_predictions()))
    with pytest.raises(InputError, match=message):
        evaluate(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_probabilities_that_do_not_sum_to_one_are_named_by_row(
    make_predictions, write_predictions, tmp_path
):
    table = make_predictions()
    table.loc[7, "kl_prob_0"] = min(1.0, table.loc[7, "kl_prob_0"] + 0.3)
    with pytest.raises(TableError, match=r"row\(s\) 7: the first sum is 1.3"):
        evaluate(write_predictions(table), tmp_path / "out")


def test_missing_file_missing_column_and_absent_outcome_say_what_is_wrong(
    make_predictions, write_predictions, tmp_path
):
    with pytest.raises(InputError, match="not there"):
        evaluate(tmp_path / "none.parquet", tmp_path / "out")
    table = make_predictions()
    table.drop(columns="status").to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(TableError, match="column status is missing"):
        evaluate(tmp_path / "short.csv", tmp_path / "out")
    with pytest.raises(InputError, match="tkr and tkr_prob"):
        evaluate(write_predictions(table), tmp_path / "out", outcomes=["tkr"])
    with pytest.raises(ConfigError, match="outcomes"):
        evaluate(write_predictions(table), tmp_path / "out", outcomes=["jsl"])
    assert not (tmp_path / "out").exists()


def test_an_earlier_evaluation_is_kept_unless_told_otherwise(
    make_predictions, write_predictions, tmp_path, without_figures
):
    path = write_predictions(make_predictions())
    evaluate(path, tmp_path / "out", n_boot=0)
    with pytest.raises(OutputExistsError):
        evaluate(path, tmp_path / "out", n_boot=0)
    evaluate(path, tmp_path / "out", n_boot=0, overwrite=True)


def test_a_cohort_of_other_knees_is_refused(
    make_predictions, make_cohort, write_predictions, write_cohort, tmp_path
):
    """As one whose ids were hashed with another key: no factor, and no look would be logged."""
    path = write_predictions(make_predictions())
    other = make_cohort()
    other["knee_id"] = other["knee_id"].str.replace("made-up", "other")
    with pytest.raises(InputError, match="none of the knees"):
        evaluate(path, tmp_path / "out", cohort=write_cohort(other))
    assert not (tmp_path / "out").exists()
