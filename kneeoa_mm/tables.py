"""Reading and writing of typed tables with their provenance.

Parquet is canonical; its file metadata carries the schema's name and version, the package version
and the hash of the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as arrow
import pyarrow.parquet as parquet

from kneeoa_mm import __version__
from kneeoa_mm.errors import InputError
from kneeoa_mm.schemas import TableSchema, check

_METADATA_KEY = b"kneeoa_mm"


def write_table(
    frame: pd.DataFrame,
    schema: TableSchema,
    path: Path,
    *,
    config_digest: str = "",
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Validate ``frame`` and write it atomically as Parquet (or CSV, by the suffix).

    Args:
        frame: The rows.
        schema: What they must obey.
        path: ``.parquet``, or ``.csv`` for an export without metadata.
        config_digest: Hash of the configuration that made the table.
        extra: More provenance, JSON-serialisable.

    Raises:
        TableError: The frame breaks the schema.
        InputError: The suffix is neither ``.parquet`` nor ``.csv``.
    """
    from kneeoa_mm.atomic_files import atomic_path

    checked = check(frame, schema, where=path)
    if path.suffix not in {".parquet", ".csv"}:
        raise InputError(
            "The table's suffix must be .parquet or .csv.", found=path.name, where=path
        )
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            escape_formulas(checked).to_csv(temporary, index=False, lineterminator="\n")
            return path
        provenance = {
            "schema": schema.name,
            "schema_version": schema.version,
            "package_version": __version__,
            "config": config_digest,
            **(extra or {}),
        }
        table = arrow.Table.from_pandas(checked, preserve_index=False)
        metadata = {**(table.schema.metadata or {}), _METADATA_KEY: json.dumps(provenance).encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), temporary)
    return path


def escape_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Quote text cells that a spreadsheet would run as a formula.

    Example:
        >>> escape_formulas(pd.DataFrame({"source": ["=cmd()", "a.dcm"]}))["source"].tolist()
        ["'=cmd()", 'a.dcm']
    """

    def quote(cell: Any) -> Any:
        risky = isinstance(cell, str) and cell[:1] in {"=", "+", "@", "\t"}
        return f"'{cell}" if risky else cell

    # text is object in pandas 2 and str in pandas 3
    return frame.apply(lambda c: c.map(quote) if c.dtype in (object, "str") else c)


def read_table(path: Path, schema: TableSchema) -> pd.DataFrame:
    """Read a Parquet or CSV table and validate it.

    Raises:
        InputError: The file is absent, unreadable, or holds another kind of table.
        TableError: The table breaks the schema.
    """
    if not path.is_file():
        raise InputError(
            "The table is not there.", expected=f"a table of {schema.name}", where=path
        )
    try:
        if path.suffix == ".csv":
            texts = dict.fromkeys(("knee_id", "subject_id", "kl_set"), str)
            frame = pd.read_csv(path, dtype=texts, keep_default_na=True)
        else:
            frame = parquet.read_table(path).to_pandas()
    except (arrow.ArrowInvalid, OSError, ValueError) as error:
        raise InputError("The table cannot be read.", found=str(error), where=path) from error
    kind = {} if path.suffix == ".csv" else read_provenance(path)
    if kind.get("schema", schema.name) != schema.name:
        raise InputError(
            "This is another kind of table.", expected=schema.name, found=kind["schema"], where=path
        )
    if kind.get("schema_version", 0) > schema.version:
        raise InputError(
            "A newer version of kneeoa-mm wrote this table.",
            expected=f"schema version {schema.version} or older",
            found=str(kind["schema_version"]),
            where=path,
            fix="upgrade kneeoa-mm",
        )
    return check(frame, schema, where=path)


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance metadata of a Parquet table; empty where another program wrote it."""
    metadata = parquet.read_schema(path).metadata or {}
    provenance: dict[str, Any] = json.loads(metadata.get(_METADATA_KEY, b"{}"))
    return provenance
