"""Bad input, as a user meets it: a clear message, the right exit code, and nothing lost."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from kneeoa_mm import schemas, tables
from kneeoa_mm.cli import app

TINY = [
    "--set=members=[{backbone: simple_cnn, image_size_px: 32}]",
    "--set=train.epochs=1",
    "--set=train.batch_size=8",
    "--device=cpu",
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command from an empty directory; returns exit code, stdout and stderr."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def graded(tmp_path):
    """Forty knees of ten people, two thirds to train on."""
    generator = np.random.default_rng(0)
    for number in range(20):
        for side in "LR":
            part = "train" if number < 14 else "val"
            folder = tmp_path / "graded" / part / str(number % 5)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 255, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}{side}.png")
    return tmp_path / "graded"


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_without_images(run, tmp_path):
    code, _, error = run("pretrain-kl", "--data", tmp_path / "empty", "--out", tmp_path / "run")
    assert code == 3
    assert "no images" in error
    assert "[split/]grade/NAME.png" in error
    assert not (tmp_path / "run").exists()


def test_empty_truncated_and_foreign_files_among_films(run, tmp_path):
    from kneeoa_mm.synthetic.cohort import synthesize

    source = tmp_path / "source"
    synthesize(source, subjects=2, seed=0, pixel_spacing_mm=0.8)
    films = sorted((source / "studies" / "V00").glob("*.dcm"))
    good = films[0].read_bytes()
    (source / "studies" / "V00" / "empty.dcm").write_bytes(b"")
    (source / "studies" / "V00" / "truncated.dcm").write_bytes(good[: len(good) // 2])
    (source / "studies" / "V00" / "notes.txt").write_text("seen by the registrar")
    code, _, error = run(
        "preprocess", source / "studies", "--out", tmp_path / "knees", "--ids", "keep", "--json"
    )
    assert code == 4, error
    rejects = pd.read_csv(tmp_path / "knees" / "rejects.csv")
    codes = dict(zip(rejects["source"], rejects["code"], strict=True))
    assert codes["V00/empty.dcm"] == "E_EMPTY"
    assert codes["V00/truncated.dcm"] == "E_TRUNCATED"
    assert "V00/notes.txt" not in codes
    knees = tables.read_table(tmp_path / "knees" / "knees.parquet", schemas.KNEES)
    assert len(knees) >= 2, "the good films still give knees"


def test_a_folder_without_films(run, tmp_path):
    code, _, error = run("preprocess", tmp_path / "empty", "--out", tmp_path / "knees")
    assert code == 3
    assert "DICOM" in error
    assert not (tmp_path / "knees").exists()
    assert not (tmp_path / "knees.key").exists()


def test_a_text_file_among_graded_images_is_no_obstacle(run, graded, tmp_path):
    (graded / "train" / "0" / "README.txt").write_text("hello")
    (graded / "train" / "0" / "fake7L.png").write_text("no image at all")
    code, out, _ = run("pretrain-kl", "--data", graded, "--out", tmp_path / "run", *TINY)
    assert code == 4, "a damaged image is listed, and the run goes on"
    assert "1 items failed" in out
    assert (tmp_path / "run" / "ensemble.json").is_file()


def test_a_table_whose_images_are_all_gone(run, tmp_path):
    rows = [
        f"-:{n}:0:{side},{n},{side},gone/{n}{side}.png,{n % 5}" for n in range(20) for side in "LR"
    ]
    path = tmp_path / "knees.csv"
    path.write_text("\n".join(["knee_id,subject_id,laterality,image_path,kl_grade", *rows, ""]))
    code, _, error = run("pretrain-kl", "--data", path, "--out", tmp_path / "run", *TINY)
    assert code == 3
    assert "images that could be read" in error


def test_a_table_with_a_missing_column_and_an_impossible_grade(run, tmp_path):
    path = tmp_path / "knees.csv"
    path.write_text("knee_id,subject_id,laterality,kl_grade\n-:1:0:L,1,L,2\n-:2:0:L,2,L,7\n")
    code, out, error = run("pretrain-kl", "--data", path, "--out", tmp_path / "run", "--json")
    assert code == 3
    assert "column image_path is missing" in error
    assert "KL grade must be 0 to 4" in error
    assert "row(s) 1" in error
    assert json.loads(out)["exit_code"] == 3


def test_a_subject_in_two_splits(run, graded, tmp_path):
    moved = next((graded / "train" / "0").glob("*L.png"))
    shutil.move(moved, graded / "val" / "0" / moved.name)
    code, _, error = run("pretrain-kl", "--data", graded, "--out", tmp_path / "run", *TINY)
    assert code == 3
    assert "two parts of the split" in error
    assert not (tmp_path / "run").exists()


def test_an_output_folder_with_another_run(run, graded, tmp_path):
    first = ["pretrain-kl", "--data", graded, "--out", tmp_path / "run", *TINY]
    assert run(*first)[0] == 0
    before = contents(tmp_path / "run")
    code, _, error = run(*first)
    assert code == 3
    assert "--overwrite" in error
    assert contents(tmp_path / "run") == before
    code, _, error = run(*first, "--resume", "--seed", 5)
    assert code == 3
    assert "seed: 0 -> 5" in error
    assert contents(tmp_path / "run") == before
    assert run(*first, "--resume")[0] == 0, "a finished run may be resumed, with nothing to do"


def test_a_recipe_with_a_misspelt_key(run, graded, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {learning_rte: 1}\nmebers: []\n")
    code, _, error = run(
        "pretrain-kl", "--data", graded, "--out", tmp_path / "run", "--config", recipe
    )
    assert code == 3
    assert "train.learning_rte: no such key" in error
    assert "mebers: no such key; did you mean members?" in error
    assert not (tmp_path / "run").exists()


def test_a_corrupted_model_folder(run, graded, tmp_path):
    assert run("pretrain-kl", "--data", graded, "--out", tmp_path / "run", *TINY)[0] == 0
    weights = next((tmp_path / "run").glob("members/*/weights.safetensors"))
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 0x40
    weights.write_bytes(damaged)
    for command in ("predict", "explain"):
        out = tmp_path / f"{command}.csv"
        code, _, error = run(command, graded / "val", "--model", tmp_path / "run", "--out", out)
        assert code == 3
        assert "sha256" in error
        assert not out.exists()


def test_predictions_that_exist_are_kept(run, graded, tmp_path):
    assert run("pretrain-kl", "--data", graded, "--out", tmp_path / "run", *TINY)[0] == 0
    out = tmp_path / "predictions.csv"
    out.write_text("precious")
    command = ["predict", graded / "val", "--model", tmp_path / "run", "--out", out]
    code, _, error = run(*command)
    assert code == 3
    assert "--overwrite" in error
    assert out.read_text() == "precious"
    assert run(*command, "--overwrite")[0] == 0
    predictions = tables.read_table(out, schemas.PREDICTIONS)
    assert len(predictions) == 12
    assert not predictions["seen_in_training"].any()


def test_training_knees_are_marked_and_evaluate_leaves_them_out(run, graded, tmp_path):
    assert run("pretrain-kl", "--data", graded, "--out", tmp_path / "run", *TINY)[0] == 0
    out = tmp_path / "all.parquet"
    assert run("predict", graded, "--model", tmp_path / "run", "--out", out)[0] == 0
    predictions = tables.read_table(out, schemas.PREDICTIONS)
    assert predictions["seen_in_training"].sum() == 28
    code, stdout, error = run(
        "evaluate", out, "--out", tmp_path / "evaluation", "--n-boot", 20, "--json"
    )
    assert code == 0, error
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["kl"]["accuracy"]["n"] == 12
    assert "28" in stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("preprocess", "OUT/images", "--out", "OUT"),
        ("cohort", "OUT", "--cohort", "oai", "--out", "OUT"),
        ("pretrain-kl", "--data", "OUT/images", "--out", "OUT"),
        ("evaluate", "OUT/predictions.csv", "--out", "OUT"),
        ("predict", "OUT/predictions.csv", "--out", "OUT/predictions.csv"),
        ("compare", "image=OUT/images", "--cohort", "cohort", "--out", "OUT"),
    ],
)
def test_no_command_overwrites_its_own_input(run, tmp_path, arguments):
    """``--overwrite`` clears the folder first: the input would be gone before it is read."""
    out = tmp_path / "out"
    (out / "images").mkdir(parents=True)
    (out / "config.yaml").write_text("{}\n")
    (out / "predictions.csv").write_text("knee_id\n")
    (out / "images" / "knee.png").write_bytes(b"a knee")
    before = contents(out)
    code, _, error = run(*(text.replace("OUT", str(out)) for text in arguments), "--overwrite")
    assert code == 3
    assert "would delete" in error
    assert contents(out) == before
