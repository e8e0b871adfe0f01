"""Clinical factors that come with knees to predict: read as programs write them, checked at once.

Byte-order marks, UTF-16, any usual separator, and decimal commas where ``;`` separates fields are
read as in the tables of a cohort; a value that cannot be stops the run with every line of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.errors import InputError, TableError, lines_named
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.text_tables import parse_number, sniff_separator, text_rows

_TEXT_SUFFIXES = {".csv", ".tsv", ".txt"}
_NO_VALUE = {"", ".", "na", "n/a", "nan", "null"}
_RULES = {
    name: rule
    for name, rule in COHORT.rules.columns.items()
    # a table for prediction need not say again whose knee it is, and of when
    if name not in {"knee_id", "subject_id", "laterality", "months"}
}
_MAX_VALUES_SHOWN = 5


def read_clinical(source: Path) -> pd.DataFrame:
    """Read clinical factors, indexed by ``knee_id``.

    Args:
        source: Output folder of ``cohort``, or a text table (``.csv``, ``.tsv``, ``.txt``) or
            ``.parquet`` with ``knee_id``. Its columns obey the rules that those of a cohort obey;
            others are taken as they stand.

    Raises:
        InputError: There is no such table, or it has no ``knee_id``.
        TableError: With every line that is broken, every value that cannot be, and every knee that
            stands twice.
    """
    path = source / "cohort.parquet" if source.is_dir() else source
    if not path.is_file():
        raise InputError("The clinical table is not there.", where=path)
    faults: list[str] = []
    if path.suffix.casefold() in _TEXT_SUFFIXES:
        cells, to_number = _text_cells(path, faults)
    else:
        cells, to_number = _parquet_cells(path), parse_number
    if "knee_id" not in cells:
        raise InputError("The clinical table lacks a column.", expected="knee_id", where=path)
    table = pd.DataFrame(
        {name: _checked(cells[name], to_number, faults) for name in map(str, cells)}
    )
    for wrong, what in (
        (table["knee_id"].isna(), "is empty"),
        (table["knee_id"].duplicated(keep=False) & table["knee_id"].notna(), "stands twice"),
    ):
        faults += _fault(table["knee_id"], list(wrong[wrong].index), what)
    if faults:
        raise TableError(
            f"The clinical table holds {len(faults)} kind(s) of fault.",
            faults,
            where=path,
            fix="correct these cells, or leave empty what is not known; a decimal comma needs ; "
            "between the fields",
        )
    return table.set_index("knee_id")


def _text_cells(path: Path, faults: list[str]) -> tuple[pd.DataFrame, Callable[[str], float]]:
    """The cells of a text table, by the number of their line, and what makes numbers of them."""
    separator = sniff_separator(path)
    rows = list(text_rows(path, separator))
    header = [name.strip() for name in rows[0].cells] if rows else []
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(
            "A column stands twice in the clinical table.", found=", ".join(twice), where=path
        )
    whole = [row for row in rows[1:] if len(row.cells) == len(header)]
    broken = [row.line for row in rows[1:] if len(row.cells) != len(header)]
    if broken:
        faults.append(f"not {len(header)} fields in {lines_named(broken)}")
    texts = [[cell.strip() for cell in row.cells] for row in whole]
    cells = pd.DataFrame(texts, columns=header, index=[row.line for row in whole], dtype=object)
    has_commas = separator == ";"
    return cells, lambda text: parse_number(text, decimal_commas=has_commas)


def _parquet_cells(path: Path) -> pd.DataFrame:
    """The cells of a Parquet table, by the number of their row from 1."""
    try:
        table = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise InputError(
            "The clinical table cannot be read.",
            expected=f".parquet or {', '.join(sorted(_TEXT_SUFFIXES))}",
            found=str(error),
            where=path,
        ) from error
    return table.set_index(pd.RangeIndex(1, len(table) + 1))


def _checked(cells: pd.Series, to_number: Callable[[str], float], faults: list[str]) -> pd.Series:
    """A column as the cohort would hold it; what is wrong with it joins ``faults``."""
    cells = cells.mask(cells.map(_is_blank).astype(bool))
    rule = _RULES.get(str(cells.name))
    numbers, strange = _numbers(cells, to_number)
    if rule is None:
        # a category of one's own may be text; knee_id stays text whatever it looks like
        return cells if strange or cells.name in COHORT.rules.columns else numbers
    if str(rule.dtype) == "str":
        values: pd.Series = cells.astype(object)
    else:
        values = numbers
        faults += _fault(cells, strange, "must be a number")
    for check in rule.checks:
        wrong = check(values.dropna()).failure_cases
        if wrong is not None:
            faults += _fault(cells, list(wrong.index), str(check.error))
    return values


def _numbers(cells: pd.Series, to_number: Callable[[str], float]) -> tuple[pd.Series, list[int]]:
    """Cells as numbers, NaN where they are none, and where such ones stand."""
    found: list[Any] = []
    strange = []
    for place, cell in cells.items():
        value = None
        try:
            if not pd.isna(cell):
                value = to_number(cell) if isinstance(cell, str) else float(cell)
        except (TypeError, ValueError):
            strange.append(place)
        found.append(value)
    return pd.Series(found, index=cells.index, name=cells.name, dtype=float), strange


def _is_blank(cell: object) -> bool:
    return isinstance(cell, str) and cell.casefold() in _NO_VALUE


def _fault(cells: pd.Series, places: list[int], what: str) -> list[str]:
    if not places:
        return []
    shown = ", ".join(map(str, cells[places].dropna().unique()[:_MAX_VALUES_SHOWN]))
    found = f", found {shown}" if shown else ""
    return [f"column {cells.name}: {what}{found} in {lines_named(places)}"]


def untold(wanted: set[str], clinical: pd.DataFrame | None, knee_ids: pd.Series) -> tuple[str, ...]:
    """What a person must know of factors and knees that a clinical table does not tell.

    Args:
        wanted: The factors that a model wants.
        clinical: Factors by ``knee_id``; None without a table.
        knee_ids: The knees that are asked for.

    Raises:
        InputError: The table has none of the knees.
    """
    table = pd.DataFrame(index=pd.Index([], name="knee_id")) if clinical is None else clinical
    strangers = knee_ids[~knee_ids.isin(table.index)]
    if clinical is not None and len(strangers) == len(knee_ids):
        raise InputError(
            "The clinical table has none of the knees.",
            expected=f"such as {clinical.index[0]}" if len(clinical) else "rows",
            found=f"{len(strangers)} others, such as {strangers.iloc[0]}",
            fix="the same --cohort name and the same --ids make the same knee_id",
        )
    told = table.reindex(columns=sorted(wanted)).loc[table.index.isin(knee_ids)]
    notes = []
    absent = [name for name in told if told[name].isna().all()]
    if absent:
        notes.append(
            f"No values for {', '.join(absent)}: imputed by the rule that the model learnt."
        )
    gaps = {name: int(told[name].isna().sum()) for name in told if name not in absent}
    if any(gaps.values()):
        shown = ", ".join(f"{name} of {n} knees" for name, n in gaps.items() if n)
        notes.append(f"Imputed by the rule that the model learnt: {shown}.")
    if clinical is not None and len(strangers):
        imputed = ": all factors are imputed" if wanted else ""
        notes.append(
            f"{len(strangers)} knees are not in the clinical table{imputed}, such as "
            f"{strangers.iloc[0]}."
        )
    return tuple(notes)
