"""The training stages end to end on knees that a tiny network can grade."""

import json
import shutil
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from kneeoa_mm import schemas, tables
from kneeoa_mm.config import load_config
from kneeoa_mm.errors import ConfigError, InputError, LeakError, OutputExistsError
from kneeoa_mm.learning import image_store, inference, training
from kneeoa_mm.learning.dataset import load_images
from kneeoa_mm.learning.inference import predict_knees
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.learning.saliency.explain import explain
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.learning.train_jsl import train_jsl
from kneeoa_mm.records import Outcome
from kneeoa_mm.settings import PretrainKLConfig, TrainJSLConfig

SMALL = [
    "members=[{backbone: simple_cnn, image_size_px: 40}]",
    "train.lr=2e-3",
    "train.batch_size=16",
]


def kl_config(*sets):
    return load_config(PretrainKLConfig, sets=[*SMALL, *sets])


def weights(run):
    (path,) = run.glob("members/*/weights.safetensors")
    return load_file(path)


def test_a_grader_learns_and_leaves_a_whole_run(graded_folder, tmp_path):
    run = tmp_path / "run"
    result = pretrain_kl(graded_folder, run, config=kl_config("train.epochs=12"), device="cpu")
    predictions = tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)
    val = read_knees(graded_folder / "val")
    assert sorted(predictions["knee_id"]) == sorted(val["knee_id"]), "validation knees alone"
    assert (predictions["kl_grade"] == predictions["kl_grade_pred"]).mean() > 0.6
    assert not predictions["seen_in_training"].any()
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 13))
    assert {
        "train_loss",
        "val_loss",
        "val_accuracy",
        "val_precision",
        "val_recall",
        "val_auroc",
    } <= {*history}
    assert result.failed == 0
    assert {path.name for path in run.iterdir()} == {
        "config.yaml",
        "ensemble.json",
        "history.csv",
        "history.png",
        "history.svg",
        "inputs.json",
        "members",
        "predictions.parquet",
    }


class Interrupted(BaseException):
    """Stands for a kill at the end of an epoch."""


EVERYTHING_AT_ONCE = (
    "train.stages.1={schedule: one_cycle, trainable: 6}",
    "train.ema_decay=0.9",
    "train.select_by=last",
    "train.augment.mixup=0.4",
    "train.kl_loss=corn",
    "balance=sampling",
    "members.0.dropout=0.2",
)


@pytest.mark.parametrize("recipe", [("train.stages.1.schedule=cosine",), EVERYTHING_AT_ONCE])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    graded_folder, tmp_path, monkeypatch, epoch, recipe
):
    config = kl_config("train.epochs=4", *recipe)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pretrain_kl(graded_folder, whole, config=config, device="cpu")

    stop_if_stale = training.Recorder._stop_if_stale

    def interrupt(self, trainer):
        stop_if_stale(self, trainer)
        if len(self._record.history) == epoch:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(training.Recorder, "_stop_if_stale", interrupt)
        with pytest.raises(Interrupted):
            pretrain_kl(graded_folder, broken, config=config, device="cpu")
    torch.manual_seed(99)  # a new process has another random state
    pretrain_kl(graded_folder, broken, config=config, device="cpu", resume=True)

    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(broken)[name]), name
    left, right = (
        pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (whole, broken)
    )
    pd.testing.assert_frame_equal(left, right)
    left, right = (pd.read_parquet(run / "predictions.parquet") for run in (whole, broken))
    pd.testing.assert_frame_equal(left, right)


@pytest.mark.parametrize(("trainable", "moved"), [("head", 0), (3, 3), (10, 10), ("all", 10)])
def test_a_stage_moves_its_last_layers_alone(graded_folder, tmp_path, trainable, moved):
    """Of the ten convolutions and normalisations of the small network, statistics included."""
    run = tmp_path / "run"
    config = kl_config("train.epochs=1", f"train.stages=[{{trainable: {trainable}}}]")
    torch.manual_seed(config.seed)
    before = KLNetwork("simple_cnn").state_dict()
    pretrain_kl(graded_folder, run, config=config, device="cpu")
    changed = {name for name, value in weights(run).items() if not torch.equal(value, before[name])}
    layers = [f"encoder.backbone.features.{n}." for n in range(15) if n % 3 != 2]
    assert [any(n.startswith(layer) for n in changed) for layer in layers] == [
        number >= 10 - moved for number in range(10)
    ]
    assert "kl_head.weight" in changed


