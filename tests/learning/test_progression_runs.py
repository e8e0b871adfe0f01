"""``train-jsl`` end to end: variants, frozen encoders, hazards, and what it refuses."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kneeoa_mm import schemas, tables
from kneeoa_mm.cohort.build import CohortRun
from kneeoa_mm.cohort_spec import CohortSpec, OutcomesSpec
from kneeoa_mm.config import load_config
from kneeoa_mm.errors import ConfigError, InputError, LeakError
from kneeoa_mm.learning import features, members, training
from kneeoa_mm.learning.inference import predict_knees
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.learning.study import join_cohort, refuse_other_horizon
from kneeoa_mm.learning.train_jsl import train_jsl
from kneeoa_mm.learning.views import Views
from kneeoa_mm.metrics import auroc
from kneeoa_mm.settings import TrainJSLConfig

FACTORS = ("fuse_clinical=true", "clinical_factors=[age_years, sex]")
HAZARD = ("time_head=hazard",)
LONGER = ("train.epochs=25", "train.batch_size=8", "train.select_by=last")


def jsl(study, out, *sets, cohort=None, knees=None, **arguments):
    sets = [
        "train.lr=1e-2",
        "train.epochs=10",
        "train.batch_size=16",
        "train.stages=[{trainable: head}]",
        *sets,
    ]
    config = load_config(TrainJSLConfig, sets=sets)
    return train_jsl(
        cohort or study / "cohort",
        knees or study / "knees",
        study / "kl",
        out,
        config=config,
        device="cpu",
        **arguments,
    )


def reported(run):
    return tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)


def aurocs(result):
    return {
        title.partition(",")[0]: figures["auroc"]
        for title, figures in result.figures.items()
        if title.startswith("jsl_48m")
    }


def changed_cohort(study, folder, change):
    """A copy of the study's cohort with some cells changed."""
    table = tables.read_table(study / "cohort" / "cohort.parquet", schemas.COHORT)
    tables.write_table(change(table), schemas.COHORT, folder / "cohort.parquet")
    folds = tables.read_table(study / "cohort" / "folds.parquet", schemas.FOLDS)
    tables.write_table(folds, schemas.FOLDS, folder / "folds.parquet")
    return folder


@pytest.mark.parametrize(("fusion", "time"), [("concat", ()), ("film", HAZARD), ("late", ())])
def test_each_fusion_finds_what_only_the_clinical_table_tells(study, tmp_path, fusion, time):
    result = jsl(study, tmp_path / "run", *FACTORS, *time, f"fusion={fusion}")
    assert aurocs(result)["jsl_48m"] > 0.9


def test_thirty_per_cent_of_factors_may_be_missing_at_random(study, tmp_path):
    """Those who have it lose nothing, and the others are at the prevalence and not elsewhere."""
    generator = np.random.default_rng(0)
    gaps = set(generator.choice(48, 14, replace=False).astype(str))

    def hide(table):
        return table.assign(sex=table["sex"].mask(table["subject_id"].isin(gaps)))

    cohort = changed_cohort(study, tmp_path / "cohort", hide)
    jsl(study, tmp_path / "run", *FACTORS, cohort=cohort)
    table = reported(tmp_path / "run").dropna(subset="jsl_48m")
    is_hidden = table["subject_id"].isin(gaps)
    seen = table[~is_hidden]
    assert auroc(seen["jsl_48m"].to_numpy(int), seen["jsl_48m_prob"].to_numpy()) > 0.95
    assert table["jsl_48m_prob"][is_hidden].between(0.1, 0.9).mean() > 0.8


