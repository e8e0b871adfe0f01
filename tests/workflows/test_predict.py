"""A person with a picture or a film gets a grade, and what is no knee gets none."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import phantoms
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from typer.testing import CliRunner

from kneeoa_mm import model_folder, schemas, tables
from kneeoa_mm.cli import app
from kneeoa_mm.identifiers import is_hash
from kneeoa_mm.imaging.detector import PLATEAU_MM
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.dataset import prepare
from kneeoa_mm.learning.familiarity import learn
from kneeoa_mm.learning.inference import predict_knees
from kneeoa_mm.learning.networks import KLNetwork
from kneeoa_mm.model_folder import (
    ModelCard,
    Preprocessing,
    SeenSubjects,
    read_model,
    write_model,
)
from kneeoa_mm.records import Laterality
from kneeoa_mm.workflows.predict import unknown_categories

SIZE_PX = 64
CONTRACT = Preprocessing(
    image_size_px=SIZE_PX, mean=0.5, std=0.5, clip_percentiles=(1, 99), reinvert_negatives=True
)


def draw_knee(generator):
    """A bright bone column of any width and place, with a dark gap."""
    across, down = np.meshgrid(np.linspace(-1, 1, SIZE_PX), np.linspace(-1, 1, SIZE_PX))
    bone = np.abs(across - generator.uniform(-0.1, 0.1)) < generator.uniform(0.4, 0.6)
    gap = np.abs(down - generator.uniform(-0.1, 0.1)) < generator.uniform(0.03, 0.15)
    grey = 40 + 120 * bone - 80 * (bone & gap)
    return np.clip(grey + generator.normal(0, 5, grey.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def grader(tmp_path_factory):
    """A run whose only member never learnt to grade, but knows what drawn knees look like."""
    torch.manual_seed(0)
    network = KLNetwork("simple_cnn").eval()
    weights = save(network.state_dict())
    generator = np.random.default_rng(1)
    drawn = [draw_knee(generator).astype(np.float32) for _ in range(500)]
    knees = [prepare(knee, CONTRACT, mirror=False)[0] for knee in drawn]
    images = torch.from_numpy(np.stack(knees))
    known = learn(
        network,
        images,
        CONTRACT,
        training=np.arange(250),
        unseen=np.arange(250, 500),
        device="cpu",
    )
    run = tmp_path_factory.mktemp("kl")
    folder = run / "members" / "00-simple_cnn"
    card = ModelCard(
        architecture=network.architecture,
        kind="kl",
        outputs=tuple(f"kl_prob_{grade}" for grade in range(5)),
        preprocessing=CONTRACT,
        seen_subjects=SeenSubjects.of(["7"], [], salt=b"salt"),
        familiarity_sha256=known.write(folder),
    )
    write_model(folder, card, weights)
    (run / "ensemble.json").write_text('{"voting": "mix"}')
    return run


@pytest.fixture
def shipped(grader, monkeypatch, tmp_path):
    """The grader as if it came with the package, and a person in an empty folder."""
    monkeypatch.setattr(model_folder, "SHIPPED_GRADER", grader)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return grader


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def picture(path, pixels=None, seed=5):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = draw_knee(np.random.default_rng(seed)) if pixels is None else pixels
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_is_graded_by_the_shipped_grader_and_shown(shipped, tmp_path):
    knee = picture(tmp_path / "2024" / "knee.png")
    code, shown, error = run("predict", knee)
    assert code == 0, error
    grades = pd.read_csv("predictions.csv")
    assert grades["status"].tolist() == ["ok"]
    assert "kl_grade" not in grades, "2024 is no grade"
    assert "Next: kneeoa-mm evaluate" not in shown, "there is no truth to judge by"
    header, row = shown.splitlines()[1:3]
    assert header.split()[:3] == ["knee", "grade", "probability"]
    grade = grades["kl_grade_pred"][0]
    probability = grades[f"kl_prob_{grade}"][0]
    assert row.split()[:3] == [grades["knee_id"][0], str(grade), f"{probability:.2f}"]
    assert "not a medical device" in shown


def test_a_table_names_the_weights_that_made_it(shipped, tmp_path):
    """Its model may be trained anew under the same name."""
    knee = picture(tmp_path / "knee.png")
    assert run("predict", knee, "--out", tmp_path / "p.parquet")[0] == 0
    told = tables.read_provenance(tmp_path / "p.parquet")["members"]
    weights = (shipped / "members" / "00-simple_cnn" / "weights.safetensors").read_bytes()
    assert told == {"00-simple_cnn": {"weights_sha256": hashlib.sha256(weights).hexdigest()}}


def test_the_default_table_is_never_overwritten_unasked(shipped, tmp_path):
    knee = picture(tmp_path / "knee.png")
    table = Path("predictions.csv")
    table.write_text("precious")
    code, _, error = run("predict", knee)
    assert code == 3
    assert "--out" in error
    assert "--overwrite" in error
    assert table.read_text() == "precious"
    assert run("predict", knee, "--overwrite")[0] == 0
    assert table.read_text() != "precious"


def test_a_gpu_that_is_not_there_is_refused_before_films_are_read(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("kneeoa_mm.workflows.predict.inputs_of_films", None)
    film = phantoms.write_film(tmp_path / "film.dcm")
    code, _, error = run("predict", film, "--device", "cuda")
    assert code == 3
    assert "no GPU" in error


def test_a_table_that_cannot_be_written_is_refused_before_films_are_read(
    shipped, tmp_path, monkeypatch
):
    """A night of films would end without a table."""
    monkeypatch.setattr("kneeoa_mm.workflows.predict.inputs_of_films", None)
    film = phantoms.write_film(tmp_path / "film.dcm")
    code, _, error = run("predict", film, "--out", film / "grades.csv")
    assert code == 3
    assert "cannot be written" in error
    assert f"where:    {film}" in error


def test_a_named_model_goes_before_the_shipped_one(shipped, tmp_path):
    knee = picture(tmp_path / "knee.png")
    code, _, error = run("predict", knee, "--model", tmp_path / "nothing")
    assert code == 3
    assert "no model here" in error


def test_without_shipped_weights_and_without_a_model_it_says_what_to_do(
    shipped, tmp_path, monkeypatch
):
    monkeypatch.setattr(model_folder, "SHIPPED_GRADER", tmp_path / "absent")
    code, _, error = run("predict", picture(tmp_path / "knee.png"))
    assert code == 5
    assert "--model" in error
    assert str(tmp_path / "absent") in error


@pytest.mark.parametrize(("widths", "framing"), [(1.25, "whole"), (1.5, "matched")])
def test_only_a_close_crop_is_taken_for_what_the_model_learnt_from(
    grader, tmp_path, widths, framing
):
    """A picture of one knee that shows more is cut from film to grade, millimetres or none."""
    folder = tmp_path / "model"
    card, weights = read_model(next((grader / "members").iterdir()), ModelCard)
    contract = {"field_of_view_plateau_widths": 1.25, "joint_row": 0.5}
    stated = card.preprocessing.model_copy(update=contract)
    update = {"preprocessing": stated, "familiarity_sha256": ""}
    write_model(folder, card.model_copy(update=update), weights)
    side_mm = widths * PLATEAU_MM
    drawn = phantoms.knee_film(
        ((side_mm / 2, 0.55 * side_mm, Laterality.RIGHT),),
        size_mm=(side_mm, side_mm),
        spacing_mm=(0.4, 0.4),
    )
    elements = {"ImagerPixelSpacing": None, "ImageLaterality": "R"}
    film = phantoms.write_film(tmp_path / "film.dcm", film=drawn, **elements)
    out = tmp_path / "grades.csv"
    code, shown, error = run("predict", film, "--model", folder, "--out", out, "--ids", "keep")
    assert code == 0, error
    assert pd.read_csv(out)["framing"].tolist() == [framing]
    assert "the weaker detector" in shown


def test_a_single_film_is_graded_without_any_option(shipped, tmp_path):
    from kneeoa_mm.synthetic.cohort import synthesize

    synthesize(tmp_path / "source", subjects=1, seed=0, pixel_spacing_mm=0.8)
    film = next((tmp_path / "source" / "studies" / "V00").glob("*.dcm"))
    code, shown, error = run("predict", film, "--json")
    assert code in (0, 4), error
    grades = pd.read_csv("predictions.csv")
    assert grades["laterality"].tolist() == ["R", "L"]
    assert film.stem not in set(grades["subject_id"].astype(str)), "the id was hashed"
    outputs = json.loads(shown)["outputs"]
    assert outputs == {"predictions": "predictions.csv", "key": "predictions.key"}
    first = json.loads(shown)["figures"]["first knees"]
    assert [row["knee"].split()[1] for row in first] == ["R", "L"]


@pytest.mark.parametrize("option", [("--ids", "ids.key"), ("--cohort", "oai")])
@pytest.mark.parametrize("kind", ["folder", "picture", "table"])
def test_options_of_films_are_refused_where_they_would_go_unheeded(shipped, tmp_path, option, kind):
    """A person who asks for hashed names must never find them in clear."""
    knee = picture(tmp_path / "pngs" / "Smith_19550417_1.png")
    table = tmp_path / "knees.csv"
    table.write_text(f"knee_id,subject_id,laterality,image_path\n-:1:-:L,1,L,{knee}\n")
    Path("ids.key").write_text("0" * 64)
    source = {"folder": knee.parent, "picture": knee, "table": table}[kind]
    code, _, error = run("predict", source, *option)
    assert code == 3
    assert " ".join(option) in error
    assert "preprocess" in error
    assert not Path("predictions.csv").exists()
    assert run("predict", source, "--ids", "keep")[0] == 0, "it is what happens anyway"


def test_depth_colour_and_size_of_a_picture_do_not_change_its_grade(shipped, tmp_path):
    grey = draw_knee(np.random.default_rng(5))
    deep = grey.astype(np.uint16) * 257
    folder = tmp_path / "pictures"
    picture(folder / "1L.png", grey)
    picture(folder / "2L.png", deep)
    picture(folder / "3L.png", deep // 4 + 9000)  # fills a quarter of 16 bits
    picture(folder / "4L.png", np.dstack([grey] * 3))
    picture(folder / "5L.png", np.dstack([grey, grey, grey, np.full_like(grey, 128)]))
    Image.fromarray(grey).convert("P").save(folder / "6L.png")
    picture(folder / "7L.png", np.kron(grey, np.ones((3, 3), np.uint8)))
    code, _, error = run("predict", folder)
    assert code == 0, error
    probabilities = pd.read_csv("predictions.csv").filter(regex="kl_prob").to_numpy()
    np.testing.assert_allclose(probabilities, probabilities[:1].repeat(7, axis=0), atol=0.01)


def test_a_film_without_a_knee_says_why_and_writes_nothing(shipped, tmp_path):
    film = tmp_path / "film.dcm"
    film.write_bytes(b"no film at all")
    code, _, error = run("predict", film)
    assert code == 3
    assert "No knee could be cut" in error
    assert ".dcm: E_NOT_DICOM" in error
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8),
        np.tile(np.arange(128, dtype=np.uint8), (128, 1)),
        (np.indices((128, 128)).sum(axis=0) // 16 % 2 * 255).astype(np.uint8),
    ],
    ids=["noise", "gradient", "stripes"],
)
def test_what_is_no_knee_is_named_and_not_graded(shipped, tmp_path, pixels):
    folder = tmp_path / "pictures"
    picture(folder / "1L.png")
    picture(folder / "2L.png", pixels)
    code, shown, _ = run("predict", folder)
    assert code == 4, "an item failed and is listed"
    grades = pd.read_csv("predictions.csv")
    assert grades["status"].tolist() == ["ok", "not_a_knee"]
    predicted = grades.filter(regex="kl_prob|kl_grade_pred|kl_set")
    assert predicted.iloc[0].notna().all()
    assert predicted.iloc[1].isna().all()
    assert "1 images resemble no knee" in shown
    assert "not_a_knee" in shown


def test_a_member_that_never_learnt_what_knees_are_grades_anything(grader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = grader / "members" / "00-simple_cnn"
    card, weights = model_folder.read_model(source, ModelCard)
    plain = card.model_copy(update={"familiarity_sha256": ""})
    write_model(tmp_path / "plain", plain, weights)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    code, _, error = run(
        "predict", picture(tmp_path / "1L.png", noise), "--model", tmp_path / "plain"
    )
    assert code == 0, error
    assert pd.read_csv("predictions.csv")["status"].tolist() == ["ok"]


def test_a_flat_and_a_damaged_picture_keep_their_rows(shipped, tmp_path):
    folder = tmp_path / "pictures"
    picture(folder / "1L.png")
    picture(folder / "2L.png", np.full((50, 50), 7, np.uint8))
    (folder / "3L.png").write_bytes((folder / "1L.png").read_bytes()[:200])
    (folder / "4L.png").write_bytes(b"")
    assert run("predict", folder)[0] == 4
    statuses = pd.read_csv("predictions.csv")["status"].tolist()
    assert statuses == ["ok", "unreadable", "unreadable", "unreadable"]


def test_knees_of_a_person_that_the_model_knows_are_marked(shipped, tmp_path):
    picture(tmp_path / "7L.png")
    picture(tmp_path / "8L.png")
    code, _, error = run("predict", tmp_path)
    assert code == 0, error
    assert pd.read_csv("predictions.csv")["seen_in_training"].tolist() == [True, False]


def test_the_out_of_fold_table_is_rebuilt_from_the_command_line(tmp_path, monkeypatch):
    """Each knee by the member that never saw its person; `evaluate` then takes every row."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for number in range(30):
        part = "train" if number < 20 else "val"
        for side in "LR":
            knee = draw_knee(generator)
            picture(tmp_path / "graded" / part / str(number % 5) / f"{number}{side}.png", knee)
    code, _, error = run(
        *("pretrain-kl", "--data", "graded", "--out", "run", "--device", "cpu"),
        *("--set", "members=[{backbone: simple_cnn, image_size_px: 32}]"),
        *("--set", "train.epochs=1", "--set", "train.batch_size=8"),
        *("--set", "cross_validate=true", "--set", "folds=3", "--set", "train.select_by=last"),
    )
    assert code == 0, error
    assert run("predict", "graded", "--model", "run", "--out", "oof.parquet")[0] == 0
    found = tables.read_table(tmp_path / "oof.parquet", schemas.PREDICTIONS).set_index("knee_id")
    reported = tables.read_table(tmp_path / "run" / "predictions.parquet", schemas.PREDICTIONS)
    assert len(found) == 60
    assert not found["seen_in_training"].any()
    columns = [*(f"kl_prob_{grade}" for grade in range(5)), "kl_grade_pred"]
    pd.testing.assert_frame_equal(
        found.loc[reported["knee_id"], columns],
        reported.set_index("knee_id")[columns],
        rtol=1e-4,
        atol=1e-6,
    )
    code, _, error = run("evaluate", "oof.parquet", "--out", "evaluation", "--n-boot", 10)
    assert code == 0, error
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["kl"]["accuracy"]["n"] == 60


