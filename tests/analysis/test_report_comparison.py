"""What the report tells of a comparison beside the areas: the baseline, and matched pairs."""

from __future__ import annotations

import json

from kneeoa_mm.analysis.report.comparison import comparison_section
from kneeoa_mm.analysis.report.runs import Run


def _estimate(value: float, **more) -> dict:
    return {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "n": 90, **more}


def _section(tmp_path, **more):
    model = {
        "auroc": _estimate(0.7),
        "auprc": _estimate(0.4),
        "auprc_baseline": _estimate(0.25),
        "brier": _estimate(0.2),
    }
    document = {
        "outcome": "jsl_48m",
        "n": 90,
        "events": 30,
        "models": {"image": model},
        "inputs": {"image": "image"},
        "differences": {},
        **more,
    }
    (tmp_path / "compare.json").write_text(json.dumps(document))
    return comparison_section(Run(tmp_path, "comparison"))


def test_average_precision_stands_beside_what_no_skill_gets(tmp_path):
    table = _section(tmp_path).tables[0]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["AUPRC"].startswith("0.40 (")
    assert row["AUPRC without any skill"].startswith("0.25 (")
    assert "of one fold" in table.caption


def test_matched_pairs_have_a_table(tmp_path):
    found = {"concordance": _estimate(0.66), "odds_ratio": _estimate(1.8)}
    pairs = {"pairs": 45, "models": {"image": found}}
    captions = {t.caption: t for t in _section(tmp_path, within_pairs=pairs).tables}
    (table,) = [t for caption, t in captions.items() if "45 matched pairs" in caption]
    assert table.rows[0][:3] == ["Image only", "0.66 (0.56 to 0.76)", "1.80 (1.70 to 1.90)"]
    assert not any("matched" in t.caption for t in _section(tmp_path, within_pairs=None).tables)


def _models(**inputs: str) -> dict:
    return {"models": {name: {"auroc": _estimate(0.7)} for name in inputs}, "inputs": inputs}


def test_no_image_stands_at_the_head_without_the_grade_alone(tmp_path):
    """What was read from the film ranks knees too; an image has to say more than that."""
    told = _models(
        image="image",
        image_without_reading="image, no reading of either knee",
        clinical="age_years; logistic regression",
        kl_grade="KL grade as read, as categories",
        mjsw="minimum medial joint-space width",
    )
    labels = [tile.label for tile in _section(tmp_path, **told).headline]
    assert labels == [
        "Image only: AUROC",
        "Clinical factors alone (logistic): AUROC",
        "KL grade alone: AUROC",
    ]


def test_a_run_is_named_by_what_it_was_told(tmp_path):
    told = _models(
        image="image, KL grade as read",
        fused="image, KL grade as read, contralateral_kl_grade",
        resnet="image, age_years",
    )
    rows = [row[0] for row in _section(tmp_path, **told).tables[0].rows]
    assert rows == [
        "Image and KL grade as read",
        "Image, KL grade as read and KL grade of the other knee",
        "Image and clinical factors (resnet)",
    ]


def test_the_other_knees_grade_alone_is_not_called_clinical_factors(tmp_path):
    """Nor is it said to have been imputed: a reading never is."""
    told = _models(
        **{
            "clinical": "contralateral_kl_grade; logistic regression",
            "clinical+kl": "KL grade as read, contralateral_kl_grade",
        }
    )
    section = _section(tmp_path, **told)
    assert [row[0] for row in section.tables[0].rows] == [
        "KL grade of the other knee alone (logistic)",
        "KL grade of the other knee and KL grade",
    ]
    assert "imputation" not in " ".join(section.methods)


def test_two_runs_that_were_told_the_same_keep_apart(tmp_path):
    """The figure has one line a name."""
    section = _section(tmp_path, **_models(image="image", fused="image"))
    assert [row[0] for row in section.tables[0].rows] == [
        "Image only (image)",
        "Image only (fused)",
    ]


def test_methods_tell_of_weights_and_imputation_where_they_were_used(tmp_path):
    weights = {"knees": 120.4, "event_share": 0.3, "effective_n": 80.0}
    clinical = _models(clinical="age_years; logistic regression")
    methods = " ".join(_section(tmp_path, weighted_to=weights, **clinical).methods)
    assert "the 90 knees with the outcome stand for 120" in methods
    assert "multiple imputation" in methods
    plain = " ".join(_section(tmp_path, weighted_to=None).methods)
    assert "stand for" not in plain
    assert "imputation" not in plain
