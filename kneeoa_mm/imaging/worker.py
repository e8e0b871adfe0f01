"""What a worker process does with one film, and what it hands back. Light to import."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from kneeoa_mm.config import PreprocessConfig
from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.detector import JointDetector
from kneeoa_mm.imaging.detectors import make_detector
from kneeoa_mm.imaging.films import FilmKnees, Knee, process_film
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.records import UNKNOWN, Reject
from kneeoa_mm.run_folder import atomic_path

_COMPRESSION = 1
"""Of PNG: level 6 takes several times as long for files a few per cent smaller."""


@dataclass(frozen=True)
class FilmTask:
    """One film to process.

    Attributes:
        path: The film.
        source: Its path relative to the studies, with ``/``.
        part: Where its images go until they have their names: ``<part>-0.png`` and so on.
        config: The configuration of the run.
        naming: How films are identified.
    """

    path: Path
    source: str
    part: Path
    config: PreprocessConfig
    naming: Naming


@dataclass(frozen=True)
class FilmRecord:
    """What came of one film; plain values only, as it goes into the journal.

    Attributes:
        source: Path of the film as outputs show it.
        knees: A row of the table of knees each, still without ``knee_id`` and ``image_path``.
        rejects: Reasons why the film, or one of its knees, was not used.
    """

    source: str
    knees: tuple[dict[str, Any], ...] = ()
    rejects: tuple[Reject, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> FilmRecord:
        """The inverse of :meth:`to_json`."""
        rejects = tuple(Reject(**reject) for reject in document["rejects"])
        return cls(document["source"], tuple(document["knees"]), rejects)


@cache
def _detector(config: PreprocessConfig) -> JointDetector:
    return make_detector(config)


def work(task: FilmTask) -> FilmRecord:
    """Cut the knees from one film and store their images beside each other.

    A fault of the film becomes a reject; its message names types of errors, never their text,
    which may quote the header.

    Raises:
        OSError: An image cannot be written, which no other film will survive either.
    """
    source = task.naming.masked(task.source)
    try:
        film = process_film(
            task.path,
            task.source,
            config=task.config,
            naming=task.naming,
            detector=_detector(task.config),
        )
    except ItemError as error:
        return FilmRecord(source, rejects=(rejected(source, error),))
    except Exception as error:
        unexpected = ItemError("E_UNEXPECTED", type(error).__name__, stage="process")
        return FilmRecord(source, rejects=(rejected(source, unexpected),))
    for index, knee in enumerate(film.knees):
        write_png(part_path(task.part, index), knee)
    missing = ItemError("E_NO_JOINT", "one of the two joints was not found", stage="detect")
    return FilmRecord(
        source,
        tuple(_row(source, film, knee) for knee in film.knees),
        (rejected(source, missing),) if film.is_incomplete else (),
    )


def rejected(source: str, error: ItemError) -> Reject:
    """The row of ``rejects.csv`` for a fault."""
    return Reject(source, error.stage, error.code, error.message)


def part_path(part: Path, index: int) -> Path:
    """Where the image of a film's knee waits for its name."""
    return part.with_name(f"{part.name}-{index}.png")


def write_png(path: Path, knee: Knee) -> None:
    """Write a 16-bit greyscale PNG without any text in it, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(knee.image).save(temporary, compress_level=_COMPRESSION)


def _row(source: str, film: FilmKnees, knee: Knee) -> dict[str, Any]:
    spacing = film.spacing
    return {
        "subject_id": film.identity.subject_id or UNKNOWN,
        "laterality": str(knee.laterality or UNKNOWN),
        "months": film.identity.months,
        "view": str(film.view),
        "source": source,
        "box_left_px": knee.box.left_px,
        "box_top_px": knee.box.top_px,
        "box_right_px": knee.box.right_px,
        "box_bottom_px": knee.box.bottom_px,
        "pixel_spacing_row_mm": None if spacing is None else spacing.row_mm,
        "pixel_spacing_column_mm": None if spacing is None else spacing.column_mm,
        "spacing_source": str(film.spacing_source),
        "flipped": knee.is_flipped,
        "detector": film.detector,
        "detector_score": knee.score,
        "qc_flags": ";".join(knee.flags),
    }
