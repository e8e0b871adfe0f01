"""Results as files: estimates for JSON, tables as CSV, and where a result comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm import __version__
from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.records import Estimate, Outcome
from kneeoa_mm.tables import escape_formulas, read_provenance

OUTCOME_NAMES: Mapping[str, str] = {
    Outcome.JSL_48M: "Joint-space loss",
    Outcome.JSL_FNIH: "Joint-space loss (FNIH)",
    Outcome.JSL_OR_KR_48M: "Joint-space loss or knee replacement",
    Outcome.KL_PROGRESSION: "KL progression",
    Outcome.TKR: "Knee replacement",
    Outcome.PAIN_PROGRESSION: "Pain progression",
}
"""Outcomes in words, for figures and the report."""


NOT_COMPUTED_FILE = "not_computed.json"
"""Stages of a whole analysis that the data did not allow, with the reasons."""


def as_json(estimate: Estimate) -> dict[str, Any]:
    """``value``, ``ci_low``, ``ci_high`` and ``n``, and ``reason`` or ``note`` where there is one.

    Example:
        >>> as_json(Estimate(None, n=3, reason="only one class in the truth"))
        {'value': None, 'ci_low': None, 'ci_high': None, 'n': 3,
         'reason': 'only one class in the truth'}
    """
    document: dict[str, Any] = {
        "value": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "n": estimate.n,
    }
    told = {"reason": estimate.reason, "note": estimate.note}
    return document | {name: text for name, text in told.items() if text}


def from_json(document: Mapping[str, Any]) -> Estimate:
    """The inverse of ``as_json``.

    Raises:
        KeyError: The document is no estimate.
    """
    return Estimate(
        document["value"],
        document.get("ci_low"),
        document.get("ci_high"),
        document.get("n", 0),
        document.get("reason"),
        document.get("note"),
    )


def write_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> Path:
    """Write rows as CSV, atomically, with text that a spreadsheet would run made harmless."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    with atomic_path(path) as temporary:
        escape_formulas(table).to_csv(temporary, index=False, lineterminator="\n")
    return path


def table_in(path: Path, name: str) -> Path:
    """The table ``path`` itself, or the one called ``name`` in the folder ``path``."""
    return path / name if path.is_dir() else path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def provenance_of(source: Path) -> dict[str, Any]:
    """Provenance of what is computed from the table ``source``; its folder is not told.

    Returns:
        ``package_version``, ``source`` (file name), ``source_sha256`` and, of a Parquet table that
        this package wrote, ``source_provenance``.
    """
    own = read_provenance(source) if source.suffix == ".parquet" else {}
    return {
        "package_version": __version__,
        "source": source.name,
        "source_sha256": sha256_of(source),
        **({"source_provenance": own} if own else {}),
    }
