"""Kappa of two readers and of a model beside them, against scikit-learn and known agreement."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from kneeoa_mm.analysis.agreement import agreement
from kneeoa_mm.analysis.report import report
from kneeoa_mm.analysis.report.agreement import agreement_section
from kneeoa_mm.analysis.report.checklists import filled_checklists
from kneeoa_mm.analysis.report.runs import Run
from kneeoa_mm.cli import app
from kneeoa_mm.errors import ConfigError, InputError, TableError


def _readings(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A second reader who differs by one grade in a fifth of the films."""
    generator = np.random.default_rng(seed)
    first = table["kl_grade"].astype(int)
    moved = first + generator.choice([-1, 0, 1], len(first), p=[0.1, 0.8, 0.1])
    return table[["knee_id", "subject_id"]].assign(kl_grade=first, second_kl_grade=moved.clip(0, 4))


@pytest.fixture
def written(make_predictions, write_predictions, tmp_path):
    """Readings and predictions of the same knees, and both as files."""
    table = make_predictions()
    readings = _readings(table)
    readings.to_csv(tmp_path / "kl_second_readings.csv", index=False)
    return readings, table, write_predictions(table)


def _document(folder):
    return json.loads((folder / "agreement.json").read_text())


def test_kappas_are_those_of_scikit_learn_on_the_same_films(written, tmp_path):
    """Oracle: scikit-learn's quadratic weighted kappa."""
    readings, table, predictions = written
    words = ["agreement", tmp_path, "--out", tmp_path / "out", "--predictions", predictions]
    asked = CliRunner().invoke(app, [str(word) for word in [*words, "--n-boot", 200]])
    assert asked.exit_code == 0
    found = _document(tmp_path / "out")["agreement"]
    graders = {
        "second_reader": ("kl_grade", readings["second_kl_grade"]),
        "model": ("kl_grade", table["kl_grade_pred"]),
        "model_with_second": ("second_kl_grade", table["kl_grade_pred"]),
    }
    for name, (first, second) in graders.items():
        expected = cohen_kappa_score(readings[first], second.astype(int), weights="quadratic")
        assert found[name]["qwk"]["value"] == pytest.approx(expected)
        assert found[name]["qwk"]["ci_low"] < expected < found[name]["qwk"]["ci_high"]


def test_a_model_that_repeats_the_second_reader_does_not_differ_from_him(
    written, write_predictions, tmp_path
):
    readings, table, _ = written
    copied = table.assign(kl_grade_pred=readings["second_kl_grade"].astype("Int64"))
    predictions = write_predictions(copied, "copied.parquet")
    agreement(tmp_path, tmp_path / "out", predictions=predictions, n_boot=50)
    difference = _document(tmp_path / "out")["model_minus_second_reader"]["qwk"]
    assert (difference["value"], difference["ci_low"], difference["ci_high"]) == (0, 0, 0)


def test_films_whose_person_the_model_saw_do_not_count(written, write_predictions, tmp_path):
    _, table, _ = written
    table.loc[:9, "seen_in_training"] = True
    predictions = write_predictions(table, "seen.parquet")
    result = agreement(tmp_path, tmp_path / "out", predictions=predictions, n_boot=0)
    assert result.counts["films"] == len(table) - 10
    assert _document(tmp_path / "out")["left_out"] == {"no_prediction": 10}
    assert any(f"10 of {len(table)} films" in note for note in result.notes)


def test_a_second_knee_that_repeats_the_first_adds_no_certainty(written, tmp_path):
    readings, _, _ = written
    single = readings.assign(subject_id=readings["knee_id"])
    doubled = pd.concat([single, single.assign(knee_id=single["knee_id"] + ":2")])
    widths = []
    for name, table in (("single", single), ("doubled", doubled)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        agreement(tmp_path / f"{name}.csv", tmp_path / name, n_boot=400)
        qwk = _document(tmp_path / name)["agreement"]["second_reader"]["qwk"]
        widths.append(qwk["ci_high"] - qwk["ci_low"])
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)


