"""What a report is made of: sections with tiles, tables, pictures and facts for the checklists."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from kneeoa_mm.analysis.figure_style import rendered

NOTHING = "\N{EN DASH}"
"""What a table says where there is no value."""

_MAX_WIDTH_PX = 1600
_MAX_PICTURE_BYTES = 400_000
_MAX_SVG_BYTES = 1_000_000
_TYPES = {"svg": "svg+xml", "jpg": "jpeg"}


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
        footnote: What marks in the cells mean.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Sequence[Bar | None] = ()
    footnote: str = ""

    def is_text(self, column: int) -> bool:
        """Whether a column holds words, which stand at the left, and not numbers."""
        cells = [row[column] for row in self.rows if column < len(row)]
        return column == 0 or sum(_is_wordy(cell) for cell in cells) * 2 > len(cells)

    def is_prose(self) -> bool:
        """Whether cells are sentences, which need the width of a page more than columns."""
        return any(len(cell) > _PROSE for row in self.rows for cell in row[1:])


_PROSE = 90


def _is_wordy(cell: str) -> bool:
    return sum(character.isalpha() for character in cell) * 2 > len(cell)


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        uri: The picture itself.
        caption: What it shows.
        wide: Whether it takes the whole width.
        name: Of its file.
        first: Whether it stands before the tables of its section.
        files: Suffix to content, as it is written beside the page.
    """

    uri: str
    caption: str
    wide: bool = False
    name: str = "figure"
    first: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)


class Fact(NamedTuple):
    """What a run knows about an item of a checklist, and the file of the run that says it."""

    text: str
    file: str


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
        methods: Sentences for the methods of a paper.
        facts: Name, such as ``cohort.flow``, to what the checklists say.
        card: The model card of a training run.
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
    methods: list[str] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    card: Table | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    config: str = ""

    def tell(self, name: str, text: str, file: str) -> None:
        """Note a fact for the checklists; an empty text is none."""
        if text:
            self.facts[f"{self.kind}.{name}"] = Fact(text, file)

    def add_picture(self, path: Path, caption: str, *, wide: bool = False) -> None:
        """Put a picture of the run into the page, or note that it cannot be read."""
        try:
            uri = _uri(path.read_bytes(), path.suffix)
            self.pictures.append(Picture(uri, caption, wide, path.stem, files=_file(path)))
        except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
            self.notes.append(f"The picture {path.name} cannot be read.")

    def add_figure(self, folder: Path, name: str, caption: str, *, wide: bool = False) -> None:
        """Put ``folder/name`` into the page, as SVG if it is there and small, otherwise as PNG."""
        vector, raster = folder / f"{name}.svg", folder / f"{name}.png"
        is_small = vector.is_file() and vector.stat().st_size <= _MAX_SVG_BYTES
        if not is_small and not raster.is_file():
            return
        before = len(self.pictures)
        self.add_picture(vector if is_small else raster, caption, wide=wide)
        if len(self.pictures) > before:
            files = _file(vector) | _file(raster)
            self.pictures[-1] = replace(self.pictures[-1], files=files)


def _file(path: Path) -> dict[str, bytes]:
    return {path.suffix[1:]: path.read_bytes()} if path.is_file() else {}


def figure_picture(
    figure: Figure, caption: str, *, name: str, wide: bool = False, first: bool = False
) -> Picture:
    """A figure made for the report."""
    files = rendered(figure)
    return Picture(_as_uri("svg", files["svg"]), caption, wide, name, first, files)


def _uri(content: bytes, suffix: str) -> str:
    """A picture as a data URI; large ones are shrunk to 1600 px and become JPEG.

    Raises:
        OSError: It is no picture.
    """
    if suffix == ".svg":
        if b"<svg" not in content:
            raise ValueError("no SVG")
        return _as_uri("svg", content)
    with Image.open(io.BytesIO(content), formats=["PNG", "JPEG"]) as picture:
        picture.load()
        if picture.width <= _MAX_WIDTH_PX and len(content) <= _MAX_PICTURE_BYTES:
            return _as_uri((picture.format or "png").lower(), content)
        shrunk = _eight_bits(picture)
    shrunk.thumbnail((_MAX_WIDTH_PX, 4 * _MAX_WIDTH_PX))
    stream = io.BytesIO()
    shrunk.save(stream, "JPEG", quality=85, optimize=True)
    return _as_uri("jpeg", stream.getvalue())


def _eight_bits(picture: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16-bit greys clips them at 255
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) // 256).astype(np.uint8))
    return picture.convert("L" if picture.mode in {"1", "L", "LA"} else "RGB")


def _as_uri(kind: str, content: bytes) -> str:
    media = _TYPES.get(kind, kind)
    return f"data:image/{media};base64,{base64.b64encode(content).decode('ascii')}"
