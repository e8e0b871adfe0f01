"""The gallery of maps: the worst errors beside the best of those explained, by their outcome."""

from __future__ import annotations

import pandas as pd
import pytest
from PIL import Image

from kneeoa_mm.analysis.report.runs import Run
from kneeoa_mm.analysis.report.saliency import saliency_section
from kneeoa_mm.schemas import PREDICTIONS
from kneeoa_mm.tables import write_table

RISKS = [0.9, 0.2, 0.6, 0.4, 0.1, 0.8]
EVENTS = [0, 0, 1, 1, 1, 1]
"""Errors by hand: 0.9, 0.2, 0.4, 0.6, 0.9 less a little, 0.2."""


@pytest.fixture
def explained(make_predictions, tmp_path):
    """Maps of six knees of replacement, whose table predicts joint-space loss as well."""

    def make(*, names_outcome: bool) -> Run:
        table = make_predictions(10)
        events = pd.array([*EVENTS, *[0] * 14], dtype="Int64")
        table = table.assign(tkr_prob=0.1, tkr=events)
        path = write_table(table, PREDICTIONS, tmp_path / "predictions.csv")
        folder = tmp_path / "saliency"
        (folder / "images").mkdir(parents=True)
        risks = [*RISKS[:4], 0.11, RISKS[5]]
        rows = pd.DataFrame(
            {
                "knee_id": table["knee_id"][:6],
                "image": [f"images/{i}.png" for i in range(6)],
                "method": "gradcam",
                "target": "progression",
                "status": "ok",
                "risk": risks,
                "kl_grade_pred": 2,
            }
        )
        for name in rows["image"]:
            Image.new("RGB", (60, 40)).save(folder / name)
        if names_outcome:
            rows["outcome"] = "tkr"
        rows.to_csv(folder / "saliency.csv", index=False)
        return Run(folder, "saliency", (folder, path))

    return make


def test_the_worst_come_first_and_beside_the_best(explained):
    section = saliency_section(explained(names_outcome=True))
    order = [picture.name for picture in section.pictures]
    # worst, best, in turn: errors 0.90, 0.89 and 0.60 against 0.20, 0.20 and 0.40
    assert order[0::2] == ["0", "4", "3"]
    assert set(order[1:5:2]) == {"1", "5"}
    assert order[5] == "2"
    assert section.pictures[0].caption.startswith("Worst of 6 explained")
    assert "knee replacement: no" in section.pictures[0].caption
    assert "not chosen by their error" in section.summary


def test_knees_that_were_chosen_by_their_error_are_said_to_be_extremes(explained):
    run = explained(names_outcome=True)
    (run.path / "saliency.json").write_text('{"chosen": "by error", "limits": []}')
    section = saliency_section(run)
    assert "worst and best by all" in section.summary
    assert any("of extremes" in limit for limit in section.limits)


def test_maps_of_an_outcome_that_is_not_told_are_not_said_to_lack_the_truth(explained):
    section = saliency_section(explained(names_outcome=False))
    assert not any("No truth" in note for note in section.notes)
    assert any("does not say which" in note for note in section.notes)
    assert section.methods == [
        "What moved the output was shown by Grad-CAM, of 6 knees; answer: progression."
    ]
