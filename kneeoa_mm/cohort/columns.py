"""Our columns: what each may hold, and how the cells of a source become its values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd
import pandera.pandas as pa

from kneeoa_mm.cohort.sources import Cell
from kneeoa_mm.cohort_spec import KEYS, CohortSpec, ColumnSpec
from kneeoa_mm.errors import ConfigError
from kneeoa_mm.records import Laterality
from kneeoa_mm.tables import COHORT

FACTORS = (
    "site",
    "age_years",
    "sex",
    "bmi_kg_m2",
    "race",
    "knee_injury",
    "fta_deg",
    "womac_total",
)
"""Clinical factors, all measured at baseline."""

CONFIRMED, REPORTED, REFUTED = "confirmed", "reported", "refuted"
"""What is known of a replacement: adjudicated, only reported by the person, found not to be one."""

_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_MAX_VALUES_SHOWN = 5


def _flag() -> pa.Column:
    return pa.Column("Int64", pa.Check.isin([0, 1], error="must be 0 or 1"))


def _at_least_zero() -> pa.Column:
    return pa.Column(float, pa.Check.ge(0, error="must not be negative"))


def _one_of(*words: str) -> pa.Column:
    return pa.Column(str, pa.Check.isin(words, error=f"must be one of {', '.join(words)}"))


RULES: dict[str, pa.Column] = {
    **{
        name: COHORT.rules.columns[name]
        for name in (*FACTORS, "kl_grade", "oarsi_jsn_medial", "mjsw_medial_mm")
    },
    "subject_id": pa.Column(
        str, pa.Check.str_matches(r"^[^:\s]+$", error="must hold neither colons nor spaces")
    ),
    "laterality": _one_of(*Laterality),
    "reading_project": pa.Column("Int64"),
    "no_jsw_reading": _flag(),
    "bone_on_bone": _flag(),
    "position_differs": _flag(),
    "replaced_at_baseline": _flag(),
    "replacement": _one_of(CONFIRMED, REPORTED, REFUTED),
    "replacement_on_film": _flag(),
    "replacement_days": _at_least_zero(),
    "dead": _flag(),
    "death_days": _at_least_zero(),
    "death_date": pa.Column("datetime64[ns]"),
    "baseline_date": pa.Column("datetime64[ns]"),
    "last_contact_months": _at_least_zero(),
}
"""Type and range of each column of ours; those of the cohort table obey its schema."""


class Converted(NamedTuple):
    """A column in our vocabulary.

    Attributes:
        values: Our values; missing ones are None, NaN or NaT.
        reasons: Why a value is missing, None where it is there.
        problems: What is wrong, to the positions of the cells.
    """

    values: pd.Series
    reasons: pd.Series
    problems: dict[str, list[int]]


def refuse_unknown_columns(spec: CohortSpec) -> None:
    """Raise where ``spec`` maps to columns that we do not have.

    Raises:
        ConfigError: With every such column.
    """
    faults = []
    for table_name, table in spec.tables.items():
        for name in sorted(set(table.columns) - set(RULES)):
            close = difflib.get_close_matches(name, RULES, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            faults.append(f"tables.{table_name}.columns.{name}: no such column{hint}")
    if faults:
        raise ConfigError(
            "The cohort maps to columns that do not exist.",
            expected=", ".join(RULES),
            found="\n            ".join(faults),
            where=f"cohort {spec.name}",
        )


def convert(cells: Sequence[Cell], name: str, column: ColumnSpec) -> Converted:
    """Turn the cells of a source into our column ``name``.

    Args:
        cells: One a row.
        name: One of ``RULES``.
        column: Codes, factor and formats of the source's column.
    """
    read = _reader(name, column)
    values: list[Any] = []
    reasons: list[str | None] = []
    problems: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        value = None
        try:
            value = None if cell.code is None else read(cell.code)
        except ValueError as error:
            problems.setdefault(str(error), []).append(position)
        values.append(value)
        missing_by_code = value is None and cell.code is not None
        reasons.append(f"code {cell.code}" if missing_by_code else cell.reason)
    if name in KEYS:
        absent = [position for position, value in enumerate(values) if value is None]
        if absent and not problems:
            problems["must not be missing"] = absent
    dtype = str(RULES[name].dtype)
    series = pd.Series(values, dtype="object" if dtype == "str" else dtype)
    for check in RULES[name].checks:
        bad = check(series).failure_cases
        if bad is not None and len(bad):
            shown = ", ".join(f"{value}" for value in bad.unique()[:_MAX_VALUES_SHOWN])
            problems[f"{check.error}, found {shown}"] = list(bad.index)
    return Converted(series, pd.Series(reasons, dtype=object), problems)


def _reader(name: str, column: ColumnSpec) -> Callable[[str], Any]:
    """How one code of the source becomes one value of ours."""
    codes = column.codes
    if codes is not None:
        return lambda code: _look_up(code, codes)
    dtype = str(RULES[name].dtype)
    if dtype == "float64":
        return lambda code: _number(code) * column.factor
    if dtype == "Int64":
        return _whole_number
    if dtype.startswith("datetime"):
        return lambda code: _date(code, column.date_formats)
    return str


def _look_up(code: str, codes: dict[str, Any]) -> Any:
    # SAS and spreadsheets write the code 1 as 1.0
    plain = code if code in codes or not _NUMBER.match(code) else f"{float(code):g}"
    if plain not in codes:
        raise ValueError(f"code {code} is unknown, expected one of {', '.join(codes)}")
    return codes[plain]


def _number(code: str) -> float:
    if not _NUMBER.match(code):
        raise ValueError(f"{code!r} is no number")
    return float(code)


def _whole_number(code: str) -> int:
    number = _number(code)
    if number != int(number):
        raise ValueError(f"{code} is no whole number")
    return int(number)


def _date(code: str, formats: Sequence[str]) -> datetime:
    for date_format in formats:
        try:
            return datetime.strptime(code, date_format)
        except ValueError:
            continue
    raise ValueError(f"{code!r} is no date like {' or '.join(formats)}")
