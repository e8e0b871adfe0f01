"""Whatever ends a run, the next one goes on, and nobody can tell from the result."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import nights
import pytest

from kneeoa_mm.errors import KneeOAError, OutputExistsError
from kneeoa_mm.imaging import assembly, journal

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nights.write_studies(tmp_path_factory.mktemp("studies"), people=8)


@pytest.fixture(scope="module")
def whole(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    nights.run(studies, out)
    return nights.contents(out)


@posix
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 130), ("SIGKILL", -9)])
def test_a_signal_loses_nothing_and_leaves_no_worker(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, number: str, code: int
) -> None:
    """Ctrl-C, the end of a batch job's time, and kill -9, each at a film of its own."""
    out = tmp_path / "out"
    process = nights.start(studies, out, "--jobs", "2")
    nights.wait_for(out, random.Random(number).randrange(1, 12), process)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(OutputExistsError, match=f"process {process.pid}"):
        nights.run(studies, out, resume=True)
    workers = _children(process.pid)
    process.send_signal(getattr(signal, number))
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=nights.HANG_S)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert not (out / "knees.parquet").exists()
    assert (out / ".lock").exists() == (number == "SIGKILL")
    _assert_gone(workers)
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


@posix
def test_a_full_disk_stops_the_run_and_the_rest_is_done_when_there_is_room(
    studies: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for the disk: no image fits under it."""
    import resource

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

    out = tmp_path / "out"
    process = nights.start(studies, out, preexec_fn=fill)
    _, stderr = process.communicate(timeout=nights.HANG_S)
    assert process.returncode == 1
    assert "make room" in stderr
    assert "Traceback" not in stderr
    assert not list(out.rglob("*.png"))
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


@pytest.mark.parametrize("step", ["finish", "place_images", "write_tables", "clear"])
@pytest.mark.parametrize("calls", ["before", "after"])
def test_a_run_that_ends_while_it_is_put_together_is_put_together_by_the_next(
    studies: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    calls: str,
) -> None:
    out = tmp_path / "out"
    owner: Any = journal.Journal if step in {"finish", "clear"} else _stage()
    with monkeypatch.context() as patch:
        _break(patch, owner, step, after=calls == "after")
        with pytest.raises(KneeOAError, match="make room"):
            nights.run(studies, out)
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


def test_images_half_of_which_have_their_names_are_all_found_again(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two renames; then an image is lost, and killed again on the way back."""
    out = tmp_path / "out"
    place, withdraw = assembly.place_images, assembly.withdraw_images
    for name, move, lost in (
        ("place_images", place, None),
        ("withdraw_images", withdraw, "synthetic_9000019_0_R.png"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(assembly if lost else _stage(), name, _half(move))
            if lost is not None:
                (out / "images" / lost).unlink()
            with pytest.raises(KneeOAError, match="make room"):
                nights.run(studies, out, resume=out.exists())
    nights.run(studies, out, resume=True)
    assert nights.contents(out) == whole


def test_a_drive_that_goes_away_stops_the_run_and_condemns_no_film(
    studies: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive, out = tmp_path / "drive", tmp_path / "out"
    shutil.copytree(studies, drive)
    append = journal.JournalWriter.append

    def unplug(writer: journal.JournalWriter, record: Any) -> None:
        append(writer, record)
        if record.source == "V00/9000019.dcm":
            drive.rename(tmp_path / "elsewhere")

    with monkeypatch.context() as patch:
        patch.setattr(journal.JournalWriter, "append", unplug)
        with pytest.raises(KneeOAError, match="bring the drive back"):
            nights.run(drive, out)
    (tmp_path / "elsewhere").rename(drive)
    nights.run(drive, out, resume=True)
    assert nights.contents(out) == whole


def _stage() -> Any:

    return sys.modules["kneeoa_mm.imaging.preprocess"]


def _break(patch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool) -> None:
    """Let the disk fill up just before or after a step."""
    whole = getattr(owner, name)

    def broken(*arguments: Any, **named: Any) -> Any:
        if after:
            whole(*arguments, **named)
        raise OSError(28, "No space left on device")

    patch.setattr(owner, name, broken)


def _half(move: Any) -> Any:
    def moved(knees: Any, *others: Any) -> None:
        move(knees[: len(knees) // 2], *others)
        raise OSError(28, "No space left on device")

    return moved


def _children(pid: int) -> list[int]:
    if sys.platform != "linux":
        return []
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def _assert_gone(pids: list[int]) -> None:
    end = time.monotonic() + nights.HANG_S
    while alive := [pid for pid in pids if _is_alive(pid)]:
        assert time.monotonic() < end, f"still there: {alive}"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
