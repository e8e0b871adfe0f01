"""Knees that a reviewer took out."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from kneeoa_mm.atomic_files import write_text
from kneeoa_mm.errors import InputError
from kneeoa_mm.records import Reject

EXCLUSIONS_FILE = "excluded.csv"
"""In the output directory: what a run left out, kept by those that resume it."""
EXCLUDED_CODE = "E_EXCLUDED"

_IDS_NAMED = 5


@dataclass(frozen=True)
class Exclusions:
    """Which knees to leave out.

    Attributes:
        reasons: knee_id to reason, which may be empty.
    """

    reasons: dict[str, str] = field(default_factory=dict)

    def __contains__(self, knee_id: object) -> bool:
        return knee_id in self.reasons

    def reject(self, knee_id: str, source: str) -> Reject:
        """The row of ``rejects.csv`` for a knee that is left out."""
        reason = self.reasons[knee_id] or "taken out after review"
        return Reject(source, "review", EXCLUDED_CODE, f"{knee_id}: {reason}")

    def refuse_unknown(self, knee_ids: Collection[str], *, out: Path) -> None:
        """Check that every knee to leave out is there.

        Raises:
            InputError: Some are not.
        """
        unknown = sorted(set(self.reasons) - set(knee_ids))
        if unknown:
            more = ", …" if len(unknown) > _IDS_NAMED else ""
            raise InputError(
                "Knees to exclude are not in this run.",
                expected="knee_ids of its knees.parquet",
                found=f"{len(unknown)} others: {', '.join(unknown[:_IDS_NAMED])}{more}",
                where=out,
                fix="correct the file of --exclude and repeat with --resume; no film is read again",
            )

    def write(self, out: Path) -> None:
        """Keep the list in the output directory, in the order of ``reasons``."""
        path = out / EXCLUSIONS_FILE
        if not self.reasons:
            path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([("knee_id", "reason"), *self.reasons.items()])
        write_text(path, text.getvalue())

    def in_order(self, knee_ids: Collection[str]) -> Exclusions:
        """The same, in the order of ``knee_ids``."""
        return Exclusions({each: self.reasons[each] for each in knee_ids if each in self.reasons})


def read_exclusions(path: Path) -> Exclusions:
    """Read a CSV with a column ``knee_id`` and, if need be, ``reason``.

    Args:
        path: UTF-8, separated by commas, or by semicolons as some spreadsheets do.

    Raises:
        InputError: There is no such file or column.
    """
    expected = "a CSV file with the column knee_id, such as the review page exports"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "The list of exclusions cannot be read.", expected=expected, where=path
        ) from error
    header = text.partition("\n")[0]
    separator = ";" if ";" in header and "," not in header else ","
    rows = csv.DictReader(io.StringIO(text), delimiter=separator)
    if "knee_id" not in (rows.fieldnames or []):
        raise InputError(
            "The list of exclusions has no column knee_id.",
            expected=expected,
            found=", ".join(rows.fieldnames or []) or "an empty file",
            where=path,
        )
    named = {
        (row["knee_id"] or "").strip(): " ".join((row.get("reason") or "").split()) for row in rows
    }
    return Exclusions({knee_id: reason for knee_id, reason in named.items() if knee_id})


def recorded_exclusions(out: Path) -> Exclusions:
    """What an earlier run in ``out`` left out."""
    path = out / EXCLUSIONS_FILE
    return read_exclusions(path) if path.is_file() else Exclusions()
