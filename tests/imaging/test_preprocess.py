"""The stage: what it writes, what it refuses, and that an interruption changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import phantoms
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from kneeoa_mm.cohort_spec import CohortSpec, FilmsSpec
from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError
from kneeoa_mm.imaging import engine, journal
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.records import StageResult
from kneeoa_mm.schemas import KNEES, REJECTS
from kneeoa_mm.settings import PreprocessConfig
from kneeoa_mm.tables import read_table

COHORT = CohortSpec(name="demo", visits={"V00": 0, "V06": 48})
CONFIG = PreprocessConfig(pixel_spacing_mm=1.0)
FILM = phantoms.knee_film(spacing_mm=(1.0, 1.0))
MM = {"ImagerPixelSpacing": [1.0, 1.0]}


def _write(path: Path, **elements: Any) -> Path:
    return phantoms.write_film(path, film=FILM, **(MM | elements))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six DICOM files, of which four give knees, and two files that are none."""
    root = tmp_path_factory.mktemp("studies")
    _write(root / "V00" / "9000017.dcm")
    _write(root / "V00" / "9000034.dcm", PatientID="9000034")
    _write(root / "V06" / "000001", ClinicalTrialTimePointID="V06")
    _write(root / "V06" / "again.dcm", ClinicalTrialTimePointID="V06")
    _write(root / "V06" / "broken.dcm", Modality="CT")
    (root / "V06" / "empty.dcm").write_bytes(b"")
    (root / "notes.txt").write_text("no film")
    (root / ".DS_Store").write_bytes(b"\0" * 200)
    return root


