"""Reading source tables in the shape of the Osteoarthritis Initiative's text release.

One line a row, ``|`` between fields, header names in any case, coded cells such as ``1: Right``,
and several codes that say why a value is missing.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kneeoa_mm.cohort_spec import CohortSpec, TableSpec, visit_digits
from kneeoa_mm.errors import InputError, TableError

SIDES = ("R", "L")
BLANK = "blank"

_MISSING_CODE = re.compile(r"^\.[A-Za-z_]?$")
_MAX_LINES_LISTED = 20


class Cell(NamedTuple):
    """A cell: its code, or the reason why it has none."""

    code: str | None
    reason: str | None


def parse_cell(text: str) -> Cell:
    """Split a cell into its code and its label, or into nothing and the reason.

    Missing codes are those of the OAI text release: ``.`` alone or with a letter, and blanks.

    Example:
        >>> parse_cell("1: Right"), parse_cell(" 27.5 ")
        (Cell(code='1', reason=None), Cell(code='27.5', reason=None))
        >>> parse_cell(".A: Not Expected"), parse_cell(" ")
        (Cell(code=None, reason='.A: Not Expected'), Cell(code=None, reason='blank'))
    """
    stripped = text.strip()
    code = stripped.partition(":")[0].strip()
    if _MISSING_CODE.match(code):
        return Cell(None, stripped)
    return Cell(code, None) if code else Cell(None, BLANK)


class Row(NamedTuple):
    """A row of a file, and the number of its line there."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Source:
    """One file that is there and has the columns that are wanted.

    Attributes:
        table: Name of the table in the cohort's spec.
        spec: What the spec says of it.
        path: The file.
        visit: Digits of the visit's code; None where the table is not one a visit.
        months: Months of that visit since baseline; 0 where the table is not one a visit.
    """

    table: str
    spec: TableSpec
    path: Path
    visit: str | None = None
    months: int = 0

    def column(self, name: str, side: str = "") -> str:
        """The source's name of our column ``name``."""
        template = self.spec.columns[name].column
        return template.replace("{visit}", self.visit or "").replace("{side}", side)

    @property
    def is_wide(self) -> bool:
        """Some columns stand once for each side."""
        return any("{side}" in column.column for column in self.spec.columns.values())


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
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.setdefault(path.name.casefold(), []).append(path)
    sources: list[Source] = []
    faults: list[str] = []
    for wanted, file_name in _wanted(folder, spec):
        found = files.get(file_name.casefold(), [])
        if len(found) == 1:
            source = replace(wanted, path=found[0])
            faults += _absent_columns(source)
            sources.append(source)
        elif found:
            places = ", ".join(str(path.relative_to(folder)) for path in found)
            faults.append(f"{file_name}: there are several, {places}")
        elif not wanted.spec.optional:
            faults.append(f"{file_name}: no such file")
    if faults:
        raise TableError(
            f"The tables of {spec.name} are not complete.",
            faults,
            where=folder,
            fix=f"see cohorts/{spec.name}/README.md for the files and how to lay them out",
        )
    return sources


def _wanted(folder: Path, spec: CohortSpec) -> Iterable[tuple[Source, str]]:
    for name, table in spec.tables.items():
        if not table.is_per_visit:
            yield Source(name, table, folder), table.file
            continue
        for code, months in spec.visits.items():
            digits = visit_digits(code)
            file_name = table.file.replace("{visit}", digits)
            yield Source(name, table, folder, digits, months), file_name


def _absent_columns(source: Source) -> list[str]:
    try:
        header = _header(_rows(source))
    except InputError as error:
        return [f"{source.path.name}: {error.problem}"]
    faults = []
    for name, column in source.spec.columns.items():
        for side in SIDES if "{side}" in column.column else ("",):
            wanted = source.column(name, side)
            times = header.count(wanted.casefold())
            if times > 1:
                faults.append(f"{source.path.name}: column {wanted} is there {times} times")
            elif times == 0 and not column.optional:
                faults.append(f"{source.path.name}: column {wanted} ({name}) is missing")
    return faults


def _header(rows: Iterator[Row]) -> list[str]:
    first = next(rows, None)
    if first is None:
        raise InputError("the file is empty")
    return [name.strip().casefold() for name in first.cells]


def read_source(source: Source) -> pd.DataFrame:
    """Read the columns of a source as text.

    Returns:
        One row a line, or one a line and side where columns stand once for each side. Columns are
        ours; cells are the file's own text, or None where an optional column is absent; ``line``
        is the number of the line in the file and, where sides were spread, ``laterality`` is R or
        L.

    Raises:
        TableError: Some lines have more or fewer fields than the header.
    """
    rows = _rows(source)
    header = _header(rows)
    sides = SIDES if source.is_wide else ("",)
    names = {source.column(name, side).casefold() for name in source.spec.columns for side in sides}
    cells: dict[str, list[str]] = {name: [] for name in header if name in names}
    places = {name: header.index(name) for name in cells}
    lines: list[int] = []
    broken: list[int] = []
    for row in rows:
        if len(row.cells) != len(header):
            broken.append(row.line)
            continue
        lines.append(row.line)
        for name, place in places.items():
            cells[name].append(row.cells[place])
    if broken:
        raise TableError(
            "Some lines of the table are broken.",
            [f"{source.path.name}: not {len(header)} fields in {listed(broken)}"],
            where=source.path,
            fix="download or export the file again",
        )
    return pd.concat([_side(source, side, lines, cells) for side in sides], ignore_index=True)


def _side(source: Source, side: str, lines: list[int], cells: dict[str, list[str]]) -> pd.DataFrame:
    nothing: list[str | None] = [None] * len(lines)
    frame = pd.DataFrame({"line": lines})
    for name in source.spec.columns:
        column = cells.get(source.column(name, side).casefold(), nothing)
        frame[name] = pd.Series(column, dtype=object)
    if side:
        frame["laterality"] = side
    return frame


def _rows(source: Source) -> Iterator[Row]:
    with source.path.open(encoding=_encoding(source.path), errors="replace", newline="") as stream:
        reader = csv.reader(
            stream,
            delimiter=source.spec.separator,
            # Fields of the pipe-separated release are never quoted, so a quotation mark is one
            quoting=csv.QUOTE_NONE if source.spec.separator == "|" else csv.QUOTE_MINIMAL,
        )
        try:
            yield from (Row(reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            raise InputError(
                f"line {reader.line_num} cannot be read: {error}", where=source.path
            ) from error


def _encoding(path: Path) -> str:
    """By the byte-order mark; without one Latin-1, in which every byte is a character."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin-1"


def listed(lines: Iterable[int]) -> str:
    """The lines of a fault, the first twenty by number.

    Example:
        >>> listed([4, 2, 4])
        'line(s) 2, 4'
    """
    numbers = sorted(set(lines))
    shown = ", ".join(str(number) for number in numbers[:_MAX_LINES_LISTED])
    more = len(numbers) - _MAX_LINES_LISTED
    return f"line(s) {shown}" + (f" and {more} more" if more > 0 else "")
