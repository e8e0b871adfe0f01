"""Bad input for graders: what contradicts itself is refused, what runs out says what to do."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from kneeoa_mm import schemas, tables
from kneeoa_mm.cli import app
from kneeoa_mm.errors import InputError, KneeOAError, LeakError
from kneeoa_mm.learning.inference import predict_knees
from kneeoa_mm.learning.memory import enough_memory
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.sources import read_knees

TINY = (
    *("--set", "members=[{backbone: simple_cnn, image_size_px: 32}]"),
    *("--set", "train.epochs=1", "--set", "train.batch_size=8", "--device", "cpu"),
)


def knees_in(folder, *names):
    generator = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (32, 32), dtype=np.uint8)).save(path)
    return folder


def pretrain(*arguments):
    result = CliRunner().invoke(app, ["pretrain-kl", *map(str, arguments)])
    return result.exit_code, result.stderr


def test_a_knee_with_two_grades_is_refused(tmp_path):
    data = knees_in(tmp_path / "data", "train/1/7L.png", "train/2/7L.png", "train/2/7R.png")
    with pytest.raises(InputError, match=r"two grades(.|\n)*7L"):
        read_knees(data)


def test_a_knee_by_two_names_with_two_grades_is_refused(tmp_path):
    data = knees_in(tmp_path / "data", "1/7L.png", "2/7_2.png")
    with pytest.raises(InputError, match="two grades"):
        read_knees(data)


def test_names_without_a_subject_may_stand_in_several_grades(tmp_path):
    data = knees_in(tmp_path / "data", "1/1.png", "2/1.png")
    assert read_knees(data, allow_ungrouped=True)["kl_grade"].tolist() == [1, 2]


def test_a_table_that_splits_a_subject_is_refused(tmp_path):
    rows = {
        "knee_id": ["-:1:0:L", "-:1:0:R"],
        "subject_id": ["1", "1"],
        "laterality": ["L", "R"],
        "image_path": ["a.png", "b.png"],
        "kl_grade": [0, 1],
        "split": ["train", "val"],
    }
    pd.DataFrame(rows).to_csv(tmp_path / "knees.csv", index=False)
    with pytest.raises(LeakError, match="both train and val"):
        read_knees(tmp_path / "knees.csv")


def anonymised(folder, **columns):
    """A table of knees without subjects, as of films whose headers are blanked."""
    names = [f"{number}.png" for number in range(30)]
    knees_in(folder, *names)
    rows = {
        "knee_id": ["-:-:-:R", *(f"-:-:-:R:{copy}" for copy in range(2, 31))],
        "subject_id": "-",
        "laterality": "R",
        "image_path": names,
        "kl_grade": [number % 5 for number in range(30)],
        **columns,
    }
    pd.DataFrame(rows).to_csv(folder / "knees.csv", index=False)
    return folder / "knees.csv"


def test_knees_of_nobody_are_learnt_from_only_where_that_is_allowed(tmp_path):
    """As one person they would all fall into one fold, and be known wherever they are met."""
    table, run = anonymised(tmp_path / "data"), tmp_path / "run"
    folds = ("--set", "cross_validate=true", "--set", "folds=3")
    code, error = pretrain("--data", table, "--out", run, *TINY, *folds)
    assert code == 3
    assert "30 of 30 knees without" in error
    assert "--allow-ungrouped" in error
    assert not run.exists()
    code, error = pretrain("--data", table, "--out", run, *TINY, *folds, "--allow-ungrouped")
    assert code == 0, error
    ensemble, knees = load_ensemble(run), read_knees(table, allow_ungrouped=True)
    for member in ensemble.members:
        assert len(member.card.seen_subjects.training) >= 10, "each knee is a person"
    predicted, _ = predict_knees(ensemble, knees, device="cpu")
    assert set(predicted["subject_id"]) == {"-"}
    assert not predicted["seen_in_training"].any(), "nobody can tell"


def test_the_unknown_subject_may_stand_in_several_parts(tmp_path):
    table = anonymised(tmp_path / "data", split=["train", "val", "test"] * 10)
    assert read_knees(table)["split"].value_counts().to_dict() == dict.fromkeys(
        ("train", "val", "test"), 10
    )


def test_a_grade_that_a_fold_lacks_is_no_obstacle(tmp_path):
    """One person alone has grade 4, so two folds of three train or test without it."""
    names = [f"{0 if n else 4}/{n}{side}.png" for n in range(9) for side in "LR"]
    data = knees_in(tmp_path / "data", *names)
    for select_by in ("auroc", "last"):
        out = tmp_path / select_by
        code, error = pretrain(
            *("--data", data, "--out", out, *TINY, "--set", "cross_validate=true"),
            *("--set", "folds=3", "--set", f"train.select_by={select_by}"),
            *("--set", "balance=weights"),
        )
        assert code == 0, error
        predictions = tables.read_table(out / "predictions.parquet", schemas.PREDICTIONS)
        assert len(predictions) == 18
        assert predictions["kl_prob_4"].notna().all()


def test_a_loss_that_is_no_number_stops_the_run_with_advice(tmp_path):
    names = [f"{part}/{n % 5}/{part}{n}L.png" for part in ("train", "val") for n in range(16)]
    data = knees_in(tmp_path / "data", *names)
    code, error = pretrain(
        *("--data", data, "--out", tmp_path / "run", *TINY),
        *("--set", "train.lr=1e30", "--set", "train.epochs=3"),
    )
    assert code == 1
    assert "The loss is not a number any more" in error
    assert "train.lr" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "ensemble.json").exists(), "a broken run does not look whole"


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["python", "gpu", "cpu"])
def test_memory_that_runs_out_in_training_names_the_batch_size(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("kneeoa_mm.learning.members.fit", fail)
    names = [f"{part}/{n % 5}/{part}{n}L.png" for part in ("train", "val") for n in range(10)]
    data = knees_in(tmp_path / "data", *names)
    code, said = pretrain("--data", data, "--out", tmp_path / "run", *TINY)
    assert code == 1
    assert "not enough memory" in said
    assert "lower train.batch_size" in said
    assert "This is a fault of kneeoa-mm" not in said


def test_a_real_allocation_that_is_too_large_is_told_as_memory():
    with pytest.raises(KneeOAError, match="not enough memory"), enough_memory("buy more"):
        torch.empty(2**60, dtype=torch.uint8)


def test_another_fault_is_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("buy more"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize("start", [b"\x80\x04\x95", b"PK\x03\x04"], ids=["pickle", "torch.save"])
def test_a_pickle_that_poses_as_weights_is_refused_and_never_run(tmp_path, start):
    """Even where the card vouches for its bytes."""
    import hashlib
    import json

    from kneeoa_mm.errors import ModelFolderError
    from kneeoa_mm.learning.models import load_model

    posing = start + b"c__builtin__\nexec\n(V1/0\ntR."
    (tmp_path / "weights.safetensors").write_bytes(posing)
    card = {
        "architecture": {"network": "kl", "backbone": "simple_cnn"},
        "kind": "kl",
        "outputs": ["kl_prob_0"],
        "preprocessing": {
            "image_size_px": 32,
            "mean": 0.5,
            "std": 0.5,
            "clip_percentiles": [1, 99],
            "reinvert_negatives": True,
        },
        "seen_subjects": {"salt": "00", "training": [], "selection": []},
        "weights_sha256": hashlib.sha256(posing).hexdigest(),
    }
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelFolderError, match="no safetensors file"):
        load_model(tmp_path)