def test_pictures_of_a_test_part_keep_their_split_and_leave_a_look(shipped, tmp_path):
    for seed, part in enumerate(("train", "test")):
        picture(tmp_path / "graded" / part / "2" / f"{seed + 20}L.png", seed=seed)
    code, _, _ = run("predict", tmp_path / "graded", "--out", tmp_path / "grades.csv")
    assert code == 0
    table = tables.read_table(tmp_path / "grades.csv", schemas.PREDICTIONS)
    assert sorted(table["split"]) == ["test", "train"]
    line = json.loads((tmp_path / "grades.looks.jsonl").read_text())
    assert (line["command"], line["knees"]) == ("predict", 1)


@pytest.fixture
def films(tmp_path):
    """The films of two phantoms, and what is no film at all."""
    from kneeoa_mm.synthetic.cohort import synthesize

    synthesize(tmp_path / "source", subjects=2, seed=0, pixel_spacing_mm=0.8)
    folder = tmp_path / "source" / "studies" / "V00"
    (folder / "broken.dcm").write_bytes(b"no film at all")
    return folder


def test_a_picture_among_films_hides_none_of_them(shipped, tmp_path, films):
    picture(films / "preview.png")
    code, _, error = run("predict", films, "--ids", "keep")
    assert code == 4, error
    found = pd.read_csv("predictions.csv")
    films_of_a_person = {path.name for path in films.glob("*.dcm")} - {"broken.dcm"}
    rejected = set(found.loc[found["status"] == "rejected", "source"])
    assert films_of_a_person <= set(found["source"])
    assert "broken.dcm" in rejected
    assert "preview.png" in set(found["source"])


