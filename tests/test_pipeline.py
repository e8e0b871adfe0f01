"""The README's tour, small: every stage takes what the one before left, from films to a report."""

import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from kneeoa_mm import schemas, tables
from kneeoa_mm.cli import app
from kneeoa_mm.model_folder import ModelCard, read_model, write_model
from kneeoa_mm.records import KneeKey


def run(*arguments, code=0):
    """Run a command with ``--json`` and return its document."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """All stages on thirty synthetic people, coarse films and two epochs."""
    out = tmp_path_factory.mktemp("tour")
    run("synthesize", out / "source", "--subjects", 30, "--seed", 3, "--pixel-spacing-mm", 0.8)
    studies, knees, cohort = out / "source" / "studies", out / "knees", out / "cohort"
    films = ["--cohort", "synthetic", "--ids", "keep"]
    coarse = ["--set", "pixel_spacing_mm=0.8"]
    found = CliRunner().invoke(
        app, ["preprocess", str(studies), "--out", str(knees), *films, *coarse, "--json"]
    )
    assert found.exit_code in (0, 4), "a film without a joint may be listed"
    run("cohort", out / "source" / "tables", "--out", cohort, "--cohort", "synthetic", "--folds", 3)
    small = ["--set", "train.epochs=2", "--device", "cpu"]
    run(
        *("pretrain-kl", "--data", knees, "--cohort", cohort, "--out", out / "kl"),
        *("--folds", cohort / "folds.parquet", "--config", "demo"),
        *("--set", "members.0.image_size_px=48", *small),
    )
    for name, switch in (("image", "--image-only"), ("fused", "--fuse-clinical")):
        run(
            *("train-jsl", "--cohort", cohort, "--knees", knees, "--encoder", out / "kl"),
            *("--out", out / name, "--config", "demo", switch, *small),
        )
    return out


def test_films_and_tables_name_the_same_knees(tour):
    knees = tables.read_table(tour / "knees" / "knees.parquet", schemas.KNEES)
    cohort = tables.read_table(tour / "cohort" / "cohort.parquet", schemas.COHORT)
    assert len(set(cohort["knee_id"]) & set(knees["knee_id"])) > 0.9 * len(cohort)
    assert {KneeKey.parse(knee).months for knee in knees["knee_id"]} == {0, 24, 48}


def test_every_knee_is_predicted_once_by_models_that_never_saw_its_person(tour):
    knees = tables.read_table(tour / "knees" / "knees.parquet", schemas.KNEES)
    for model in ("kl", "fused"):
        out = tour / f"{model}.parquet"
        clinical = ["--clinical", tour / "cohort"] if model == "fused" else []
        run("predict", tour / "knees", "--model", tour / model, "--out", out, *clinical)
        predictions = tables.read_table(out, schemas.PREDICTIONS)
        assert sorted(predictions["knee_id"]) == sorted(knees["knee_id"])
        assert not predictions["seen_in_training"].any()
        assert ("jsl_48m_prob" in predictions) == (model == "fused")


def test_films_are_graded_directly_and_a_film_without_knees_keeps_a_row(tour, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    source = next((tour / "source" / "studies" / "V00").glob("*.dcm"))
    (films / source.name).write_bytes(source.read_bytes())
    (films / "broken.dcm").write_bytes(source.read_bytes()[:5000])
    out = tmp_path / "grades.csv"
    run("predict", films, "--model", tour / "kl", "--out", out, "--ids", "keep", code=4)
    grades = pd.read_csv(out)
    assert grades["status"].value_counts().to_dict() == {"ok": 2, "rejected": 1}
    rejected = grades[grades["status"] == "rejected"]
    assert rejected["source"].tolist() == ["broken.dcm"]
    assert rejected["kl_grade_pred"].isna().all()


def test_a_model_that_states_its_field_of_view_sees_films_cut_to_it(tour, tmp_path):
    film = next((tour / "source" / "studies" / "V00").glob("*.dcm"))
    said, shares = {}, {"silent": None, "close": 1.25, "beyond": 3.0}
    for name, field_of_view in shares.items():
        member = next((tour / "kl" / "members").iterdir())
        card, weights = read_model(member, ModelCard)
        contract = {"field_of_view_plateau_widths": field_of_view, "joint_row": 0.5}
        stated = card.preprocessing.model_copy(update=contract)
        write_model(tmp_path / name, card.model_copy(update={"preprocessing": stated}), weights)
        out = tmp_path / f"{name}.csv"
        document = run("predict", film, "--model", tmp_path / name, "--out", out, "--ids", "keep")
        grades = pd.read_csv(out)
        said[name] = (grades["framing"].tolist(), grades["kl_prob_0"].tolist(), document["notes"])
    assert {name: set(framing) for name, (framing, _, _) in said.items()} == {
        "silent": {"whole"},
        "close": {"matched"},
        "beyond": {"too_narrow"},
    }
    assert said["close"][1] != said["silent"][1], "another part of the film, another answer"
    assert said["beyond"][1] == pytest.approx(said["silent"][1]), "all there is"
    assert any("show less than the 3 widths" in note for note in said["beyond"][2])


def test_without_ids_the_key_of_the_hash_is_kept_beside_the_table(tour, tmp_path):
    film = next((tour / "source" / "studies" / "V00").glob("*.dcm"))
    model = ["--model", tour / "kl"]
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    run("predict", film, *model, "--out", first)
    run("predict", film, *model, "--out", second, "--ids", tmp_path / "a.key")
    subjects = pd.read_csv(first)["subject_id"]
    assert film.stem not in set(subjects)
    assert subjects.tolist() == pd.read_csv(second)["subject_id"].tolist()


def test_a_model_that_sees_no_clinical_table_says_what_it_imputed(tour, tmp_path):
    document = run(
        "predict", tour / "knees", "--model", tour / "fused", "--out", tmp_path / "p.csv"
    )
    assert any("bmi_kg_m2" in note and "imputed" in note for note in document["notes"])


def test_results_are_judged_explained_followed_and_put_on_one_page(tour):
    evaluation = tour / "evaluation"
    run("evaluate", tour / "fused" / "predictions.parquet", "--out", evaluation, "--n-boot", 20)
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert set(metrics["jsl_48m"]["auroc"]) >= {"value", "ci_low", "ci_high", "n"}
    best = tour / "source" / "truth" / "best_possible.json"
    run(
        *("compare", f"image={tour / 'image'}", f"fused={tour / 'fused'}"),
        *("--cohort", tour / "cohort", "--out", tour / "comparison"),
        *("--grades", tour / "kl", "--best-possible", best, "--n-boot", 20),
    )
    comparison = json.loads((tour / "comparison" / "compare.json").read_text())
    simple = {"clinical", "clinical_boosted", "kl_grade", "mjsw"}
    simple |= {"kl+grader", "clinical+kl", "clinical+kl+grader"}
    assert set(comparison["models"]) == {"image", "fused"} | simple
    assert comparison["best_possible"]["both"] > comparison["best_possible"]["image"]
    run(
        *("explain", tour / "knees", "--model", tour / "fused", "--clinical", tour / "cohort"),
        *("--out", tour / "saliency", "--limit", 2),
    )
    run("survival", tour / "cohort", "--out", tour / "survival", "--outcome", "jsl_48m")
    parts = ("knees", "cohort", "kl", "fused", "evaluation", "comparison", "saliency", "survival")
    run("report", *(tour / part for part in parts), "--out", tour / "report.html")
    page = (tour / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*', page), "the page needs no network"
    sections = ("Films to knees", "Cohort", "Training: KL grade", "Training: progression")
    sections += ("Does fusion help?", "Evaluation", "Time to event", "Saliency")
    for heading in sections:
        assert re.search(rf"<h2[^>]*>\s*{re.escape(heading)}", page), heading


def test_the_same_key_hashes_films_and_tables_alike(tour, tmp_path):
    key = tmp_path / "ids.key"
    key.write_text("ab" * 32)
    run(
        *("cohort", tour / "source" / "tables", "--out", tmp_path / "cohort"),
        *("--cohort", "synthetic", "--ids", key, "--folds", 3),
    )
    films = tour / "source" / "studies" / "V06"
    found = CliRunner().invoke(
        app,
        [
            *("preprocess", str(films), "--out", str(tmp_path / "knees"), "--ids", str(key)),
            *("--cohort", "synthetic", "--set", "pixel_spacing_mm=0.8"),
        ],
    )
    assert found.exit_code in (0, 4)
    knees = tables.read_table(tmp_path / "knees" / "knees.parquet", schemas.KNEES)
    cohort = tables.read_table(tmp_path / "cohort" / "cohort.parquet", schemas.COHORT)
    assert set(knees["subject_id"]) <= set(cohort["subject_id"])
    named = {path.stem for path in films.glob("*.dcm")}
    assert not named & set(knees["subject_id"])
