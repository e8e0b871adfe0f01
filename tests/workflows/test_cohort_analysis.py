"""The analysis of a whole cohort with a run of a model: compared, judged, and told in one text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from known_runs import Study, image_risk, two_knees_a_person

from kneeoa_mm.analysis import survival
from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec
from kneeoa_mm.errors import InputError
from kneeoa_mm.schemas import COHORT, FOLDS
from kneeoa_mm.synthetic.oai_tables import SIDES, subject_rows, write_tables
from kneeoa_mm.synthetic.progression import VISIT_MONTHS, simulate
from kneeoa_mm.synthetic.subject import model_draws, subject_id
from kneeoa_mm.tables import read_table
from kneeoa_mm.workflows.cohort_analysis import analyse_cohort

N_SUBJECTS, N_BOOT = 150, 7
TIMES = [f"kl_progression_{name}" for name in ("event_observed", "lower_months", "upper_months")]


def folds_of_first(folder, spec):
    """Subject to fold of a cohort that is built beforehand, as that of the analysis will be."""
    first = build_cohort(folder / "tables", folder / "first", spec=spec).out
    return read_table(first / "folds.parquet", FOLDS).set_index("subject_id")["fold"]


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
    fold_of = folds_of_first(folder, spec)
    knees = read_table(folder / "first" / "cohort.parquet", COHORT)
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


def analysed(folder, monkeypatch, told, columns=None):
    """Analysis of a table that tells an outcome in these columns, and of a run that predicts it."""
    outcome = "kl_progression"
    knees = two_knees_a_person(60, seed=0).rename(columns={"jsl_48m": outcome})
    happened = knees[outcome].to_numpy()
    knees[TIMES[0]] = happened
    knees[TIMES[1]], knees[TIMES[2]] = 48 - 12 * happened, np.where(happened, 48, np.nan)
    (folder / "tables").mkdir()
    knees.to_csv(folder / "tables" / "knees.csv", index=False)
    names = ("subject_id", "laterality", "kl_grade", "age_years", "sex", *told)
    tables = {"enrollees": {"file": "knees.csv", "columns": {name: name for name in names}}}
    spec = CohortSpec.model_validate({"name": "t", "visits": {"V00": 0}, "tables": tables})
    knees["fold"] = knees["subject_id"].map(folds_of_first(folder, spec))
    run = Study(folder, knees, outcome).run("image", image_risk(happened, seed=1), columns=columns)
    monkeypatch.setattr(survival, "_draw", lambda *_: ())
    out = analyse_cohort(
        folder / "tables", folder / "out", spec=spec, runs={"image": run}, n_boot=N_BOOT
    ).out
    rows = json.loads((out / "not_computed" / "not_computed.json").read_text())["not_computed"]
    return out, {row["stage"]: row["reason"] for row in rows}


def test_runs_are_compared_where_no_times_are_known(tmp_path, monkeypatch):
    """A source that tells who progressed and not when."""
    out, not_computed = analysed(tmp_path, monkeypatch, ["kl_progression"])
    document = json.loads((out / "compare/kl_progression/compare.json").read_text())
    assert "image" in document["models"]
    assert not_computed["survival kl_progression"].startswith("No knee has the event")


def test_predictions_that_cannot_be_judged_over_time_leave_the_cohort_its_survival(
    tmp_path, monkeypatch
):
    """The run has the incidence by 60 months alone, and the cohort judges at 48."""
    by_60 = {"kl_progression_cif_60": 0.5}
    out, not_computed = analysed(tmp_path, monkeypatch, TIMES, by_60)
    document = json.loads((out / "survival/kl_progression/survival.json").read_text())
    assert "predictions" not in document["prognosis"]["models"]
    assert "by another horizon" in not_computed["survival kl_progression with image"]
    assert "survival kl_progression" not in not_computed
    assert (out / "compare/kl_progression/compare.json").exists()


def test_a_run_that_is_not_there_is_told_before_anything_is_built(tmp_path):
    spec = read_cohort_spec("synthetic")
    with pytest.raises(InputError, match="not there"):
        analyse_cohort(tmp_path, tmp_path / "out", spec=spec, runs={"image": tmp_path / "nowhere"})
    assert not (tmp_path / "out").exists()


def test_a_follow_up_of_months_is_analysed_without_incidences_by_year(tmp_path, monkeypatch):
    knees = two_knees_a_person(60, seed=0).rename(columns={"jsl_48m": "kl_progression"})
    happened = knees["kl_progression"].to_numpy()
    knees[TIMES[0]] = happened
    knees[TIMES[1]], knees[TIMES[2]] = 6 - 6 * happened, np.where(happened, 6, np.nan)
    (tmp_path / "tables").mkdir()
    knees.to_csv(tmp_path / "tables" / "knees.csv", index=False)
    names = ("subject_id", "laterality", "kl_grade", "age_years", "sex", "kl_progression", *TIMES)
    tables = {"enrollees": {"file": "knees.csv", "columns": {name: name for name in names}}}
    spec = CohortSpec.model_validate({"name": "t", "visits": {"V00": 0}, "tables": tables})
    monkeypatch.setattr(survival, "_draw", lambda *_: ())
    out = analyse_cohort(tmp_path / "tables", tmp_path / "out", spec=spec, n_boot=N_BOOT).out
    assert (out / "survival" / "kl_progression" / "survival.json").exists()
    assert len((out / "incidence_by_kl.csv").read_text().splitlines()) == 1
    assert "no year with an event" in (out / "summary.txt").read_text()