def small_film(path, seed=0, **elements):
    """A film of one right knee, which takes a moment to cut."""
    knee = phantoms.knee_film(
        ((50.0, 55.0, Laterality.RIGHT),), size_mm=(100.0, 110.0), spacing_mm=(0.8, 0.8), seed=seed
    )
    stated = {"ImageLaterality": "R", "ImagerPixelSpacing": [0.8, 0.8], **elements}
    return phantoms.write_film(path, film=knee, **stated)


@pytest.fixture
def nameless(tmp_path):
    """Three films whose headers name neither person nor side, and a broken one."""
    folder = tmp_path / "nameless"
    for seed in range(3):
        small_film(folder / f"{seed}.dcm", seed, PatientID=None, ImageLaterality=None)
    (folder / "broken.dcm").write_bytes(b"no film at all")
    return folder


def test_films_of_nobody_and_a_broken_one_have_names_of_their_own(shipped, nameless):
    code, _, error = run("predict", nameless)
    assert code == 4, error
    found = tables.read_table(Path("predictions.csv"), schemas.PREDICTIONS)
    assert found["knee_id"].tolist() == ["-:-:-:-", *(f"-:-:-:-:{copy}" for copy in (2, 3, 4))]
    assert found["status"].tolist()[-1] == "rejected"