def test_films_of_one_person_give_no_interval(written, tmp_path):
    readings, _, _ = written
    readings.head(2).to_csv(tmp_path / "one.csv", index=False)
    agreement(tmp_path / "one.csv", tmp_path / "out")
    found = _document(tmp_path / "out")["agreement"]["second_reader"]["accuracy"]
    assert (found["ci_low"], found["ci_high"]) == (None, None)
    assert found["reason"]


def test_what_cannot_be_read_is_named(written, write_predictions, tmp_path):
    _, table, _ = written
    with pytest.raises(InputError, match="no second readings"):
        agreement(tmp_path / "nowhere.csv", tmp_path / "out")
    readings = pd.read_csv(tmp_path / "kl_second_readings.csv")
    readings.loc[3, "second_kl_grade"] = 9
    readings = pd.concat([readings, readings.iloc[[7]]], ignore_index=True)
    readings.to_csv(tmp_path / "faulty.csv", index=False)
    with pytest.raises(TableError) as raised:
        agreement(tmp_path / "faulty.csv", tmp_path / "out")
    assert raised.value.faults == [
        "a grade that is not 0 to 4: row(s) 3",
        f"the same film again: row(s) {len(readings) - 1}",
    ]
    (tmp_path / "short.csv").write_text("knee_id,subject_id,kl_grade\na:1:0:L,1,2\n")
    with pytest.raises(InputError, match="without second_kl_grade"):
        agreement(tmp_path / "short.csv", tmp_path / "out")
    others = table.assign(knee_id=table["knee_id"].str.replace("made-up", "other"))
    predictions = write_predictions(others, "others.parquet")
    with pytest.raises(InputError, match="graded none"):
        agreement(tmp_path, tmp_path / "out", predictions=predictions)


def test_settings_are_checked_and_kept(written, tmp_path):
    with pytest.raises(ConfigError, match="seed"):
        agreement(tmp_path, tmp_path / "out", seed=-1)
    agreement(tmp_path, tmp_path / "out", n_boot=5, seed=3)
    assert Run(tmp_path / "out", "out").config() == {"n_boot": 5, "seed": 3}


@pytest.mark.parametrize("content", [b"", "knee_id,reader\na,\xe9\n".encode("latin-1")])
def test_readings_that_are_no_table_are_refused_as_input(content, tmp_path):
    (tmp_path / "readings.csv").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        agreement(tmp_path / "readings.csv", tmp_path / "out")


def test_films_without_a_subject_are_named_and_are_not_one_person(written, tmp_path):
    readings, _, _ = written
    readings.loc[[2, 5, 6], "subject_id"] = ""
    readings.to_csv(tmp_path / "nameless.csv", index=False)
    with pytest.raises(TableError) as raised:
        agreement(tmp_path / "nameless.csv", tmp_path / "out")
    (fault,) = raised.value.faults
    assert fault.startswith("no knee_id or subject_id")
    assert fault.endswith("row(s) 2, 5, 6")


def test_the_report_shows_readers_and_the_model_and_answers_claims_item(written, tmp_path):
    _, _, predictions = written
    agreement(tmp_path, tmp_path / "out", predictions=predictions, n_boot=50)
    section = agreement_section(Run(tmp_path / "out", "out"))
    kappa = _document(tmp_path / "out")["agreement"]["model"]["qwk"]["value"]
    (table,) = section.tables
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["Model and first reader"].startswith(f"{kappa:.3f} (")
    assert set(rows) >= {"Two readers", "Model and second reader", "Model less second reader"}
    (claim,) = [c for c in filled_checklists([section], []) if "CLAIM" in c.name]
    (readers,) = [row for row in claim.rows if row.number == "18"]
    assert "120 films of 60 persons were read twice" in readers.found[0].text
    report([tmp_path / "out"], tmp_path / "r.html")
    assert "Readers and the model" in (tmp_path / "r.html").read_text()
