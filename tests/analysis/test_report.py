"""The report: complete, self-contained, safe against what runs contain, honest about gaps."""

from __future__ import annotations

import base64
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_runs import EVIL, Page

from kneeoa_mm.analysis.report import report
from kneeoa_mm.analysis.report.parts import Section
from kneeoa_mm.errors import InputError, OutputExistsError
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import write_table


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory) -> Page:
    out = tmp_path_factory.mktemp("report") / "report.html"
    result = report([runs, runs / "hostile.csv"], out)
    assert result.counts == {"sections": 8}
    assert result.outputs["report"] == out
    assert all(path.exists() for path in result.outputs.values())
    return Page(out)


def test_every_kind_of_run_has_its_section(page):
    for heading in (
        "Cohort",
        "Films to knees",
        "Training: KL grade",
        "Does fusion help?",
        "Evaluation: KL grade, Joint-space loss",
        "Time to event: Knee replacement",
        "Saliency",
        "Predictions",
        "Limits",
        "Methods",
        "TRIPOD+AI",
        "CLAIM",
        "PROBAST+AI",
        "Model card",
    ):
        assert heading in page.text


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    assert page.pictures()
    assert all(uri.startswith("data:image/") for uri in page.pictures())
    links = [value for _, name, value in page.attributes if name in {"href", "src"}]
    assert all(value.startswith(("#", "data:")) for value in links)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    policy = next(v for _, name, v in page.attributes if name == "content" and "default-src" in v)
    assert "default-src 'none'" in policy


def test_links_within_the_page_have_their_target(page):
    targets = {value for _, name, value in page.attributes if name == "id"}
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links
    assert {link.removeprefix("#") for link in links} <= targets


def test_text_of_runs_is_escaped_wherever_it_stands(page):
    # a race, a step, a stage, a weights source, a configuration, a reason, a model, a knee
    assert page.text.count(EVIL) >= 8
    assert "script" not in page.tags


def test_it_says_what_it_is_not(page):
    assert "not a medical device" in page.text
    assert "Research only" in page.text


def test_results_stand_with_intervals_and_gaps_with_reasons(page, runs):
    metrics = json.loads((runs / "evaluation" / "metrics.json").read_text())
    estimate = metrics["jsl_48m"]["auroc"]
    assert f"{estimate['value']:.3f}" in page.text
    assert f"{estimate['ci_low']:.3f} to {estimate['ci_high']:.3f}" in page.text
    assert "0.71 (0.65 to 0.77)" in page.text
    assert "best possible 0.70" in page.text
    assert f"no {EVIL}" in page.text
    assert "5.png cannot be read" in page.text


def test_provenance_names_files_and_hashes_but_no_folder_of_the_machine(page, runs):
    assert (
        json.loads((runs / "evaluation" / "metrics.json").read_text())["provenance"][
            "source_sha256"
        ]
        in page.text
    )
    assert "abc123" in page.text
    assert str(runs.parent) not in page.text


def test_pictures_are_whole(page):
    for uri in page.pictures():
        head, _, content = uri.partition(";base64,")
        data = base64.b64decode(content, validate=True)
        if head == "data:image/svg+xml":
            assert b"</svg>" in data
        else:
            Image.open(io.BytesIO(data)).load()


def test_absent_kinds_are_named(runs, tmp_path):
    result = report([runs / "evaluation"], tmp_path / "r.html")
    assert result.counts == {"sections": 1}
    assert any("survival" in note for note in result.notes)
    assert "no such run was given" in Page(tmp_path / "r.html").text


def test_a_run_given_twice_stands_once(runs, tmp_path):
    result = report([runs, runs / "evaluation", runs], tmp_path / "r.html")
    assert result.counts == {"sections": 7}


def test_a_folder_as_output_gets_report_html(runs, tmp_path):
    assert report([runs / "evaluation"], tmp_path).out == tmp_path / "report.html"
    assert report([runs / "evaluation"], tmp_path / "new").out == tmp_path / "new" / "report.html"


def test_an_existing_report_is_kept_unless_told_otherwise(runs, tmp_path):
    out = tmp_path / "r.html"
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        report([runs / "evaluation"], out)
    assert out.read_text() == "mine"
    report([runs / "evaluation"], out, overwrite=True)
    assert "medical device" in out.read_text()


def test_missing_empty_and_damaged_runs_are_refused_before_anything_is_written(runs, tmp_path):
    out = tmp_path / "r.html"
    with pytest.raises(InputError, match="no such run"):
        report([tmp_path / "nothing"], out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing that a report can show"):
        report([tmp_path / "empty"], out)
    for content in ("{", "[]", '{"kl": {"accuracy": {}}}', '{"kl": 3}'):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "metrics.json").write_text(content)
        with pytest.raises(InputError, match="damaged"):
            report([tmp_path / "bad"], out)
    (tmp_path / "bad" / "survival.json").write_text("{}")
    (tmp_path / "bad" / "metrics.json").unlink()
    with pytest.raises(InputError, match="run survival again"):
        report([tmp_path / "bad"], out)
    assert not out.exists()


def test_a_saliency_table_cannot_pull_in_pictures_from_elsewhere(runs, tmp_path):
    shutil.copytree(runs / "saliency", tmp_path / "saliency")
    Image.new("RGB", (10, 10)).save(tmp_path / "secret.png")
    with (tmp_path / "saliency" / "saliency.csv").open("a") as stream:
        stream.write("c:2:0:L,../secret.png,m,kl_grade_2,gradcam,ok,2,\n")
    report([tmp_path / "saliency"], tmp_path / "r.html")
    secret = base64.b64encode((tmp_path / "secret.png").read_bytes()).decode()
    shown = Page(tmp_path / "r.html").pictures()
    assert shown
    assert not any(secret in uri for uri in shown)


def test_a_large_sixteen_bit_picture_is_shrunk_without_clipping(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 2400), (300, 1)).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "sheet.png")
    section = Section("preprocess", "Films", "knees")
    section.add_picture(tmp_path / "sheet.png", "A ramp.")
    content = base64.b64decode(section.pictures[0].uri.partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        greys = np.asarray(picture)
    assert picture.width == 1600
    assert np.mean(greys) == pytest.approx(127, abs=3)


def test_a_cohort_without_attrition_or_outcomes_still_has_its_section(make_cohort, tmp_path):
    cohort = make_cohort(n_persons=2)
    for name in ("jsl_48m", "kl_progression", "tkr"):
        cohort[name] = pd.array([pd.NA] * len(cohort), dtype="Int64")
        cohort[f"{name}_reason"] = "lost"
    write_table(cohort, COHORT, tmp_path / "cohort.parquet")
    report([tmp_path], tmp_path / "r.html")
    text = Page(tmp_path / "r.html").text
    assert "lost: 4" in text
    assert "nothing about progression can be computed" in text
    assert "there is no flow diagram" in text