def test_films_behind_links_are_counted(shipped, tmp_path):
    small_film(tmp_path / "films" / "a.dcm")
    small_film(tmp_path / "archive" / "b.dcm")
    (tmp_path / "films" / "b.dcm").symlink_to(tmp_path / "archive" / "b.dcm")
    (tmp_path / "films" / "more").symlink_to(tmp_path / "archive")
    code, shown, error = run("predict", tmp_path / "films", "--ids", "keep")
    assert code in (0, 4), error
    assert pd.read_csv("predictions.csv")["source"].tolist() == ["a.dcm"]
    assert "2 links lead out of the folder" in " ".join(shown.split())


def test_what_lies_among_pictures_and_is_not_read_is_counted(shipped, tmp_path):
    pictures = tmp_path / "pictures"
    knee = picture(pictures / "1L.png")
    for name in ("2L.tif", "3L.TIFF", "4L.bmp"):
        picture(pictures / name)
    picture(tmp_path / "archive" / "5L.png")
    (pictures / "more").symlink_to(tmp_path / "archive")
    (pictures / "6L.png").symlink_to(tmp_path / "archive" / "5L.png")
    (pictures / "notes.txt").write_text("of a person")
    code, shown, error = run("predict", pictures)
    assert code == 0, error
    assert pd.read_csv("predictions.csv")["knee_id"].tolist() == ["-:1:-:L", "-:6:-:L"]
    told = " ".join(shown.split())
    assert "not read: 1 .bmp, 1 .tif, 1 .tiff." in told
    assert "1 links that lead to no picture" in told
    assert "not read" not in run("predict", knee, "--overwrite")[1]


