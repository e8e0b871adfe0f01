"""A run that goes on: it tries again what may do better, and mixes in no film that changed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nights
import pandas as pd
import phantoms
import pydicom
import pytest

from kneeoa_mm.errors import ConfigError, ItemError, MissingExtraError
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.records import StageResult

PEOPLE = 3
BLIP = "V00/9000018.dcm"
"""The film that something happens to."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nights.write_studies(tmp_path_factory.mktemp("studies"), people=PEOPLE)


@pytest.fixture(scope="module")
def whole(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    nights.run(original, out)
    return nights.contents(out)


@pytest.fixture
def studies(original: Path, tmp_path: Path) -> Path:
    """A copy of the films, with their times, to be changed."""
    return shutil.copytree(original, tmp_path / "studies")


def _replace(film: Path) -> None:
    """Another film of just as many bytes."""
    size = film.stat().st_size
    pixels = phantoms.knee_film(spacing_mm=(1.0, 1.0), seed=99)
    nights.write_film(film, film=pixels, PatientID="9000018", ClinicalTrialTimePointID="V00")
    assert film.stat().st_size == size


def _codes(result: StageResult) -> list[str]:
    return pd.read_csv(result.out / "rejects.csv").set_index("source")["code"].get([BLIP], [])


@pytest.mark.parametrize("is_joined", [False, True])
def test_a_film_that_was_replaced_by_one_of_the_same_size_is_named(
    studies: Path, tmp_path: Path, is_joined: bool
) -> None:
    """Else knees of the old film and of the new one would stand in one table."""
    out = tmp_path / "out"
    nights.run(studies, out, **({"shard": "1/1"} if is_joined else {}))
    _replace(studies / BLIP)
    before = nights.contents(out)
    with pytest.raises(ConfigError, match=f"1 films of other content .{BLIP}"):
        nights.run(studies, out, resume=True)
    assert nights.contents(out) == before


def test_films_are_read_again_only_where_their_time_changed(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the studies may have new times and be the same; 30,000 films are not read twice."""
    out = nights.run(studies, tmp_path / "out").out
    os.utime(studies / BLIP, (10**9, 10**9))
    opened: list[str] = []
    open_path = Path.open

    def watched(path: Path, *arguments: Any, **named: Any) -> Any:
        opened.append(path.name)
        return open_path(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", watched)
        nights.run(studies, out, resume=True)
    assert [name for name in opened if name.endswith(".dcm")] == [Path(BLIP).name]
    assert nights.contents(out) == whole


def test_the_time_of_a_film_is_in_no_output(studies: Path, tmp_path: Path) -> None:
    """It may be the day of the examination."""
    seconds = 1_086_912_000
    for film in studies.rglob("*.dcm"):
        os.utime(film, (seconds, seconds))
    out = nights.run(studies, tmp_path / "out").out
    assert str(seconds).encode() not in b"".join(nights.contents(out).values())


def _stale(patch: pytest.MonkeyPatch, owner: Any, name: str, film: str) -> None:
    """Let one film vanish under whoever reads it, as a network drive does."""
    read = getattr(owner, name)

    def failing(source: Any, *arguments: Any, **named: Any) -> Any:
        path = source if isinstance(source, Path) else source.name
        if str(path).endswith(film):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(source, *arguments, **named)

    patch.setattr(owner, name, failing)


@pytest.mark.parametrize("step", ["open", "header"])
def test_a_film_that_the_drive_hid_for_a_moment_is_read_on_resume(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, step: str
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        owner, name = (Path, "open") if step == "open" else (pydicom, "dcmread")
        _stale(patch, owner, name, BLIP)
        result = nights.run(studies, out)
    assert list(_codes(result)) == ["E_READ"]
    assert any("--resume tries them again" in note for note in result.notes)
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


@pytest.mark.parametrize("code", ["E_TIMEOUT", "E_CRASH"])
@pytest.mark.parametrize("shard", [None, "1/2"])
def test_a_film_whose_worker_failed_is_tried_again_on_resume(
    studies: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    shard: str | None,
) -> None:
    """A machine that was short of time or memory may have both the next night."""

    def failing(
        work: Callable[[Any], Any], tasks: Iterable[Any], **_: Any
    ) -> Generator[Any, None, None]:
        for task in tasks:
            yield ItemError(code, "", stage="worker") if task.source == BLIP else work(task)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(nights, "serially", failing)
        nights.run(studies, out, shard=shard)
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


def test_no_table_names_an_image_that_is_gone_while_a_film_is_tried_again(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in that film must not leave a folder that looks finished."""

    def failing(
        work: Callable[[Any], Any], tasks: Iterable[Any], **_: Any
    ) -> Generator[Any, None, None]:
        for task in tasks:
            yield ItemError("E_TIMEOUT", "", stage="worker") if task.source == BLIP else work(task)

    def interrupted(*_: Any, **__: Any) -> Generator[Any, None, None]:
        raise KeyboardInterrupt
        yield

    out = tmp_path / "out"
    for serially in (failing, interrupted):
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(nights, "serially", serially)
            nights.run(studies, out, resume=out.exists())
    assert not list((out / "images").glob("*.png"))
    left = [path for path in nights.contents(out) if path.startswith(("knees", "rejects", "qc"))]
    assert left == []
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


def test_names_stay_where_knees_are_taken_out(studies: Path, tmp_path: Path) -> None:
    """A film that came back could take the name of a knee that a reviewer excluded."""
    copy = studies / "V00" / "9000017.copy.dcm"
    shutil.copy(studies / "V00" / "9000017.dcm", copy)
    out, listed = tmp_path / "out", tmp_path / "exclude.csv"
    with pytest.MonkeyPatch.context() as patch:
        _stale(patch, Path, "open", copy.name)
        nights.run(studies, out)
    listed.write_text("knee_id\nsynthetic:9000017:0:L\n")
    taken_out = nights.run(studies, out, resume=True, exclude=listed)
    again = nights.run(studies, out, resume=True)
    for result in (taken_out, again):
        assert result.figures["rejects"]["E_READ"] == 1
        assert result.counts["excluded"] == 1


def test_films_that_all_lack_a_decoder_name_the_extra_and_are_done_when_it_is_there(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is damaged beside them makes it a batch with failures like any other."""

    def without(*_: Any) -> None:
        raise ItemError("E_NO_DECODER", "install the extra", stage="header")

    out, good = tmp_path / "out", studies / "V00"
    with monkeypatch.context() as patch:
        patch.setattr("kneeoa_mm.imaging.dicom._check_decoder", without)
        with pytest.raises(MissingExtraError, match=r"kneeoa-mm\[dicom\]"):
            nights.run(good, tmp_path / "few")
        assert nights.run(studies, out).counts["knees"] == 0
    assert nights.run(good, tmp_path / "few", resume=True).failed == 0
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


def test_films_that_differ_in_the_case_of_their_suffix_are_all_recorded(tmp_path: Path) -> None:
    """Hashed names that were the same would leave one of them undone for ever."""
    for number, name in enumerate(["IM1.DCM", "IM1.dcm"]):
        nights.write_film(tmp_path / "films" / name, PatientID=f"900001{number}")
    if len(list((tmp_path / "films").iterdir())) == 1:
        pytest.skip("this file system knows no case")
    result = nights.run(tmp_path / "films", tmp_path / "out", ids=None)
    assert result.counts["knees"] == 4
    assert pd.read_parquet(result.outputs["knees"])["source"].nunique() == 2


def test_workers_tell_a_film_of_another_content(studies: Path, tmp_path: Path) -> None:
    """The same through the pickles and journals of real workers."""
    options: dict[str, Any] = {"config": nights.CONFIG, "ids": "keep", "jobs": 2}
    preprocess(studies, tmp_path / "out", **options)
    _replace(studies / BLIP)
    with pytest.raises(ConfigError, match="other content"):
        preprocess(studies, tmp_path / "out", resume=True, **options)
