"""The report: complete, self-contained, safe against what runs contain, honest about gaps."""

from __future__ import annotations

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.report import report
from kneeoa_mm.analysis.report_parts import picture_uri
from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.errors import InputError, OutputExistsError
from kneeoa_mm.tables import COHORT, KNEES, PREDICTIONS, write_table

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._hidden = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._hidden = tag == "style"

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.text += " " + " ".join(data.split())

    def pictures(self) -> list[str]:
        return [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_cohort, make_predictions) -> Path:
    """A folder with one run of each kind, some of them with hostile texts."""
    root = tmp_path_factory.mktemp("runs")
    cohort = make_cohort()
    cohort["race"] = cohort["race"].replace("Asian", EVIL)
    write_table(cohort, COHORT, root / "cohort" / "cohort.parquet", config_digest="abc123")
    (root / "cohort" / "attrition.csv").write_text(
        "flow,kind,step,knees,subjects\n"
        f"cohort,start,enrolled,300,150\ncohort,removed,{EVIL},60,30\ncohort,left,left,240,120\n"
    )
    knees = cohort[["knee_id", "subject_id", "laterality"]].assign(
        image_path="images/a.png", spacing_source="DETECTOR", qc_flags="rotated"
    )
    write_table(knees, KNEES, root / "knees" / "knees.parquet")
    (root / "knees" / "rejects.csv").write_text(
        f"source,stage,code,message\na,decode,E_TRUNCATED,m\nb,{EVIL},E_NO_JOINT,m\n"
    )
    (root / "knees" / "qc").mkdir()
    Image.new("L", (300, 200), 90).save(root / "knees" / "qc" / "contact_sheet.png")
    member = root / "runs" / "kl" / "members" / "00-mobilenet_v2"
    member.mkdir(parents=True)
    card = {"kind": "kl", "fold": 0, "metrics": {"loss": 1.0, "qwk": 0.8}, "weights_source": EVIL}
    (member / "model.json").write_text(json.dumps(card))
    (root / "runs" / "kl" / "config.yaml").write_text(f"note: {EVIL}\n")
    (root / "runs" / "kl" / "history.csv").write_text("member,epoch\n00-mobilenet_v2,1\n")
    Image.new("RGB", (200, 100)).save(root / "runs" / "kl" / "history.png")
    predictions = write_table(make_predictions(), PREDICTIONS, root / "predictions.parquet")
    evaluate(predictions, root / "evaluation", n_boot=20)
    survive(root / "cohort", root / "survival", outcome="tkr")
    estimate = {"value": 0.71234, "ci_low": 0.65, "ci_high": 0.77, "n": 90}
    undefined = {"value": None, "ci_low": None, "ci_high": None, "n": 90, "reason": "no " + EVIL}
    (root / "comparison").mkdir()
    comparison = {
        "outcome": "jsl_48m",
        "n": 90,
        "events": 30,
        "models": {"image": {"auroc": estimate}, "fused": {"auroc": undefined}, EVIL: {}},
        "differences": {"fused-image": {"auroc": estimate}},
        "best_possible": {"image": 0.7, "clinical": 0.66, "both": 0.78, "how": "text"},
    }
    (root / "comparison" / "compare.json").write_text(json.dumps(comparison))
    (root / "saliency" / "images").mkdir(parents=True)
    Image.new("RGB", (60, 40), "red").save(root / "saliency" / "images" / "a.png")
    (root / "saliency" / "saliency.csv").write_text(
        "knee_id,image,member,target,method,status\n"
        f"{EVIL},images/a.png,m,kl,grad_cam,ok\nc:1:0:L,images/gone.png,m,kl,grad_cam,zero\n"
    )
    return root


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory) -> Page:
    out = tmp_path_factory.mktemp("report") / "report.html"
    result = report([runs], out)
    assert result.counts == {"sections": 7}
    assert result.outputs == {"report": out}
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
        "Limits",
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
    assert "gone.png cannot be read" in page.text


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
        stream.write("c:2:0:L,../secret.png,m,kl,grad_cam,ok\n")
    report([tmp_path / "saliency"], tmp_path / "r.html")
    assert len(Page(tmp_path / "r.html").pictures()) == 1


def test_a_large_sixteen_bit_picture_is_shrunk_without_clipping(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 2400), (300, 1)).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "sheet.png")
    content = base64.b64decode(picture_uri(tmp_path / "sheet.png").partition(",")[2])
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
    assert "lost: 4" in Page(tmp_path / "r.html").text
