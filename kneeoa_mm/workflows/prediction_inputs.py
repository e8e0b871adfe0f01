"""What ``predict`` is given: films, pictures of knees or a table, brought to a table of knees."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from kneeoa_mm import schemas, tables
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import ConfigError, InputError
from kneeoa_mm.identifiers import KEEP, is_hash, read_identifiers
from kneeoa_mm.imaging.detectors import fallback_notes
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.pictures import PICTURE_SUFFIXES
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.imaging.source_ids import source_ids
from kneeoa_mm.imaging.studies import Studies, find_films, holds_dicom
from kneeoa_mm.learning.sources import IMAGE_SUFFIXES, read_knees
from kneeoa_mm.progress import say
from kneeoa_mm.records import UNKNOWN
from kneeoa_mm.settings import PreprocessConfig


@dataclass(frozen=True, eq=False)
class Inputs:
    """Knees to predict.

    Attributes:
        knees: Rows of ``read_knees``.
        notes: What a person should know of how they were read.
        rejects: Films, or knees of films, that were not used; None where no films were given.
        fresh_key: Where the key of the identifiers is, if it was made for this input.
        source_ids: Subject of each knee as its film names it, for a model that knows it by that
            name: it must never be written or said. None where ``knees`` have no other name.
    """

    knees: pd.DataFrame
    notes: tuple[str, ...]
    rejects: pd.DataFrame | None = None
    fresh_key: Path | None = None
    source_ids: pd.Series | None = field(default=None, repr=False)


def holds_knees(source: Path) -> bool:
    """Whether ``source`` is a table or holds pictures alone; otherwise it should be DICOM."""
    if source.is_file():
        return source.suffix.lower() in {".parquet", ".csv", *IMAGE_SUFFIXES}
    if (source / "knees.parquet").is_file():
        return True
    is_image = any(path.suffix.lower() in IMAGE_SUFFIXES for path in source.rglob("*"))
    return is_image and not holds_dicom(source)


def refuse_options_of_films(source: Path, *, cohort: CohortSpec | None, ids: str | None) -> None:
    """Raise where an option would go unheeded, and leave names in clear that it should hide.

    Raises:
        ConfigError: There is one.
    """
    given = {"--ids": ids if ids != KEEP else None, "--cohort": cohort and cohort.name}
    for option, value in given.items():
        if value is not None:
            raise ConfigError(
                f"{option} does not go with pictures of knees, or a table of them.",
                expected="DICOM films: pictures and tables name their knees as outputs will",
                found=f"{option} {value}",
                where=source,
                fix=f"leave it out; or give the pictures to preprocess with {option}, and its "
                "output to predict without",
            )


def inputs_of_knees(source: Path) -> Inputs:
    """The knees of a picture, of a folder of them, or of a table.

    Raises:
        InputError: As in ``read_knees``.
    """
    knees = read_knees(source, allow_ungrouped=True, grades_optional=True)
    if (source / "knees.parquet").is_file() or source.suffix.lower() in {".parquet", ".csv"}:
        return Inputs(knees, _of_hashes(knees))
    if source.is_file():
        return Inputs(knees, ())
    return Inputs(knees, (*_grades_by_folder(knees), *_passed_over(source)))


def inputs_of_films(
    source: Path, work: Path, *, cohort: CohortSpec | None, ids: str | None, jobs: int
) -> Inputs:
    """Cut the knees from films.

    Args:
        source: A film, or a folder of them.
        work: Folder to make for the images, beside which a fresh key goes.
        cohort: How films name subject and visit.
        ids: ``keep``, a key file, or None for a fresh key.
        jobs: Workers.

    Raises:
        InputError: There is no film, or none with a knee.
    """
    settings = PreprocessConfig()
    preprocess(source, work, config=settings, cohort=cohort, ids=ids, jobs=jobs)
    rejects = pd.read_csv(work / "rejects.csv", dtype=str, keep_default_na=False)
    for reject in rejects.to_dict("records"):
        say("not used: {source}: {code} {message}".format(**reject))
    if tables.read_table(work / "knees.parquet", schemas.KNEES).empty:
        raise InputError(
            "No knee could be cut from any film.",
            found=", ".join(f"{n} {code}" for code, n in rejects["code"].value_counts().items()),
            where=source,
            fix="see the lines above; preprocess has settings for films out of the ordinary",
        )
    key = work.with_name(f"{work.name}.key")
    naming = Naming.of(read_identifiers(ids or str(key)), cohort)
    found, knees = find_films(source), read_knees(work)
    links = found.links
    followed_no_link = (
        f"{links} links lead out of the folder, to a folder or nowhere, and were not \
followed: what they lead to is not in the table."
    )
    return Inputs(
        knees,
        (*fallback_notes(settings), *([followed_no_link] if links else [])),
        rejects,
        key if ids is None else None,
        _source_ids(found, naming, knees, settings),
    )


def _source_ids(
    found: Studies, naming: Naming, knees: pd.DataFrame, settings: PreprocessConfig
) -> pd.Series | None:
    if naming.identifiers.key is None:
        return None
    known = source_ids(found, naming, set(knees["source"]), max_pixels=settings.max_pixels)
    return knees["subject_id"].map(lambda subject: known.get(subject, subject))


def _of_hashes(knees: pd.DataFrame) -> tuple[str, ...]:
    """That a model may know persons by another name, where a table has hashes alone."""
    subjects = knees.loc[knees["subject_id"] != UNKNOWN, "subject_id"]
    if subjects.empty or not subjects.map(is_hash).all():
        return ()
    return (
        "The subjects of this table are hashes. Whether the model has seen them in training shows "
        "only if it knows them by the same key; `predict` on the films themselves can tell.",
    )


def _grades_by_folder(knees: pd.DataFrame) -> tuple[str, ...]:
    """That the names of folders were read as grades, where they were."""
    if "kl_grade" not in knees:
        return ()
    grades = ", ".join(map(str, sorted(knees["kl_grade"].dropna().unique())))
    return (
        f"The names of the folders were read as KL grades ({grades}). If they are none, such as "
        "visits 1/ and 2/, rename them: the table holds them as the truth, and a model that takes "
        "the reading uses them.",
    )


def _passed_over(folder: Path) -> tuple[str, ...]:
    """What lies among the pictures and is not read, so that none vanishes in silence."""
    entries = [(path, path.suffix.lower()) for path in folder.rglob("*")]
    unread = PICTURE_SUFFIXES - IMAGE_SUFFIXES
    others = Counter(suffix for path, suffix in entries if suffix in unread and path.is_file())
    known = {path for path, suffix in entries if suffix in PICTURE_SUFFIXES and path.is_file()}
    links = sum(path.is_symlink() and path not in known for path, _ in entries)
    notes = []
    if others:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(others.items()))
        notes.append(
            f"Pictures that are neither PNG nor JPEG were not read: {kinds}. Convert them, or give "
            "them in a folder of their own, where they are taken for films."
        )
    if links:
        notes.append(
            f"{links} links that lead to no picture were not followed: what they lead to is not in "
            "the table."
        )
    return tuple(notes)
