"""Every look at held-out knees leaves a line, which outlives the run that it is of."""

from __future__ import annotations

import hashlib
import json
import shutil

import pandas as pd
import pytest

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.looks import held_out_knees, log_look
from kneeoa_mm.errors import InputError
from kneeoa_mm.run_folder import open_run
from kneeoa_mm.schemas import PREDICTIONS
from kneeoa_mm.tables import write_table


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    monkeypatch.setattr("kneeoa_mm.analysis.evaluation.draw", lambda *_: ())


@pytest.fixture
def run_folder(tmp_path, make_predictions):
    """A run, of whose knees every fourth is in the test part."""
    table = make_predictions(n_persons=40)
    table["split"] = ["test" if i % 4 == 0 else "train" for i in range(len(table))]
    folder = tmp_path / "runs" / "kl"
    with open_run(folder):
        write_table(table, PREDICTIONS, folder / "predictions.parquet")
    return folder


def look(folder, out, **options):
    evaluate(folder, out, n_boot=0, overwrite=True, **options)
    return json.loads((out / "metrics.json").read_text())


def test_each_look_is_a_line_beside_the_run_and_is_counted(run_folder, tmp_path):
    first = look(run_folder, tmp_path / "a")
    second = look(run_folder, tmp_path / "b")
    assert (first["looks"]["count"], second["looks"]["count"]) == (1, 2)
    assert first["looks"]["knees"] == 20
    assert first["looks"]["predictions"] == 1
    lines = (tmp_path / "runs" / "kl.looks.jsonl").read_text().splitlines()
    line = json.loads(lines[1])
    predictions = (run_folder / "predictions.parquet").read_bytes()
    assert line["predictions_sha256"] == hashlib.sha256(predictions).hexdigest()
    assert line["command"] == "evaluate"
    assert "jsl_48m.auroc" in line["metrics"]
    assert any("look 2" in note for note in second["notes"])


def test_the_log_outlives_its_run(run_folder, tmp_path, make_predictions):
    look(run_folder, tmp_path / "a")
    with open_run(run_folder, overwrite=True):
        table = make_predictions(n_persons=40, seed=1).assign(split="test")
        write_table(table, PREDICTIONS, run_folder / "predictions.parquet")
    found = look(run_folder, tmp_path / "a")["looks"]
    assert (found["count"], found["predictions"]) == (2, 2)
    shutil.rmtree(run_folder)
    assert (tmp_path / "runs" / "kl.looks.jsonl").is_file()


def test_knees_that_were_not_held_out_are_no_look(write_predictions, make_predictions, tmp_path):
    path = write_predictions(make_predictions().assign(split="train"))
    evaluate(path, tmp_path / "out", n_boot=0)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["looks"] is None
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_table_is_logged_beside_itself_and_held_out_can_be_declared(
    write_predictions, make_predictions, tmp_path
):
    path = write_predictions(make_predictions(), "graded.csv")
    found = look(path, tmp_path / "out", held_out=True)["looks"]
    assert found["held_out"] == "declared"
    assert found["knees"] == 120
    assert (tmp_path / "graded.looks.jsonl").is_file()


def test_the_split_of_the_cohort_serves_where_the_predictions_have_none(
    run_folder, tmp_path, make_predictions, make_cohort, write_cohort, write_predictions
):
    cohort = write_cohort(make_cohort(n_persons=40).assign(split="test"))
    path = write_predictions(make_predictions(n_persons=40))
    assert look(path, tmp_path / "out", cohort=cohort)["looks"]["knees"] == 80


def test_a_look_that_cannot_be_logged_is_refused(tmp_path):
    log = tmp_path / "kl.looks.jsonl"
    log.write_text("no JSON\n")
    with pytest.raises(InputError, match="could not be logged"):
        log_look(log, command="evaluate", run="kl", predictions_sha256="", knees=["a"], metrics=())


def test_held_out_by_any_name_of_the_test_part_is_held_out():
    """The graded collections call it auto_test, too; what is no part, or missing, is not held."""
    splits = ["test", "auto_test", " Test", "train", "val", "elsewhere", None]
    table = pd.DataFrame({"knee_id": list("abcdefg"), "split": splits})
    assert held_out_knees(table) == ["a", "b", "c"]
    assert held_out_knees(table.drop(columns="split")) == []
