"""Text tables as they come: encodings, separators, decimal signs, and lines that are broken."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kneeoa_mm.errors import InputError

SEPARATORS = ("|", "\t", ";", ",")
NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")

_DECIMAL_COMMA = re.compile(r"^[+-]?\d*,\d+$")
_BLOCK_BYTES = 65536


class Row(NamedTuple):
    """A row of a file, and the number of its line there."""

    line: int
    cells: list[str]


def text_rows(path: Path, separator: str) -> Iterator[Row]:
    """Rows of a text table, the header first; blank lines are passed over.

    Raises:
        InputError: A line cannot be split.
    """
    with path.open(encoding=_encoding(path), errors="replace", newline="") as stream:
        reader = csv.reader(
            stream,
            delimiter=separator,
            # Fields of the pipe-separated release are never quoted, so a quotation mark is one
            quoting=csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL,
        )
        try:
            yield from (Row(reader.line_num, cells) for cells in reader if any(cells))
        except csv.Error as error:
            raise InputError(
                f"line {reader.line_num} cannot be read: {error}", where=path
            ) from error


def sniff_separator(path: Path) -> str:
    """The separator that the header has most of; a comma where it has none."""
    with path.open(encoding=_encoding(path), errors="replace", newline="") as stream:
        header = next((line for line in stream if line.strip()), "")
    counts = Counter(header)
    return max(SEPARATORS, key=lambda sign: (counts[sign], sign == ","))


def parse_number(text: str, *, decimal_commas: bool = False) -> float:
    """A cell as a number.

    Raises:
        ValueError: It is none.

    Example:
        >>> parse_number("-2.5"), parse_number("31,5", decimal_commas=True)
        (-2.5, 31.5)
    """
    if decimal_commas and _DECIMAL_COMMA.match(text):
        return float(text.replace(",", "."))
    if not NUMBER.match(text):
        raise ValueError(f"{text!r} is no number")
    return float(text)


def _encoding(path: Path) -> str:
    """By the byte-order mark; without one UTF-16 by its zeros, UTF-8 if it is, else Latin-1.

    In Latin-1 every byte is a character, so nothing is ever unreadable.
    """
    with path.open("rb") as stream:
        start = stream.read(_BLOCK_BYTES)
        if start.startswith(codecs.BOM_UTF8):
            return "utf-8-sig"
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in start:
            return "utf-16-le" if start[1::2].count(0) >= start[::2].count(0) else "utf-16-be"
        # to the end: the first name with an accent may stand in the last line
        return "utf-8" if _is_utf8(start, stream) else "latin-1"


def _is_utf8(start: bytes, rest: BinaryIO) -> bool:
    """Whether all bytes of a file are UTF-8, a block at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in chain([start], iter(partial(rest.read, _BLOCK_BYTES), b"")):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
