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
