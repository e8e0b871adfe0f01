"""Our columns: what each may hold, and how the cells of a source become its values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pandas as pd
import pandera.pandas as pa

from kneeoa_mm.cohort.sources import Cell
from kneeoa_mm.cohort_spec import EXCLUDE, KEYS, CohortSpec, ColumnSpec
from kneeoa_mm.errors import ConfigError
from kneeoa_mm.records import Laterality, Outcome
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.text_tables import NUMBER, parse_number

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
"""Clinical factors of every cohort, all measured at baseline."""

OPTIONAL_FACTORS = ("hka_deg",)
"""Factors that a cohort has only where its spec declares them. The OAI first took full-limb films
at 12 months, so there ``hka_deg`` needs a cohort whose baseline visit is that one."""

LABEL_PARTS = ("", "_event_observed", "_lower_months", "_upper_months")
"""Endings of the columns in which a source may hold an outcome ready-made."""

TOTAL, PARTIAL = "total", "partial"
"""Kinds of replacement."""

CONFIRMED, REPORTED, REFUTED = "confirmed", "reported", "refuted"
"""What is known of a replacement: adjudicated, only reported by the person, found not to be one."""

_SIDE_WORDS = {
    "r": Laterality.RIGHT,
    "right": Laterality.RIGHT,
    "l": Laterality.LEFT,
    "left": Laterality.LEFT,
}
"""Sides in words are understood whatever codes a cohort declares."""


def _flag() -> pa.Column:
    return pa.Column("Int64", pa.Check.isin([0, 1], error="must be 0 or 1"))


def _at_least_zero() -> pa.Column:
    return pa.Column(float, pa.Check.ge(0, error="must not be negative"))


def _one_of(*words: str) -> pa.Column:
    return pa.Column(str, pa.Check.isin(words, error=f"must be one of {', '.join(words)}"))


RULES: dict[str, pa.Column] = {
    **{
        name: COHORT.rules.columns[name]
        for name in (
            *FACTORS,
            *OPTIONAL_FACTORS,
            "kl_grade",
            "oarsi_jsn_medial",
            "oarsi_jsn_lateral",
            "mjsw_medial_mm",
            "split",
            "sub_cohort",
            "matched_pair",
        )
    },
    "womac_pain": pa.Column(
        float, pa.Check.in_range(0, 20, error="WOMAC pain must lie in 0 to 20")
    ),
    "jsw_fixed_mm": COHORT.rules.columns["mjsw_medial_mm"],
    "subject_id": pa.Column(
        str, pa.Check.str_matches(r"^[^:\s]+$", error="must hold neither colons nor spaces")
    ),
    "laterality": _one_of(*Laterality),
    "visit": pa.Column(str),
    "reading_project": pa.Column("Int64"),
    "image_path": pa.Column(str),
    "no_jsw_reading": _flag(),
    "bone_on_bone": _flag(),
    "position_differs": _flag(),
    "replaced_at_baseline": _flag(),
    "replacement": _one_of(CONFIRMED, REPORTED, REFUTED),
    "replacement_on_film": _flag(),
    "replacement_type": _one_of(TOTAL, PARTIAL),
    "replacement_days": _at_least_zero(),
    "replacement_months": _at_least_zero(),
    "dead": _flag(),
    "death_days": _at_least_zero(),
    "death_months": _at_least_zero(),
    "death_date": pa.Column("datetime64[ns]"),
    "baseline_date": pa.Column("datetime64[ns]"),
    "last_contact_months": _at_least_zero(),
    "attended": _flag(),
    **{
        f"{outcome}{part}": COHORT.rules.columns[f"{outcome}{part}"]
        for outcome in Outcome
        for part in LABEL_PARTS
    },
}
"""Type and range of each column of ours; those of the cohort table obey its schema."""


def rule_of(name: str) -> pa.Column:
    """Type and range of our column ``name``; a flag for any ``exclude_`` column."""
    return _flag() if name.startswith(EXCLUDE) else RULES[name]


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
        unknown = (name for name in table.columns if not name.startswith(EXCLUDE))
        for name in sorted(set(unknown) - set(RULES)):
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


def convert(
    cells: Sequence[Cell], name: str, column: ColumnSpec, *, decimal_commas: bool = False
) -> Converted:
    """Turn the cells of a source into our column ``name``.

    Args:
        cells: One a row.
        name: One of ``RULES``, or a flag whose name starts with ``exclude_``.
        column: Codes, factor and formats of the source's column.
        decimal_commas: Numbers may have a decimal comma.
    """
    read = _reader(name, column, decimal_commas)
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
    rule = rule_of(name)
    dtype = str(rule.dtype)
    series = pd.Series(values, dtype="object" if dtype == "str" else dtype)
    why = pd.Series(reasons, dtype=object)
    for check in rule.checks:
        bad = check(series).failure_cases
        if bad is None or not len(bad):
            continue
        if column.out_of_range == "missing":
            why[bad.index] = [f"out of range: {value:g}" for value in bad]
            series[bad.index] = None
            continue
        shown = ", ".join(f"{value}" for value in bad.unique())
        problems[f"{check.error}, found {shown}"] = list(bad.index)
    return Converted(series, why, problems)


def _reader(name: str, column: ColumnSpec, decimal_commas: bool) -> Callable[[str], Any]:
    """How one code of the source becomes one value of ours."""
    codes = column.codes
    if codes is not None:
        words = _SIDE_WORDS if name == "laterality" else {}
        return lambda code: words.get(code.casefold()) or _look_up(code, codes)
    if name == "laterality":
        return lambda code: _SIDE_WORDS.get(code.casefold(), code)
    dtype = str(rule_of(name).dtype)
    if dtype == "float64":
        return lambda code: _number(code, decimal_commas) * column.factor
    if dtype == "Int64":
        return _whole_number
    if dtype.startswith("datetime"):
        return lambda code: _date(code, column.date_formats)
    return str


def _look_up(code: str, codes: dict[str, Any]) -> Any:
    # SAS and spreadsheets write the code 1 as 1.0
    plain = code if code in codes or not NUMBER.match(code) else f"{float(code):g}"
    if plain not in codes:
        raise ValueError(f"code {code} is unknown, expected one of {', '.join(codes)}")
    return codes[plain]


def _number(code: str, decimal_commas: bool = False) -> float:
    try:
        return parse_number(code, decimal_commas=decimal_commas)
    except ValueError as error:
        hint = "; if the file has decimal commas, say decimal: ','" if "," in code else ""
        raise ValueError(f"{error}{hint}") from None


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
