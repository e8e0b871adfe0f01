"""What a worker process does with one film, and what it hands back. Light to import."""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from sys import intern
from typing import Any

from PIL import Image

from kneeoa_mm.errors import ItemError
from kneeoa_mm.imaging.detector import JointDetector
from kneeoa_mm.imaging.detectors import make_detector
from kneeoa_mm.imaging.dicom import NO_DECODER
from kneeoa_mm.imaging.faults import as_item_errors
from kneeoa_mm.imaging.films import FilmKnees, Knee, process_film
from kneeoa_mm.imaging.fingerprint import Fingerprint
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.limits import (
    die_with_parent,
    keep_freed_memory,
    memory_limit,
    silence,
)
from kneeoa_mm.records import UNKNOWN, Reject
from kneeoa_mm.settings import PreprocessConfig

WORTH_ANOTHER_TRY = frozenset({"E_READ", "E_TIMEOUT", "E_CRASH", NO_DECODER})
"""Codes of faults that lie with the machine as likely as with the film."""

_COMPRESSION = zlib.Z_RLE
"""Of PNG: the noise of a film has no repetitions, and looking for them takes half the time."""


@dataclass(frozen=True)
class FilmTask:
    """One film to process.

    Attributes:
        root: The folder of studies.
        source: Path of the film relative to it, with ``/``.
        shown_source: The same as outputs show it.
        part: Where its images go until they have their names: ``<part>-0.png`` and so on.
        config: The configuration of the run.
        naming: How films are identified.
    """

    root: Path
    source: str
    shown_source: str
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
        digests: By the flag that films of the same digest get; empty where there were no knees.
        fingerprint: Of the film, where it could be read.
    """

    source: str
    knees: tuple[dict[str, Any], ...] = ()
    rejects: tuple[Reject, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    fingerprint: Fingerprint | None = None

    @property
    def is_final(self) -> bool:
        """Whether another attempt would come to the same; a file, a worker or an extra may not."""
        return not any(reject.code in WORTH_ANOTHER_TRY for reject in self.rejects)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> FilmRecord:
        """The inverse of :meth:`to_json`."""
        rejects = tuple(Reject(**reject) for reject in document["rejects"])
        # one copy of each column's name, and not one a film
        knees = tuple({intern(name): knee[name] for name in knee} for knee in document["knees"])
        stated = document["fingerprint"]
        fingerprint = None if stated is None else Fingerprint(*stated)
        return cls(document["source"], knees, rejects, document["digests"], fingerprint)


@cache
def _detector(config: PreprocessConfig) -> JointDetector:
    return make_detector(config)


def prepare(config: PreprocessConfig) -> None:
    """Get a worker process ready, before the first film's time runs."""
    die_with_parent()
    keep_freed_memory()
    _detector(config)
    silence()


def work(task: FilmTask) -> FilmRecord:
    """Cut the knees from one film and store their images beside each other.

    A fault of the film becomes a reject; its message names types of errors, never their text,
    which may quote the header.

    Raises:
        OSError: An image cannot be written, or the folder of studies is gone: no other film will
            fare better.
    """
    try:
        return _record(task)
    except ItemError as error:
        if error.stage == "read":
            _check_root(task.root)
        return FilmRecord(task.shown_source, rejects=(rejected(task.shown_source, error),))


def _record(task: FilmTask) -> FilmRecord:
    source = task.shown_source
    try:
        film = _process(task)
    except ItemError as error:
        if error.stage == "read":
            raise
        return FilmRecord(
            source, rejects=(rejected(source, error),), fingerprint=_fingerprint(task)
        )
    fingerprint = _fingerprint(task)
    for index, knee in enumerate(film.knees):
        write_png(part_path(task.part, index), knee)
    missing = ItemError("E_NO_JOINT", "one of the two joints was not found", stage="detect")
    return FilmRecord(
        source,
        tuple(_row(source, film, knee) for knee in film.knees),
        (rejected(source, missing),) if film.is_incomplete else (),
        film.digests,
        fingerprint,
    )


def _fingerprint(task: FilmTask) -> Fingerprint:
    with as_item_errors("read", "E_READ"):
        return Fingerprint.of(task.root / task.source)


def _process(task: FilmTask) -> FilmKnees:
    detector = _detector(task.config)
    try:
        with memory_limit(task.config.film_memory_mb):
            return process_film(
                task.root / task.source,
                printable(task.source),
                config=task.config,
                naming=task.naming,
                detector=detector,
            )
    except ItemError:
        raise
    except MemoryError:
        message = "the film takes more than film_memory_mb"
        raise ItemError("E_TOO_LARGE", message, stage="process") from None
    except Exception as error:
        raise ItemError("E_UNEXPECTED", type(error).__name__, stage="process") from None


def _check_root(root: Path) -> None:
    """Tell a film that cannot be read from a drive that is gone."""
    with os.scandir(root) as entries:
        if next(entries, None) is None:
            raise FileNotFoundError(errno.ENOENT, "the folder of studies is empty now", str(root))


def printable(source: str) -> str:
    """A path as text that tables can hold: bytes that are no UTF-8 are written out."""
    return source.encode("utf-8", "backslashreplace").decode()


def rejected(source: str, error: ItemError) -> Reject:
    """The row of ``rejects.csv`` for a fault."""
    return Reject(source, error.stage, error.code, error.message)


def part_path(part: Path, index: int) -> Path:
    """Where the image of a film's knee waits for its name."""
    return part.with_name(f"{part.name}-{index}.png")


def write_png(path: Path, knee: Knee) -> None:
    """Write a 16-bit greyscale PNG without any text in it, and see it onto the disk.

    It needs no temporary name: nothing refers to a part before the journal has its film.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as stream:
            Image.fromarray(knee.image).save(stream, format="PNG", compress_type=_COMPRESSION)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


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
        "as_right_knee": knee.laterality is not None,
        "detector": film.detector,
        "detector_score": knee.score,
        "field_of_view_plateau_widths": knee.field_of_view_plateau_widths,
        "qc_flags": ";".join(knee.flags),
    }
