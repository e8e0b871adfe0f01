"""What a folder looks like: a cohort's release, plain tables, graded images or DICOM films."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kneeoa_mm.cohort.search import search_sources
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec, shipped_cohorts
from kneeoa_mm.records import UNKNOWN, subject_and_side

_IMAGES = {".png", ".jpg", ".jpeg"}
_TABLES = {".txt", ".csv", ".tsv", ".sas7bdat"}
_GRADE_FOLDER = re.compile(r"^[0-4](\D.*)?$")
_DICOM_PREAMBLE = 128


@dataclass(frozen=True)
class Survey:
    """What lies below a folder.

    Attributes:
        tables: Files that may be tables.
        graded: One row a graded image: ``subject_id``, ``laterality``, ``kl_grade``, ``split``
            (None without split folders) and ``image``.
        n_other_images: Images that no folder grades.
        dicom: DICOM files.
        cohorts: Shipped cohort to how many of its required files are there, and how many there are
            to be, best first; only those of which some are there.
    """

    tables: list[Path]
    graded: pd.DataFrame
    n_other_images: int
    dicom: list[Path]
    cohorts: dict[str, tuple[int, int]]


def survey(folder: Path) -> Survey:
    """Look through a folder, reading no more than the first bytes of its files."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    images = [path for path in files if path.suffix.lower() in _IMAGES]
    graded = [path for path in images if _GRADE_FOLDER.match(path.parent.name)]
    tables = [path for path in files if path.suffix.lower() in _TABLES]
    others = set(files) - set(images) - set(tables)
    return Survey(
        tables=tables,
        graded=pd.DataFrame(
            [_graded(path, folder) for path in graded],
            columns=["subject_id", "laterality", "kl_grade", "split", "image"],
        ),
        n_other_images=len(images) - len(graded),
        dicom=[path for path in sorted(others) if _is_dicom(path)],
        cohorts=recognised(folder) if tables else {},
    )


def _graded(path: Path, folder: Path) -> tuple[str, str, int, str | None, str]:
    subject, side = subject_and_side(path.stem)
    above = path.parent.parent
    split = above.name if above != folder and folder in above.parents else None
    grade = int(path.parent.name[0])
    return subject or path.stem, str(side or UNKNOWN), grade, split, str(path)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(_DICOM_PREAMBLE + 4)[_DICOM_PREAMBLE:] == b"DICM"


def recognised(folder: Path) -> dict[str, tuple[int, int]]:
    """Shipped cohorts of which ``folder`` has files: how many required ones, of how many.

    The one with most files comes first; among those, the one that lacks fewest.
    """
    found = {name: _files(folder, read_cohort_spec(name)) for name in shipped_cohorts()}
    some = {name: counts for name, counts in found.items() if counts[0]}
    return dict(sorted(some.items(), key=lambda item: (-item[1][0], item[1][1])))


def _files(folder: Path, spec: CohortSpec) -> tuple[int, int]:
    """Required files with all their columns, and all required files."""
    search = search_sources(folder, spec)
    faulty = {fault.partition(":")[0] for fault in search.faults}
    required = [source for source in search.sources if not source.spec.optional]
    absent = sum(fault.endswith("no such file") for fault in search.faults)
    sound = [source for source in required if source.path.name not in faulty]
    return len(sound), len(required) + absent


def in_words(counts: Iterable[object]) -> str:
    """How often each value stands there.

    Example:
        >>> in_words(["a", "b", "a"])
        '2 a, 1 b'
    """
    return ", ".join(f"{n} {value}" for value, n in sorted(Counter(map(str, counts)).items()))
