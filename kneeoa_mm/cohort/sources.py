"""Reading source tables as text, in the shapes that cohorts release them.

Text or SAS, one file a visit or all visits in one, one column a side or one row a side; header
names in any case, coded cells such as ``1: Right``, and codes that say why a value is missing.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kneeoa_mm.cohort.sas_tables import sas_rows
from kneeoa_mm.cohort_spec import TableSpec
from kneeoa_mm.errors import InputError, TableError, lines_named
from kneeoa_mm.text_tables import Row, sniff_separator, text_rows

SIDES = ("R", "L")
SAS_SUFFIX = ".sas7bdat"
BLANK = "blank"

_SIDE_NAMES = {"R": "right", "L": "left", "?": "?"}
_MISSING_CODE = re.compile(r"^\.[A-Za-z_]?$")


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
        named = template.replace("{visit}", self.visit or "").replace("{side}", side)
        return named.replace("{side_name}", _SIDE_NAMES.get(side, ""))

    @property
    def is_wide(self) -> bool:
        """Some columns stand once for each side."""
        return any(column.is_per_side for column in self.spec.columns.values())

    @functools.cached_property
    def separator(self) -> str:
        """What stands between fields: as declared, else as the header has it."""
        return self.spec.separator or sniff_separator(self.path)

    @property
    def has_decimal_commas(self) -> bool:
        """Numbers may have a decimal comma."""
        if self.spec.decimal is not None:
            return self.spec.decimal == ","
        return self.path.suffix.casefold() != SAS_SUFFIX and self.separator == ";"

    def rows(self, *, header_only: bool = False) -> Iterator[Row]:
        """Rows as text, the header first.

        Raises:
            InputError: The file cannot be read.
        """
        if self.path.suffix.casefold() == SAS_SUFFIX:
            return sas_rows(self.path, header_only=header_only)
        return text_rows(self.path, self.separator)


def hashes_of(sources: Iterable[Source], folder: Path) -> dict[str, str]:
    """SHA-256 of each file by its place below ``folder``, so that a release can be told again."""
    found = {}
    for path in sorted({source.path for source in sources}):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = digest
    return found


def header_of(rows: Iterator[Row]) -> list[str]:
    """Take the header off the rows: column names, in lower case.

    Raises:
        InputError: There is none.
    """
    first = next(rows, None)
    if first is None:
        raise InputError("the file is empty")
    return [name.strip().strip('"').casefold() for name in first.cells]


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
    rows = source.rows()
    header = header_of(rows)
    sides = SIDES if source.is_wide else ("",)
    names = {source.column(name, side).casefold() for name in source.spec.columns for side in sides}
    cells: dict[str, list[str]] = {name: [] for name in header if name in names}
    places = {name: header.index(name) for name in cells}
    chosen = {header.index(name.casefold()): codes for name, codes in source.spec.rows.items()}
    lines: list[int] = []
    broken: list[int] = []
    for number, row in enumerate(rows):
        if number < source.spec.dictionary_rows:
            continue
        if len(row.cells) != len(header):
            broken.append(row.line)
            continue
        if any(parse_cell(row.cells[place]).code not in codes for place, codes in chosen.items()):
            continue
        lines.append(row.line)
        for name, place in places.items():
            cells[name].append(row.cells[place])
    if broken:
        raise TableError(
            "Some lines of the table are broken.",
            [f"{source.path.name}: not {len(header)} fields in {lines_named(broken)}"],
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
