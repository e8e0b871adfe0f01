"""Small studies, and whole runs of ``preprocess`` here or in a process of their own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import phantoms
import pytest

from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.imaging import engine
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.records import StageResult
from kneeoa_mm.settings import PreprocessConfig

FILM = phantoms.knee_film(spacing_mm=(1.0, 1.0))
CONFIG = PreprocessConfig(pixel_spacing_mm=1.0, detector="profile")
OPTIONS = (
    *("--ids", "keep", "--cohort", "synthetic"),
    *("--set", "pixel_spacing_mm=1.0", "--set", "detector=profile"),
)
"""The same on the command line."""
HANG_S = 600
"""Only what hangs takes so long, on however busy a machine."""


def write_film(path: Path, **elements: Any) -> Path:
    """A film of one millimetre a pixel: its knees cost little."""
    film = elements.pop("film", FILM)
    return phantoms.write_film(path, film=film, **{"ImagerPixelSpacing": [1.0, 1.0], **elements})


def write_studies(root: Path, *, people: int = 6) -> Path:
    """Films of some people at two visits, a copy of one, and three files that are rejected."""
    for number in range(people):
        for seed, visit in enumerate(("V00", "V06"), start=2 * number):
            write_film(
                root / visit / f"{9000017 + number}.dcm",
                film=phantoms.knee_film(spacing_mm=(1.0, 1.0), seed=seed),
                PatientID=str(9000017 + number),
                ClinicalTrialTimePointID=visit,
            )
    # of the first person, at another visit
    write_film(root / "V06" / "again.dcm", film=FILM, ClinicalTrialTimePointID="V06")
    write_film(root / "V03" / "ct.dcm", Modality="CT")
    (root / "V03" / "empty.dcm").write_bytes(b"")
    (root / "V03" / "torn.dcm").write_bytes((root / "V06" / "again.dcm").read_bytes()[:30_000])
    (root / "notes.txt").write_text("no film")
    return root


_PROGRAM = """
import signal
# a shell's background jobs, and all that they start, ignore Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
from kneeoa_mm.cli import main
main()
"""


def command(studies: Path, out: Path, *options: str) -> list[str]:
    """The command line of a run, as ``run`` with its defaults."""
    arguments = ["preprocess", str(studies), "--out", str(out), *OPTIONS, *options]
    return [sys.executable, "-c", _PROGRAM, *arguments]


def run(studies: Path, out: Path, **options: Any) -> StageResult:
    """The same in this process, and without workers; test_runner has those."""
    settings = {"config": CONFIG, "cohort": read_cohort_spec("synthetic"), "ids": "keep"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_films", serially)
        return preprocess(studies, out, **{**settings, **options})  # type: ignore[arg-type]


def serially(
    work: Callable[[Any], Any], tasks: Iterable[Any], **_: Any
) -> Generator[Any, None, None]:
    """What stands in for ``runner.run_films``."""
    yield from map(work, tasks)


def start(studies: Path, out: Path, *options: str, **settings: Any) -> subprocess.Popen[str]:
    """A run in a process of its own, which goes on by itself."""
    return subprocess.Popen(
        command(studies, out, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def recorded(out: Path) -> int:
    """Films that a run has recorded so far."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob(".films/*.jsonl"))


def wait_for(out: Path, films: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has recorded so many films."""
    end = time.monotonic() + HANG_S
    while recorded(out) < films:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the run does not start"
        time.sleep(0.01)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
