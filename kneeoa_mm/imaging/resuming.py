"""Which films a run that goes on need not process again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kneeoa_mm.imaging.assembly import (
    IMAGES_FOLDER,
    NamedKnee,
    in_order,
    name_knees,
    withdraw,
)
from kneeoa_mm.imaging.engine import Job
from kneeoa_mm.imaging.worker import FilmRecord


def films_done(job: Job, modified_ns: Sequence[int], *, keep_names: bool) -> set[int]:
    """Films that were done, and whose images are there.

    Names depend on all films. So where every film is recorded, and some image is lost or some film
    is worth another try, the tables go, and the images go back to where they wait for their names,
    since the film that is done anew may have other knees.

    Args:
        job: The run.
        modified_ns: When the file of each film was last written.
        keep_names: Try no film again that gave no knees.

    Raises:
        ConfigError: A film that was done is another one now.
    """
    records = job.journal.read()
    job.journal.refuse_changed(_changed(job, records, modified_ns))
    if len(records) < len(job.sources):
        return job.journal.waiting()
    knees = list(name_knees(in_order(records), job.naming.cohort))
    anew = _without_image(job, knees)
    if not keep_names:
        anew |= {film for film, record in records.items() if not record.is_final}
    if anew:
        withdraw(knees, job.journal, job.out)
    return set(records) - anew


def _changed(job: Job, records: Mapping[int, FilmRecord], modified_ns: Sequence[int]) -> list[str]:
    """Films, as outputs show them, that hold other bytes than they did, be they as many."""
    return [
        job.shown_sources[film]
        for film, record in sorted(records.items())
        if record.fingerprint is not None
        and not record.fingerprint.fits(job.root / job.sources[film], modified_ns[film])
    ]


def _without_image(job: Job, knees: Sequence[NamedKnee]) -> set[int]:
    waiting = job.journal.images()
    placed = {path.name for path in (job.out / IMAGES_FOLDER).glob("*.png")}
    return {
        knee.film
        for knee in knees
        if knee.part(job.journal).name not in waiting
        and Path(knee.row["image_path"]).name not in placed
    }