def test_without_a_choice_the_last_epoch_is_kept_and_every_fold_is_tested(graded_folder, tmp_path):
    run = tmp_path / "run"
    sets = ("train.epochs=2", "train.select_by=last", "cross_validate=true", "folds=3")
    pretrain_kl(graded_folder, run, config=kl_config(*sets), device="cpu")
    history = pd.read_csv(run / "history.csv")
    assert not [name for name in history if name.startswith("val_")]
    members = load_ensemble(run).members
    assert [member.card.seen_subjects.selection for member in members] == [()] * 3
    subjects = set(read_knees(graded_folder)["subject_id"])
    predictions = tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)
    for member in members:
        known = member.card.seen_subjects.in_training(subjects)
        assert 0.6 * len(subjects) <= len(known) <= 0.7 * len(subjects)
    assert len(predictions) == len(read_knees(graded_folder))
    assert {member.card.software["torch"] for member in members} == {metadata.version("torch")}


def test_the_averaged_weights_are_the_ones_that_are_kept(graded_folder, tmp_path):
    """At a rate of which a step is a leap, the average moves less far than the weights."""
    sets = ("train.epochs=1", "train.stages=[{trainable: head}]", "train.lr=0.1")
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    torch.manual_seed(0)
    start = KLNetwork("simple_cnn").state_dict()["kl_head.weight"]
    pretrain_kl(graded_folder, plain, config=kl_config(*sets), device="cpu")
    smooth = kl_config(*sets, "train.ema_decay=0.9")
    pretrain_kl(graded_folder, averaged, config=smooth, device="cpu")
    left, right = (weights(run)["kl_head.weight"] - start for run in (plain, averaged))
    assert 0 < right.norm() < left.norm()


def test_a_stage_that_gets_no_better_stops_and_the_next_one_begins(graded_folder, tmp_path):
    """At a rate that moves nothing, the first epoch of the run is the best."""
    sets = ("train.epochs=12", "train.patience=2", "train.lr=1e-12", "train.select_by=accuracy")
    stages = "train.stages=[{trainable: head, epochs: 6}, {trainable: all}]"
    pretrain_kl(graded_folder, tmp_path / "run", config=kl_config(*sets, stages), device="cpu")
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["stage"].tolist() == [1, 1, 1, 2, 2]
    (member,) = load_ensemble(tmp_path / "run").members
    assert member.card.metrics["epoch"] == 1


def test_a_run_that_averages_over_mirror_images_says_the_same_of_both(graded_folder, tmp_path):
    """And a run without it does not."""
    knees = read_knees(graded_folder / "val")
    mirrored = knees.assign(mirror=~knees["mirror"])
    columns = [f"kl_prob_{grade}" for grade in range(5)]
    differences = {}
    for flip in (True, False):
        run = tmp_path / str(flip)
        config = kl_config("train.epochs=1", f"test_time_flip={str(flip).lower()}")
        pretrain_kl(graded_folder, run, config=config, device="cpu")
        as_it_is, turned = (
            predict_knees(load_ensemble(run), each, device="cpu")[0].set_index("knee_id")[columns]
            for each in (knees, mirrored)
        )
        differences[flip] = float((as_it_is - turned).abs().to_numpy().max())
    assert differences[True] < 1e-6 < 1e-4 < differences[False]


