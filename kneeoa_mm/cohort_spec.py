"""What a ``cohorts/<name>/cohort.yaml`` declares: visits, films, tables, codes and projects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kneeoa_mm.config import read_yaml_mapping, shipped, validate
from kneeoa_mm.errors import ConfigError
from kneeoa_mm.records import FRONTAL_VIEWS, Outcome, View
from kneeoa_mm.run_folder import CONFIG_FILE
from kneeoa_mm.settings import Settings

ENROLLEES = "enrollees"
KEYS = ("subject_id", "laterality", "visit", "reading_project")
"""Columns that say whose value it is, of when and by whom; never missing, and in any table."""
EXCLUDE = "exclude_"
"""Start of the name of a flag whose knees are left out of the cohort, such as exclude_fracture."""

_VISIT = "{visit}"
_CODES = "codes"
_FILE_SUFFIXES = {".yaml", ".yml"}


class FilmsSpec(Settings):
    """Which films a cohort has of its knees, and how they name their subject and visit."""

    path_pattern: str | None = None
    """Regular expression, searched in the path of a film relative to the studies folder, with the
    named groups ``subject``, ``visit`` and ``side`` where the path tells them."""
    views: tuple[View, ...] = FRONTAL_VIEWS
    """Films of other views are refused. UNKNOWN are those whose header names none."""


class ColumnSpec(Settings):
    """One source column, and how its cells become our values."""

    column: str
    """Name in the source, in any case; ``{visit}`` stands for the digits of the visit's code;
    ``{side}`` for R or L and ``{side_name}`` for right or left, one column a side."""
    codes: dict[str, str | int | float | None] | None = None
    """Source code to our value; None makes the code a missing value that keeps it as its reason.
    Where given, any other code is refused. Where not, cells are read as they stand."""
    factor: float = 1.0
    """What the source's number is multiplied by to stand in our unit, or with our sign."""
    date_formats: tuple[str, ...] = ("%m/%d/%Y", "%m/%d/%y")
    """Formats of a date, in the order in which they are tried."""
    out_of_range: Literal["refuse", "missing"] = "refuse"
    """A value outside what can be (a BMI of 2.9 or 290) stops the run, which lists every such row;
    or it is missing, with the value as its reason."""
    optional: bool = False
    """A release without this column is accepted, and its values are missing."""

    @field_validator("codes", mode="before")
    @classmethod
    def _codes_are_text(cls, codes: Any) -> Any:
        return {str(k): v for k, v in codes.items()} if isinstance(codes, dict) else codes

    @property
    def is_per_side(self) -> bool:
        """There is one such column a side."""
        return "{side}" in self.column or "{side_name}" in self.column


class TableSpec(Settings):
    """One source table, or one a visit."""

    file: str
    """File name, matched without regard to case anywhere below the tables folder; ``{visit}``
    stands for the digits of the visit's code. Where no file of this name is there, one of the same
    stem as text (.txt, .csv, .tsv) or SAS (.sas7bdat) is taken."""
    columns: dict[str, ColumnSpec]
    """Our name to the source's column. The short form ``ours: THEIRS`` is allowed."""
    separator: str | None = None
    """What stands between fields; without it, that of ``|``, tab, ``;`` and ``,`` which the header
    has most of."""
    decimal: Literal[".", ","] | None = None
    """Decimal sign. Without it a point, and a comma too where ``;`` separates fields, as
    spreadsheets write where the comma is the decimal sign."""
    dictionary_rows: int = Field(default=0, ge=0)
    """Lines below the header that describe the columns and hold no data."""
    rows: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Source column to the codes whose rows are read; all others are left alone. In a table that
    holds all visits, ``visit: [V00]`` is what makes its factors baseline factors."""
    optional: bool = False
    """The cohort can be built without this table."""

    @field_validator("rows", mode="before")
    @classmethod
    def _row_codes_are_text(cls, rows: Any) -> Any:
        return {k: tuple(map(str, v)) for k, v in rows.items()} if isinstance(rows, dict) else rows

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {k: {"column": v} if isinstance(v, str) else v for k, v in columns.items()}

    @model_validator(mode="after")
    def _names_its_subjects(self) -> TableSpec:
        if "subject_id" not in self.columns:
            raise ValueError("columns must name subject_id")
        return self

    @property
    def is_per_visit(self) -> bool:
        """There is one file, or one set of columns, a visit."""
        return _VISIT in self.file or any(_VISIT in c.column for c in self.columns.values())

    @property
    def has_visits_in_rows(self) -> bool:
        """One file holds all visits, and a column says which."""
        return "visit" in self.columns

    @property
    def is_per_knee(self) -> bool:
        """There is one row a knee; otherwise one row a subject."""
        return "laterality" in self.columns


class OutcomesSpec(Settings):
    """What counts as progression; docs/reference/outcomes.md has the definitions."""

    width: Literal["mjsw_medial_mm", "jsw_fixed_mm"] = "mjsw_medial_mm"
    """The joint-space width that is lost: the medial minimum, or that at a fixed location."""
    jsl_threshold_mm: float = Field(default=0.7, gt=0)
    """Loss that counts; a knee with less to lose at baseline is not at risk."""
    jsl_horizon_months: int = Field(default=48, gt=0)
    """Visit whose film must show the loss of ``jsl_48m`` and ``jsl_or_kr_48m``, which keep their
    names; 60 for a study that took no films at 48 months."""
    fnih_months: tuple[int, ...] = (24, 36, 48)
    """Films of which any may show the loss of ``jsl_fnih``."""
    fnih_kl_grades: tuple[int, ...] = (1, 2, 3)
    """Baseline grades that are eligible for ``jsl_fnih``."""
    kl_horizon_months: int = Field(default=48, gt=0)
    """Until when a rise of the grade makes a knee a case; the interval has all films."""
    kl_step_to_doubtful_counts: bool = False
    """Whether a step from grade 0 to 1 is progression."""
    pain_months: tuple[int, ...] = Field(default=(24, 36, 48), min_length=2)
    """Visits of which two must show the rise of ``pain_progression``."""
    pain_threshold: float = Field(default=2.0, gt=0, le=20)
    """Points of WOMAC pain (0 to 20) that count as a rise."""
    tkr_horizon_months: int = Field(default=48, gt=0)
    """Follow-up that a knee without replacement needs for the value 0 of ``tkr``."""

    def horizon_of(self, outcome: Outcome) -> int:
        """Months by which the value of an outcome is decided."""
        return {
            Outcome.JSL_48M: self.jsl_horizon_months,
            Outcome.JSL_FNIH: max(self.fnih_months),
            Outcome.JSL_OR_KR_48M: self.jsl_horizon_months,
            Outcome.KL_PROGRESSION: self.kl_horizon_months,
            Outcome.TKR: self.tkr_horizon_months,
            Outcome.PAIN_PROGRESSION: max(self.pain_months),
        }[outcome]


class CohortSpec(Settings):
    """One cohort."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    visits: dict[str, int]
    """Visit code, such as V00, to months since baseline."""
    landmark_months: int = Field(default=0, ge=0)
    """Months from enrolment to the baseline visit: 12 where `visits` count from the visit of 12
    months. Days, last contacts and deaths of the sources count from enrolment."""
    films: FilmsSpec = FilmsSpec()
    reading_projects: tuple[int, ...] = ()
    """KL reading projects in order of preference; all readings of a knee come from one of them."""
    jsw_projects: tuple[int, ...] = ()
    """Joint-space width reading projects in order of preference, likewise."""
    outcomes: OutcomesSpec = OutcomesSpec()
    sampled_on_outcome: bool = False
    """Cases were sought and the others chosen to go with them, so that the share of events is the
    sampler's: only how knees are ranked means anything, and neither risk nor incidence."""
    tables: dict[str, TableSpec] = Field(default_factory=dict)
    """Source tables. ``enrollees`` lists the subjects, one row each."""

    @model_validator(mode="after")
    def _is_complete(self) -> CohortSpec:
        if self.tables and ENROLLEES not in self.tables:
            raise ValueError(f"tables must name {ENROLLEES}, the list of subjects")
        if self.tables and list(self.visits.values()).count(0) != 1:
            raise ValueError("visits must name one baseline visit, at 0 months")
        names = [n for t in self.tables.values() for n in t.columns if n not in KEYS]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"more than one table declares {', '.join(twice)}")
        return self

    @property
    def baseline_visit(self) -> str:
        """Code of the visit at 0 months."""
        return next(code for code, months in self.visits.items() if months == 0)


def horizon_in(cohort: Path, outcome: Outcome) -> int | None:
    """Months by which a cohort judges an outcome; None where its folder does not say.

    Args:
        cohort: Output folder of ``cohort``.
        outcome: Which.
    """
    path = cohort / CONFIG_FILE
    spec = read_yaml_mapping(path).get("cohort") if path.is_file() else None
    if not isinstance(spec, dict) or "outcomes" not in spec:
        return None
    return validate(OutcomesSpec, spec["outcomes"], where=path).horizon_of(outcome)


def visit_digits(code: str) -> str:
    """What ``{visit}`` stands for.

    Example:
        >>> visit_digits("V06")
        '06'
    """
    return re.sub(r"\D", "", code)


def shipped_cohorts() -> dict[str, Path]:
    """Name to file of each shipped cohort.

    ``oai`` is cohorts/oai/cohort.yaml, and ``oai/nda`` its other release, cohorts/oai/nda.yaml.
    """
    root = shipped("cohorts")
    return {
        str(path.relative_to(root).with_suffix("")).removesuffix("/cohort"): path
        for path in sorted(root.glob("*/*.yaml"))
    }


def read_cohort_spec(name_or_file: str) -> CohortSpec:
    """Read the spec of a shipped cohort, or of a YAML file.

    A file that ``extends`` another (a shipped cohort by name, or a file relative to itself) says
    only what differs: mappings are joined, everything else is replaced, and ``null`` takes away,
    but for codes, where it says that a code is a missing value.

    Raises:
        ConfigError: There is no such cohort, or its file is not valid.
    """
    path = Path(name_or_file)
    if not (path.suffix in _FILE_SUFFIXES and path.is_file()):
        known = shipped_cohorts()
        if name_or_file not in known:
            raise ConfigError(
                "There is no such cohort.",
                expected="a YAML file, or one of " + ", ".join(known),
                found=name_or_file,
            )
        path = known[name_or_file]
    return validate(CohortSpec, _read_extended(path), where=path)


def _read_extended(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    document = read_yaml_mapping(path)
    base = document.pop("extends", None)
    if base is None:
        return document
    base_path = shipped_cohorts().get(str(base), path.parent / str(base)).resolve()
    if base_path in below or not base_path.is_file():
        raise ConfigError(
            "A cohort extends what is not there, or itself.", found=str(base), where=path
        )
    return _joined(_read_extended(base_path, (*below, base_path)), document)


def _joined(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    joined = {**base, **more}
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            joined[key] = {**base[key], **value} if key == _CODES else _joined(base[key], value)
        elif value is None and key in base:
            del joined[key]
    return joined
