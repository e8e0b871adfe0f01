"""Made-up tables with known properties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_runs import make_runs

from kneeoa_mm.records import KL_CLASSES, Outcome
from kneeoa_mm.schemas import COHORT, PREDICTIONS
from kneeoa_mm.tables import write_table

MakeTable = Callable[..., pd.DataFrame]
WriteTable = Callable[..., Path]


def _knees(n_persons: int, cohort: str = "made-up") -> pd.DataFrame:
    subjects = np.repeat([f"{9_000_000 + i}" for i in range(n_persons)], 2)
    sides = np.tile(["L", "R"], n_persons)
    return pd.DataFrame(
        {
            "knee_id": [f"{cohort}:{s}:0:{side}" for s, side in zip(subjects, sides, strict=True)],
            "subject_id": subjects,
            "laterality": sides,
        }
    )


@pytest.fixture(scope="session")
def make_predictions() -> MakeTable:
    """Predictions of two knees a person, better than chance, with truth."""

    def make(n_persons: int = 60, seed: int = 0) -> pd.DataFrame:
        generator = np.random.default_rng(seed)
        n = 2 * n_persons
        severity = np.repeat(generator.normal(size=n_persons), 2) + 0.7 * generator.normal(size=n)
        grade = np.digitize(severity, [-0.6, 0.0, 0.8, 1.5])
        seen = grade + generator.normal(0, 0.8, n)
        score = np.exp(-1.2 * (np.arange(5) - seen[:, None]) ** 2)
        probability = score / score.sum(axis=1, keepdims=True)
        risk = 1 / (1 + np.exp(-(severity - 0.8)))
        table = _knees(n_persons).assign(
            status="ok",
            **{f"kl_prob_{k}": probability[:, int(k)] for k in KL_CLASSES},
            kl_grade_pred=probability.argmax(axis=1),
            seen_in_training=False,
            jsl_48m_prob=risk,
            kl_grade=grade,
            jsl_48m=(generator.random(n) < risk).astype(int),
        )
        return table.astype({"kl_grade": "Int64", "jsl_48m": "Int64"})

    return make


@pytest.fixture(scope="session")
def make_cohort() -> MakeTable:
    """A cohort whose hazards rise with KL grade, age and BMI; the knees of a person are alike."""

    def make(n_persons: int = 120, seed: int = 0) -> pd.DataFrame:
        generator = np.random.default_rng(seed)
        n = 2 * n_persons

        def of_person(values: np.ndarray) -> np.ndarray:
            return np.repeat(values, 2)

        cohort = _knees(n_persons).assign(
            months=0,
            age_years=of_person(generator.uniform(45, 79, n_persons)),
            sex=of_person(generator.choice(["F", "M"], n_persons)),
            bmi_kg_m2=of_person(generator.uniform(20, 42, n_persons)),
            race=of_person(generator.choice(["Asian", "White or Caucasian"], n_persons)),
            knee_injury=generator.integers(0, 2, n),
            fta_deg=generator.normal(-5, 3, n),
            kl_grade=generator.choice(4, n, p=[0.4, 0.2, 0.25, 0.15]),
            mjsw_medial_mm=generator.uniform(2, 6, n),
        )
        hazard = np.exp(
            0.5 * cohort["kl_grade"]
            + 0.03 * (cohort["age_years"] - 60)
            + 0.04 * (cohort["bmi_kg_m2"] - 28)
            + of_person(generator.normal(0, 0.5, n_persons))
        ).to_numpy()
        death = of_person(np.where(generator.random(n_persons) < 0.15, 40.0, np.nan))
        outcomes = (Outcome.JSL_48M, Outcome.KL_PROGRESSION, Outcome.TKR)
        for outcome, months in zip(outcomes, (120, 150, 250), strict=True):
            event_months = generator.exponential(months / hazard)
            seen_until = np.full(n, 96.0 if outcome is Outcome.TKR else 48.0)
            seen_until = np.fmin(seen_until, np.where(np.isnan(death), 96.0, death))
            lower, upper = event_months, event_months
            if outcome is not Outcome.TKR:
                seen_until = np.floor(seen_until / 12) * 12
                upper = np.ceil(event_months / 12) * 12
                lower = upper - 12
            observed = upper <= seen_until
            cohort[str(outcome)] = pd.array(observed.astype(int), dtype="Int64")
            cohort[f"{outcome}_reason"] = None
            cohort[f"{outcome}_event_observed"] = pd.array(observed.astype(int), dtype="Int64")
            cohort[f"{outcome}_lower_months"] = np.where(observed, lower, seen_until)
            cohort[f"{outcome}_upper_months"] = np.where(observed, upper, np.nan)
        return cohort.assign(death_months=death)

    return make


@pytest.fixture(scope="session")
def runs(tmp_path_factory, make_cohort: MakeTable, make_predictions: MakeTable) -> Path:
    """A folder with one run of each kind that a report shows, some with hostile texts."""
    return make_runs(tmp_path_factory.mktemp("runs"), make_cohort, make_predictions)


@pytest.fixture
def write_predictions(tmp_path: Path) -> WriteTable:
    def write(table: pd.DataFrame, name: str = "predictions.parquet") -> Path:
        return write_table(table, PREDICTIONS, tmp_path / name)

    return write


@pytest.fixture
def write_cohort(tmp_path: Path) -> WriteTable:
    def write(table: pd.DataFrame, name: str = "cohort.parquet") -> Path:
        return write_table(table, COHORT, tmp_path / name)

    return write
