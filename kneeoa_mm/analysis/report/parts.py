"""What a report is made of: sections with tiles, tables and pictures that stand in the page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from kneeoa_mm.analysis.figure_style import svg_bytes
from kneeoa_mm.errors import InputError
from kneeoa_mm.records import Estimate

NOTHING = "\N{EN DASH}"
"""What a table says where there is no value."""

_MAX_WIDTH_PX = 1600
_MAX_PICTURE_BYTES = 400_000
_MAX_SVG_BYTES = 1_000_000


class Tile(NamedTuple):
    """One number worth showing large."""

    label: str
    value: str
    detail: str = ""


class Bar(NamedTuple):
    """An estimate and its interval on the axis from 0 to 1."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column is the name of the row.

    Attributes:
        caption: What it shows.
        columns: Heads.
        rows: Cells.
        bars: A little plot a row; empty where the table has none.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[Bar | None] = ()

    def is_text(self, column: int) -> bool:
        """Whether a column holds words, which stand at the left, and not numbers."""
        cells = [row[column] for row in self.rows if column < len(row)]
        return column == 0 or sum(_is_wordy(cell) for cell in cells) * 2 > len(cells)


def _is_wordy(cell: str) -> bool:
    return sum(character.isalpha() for character in cell) * 2 > len(cell)


class Picture(NamedTuple):
    """A picture inside the page."""

    uri: str
    caption: str
    wide: bool = False


@dataclass
class Section:
    """One run in the report.

    Attributes:
        kind: Such as ``evaluation``.
        title: Its heading.
        source: The run, relative to what was given.
        summary: A sentence.
        headline: Its tiles at the head of the report.
        tables: In order.
        pictures: In order.
        notes: What was left out, and what to be careful about.
        limits: What the method cannot tell.
        provenance: Name to value.
        config: The resolved configuration.
    """

    kind: str
    title: str
    source: str
    summary: str = ""
    headline: list[Tile] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    config: str = ""

    def add_picture(self, path: Path, caption: str, *, wide: bool = False) -> None:
        """Put a picture of the run into the page, or note that it cannot be read."""
        try:
            self.pictures.append(Picture(picture_uri(path), caption, wide))
        except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
            self.notes.append(f"The picture {path.name} cannot be read.")

    def add_figure(self, folder: Path, name: str, caption: str, *, wide: bool = False) -> None:
        """Put ``folder/name`` into the page, as SVG if it is there and small, otherwise as PNG."""
        vector, raster = folder / f"{name}.svg", folder / f"{name}.png"
        if vector.is_file() and vector.stat().st_size <= _MAX_SVG_BYTES:
            self.add_picture(vector, caption, wide=wide)
        elif raster.is_file():
            self.add_picture(raster, caption, wide=wide)


def picture_uri(path: Path) -> str:
    """A picture as a data URI; large ones are shrunk to 1600 px and become JPEG.

    Raises:
        OSError: The file is no picture, or cannot be read.
    """
    content = path.read_bytes()
    if path.suffix == ".svg":
        return _uri("svg+xml", content)
    with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as picture:
        picture.load()
        if picture.width <= _MAX_WIDTH_PX and len(content) <= _MAX_PICTURE_BYTES:
            return _uri((picture.format or "png").lower(), content)
        shrunk = _eight_bits(picture)
    shrunk.thumbnail((_MAX_WIDTH_PX, 4 * _MAX_WIDTH_PX))
    stream = io.BytesIO()
    shrunk.save(stream, "JPEG", quality=85, optimize=True)
    return _uri("jpeg", stream.getvalue())


def _eight_bits(picture: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16-bit greys clips them at 255
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) // 256).astype(np.uint8))
    return picture.convert("L" if picture.mode in {"1", "L", "LA"} else "RGB")


def figure_picture(figure: Figure, caption: str, *, wide: bool = False) -> Picture:
    """A figure made for the report."""
    return Picture(_uri("svg+xml", svg_bytes(figure)), caption, wide)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def show(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, or a dash.

    Example:
        >>> show(0.5), show(None), show(-0.0001)
        ('0.500', '–', '0.000')
    """
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def show_interval(estimate: Estimate, digits: int = 3) -> str:
    """The interval, or a dash.

    Example:
        >>> show_interval(Estimate(0.7, 0.61, 0.79, 100), digits=2)
        '0.61 to 0.79'
    """
    if estimate.ci_low is None or estimate.ci_high is None:
        return NOTHING
    return f"{show(estimate.ci_low, digits)} to {show(estimate.ci_high, digits)}"


def tile_of(label: str, estimate: Estimate, digits: int = 2) -> Tile:
    """A tile of an estimate; without a value it says why."""
    if estimate.value is None:
        return Tile(label, NOTHING, estimate.reason or "")
    interval = show_interval(estimate, digits)
    return Tile(
        label,
        show(estimate.value, digits),
        f"95 % CI {interval}" if estimate.ci_low is not None else estimate.reason or "",
    )


def bar_of(estimate: Estimate) -> Bar | None:
    """The little plot of an estimate between 0 and 1."""
    if estimate.value is None or estimate.ci_low is None or estimate.ci_high is None:
        return None
    within = 0 <= estimate.ci_low <= estimate.ci_high <= 1
    return Bar(estimate.ci_low, estimate.value, estimate.ci_high) if within else None


def read_document(path: Path) -> dict[str, Any]:
    """A run's JSON document.

    Raises:
        InputError: The file is damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("A result is damaged.", found=str(error), where=path) from error
    if not isinstance(document, dict):
        raise InputError("A result is damaged.", expected="a JSON object", where=path)
    return document


def read_csv(path: Path) -> pd.DataFrame:
    """A run's CSV as texts; an absent file, or one without rows, gives an empty table.

    Raises:
        InputError: The file is no CSV.
    """
    if not path.is_file() or not path.read_bytes().strip():
        return pd.DataFrame()
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError("A table is damaged.", found=str(error), where=path) from error


def flat_provenance(document: Mapping[str, Any]) -> dict[str, str]:
    """Provenance as names and texts, nested ones joined by a dot."""
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": text for key, text in flat_provenance(value).items()}
        elif value not in ("", None):
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat
