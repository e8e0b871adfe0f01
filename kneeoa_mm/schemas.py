"""The schema of every table that is written: its columns, their types and what they may hold.

A table that breaks its schema is refused with all its faults at once, each with its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import pandera.pandas as pa

from kneeoa_mm.errors import TableError, rows_named
from kneeoa_mm.records import (
    KL_CLASSES,
    UNKNOWN,
    Laterality,
    Outcome,
    PredictionStatus,
    SpacingSource,
    View,
)

_FIRST_OUTCOMES = (Outcome.JSL_48M, Outcome.KL_PROGRESSION, Outcome.TKR)
PREDICTIONS_FILE = "predictions.parquet"
"""Name of the table ``PREDICTIONS`` in the folder of a run."""


@dataclass(frozen=True)
class TableSchema:
    """Name, version and rules of one artefact."""

    name: str
    version: int
    rules: pa.DataFrameSchema


def _column(
    dtype: Any,
    *checks: pa.Check,
    nullable: bool = False,
    required: bool = True,
    unique: bool = False,
    regex: bool = False,
) -> pa.Column:
    return pa.Column(
        dtype,
        list(checks),
        nullable=nullable,
        required=required,
        unique=unique,
        regex=regex,
        coerce=True,
    )


def _schema(
    name: str, columns: dict[str, pa.Column], *, unique: list[str] | None = None
) -> TableSchema:
    return TableSchema(name, 1, pa.DataFrameSchema(columns, unique=unique, strict=False))


def _is_in(values: Any, *, or_unknown: bool = False) -> pa.Check:
    allowed = [str(value) for value in values] + ([UNKNOWN] if or_unknown else [])
    return pa.Check.isin(allowed, error=f"must be one of {', '.join(allowed)}")


def _between(low: float, high: float, unit: str = "") -> pa.Check:
    return pa.Check.in_range(low, high, error=f"must lie in {low:g} to {high:g} {unit}".rstrip())


def _grade() -> pa.Column:
    return _column(
        "Int64",
        pa.Check.isin(range(5), error="KL grade must be 0 to 4"),
        nullable=True,
        required=False,
    )


def _binary(*, required: bool = True) -> pa.Column:
    return _column(
        "Int64", pa.Check.isin([0, 1], error="must be 0 or 1"), nullable=True, required=required
    )


_KNEE = {
    "knee_id": _column(
        str,
        pa.Check.str_matches(
            r"^[^:]+:[^:]+:(\d+|-):[LR-](:\d+)?$",
            error="must read <cohort>:<subject>:<months>:<L|R>",
        ),
        unique=True,
    ),
    "subject_id": _column(str),
    "laterality": _column(str, _is_in(Laterality, or_unknown=True)),
}

KNEES = _schema(
    "knees",
    {
        **_KNEE,
        "months": _column("Int64", nullable=True, required=False),
        "view": _column(str, _is_in(View), required=False),
        "image_path": _column(str),
        "source": _column(str, required=False),
        "box_left_px": _column("Int64", nullable=True, required=False),
        "box_top_px": _column("Int64", nullable=True, required=False),
        "box_right_px": _column("Int64", nullable=True, required=False),
        "box_bottom_px": _column("Int64", nullable=True, required=False),
        "pixel_spacing_row_mm": _column(float, pa.Check.gt(0), nullable=True, required=False),
        "pixel_spacing_column_mm": _column(float, pa.Check.gt(0), nullable=True, required=False),
        "spacing_source": _column(str, _is_in(SpacingSource), required=False),
        "flipped": _column(bool, required=False),
        "as_right_knee": _column(bool, required=False),
        "detector": _column(str, required=False),
        "detector_score": _column(float, _between(0, 1), nullable=True, required=False),
        "field_of_view_plateau_widths": _column(
            float, pa.Check.gt(0), nullable=True, required=False
        ),
        "qc_flags": _column(str, required=False),
        "kl_grade": _grade(),
    },
)
"""Single-knee images. ``pixel_spacing_*_mm`` is that of the film; ``image_path`` is relative to the
table. The image is the mirror image of the film where ``flipped`` is true; it shows a right knee,
or a left one as a right one, where ``as_right_knee`` is, and without that column where ``flipped``
is: films that hang mirrored need no flip of their left knees.
``field_of_view_plateau_widths`` is the side of the image in widths of the knee's tibial plateau,
with the middle of the joint space in its middle, and missing where either is not known;
``qc_flags`` are joined by ``;``."""

KL_READINGS = _schema(
    "kl_readings",
    {
        **_KNEE,
        "months": _column("Int64", required=False),
        "kl_grade": _grade(),
        "reading_project": _column("Int64", required=False),
    },
)
"""KL grade of a knee at each visit, all from the reading project of its baseline. The project is
kept here and not in the cohort, since it tells who was selected and must not become a predictor."""


def _outcome_columns() -> dict[str, pa.Column]:
    columns = {}
    for outcome in Outcome:
        # tables of before the later outcomes stay readable
        required = outcome in _FIRST_OUTCOMES
        columns[str(outcome)] = _binary(required=required)
        columns[f"{outcome}_reason"] = _column(str, nullable=True, required=required)
        columns[f"{outcome}_event_observed"] = _binary(required=required)
        for bound in ("lower", "upper"):
            columns[f"{outcome}_{bound}_months"] = _column(
                float, pa.Check.ge(0), nullable=True, required=required
            )
        columns[f"{outcome}_weight"] = _column(float, pa.Check.gt(0), nullable=True, required=False)
    return columns


COHORT = _schema(
    "cohort",
    {
        **_KNEE,
        "months": _column("Int64", pa.Check.eq(0, error="the cohort has baseline rows only")),
        "site": _column(str, nullable=True, required=False),
        "sub_cohort": _column(str, nullable=True, required=False),
        "age_years": _column(float, _between(18, 110, "years"), nullable=True),
        "sex": _column(str, _is_in(["F", "M"]), nullable=True),
        "bmi_kg_m2": _column(float, _between(10, 80, "kg/m2"), nullable=True),
        "race": _column(str, nullable=True),
        "knee_injury": _binary(),
        "fta_deg": _column(float, _between(-30, 30, "degrees"), nullable=True),
        "hka_deg": _column(float, _between(-30, 30, "degrees"), nullable=True, required=False),
        "womac_total": _column(float, _between(0, 96), nullable=True, required=False),
        "kl_grade": _grade(),
        "contralateral_kl_grade": _grade(),
        "oarsi_jsn_medial": _column(float, _between(0, 3.99), nullable=True, required=False),
        "oarsi_jsn_lateral": _column(float, _between(0, 3.99), nullable=True, required=False),
        "lateral_predominant": _binary(required=False),
        "mjsw_medial_mm": _column(float, _between(0, 15, "mm"), nullable=True),
        **_outcome_columns(),
        "death_months": _column(float, pa.Check.ge(0), nullable=True, required=False),
        "death_after_months": _column(float, pa.Check.ge(0), nullable=True, required=False),
        "last_contact_months": _column(float, pa.Check.ge(0), nullable=True, required=False),
        "split": _column(str, nullable=True, required=False),
        "matched_pair": _column(str, nullable=True, required=False),
        "missing_reasons": _column(str, nullable=True, required=False),
    },
)
"""One row a knee at baseline. ``fta_deg`` and ``hka_deg`` are negative in varus.
``lateral_predominant`` is 1 where lateral narrowing exceeds medial. For each outcome NAME:
``NAME`` is 1, 0 or missing; ``NAME_reason`` says why it is missing; the event lies in
(``NAME_lower_months``, ``NAME_upper_months``] where ``NAME_event_observed`` is 1 (both the same
where its day is known), otherwise the knee was last known free of it at ``NAME_lower_months`` and
upper is missing. A knee that is not at risk has no interval; ``NAME_weight`` is the inverse
probability that a knee like it has a value. ``split`` is the part that the source put it in,
``sub_cohort`` the part that its person was recruited for, ``matched_pair`` its pair in a matched
study. ``missing_reasons`` says why factors are missing, as
``name: reason; ...``."""

FOLDS = _schema(
    "folds",
    {
        "subject_id": _column(str, unique=True),
        "fold": _column(int, pa.Check.ge(0)),
    },
)
"""One row a subject; both knees and all visits of a person share a fold."""

PREDICTIONS = _schema(
    "predictions",
    {
        **_KNEE,
        "status": _column(str, _is_in(PredictionStatus)),
        **{
            f"kl_prob_{grade}": _column(float, _between(0, 1), nullable=True)
            for grade in KL_CLASSES
        },
        "kl_grade_pred": _column(
            "Int64", pa.Check.isin(range(5), error="KL grade must be 0 to 4"), nullable=True
        ),
        "kl_set": _column(
            str,
            pa.Check.str_matches(
                r"^[0-4](;[0-4])*$", error="must be grades 0 to 4 joined by ;, such as 1;2"
            ),
            nullable=True,
            required=False,
        ),
        "seen_in_training": _column(bool),
        "qc_flags": _column(str, nullable=True, required=False),
        "framing": _column(
            str, _is_in(["matched", "whole", "too_narrow"]), nullable=True, required=False
        ),
        **{
            f"{outcome}{name}": _column(float, _between(0, 1), nullable=True, required=False)
            for outcome in Outcome
            for name in ("_prob", "_prob_without_reading")
        },
        **{
            rf"^{outcome}_cif_\d+$": _column(
                float, _between(0, 1), nullable=True, required=False, regex=True
            )
            for outcome in Outcome
        },
        "kl_input": _column(str, _is_in(["read", "none"]), nullable=True, required=False),
        "split": _column(str, nullable=True, required=False),
        "fold": _column("Int64", pa.Check.ge(0), nullable=True, required=False),
        "kl_grade": _grade(),
        **{str(outcome): _binary(required=False) for outcome in Outcome},
    },
)
"""One row a knee; ``subject_id`` is ``-`` where nothing tells it.
``kl_set`` holds the grades among which the true one is as often as the model was
calibrated for, joined by ``;``; ``qc_flags`` are those of the table of knees, where it has them,
and missing where a film gave no knee; ``framing`` says whether its image was ``matched`` to the
model's field of view, used ``whole`` because that of the image or of the model is unknown, or
``too_narrow`` for it. ``NAME_prob`` is the risk of outcome NAME by its horizon, ``NAME_cif_24`` its
cumulative incidence by 24 months. In a model that was trained with the read grade and without,
``kl_input`` says whether the knee had a reading (``read``) or not (``none``), and
``NAME_prob_without_reading`` is the risk as it would be without one of either knee. ``split`` is
the part that the source put the knee in; ``fold`` that whose members alone scored it, empty where
members of several did. The last columns are the truth where the input had it."""

REJECTS = _schema(
    "rejects", {name: _column(str) for name in ("source", "stage", "code", "message")}
)
"""Items that were not used, and why."""


def check(frame: pd.DataFrame, schema: TableSchema, *, where: object = "") -> pd.DataFrame:
    """Validate ``frame`` and return it with the schema's types.

    Raises:
        TableError: With every broken rule and the rows that break it (the first is row 0).
    """
    try:
        return schema.rules.validate(frame.reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as error:
        faults = _faults(error.failure_cases)
        raise TableError(
            f"The table breaks the schema {schema.name!r} in {len(faults)} way(s).",
            faults,
            where=where,
            fix="correct these rows; the columns are described in docs/reference/tables.md",
        ) from error


def _faults(cases: pd.DataFrame) -> list[str]:
    faults = []
    for (column, rule), group in cases.groupby(["column", "check"], sort=False, dropna=False):
        if rule == "column_in_dataframe":
            faults += [f"column {name} is missing" for name in group["failure_case"]]
            continue
        rows = [int(row) for row in group["index"].dropna().unique()]
        place = f" in {rows_named(rows)}" if rows else ""
        values = ", ".join(repr(value) for value in group["failure_case"].unique()[:3])
        faults.append(f"column {column}: {rule}; found {values}{place}")
    return list(dict.fromkeys(faults))
