"""One picture of many knees, the doubtful ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.imaging.quality import REMARKS

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
        source: The film it was cut from, as outputs show it.
    """

    image: Path
    knee_id: str
    score: float
    flags: str
    source: str = ""

    @property
    def flag_list(self) -> list[str]:
        """The flags one by one."""
        return [flag for flag in self.flags.split(";") if flag]

    @property
    def doubts(self) -> list[str]:
        """The flags that say that something may be wrong."""
        return [flag for flag in self.flag_list if flag not in REMARKS]


def doubtful_first(entries: Sequence[Entry]) -> list[Entry]:
    """Knees with most doubts first, then those that the detector was least sure of."""
    return sorted(
        entries,
        key=lambda each: (-len(each.doubts), -len(each.flag_list), each.score, each.knee_id),
    )


def thumbnail(path: Path, side_px: int) -> Image.Image:
    """A knee image of 16 bits in 8, its longer side being ``side_px``."""
    with Image.open(path) as picture:
        grey = np.asarray(picture, dtype=np.float32)
    factor = side_px / max(grey.shape)
    rows, columns = (max(1, round(size * factor)) for size in grey.shape)
    small = Image.fromarray(grey).resize((columns, rows), Image.Resampling.BOX)
    return Image.fromarray((np.asarray(small) / 257).round().astype(np.uint8))


def write_contact_sheet(entries: Sequence[Entry], path: Path) -> Path:
    """Write a PNG of up to 96 knees: those with most flags first, then by falling doubt.

    Args:
        entries: The knees of a run.
        path: The sheet.
    """
    shown = doubtful_first(entries)[:_MOST_KNEES]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    tile_rows = _TILE_PX + _CAPTION_PX + _GAP_PX
    sheet = Image.new("L", (columns * (_TILE_PX + _GAP_PX), rows * tile_rows), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for index, entry in enumerate(shown):
        left, top = index % columns * (_TILE_PX + _GAP_PX), index // columns * tile_rows
        small = thumbnail(entry.image, _TILE_PX)
        across, down = ((_TILE_PX - size) // 2 for size in small.size)
        sheet.paste(small, (left + across, top + down))
        lines = (_short(entry.knee_id), f"score {entry.score:.2f}", " ".join(entry.flag_list))
        for line, text in enumerate(lines):
            ink = _WARNING if line == 2 else _INK
            place = (left + 2, top + _TILE_PX + 1 + 13 * line)
            draw.text(place, _fitted(text, font), fill=ink, font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary)
    return path


def _short(knee_id: str) -> str:
    return knee_id.partition(":")[2]


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while text and font.getlength(text) > _TILE_PX - 4:
        text = text[:-1]
    return text
