"""The cohort that is built from synthetic tables tells the truth that the tables were made from."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.config import shipped
from kneeoa_mm.records import Outcome
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.synthetic.oai_tables import SIDES, subject_rows, write_tables
from kneeoa_mm.synthetic.progression import VISIT_MONTHS, simulate
from kneeoa_mm.synthetic.subject import model_draws, subject_id
from kneeoa_mm.synthetic.truth import progress_columns
from kneeoa_mm.tables import read_table

_SUBJECTS = 800
_SEED = 11
_WIDTHS_MM = np.full((2, len(VISIT_MONTHS)), 4.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and truth of a synthetic cohort without its films, which take far longer to draw."""
    folder = tmp_path_factory.mktemp("synthetic")
    rows, truth = [], []
    for index in range(_SUBJECTS):
        person = simulate(model_draws(_SEED, index))
        rows.append(
            subject_rows(subject_id(index), person, _WIDTHS_MM, np.random.default_rng(index))
        )
        for place, side in enumerate(SIDES):
            truth.append(
                {
                    "knee_id": f"synthetic:{subject_id(index)}:0:{side}",
                    **progress_columns(person, place),
                    "is_native": not person.replaced_before[0, place],
                    "kl_grade": person.kl_grade[0, place, 0],
                    "replacement_months": person.replacement_months[0, place],
                    "death_months": person.death_months[0],
                    "contact_months": min(person.dropout_months[0], person.death_months[0], 108.0),
                }
            )
    write_tables(folder / "tables", rows)
    (folder / "truth").mkdir()
    pd.DataFrame(truth).to_parquet(folder / "truth" / "knees.parquet")
    return folder


@pytest.fixture(scope="module")
def results(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cohort's own analysis script writes."""
    out = tmp_path_factory.mktemp("results")
    script = runpy.run_path(str(shipped("cohorts") / "synthetic" / "analyse.py"))
    script["analyse"](data, out, {}, n_boot=50)
    return out


@pytest.fixture(scope="module")
def cohort(results: Path) -> pd.DataFrame:
    return read_table(results / "cohort" / "cohort.parquet", COHORT).set_index("knee_id")


@pytest.fixture(scope="module")
def truth(data: Path) -> pd.DataFrame:
    return pd.read_parquet(data / "truth" / "knees.parquet").set_index("knee_id")


def test_jsl_and_its_reasons_are_the_truth_for_every_knee(
    cohort: pd.DataFrame, truth: pd.DataFrame
) -> None:
    found, true = cohort["jsl_48m_reason"], truth.loc[cohort.index, "jsl_48m_reason"]
    different = found.fillna("") != true.fillna("")
    assert not different.any(), pd.concat([found, true], axis=1)[different]
    known = cohort["jsl_48m"].notna()
    pd.testing.assert_series_equal(
        cohort.loc[known, "jsl_48m"].astype(int),
        truth.loc[cohort.index[known], "jsl_48m"].astype(int),
    )
    assert known.mean() > 0.5


def test_only_knees_replaced_before_or_without_a_grade_are_left_out(
    cohort: pd.DataFrame, truth: pd.DataFrame
) -> None:
    left_out = truth.drop(index=cohort.index)
    assert (~left_out["is_native"] | (left_out["jsl_48m_reason"] == "no_baseline_reading")).all()
    assert set(left_out["is_native"]) == {True, False}


def test_grades_are_those_of_the_preferred_project(
    cohort: pd.DataFrame, truth: pd.DataFrame
) -> None:
    assert (cohort["kl_grade"] == truth.loc[cohort.index, "kl_grade"]).all()


def test_replacement_and_death_are_dated_to_the_day(
    cohort: pd.DataFrame, truth: pd.DataFrame
) -> None:
    events = cohort[cohort["tkr_event_observed"] == 1]
    assert len(events) > 50
    late = events["tkr_upper_months"] - truth.loc[events.index, "replacement_months"]
    assert late.abs().max() < 1e-6
    assert (events["tkr_lower_months"] == events["tkr_upper_months"]).all()
    deaths = cohort["death_months"].dropna()
    assert (deaths - truth.loc[deaths.index, "death_months"]).abs().max() < 1e-6


def test_no_knee_is_followed_beyond_the_contact_with_its_person(
    cohort: pd.DataFrame, truth: pd.DataFrame
) -> None:
    free = cohort[cohort["tkr_event_observed"] == 0]
    beyond = free["tkr_lower_months"] - truth.loc[free.index, "contact_months"]
    assert beyond.max() < 1e-6


def test_the_analysis_script_writes_table_one_survival_and_incidence(results: Path) -> None:
    table = pd.read_csv(results / "cohort" / "table_1" / "jsl_48m.csv", index_col=0)
    assert int(table.loc["knees", "all"]) == sum(
        int(table.loc["knees", group]) for group in ("no", "yes", "unknown")
    )
    # the synthetic cohort was not asked for pain
    observed = [outcome for outcome in Outcome if outcome is not Outcome.PAIN_PROGRESSION]
    for outcome in observed:
        assert (results / "survival" / outcome / "survival.json").is_file()
    incidence = pd.read_csv(results / "incidence_by_kl.csv")
    assert set(incidence["outcome"]) == set(observed)
    assert set(incidence.query("outcome == 'jsl_48m'")["estimator"]) == {"turnbull"}
    assert set(incidence.query("outcome == 'tkr'")["estimator"]) == {"aalen_johansen"}


def test_factors_that_move_the_hazard_foretell_replacement_and_noise_does_not(
    results: Path,
) -> None:
    """The generator lets replacement rise with pain, grade and age."""
    models = pd.read_csv(results / "models.csv").query("outcome == 'tkr' and metric == 'uno_c'")
    by_model = models.set_index("model")
    assert by_model.loc["clinical_and_kl_grade", "ci_low"] > 0.5
    assert set(by_model.index) == {"kl_grade", "clinical", "clinical_and_kl_grade"}


def test_the_oai_spec_reads_the_same_tables_to_the_same_labels(
    data: Path, cohort: pd.DataFrame, tmp_path: Path
) -> None:
    for path in (data / "tables").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for visit in ("08", "10"):  # later visits, at which nobody was read
        for name in ("kxr_sq_bu", "kxr_qjsw_duryea"):
            header = (data / "tables" / f"{name}06.txt").read_text().splitlines()[0]
            (tmp_path / f"{name}{visit}.txt").write_text(header.replace("V06", f"V{visit}") + "\n")
    projects = read_cohort_spec("synthetic").reading_projects
    spec = read_cohort_spec("oai").model_copy(update={"reading_projects": projects})
    build_cohort(tmp_path, tmp_path / "out", spec=spec)
    oai = read_table(tmp_path / "out" / "cohort.parquet", COHORT)
    oai.index = oai.pop("knee_id").str.replace("oai:", "synthetic:")
    pd.testing.assert_frame_equal(oai, cohort)
