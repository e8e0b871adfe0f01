"""Calibration in training runs: what they report, what they leave, and when they refrain."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kneeoa_mm import schemas, tables
from kneeoa_mm.config import load_config
from kneeoa_mm.errors import ModelFolderError
from kneeoa_mm.learning import calibration
from kneeoa_mm.learning.calibration import at_temperature, cross_fit
from kneeoa_mm.learning.conformal import SetRule
from kneeoa_mm.learning.ensemble import EnsembleRules
from kneeoa_mm.learning.inference import predict_knees
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.settings import PretrainKLConfig

PROBABILITIES = [f"kl_prob_{grade}" for grade in range(5)]


def train(data, run, *sets):
    small = [
        "members=[{backbone: simple_cnn, image_size_px: 40}]",
        "train.lr=2e-3",
        "train.batch_size=16",
        "train.epochs=3",
        "train.select_by=last",
    ]
    config = load_config(PretrainKLConfig, sets=[*small, *sets])
    pretrain_kl(data, run, config=config, device="cpu")
    return tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)


def rules_of(run):
    return json.loads((run / "ensemble.json").read_text())


@pytest.fixture(scope="module")
def knees(tmp_path_factory, knee_of_grade):
    """Both knees of 45 persons, and one knee each of 15 strangers."""
    folder = tmp_path_factory.mktemp("knees")
    generator = np.random.default_rng(0)
    for number in range(60):
        grade, part = number % 5, "graded" if number < 45 else "strangers"
        for side in "LR" if number < 45 else "L":
            place = folder / part / str(grade) / f"{9000000 + number}{side}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(knee_of_grade(grade, generator)).save(place)
    return folder


@pytest.fixture(scope="module")
def crossed(knees):
    """A run of three folds, and its out-of-fold predictions."""
    sets = ("cross_validate=true", "folds=3", "conformal_alpha=0.2")
    return knees / "crossed", train(knees / "graded", knees / "crossed", *sets)


@pytest.fixture
def own_copy(crossed, tmp_path):
    """The same run, to be tampered with."""
    return shutil.copytree(crossed[0], tmp_path / "run")


@pytest.fixture
def strangers(knees):
    return read_knees(knees / "strangers")


def test_a_cross_validated_run_reports_cross_fitted_sets_and_stores_what_all_folds_taught(
    knees, crossed
):
    run, reported = crossed
    table = read_knees(knees / "graded")
    rules = rules_of(run)
    assert rules["conformal"] | {"threshold": None} == {
        "method": "lac",
        "alpha": 0.2,
        "threshold": None,
        "n_knees": len(table),
        "n_subjects": table["subject_id"].nunique(),
    }
    assert rules["calibrated_on"] == "out of fold"
    assert sorted(rules["by_fold"]) == ["0", "1", "2"]
    assert all(
        str(grade) in grades.split(";")
        for grade, grades in zip(reported["kl_grade_pred"], reported["kl_set"], strict=True)
    )
    provenance = tables.read_provenance(run / "predictions.parquet")
    assert provenance["calibration"] == "each knee by the other folds"

    # by hand: take the temperature out again, and cross-fit what remains
    folds = tables.read_table(run / "folds.parquet", schemas.FOLDS).set_index("subject_id")["fold"]
    fold = reported["subject_id"].map(folds).to_numpy()
    used = np.array([rules["by_fold"][str(k)]["temperature"] for k in fold])
    raw = at_temperature(reported[PROBABILITIES].to_numpy(), 1 / used)
    again = cross_fit(
        raw[None],
        reported["kl_grade"].to_numpy(np.int64),
        reported["subject_id"].to_numpy(),
        fold,
        SetRule(alpha=0.2),
    )
    for name, taught in again.by_part.items():
        assert taught.temperature == pytest.approx(rules["by_fold"][str(name)]["temperature"], 1e-3)
    assert again.whole.temperature == pytest.approx(rules["temperature"], 1e-3)
    assert again.whole.conformal.threshold == pytest.approx(rules["conformal"]["threshold"], 1e-3)


def test_prediction_rebuilds_the_out_of_fold_table_sets_and_all(knees, crossed):
    run, reported = crossed
    again, _ = predict_knees(load_ensemble(run), read_knees(knees / "graded"), device="cpu")
    left, right = (table.set_index("knee_id").sort_index() for table in (reported, again))
    pd.testing.assert_frame_equal(left[PROBABILITIES], right[PROBABILITIES], atol=1e-5)
    assert (left["kl_set"] == right["kl_set"]).all()
    folds = tables.read_table(run / "folds.parquet", schemas.FOLDS).set_index("subject_id")["fold"]
    for table in (left, right):
        assert (table["fold"] == table["subject_id"].map(folds)).all(), "each knee says its fold"


def test_new_knees_get_the_temperature_and_the_sets_that_all_folds_taught(crossed, strangers):
    run, _ = crossed
    calibrated, _ = predict_knees(load_ensemble(run), strangers, device="cpu")
    assert "fold" not in calibrated, "members of all folds spoke"
    member = run / "members" / "00-simple_cnn-fold0"
    alone, _ = predict_knees(load_ensemble(member), strangers, device="cpu")
    assert "kl_set" not in alone, "a member by itself was never calibrated"
    members = [
        predict_knees(load_ensemble(folder), strangers, device="cpu")[0][PROBABILITIES].to_numpy()
        for folder in sorted((run / "members").iterdir())
    ]
    rules = rules_of(run)
    expected = at_temperature(np.array(members), rules["temperature"]).mean(axis=0)
    np.testing.assert_allclose(calibrated[PROBABILITIES].to_numpy(), expected, atol=1e-6)
    included = 1 - expected <= rules["conformal"]["threshold"]
    for row, grades in zip(included, calibrated["kl_set"], strict=True):
        assert set(np.flatnonzero(row).astype(str)) <= set(grades.split(";"))


def test_a_run_of_before_calibration_predicts_as_before(own_copy, strangers):
    run = own_copy
    rules = {name: rules_of(run)[name] for name in ("voting", "test_time_flip", "test_time_crops")}
    (run / "ensemble.json").write_text(json.dumps(rules))
    before, _ = predict_knees(load_ensemble(run), strangers, device="cpu")
    (run / "ensemble.json").unlink()
    without, _ = predict_knees(load_ensemble(run), strangers, device="cpu")
    pd.testing.assert_frame_equal(before, without)
    assert "kl_set" not in before


def test_a_run_that_lost_or_got_a_member_is_refused(own_copy):
    """The temperature and the sets are those of all members together."""
    first, *_, last = sorted((own_copy / "members").iterdir())
    added = shutil.copytree(first, own_copy / "members" / "more")
    with pytest.raises(ModelFolderError, match="not of the run: more"):
        load_ensemble(own_copy)
    shutil.rmtree(added)
    assert len(load_ensemble(own_copy).members) == 3
    shutil.rmtree(last)
    with pytest.raises(ModelFolderError, match=f"missing: {last.name}"):
        load_ensemble(own_copy)
    assert len(load_ensemble(first).members) == 1, "a member by itself is a model"


def test_an_unreadable_knee_has_no_set(knees, crossed, tmp_path):
    folder = shutil.copytree(knees / "strangers", tmp_path / "strangers")
    next(folder.rglob("*.png")).write_bytes(b"")
    predictions, _ = predict_knees(load_ensemble(crossed[0]), read_knees(folder), device="cpu")
    lost = predictions["status"] == "unreadable"
    assert lost.sum() == 1
    assert (predictions["kl_set"].isna() == lost).all()


def test_a_run_with_too_few_validation_knees_is_left_uncalibrated_and_says_so(
    graded_folder, tmp_path, capsys
):
    predictions = train(graded_folder, tmp_path / "run")
    assert "kl_set" not in predictions
    rules = rules_of(tmp_path / "run")
    assert rules == EnsembleRules(members=rules["members"]).model_dump(mode="json")
    assert "too few knees to calibrate" in capsys.readouterr().err
    provenance = tables.read_provenance(tmp_path / "run" / "predictions.parquet")
    assert provenance["calibration"] == "none"


def test_halves_of_a_validation_part_calibrate_each_other(graded_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "MIN_KNEES", 10)
    run = tmp_path / "run"
    predictions = train(graded_folder, run, "conformal_alpha=0.3", "conformal_method=aps")
    rules = rules_of(run)
    assert rules["calibrated_on"] == "validation"
    assert rules["by_fold"] == {}
    assert (rules["conformal"]["n_knees"], rules["conformal"]["n_subjects"]) == (30, 15)
    provenance = tables.read_provenance(run / "predictions.parquet")
    assert provenance["calibration"] == "each knee by the other half of the subjects"
    whole, _ = predict_knees(load_ensemble(run), read_knees(graded_folder / "val"), device="cpu")
    both = predictions.merge(whole, on="knee_id", suffixes=("", "_whole"))
    assert not np.allclose(both["kl_prob_0"], both["kl_prob_0_whole"])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"voting": "loud"}',
        '{"temperature": -1}',
        '{"conformal": {"threshold": 0.5}}',
        '{"voting": "mix", "rule_of_a_later_version": 1}',
    ],
)
def test_rules_that_cannot_be_obeyed_are_refused(own_copy, text):
    (own_copy / "ensemble.json").write_text(text)
    with pytest.raises(ModelFolderError, match="rules of the ensemble"):
        load_ensemble(own_copy)
