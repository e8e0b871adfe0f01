"""Every result names the data and the weights it was made from, by their hashes."""

from __future__ import annotations

import json
import shutil

from report_runs import Page

from kneeoa_mm.analysis.report import report
from kneeoa_mm.schemas import COHORT, PREDICTIONS
from kneeoa_mm.tables import write_table

SHA = "ab12cd34" * 8


def _text(tmp_path, *runs) -> str:
    report(list(runs), tmp_path / "r.html")
    return Page(tmp_path / "r.html").text


def test_predictions_name_the_weights_they_come_from(make_predictions, tmp_path):
    extra = {"members": {"00-net": {"weights_sha256": SHA}}}
    path = tmp_path / "predictions.parquet"
    write_table(make_predictions(5), PREDICTIONS, path, extra=extra)
    text = _text(tmp_path, path)
    assert "members.00-net.weights ab12cd34ab12" in text, "in the overview"
    assert SHA in text, "in full, under Provenance"


def test_a_cohort_names_the_files_it_was_made_from(make_cohort, tmp_path):
    extra = {"sources": {"enrollees.txt": SHA}}
    write_table(make_cohort(5), COHORT, tmp_path / "cohort.parquet", extra=extra)
    text = _text(tmp_path, tmp_path)
    assert "enrollees.txt ab12cd34ab12" in text
    assert SHA in text


def test_maps_name_the_model_that_they_are_of(runs, tmp_path):
    shutil.copytree(runs / "saliency", tmp_path / "saliency")
    document = {"limits": [], "members": {"00-net": {"weights_sha256": SHA}}}
    (tmp_path / "saliency" / "saliency.json").write_text(json.dumps(document))
    text = _text(tmp_path, tmp_path / "saliency")
    assert "members.00-net.weights ab12cd34ab12" in text
    assert SHA in text


def test_a_comparison_names_the_predictions_of_each_run(runs, tmp_path):
    document = json.loads((runs / "comparison" / "compare.json").read_text())
    document["provenance"] = {"runs_sha256": {"image": SHA}, "cohort_sha256": "cd" * 32}
    (tmp_path / "compare.json").write_text(json.dumps(document))
    text = _text(tmp_path, tmp_path)
    assert "runs.image ab12cd34ab12" in text
    assert "cohort cdcdcdcdcdcd" in text
