"""The stage ``preprocess``: a folder of studies to knees.parquet, images, rejects and QC."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.config import PreprocessConfig
from kneeoa_mm.errors import InputError, ItemError
from kneeoa_mm.identifiers import KEEP, Identifiers, keyed_hash, new_key_file, read_identifiers
from kneeoa_mm.imaging.contact_sheet import Entry, write_contact_sheet
from kneeoa_mm.imaging.dicom import DICOM_SUFFIXES, is_dicom
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.journal import JOURNAL_FILE, Journal
from kneeoa_mm.imaging.runner import run_films
from kneeoa_mm.imaging.worker import FilmRecord, FilmTask, part_path, rejected, work
from kneeoa_mm.progress import track
from kneeoa_mm.records import UNKNOWN, KneeKey, Laterality, StageResult
from kneeoa_mm.run_folder import open_run
from kneeoa_mm.tables import KNEES, REJECTS, write_table

_PARTS = ".parts"
_LONGEST_STEM = 120


@dataclass(frozen=True)
class _Studies:
    """What a folder of studies holds: films in the order of their paths, and the rest."""

    root: Path
    sources: tuple[str, ...]
    not_dicom: int


def preprocess(
    studies: Path,
    out: Path,
    *,
    config: PreprocessConfig,
    cohort: CohortSpec | None = None,
    ids: str | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    resume: bool = False,
) -> StageResult:
    """Cut the knees from all films under ``studies``.

    Writes ``knees.parquet``, ``rejects.csv``, ``images/``, ``qc/contact_sheet.png`` and
    ``config.yaml`` into ``out``. The result is the same for any number of jobs, and for a run that
    was interrupted and resumed.

    Args:
        studies: A folder, searched with its subfolders (linked folders are not followed), or one
            film.
        out: The output directory.
        config: Field of view, resolution, limits.
        cohort: Tells visits and subjects from paths and headers.
        ids: ``keep``, the path of a key file, or None for a fresh key in ``<out>.key``.
        jobs: Worker processes.
        overwrite: Replace an earlier run.
        resume: Go on with an interrupted run.

    Raises:
        InputError: There is no film under ``studies``.
        OutputExistsError: ``out`` holds something else.
        ConfigError: A resumed run has other films, options or settings.
    """
    found = _find_films(studies)
    key_file = out.with_name(f"{out.name}.key")
    identifiers = _known_identifiers(ids, key_file)
    Naming.of(Identifiers(None), cohort)
    with open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite, resume=resume):
        naming = Naming.of(identifiers or new_key_file(key_file), cohort)
        records = _process(found, out, config, naming, jobs=jobs, resume=resume)
        outputs = _write_tables(records, out, config)
    if ids is None:
        outputs["key"] = key_file
    return _result(out, outputs, found, records, ids)


def _find_films(studies: Path) -> _Studies:
    """DICOM files, and files that only claim to be: the rest is counted and left alone."""
    if studies.is_file():
        root, paths = studies.parent, [studies]
    else:
        root = studies
        paths = [Path(folder) / name for folder, _, names in os.walk(studies) for name in names]
    sources = sorted(
        path.relative_to(root).as_posix() for path in paths if path.is_file() and _is_film(path)
    )
    if not sources:
        raise InputError(
            "There are no films to preprocess.",
            expected="DICOM files (with any suffix) in this folder or below",
            found=f"{len(paths)} files, none of them DICOM" if paths else _what_is_there(studies),
            where=studies,
        )
    return _Studies(root, tuple(sources), len(paths) - len(sources))


def _is_film(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    try:
        return path.suffix.lower() in DICOM_SUFFIXES or is_dicom(path)
    except OSError:
        return False


def _what_is_there(studies: Path) -> str:
    return "an empty folder" if studies.is_dir() else "no such file or folder"


def _known_identifiers(ids: str | None, key_file: Path) -> Identifiers | None:
    """Identifiers that the caller names or an earlier run left; None where a key is to be made."""
    if ids is not None:
        return read_identifiers(ids)
    return read_identifiers(str(key_file)) if key_file.exists() else None


def _process(
    found: _Studies,
    out: Path,
    config: PreprocessConfig,
    naming: Naming,
    *,
    jobs: int,
    resume: bool,
) -> list[FilmRecord]:
    masked = [naming.masked(source) for source in found.sources]
    journal = Journal(out / JOURNAL_FILE, _inputs(found, naming))
    records = journal.read(masked, out) if resume else []
    names = _Names(naming.cohort)
    for record in records:
        names.remember(record)
    parts = out / _PARTS
    shutil.rmtree(parts, ignore_errors=True)
    todo = range(len(records), len(found.sources))
    tasks = [
        FilmTask(found.root / found.sources[i], found.sources[i], parts / str(i), config, naming)
        for i in todo
    ]
    try:
        with journal.start(records), closing(_run(tasks, config, jobs)) as results:
            for task, result in zip(
                tasks, track(results, total=len(tasks), label="preprocess"), strict=True
            ):
                if isinstance(result, ItemError):
                    source = naming.masked(task.source)
                    result = FilmRecord(source, rejects=(rejected(source, result),))
                record = _with_names(result, names, task.part, out)
                journal.append(record)
                records.append(record)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return records


def _run(
    tasks: list[FilmTask], config: PreprocessConfig, jobs: int
) -> Generator[FilmRecord | ItemError, None, None]:
    workers = max(1, min(jobs, len(tasks)))
    return run_films(work, tasks, jobs=workers, timeout_s=config.film_timeout_s)


def _inputs(found: _Studies, naming: Naming) -> dict[str, Any]:
    """What beside the configuration a resumed run must share, without naming anybody."""
    films = [[source, (found.root / source).stat().st_size] for source in found.sources]
    cohort = asdict(replace(naming, identifiers=Identifiers(None)))
    key = naming.identifiers.key
    return {
        "films": hashlib.sha256(json.dumps(films).encode()).hexdigest(),
        "cohort": hashlib.sha256(json.dumps(cohort, sort_keys=True).encode()).hexdigest(),
        "identifiers": KEEP if key is None else keyed_hash(key, "key of kneeoa-mm preprocess"),
    }


@dataclass
class _Names:
    """Hands out knee_ids and file names; the same films in the same order get the same ones."""

    cohort: str | None
    copies: dict[KneeKey, int] = field(default_factory=dict)
    stems: set[str] = field(default_factory=set)

    def take(self, row: dict[str, Any]) -> dict[str, str]:
        """The names of the next film of a knee; the second of a visit becomes copy 2."""
        first = self._first_copy(row)
        self.copies[first] = self.copies.get(first, 0) + 1
        key = replace(first, copy=self.copies[first])
        stem = key.file_stem[:_LONGEST_STEM]
        if stem.casefold() in self.stems:
            # two identifiers may differ only in what a file name cannot show
            stem = f"{stem}-{hashlib.sha256(str(key).encode()).hexdigest()[:8]}"
        self.stems.add(stem.casefold())
        return {"knee_id": str(key), "image_path": f"images/{stem}.png"}

    def remember(self, record: FilmRecord) -> None:
        """Take the names of a film that an earlier run named."""
        for row in record.knees:
            first = self._first_copy(row)
            self.copies[first] = self.copies.get(first, 0) + 1
            self.stems.add(Path(row["image_path"]).stem.casefold())

    def _first_copy(self, row: dict[str, Any]) -> KneeKey:
        known = {name: None if row[name] == UNKNOWN else row[name] for name in row}
        side = known["laterality"]
        return KneeKey(
            self.cohort,
            known["subject_id"],
            known["months"],
            None if side is None else Laterality(side),
        )


def _with_names(record: FilmRecord, names: _Names, part: Path, out: Path) -> FilmRecord:
    """Name the knees of a film and move their images to their places."""
    rows = []
    for index, row in enumerate(record.knees):
        named = names.take(row)
        image = out / named["image_path"]
        image.parent.mkdir(exist_ok=True)
        part_path(part, index).replace(image)
        rows.append({**named, **row})
    return replace(record, knees=tuple(rows))


def _write_tables(
    records: Sequence[FilmRecord], out: Path, config: PreprocessConfig
) -> dict[str, Path]:
    rows = [row for record in records for row in record.knees]
    rejects = [asdict(reject) for record in records for reject in record.rejects]
    measured = [name for name in KNEES.rules.columns if name != "kl_grade"]
    knees = pd.DataFrame(rows, columns=measured)
    outputs = {
        "knees": write_table(knees, KNEES, out / "knees.parquet", config_digest=config.digest()),
        "rejects": write_table(
            pd.DataFrame(rejects, columns=list(REJECTS.rules.columns)), REJECTS, out / "rejects.csv"
        ),
    }
    if rows:
        entries = [
            Entry(out / row["image_path"], row["knee_id"], row["detector_score"], row["qc_flags"])
            for row in rows
        ]
        outputs["images"] = out / "images"
        outputs["contact_sheet"] = write_contact_sheet(entries, out / "qc" / "contact_sheet.png")
    return outputs


def _result(
    out: Path,
    outputs: dict[str, Path],
    found: _Studies,
    records: Sequence[FilmRecord],
    ids: str | None,
) -> StageResult:
    rejects = [reject for record in records for reject in record.rejects]
    knees = [row for record in records for row in record.knees]
    claimed = sum(reject.code == "E_NOT_DICOM" for reject in rejects)
    flagged = sum(bool(row["qc_flags"]) for row in knees)
    notes = [f"{flagged} of {len(knees)} knees carry a QC flag; see the contact sheet"]
    if ids is None:
        notes.append("identifiers were hashed: pass the key file as --ids to `cohort`, and keep it")
    return StageResult(
        "preprocess",
        out,
        outputs,
        counts={
            "films": len(records),
            "knees": len(knees),
            "rejects": len(rejects),
            "not_dicom": found.not_dicom + claimed,
        },
        failed=sum(bool(record.rejects) for record in records),
        notes=tuple(notes),
        next_step=f"kneeoa-mm predict {out / 'knees.parquet'} --model MODEL --out FILE",
    )