def test_doubts_about_films_reach_the_table_and_the_person(shipped, tmp_path):
    """A knee whose side is in doubt is graded all the same, perhaps as the other one."""
    films = tmp_path / "films"
    for seed, side in enumerate(("R", "L")):
        small_film(films / f"{seed}_R.dcm", seed, ImageLaterality=side)
    (films / "broken.dcm").write_bytes(b"no film at all")
    code, shown, error = run("predict", films, "--ids", "keep", "--out", "grades.parquet")
    assert code == 4, error
    found = tables.read_table(Path("grades.parquet"), schemas.PREDICTIONS).set_index("source")
    flags = found["qc_flags"].fillna("").str.split(";")
    doubtful = flags.map(lambda each: "laterality_conflict" in each)
    assert doubtful.to_dict() == {"0_R.dcm": False, "1_R.dcm": True, "broken.dcm": False}
    assert found["qc_flags"].isna().tolist() == [False, False, True]
    assert "1 laterality_conflict" in " ".join(shown.split())


@pytest.fixture
def folds(grader, tmp_path):
    """Two members that learnt to grade from other persons; Zelenka taught the first, Roe both."""
    folder = tmp_path / "folds"
    card, _ = read_model(next((grader / "members").iterdir()), ModelCard)
    for fold, persons in enumerate((["Zelenka", "Roe"], ["Doe", "Roe"])):
        torch.manual_seed(fold)
        update = {
            "seen_subjects": SeenSubjects.of(persons, [], salt=b"salt"),
            "fold": fold,
            "familiarity_sha256": "",
        }
        weights = save(KLNetwork("simple_cnn").state_dict())
        write_model(folder / "members" / str(fold), card.model_copy(update=update), weights)
    return folder


