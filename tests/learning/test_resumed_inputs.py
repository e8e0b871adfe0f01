"""A run goes on with what it was begun with, so that nobody is reported by who learnt from them."""

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save_file

from kneeoa_mm import schemas, tables
from kneeoa_mm.config import load_config
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.learning.backbones import build_encoder
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.learning.run_inputs import FOLDS_FILE, INPUTS_FILE
from kneeoa_mm.learning.train_jsl import train_jsl
from kneeoa_mm.settings import PretrainKLConfig, TrainJSLConfig

SMALL = ["members=[{backbone: simple_cnn, image_size_px: 40}]", "train.batch_size=32"]
SHORT = [*SMALL, "train.epochs=1", "train.select_by=last"]


def folds_of(graded_folder, folder, n_folds):
    subjects = sorted({path.stem[:-1] for path in graded_folder.rglob("*.png")})
    folds = pd.DataFrame({"subject_id": subjects, "fold": np.arange(len(subjects)) % n_folds})
    return tables.write_table(folds, schemas.FOLDS, folder / f"{n_folds}.parquet")


def pretrain(data, out, *sets, **options):
    config = load_config(PretrainKLConfig, sets=[*SHORT, *sets])
    return pretrain_kl(data, out, config=config, device="cpu", **options)


@pytest.fixture
def begun(graded_folder, tmp_path):
    """A run on three folds."""
    folds = folds_of(graded_folder, tmp_path, 3)
    pretrain(graded_folder, tmp_path / "run", folds=folds)
    return tmp_path / "run", folds


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_run_is_not_resumed_with_other_folds_or_none(graded_folder, tmp_path, begun, is_noted):
    """Nor is one of an earlier version, whose folder has the folds alone."""
    run, folds = begun
    if not is_noted:
        (run / INPUTS_FILE).unlink()
    before = (run / FOLDS_FILE).read_bytes()
    for other in (None, folds_of(graded_folder, tmp_path, 4)):
        with pytest.raises(InputError, match=r"other inputs(.|\n)*found: .*folds(.|\n)*--folds"):
            pretrain(graded_folder, run, folds=other, resume=True)
    assert (run / FOLDS_FILE).read_bytes() == before
    assert pretrain(graded_folder, run, folds=folds, resume=True).counts["members"] == 3


def test_a_run_is_not_resumed_with_more_images_or_other_grades(graded_folder, tmp_path, begun):
    run, folds = begun
    more, other = tmp_path / "more", tmp_path / "other"
    for folder in (more, other):
        shutil.copytree(graded_folder, folder)
    image = next((graded_folder / "train" / "0").glob("*L.png"))
    shutil.copy(image, more / "train" / "0" / f"{image.stem[:-1]}_2.png")
    shutil.move(other / "train" / "0" / image.name, other / "train" / "1" / image.name)
    with pytest.raises(InputError, match=r"other knees, labels, parts"):
        pretrain(more, run, folds=folds, resume=True)
    with pytest.raises(InputError, match=r"other .*labels"):
        pretrain(other, run, folds=folds, resume=True)


def test_a_run_is_not_resumed_with_other_pixels(graded_folder, begun):
    run, folds = begun
    image = next((graded_folder / "train" / "0").glob("*.png"))
    other = next((graded_folder / "train" / "1").glob("*.png"))
    shutil.copyfile(other, image)
    with pytest.raises(InputError, match=r"found: +other images\n"):
        pretrain(graded_folder, run, folds=folds, resume=True)


def test_a_run_is_not_resumed_with_other_starting_weights(graded_folder, tmp_path):
    """The file's name is the same, so that the configuration is, too."""
    weights = tmp_path / "weights.safetensors"
    start = f"members.0.weights={weights}"
    save_file(build_encoder("simple_cnn").backbone.state_dict(), weights)
    pretrain(graded_folder, tmp_path / "run", start)
    pretrain(graded_folder, tmp_path / "run", start, resume=True)
    save_file(build_encoder("simple_cnn").backbone.state_dict(), weights)
    with pytest.raises(InputError, match=r"found: +other weights\n"):
        pretrain(graded_folder, tmp_path / "run", start, resume=True)


def test_a_member_is_not_kept_to_report_whom_it_has_seen(graded_folder, tmp_path):
    """A run of an earlier version, whose folder says nothing of a split that it made itself."""
    data = tmp_path / "data"
    for image in graded_folder.rglob("*.png"):
        target = data / image.parent.name / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
    run = tmp_path / "run"
    pretrain(data, run)
    (run / INPUTS_FILE).unlink()
    for number, image in enumerate(sorted(data.rglob("*L.png"))):
        shutil.copy(image, image.with_name(f"{8000000 + number}L.png"))
    with pytest.raises(LeakError, match="has seen subjects"):
        pretrain(data, run, resume=True)


def test_progression_is_not_resumed_on_another_encoder(study, tmp_path):
    sets = ["train.epochs=1", "train.batch_size=16", "train.stages=[{trainable: head}]"]
    config = load_config(TrainJSLConfig, sets=sets)
    folders = {"cohort": study / "cohort", "knees": study / "knees", "out": tmp_path / "run"}
    train_jsl(**folders, encoder=study / "kl", config=config, device="cpu")
    pretrain_kl(
        study / "knees",
        tmp_path / "kl",
        config=load_config(PretrainKLConfig, sets=[*SHORT, "seed=1"]),
        cohort=study / "cohort",
        folds=study / "cohort" / "folds.parquet",
        device="cpu",
    )
    with pytest.raises(InputError, match=r"other encoders"):
        train_jsl(**folders, encoder=tmp_path / "kl", config=config, device="cpu", resume=True)
