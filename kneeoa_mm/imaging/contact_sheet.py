"""One picture of many knees, the doubtful ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kneeoa_mm.run_folder import atomic_path

_COLUMNS, _MOST_KNEES = 8, 96
_TILE_PX, _CAPTION_PX, _GAP_PX = 176, 40, 4
_INK, _WARNING, _PAPER = 235, 255, 24


@dataclass(frozen=True)
class Entry:
    """A knee on the sheet.

    Attributes:
        image: Path of its 16-bit PNG.
        knee_id: First line of the caption.
        score: Of the detector.
        flags: The doubts, joined by ``;``.
    """

    image: Path
    knee_id: str
    score: float
    flags: str


def write_contact_sheet(entries: Sequence[Entry], path: Path) -> Path:
    """Write a PNG of up to 96 knees: those with most flags first, then by falling doubt.

    Args:
        entries: The knees of a run.
        path: The sheet.
    """
    doubtful_first = sorted(
        entries, key=lambda entry: (-len(_flags(entry)), entry.score, entry.knee_id)
    )[:_MOST_KNEES]
    columns = min(_COLUMNS, len(doubtful_first))
    rows = -(-len(doubtful_first) // columns)
    tile_rows = _TILE_PX + _CAPTION_PX + _GAP_PX
    sheet = Image.new("L", (columns * (_TILE_PX + _GAP_PX), rows * tile_rows), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for index, entry in enumerate(doubtful_first):
        left, top = index % columns * (_TILE_PX + _GAP_PX), index // columns * tile_rows
        sheet.paste(Image.fromarray(_thumbnail(entry.image)), (left, top))
        lines = (_short(entry.knee_id), f"score {entry.score:.2f}", " ".join(_flags(entry)))
        for line, text in enumerate(lines):
            ink = _WARNING if line == 2 else _INK
            place = (left + 2, top + _TILE_PX + 1 + 13 * line)
            draw.text(place, _fitted(text, font), fill=ink, font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary)
    return path


def _flags(entry: Entry) -> list[str]:
    return [flag for flag in entry.flags.split(";") if flag]


def _thumbnail(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        grey = np.asarray(picture, dtype=np.float32)
    small = Image.fromarray(grey).resize((_TILE_PX, _TILE_PX), Image.Resampling.BOX)
    return (np.asarray(small) / 257).round().astype(np.uint8)


def _short(knee_id: str) -> str:
    return knee_id.partition(":")[2]


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while text and font.getlength(text) > _TILE_PX - 4:
        text = text[:-1]
    return text
