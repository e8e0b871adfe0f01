"""SAS tables (.sas7bdat) as rows of text, special missing values included."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.errors import InputError
from kneeoa_mm.text_tables import Row

_DATE_FORMAT = "%m/%d/%Y"
_ENCODING = "latin-1"
_MISSING = "."
_TAG_SHIFT = 40


def sas_rows(path: Path, *, header_only: bool = False) -> Iterator[Row]:
    """Rows of a SAS table as text, the column names first.

    The number of a row stands where text tables have that of a line: the header is 1.

    Args:
        path: The file.
        header_only: Read no more than the names.

    Raises:
        InputError: The file is no SAS table.
    """
    try:
        with pd.read_sas(path, format="sas7bdat", encoding=_ENCODING, iterator=True) as reader:
            frame = reader.read(1 if header_only else None)
    except (ValueError, OSError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"no SAS table that can be read: {error}", where=path) from error
    yield Row(1, [str(name) for name in frame.columns])
    if header_only:
        return
    columns = [[_text(cell) for cell in frame[name]] for name in frame.columns]
    for line, cells in enumerate(zip(*columns, strict=True), start=2):
        yield Row(line, list(cells))


def _text(cell: Any) -> str:
    """A cell as the text release would write it.

    Example:
        >>> _text(2.0), _text(1.9), _text("9000001 "), _text(None)
        ('2', '1.9', '9000001', '')
    """
    if isinstance(cell, float):
        return f"{cell:.15g}" if cell == cell else _missing_code(cell)
    if isinstance(cell, datetime):
        return "" if pd.isna(cell) else cell.strftime(_DATE_FORMAT)
    return "" if cell is None or pd.isna(cell) else str(cell).strip()


def _missing_code(value: float) -> str:
    """SAS's special missing value, such as ``.T``, from the payload of a NaN.

    The complement of the byte below the sign and exponent holds it: 0 is ``._``, 1 is ``.`` and 2
    to 27 are ``.A`` to ``.Z``; other writers put the character itself there.

    Example:
        >>> codes = (0xFFFFFE, 0xFFFFFD, 0xFFFFEA, 0xFFFFAB)
        >>> [_missing_code(struct.unpack("<d", struct.pack("<Q", c << 40))[0]) for c in codes]
        ['.', '.A', '.T', '.T']
        >>> _missing_code(float("nan"))
        '.'
    """
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    tag = ~(bits >> _TAG_SHIFT) & 0xFF
    if tag == 0:
        return "._"
    letter = chr(ord("A") + tag - 2) if 2 <= tag < 28 else chr(tag)
    return f".{letter}" if "A" <= letter <= "Z" else _MISSING
