"""Which knees are explained, against an order worked by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from kneeoa_mm import schemas, tables
from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.saliency.choice import choose_knees
from kneeoa_mm.learning.saliency.explain import explain

KNEES = [f"a:{number}:0:R" for number in range(5)]


@pytest.fixture
def knees():
    return pd.DataFrame({"knee_id": KNEES})


@pytest.fixture
def predictions(tmp_path):
    """Knee 3 is graded worst (4 for 0), then 0 (unsure), then 1, best 2; knee 4 was never read."""
    probabilities = [
        [0.5, 0.0, 0.5, 0.0, 0.0],
        [0.1, 0.9, 0.0, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [1.0, 0.0, 0.0, 0.0, 0.0],
    ]
    table = pd.DataFrame(probabilities, columns=[f"kl_prob_{grade}" for grade in range(5)]).assign(
        knee_id=KNEES,
        subject_id=list("01234"),
        laterality="R",
        status="ok",
        kl_grade_pred=[0, 1, 2, 4, 0],
        kl_grade=[0, 1, 2, 0, None],
        jsl_48m=[1, 0, 1, 0, 0],
        jsl_48m_prob=[0.1, 0.8, 0.9, 0.05, None],
        seen_in_training=False,
    )
    return tables.write_table(table, schemas.PREDICTIONS, tmp_path / "predictions.parquet")


@pytest.mark.parametrize(
    ("limit", "outcome", "rows"),
    [
        (2, None, [3, 2]),
        (3, None, [3, 0, 2]),
        (9, None, [3, 0, 1, 2]),
        (1, None, [3]),
        (2, "jsl_48m", [0, 3]),
        (4, "jsl_48m", [0, 1, 2, 3]),
    ],
)
def test_half_are_the_worst_answers_and_half_the_best(knees, predictions, limit, outcome, rows):
    assert choose_knees(knees, limit, predictions, outcome).tolist() == rows
    # the folder of the run will do as well
    assert choose_knees(knees, limit, predictions.parent, outcome).tolist() == rows


def test_without_predictions_knees_are_evenly_spread(knees):
    assert choose_knees(knees, 3, None, None).tolist() == [0, 2, 4]


def test_predictions_that_tell_no_error_are_refused(knees, predictions):
    with pytest.raises(InputError, match="error of none"):
        choose_knees(knees, 3, predictions, "tkr")
    with pytest.raises(InputError, match="error of none"):
        choose_knees(knees.replace("a:", "b:", regex=True), 3, predictions, None)


def test_a_run_says_how_its_knees_were_chosen(folder, tmp_path):
    knees = tables.read_table(folder / "knees" / "knees.parquet", schemas.KNEES)
    right = np.arange(len(knees)) != 4
    table = pd.DataFrame(np.eye(5)[np.where(right, 0, 4)], columns=probability_columns()).assign(
        **knees[["knee_id", "subject_id", "laterality"]].to_dict("list"),
        status="ok",
        kl_grade_pred=np.where(right, 0, 4),
        kl_grade=0,
        seen_in_training=False,
    )
    path = tables.write_table(table, schemas.PREDICTIONS, tmp_path / "predictions.parquet")
    out = tmp_path / "out"
    explain(folder / "knees", folder / "kl", out, limit=2, by_error=path, device="cpu")
    assert json.loads((out / "saliency.json").read_text())["chosen"] == "by error"
    explained = pd.read_csv(out / "saliency.csv")["knee_id"].unique()
    assert explained[0] == knees["knee_id"][4]


def probability_columns():
    return [f"kl_prob_{grade}" for grade in range(5)]
