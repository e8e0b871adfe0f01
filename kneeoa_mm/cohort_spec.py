"""What a ``cohorts/<name>/cohort.yaml`` declares: visits, films, tables, reading projects, exclusions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from kneeoa_mm.config import Settings, read_yaml_mapping, shipped, validate
from kneeoa_mm.errors import ConfigError


class FilmsSpec(Settings):
    """How the films of a cohort name their subject and visit."""

    path_pattern: str | None = None
    """Regular expression, searched in the path of a film relative to the studies folder, with the
    named groups ``subject``, ``visit`` and ``side`` where the path tells them."""


class TableSpec(Settings):
    """One source table, or one a visit."""

    file: str
    """File name, matched without regard to case; ``{visit}`` stands for the visit's two digits."""
    columns: dict[str, str]
    """Our name to the source's column; ``{visit}`` as above, ``{side}`` for R or L."""


class CohortSpec(Settings):
    """One cohort."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    visits: dict[str, int]
    """Visit code, such as V00, to months since baseline."""
    films: FilmsSpec = FilmsSpec()
    reading_projects: tuple[int, ...] = ()
    """KL reading projects in order of preference; a pair of readings comes from one of them."""
    tables: dict[str, TableSpec] = {}


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
