"""The stage ``preprocess``: a folder of studies to knees.parquet, images, rejects and QC."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from kneeoa_mm import __version__
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import ConfigError, KneeOAError, MissingExtraError, OutputExistsError
from kneeoa_mm.identifiers import KEEP, Identifiers, keyed_hash, new_key_file, read_identifiers
from kneeoa_mm.imaging import ray_engine
from kneeoa_mm.imaging.assembly import (
    Whole,
    in_order,
    name_knees,
    place_images,
    write_tables,
)
from kneeoa_mm.imaging.detectors import detector_name, fallback_notes, resolve_detector
from kneeoa_mm.imaging.dicom import NO_DECODER
from kneeoa_mm.imaging.engine import Job, Shard, run_locally
from kneeoa_mm.imaging.exclusions import Exclusions, read_exclusions, recorded_exclusions
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.resuming import films_done
from kneeoa_mm.imaging.studies import Studies, find_films
from kneeoa_mm.imaging.summary import Done, shard_result, whole_result
from kneeoa_mm.imaging.worker import FilmRecord, printable
from kneeoa_mm.progress import track
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import open_run, refuse_own_inputs
from kneeoa_mm.settings import PreprocessConfig


def preprocess(
    studies: Path,
    out: Path,
    *,
    config: PreprocessConfig,
    cohort: CohortSpec | None = None,
    ids: str | None = None,
    jobs: int = 1,
    engine: Literal["local", "ray"] = "local",
    shard: str | None = None,
    exclude: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> StageResult:
    """Cut the knees from all films under ``studies``.

    Writes ``knees.parquet``, ``rejects.csv``, ``images/``, ``qc/contact_sheet.png`` and
    ``config.yaml`` into ``out``. The result is the same for any number of jobs, any engine, and
    for a run that was interrupted and resumed, or shared out to shards and joined.

    Args:
        studies: A folder, searched with its subfolders (links that lead out of it are not
            followed), or one film.
        out: The output directory.
        config: Field of view, resolution, limits.
        cohort: Tells visits and subjects from paths and headers.
        ids: ``keep``, the path of a key file, or None for a fresh key in ``<out>.key``.
        jobs: Worker processes; of each task, where the engine is Ray.
        engine: ``local`` for processes of this machine, ``ray`` for a cluster.
        shard: ``i/n``: process every n-th film alone, and write no tables: a last run with
            ``resume`` does.
        exclude: CSV with a column ``knee_id``: knees that a reviewer took out.
        overwrite: Replace an earlier run.
        resume: Go on with an interrupted run, or join its shards.

    Raises:
        InputError: There is no film under ``studies``, or ``exclude`` names unknown knees.
        OutputExistsError: ``out`` holds something else.
        ConfigError: A resumed run has other films, options or settings, or a run that replaces
            another would read from it.
        MissingExtraError: The engine or the detector is not installed, or no film can be decoded
            without the extra `dicom`; the tables are written then.
    """
    part = None if shard is None else Shard.parse(shard)
    key_file = out.with_name(f"{out.name}.key")
    if engine == "ray":
        ray_engine.require()
    if part is not None:
        _refuse_beside_shard(
            {"--engine ray": engine == "ray", "--exclude": bool(exclude), "--overwrite": overwrite},
            shares_key=ids is not None or key_file.exists(),
        )
    if overwrite:
        refuse_own_inputs(out, filter(None, (studies, exclude)))
    given = None if exclude is None else read_exclusions(exclude)
    notes = fallback_notes(config)
    config = resolve_detector(config)
    inputs = {"kneeoa_mm": __version__, "detector": detector_name(config)}
    found = find_films(studies, out=out)
    identifiers = _known_identifiers(ids, key_file)
    Naming.of(Identifiers(None), cohort)
    with (
        _terminated_like_interrupted(),
        _told_of_full_disks(out),
        open_run(
            out,
            config_yaml=config.to_yaml(),
            overwrite=overwrite,
            resume=resume,
            part=None if part is None else str(part),
        ),
    ):
        naming = Naming.of(identifiers or new_key_file(key_file), cohort)
        job = _job(found, out, config, naming, jobs)
        job.journal.settle(inputs | _identity_of_inputs(found, job), is_shard=part is not None)
        if part is not None:
            return shard_result(out, part, _process_shard(job, part))
        done = _process_all(job, engine, given, found.modified_ns)
        whole = _assemble(job, given)
    _refuse_without_decoder(whole)
    own_key = key_file if ids is None else None
    return whole_result(out, whole, found, done, key_file=own_key, notes=notes)


def _refuse_beside_shard(options: dict[str, bool], *, shares_key: bool) -> None:
    for option, is_given in options.items():
        if is_given:
            raise ConfigError(
                f"{option} does not go with --shard.",
                expected=f"{option} in a run of its own"
                if option == "--overwrite"
                else f"{option} in the run that joins the shards",
                where="--shard",
            )
    if not shares_key:
        raise ConfigError(
            "Shards must share the key of the identifiers.",
            expected=f"--ids {KEEP}, or --ids with the file of a key",
            where="--shard",
            fix="make a key: openssl rand -hex 32 > my.key",
        )


def _known_identifiers(ids: str | None, key_file: Path) -> Identifiers | None:
    """Identifiers that the caller names or an earlier run left; None where a key is to be made."""
    if ids is not None:
        return read_identifiers(ids)
    return read_identifiers(str(key_file)) if key_file.exists() else None


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, as of a batch system whose time is up, end the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _told_of_full_disks(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KneeOAError(
            "The run had to stop: files cannot be written, or the films are gone.",
            found=error.strerror or type(error).__name__,
            where=out,
            fix="make room, or bring the drive back; then repeat the command with --resume",
        ) from error


def _job(found: Studies, out: Path, config: PreprocessConfig, naming: Naming, jobs: int) -> Job:
    shown = tuple(naming.masked(printable(source)) for source in found.sources)
    return Job(found.root, found.sources, shown, out.resolve(), config, naming, jobs)


def _identity_of_inputs(found: Studies, job: Job) -> dict[str, Any]:
    """What beside the configuration a resumed run must share, without naming anybody."""
    naming, key = job.naming, job.naming.identifiers.key
    return {
        "cohort": naming.cohort,
        "path_pattern": naming.path_pattern,
        "visits": dict(naming.visits or {}),
        "views": list(naming.views),
        "identifiers": KEEP
        if key is None
        else f"key {keyed_hash(key, 'key of kneeoa-mm preprocess')}",
        "films": dict(zip(job.shown_sources, found.sizes, strict=True)),
    }


def _process_all(
    job: Job,
    engine: Literal["local", "ray"],
    given: Exclusions | None,
    modified_ns: Sequence[int],
) -> Done:
    excluded = recorded_exclusions(job.out) if given is None else given
    # a list of exclusions means the names that the whole had when it was looked through
    keep_names = job.journal.is_finished and bool(excluded.reasons)
    known = films_done(job, modified_ns, keep_names=keep_names)
    films = [film for film in range(len(job.sources)) if film not in known]
    if not films:
        return Done()
    if given is not None:
        # a run that is resumed without the list leaves the same knees out
        given.write(job.out)
    if engine == "ray":
        return _counted(ray_engine.run_on_ray(job, films), len(films), already=len(known))
    return _counted(run_locally(job, films, label="whole"), len(films), already=len(known))


def _process_shard(job: Job, shard: Shard) -> Done:
    if job.journal.is_finished:
        raise OutputExistsError(
            "The shards of this run were joined already.",
            where=job.out,
            fix="go on with --resume, without --shard",
        )
    known = job.journal.waiting()
    mine = [film for film in range(len(job.sources)) if shard.takes(film)]
    films = [film for film in mine if film not in known]
    if not films:
        return Done()
    records = run_locally(job, films, label=str(shard))
    return _counted(records, len(films), already=len(mine) - len(films))


def _counted(records: Iterable[FilmRecord], films: int, *, already: int) -> Done:
    """Work through the films and show how far they are."""
    start = time.monotonic()
    counts: Counter[str] = Counter()
    for record in track(
        records,
        total=already + films,
        already=already,
        label="preprocess",
        status=lambda: f"{counts['rejected']} rejected",
    ):
        counts["rejected"] += bool(record.rejects)
    return Done(films, counts["rejected"], time.monotonic() - start)


def _refuse_without_decoder(whole: Whole) -> None:
    """Raise where nothing came of the films for want of an extra alone."""
    if not whole.rows and {reject.code for reject in whole.rejects} == {NO_DECODER}:
        raise MissingExtraError(
            "No film could be decoded: their encodings need the extra `dicom`.",
            found=f"{whole.films_rejected} films, each with its encoding in the list",
            where=whole.outputs["rejects"],
            fix="pip install 'kneeoa-mm[dicom]', and repeat the command with --resume",
        )


def _assemble(job: Job, given: Exclusions | None) -> Whole:
    """Name the knees, bring the images to their places and write the tables."""
    records = in_order(job.journal.read())
    if len(records) < len(job.sources):
        raise KneeOAError(
            "Some films were processed, but are not recorded.",
            found=f"{len(records)} of {len(job.sources)}",
            where=job.out,
            fix="a shared file system may lag: repeat the command with --resume",
        )
    knees = list(name_knees(records, job.naming.cohort))
    knee_ids = [knee.row["knee_id"] for knee in knees]
    excluded = recorded_exclusions(job.out) if given is None else given
    excluded.refuse_unknown(knee_ids, out=job.out)
    job.journal.finish(records)
    place_images(knees, job.journal, job.out)
    excluded.in_order(knee_ids).write(job.out)
    whole = write_tables(knees, records, excluded, job.config, job.out)
    job.journal.clear()
    return whole
