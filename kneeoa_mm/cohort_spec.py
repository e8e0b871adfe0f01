"""What a ``cohorts/<name>/cohort.yaml`` declares: visits, films, tables, codes and projects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from kneeoa_mm.config import Settings, read_yaml_mapping, shipped, validate
from kneeoa_mm.errors import ConfigError

ENROLLEES = "enrollees"
KEYS = ("subject_id", "laterality", "reading_project")
"""Columns that say whose value it is and who read it; never missing, and in any table."""


class FilmsSpec(Settings):
    """How the films of a cohort name their subject and visit."""

    path_pattern: str | None = None
    """Regular expression, searched in the path of a film relative to the studies folder, with the
    named groups ``subject``, ``visit`` and ``side`` where the path tells them."""


class ColumnSpec(Settings):
    """One source column, and how its cells become our values."""

    column: str
    """Name in the source, in any case; ``{visit}`` stands for the digits of the visit's code and
    ``{side}`` for R or L, one column a side."""
    codes: dict[str, str | int | float | None] | None = None
    """Source code to our value; None makes the code a missing value that keeps it as its reason.
    Where given, any other code is refused. Where not, cells are read as they stand."""
    factor: float = 1.0
    """What the source's number is multiplied by to stand in our unit, or with our sign."""
    date_formats: tuple[str, ...] = ("%m/%d/%Y", "%m/%d/%y")
    """Formats of a date, in the order in which they are tried."""
    optional: bool = False
    """A release without this column is accepted, and its values are missing."""

    @field_validator("codes", mode="before")
    @classmethod
    def _codes_are_text(cls, codes: Any) -> Any:
        return {str(k): v for k, v in codes.items()} if isinstance(codes, dict) else codes


class TableSpec(Settings):
    """One source table, or one a visit."""

    file: str
    """File name, matched without regard to case anywhere below the tables folder; ``{visit}``
    stands for the digits of the visit's code."""
    columns: dict[str, ColumnSpec]
    """Our name to the source's column. The short form ``ours: THEIRS`` is allowed."""
    separator: str = "|"
    optional: bool = False
    """The cohort can be built without this table."""

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
        """There is one file a visit."""
        return "{visit}" in self.file

    @property
    def is_per_knee(self) -> bool:
        """There is one row a knee; otherwise one row a subject."""
        return "laterality" in self.columns


class CohortSpec(Settings):
    """One cohort."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    visits: dict[str, int]
    """Visit code, such as V00, to months since baseline."""
    films: FilmsSpec = FilmsSpec()
    reading_projects: tuple[int, ...] = ()
    """KL reading projects in order of preference; all readings of a knee come from one of them."""
    jsw_projects: tuple[int, ...] = ()
    """Joint-space width reading projects in order of preference, likewise."""
    tkr_horizon_months: int = Field(default=48, gt=0)
    """Follow-up that a knee without replacement needs for the value 0 of ``tkr``."""
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


def visit_digits(code: str) -> str:
    """What ``{visit}`` stands for.

    Example:
        >>> visit_digits("V06")
        '06'
    """
    return re.sub(r"\D", "", code)


def read_cohort_spec(name_or_file: str) -> CohortSpec:
    """Read the spec of a shipped cohort, or of a YAML file.

    Raises:
        ConfigError: There is no such cohort, or its file is not valid.
    """
    path = Path(name_or_file)
    if not (path.suffix in {".yaml", ".yml"} and path.is_file()):
        path = shipped("cohorts") / name_or_file / "cohort.yaml"
    if not path.is_file():
        names = sorted(p.parent.name for p in shipped("cohorts").glob("*/cohort.yaml"))
        raise ConfigError(
            "There is no such cohort.",
            expected="a YAML file, or one of " + ", ".join(names),
            found=name_or_file,
        )
    return validate(CohortSpec, read_yaml_mapping(path), where=path)