@pytest.fixture
def persons(tmp_path):
    """Films of Zelenka, of Roe and of a stranger."""
    folder = tmp_path / "films"
    for seed, name in enumerate(("Zelenka", "Roe", "Smith")):
        small_film(folder / name / "1.dcm", seed, PatientID=name)
    return folder


def test_hashed_persons_are_graded_as_if_the_model_met_their_names(persons, folds, tmp_path):
    """Members that learnt from a person would vote on it, and nobody would know."""
    Path(tmp_path / "ids.key").write_text("0" * 64)
    told = {}
    for name, ids in {"keep": ["keep"], "key": [tmp_path / "ids.key"], "fresh": []}.items():
        out = tmp_path / f"{name}.csv"
        options = ["--ids", *ids] if ids else []
        assert run("predict", persons, "--model", folds, "--out", out, *options)[0] == 0
        told[name] = pd.read_csv(out).sort_values("kl_prob_0", ignore_index=True)
    kept = told.pop("keep").set_index("subject_id")
    assert kept["seen_in_training"].to_dict() == {"Roe": True, "Smith": False, "Zelenka": False}
    assert kept.loc["Zelenka", "fold"] == 1
    answers = ["seen_in_training", "fold", *(f"kl_prob_{grade}" for grade in range(5))]
    for hashed in told.values():
        pd.testing.assert_frame_equal(hashed[answers], kept.reset_index()[answers])
        assert hashed["subject_id"].map(is_hash).all()