def test_a_model_with_the_reading_learns_the_one_without_and_predict_says_which(study, tmp_path):
    run = tmp_path / "run"
    result = jsl(study, run, *FACTORS, "kl_input=read", *HAZARD)
    of_models = {title for title in aurocs(result) if "alone" not in title}
    assert of_models == {"jsl_48m", "jsl_48m without the reading"}
    knees = read_knees(study / "knees")
    table = pd.read_parquet(study / "cohort" / "cohort.parquet").set_index("knee_id")
    clinical = table.loc[knees["knee_id"]].reset_index(drop=True)
    knees["kl_grade"] = clinical["kl_grade"].where(np.arange(len(knees)) % 2 == 0)
    ensemble = load_ensemble(run)
    said, _ = predict_knees(ensemble, knees, clinical=clinical, device="cpu")
    blank, _ = predict_knees(
        ensemble, knees.drop(columns="kl_grade"), clinical=clinical, device="cpu"
    )
    assert said["kl_input"].tolist() == ["read", "none"] * (len(knees) // 2)
    assert set(blank["kl_input"]) == {"none"}
    has_reading = said["kl_input"] == "read"
    out_of_fold = reported(run).set_index("knee_id").loc[said["knee_id"]].reset_index()
    for column in [name for name in said if name.startswith("jsl_48m_")]:
        np.testing.assert_allclose(
            said[column][has_reading], out_of_fold[column][has_reading], atol=1e-5
        )
    without = "jsl_48m_prob_without_reading"
    np.testing.assert_allclose(blank[without], out_of_fold[without], atol=1e-5)
    np.testing.assert_allclose(blank["jsl_48m_prob"], blank[without], atol=1e-6)
    np.testing.assert_allclose(said[~has_reading]["jsl_48m_prob"], said[~has_reading][without])
    assert (said[has_reading]["jsl_48m_prob"] - said[has_reading][without]).abs().max() > 1e-3


def test_a_model_without_the_reading_knows_no_grade_of_the_other_knee(study, tmp_path):
    """As in the recipe `baseline`: whoever read neither knee is told what was validated so."""
    factors = ("fuse_clinical=true", "clinical_factors=[contralateral_kl_grade, age_years]")
    jsl(study, tmp_path / "run", *factors, "kl_input=read", "train.epochs=2")
    knees = read_knees(study / "knees")
    table = pd.read_parquet(study / "cohort" / "cohort.parquet").set_index("knee_id")
    read = table.loc[knees["knee_id"]].reset_index(drop=True)
    ensemble = load_ensemble(tmp_path / "run")
    said, alone = (
        predict_knees(ensemble, knees, clinical=clinical, device="cpu")[0]["jsl_48m_prob"]
        for clinical in (read, read.assign(contralateral_kl_grade=pd.NA))
    )
    out_of_fold = reported(tmp_path / "run").set_index("knee_id").loc[knees["knee_id"]]
    np.testing.assert_array_equal(said, alone)
    np.testing.assert_allclose(said, out_of_fold["jsl_48m_prob_without_reading"], atol=1e-5)
    told = ensemble.members[0].card.without_reading
    assert told == "jsl_48m_prob_without_reading sees: image, age_years; no reading of either knee"


def test_hazards_report_incidences_that_rise_and_end_at_the_horizon(study, tmp_path):
    jsl(study, tmp_path / "run", *FACTORS, *HAZARD, "visits_months=[24, 48, 72]")
    table = reported(tmp_path / "run")
    incidence = table[[f"jsl_48m_cif_{months}" for months in (24, 48, 72)]].to_numpy()
    assert (np.diff(incidence, axis=1) >= -1e-7).all()
    np.testing.assert_allclose(table["jsl_48m_prob"], incidence[:, 1])
    assert len(table) == 96


def test_a_knee_lost_before_the_horizon_counts_for_hazards_and_not_for_the_horizon(study, tmp_path):
    """Half of the men are read free of it at 36 months and lost then."""

    def lose(table):
        lost = table["subject_id"].isin([str(n) for n in range(1, 24, 2)])
        free = {"event_observed": 0, "lower_months": 36.0, "upper_months": np.nan}
        table = table.assign(jsl_48m=table["jsl_48m"].mask(lost))
        return table.assign(
            **{f"jsl_48m_{k}": table[f"jsl_48m_{k}"].mask(lost, v) for k, v in free.items()}
        )

    cohort = changed_cohort(study, tmp_path / "cohort", lose)
    risks = {}
    for name, sets in (("horizon", ()), ("hazard", HAZARD)):
        result = jsl(study, tmp_path / name, *FACTORS, *sets, *LONGER, cohort=cohort)
        table = reported(tmp_path / name)
        men = table["subject_id"].astype(int) % 2 == 1
        risks[name] = table.loc[men, "jsl_48m_prob"].mean()
        assert result.counts["with_outcome"] == (96 if name == "hazard" else 64)
    # half of the men were free to 36 months: by 48 half of them had it, not all
    assert risks["horizon"] > 0.85
    assert 0.3 < risks["hazard"] < 0.75


@pytest.mark.parametrize(("visits", "n_unseen"), [("[24, 48]", 2), ("[24, 48, 72]", 0)])
def test_events_after_the_last_visit_are_not_counted_since_hazards_do_not_see_them(
    study, tmp_path, visits, n_unseen
):
    """One person's knees are free at 48 months and have it at 72."""

    def late(table):
        is_late = table["subject_id"] == "1"
        seen = {"lower_months": 48.0, "upper_months": 72.0}
        return table.assign(
            **{f"jsl_48m_{k}": table[f"jsl_48m_{k}"].mask(is_late, v) for k, v in seen.items()}
        )

    cohort = changed_cohort(study, tmp_path / "cohort", late)
    config = load_config(TrainJSLConfig, sets=[*HAZARD, f"visits_months={visits}"])
    table = tables.read_table(cohort / "cohort.parquet", schemas.COHORT)
    _, counts, _ = join_cohort(read_knees(study / "knees"), cohort, config)
    assert counts["events"] == table["jsl_48m_event_observed"].sum() - n_unseen > 2


def test_a_knee_whose_first_film_was_taken_out_is_seen_on_the_next_one(study):
    """A repeated film is often the better one; of those that are left the first counts."""
    knees = read_knees(study / "knees")
    first, other = knees["knee_id"].iloc[:2]
    only = knees["knee_id"] == first
    named = knees.assign(knee_id=knees["knee_id"].mask(only, f"{first}:2"))
    third = knees[only].assign(knee_id=f"{first}:10", image_path="third.png")
    second = knees[knees["knee_id"] == other].assign(knee_id=f"{other}:2", image_path="second.png")
    left = pd.concat([third, second, named], ignore_index=True)
    joined, counts, notes = join_cohort(left, study / "cohort", TrainJSLConfig())
    whole, *_ = join_cohort(knees, study / "cohort", TrainJSLConfig())
    pd.testing.assert_frame_equal(joined, whole)
    assert (counts["with_image"], notes) == (len(knees), ())


def test_features_of_a_frozen_encoder_are_computed_once_and_predict_says_what_training_reported(
    study, tmp_path, monkeypatch
):
    encoded = []
    plain = features.encode

    def counted(network, images, *arguments, **more):
        encoded.append(len(images))
        return plain(network, images, *arguments, **more)

    monkeypatch.setattr(features, "encode", counted)
    run = tmp_path / "run"
    before = load_ensemble(study / "kl").members[0].network.encoder.state_dict()
    jsl(study, run, *FACTORS, "test_time_crops=10")
    assert encoded == [96] * 3, "once a fold"
    after = load_ensemble(run).members[0].network.encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    clinical = pd.read_parquet(study / "cohort" / "cohort.parquet").set_index("knee_id")
    knees = read_knees(study / "knees")
    factors = clinical.loc[knees["knee_id"]].reset_index(drop=True)
    again, _ = predict_knees(load_ensemble(run), knees, clinical=factors, device="cpu")
    both = reported(run).merge(again, on="knee_id", suffixes=("", "_again"))
    np.testing.assert_allclose(both["jsl_48m_prob"], both["jsl_48m_prob_again"], atol=1e-5)


def test_features_in_a_folder_of_their_own_serve_the_next_run(study, tmp_path, monkeypatch):
    monkeypatch.setenv(features.FEATURES_FOLDER, str(tmp_path / "features"))
    jsl(study, tmp_path / "first", *FACTORS, "train.epochs=1")
    assert len(list((tmp_path / "features").iterdir())) == 3
    # no image is encoded again, neither to learn nor to report
    monkeypatch.setattr(features, "encode", None)
    monkeypatch.setattr(Views, "of", None)
    jsl(study, tmp_path / "second", *FACTORS, "train.epochs=1")
    pd.testing.assert_frame_equal(reported(tmp_path / "first"), reported(tmp_path / "second"))


def test_a_head_trained_on_features_is_the_head_trained_on_still_images(
    study, tmp_path, monkeypatch
):
    still = [f"train.augment.{name}=0" for name in ("rotation_deg", "scale", "translation")]
    still += ["train.augment.contrast=0", "train.augment.brightness=0", "train.epochs=3"]
    still += ["train.select_by=last", "dropout=0"]
    jsl(study, tmp_path / "features", *FACTORS, *still)
    plan = members.Plan

    def unfrozen(*arguments, frozen_encoder, **known):
        return plan(*arguments, **known)

    monkeypatch.setattr("kneeoa_mm.learning.train_jsl.Plan", unfrozen)
    jsl(study, tmp_path / "images", *FACTORS, *still)
    left, right = (
        load_ensemble(tmp_path / name).members[0].network.state_dict()
        for name in ("features", "images")
    )
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], atol=1e-3, rtol=1e-3, msg=name)


