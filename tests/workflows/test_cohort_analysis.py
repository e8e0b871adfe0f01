"""The analysis of a whole cohort with a run of a model: compared, judged, and told in one text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from known_runs import Study, image_risk

from kneeoa_mm.analysis import survival
from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.schemas import COHORT, FOLDS
from kneeoa_mm.synthetic.oai_tables import SIDES, subject_rows, write_tables
from kneeoa_mm.synthetic.progression import VISIT_MONTHS, simulate
from kneeoa_mm.synthetic.subject import model_draws, subject_id
from kneeoa_mm.tables import read_table
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort

N_SUBJECTS, N_BOOT = 150, 7


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Analysis of a synthetic cohort, and of a run that was made on its folds beforehand."""
    folder, spec = tmp_path_factory.mktemp("cohort"), read_cohort_spec("synthetic")
    widths_mm = np.full((len(SIDES), len(VISIT_MONTHS)), 4.0)
    people = ((i, simulate(model_draws(3, i))) for i in range(N_SUBJECTS))
    rows = [
        subject_rows(subject_id(i), person, widths_mm, np.random.default_rng(i))
        for i, person in people
    ]
    write_tables(folder / "tables", rows)
    first = build_cohort(folder / "tables", folder / "first", spec=spec).out
    knees = read_table(first / "cohort.parquet", COHORT)
    fold_of = read_table(first / "folds.parquet", FOLDS).set_index("subject_id")["fold"]
    study = Study(folder, knees.assign(fold=knees["subject_id"].map(fold_of).astype(int)))
    happened = knees["jsl_48m"].fillna(0).to_numpy(int)
    run = study.run("image", image_risk(happened, seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survival, "_draw", lambda *_: ())
        return analyse_cohort(
            folder / "tables", folder / "out", spec=spec, runs={"image": run}, n_boot=N_BOOT
        )


def test_a_run_is_compared_on_the_outcome_that_it_predicts_alone(results):
    compared = sorted(path.name for path in (results.out / "compare").iterdir())
    assert compared == ["jsl_48m"]
    document = json.loads((results.out / "compare" / "jsl_48m" / "compare.json").read_text())
    assert {"image", "kl_grade"} <= set(document["models"])
    told = results.outputs["summary"].read_text()
    assert document["verdict"][0] in told
    judged = json.loads((results.out / "survival" / "jsl_48m" / "survival.json").read_text())
    assert "predictions" in judged["prognosis"]["models"]


@pytest.mark.parametrize(
    "place",
    ["compare/jsl_48m/compare.json", "survival/jsl_48m/survival.json", "agreement/agreement.json"],
)
def test_all_parts_draw_as_often_as_was_asked(results, place):
    assert json.loads((results.out / place).read_text())["provenance"]["n_boot"] == N_BOOT