@pytest.mark.parametrize("fails", [False, True])
def test_names_that_are_compared_with_the_model_are_written_nowhere(
    persons, folds, tmp_path, monkeypatch, fails
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("KNEEOA_MM_DEBUG", "1")
    written = []

    def looked_into(*arguments, **options):
        assert "Zelenka" in set(options["known_as"])
        for path in scratch.rglob("*"):
            written.append(str(path.relative_to(scratch)))
            if path.suffix == ".parquet":
                written.append(pd.read_parquet(path).to_csv())
            elif path.is_file():
                written.append(path.read_bytes().decode("latin-1"))
        if fails:
            raise ValueError("a fault of ours")
        return predict_knees(*arguments, **options)

    monkeypatch.setattr("kneeoa_mm.workflows.predict.predict_knees", looked_into)
    out = tmp_path / "out" / "grades.csv"
    out.parent.mkdir()
    code, *shown = run("predict", persons, "--model", folds, "--out", out)
    assert code == (1 if fails else 0)
    assert any(text.endswith("knees.parquet") for text in written)
    written += [*shown, *(path.read_text() for path in out.parent.iterdir())]
    assert not [text for text in written if "Zelenka" in text]
    assert list(scratch.iterdir()) == []


def test_a_table_of_hashes_says_that_it_cannot_tell_whom_the_model_knows(shipped, tmp_path):
    knee = picture(tmp_path / "knee.png")
    for subject, is_told in (("08b69a17fadbdfb0", True), ("9003175", False)):
        table = tmp_path / f"{subject}.csv"
        row = f"-:{subject}:-:L,{subject},L,{knee}"
        table.write_text(f"knee_id,subject_id,laterality,image_path\n{row}\n")
        code, shown, error = run("predict", table, "--overwrite")
        assert code == 0, error
        assert ("subjects of this table are hashes" in " ".join(shown.split())) is is_told


def test_a_split_of_the_clinical_table_stands_beside_a_rejected_film(shipped, tmp_path, films):
    assert run("predict", films, "--ids", "keep", "--out", "first.csv")[0] == 4
    first = pd.read_csv("first.csv")
    knees = first.loc[first["status"] != "rejected", ["knee_id"]]
    knees.iloc[1:].assign(split="test").to_csv("clinical.csv", index=False)
    code, shown, error = run("predict", films, "--ids", "keep", "--clinical", "clinical.csv")
    assert code == 4, error
    again = pd.read_csv("predictions.csv")
    assert again["split"].isna().sum() == 2, "the knee that the table lacks, and the broken film"
    assert (again["split"] == "test").sum() == len(knees) - 1
    assert f"1 knees are not in the clinical table, such as {knees['knee_id'].iloc[0]}" in shown


def test_a_clinical_table_of_other_knees_is_refused(shipped, tmp_path):
    knee = picture(tmp_path / "20L.png")
    Path("clinical.csv").write_text("knee_id,age_years\noai:1:0:L,60\n")
    code, _, error = run("predict", knee, "--clinical", "clinical.csv")
    assert code == 3
    assert "none of the knees" in error
    assert "oai:1:0:L" in error
    assert "-:20:-:L" in error


def test_categories_that_some_members_lack_are_all_named():
    """Each fold trains without some persons, and so without other rare categories."""
    categories = (["white", "black"], ["white", "asian"])
    members = tuple(
        SimpleNamespace(clinical=ClinicalEncoding({}, {"race": known})) for known in categories
    )
    told = pd.DataFrame({"race": ["white", "asian", "black"]}, index=["first", "second", "third"])
    (note,) = unknown_categories(SimpleNamespace(members=members), told)
    assert note.startswith("2 values of race")
    assert "'asian' of second, 'black' of third" in note


def test_a_folder_without_grades_takes_them_from_the_clinical_table(shipped, tmp_path):
    picture(tmp_path / "2024" / "20L.png")
    Path("clinical.csv").write_text("knee_id,kl_grade\n-:20:-:L,3\n")
    code, shown, error = run("predict", tmp_path / "2024", "--clinical", "clinical.csv")
    assert code == 0, error
    assert pd.read_csv("predictions.csv")["kl_grade"].tolist() == [3]
    assert "Next: kneeoa-mm evaluate" in shown
    code, shown, _ = run("predict", tmp_path / "2024", "--overwrite")
    assert code == 0
    assert "Next: kneeoa-mm evaluate" not in shown, "there is no truth to judge by"


@pytest.mark.parametrize(("folder", "is_grade"), [("2", True), ("second visit", False)])
def test_folders_whose_names_were_read_as_grades_are_named(shipped, tmp_path, folder, is_grade):
    """Visits 1/ and 2/ look like grades, and would stand in the table as the truth."""
    picture(tmp_path / "knees" / folder / "9000001L.png")
    code, shown, error = run("predict", tmp_path / "knees", "--out", tmp_path / "grades.csv")
    assert code == 0, error
    assert ("read as KL grades (2)" in " ".join(shown.split())) is is_grade
    assert ("kl_grade" in pd.read_csv(tmp_path / "grades.csv")) is is_grade