def test_learnt_loss_weights_train_and_resume(study, tmp_path, monkeypatch):
    """They travel with the checkpoint: a run that was broken off ends as one that was not."""
    sets = (*FACTORS, "loss_weighting=uncertainty")
    result = jsl(study, tmp_path / "whole", *sets)
    assert aurocs(result)["jsl_48m"] > 0.9
    end_epoch = training.Recorder.on_train_epoch_end

    def interrupt(self, trainer, learner):
        end_epoch(self, trainer, learner)
        if len(self._record.history) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Recorder, "on_train_epoch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            jsl(study, tmp_path / "broken", *sets)
    jsl(study, tmp_path / "broken", *sets, resume=True)
    pd.testing.assert_frame_equal(reported(tmp_path / "whole"), reported(tmp_path / "broken"))


@pytest.mark.parametrize(
    "factor", ["tkr", "jsl_48m_lower_months", "kl_progression", "death_months"]
)
def test_a_factor_that_is_known_only_after_baseline_is_refused(study, tmp_path, factor):
    sets = ("fuse_clinical=true", f"clinical_factors=[sex, {factor}]")
    with pytest.raises(LeakError, match=rf"after baseline(.|\n)*{factor}"):
        jsl(study, tmp_path / "run", *sets)
    assert not (tmp_path / "run").exists()


