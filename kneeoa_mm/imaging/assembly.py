"""From the records of all films to names, tables and images in their places.

Films come in the order of their paths, so the result is the same whoever processed them, in
whatever order and after whatever interruption.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.atomic_files import flush_names
from kneeoa_mm.imaging.contact_sheet import Entry, write_contact_sheet
from kneeoa_mm.imaging.exclusions import Exclusions
from kneeoa_mm.imaging.journal import Journal
from kneeoa_mm.imaging.review import REVIEW_FILE, write_review
from kneeoa_mm.imaging.worker import FilmRecord, part_path
from kneeoa_mm.records import UNKNOWN, KneeKey, Laterality, Reject
from kneeoa_mm.schemas import KNEES, REJECTS
from kneeoa_mm.settings import PreprocessConfig
from kneeoa_mm.tables import write_table

IMAGES_FOLDER = "images"
_KNEES_FILE, _REJECTS_FILE = "knees.parquet", "rejects.csv"
_CONTACT_SHEET, _REVIEW = Path("qc", "contact_sheet.png"), Path("qc", REVIEW_FILE)

_LONGEST_STEM = 120


@dataclass(frozen=True)
class NamedKnee:
    """A knee with its name.

    Attributes:
        film: Index of its film.
        index: Of the knee on the film.
        row: Its row of the table of knees.
    """

    film: int
    index: int
    row: dict[str, Any]

    def part(self, journal: Journal) -> Path:
        """Where its image waits for its name."""
        return part_path(journal.part(self.film), self.index)


@dataclass(frozen=True)
class Whole:
    """What the tables of a run hold.

    Attributes:
        outputs: Role to path of what was written.
        rows: Of the table of knees.
        rejects: Films and knees that were not used.
        films_rejected: Films that were not used, or one of whose knees was not.
    """

    outputs: dict[str, Path]
    rows: list[dict[str, Any]]
    rejects: list[Reject]
    films_rejected: int


def in_order(records: Mapping[int, FilmRecord]) -> list[FilmRecord]:
    """The records of films in the order of the films."""
    return [records[film] for film in sorted(records)]


def name_knees(records: Sequence[FilmRecord], cohort: str | None) -> Iterator[NamedKnee]:
    """Give each knee its ``knee_id`` and ``image_path``, and flag films that are copies.

    Args:
        records: Of all films, in order.
        cohort: Name of the cohort, or None.
    """
    names = _Names(cohort)
    films = Counter(digest for record in records for digest in record.digests.items())
    for film, record in enumerate(records):
        shared = [flag for flag, digest in record.digests.items() if films[flag, digest] > 1]
        for index, row in enumerate(record.knees):
            named = {**names.take(row), **row}
            named["qc_flags"] = ";".join([*filter(None, row["qc_flags"].split(";")), *shared])
            yield NamedKnee(film, index, named)


@dataclass
class _Names:
    """Hands out knee_ids and file names; the same films in the same order get the same ones."""

    cohort: str | None
    copies: Counter[KneeKey] = field(default_factory=Counter)
    stems: set[str] = field(default_factory=set)

    def take(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The names of the next film of a knee; the second of a visit becomes copy 2."""
        known = {
            name: None if row[name] == UNKNOWN else row[name]
            for name in ("subject_id", "months", "laterality")
        }
        side = known["laterality"]
        first = KneeKey(
            self.cohort,
            known["subject_id"],
            known["months"],
            None if side is None else Laterality(side),
        )
        self.copies[first] += 1
        key = replace(first, copy=self.copies[first])
        stem = key.file_stem[:_LONGEST_STEM]
        if stem.casefold() in self.stems:
            # two identifiers may differ only in what a file name cannot show
            stem = f"{stem}-{hashlib.sha256(str(key).encode()).hexdigest()[:8]}"
        self.stems.add(stem.casefold())
        return {"knee_id": str(key), "image_path": f"{IMAGES_FOLDER}/{stem}.png"}


def place_images(knees: Sequence[NamedKnee], journal: Journal, out: Path) -> None:
    """Move images from where they wait to ``images/``; those that are there already stay."""
    (out / IMAGES_FOLDER).mkdir(exist_ok=True)
    waiting = journal.images()
    for knee in knees:
        part = knee.part(journal)
        if part.name in waiting:
            part.replace(out / knee.row["image_path"])
    # the journal, which would have them made again, goes after this
    flush_names(out / IMAGES_FOLDER)


def withdraw(knees: Sequence[NamedKnee], journal: Journal, out: Path) -> None:
    """Take back the tables, then the images, of a whole that is about to change."""
    # the other way round, a run that is interrupted now would leave a table of images that are gone
    for name in (_KNEES_FILE, _REJECTS_FILE, _CONTACT_SHEET, _REVIEW):
        (out / name).unlink(missing_ok=True)
    flush_names(out)
    withdraw_images(knees, journal, out)


def withdraw_images(knees: Sequence[NamedKnee], journal: Journal, out: Path) -> None:
    """The inverse of :func:`place_images`."""
    for knee in knees:
        image, part = out / knee.row["image_path"], knee.part(journal)
        part.parent.mkdir(exist_ok=True)
        if image.is_file():
            image.replace(part)


def write_tables(
    knees: Sequence[NamedKnee],
    records: Sequence[FilmRecord],
    excluded: Exclusions,
    config: PreprocessConfig,
    out: Path,
) -> Whole:
    """Write ``knees.parquet``, ``rejects.csv`` and what helps to review them.

    Args:
        knees: Of all films, with names.
        records: Of all films, in order.
        excluded: Knees that a reviewer took out.
        config: Of the run.
        out: The output directory.

    Returns:
        What was written.
    """
    kept = [knee.row for knee in knees if knee.row["knee_id"] not in excluded]
    measured = [name for name in KNEES.rules.columns if name != "kl_grade"]
    rejects = _rejects(knees, records, excluded)
    outputs = {
        "knees": write_table(
            pd.DataFrame(kept, columns=measured),
            KNEES,
            out / _KNEES_FILE,
            config_digest=config.digest(),
            extra={"excluded": len(excluded.reasons)} if excluded.reasons else None,
        ),
        "rejects": write_table(
            pd.DataFrame(map(asdict, rejects), columns=list(REJECTS.rules.columns)),
            REJECTS,
            out / _REJECTS_FILE,
        ),
    }
    entries = [
        Entry(
            out / row["image_path"],
            row["knee_id"],
            row["detector_score"],
            row["qc_flags"],
            row["source"],
        )
        for row in kept
    ]
    if kept:
        outputs["images"] = out / IMAGES_FOLDER
        outputs["contact_sheet"] = write_contact_sheet(entries, out / _CONTACT_SHEET)
    outputs["review"] = write_review(entries, rejects, out / _REVIEW)
    return Whole(outputs, kept, rejects, sum(bool(record.rejects) for record in records))


def _rejects(
    knees: Sequence[NamedKnee], records: Sequence[FilmRecord], excluded: Exclusions
) -> list[Reject]:
    """Films and knees that were not used, in the order of the films."""
    of_film = defaultdict(list)
    for knee in knees:
        if knee.row["knee_id"] in excluded:
            of_film[knee.film].append(excluded.reject(knee.row["knee_id"], knee.row["source"]))
    return [
        reject
        for film, record in enumerate(records)
        for reject in (*record.rejects, *of_film.get(film, ()))
    ]
