"""What was decided beforehand is confirmatory, the rest is marked, and a gap is said."""

from __future__ import annotations

import hashlib
import json

import pandas as pd
import pytest

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.errors import ConfigError

PLAN = """
outcome: jsl_48m
primary_metric: auroc
secondary_metrics: [brier]
thresholds: [0.15]
subgroups: [sex]
bands: {age_years: [60]}
"""


@pytest.fixture
def judge(write_predictions, make_predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("kneeoa_mm.analysis.evaluation.draw", lambda *_: ())

    def run(plan: str | None, **options):
        path = tmp_path / "plan.yaml"
        path.write_text(plan or "")
        table = make_predictions().assign(sex="F", age_years=61.0)
        out = tmp_path / "out"
        evaluate(
            write_predictions(table),
            out,
            n_boot=10,
            prespecified=path if plan else None,
            overwrite=True,
            **options,
        )
        return json.loads((out / "metrics.json").read_text())

    return run


def test_the_hash_is_that_of_the_file_and_the_plan_is_there_as_read(judge):
    found = judge(PLAN)["prespecified"]
    assert found["sha256"] == hashlib.sha256(PLAN.encode()).hexdigest()
    assert found["file"] == "plan.yaml"
    assert found["plan"]["thresholds"] == [0.15]


def test_named_figures_are_confirmatory_and_all_others_are_marked(judge):
    document = judge(PLAN)
    assert document["prespecified"]["confirmatory"] == [
        "jsl_48m.auroc",
        "jsl_48m.brier",
        "jsl_48m.sensitivity_at_0.15",
        "jsl_48m.specificity_at_0.15",
        "jsl_48m.net_benefit_at_0.15",
        "subgroups.jsl_48m.sex",
    ]
    assert "exploratory" not in document["jsl_48m"]["auroc"]
    assert "exploratory" not in document["subgroups"]["jsl_48m"]["sex"]
    assert document["jsl_48m"]["auprc"]["exploratory"]
    assert document["kl"]["accuracy"]["exploratory"]
    assert document["per_person"]["jsl_48m"]["auroc"]["exploratory"]
    assert document["per_grade"]["f1"]["2"]["exploratory"]
    assert document["subgroups"]["jsl_48m"]["age_years"]["exploratory"]
    assert document["subgroups"]["kl"]["sex"]["exploratory"]


def test_what_is_marked_in_the_document_is_marked_in_the_table(judge, tmp_path):
    judge(PLAN)
    rows = pd.read_csv(tmp_path / "out" / "metrics.csv")
    confirmatory = rows[rows["exploratory"].isna()]
    assert set(confirmatory["target"]) == {"jsl_48m"}
    assert set(confirmatory["estimand"]) == {"per_knee"}
    assert "auroc" in set(confirmatory["metric"])


def test_a_plan_may_name_the_estimand_per_person(judge):
    document = judge(PLAN + "estimand: per_person\n")
    assert "per_person.jsl_48m.auroc" in document["prespecified"]["confirmatory"]
    assert document["jsl_48m"]["auroc"]["exploratory"]


@pytest.mark.parametrize(
    ("plan", "absent"),
    [
        ("outcome: jsl_48m\nprimary_metric: qwk\n", "jsl_48m.qwk"),
        ("outcome: tkr\n", "tkr.auroc"),
        ("outcome: jsl_48m\nsubgroups: [race]\n", "subgroups.jsl_48m.race"),
    ],
)
def test_what_was_prespecified_but_has_no_value_is_said(judge, plan, absent):
    document = judge(plan)
    assert [each["what"] for each in document["prespecified"]["missing"]] == [absent]
    assert any(absent in note for note in document["notes"])


def test_thresholds_and_bands_are_those_of_the_plan_and_what_is_asked_for_is_added(judge):
    document = judge(PLAN, thresholds=(0.4,))
    assert "sensitivity_at_0.15" in document["jsl_48m"]
    assert document["jsl_48m"]["sensitivity_at_0.4"]["exploratory"]
    assert "sensitivity_at_0.1" not in document["jsl_48m"]
    assert list(document["subgroups"]["kl"]["age_years"]["levels"]) == [">= 60"]


def test_without_a_plan_nothing_is_marked_and_all_is_said_to_be_exploratory(judge):
    document = judge(None)
    assert document["prespecified"] is None
    assert "exploratory" not in document["jsl_48m"]["auprc"]
    assert any("exploratory" in note for note in document["notes"])


@pytest.mark.parametrize(
    "plan",
    [
        "primery_metric: auroc\n",
        "thresholds: [1.5]\n",
        "comparisons: [fused]\n",
        "outcome: jsl\n",
        "bands: {age_years: []}\n",
        "bands: {age_years: [65, 55]}\n",
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_before_anything_is_written(judge, plan, tmp_path):
    with pytest.raises(ConfigError, match=r"plan\.yaml"):
        judge(plan)
    assert not (tmp_path / "out").exists()
