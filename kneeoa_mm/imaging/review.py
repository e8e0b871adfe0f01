"""A page to look through a run: its knees, to take out those that should not be used, and rejects.

The page holds its pictures, needs no network and asks no server: what a reviewer ticks is saved by
the browser as ``exclude.csv``, which ``preprocess --exclude`` takes. All names are escaped.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from kneeoa_mm.atomic_files import write_text
from kneeoa_mm.imaging.contact_sheet import Entry, doubtful_first, thumbnail
from kneeoa_mm.records import Reject

REVIEW_FILE = "review.html"

_TEMPLATE = "review.html.j2"
_MOST_KNEES = 600
"""About 4 MB of pictures; a browser still scrolls smoothly."""
_MOST_REJECTS = 200
"""Of each code."""
_THUMBNAIL_PX, _JPEG_QUALITY = 160, 82


class Card(NamedTuple):
    """A knee on the page.

    Attributes:
        entry: The knee.
        picture: Its thumbnail as a JPEG in base64.
        columns: Width of the thumbnail in pixels.
        rows: Height of the thumbnail in pixels.
    """

    entry: Entry
    picture: str
    columns: int
    rows: int


class FlagCount(NamedTuple):
    """How many knees carry a flag: in the whole run, and on the page."""

    flag: str
    knees: int
    shown: int


class Rejected(NamedTuple):
    """What was not used for one reason.

    Attributes:
        code: The reason.
        items: How many films and knees.
        shown: The first of them.
    """

    code: str
    items: int
    shown: list[Reject]


def write_review(entries: Sequence[Entry], rejects: Sequence[Reject], path: Path) -> Path:
    """Write the review page: the 600 most doubtful knees, what was not used, and counts of all.

    Args:
        entries: The knees of a run.
        rejects: Films and knees that were not used.
        path: The page.
    """
    shown = doubtful_first(entries)[:_MOST_KNEES]
    everywhere, here = (
        Counter(flag for entry in some for flag in entry.flag_list) for some in (entries, shown)
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(_TEMPLATE).render(
        cards=[_card(entry) for entry in shown],
        flags=[FlagCount(flag, count, here[flag]) for flag, count in _most_common(everywhere)],
        rejects=_by_code(rejects),
        knees=len(entries),
        doubtful=sum(bool(entry.doubts) for entry in entries),
        shown_doubtful=sum(bool(entry.doubts) for entry in shown),
    )
    return write_text(path, page)


def _by_code(rejects: Sequence[Reject]) -> list[Rejected]:
    """The most frequent code first."""
    return [
        Rejected(code, count, [each for each in rejects if each.code == code][:_MOST_REJECTS])
        for code, count in _most_common(Counter(reject.code for reject in rejects))
    ]


def _most_common(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _card(entry: Entry) -> Card:
    small = thumbnail(entry.image, _THUMBNAIL_PX)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=_JPEG_QUALITY)
    return Card(entry, base64.b64encode(jpeg.getvalue()).decode(), *small.size)
