"""The outcomes of a cohort's knees as records, and as columns of its table."""

from __future__ import annotations

import pandas as pd

from kneeoa_mm.cohort.columns import LABEL_PARTS
from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord
from kneeoa_mm.cohort.outcomes import from_label, horizon_of, outcome_records
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.records import Outcome


def records_of(
    knees: pd.DataFrame, histories: list[KneeHistory], spec: CohortSpec
) -> dict[Outcome, list[OutcomeRecord]]:
    """Every outcome of every knee, from its history, or as the source has it ready-made."""
    records = outcome_records(histories, spec.outcomes)
    for outcome in Outcome:
        labels = [f"{outcome}{part}" for part in LABEL_PARTS]
        if set(labels) & set(knees):
            horizon = horizon_of(outcome, spec.outcomes)
            parts = knees.reindex(columns=labels).astype(object).where(lambda c: c.notna(), None)
            made = [from_label(*row, horizon_months=horizon) for row in parts.to_numpy()]
            records[outcome] = made
    return records


def followed_months(records: dict[Outcome, list[OutcomeRecord]]) -> pd.DataFrame:
    """Until when each knee was followed for the value of each outcome."""
    followed = {
        outcome: [record.followed_months for record in made] for outcome, made in records.items()
    }
    return pd.DataFrame(followed, dtype=float)


def with_outcomes(
    cohort: pd.DataFrame,
    records: dict[Outcome, list[OutcomeRecord]],
    histories: list[KneeHistory],
) -> pd.DataFrame:
    """The cohort with the columns of each outcome, of death and of the last contact."""
    columns: dict[str, pd.Series] = {}
    for outcome, made in records.items():
        columns |= _outcome_columns(str(outcome), made)
    for name in ("death_months", "death_after_months", "last_contact_months"):
        columns[name] = pd.Series([getattr(knee, name) for knee in histories], dtype=float)
    return pd.concat([cohort, pd.DataFrame(columns)], axis=1)


def _outcome_columns(name: str, records: list[OutcomeRecord]) -> dict[str, pd.Series]:
    def column(attribute: str, dtype: str) -> pd.Series:
        return pd.Series([getattr(record, attribute) for record in records], dtype=dtype)

    return {
        name: column("value", "Int64"),
        f"{name}_reason": pd.Series(
            [None if record.reason is None else str(record.reason) for record in records],
            dtype=object,
        ),
        f"{name}_event_observed": column("event_observed", "Int64"),
        f"{name}_lower_months": column("lower_months", "float"),
        f"{name}_upper_months": column("upper_months", "float"),
    }