def test_a_taken_folder_is_refused_before_any_work(graded_folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.txt").touch()
    with pytest.raises(OutputExistsError):
        pretrain_kl(graded_folder, run, config=kl_config())
    assert [path.name for path in run.iterdir()] == ["thesis.txt"]


def test_an_ungraded_folder_an_unknown_backbone_and_absent_weights_stop_before_any_output(
    graded_folder, tmp_path
):
    flat = tmp_path / "flat"
    flat.mkdir()
    for image in (graded_folder / "train" / "0").iterdir():
        shutil.copy(image, flat)
    with pytest.raises(InputError, match="None of the knees has a KL grade"):
        pretrain_kl(flat, tmp_path / "run", config=kl_config())
    unknown = kl_config("members.0.backbone=nonet")
    with pytest.raises(ConfigError, match="no such backbone"):
        pretrain_kl(graded_folder, tmp_path / "run", config=unknown)
    weightless = kl_config("members.0.weights=absent.safetensors")
    with pytest.raises(InputError, match="not there"):
        pretrain_kl(graded_folder, tmp_path / "run", config=weightless)
    assert not (tmp_path / "run").exists()


def test_the_recipe_states_the_field_of_view_and_what_cannot_tell_its_own_is_used_whole(
    graded_folder, tmp_path
):
    blind, stated = tmp_path / "blind", tmp_path / "stated"
    frame = ("field_of_view_plateau_widths=1.25", "joint_row=0.58")
    pretrain_kl(graded_folder, blind, config=kl_config("train.epochs=1"), device="cpu")
    result = pretrain_kl(
        graded_folder, stated, config=kl_config("train.epochs=1", *frame), device="cpu"
    )
    (member,) = load_ensemble(stated).members
    contract = member.card.preprocessing
    assert (contract.field_of_view_plateau_widths, contract.joint_row) == (1.25, 0.58)
    assert any("used whole" in note for note in result.notes)
    before, after = weights(blind), weights(stated)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_averaging_over_crops_belongs_to_the_run_and_changes_what_it_says(graded_folder, tmp_path):
    run = tmp_path / "run"
    config = kl_config("train.epochs=2", "test_time_crops=10")
    pretrain_kl(graded_folder, run, config=config, device="cpu")
    reported = tables.read_table(run / "predictions.parquet", schemas.PREDICTIONS)
    columns = ["knee_id", *(f"kl_prob_{grade}" for grade in range(5))]

    def again():
        knees = read_knees(graded_folder / "val")
        return predict_knees(load_ensemble(run), knees, device="cpu")[0][columns]

    averaged = again()
    pd.testing.assert_frame_equal(
        averaged.sort_values("knee_id", ignore_index=True),
        reported[columns].sort_values("knee_id", ignore_index=True),
        atol=1e-5,
    )
    rules = json.loads((run / "ensemble.json").read_text())
    (run / "ensemble.json").write_text(json.dumps(rules | {"test_time_crops": 0}))
    difference = (again()[columns[1:]] - averaged[columns[1:]]).abs().to_numpy()
    assert 1e-4 < difference.max() < 0.5


def test_a_grader_of_close_crops_grades_wide_ones_alike(graded_folder, tmp_path, knee_of_grade):
    """Knees set into twice the field of view are cut back to it, row by row."""
    run = tmp_path / "run"
    frame = ("field_of_view_plateau_widths=1.25", "joint_row=0.5")
    pretrain_kl(graded_folder, run, config=kl_config("train.epochs=12", *frame), device="cpu")
    generator = np.random.default_rng(5)
    rows = []
    for number in range(40):
        close = knee_of_grade(number % 5, generator)
        wide = np.zeros((80, 80), dtype=np.uint8)
        wide[20:60, 20:60] = close
        shown = {"close": (close, None), "wide": (wide, 2.5), "mistaken": (wide, None)}
        for name, (pixels, field_of_view) in shown.items():
            Image.fromarray(pixels).save(tmp_path / f"{number}-{name}.png")
            row = {
                "knee_id": f"{name}:{number}:0:R",
                "subject_id": str(number),
                "laterality": "R",
                "image_path": f"{number}-{name}.png",
                "field_of_view_plateau_widths": field_of_view,
            }
            rows.append(row)
    table = tables.write_table(pd.DataFrame(rows), schemas.KNEES, tmp_path / "knees.parquet")
    predictions, _ = predict_knees(load_ensemble(run), read_knees(table), device="cpu")
    kind = predictions["knee_id"].str.split(":").str[0]
    grades = {name: part["kl_grade_pred"].to_numpy() for name, part in predictions.groupby(kind)}
    assert (grades["wide"] == grades["close"]).all()
    assert (grades["mistaken"] != grades["close"]).any()
    framing = predictions.groupby(kind)["framing"].unique().str[0]
    assert framing.to_dict() == {"close": "whole", "mistaken": "whole", "wide": "matched"}


def test_a_damaged_image_is_listed_and_the_run_goes_on(graded_folder, tmp_path):
    victim = next((graded_folder / "train" / "0").iterdir())
    victim.write_bytes(b"")
    run = tmp_path / "run"
    result = pretrain_kl(graded_folder, run, config=kl_config("train.epochs=1"), device="cpu")
    assert result.failed == 1
    assert pd.read_csv(run / "rejects.csv")["source"].tolist() == [victim.name]


def jsl(study, out, *sets, **arguments):
    sets = [
        "train.lr=1e-2",
        "train.epochs=12",
        "train.batch_size=16",
        "train.stages=[{trainable: head}]",
        "clinical_factors=[age_years, sex]",
        *sets,
    ]
    config = load_config(TrainJSLConfig, sets=sets)
    paths = {name: study / name for name in ("cohort", "knees")}
    return train_jsl(
        **paths, encoder=study / "kl", out=out, config=config, device="cpu", **arguments
    )


def auroc(result):
    (title,) = (title for title in result.figures if title.startswith("jsl_48m,"))
    return result.figures[title]["auroc"]


def test_fusion_finds_what_only_the_clinical_table_tells(study, tmp_path):
    fused = jsl(study, tmp_path / "fused", "fuse_clinical=true")
    image = jsl(study, tmp_path / "image")
    assert auroc(fused) > 0.9
    assert auroc(image) < 0.8
    predictions = tables.read_table(tmp_path / "fused" / "predictions.parquet", schemas.PREDICTIONS)
    assert len(predictions) == 96, "knees without the outcome are predicted too"
    assert "kl_set" not in predictions, "progression models are not calibrated"
    assert predictions["jsl_48m"].isna().sum() == 8


def test_each_knee_is_scored_by_members_that_never_saw_its_subject(study):
    ensemble = load_ensemble(study / "kl")
    knees = read_knees(study / "knees")
    for member in ensemble.members:
        seen = member.card.seen_subjects
        subjects = set(knees["subject_id"])
        assert seen.in_training(subjects) | seen.in_selection(subjects) < subjects
    again, _ = predict_knees(ensemble, knees, device="cpu")
    assert not again["seen_in_training"].any()
    reported = tables.read_table(study / "kl" / "predictions.parquet", schemas.PREDICTIONS)
    columns = [f"kl_prob_{grade}" for grade in range(5)]
    pd.testing.assert_frame_equal(
        again.set_index("knee_id").sort_index()[columns],
        reported.set_index("knee_id").sort_index()[columns],
        atol=1e-5,
    )


def test_many_knees_are_read_a_few_at_a_time_and_graded_as_all_at_once(study, monkeypatch):
    """One that is not there among them. The images of 100,000 knees would be 10 GB."""
    ensemble, knees = load_ensemble(study / "kl"), read_knees(study / "knees").head(20)
    knees.loc[knees.index[7], "image_path"] = str(study / "absent.png")
    whole, rejects = predict_knees(ensemble, knees, device="cpu")
    held = []

    def count(some, contract):
        held.append(len(some))
        return load_images(some, contract)

    monkeypatch.setattr(image_store, "load_images", count)
    monkeypatch.setattr(inference, "_AT_ONCE", 6)
    again, rejects_again = predict_knees(ensemble, knees, device="cpu")
    assert held == [6, 6, 6, 2]
    pd.testing.assert_frame_equal(again, whole, atol=1e-6)
    assert rejects_again == rejects
    assert [reject.source for reject in rejects] == ["absent.png"]


def test_an_encoder_that_saw_the_fold_is_refused(study, tmp_path):
    folds = tables.read_table(study / "cohort" / "folds.parquet", schemas.FOLDS)
    other = folds.assign(fold=np.arange(len(folds)) % 3)
    path = tables.write_table(other, schemas.FOLDS, tmp_path / "other.parquet")
    with pytest.raises(LeakError, match="same folds"):
        jsl(study, tmp_path / "run", folds=path)
    assert not (tmp_path / "run").exists()


def test_an_outcome_without_values_is_refused(study, tmp_path):
    config = load_config(TrainJSLConfig, flags={"outcome": Outcome.TKR})
    with pytest.raises(InputError, match="No knee has both an image and the outcome tkr"):
        train_jsl(study / "cohort", study / "knees", study / "kl", tmp_path / "run", config=config)


def test_a_progression_model_sees_what_its_encoder_saw(study, tmp_path):
    """All knees show 2.5 widths, the encoder wants 1.25: both heads get the inner half."""
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    knees = tables.read_table(folder / "knees" / "knees.parquet", schemas.KNEES)
    knees["field_of_view_plateau_widths"] = 2.5
    tables.write_table(knees, schemas.KNEES, folder / "knees" / "knees.parquet")
    pretrain_kl(
        folder / "knees",
        folder / "kl",
        config=kl_config("train.epochs=1", "field_of_view_plateau_widths=1.25"),
        cohort=folder / "cohort",
        folds=folder / "cohort" / "folds.parquet",
        device="cpu",
        overwrite=True,
    )
    jsl(folder, tmp_path / "run", "train.epochs=1")
    (*_, member) = load_ensemble(tmp_path / "run").members
    assert member.card.preprocessing.field_of_view_plateau_widths == 1.25
    reported = tables.read_table(tmp_path / "run" / "predictions.parquet", schemas.PREDICTIONS)
    again, _ = predict_knees(
        load_ensemble(tmp_path / "run"), read_knees(folder / "knees"), device="cpu"
    )
    assert set(again["framing"]) == {"matched"}
    both = reported.merge(again, on="knee_id", suffixes=("", "_again"))
    np.testing.assert_allclose(both["jsl_48m_prob"], both["jsl_48m_prob_again"], atol=1e-5)


def test_the_grade_enters_only_by_its_own_switch(study, tmp_path):
    with pytest.raises(InputError, match="kl_input=read"):
        jsl(study, tmp_path / "a", "fuse_clinical=true", "clinical_factors=[kl_grade]")


def test_saliency_writes_a_picture_a_knee_and_says_how_each_map_went(study, tmp_path):
    result = explain(study / "knees", study / "kl", tmp_path / "maps", limit=3, device="cpu")
    rows = pd.read_csv(tmp_path / "maps" / "saliency.csv")
    assert len(rows) == 9, "each knee by the one member that never met its person"
    assert set(rows["method"]) == {"gradcam", "saliency", "integrated_gradients"}
    assert set(rows["status"]) <= {"ok", "no positive evidence"}
    assert all((tmp_path / "maps" / image).is_file() for image in rows["image"])
    assert result.counts["knees"] == 3