def _serially(
    work: Callable[[Any], Any], tasks: Iterable[Any], **_: Any
) -> Generator[Any, None, None]:
    yield from map(work, tasks)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Films are processed here and not in workers, which test_runner tests."""
    monkeypatch.setattr(engine, "run_films", _serially)


def _run(studies: Path, out: Path, **kwargs: Any) -> StageResult:
    arguments: dict[str, Any] = {"config": CONFIG, "cohort": COHORT, "ids": "keep"} | kwargs
    return preprocess(studies, out, **arguments)


def _contents(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.mark.usefixtures("in_process")
def test_the_outputs_are_those_of_the_design(studies: Path, tmp_path: Path) -> None:
    result = _run(studies, tmp_path / "out")
    out = result.out
    knees = read_table(out / "knees.parquet", KNEES)
    assert knees["knee_id"].tolist() == [
        f"demo:{subject}:{months}:{side}"
        for subject, months, sides in [
            ("9000017", 0, ("R", "L")),
            ("9000034", 0, ("R", "L")),
            ("9000017", 48, ("R", "L")),
            ("9000017", 48, ("R:2", "L:2")),
        ]
        for side in sides
    ]
    assert knees["source"].tolist()[::2] == [
        "V00/9000017.dcm",
        "V00/9000034.dcm",
        "V06/000001",
        "V06/again.dcm",
    ]
    assert set(knees["spacing_source"]) == {"DETECTOR"}
    for row in knees.itertuples():
        with Image.open(out / row.image_path) as picture:
            assert picture.size == (140, 140)
            assert np.asarray(picture).dtype == np.uint16
            assert not picture.text  # type: ignore[attr-defined]
    rejects = read_table(out / "rejects.csv", REJECTS)
    assert dict(zip(rejects["source"], rejects["code"], strict=True)) == {
        "V06/broken.dcm": "E_NOT_PROJECTION_XR",
        "V06/empty.dcm": "E_EMPTY",
    }
    assert result.counts == {"films": 6, "knees": 8, "rejects": 2, "not_dicom": 2}
    assert result.failed == 2
    visible = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert visible == {"knees.parquet", "rejects.csv", "images", "qc", "config.yaml"}
    with Image.open(out / "qc" / "contact_sheet.png") as sheet:
        assert np.asarray(sheet).std() > 20


@pytest.mark.usefixtures("in_process")
def test_an_interrupted_run_resumes_to_the_same_files(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after two films, and a journal whose last line was cut off by it."""
    whole = _run(studies, tmp_path / "whole").out
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        append = journal.JournalWriter.append

        def interrupted(writer: journal.JournalWriter, record: Any) -> None:
            append(writer, record)
            if record.source.startswith("V00/9000034"):
                raise KeyboardInterrupt

        patch.setattr(journal.JournalWriter, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _run(studies, out)
    assert not (out / "knees.parquet").exists()
    (torn,) = (out / journal.FILMS_FOLDER).glob("*.jsonl")
    with torn.open("a") as stream:
        stream.write('{"source": "V06/000001", "kne')
    done: list[str] = []
    with monkeypatch.context() as patch:
        work = engine.work
        patch.setattr(engine, "work", lambda task: done.append(task.source) or work(task))
        _run(studies, out, resume=True)
    assert done == ["V06/000001", "V06/again.dcm", "V06/broken.dcm", "V06/empty.dcm"]
    assert _contents(out) == _contents(whole)


@pytest.mark.usefixtures("in_process")
def test_a_lost_image_is_made_again_on_resume(studies: Path, tmp_path: Path) -> None:
    out = _run(studies, tmp_path / "out").out
    before = _contents(out)
    (out / "images" / "demo_9000034_0_L.png").unlink()
    _run(studies, out, resume=True)
    assert _contents(out) == before


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("change", ["film", "cohort", "ids", "config"])
def test_a_run_is_not_resumed_with_other_input(studies: Path, tmp_path: Path, change: str) -> None:
    films = shutil.copytree(studies, tmp_path / "films")
    out = _run(films, tmp_path / "out").out
    before = _contents(out)
    arguments: dict[str, Any] = {"resume": True}
    if change == "film":
        _write(films / "V00" / "new.dcm")
    elif change == "cohort":
        arguments["cohort"] = COHORT.model_copy(update={"visits": {"V00": 0}})
    elif change == "ids":
        key = tmp_path / "my.key"
        key.write_text("ab" * 32)
        arguments["ids"] = str(key)
    else:
        arguments["config"] = CONFIG.model_copy(update={"crop_mm": 120.0})
    with pytest.raises(ConfigError, match="changed since the interrupted run"):
        _run(films, out, **arguments)
    assert _contents(out) == before


def test_workers_and_their_number_change_nothing(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel = _run(studies, tmp_path / "parallel", jobs=2).out
    monkeypatch.setattr(engine, "run_films", _serially)
    serial = _run(studies, tmp_path / "serial").out
    assert _contents(parallel) == _contents(serial)


@pytest.mark.usefixtures("in_process")
def test_nothing_personal_is_in_any_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names are planted in paths and headers, and searched for in all that is written."""
    films, out = tmp_path / "films", tmp_path / "out"
    secret = "Zelenka"
    personal = {
        "PatientID": f"{secret}-1955",
        "PatientName": f"{secret}^Maria",
        "PatientBirthDate": "19550417",
        "StudyDate": "20040611",
        "InstitutionName": f"{secret} Hospital",
        "SeriesDescription": f"{secret} PA fixed flexion",
    }
    _write(films / secret / "V00" / f"{secret}.dcm", **personal)
    _write(films / secret / f"{secret}.{secret}", **personal)
    _write(films / f"{secret}_ct.dcm", **(personal | {"Modality": "CT"}))
    (films / f"{secret}_none.dcm").write_bytes(b"")
    result = _run(films, out, ids=None)
    assert result.counts["knees"] == 4
    written = (
        b"".join(name.encode() + content for name, content in _contents(out).items())
        + "".join(capfd.readouterr()).encode()
    )
    for planted in (secret, secret.lower(), "1955", "20040611", "Maria"):
        assert planted.encode() not in written
    key = tmp_path / "out.key"
    assert result.outputs["key"] == key
    assert key.stat().st_mode & 0o077 == 0
    assert key.read_bytes().strip() not in written


@pytest.mark.usefixtures("in_process")
def test_a_key_file_gives_the_same_identifiers_in_every_run(studies: Path, tmp_path: Path) -> None:
    first = _run(studies, tmp_path / "first", ids=None)
    again = _run(studies, tmp_path / "again", ids=str(first.outputs["key"]))
    tables = [pd.read_parquet(result.outputs["knees"]) for result in (first, again)]
    pd.testing.assert_frame_equal(*tables)
    assert "9000017" not in tables[0].to_csv()
    assert not (tmp_path / "again.key").exists()


@pytest.mark.usefixtures("in_process")
def test_file_names_stay_apart_where_identifiers_differ_only_in_odd_characters(
    tmp_path: Path,
) -> None:
    for index, subject in enumerate(["A 1", "A_1", "a_1", "../../A 1"]):
        _write(tmp_path / "films" / f"{index}.dcm", PatientID=subject)
    out = _run(tmp_path / "films", tmp_path / "out").out
    knees = pd.read_parquet(out / "knees.parquet")
    assert knees["knee_id"].is_unique
    assert knees["image_path"].str.casefold().is_unique
    assert {path.parent for path in out.rglob("*_0_R*.png")} == {out / "images"}


@pytest.mark.usefixtures("in_process")
def test_films_of_nobody_in_particular_are_kept_apart_as_copies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / "films" / f"{name}.dcm", PatientID=None, ClinicalTrialTimePointID=None)
    out = _run(tmp_path / "films", tmp_path / "out", cohort=None).out
    knees = pd.read_parquet(out / "knees.parquet")
    assert knees["knee_id"].tolist() == ["-:-:-:R", "-:-:-:L", "-:-:-:R:2", "-:-:-:L:2"]
    assert knees["months"].isna().all()
    assert knees["qc_flags"].str.contains("subject_unknown").all()


@pytest.mark.usefixtures("in_process")
def test_films_of_the_same_pixels_are_flagged_whatever_their_names(tmp_path: Path) -> None:
    """A copy under another subject and in another encoding; a film of its own is left alone."""
    films = tmp_path / "films"
    _write(films / "a.dcm")
    copy = phantoms.dataset(phantoms.stored(FILM), **MM, PatientID="9000034")
    phantoms.write(copy, films / "b.dcm", syntax=RLELossless)
    other = phantoms.knee_film(spacing_mm=(1.0, 1.0), seed=9)
    phantoms.write_film(films / "c.dcm", film=other, **MM, PatientID="9000051")
    knees = pd.read_parquet(_run(films, tmp_path / "out").out / "knees.parquet")
    is_flagged = knees["qc_flags"].str.split(";").map(lambda flags: "duplicate_pixels" in flags)
    assert dict(zip(knees["source"], is_flagged, strict=True)) == {
        "a.dcm": True,
        "b.dcm": True,
        "c.dcm": False,
    }


@pytest.mark.usefixtures("in_process")
def test_a_film_in_the_place_of_another_is_flagged(tmp_path: Path) -> None:
    films = FilmsSpec(path_pattern=r"(?P<visit>V\d\d)/(?P<subject>\d{7})")
    cohort = COHORT.model_copy(update={"films": films})
    _write(tmp_path / "films" / "V00" / "9000017.dcm")
    _write(tmp_path / "films" / "V00" / "9000034.dcm", PatientID="9000051")
    result = _run(tmp_path / "films", tmp_path / "out", cohort=cohort)
    knees = pd.read_parquet(result.outputs["knees"])
    is_flagged = knees["qc_flags"].str.contains("identity_conflict")
    assert dict(zip(knees["subject_id"], is_flagged, strict=True)) == {
        "9000017": False,
        "9000034": True,
    }


@pytest.mark.usefixtures("in_process")
def test_a_film_of_a_visit_that_the_cohort_does_not_list_is_flagged(tmp_path: Path) -> None:
    films = FilmsSpec(path_pattern=r"(?P<visit>V\d\d)/(?P<subject>\d{7})")
    cohort = COHORT.model_copy(update={"films": films})
    for visit in ("V00", "V99"):
        _write(tmp_path / "films" / visit / "9000017.dcm")
    result = _run(tmp_path / "films", tmp_path / "out", cohort=cohort)
    knees = pd.read_parquet(result.outputs["knees"])
    is_flagged = knees["qc_flags"].str.contains("visit_unlisted")
    assert dict(zip(knees["source"], is_flagged, strict=True)) == {
        "V00/9000017.dcm": False,
        "V99/9000017.dcm": True,
    }


@pytest.mark.usefixtures("in_process")
def test_films_of_the_same_instance_uid_are_flagged(tmp_path: Path) -> None:
    """The UID should name one film in the world; a PACS that hands out two is worth a look."""
    for index, uid in enumerate(["1.2.3", "1.2.3", "1.2.4"]):
        film = phantoms.knee_film(spacing_mm=(1.0, 1.0), seed=index)
        own = {"PatientID": f"900000{index}", "SOPInstanceUID": uid}
        phantoms.write_film(tmp_path / "films" / f"{index}.dcm", film=film, **MM, **own)
    knees = pd.read_parquet(_run(tmp_path / "films", tmp_path / "out").out / "knees.parquet")
    is_flagged = knees["qc_flags"].str.contains("duplicate_instance")
    assert dict(zip(knees["source"], is_flagged, strict=True)) == {
        "0.dcm": True,
        "1.dcm": True,
        "2.dcm": False,
    }


@pytest.mark.usefixtures("in_process")
def test_a_run_whose_films_are_all_refused_still_writes_its_tables(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "empty.dcm").write_bytes(b"")
    result = _run(tmp_path / "films", tmp_path / "out")
    assert (result.counts["knees"], result.failed) == (0, 1)
    assert len(read_table(tmp_path / "out" / "knees.parquet", KNEES)) == 0


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("detector", "is_told"), [("auto", True), ("profile", False)])
def test_the_weaker_detector_is_told_of_unless_it_was_asked_for(
    studies: Path, tmp_path: Path, detector: str, is_told: bool
) -> None:
    config = CONFIG.model_copy(update={"detector": detector})
    result = _run(studies / "V00" / "9000017.dcm", tmp_path / "out", config=config)
    assert any("kneeoa-mm[yolo]" in note for note in result.notes) is is_told


@pytest.mark.usefixtures("in_process")
def test_a_single_film_may_be_named_instead_of_a_folder(studies: Path, tmp_path: Path) -> None:
    result = _run(studies / "V00" / "9000017.dcm", tmp_path / "out")
    assert pd.read_parquet(result.outputs["knees"])["source"].unique() == ["9000017.dcm"]


@pytest.mark.parametrize("content", [None, [], ["notes.txt", "table.csv"]])
def test_a_place_without_films_is_refused_before_anything_is_written(
    tmp_path: Path, content: list[str] | None
) -> None:
    films = tmp_path / "films"
    if content is not None:
        films.mkdir()
        for name in content:
            (films / name).write_text("no film")
    with pytest.raises(InputError, match="no films"):
        _run(films, tmp_path / "out", ids=None)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.key").exists()


def test_another_run_is_not_overwritten_and_gets_no_new_key(studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.docx").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError):
            _run(studies, out, ids=None, overwrite=overwrite)
    assert _contents(out) == {"thesis.docx": b"years of work"}
    assert not (tmp_path / "out.key").exists()


@pytest.mark.usefixtures("in_process")
def test_a_run_is_not_replaced_by_one_that_would_read_from_it(
    studies: Path, tmp_path: Path
) -> None:
    out = _run(studies, tmp_path / "out").out
    before = _contents(out)
    with pytest.raises(ConfigError, match="would delete"):
        _run(out / "images", out, overwrite=True)
    assert _contents(out) == before


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs symbolic links")
@pytest.mark.usefixtures("in_process")
def test_linked_folders_are_not_followed(studies: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    _write(films / "9000017.dcm")
    (films / "loop").symlink_to(films, target_is_directory=True)
    (films / "elsewhere").symlink_to(studies, target_is_directory=True)
    assert _run(films, tmp_path / "out").counts["films"] == 1
