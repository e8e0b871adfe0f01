"""An evaluation of models of several folds ranks knees within folds, and says so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.evaluation_figures import draw
from kneeoa_mm.analysis.report import report
from kneeoa_mm.analysis.targets import read_targets


@pytest.fixture
def judge(write_predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("kneeoa_mm.analysis.evaluation.draw", lambda *_: ())

    def run(table):
        evaluate(write_predictions(table), tmp_path / "out", n_boot=20, overwrite=True)
        return json.loads((tmp_path / "out" / "metrics.json").read_text())

    return run


@pytest.fixture
def table(make_predictions):
    """Out-of-fold predictions of four models, each on a level of its own."""
    predictions = make_predictions(n_persons=80)
    fold = predictions.groupby("subject_id").ngroup() % 4
    return predictions.assign(fold=fold, jsl_48m_prob=(predictions["jsl_48m_prob"] + fold) / 5)


def _by_fold(table, event, score, metric, weight):
    """Mean over folds of a metric, weighted; a fold without both classes has no pairs."""
    parts = [(event[rows], score[rows]) for _, rows in table.groupby("fold").indices.items()]
    parts = [(e, s) for e, s in parts if 0 < e.sum() < len(e)]
    return np.average([metric(e, s) for e, s in parts], weights=[weight(e) for e, _ in parts])


def _pairs(event):
    return event.sum() * (len(event) - event.sum())


def test_of_an_outcome_areas_are_those_of_each_fold(judge, table):
    """Oracle: scikit-learn's areas of each fold, weighted by its pairs or its events."""
    found = judge(table)
    event = table["jsl_48m"].to_numpy(int)
    score = table["jsl_48m_prob"].to_numpy()
    expected = {
        "auroc": _by_fold(table, event, score, roc_auc_score, _pairs),
        "auprc": _by_fold(table, event, score, average_precision_score, np.sum),
        "auprc_baseline": _by_fold(table, event, score, lambda e, _: e.mean(), np.sum),
    }
    for name, value in expected.items():
        assert found["jsl_48m"][name]["value"] == pytest.approx(value), name
    assert found["jsl_48m"]["auroc"]["value"] > roc_auc_score(event, score) + 0.05
    assert "one fold" in found["ranking"]["jsl_48m"]


def test_of_grades_too(judge, table):
    """Oracle: the same of each grade against the rest, and of KL 2 or more."""
    found = judge(table)["kl"]
    grade = table["kl_grade"].to_numpy(int)
    p = table[[f"kl_prob_{k}" for k in range(5)]].to_numpy()
    areas = [
        _by_fold(table, (grade == k).astype(int), p[:, k], roc_auc_score, _pairs) for k in range(5)
    ]
    assert found["auroc"]["value"] == pytest.approx(np.mean(areas))
    two = _by_fold(table, (grade >= 2).astype(int), p[:, 2:].sum(axis=1), roc_auc_score, _pairs)
    assert found["auroc_kl2"]["value"] == pytest.approx(two)


def test_a_score_that_only_tells_the_fold_ranks_no_knee(judge, table):
    """Pooled over folds, a constant of each fold would seem to rank: the prevalence of the rest."""
    others = [table.loc[table["fold"] != k, "jsl_48m"].mean() for k in range(4)]
    constant = table.assign(jsl_48m_prob=table["fold"].map(dict(enumerate(others))))
    assert judge(constant)["jsl_48m"]["auroc"]["value"] == 0.5


def test_without_folds_all_knees_are_ranked_together(judge, table):
    found = judge(table.drop(columns="fold"))
    event = table["jsl_48m"].to_numpy(int)
    expected = roc_auc_score(event, table["jsl_48m_prob"])
    assert found["jsl_48m"]["auroc"]["value"] == pytest.approx(expected)
    assert "all knees" in found["ranking"]["jsl_48m"]


def test_the_figure_and_the_report_show_the_same_area(judge, table, tmp_path):
    document = judge(table)
    area = document["jsl_48m"]["auroc"]["value"]
    targets, _ = read_targets(table, None, where="")
    outcome = next(target for target in targets if target.name == "jsl_48m")
    drawn = dict(draw(outcome, document))
    (legend,) = drawn["jsl_48m_roc"].axes[0].get_legend().get_texts()
    assert legend.get_text().endswith(f"{area:.3f}")
    report([tmp_path / "out"], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "AUROC and AUPRC count pairs of knees of one fold" in text
    assert "Risks stated by default: 0.1, 0.2, 0.3" in text
