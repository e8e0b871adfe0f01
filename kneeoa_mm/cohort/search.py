"""Finding the tables that a cohort's spec names, wherever they lie in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from kneeoa_mm.cohort.sources import SAS_SUFFIX, SIDES, Source, header_of
from kneeoa_mm.cohort_spec import CohortSpec, visit_digits
from kneeoa_mm.errors import InputError, TableError

_TABLE_SUFFIXES = (".txt", ".csv", ".tsv", SAS_SUFFIX)


class Search(NamedTuple):
    """What was found of the tables of a cohort.

    Attributes:
        sources: The files that are there.
        faults: Absent files and columns, and files that are there twice.
        absent_optional: Names of optional files that are not there.
    """

    sources: list[Source]
    faults: list[str]
    absent_optional: list[str]


def search_sources(folder: Path, spec: CohortSpec) -> Search:
    """Look for every table that ``spec`` names, wherever it lies below ``folder``."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.setdefault(path.name.casefold(), []).append(path)
    search = Search([], [], [])
    for wanted, file_name in _wanted(folder, spec):
        found = _candidates(file_name.casefold(), files)
        if len(found) == 1:
            source = replace(wanted, path=found[0])
            search.faults.extend(_absent_columns(source))
            search.sources.append(source)
        elif found:
            places = ", ".join(str(path.relative_to(folder)) for path in found)
            search.faults.append(f"{file_name}: there are several, {places}")
        elif wanted.spec.optional:
            search.absent_optional.append(file_name)
        else:
            search.faults.append(f"{file_name}: no such file")
    return search


def find_sources(folder: Path, spec: CohortSpec) -> list[Source]:
    """Find every table that ``spec`` names, wherever it lies below ``folder``.

    Raises:
        InputError: There is no such folder, or the spec names no tables.
        TableError: With every absent file and every absent column.
    """
    if not folder.is_dir():
        raise InputError("The tables folder is not there.", expected="a folder", where=folder)
    if not spec.tables:
        raise InputError("This cohort has no tables to build from.", where=spec.name)
    search = search_sources(folder, spec)
    if search.faults:
        raise TableError(
            f"The tables of {spec.name} are not complete.",
            search.faults,
            where=folder,
            fix=f"see cohorts/{spec.name}/README.md for the files and how to lay them out",
        )
    return search.sources


def _wanted(folder: Path, spec: CohortSpec) -> Iterable[tuple[Source, str]]:
    for name, table in spec.tables.items():
        if not table.is_per_visit:
            yield Source(name, table, folder), table.file
            continue
        for code, months in spec.visits.items():
            digits = visit_digits(code)
            file_name = table.file.replace("{visit}", digits)
            yield Source(name, table, folder, digits, months), file_name


def _candidates(name: str, files: dict[str, list[Path]]) -> list[Path]:
    """Files of this name; failing that, those of its stem in another format."""
    stem = name.rpartition(".")[0] or name
    others = (files.get(stem + suffix, []) for suffix in _TABLE_SUFFIXES)
    return files.get(name) or [path for paths in others for path in paths]


def _absent_columns(source: Source) -> list[str]:
    try:
        header = header_of(source.rows(header_only=True))
    except InputError as error:
        return [f"{source.path.name}: {error.problem}"]
    wanted = [
        (source.column(name, side), name, column.optional)
        for name, column in source.spec.columns.items()
        for side in (SIDES if column.is_per_side else ("",))
    ]
    wanted += [(name, "chooses rows", False) for name in source.spec.rows]
    faults = []
    for theirs, ours, is_optional in wanted:
        times = header.count(theirs.casefold())
        if times > 1:
            faults.append(f"{source.path.name}: column {theirs} is there {times} times")
        elif times == 0 and not is_optional:
            faults.append(f"{source.path.name}: column {theirs} ({ours}) is missing")
    return faults
