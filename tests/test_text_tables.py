"""Text of tables is read as it was written, wherever in the file its first accent stands."""

from __future__ import annotations

import pytest

from kneeoa_mm.text_tables import text_rows

_LONG = 40_000
"""Rows of twelve bytes each: several blocks come before the first accent."""


def _sites(tmp_path, encoding: str, *, rows: int, shift: int = 0) -> list[str]:
    """Sites as they are read of the last two lines of a table, after ``shift`` more bytes."""
    header = "ID|SITE" + "x" * shift + "\n"
    text = header + "1234567|abc\n" * rows + "2|Malm\u00f6\n3|Malm\u00e5\n"
    path = tmp_path / "sites.txt"
    path.write_bytes(text.encode(encoding))
    *_, first, second = text_rows(path, "|")
    return [first.cells[1], second.cells[1]]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_two_sites_that_differ_by_a_late_accent_stay_two(tmp_path, encoding):
    assert _sites(tmp_path, encoding, rows=_LONG) == ["Malm\u00f6", "Malm\u00e5"]


@pytest.mark.parametrize("shift", range(13))
def test_a_character_that_two_blocks_share_is_one(tmp_path, monkeypatch, shift):
    """Blocks of 13 bytes, and the accent at every place in its block."""
    monkeypatch.setattr("kneeoa_mm.text_tables._BLOCK_BYTES", 13)
    assert _sites(tmp_path, "utf-8", rows=9, shift=shift) == ["Malm\u00f6", "Malm\u00e5"]


def test_a_file_that_ends_within_a_character_is_latin_1(tmp_path):
    path = tmp_path / "sites.txt"
    path.write_bytes("ID|SITE\n2|Orl\u00e9".encode("latin-1"))
    *_, last = text_rows(path, "|")
    assert last.cells == ["2", "Orl\u00e9"]
