"""The demonstration decides beforehand, and ends in a report whatever its analyses allow."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kneeoa_mm.analysis.prespecified import read_plan
from kneeoa_mm.errors import InputError
from kneeoa_mm.records import StageResult
from kneeoa_mm.workflows import demo as stage


@pytest.fixture
def called(monkeypatch):
    """Stages that note how they were called, and do no more than make their folder."""
    calls = SimpleNamespace(given={}, reported=[])

    def works(name):
        def run(*places, **options):
            calls.given[name] = options
            folder = next((p for p in places if getattr(p, "name", "") in _FOLDERS), None)
            if folder is not None:
                folder.mkdir(parents=True)
            return StageResult(name, folder, counts={"knees": 1})

        return run

    for name in ("synthesize", "preprocess", "build_cohort", "pretrain_kl", "train_jsl", "predict"):
        monkeypatch.setattr(stage, name, works(name))
    for name in ("evaluate", "agreement", "explain", "survive", "compare"):
        monkeypatch.setattr(stage, name, works(name))

    def report(runs, out, **_):
        calls.reported = [run.name for run in runs]
        return StageResult("report", out)

    monkeypatch.setattr(stage, "report", report)
    return calls


_FOLDERS = ("evaluation", "agreement", "saliency", "survival", "comparison")


def _demo(out):
    return stage.demo(out, subjects=30, seed=0, scenario="standard", jobs=1)


def test_the_plan_is_written_before_anything_is_judged_and_names_what_is_computed(called, tmp_path):
    _demo(tmp_path / "out")
    plan = read_plan(tmp_path / "out" / "plan.yaml")
    assert plan.plan.primary_metric == "auroc"
    assert called.given["evaluate"]["prespecified"] == tmp_path / "out" / "plan.yaml"
    assert called.given["compare"]["prespecified"] == tmp_path / "out" / "plan.yaml"
    assert set(_FOLDERS) < set(called.reported)
    assert "not_computed" not in called.reported


def test_a_cohort_without_events_still_ends_in_a_report_that_says_so(called, monkeypatch, tmp_path):
    def fails(*_places, **_options):
        raise InputError("No knee has the event, so there is nothing to estimate.")

    monkeypatch.setattr(stage, "survive", fails)
    monkeypatch.setattr(stage, "compare", fails)
    result = _demo(tmp_path / "out")
    assert result.counts == {"subjects": 30}
    assert {"evaluation", "not_computed"} < set(called.reported)
    assert not {"survival", "comparison"} & set(called.reported)
    told = (tmp_path / "out" / "not_computed" / "not_computed.json").read_text()
    assert "survival" in told
    assert "No knee has the event" in told