def test_factors_that_a_cohort_does_not_have_are_named_with_what_to_say(study, tmp_path):
    """As `fta_deg` and `race` in MOST; before anything is written."""
    with pytest.raises(InputError, match=r"race, fta_deg(.|\n)*clinical_factors=\[age_years,sex\]"):
        jsl(
            *(study, tmp_path / "run", "fuse_clinical=true"),
            "clinical_factors=[age_years, race, sex, fta_deg]",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("time", [(), HAZARD])
def test_a_cohort_of_before_an_outcome_was_defined_says_so(study, tmp_path, time):
    with pytest.raises(InputError, match=r"no outcome jsl_or_kr_48m(.|\n)*build the cohort anew"):
        jsl(study, tmp_path / "run", "outcome=jsl_or_kr_48m", *time)


def test_a_fold_that_teaches_one_class_alone_is_named_with_all_others(study, tmp_path):
    cohort = changed_cohort(
        study,
        tmp_path / "cohort",
        lambda table: table.assign(jsl_48m=table["jsl_48m"].mask(table["jsl_48m"] == 1)),
    )
    with pytest.raises(InputError) as caught:
        jsl(study, tmp_path / "run", cohort=cohort)
    for fold in range(3):
        assert f"fold {fold} held out, to train: no knee with jsl_48m" in str(caught.value)


def test_without_any_grade_the_kl_head_has_nothing_to_learn(study, tmp_path):
    cohort = changed_cohort(study, tmp_path / "cohort", lambda table: table.assign(kl_grade=pd.NA))
    with pytest.raises(InputError, match=r"no graded knee(.|\n)*kl_loss_weight=0"):
        jsl(study, tmp_path / "run", cohort=cohort)
    result = jsl(
        study, tmp_path / "run", *FACTORS, "kl_loss_weight=0", "train.epochs=2", cohort=cohort
    )
    assert "jsl_48m" in aurocs(result)


def test_knees_and_images_without_a_partner_are_told(study, tmp_path):
    cohort = changed_cohort(study, tmp_path / "cohort", lambda table: table.iloc[2:])
    result = jsl(study, tmp_path / "run", "train.epochs=1", cohort=cohort)
    (note,) = (note for note in result.notes if "baseline images" in note)
    assert "2 baseline images are of no knee of the cohort" in note
    assert "trial:0:0:L" in note
    seen = [member.card.seen_subjects for member in load_ensemble(tmp_path / "run").members]
    assert sum(each.in_training({"0"}) == {"0"} for each in seen) > 0, "the encoder knows them"


def test_the_test_part_of_the_source_is_set_aside(study, tmp_path):
    cohort = changed_cohort(
        study,
        tmp_path / "cohort",
        lambda table: table.assign(
            split=np.where(table["subject_id"].isin(list("0123")), "Test", "train")
        ),
    )
    result = jsl(study, tmp_path / "run", "train.epochs=1", cohort=cohort)
    assert result.counts["with_image"] == 88
    assert any("8 knees of the source's test part are set aside" in note for note in result.notes)
    table = reported(tmp_path / "run")
    assert not set(table["subject_id"]) & set("0123")
    assert set(table["split"]) == {"train"}


@pytest.mark.parametrize(
    ("sets", "fault"),
    [
        (("visits_months=[24, 12, 48]",), "must rise"),
        (("horizon_months=30",), "one of visits_months"),
        (("train.augment.mixup=0.2",), "mixup"),
    ],
)
def test_bins_of_time_that_make_no_sense_are_refused(sets, fault):
    with pytest.raises(ConfigError, match=fault):
        load_config(TrainJSLConfig, sets=[*HAZARD, *sets])


@pytest.mark.parametrize("time", [HAZARD, ()])
def test_hazards_end_at_the_horizon_at_which_the_cohort_judges(study, tmp_path, time):
    """Otherwise the risk by one time would be judged by the outcome of another."""
    cohort = changed_cohort(study, tmp_path / "cohort", lambda table: table)
    spec = CohortSpec(
        name="trial",
        visits={"V00": 0},
        outcomes=OutcomesSpec(kl_horizon_months=60, tkr_horizon_months=24),
    )
    run = CohortRun(cohort=spec, ids="kept", folds=3, seed=0)
    (cohort / "config.yaml").write_text(run.to_yaml())

    def refused(outcome, *sets):
        config = load_config(TrainJSLConfig, sets=[*time, f"outcome={outcome}", *sets])
        try:
            refuse_other_horizon(cohort, config)
        except ConfigError as error:
            return str(error)
        return ""

    by_60, by_24 = refused("kl_progression"), refused("tkr")
    if not time:
        assert by_60 == by_24 == ""
        return
    assert "kl_progression by 60 months" in by_60
    assert "horizon_months 48" in by_60
    fix = "--set horizon_months=60 --set visits_months=[12,24,36,48,60]"
    assert by_60.endswith(fix)
    assert refused("kl_progression", *fix.replace("--set ", "").split()) == ""
    assert by_24.endswith("--set horizon_months=24")
    assert refused("jsl_48m") == ""
    with pytest.raises(ConfigError, match="kl_progression by 60 months"):
        jsl(study, tmp_path / "run", *time, "outcome=kl_progression", cohort=cohort)
    assert not (tmp_path / "run").exists()


def test_events_of_which_no_image_can_be_read_are_told(study, tmp_path):
    """Not as a fault of the program: the prevalence among the others is 0."""
    knees = tmp_path / "knees"
    shutil.copytree(study / "knees", knees)
    for number in range(1, 48, 2):
        for side in "LR":
            (knees / "images" / f"{number}{side}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no knee with jsl_48m(.|\n)*images that could be read"):
        jsl(study, tmp_path / "run", knees=knees)


def test_the_card_tells_the_variant(study, tmp_path):
    jsl(study, tmp_path / "run", "kl_input=predicted", "train.epochs=1")
    card = json.loads(next((tmp_path / "run").glob("members/*/model.json")).read_text())
    assert card["architecture"]["kl_input"] == "predicted"
    assert "kl_input" not in reported(tmp_path / "run")


def test_the_read_grade_alone_is_told_beside_the_image(study, tmp_path):
    """Oracle: scikit-learn, on the knees that the run reports."""
    result = jsl(study, tmp_path / "run", "train.epochs=1")
    table = reported(tmp_path / "run").dropna(subset=["jsl_48m", "kl_grade"])
    expected = roc_auc_score(table["jsl_48m"].astype(int), table["kl_grade"].astype(float))
    found = aurocs(result)["jsl_48m by the read grade alone"]
    assert found == pytest.approx(expected, abs=1e-4)
